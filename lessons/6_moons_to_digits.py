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
# So far everything was about points in a plane. What has to change for images? And which denoiser
# is the best, if we do not know the exact distribution of the digits and have only a table of them?

# %%
from functools import partial

import torch
from classroom import attempt, compare, effort, image_grid, show, training_steps
from matplotlib.figure import Figure
from torch import Tensor

from dataset import DataSet, Normaliser, make_sets
from diffusion import Prediction, exact_denoiser
from loader import batches, make_loader
from loss.objective import training_loss
from pipeline import Pipeline, build
from points.mixture import GaussianMixture
from runtime.randomness import generator
from samplers import SamplingOptions, last, sample
from train import learning_rate
from training.learner import Learner
from training.noise import Noise
from training.optimizers import make_optimizers
from viz.colours import CLASSES

# %% [markdown]
# ## Only options change
#
# `learn` contains the main calls of `train.py`, for points and for images. Only options differ.

# %%
BOTH = {"num_timesteps": 1000, "beta_start": None, "beta_end": None}
BOTH |= {"label_dropout": 0.1, "t_power": 1.0, "batches": "shuffled"}
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
    """A trained model, its training data, and data that it has never seen. 0: moons, 1: digits."""
    o = BOTH | {name: pair[which] for name, pair in OPTIONS.items()}
    torch.manual_seed(0)
    data, unseen = make_sets(n_samples=o["num_samples"], seed=0, **o["dataset"])
    normaliser = Normaliser.fit_dataset(data)
    net, scheduler = build(o, tuple(normaliser.mean.shape), len(data.classes))
    pipeline = Pipeline(net, scheduler, normaliser, o, data.classes)
    loss_of = partial(training_loss, net, scheduler, target=o["model"]["prediction"])
    optimizers = make_optimizers(net, "muon", lr=o["lr"], weight_decay=0.01)
    learner = Learner(net, optimizers, ema_decay=None)
    noise = Noise(pipeline, 0, o["batch_size"])
    loader = make_loader(data, batch_size=o["batch_size"], seed=0)
    for step, batch in zip(training_steps(o["steps"], o["dataset"]["name"]), batches(loader)):
        lr = learning_rate(step, o["steps"], 30, o["lr"])
        learner.learn(loss_of, noise.added(step, *batch), lr)
    pipeline.net = learner.average.module
    return pipeline.ready(torch.device("cpu")), data, unseen


of_moons, _, _ = learn(0)
of_digits, digits, unseen = learn(1)

# %% [markdown]
# ## Predict
#
# On a table of images, the denoiser with the least loss is the posterior mean over it (lesson 2).
# **What share of the samples of this best denoiser are copies of training images?**

# %%
prediction = None

# %% [markdown]
# ## Measure, and the exact answer
#
# `GaussianMixture(table)` is a point mass on each image, and `exact_denoiser` is its best denoiser.
# The exact flow ends in the data, and the data are the table. So the exact answer is known.

# %%
COPY = 0.01  # a distance on a range from -1 to 1 that nobody would see
table = digits[:][0].flatten(1)
best_of_rows = exact_denoiser(GaussianMixture(table), of_digits.scheduler)
count = effort(200, 20)


def best(x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
    """The exact denoiser of images (B, C, H, W)."""
    eps, x_0 = best_of_rows(x_t.flatten(1), t)
    return Prediction(eps.view_as(x_t), x_0.view_as(x_t))


def nearest(images: Tensor) -> tuple[Tensor, Tensor]:
    """The root mean square distance to the nearest training image, and its number: (B,) each."""
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
compare(prediction, **{"exact, of the best denoiser": 1.0} | copies)  # 1 by the theorem above
for name, images in made.items():
    print(f"{name}: median distance to the nearest training image {nearest(images)[0].median():.2f}")

# %% [markdown]
# The denoiser with the least loss only makes copies. A network makes new digits *because* it is not
# the best denoiser of its table. What it produces between the images is what we want.

# %%
figure = Figure(figsize=(11, 3.4), layout="constrained")
left, right = figure.subplots(1, 2, width_ratios=(1, 1.6))
asked = torch.arange(2000) % 2
points = last(of_moons.states(2000, PLAIN, labels=asked, seed=0))
left.scatter(*points.T, s=1, c=[CLASSES[k] for k in asked])
left.set(aspect="equal", xlabel="x, normalised", ylabel="y, normalised")
left.set_title("moons by the network")
copied, new = made["best denoiser"][:10], made["network"][:10]
rows = [copied, digits[nearest(copied)[1]][0], new, digits[nearest(new)[1]][0]]
right.imshow(image_grid(rows), cmap="gray")
right.set_yticks([4.5, 14.5, 24.5, 34.5], ["best denoiser", "nearest", "network, 0 .. 9", "nearest"])
right.set(xticks=[], title="generated digits, and the nearest training images")
show(figure, "6_moons_to_digits")

# %% [markdown]
# ## Exercise 1: keep pixels within their range
#
# Pixels lie in [-1, 1], but a prediction of $x_0$ may not. Clamp it to this range, and change
# $\epsilon$ so that still $x_t = \alpha x_0 + \sigma \epsilon$.


# %%
def keep_within(x_t: Tensor, x_0: Tensor, alpha: float, sigma: float) -> tuple[Tensor, Tensor]:
    """(eps, x_0) with x_0 in [-1, 1]."""
    raise NotImplementedError


def check_keep_within(keep_within) -> None:
    x_t = 2 * torch.randn(4, 1, 3, 3, generator=generator(0, "check"))
    for alpha, sigma in ((0.99, 0.14), (0.6, 0.8)):
        eps, x_0 = keep_within(x_t, 2 * x_t, alpha, sigma)
        ends = f"x_0 goes from {float(x_0.min()):.2f} to {float(x_0.max()):.2f}"
        assert torch.equal(x_0, (2 * x_t).clamp(-1, 1)), f"{ends}, and is not 2 x_t, clamped"
        off = float((alpha * x_0 + sigma * eps - x_t).abs().max())
        assert off < 1e-5, f"at alpha = {alpha}, sigma = {sigma} the two give x_t only to {off:.2g}"


attempt(1, check_keep_within, keep_within)

# %% [markdown]
# ## Exercise 2: drop labels
#
# For guidance, a network must predict with and without labels (lesson 5). So in training each row
# loses its label with some probability, and gets the null label: one more than the last label.


# %%
def drop_labels(label: Tensor, share: float, num_labels: int, g: torch.Generator) -> Tensor:
    """Labels (B,), a share of them replaced by the null label; use torch.rand(..., generator=g)."""
    raise NotImplementedError


def check_drop_labels(drop_labels) -> None:
    label = torch.arange(30_000) % 10
    dropped = drop_labels(label.clone(), 0.2, 10, generator(0, "check"))
    assert (dropped[dropped != label] == 10).all(), "a dropped label must become 10, the null label"
    for k in range(10):
        share = float((dropped[label == k] == 10).float().mean())
        assert abs(share - 0.2) < 0.04, f"label {k} is dropped in {share:.0%} of rows, not in 20%"


attempt(2, check_drop_labels, drop_labels)
