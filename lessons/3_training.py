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
# # 3. Training
#
# Now a network learns what lesson 2 computed exactly. The loss is the squared error of the
# predicted noise, at a random step of a random point (Ho et al. 2020, arXiv 2006.11239, eq. 14):
#
# $$L = E\,|\epsilon - \epsilon_\theta(\alpha_t x_0 + \sigma_t \epsilon,\, t)|^2.$$
#
# The loss falls, and then it stops falling. Is the network good by then? The loss alone does not
# tell; its Bayes floor does.

# %%
import time

import torch
from classroom import attempt, compare, effort, show, training_steps
from matplotlib.figure import Figure

from dataset import Normaliser, make_dataset
from diffusion import denoiser, prediction_target
from loss.objective import draw_steps, loss_weights, training_loss
from metrics.bayes import bayes_floor, excess, make_probes
from model import build_model
from runtime import device
from runtime.randomness import generator
from schedule import CosineNoiseScheduler, LinearNoiseScheduler
from training.optimizers import make_optimizers
from viz.colours import ERROR, GENERATED, hex_colour

device.use_threads(None, images=False)
torch.manual_seed(0)
T = 1000
BATCH = 512
STEPS = effort(1500, 60)
LR = 8e-3

# %% [markdown]
# ## Predict
#
# A network that always answers 0 has a loss of 1. Ours is small and is trained for some seconds.
# **At which loss will the training end?** And when the loss no longer falls, which part of it is
# due to the network?

# %%
prediction = None

# %% [markdown]
# ## The whole training
#
# Every step uses fresh points, so nothing can be memorised. Each step draws a batch, a step t for
# each row (evenly spread) and noise, and computes the loss and its gradient. From time to time we
# measure the *excess* $E\,|\epsilon_\theta - E[\epsilon \mid x_t]|^2$, the distance from the best
# denoiser. By Pythagoras' theorem the expected loss is exactly the floor plus the excess.

# %%
moons = make_dataset("moons", 20_000, 0, noise=0.05)
normaliser = Normaliser.fit_dataset(moons)  # to mean 0 and variance 1
assert moons.mixture is not None
mixture = moons.mixture.scaled(normaliser.mean, normaliser.std)
scheduler = LinearNoiseScheduler(T)
net = build_model("mlp", (2,), T, hidden=96, layers=4, frequencies=3)
optimizers = make_optimizers(net, "muon", lr=LR, weight_decay=0.01)
denoise = denoiser(net, scheduler, "eps")
probes = make_probes(mixture, scheduler, num_steps=50, num_points=100, seed=0)

