# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 6. From moons to digits
#
# Everything so far was about points in a plane. What has to change for images? And one thing is new: the exact
# distribution of digits is unknown, all we have is a table of them. So what is the best denoiser *now*?

# %%
from functools import partial

import torch
from classroom import attempt, compare, effort, show
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import pad

from dataset import DataSet, Normaliser, make_sets
from diffusion import Prediction, exact_denoiser
from loader import batches, make_loader
from loss.objective import training_loss
from pipeline import Pipeline, build
from points.mixture import GaussianMixture
from runtime.randomness import generator
from samplers import last, sample
from samplers.options import SamplingOptions
from train import learning_rate
from training.learner import Learner
from training.noise import Noise
from training.optimizers import make_optimizers
from viz.colours import CLASSES

# %% [markdown]
# ## Only options change
#
# `learn` is the heart of `train.py`, the same calls for both; what differs are options. Points and images differ in
# their shape, and only the network has to know anything of that.

# %%
BOTH = {"num_timesteps": 1000, "beta_start": None, "beta_end": None, "label_dropout": 0.1, "t_power": 1.0}
MLP = {"name": "mlp", "hidden": 96, "layers": 4, "frequencies": 3, "prediction": "v"}
UNET = {"name": "unet_small", "channels": [32, 64], "blocks": 1, "patch": 1, "prediction": "v"}
OPTIONS = {  # of moons, of digits
    "dataset": ({"name": "moons", "noise": 0.05}, {"name": "digits"}),
    "model": (MLP, UNET),
    "schedule": ("linear", "cosine"),
    "num_samples": (20_000, None),  # None: all there are
    "batch_size": (512, 32),
    "lr": (8e-3, 1.5e-3),
    "steps": (effort(1000, 40), effort(1500, 10)),
}


def learn(which: int) -> tuple[Pipeline, DataSet, DataSet]:
    """A trained model, the data that it was trained on, and data that it has never seen; 0 for moons, 1 for digits."""
    o = BOTH | {name: pair[which] for name, pair in OPTIONS.items()}
    torch.manual_seed(0)
    data, unseen = make_sets(n_samples=o["num_samples"], seed=0, **o["dataset"])
    normaliser, target = Normaliser.of(data), o["model"]["prediction"]
    net, scheduler = build(o, tuple(normaliser.mean.shape), len(data.classes))
    pipeline = Pipeline(net, scheduler, normaliser, o, data.classes)
    loss_of = partial(training_loss, net, scheduler, target=target)
    learner = Learner(net, make_optimizers(net, "muon", lr=o["lr"], weight_decay=0.01), ema_decay=None)
    noise = Noise(pipeline, 0, o["batch_size"])
    for step, batch in zip(range(o["steps"]), batches(make_loader(data, batch_size=o["batch_size"], seed=0))):
        lr = learning_rate(step, o["steps"], 30, o["lr"])
        learner.learn(loss_of, noise.added(step, *batch), lr)
    pipeline.net = learner.average.module
    return pipeline.ready(torch.device("cpu")), data, unseen


(of_moons, _, _), (of_digits, digits, unseen) = learn(0), learn(1)

# %% [markdown]
# ## Predict
#
# Lesson 2 says which denoiser has the least loss on a table of images: the posterior mean over that table. It is the
# goal of the training above. **What share of the samples of this best denoiser are copies of training images?**

# %%
prediction = None

# %% [markdown]
# ## Measure, and the exact answer
#
# `GaussianMixture(table)`, of images as rows of pixels, is a point mass on each image, and `exact_denoiser` its best
# denoiser. Where it leads to, theory says: the exact flow ends in the data, and the data are the table.

# %%
table, COPY = digits[:][0].flatten(1), 0.01  # a distance, of a range from -1 to 1, that no eye would see
best_of_rows, count = exact_denoiser(GaussianMixture(table), of_digits.scheduler), effort(200, 20)


