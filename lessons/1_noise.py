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
# # 1. Noise
#
# A diffusion model learns to undo noise. So we begin with the noise: what it does to data, and how
# fast. One forward step shrinks the data a little and adds a little Gaussian noise (Ho et al. 2020,
# arXiv 2006.11239, eq. 2):
#
# $$x_t = \sqrt{1 - \beta_t}\,x_{t-1} + \sqrt{\beta_t}\,\epsilon, \qquad \epsilon \sim N(0, I).$$
#
# A sum of independent Gaussians is Gaussian. So any number of steps can be taken at once (eq. 4):
#
# $$x_t = \alpha_t x_0 + \sigma_t \epsilon, \qquad
#   \alpha_t^2 = \bar\alpha_t = \prod_{s \le t} (1 - \beta_s), \qquad
#   \sigma_t^2 = 1 - \bar\alpha_t.$$
#
# If the data have variance 1, every $x_t$ has variance 1 as well. The share $\bar\alpha_t$ of this
# variance is signal, and the rest is noise.

# %%
import math

import torch
from classroom import attempt, compare, effort, show
from matplotlib.figure import Figure

from dataset import Normaliser, make_dataset
from diffusion import DiffusionModel
from schedule import CosineNoiseScheduler, LinearNoiseScheduler, evenly_spaced
from viz.colours import hex_colour, noise_colours

# %% [markdown]
# ## Predict
#
# The betas grow linearly, from almost 0 to their largest value at the last of the T steps. **After
# what share of the steps is half of the variance noise?** Write a number between 0 and 1 before you
# continue.

# %%
prediction = None

# %% [markdown]
# ## Measure
#
# We add noise to two moons and use the points alone: the squared correlation of $x_t$ with $x_0$ is
# the share of the variance that is signal.

# %%
T = 1000
model = DiffusionModel(T)
scheduler = LinearNoiseScheduler(T)  # the process that the model uses by default
moons = make_dataset("moons", effort(20_000, 5_000), 0, noise=0.05)
normaliser = Normaliser.fit_dataset(moons)
x_0 = normaliser.normalise(moons[:][0])


def signal_share(t: int) -> float:
    """The squared correlation of x_t with x_0."""
    x_t, _ = model.forward_diffusion(x_0, t)
    return float((x_t * x_0).mean() ** 2)


steps = evenly_spaced(0, T - 1, effort(500, 100))
measured = next(t for t in steps if signal_share(t) < 0.5) / T

# %% [markdown]
# ## The exact answer
#
# With many small steps the product becomes an integral. Let u run from 0 to 1, and let the betas
# run from $a / T$ to $b / T$ (Song et al. 2021, arXiv 2011.13456, appendix C, eq. 33):
#
# $$\log \bar\alpha(u) = -\int_0^u (a + (b - a)\,v)\,dv = -a u - (b - a)\,u^2 / 2.$$
#
# Set this to $-\log 2$ and solve the quadratic equation.

# %%
a = T * float(scheduler.betas[0])
b = T * float(scheduler.betas[-1])
exact = (-a + math.sqrt(a**2 + 2 * (b - a) * math.log(2))) / (b - a)
print("share of the steps until half of the variance is noise")
compare(prediction, measured=measured, exact=exact)

# %% [markdown]
# The exponent grows with the *square* of u. So most of the signal is lost early, and the later
# steps add noise to noise.
#
# The upper row below shows the moons as points. The lower row shows the exact density that they are
# drawn from. `mixture` is a `GaussianMixture`, and a mixture remains one under noise: each centre
# is multiplied by $\alpha_t$, and each variance v becomes $\alpha_t^2 v + \sigma_t^2$.

# %%
assert moons.mixture is not None
mixture = moons.mixture.scaled(normaliser.mean, normaliser.std)
side = torch.linspace(-3, 3, 120)
grid = torch.cartesian_prod(side, side)
figure = Figure(figsize=(12, 5.2), layout="constrained")
upper, lower = figure.subplots(2, 5)
for column, t in enumerate([0, T // 20, int(exact * T), T // 2, T - 1]):
    alpha, sigma = scheduler.alpha_sigma_at(t)
    x_t, _ = model.forward_diffusion(x_0[:2000], t)
    upper[column].scatter(*x_t.T, s=1, color=hex_colour(noise_colours(sigma)))
    title = f"after {t + 1} of {T} steps:\n{alpha**2:.1%} of the variance is signal"
    upper[column].set_title(title, fontsize=9)
    density = mixture.noised(alpha, sigma).log_density(grid).exp().view(120, 120).T
    lower[column].imshow(density, origin="lower", extent=(-3, 3, -3, 3), cmap="Greys")
for ax in (*upper, *lower):
    ax.set(xlim=(-3, 3), ylim=(-3, 3), xticks=[], yticks=[], aspect="equal")
upper[0].set_ylabel("2000 points")
lower[0].set_ylabel("exact density")
show(figure, "1_noise")

# %% [markdown]
# ## A common mistake
#
# The textbook betas are meant for a thousand steps. With the same betas and a tenth of the steps,
# $x_T$ is not noise, and the schedule warns:

# %%
textbook = LinearNoiseScheduler(100, beta_start=1e-4, beta_end=0.02)
print("a common mistake, 100 steps with the textbook betas of 1000:")
print(f"  {textbook.signal_warning()}")

# %% [markdown]
# ## Exercise 1: from any step to any later one
#
# Write $x_t = a\,x_s + b\,\epsilon$ for two steps s < t, using only the four numbers $\alpha_s,
# \sigma_s, \alpha_t, \sigma_t$. (Substitute $x_s = \alpha_s x_0 + \sigma_s \epsilon'$. What must a
# be, and how much variance is missing?)


# %%
def jump(alpha_s: float, sigma_s: float, alpha_t: float, sigma_t: float) -> tuple[float, float]:
    """(a, b) of x_t = a x_s + b eps."""
    raise NotImplementedError


def check_jump(jump) -> None:
    for process in (LinearNoiseScheduler(1000), CosineNoiseScheduler(50)):
        for s, t in ((0, 1), (3, 30), (20, 45)):
            a, b = jump(*process.alpha_sigma_at(s), *process.alpha_sigma_at(t))
            true_a, true_b = process.transition(s, t)
            keeps = f"x_{t} must keep {true_a:.4f} of x_{s}, and yours {a:.4f}"
            needs = f"x_{t} needs {true_b:.4f} fresh noise, and yours has {b:.4f}"
            assert math.isclose(a, true_a, rel_tol=1e-9), keeps
            assert math.isclose(b, true_b, rel_tol=1e-6), needs


attempt(1, check_jump, jump)

# %% [markdown]
# ## Exercise 2: your own schedule
#
# Nichol and Dhariwal (2021, arXiv 2102.09672, eq. 17) choose $\bar\alpha_t$ and compute the betas
# from it. Find the betas.


# %%
def betas_of(alpha_bar: torch.Tensor) -> torch.Tensor:
    """The betas (T,) whose products are alpha_bar (T,). All of alpha_bar is below 1."""
    raise NotImplementedError


def check_betas_of(betas_of) -> None:
    for process in (LinearNoiseScheduler(100), CosineNoiseScheduler(20)):
        betas = betas_of(process.alphas_cumprod)
        count = len(process.betas)
        assert betas.shape == (count,), f"{count} steps need as many betas, not {len(betas)}"
        wrong = (betas - process.betas).abs() > 1e-9
        first = int(wrong.float().argmax())
        assert not wrong.any(), f"the beta of step {first} is wrong (and {int(wrong.sum())} in all)"


attempt(2, check_betas_of, betas_of)
