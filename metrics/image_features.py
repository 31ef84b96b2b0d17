"""The feature classifier: a small network, trained on the training images, for image metrics."""

import hashlib
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from images.sets import ImageSet
from runtime import checkpoint_file
from runtime.progress import progress_bar
from runtime.randomness import generator, integer_seed

RECIPE = 1  # part of a saved classifier's name: raise it when the network or its training changes
SEED_PURPOSE = "judge"  # seeds all random numbers here: another word would change the results
FEATURES = 64
BATCH = 128
PEAK_LEARNING_RATE = 4e-3
EPOCHS = 4  # the length of the training, within these limits:
MIN_IMAGES_SEEN = 60_000  # images seen in a training, repeated ones included
MAX_IMAGES = 250_000
SHIFT_DIVISOR = 14  # training images are shifted by up to a fourteenth of their height


# ---------------------------------------------------------------- the network


class FeatureClassifier(nn.Module):
    """A small classifier of images: three convolutions, 64 features, K logits.

    It takes images of shape (B, C, H, W) and any size, with values in [-1, 1].
    """

    def __init__(self, dims: tuple[int, int, int], num_labels: int) -> None:
        super().__init__()
        channels, height, width = dims
        # Three convolutions of stride 2 halve each side three times, rounding up.
        cells = -(-height // 8) * -(-width // 8)
        self.body = nn.Sequential(
            *_convolution(channels, 32, 5),
            *_convolution(32, 64, 5),
            *_convolution(64, 64, 3),
            nn.Flatten(),
            nn.Linear(64 * cells, FEATURES, bias=False),
            # With variance 1 for every feature, distances have one unit for all data and networks.
            nn.BatchNorm1d(FEATURES, affine=False),
        )
        self.head = nn.Linear(FEATURES, num_labels)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return features of shape (B, 64) and logits of shape (B, K).

        The features are those before the last nonlinearity, where they are closer to Gaussian.
        """
        features = self.body(images)
        return features, self.head(F.relu(features))


def _convolution(inputs: int, outputs: int, size: int) -> list[nn.Module]:
    """Return a convolution of stride 2, its batch normalisation and a ReLU."""
    convolution = nn.Conv2d(inputs, outputs, size, stride=2, padding=size // 2, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]


# ---------------------------------------------------------------- the saved classifier


def feature_classifier(
    data: ImageSet,
    *,
    seed: int = 0,
    folder: str | Path = "outputs/classifiers",
    device: str | torch.device = "cpu",
) -> FeatureClassifier:
    """Return the classifier for these training images, in evaluation mode.

    It is trained the first time, and read from `folder` afterwards. The name of its file is a
    checksum of images, labels, seed and recipe. If the file is damaged, the classifier is trained
    again.

    Raises:
        ValueError: the images have no labels, or a single class.
    """
    net = _untrained(data, seed)
    path = Path(folder) / f"{_checksum(data, seed)}.classifier"
    try:
        net.load_state_dict(checkpoint_file.load(path)["classifier"])
    except FileNotFoundError:
        print(f"training a feature classifier, once for this data (saved in {folder})")
    except (ValueError, KeyError, RuntimeError, OSError) as error:
        print(f"training the feature classifier again: {error}")
    else:
        return net.to(device).eval()

    net = train_classifier(data, seed=seed, device=device)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        checkpoint_file.save(path, {"classifier": net.state_dict()})
    except OSError as error:  # the evaluation can go on without the file
        print(f"the feature classifier could not be saved: {error}")
    return net


def _checksum(data: ImageSet, seed: int) -> str:
    """Return a checksum of the images, their labels, the seed and the recipe."""
    facts = (RECIPE, seed, tuple(data.dims), data.num_labels)
    digest = hashlib.sha256(repr(facts).encode())
    for part in chain(data.blocks(), [check_labels(data)]):
        digest.update(part.numpy().tobytes())
    return digest.hexdigest()[:16]


def check_labels(data: ImageSet) -> Tensor:
    """Return the labels, of shape (N,).

    Raises:
        ValueError: there are none, or a single class.
    """
    if data.labels is None or data.num_labels < 2:
        advice = "put the images of each class into a folder of their own"
        raise ValueError(f"evaluating images needs labels: {advice}")
    return data.labels


# ---------------------------------------------------------------- the training


def train_classifier(
    data: ImageSet,
    *,
    seed: int,
    device: str | torch.device = "cpu",
) -> FeatureClassifier:
    """Train a classifier on all images, each randomly shifted a little, and return it.

    On the same machine the result is the same for the same data and seed.
    """
    net = _untrained(data, seed).to(device).train()
    batches = _order(len(data), seed)
    optimizer = torch.optim.AdamW(net.parameters(), PEAK_LEARNING_RATE, fused=True)
    steps = len(batches)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, total_steps=steps)
    progress = progress_bar(batches, "training the classifier", total=steps)
    for step, rows in enumerate(progress):
        images, labels = data[rows]
        images = _shifted(images, generator(seed, f"{SEED_PURPOSE} shift", step))
        _, logits = net(images.to(device))
        loss = F.cross_entropy(logits, labels.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net.eval()


def _untrained(data: ImageSet, seed: int) -> FeatureClassifier:
    """Return a classifier with its initial weights, and leave torch's global generator
    unchanged."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(integer_seed(seed, f"{SEED_PURPOSE} weights"))
        return FeatureClassifier(data.dims, data.num_labels)


def _order(n: int, seed: int) -> list[Tensor]:
    """Return the row numbers of each training step: shuffled epochs, cut into full batches.

    A smaller batch at the end is left out, because batch normalisation cannot use a single image.
    """
    batch = min(BATCH, n)
    total = min(max(EPOCHS * n, MIN_IMAGES_SEEN), MAX_IMAGES)
    epochs = []
    for i in range(-(-total // n)):
        epochs.append(torch.randperm(n, generator=generator(seed, f"{SEED_PURPOSE} order", i)))
    kept = total // batch * batch
    return list(torch.cat(epochs)[:kept].split(batch))


def _shifted(images: Tensor, g: torch.Generator) -> Tensor:
    """Return the batch, shifted in both directions by up to 2 pixels in 28, and at least by up to
    1."""
    height, width = images.shape[-2:]
    largest = max(1, height // SHIFT_DIVISOR)
    top, left = torch.randint(2 * largest + 1, (2,), generator=g).tolist()
    padded = F.pad(images, [largest] * 4, mode="replicate")
    return padded[..., top : top + height, left : left + width]


# ---------------------------------------------------------------- features


@torch.no_grad()
def extract_features(net: FeatureClassifier, chunks: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Return features (N, 64) in float64 and predicted labels (N,) of images, both on the CPU.

    Values outside [-1, 1] are clamped, as they are when an image is saved or displayed.

    Args:
        net: the classifier.
        chunks: the images, some at a time, each of shape (B, C, H, W).
    """
    device = next(net.parameters()).device
    features = []
    predicted = []
    for chunk in chunks:
        chunk_features, logits = net(chunk.to(device).clamp(-1, 1))
        features.append(chunk_features.cpu().double())
        predicted.append(logits.argmax(1).cpu())
    return torch.cat(features), torch.cat(predicted)