losses = []
excess_after = {}  # the number of steps -> the excess
begin = time.perf_counter()
for step in training_steps(STEPS, "moons"):
    g = generator(0, "noise", step)
    x_0 = mixture.sample(BATCH, g).float()
    t = draw_steps(T, BATCH, 1.0, g)
    eps = torch.randn(BATCH, 2, generator=g)
    loss = training_loss(net, scheduler, x_0, t, eps, target="eps").ordinary.mean()
    net.zero_grad()
    loss.backward()
    for optimizer in optimizers:
        optimizer.param_groups[0]["lr"] = LR * (1 - step / STEPS)  # falls to 0
        optimizer.step()
    losses.append(loss.item())
    if step % (STEPS // 30) == 0 or step == STEPS - 1:
        by_step = excess(denoise, probes, torch.device("cpu"))
        excess_after[step + 1] = float(by_step.mean())
seconds = time.perf_counter() - begin
print(f"{sum(p.numel() for p in net.parameters()):,} weights, {STEPS} steps, {seconds:.1f} s")

# %% [markdown]
# ## The exact answer

# %%
floor = bayes_floor(mixture, scheduler)
remaining = excess_after[STEPS]
measured = sum(losses[-(STEPS // 10) :]) / (STEPS // 10)
print("loss at the end (mean over the last tenth of the steps)")
compare(prediction, measured=measured, exact_floor=floor, excess_of_the_network=remaining)
share = remaining / (floor + remaining)
print(f"{share:.2%} of that loss is due to the network, the rest to the data")

figure = Figure(figsize=(10.5, 4), layout="constrained")
left, right = figure.subplots(1, 2)
purple, blue = (hex_colour(colour) for colour in (ERROR, GENERATED))
left.plot(range(1, STEPS + 1), losses, lw=0.5, color=blue, label="loss of a batch")
left.axhline(floor, color=purple, ls="--", label="Bayes floor, exact")
left.set(xlabel="step", ylabel="mean squared error of eps", ylim=(0, 1))
left.set_title("the loss seems to stop ...")
right.plot(*zip(*excess_after.items()), "o-", ms=3, color=blue, label="excess over the floor")
right.set(xlabel="step", ylabel="mean squared error above the floor", yscale="log")
right.set_title("... while the network continues to learn")
for ax in (left, right):
    ax.legend(frameon=False)
show(figure, "3_training")

# %% [markdown]
# Two conclusions hold for practice, where no floor is known. A loss that no longer falls does not
# mean that the network no longer learns. And losses can be compared only for equal data, schedule
# and weights, because each of these has its own floor.
#
# ## Exercise 1: write the loss
#
# Write eq. 14 for a batch: the squared error, averaged over everything. (The steps differ from row
# to row. `scheduler.alpha` and `scheduler.sigma` are tables of length T in float64, and x_0 has
# shape (B, d).)


# %%
def simple_loss(net, scheduler, x_0, t, eps) -> torch.Tensor:
    """L of eq. 14: a network net(x_t, t), data (B, d), steps (B,) and noise (B, d) -> ()."""
    raise NotImplementedError


def check_simple_loss(simple_loss) -> None:
    g = generator(0, "check")
    scheduler = CosineNoiseScheduler(100)
    net = lambda x_t, t, label=None: torch.sin(3 * x_t) + t[:, None] / 100  # noqa: E731
    for rows in (2, 5):  # with as many rows as coordinates a wrong axis would not be noticed
        x_0 = torch.randn(rows, 2, generator=g)
        eps = torch.randn(rows, 2, generator=g)
        t = draw_steps(100, rows, 1.0, g)
        loss = simple_loss(net, scheduler, x_0, t, eps)
        assert loss.shape == (), f"the loss is one number, not of shape {tuple(loss.shape)}"
        ours = float(loss)
        true = float(training_loss(net, scheduler, x_0, t, eps).ordinary.mean())
        assert abs(ours - true) < 1e-5, f"for {rows} rows it is {true:.4f}, not {ours:.4f}"


attempt(1, check_simple_loss, simple_loss)

# %% [markdown]
# ## Exercise 2: another target, the same loss
#
# A network may predict $x_0$ instead. Given $x_t$, an error d of $x_0$ implies an error of
# $\epsilon$. How large is it? Find the weight of the squared error of $x_0$ at each step that makes
# the loss eq. 14 again.


# %%
def weight_of_x0(alpha: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Weights (T,) of the squared error of x_0 with which the loss is that of eps."""
    raise NotImplementedError


def check_weight_of_x0(weight_of_x0) -> None:
    for process in (LinearNoiseScheduler(1000), CosineNoiseScheduler(30)):
        ours = weight_of_x0(process.alpha, process.sigma)
        true = loss_weights(process, "x0", "eps")
        x_t, x_0 = torch.tensor(0.3), torch.tensor(0.9)  # x_0 is predicted; eps goes with it
        target = prediction_target("x0")
        eps = target.prediction(x_0, x_t, process.alpha, process.sigma).eps
        shifted = target.prediction(x_0 + 1, x_t, process.alpha, process.sigma).eps
        assert torch.allclose((shifted - eps) ** 2, true), "moonwalk is wrong here: please tell us"
        t = int(((ours / true).log().abs()).argmax())
        at_t = f"at step {t} the weight is {float(true[t]):.4g}, not {float(ours[t]):.4g}"
        assert torch.allclose(ours, true), at_t


attempt(2, check_weight_of_x0, weight_of_x0)
