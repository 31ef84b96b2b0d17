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
# Now a network learns what lesson 2 could write down. The loss is the squared error of its guess of the noise, at a
# random step of a random point (Ho et al. 2020, arXiv 2006.11239, eq. 14):
#
# $$L = E\,|\epsilon - \epsilon_\theta(\alpha_t x_0 + \sigma_t \epsilon,\, t)|^2.$$
#
# It falls, then it stops falling. Is the network good by then? The loss alone cannot say; the Bayes floor can.

# %%
import time

import torch
from classroom import attempt, compare, effort, show
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
T, BATCH, STEPS, LR = 1000, 512, effort(1500, 60), 8e-3

# %% [markdown]
# ## Predict
#
# A network that always answers 0 has a loss of 1. Ours is small and trains for some seconds. **At which loss will it
# end?** And when it no longer falls, how much of what is left is the network's fault?

# %%
prediction = None

# %% [markdown]
# ## The whole training
#
# Fresh points in every step, so nothing can be learnt by heart. Each step: a batch, a step t for each row (spread
# evenly), noise, the loss, its gradient. Every now and then we measure the *excess* $E\,|\epsilon_\theta - E[\epsilon
# \mid x_t]|^2$, the distance from the best denoiser: the loss is the floor plus the excess, exactly, by Pythagoras.

# %%
moons = make_dataset("moons", 20_000, 0, noise=0.05)
normaliser = Normaliser.of(moons)  # to mean 0 and variance 1
assert moons.mixture is not None
mixture = moons.mixture.scaled(normaliser.mean, normaliser.std)
scheduler = LinearNoiseScheduler(T)
net = build_model("mlp", (2,), T, hidden=96, layers=4, frequencies=3)
optimizers = make_optimizers(net, "muon", lr=LR, weight_decay=0.01)
denoise, probes = denoiser(net, scheduler, "eps"), make_probes(mixture, scheduler, num_steps=50, num_points=100, seed=0)
losses, seen, clock = [], {}, time.perf_counter()
for step in range(STEPS):
    g = generator(0, "noise", step)
    x_0, t, eps = mixture.sample(BATCH, g).float(), draw_steps(T, BATCH, 1.0, g), torch.randn(BATCH, 2, generator=g)
    loss = training_loss(net, scheduler, x_0, t, eps, target="eps").ordinary.mean()
    net.zero_grad()
    loss.backward()
    for optimizer in optimizers:
        optimizer.param_groups[0]["lr"] = LR * (1 - step / STEPS)  # down to 0, so that the last steps come to rest
        optimizer.step()
    losses.append(loss.item())
    if step % (STEPS // 30) == 0 or step == STEPS - 1:
        seen[step + 1] = float(excess(denoise, probes, torch.device("cpu")).mean())
print(f"{sum(p.numel() for p in net.parameters()):,} weights, {STEPS} steps, {time.perf_counter() - clock:.1f} s")

# %% [markdown]
# ## The exact answer

# %%
floor, left = bayes_floor(mixture, scheduler), seen[STEPS]
print("loss at the end (mean over the last tenth of the steps)")
measured = sum(losses[-(STEPS // 10) :]) / (STEPS // 10)
compare(prediction, measured=measured, exact_floor=floor, excess_of_the_network=left)
print(f"of that loss the network is to blame for {left / (floor + left):.2%}; the rest is nobody's fault")

figure = Figure(figsize=(10.5, 4), layout="constrained")
both, alone = figure.subplots(1, 2)
both.plot(range(1, STEPS + 1), losses, lw=0.5, color=hex_colour(GENERATED), label="loss of a batch")
both.axhline(floor, color=hex_colour(ERROR), ls="--", label="Bayes floor, exact")
both.set(xlabel="step", ylabel="mean squared error of eps", ylim=(0, 1), title="the loss seems to stop ...")
alone.plot([*seen], [*seen.values()], "o-", ms=3, color=hex_colour(GENERATED), label="excess over the floor")
alone.set(xlabel="step", yscale="log", title="... while the network goes on learning")
for ax in (both, alone):
    ax.legend(frameon=False)
show(figure, "3_training")

# %% [markdown]
# Two lessons for real life, where no floor is known: a loss that stands still does not mean that learning does, and
# losses compare only at equal data, schedule and weights, because each of these has a floor of its own.
#
# ## Exercise 1: the loss by yourself
#
# Write eq. 14 for a batch: the squared error averaged over everything. (The steps differ from row to row:
# `scheduler.alpha` and `scheduler.sigma` are tables of length T in float64, and x_0 has shape (B, d).)


# %%
def simple_loss(net, scheduler, x_0: torch.Tensor, t: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
    """L of eq. 14: a network net(x_t, t), data (B, d), steps (B,) and noise (B, d) -> ()."""
    raise NotImplementedError


def check_simple_loss(simple_loss) -> None:
    g, scheduler = generator(0, "check"), CosineNoiseScheduler(100)
    net = lambda x_t, t, label=None: torch.sin(3 * x_t) + t[:, None] / 100  # noqa: E731
    for rows in (2, 5):  # as many rows as coordinates hides one famous mistake
        x_0, eps = (torch.randn(rows, 2, generator=g) for _ in range(2))
        t = draw_steps(100, rows, 1.0, g)
        ours, true = (
            simple_loss(net, scheduler, x_0, t, eps),
            training_loss(net, scheduler, x_0, t, eps).ordinary.mean(),
        )
        assert ours.shape == (), f"the loss is one number, not of shape {tuple(ours.shape)}"
        assert abs(float(ours) - float(true)) < 1e-5, f"for {rows} rows it is {float(true):.4f}, not {float(ours):.4f}"


attempt(1, check_simple_loss, simple_loss)

# %% [markdown]
# ## Exercise 2: another target, the same loss
#
# A network may predict $x_0$ instead. Given $x_t$, both guesses are wrong together: an error d of $x_0$ is an error
# of which size of $\epsilon$? Find the weight of the squared error of $x_0$ at each step that makes the loss eq. 14
# again.


# %%
def weight_of_x0(alpha: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Weights (T,) of |x_0 - guess|^2 with which the loss is that of eps."""
    raise NotImplementedError


def check_weight_of_x0(weight_of_x0) -> None:
    for process in (LinearNoiseScheduler(1000), CosineNoiseScheduler(30)):
        ours, true = weight_of_x0(process.alpha, process.sigma), loss_weights(process, "x0", "eps")
        x_t, x_0 = torch.tensor(0.3), torch.tensor(0.9)  # a guess of x_0, and the eps that goes with it
        eps = prediction_target("x0").prediction(x_0, x_t, process.alpha, process.sigma).eps
        shifted = prediction_target("x0").prediction(x_0 + 1, x_t, process.alpha, process.sigma).eps
        assert torch.allclose((shifted - eps) ** 2, true), "moonwalk itself is wrong here: please tell us"
        t = int(((ours / true).log().abs()).argmax())
        assert torch.allclose(ours, true), f"at step {t} the weight is {float(true[t]):.4g}, not {float(ours[t]):.4g}"


attempt(2, check_weight_of_x0, weight_of_x0)