def best(x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
    """The exact denoiser of images: pixels in a row and back."""
    return Prediction(*(part.view_as(x_t) for part in best_of_rows(x_t.flatten(1), t)))


def nearest(images: Tensor) -> tuple[Tensor, Tensor]:
    """How far the nearest training image is (root mean square over pixels), and which it is: (B,) each."""
    differences = images.flatten(1).float()[:, None] - table
    distance = differences.square().mean(2).sqrt()
    return distance.min(1).values, distance.argmin(1)


PLAIN = SamplingOptions("dpmpp_2m", 50, guidance=0.0)
x_T = torch.randn(count, *of_digits.dims, generator=generator(0, "sampling"))
made = {"best denoiser": last(sample(best, of_digits.scheduler, x_T, PLAIN))}
made["network"] = last(of_digits.states(count, PLAIN, labels="all", seed=0))
made["real, never trained on"] = unseen[:count][0]
print("share of copies of training images")
copies = {name: float((nearest(images)[0] < COPY).float().mean()) for name, images in made.items()}
compare(prediction, **{"exact, of the best denoiser": 1.0} | copies)  # a theorem, so no computation
for name, images in made.items():
    print(f"{name}: median distance to the nearest training image {float(nearest(images)[0].median()):.2f}")

# %% [markdown]
# The least loss belongs to a machine that copies. A network makes new digits *because* it is not the best denoiser of
# its table: it cannot draw sharp borders between so many images, and what it does between them is what we want.

# %%
figure = Figure(figsize=(11, 3.4), layout="constrained")
left, right = figure.subplots(1, 2, width_ratios=(1, 1.6))
asked = torch.arange(2000) % 2
colours = [CLASSES[k] for k in asked]
left.scatter(*last(of_moons.states(2000, PLAIN, labels=asked, seed=0)).T, s=1, c=colours)
left.set(aspect="equal", xticks=[], yticks=[], title="moons by the network of `learn(0)`")
rows = []
for name in ("best denoiser", "network"):
    rows += [made[name][:10, 0], digits[nearest(made[name][:10])[1]][0][:, 0]]
right.imshow(torch.cat([pad(row, (1, 1, 1, 1)).permute(1, 0, 2).flatten(1) for row in rows]), cmap="Greys")
names = ["best denoiser", "nearest training image", "network of `learn(1)`", "nearest training image"]
right.set_yticks([4.5, 14.5, 24.5, 34.5], names)
right.set(xticks=[], title="digits made, and what they may be copies of")
show(figure, "6_moons_to_digits")

# %% [markdown]
# ## Exercise 1: keep pixels within their range
#
# Pixels lie in [-1, 1], but a guess of $x_0$ may not. Cut it off there, and move $\epsilon$ along, so that both still
# make $x_t = \alpha x_0 + \sigma \epsilon$.


# %%
def keep_within(x_t: Tensor, x_0: Tensor, alpha: float, sigma: float) -> tuple[Tensor, Tensor]:
    """(eps, x_0) with x_0 in [-1, 1]."""
    raise NotImplementedError


def check_keep_within(keep_within) -> None:
    x_t = 2 * torch.randn(4, 1, 3, 3, generator=generator(0, "check"))
    for alpha, sigma in ((0.99, 0.14), (0.6, 0.8)):
        eps, x_0 = keep_within(x_t, 2 * x_t, alpha, sigma)
        ends = f"x_0 goes from {float(x_0.min()):.2f} to {float(x_0.max()):.2f}"
        assert torch.equal(x_0, (2 * x_t).clamp(-1, 1)), f"{ends}, and is not 2 x_t cut off at -1 and 1"
        off = float((alpha * x_0 + sigma * eps - x_t).abs().max())
        assert off < 1e-5, f"at alpha = {alpha}, sigma = {sigma} the two do not make x_t: they are {off:.2g} off"


attempt(1, check_keep_within, keep_within)

# %% [markdown]
# ## Exercise 2: drop labels
#
# For guidance (lesson 5) one network must know the noise with and without a label. So in training each row loses its
# label with some probability, by itself: in its place comes the null label, one more than the last real one.


# %%
def drop_labels(label: Tensor, share: float, num_labels: int, g: torch.Generator) -> Tensor:
    """Labels (B,) of 0 .. num_labels - 1, on average a share of them replaced; torch.rand(..., generator=g)."""
    raise NotImplementedError


def check_drop_labels(drop_labels) -> None:
    label = torch.arange(30_000) % 10
    dropped = drop_labels(label.clone(), 0.2, 10, generator(0, "check"))
    assert (dropped[dropped != label] == 10).all(), "a label that is dropped must become 10, the null label"
    for k in range(10):
        share = float((dropped[label == k] == 10).float().mean())
        assert abs(share - 0.2) < 0.04, f"label {k} is dropped in {share:.0%} of its rows, and it should be in 20%"


attempt(2, check_drop_labels, drop_labels)
