"""The feature classifier: a small network, trained once on the training images, whose features metrics use."""

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

RECIPE = 1  # part of a saved classifier's name: raise it whenever the network or its training changes
PURPOSE = "judge"  # seeds its random numbers; another word would give another classifier, and other results
FEATURES = 64
BATCH, PEAK_LEARNING_RATE = 128, 4e-3
EPOCHS, FEWEST_IMAGES, MOST_IMAGES = 4, 60_000, 250_000  # four epochs, but within these numbers of images


class FeatureClassifier(nn.Module):
    """A small classifier of images (B, C, H, W) in [-1, 1] of any size: three convolutions, 64 features, K logits."""

    def __init__(self, dims: tuple[int, int, int], num_labels: int) -> None:
        super().__init__()
        channels, height, width = dims
        cells = -(-height // 8) * -(-width // 8)  # each stride halves, rounding up
        self.body = nn.Sequential(
            *_convolution(channels, 32, 5), *_convolution(32, 64, 5), *_convolution(64, 64, 3), nn.Flatten(),
            # Variance 1 for every feature gives distances one unit, whatever the data and the network.
            nn.Linear(64 * cells, FEATURES, bias=False), nn.BatchNorm1d(FEATURES, affine=False),
        )  # fmt: skip
        self.head = nn.Linear(FEATURES, num_labels)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, 64), taken before the last nonlinearity: closer to Gaussian than after it; logits (B, K)."""
        features = self.body(images)
        return features, self.head(F.relu(features))


def _convolution(inputs: int, outputs: int, size: int) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, size, stride=2, padding=size // 2, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]


def feature_classifier(
    data: ImageSet, *, seed: int = 0, folder: str | Path = "outputs/classifiers", device: str | torch.device = "cpu"
) -> FeatureClassifier:
    """The classifier for these training images: trained the first time, then read from `folder`.

    Its file is named after a checksum of images, labels, seed and recipe. A damaged file means training it again.

    Raises:
        ValueError: the images have no labels, or a single class.
    """
    net, path = _untrained(data, seed), Path(folder) / f"{_checksum(data, seed)}.classifier"
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
    except OSError as error:  # the results are worth more than the file
        print(f"the feature classifier could not be saved: {error}")
    return net


def train_classifier(data: ImageSet, *, seed: int, device: str | torch.device = "cpu") -> FeatureClassifier:
    """Trained on all of `data`, randomly shifted a little; the same for the same (data, seed) on the same machine."""
    net = _untrained(data, seed).to(device).train()
    order = _order(len(data), seed)
    optimizer = torch.optim.AdamW(net.parameters(), PEAK_LEARNING_RATE, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, total_steps=len(order))
    for step, rows in enumerate(progress_bar(order, "training the classifier", total=len(order))):
        images, labels = data[rows]
        images = _shifted(images, generator(seed, f"{PURPOSE} shift", step))
        loss = F.cross_entropy(net(images.to(device))[1], labels.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net.eval()


def _untrained(data: ImageSet, seed: int) -> FeatureClassifier:
    with torch.random.fork_rng(devices=[]):  # nobody else's random numbers may depend on this
        torch.manual_seed(integer_seed(seed, f"{PURPOSE} weights"))
        return FeatureClassifier(data.dims, data.num_labels)


def _order(n: int, seed: int) -> list[Tensor]:
    """Row numbers for each step, epoch after epoch, in full batches (batch norm cannot use a single image)."""
    batch, total = min(BATCH, n), min(max(EPOCHS * n, FEWEST_IMAGES), MOST_IMAGES)
    epochs = [torch.randperm(n, generator=generator(seed, f"{PURPOSE} order", i)) for i in range(-(-total // n))]
    return list(torch.cat(epochs)[: total // batch * batch].split(batch))


def _shifted(images: Tensor, g: torch.Generator) -> Tensor:
    """The batch shifted by up to a fourteenth of its height (2 pixels in 28), and at least by up to 1."""
    height, width = images.shape[-2:]
    most = max(1, height // 14)
    top, left = torch.randint(2 * most + 1, (2,), generator=g).tolist()
    return F.pad(images, [most] * 4, mode="replicate")[..., top : top + height, left : left + width]


def _checksum(data: ImageSet, seed: int) -> str:
    digest = hashlib.sha256(repr((RECIPE, seed, tuple(data.dims), data.num_labels)).encode())
    for part in chain(data.blocks(), [check_labels(data)]):
        digest.update(part.numpy().tobytes())
    return digest.hexdigest()[:16]


def check_labels(data: ImageSet) -> Tensor:
    """The labels (N,). Raises ValueError where there are none, or only one class."""
    if data.labels is None or data.num_labels < 2:
        raise ValueError("evaluating images needs labels: put the images of each class into a folder of their own")
    return data.labels


@torch.no_grad()
def features_of(net: FeatureClassifier, chunks: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Features (N, 64) in float64 and predicted labels (N,) of images that come in chunks; both on the CPU.

    Values outside [-1, 1] are clamped, as they are when an image is saved or displayed.
    """
    device = next(net.parameters()).device
    outputs = [net(chunk.to(device).clamp(-1, 1)) for chunk in chunks]  # (B, 64), (B, K) each
    features = torch.cat([f.cpu().double() for f, _ in outputs])  # (N, 64)
    return features, torch.cat([logits.argmax(1).cpu() for _, logits in outputs])
