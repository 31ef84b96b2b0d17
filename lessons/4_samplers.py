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
# # 4. Samplers and their order
#
# A denoiser defines a flow from noise to data. In the coordinates $\bar x = x_t / \alpha$ and
# $\bar\sigma = \sigma / \alpha$ it is an ordinary differential equation (Song, Meng and Ermon 2021,
# arXiv 2010.02502, eq. 14):
#
# $$\frac{d\bar x}{d\bar\sigma} = E[\epsilon \mid x_t].$$
#
# A deterministic sampler is a numerical solver of this equation. With n evaluations of the
# denoiser, a solver of **order p** has an error of about $C\,n^{-p}$. DDIM (their eq. 12) is
# Euler's method, of order 1. DPM-Solver++(2M) (Lu et al. 2022, arXiv 2211.01095, algorithm 2) has
# order 2. Adams' method (`samplers/multistep.py`) has order 3. At equal n all cost the same.

# %%
import math

import torch
from classroom import attempt, compare, effort, show
from matplotlib.figure import Figure

from dataset import make_dataset
from diffusion import exact_denoiser
from metrics.flow_map import exact_flow, slope
from points.mixture import GaussianMixture
from runtime.randomness import generator
from samplers import SamplingOptions, last, sample, sampler_timesteps
from schedule import LinearNoiseScheduler
from viz.colours import PALETTE, hex_colour

FEW = 20  # evaluations

# %% [markdown]
# ## Predict
#
# Adams' method gets 20 evaluations (`FEW`). **How many evaluations does DDIM need to end as close to
# the end of the flow?**

# %%
prediction = None

# %% [markdown]
# ## Measure
#
# The data are drawn from three Gaussians, and we use their *exact* denoiser. So the whole error is
# the sampler's. T is large, so that a solver can choose its steps freely. `exact_flow` integrates
# the flow with high precision, and so computes where each noise ends. (Exercise 2 checks it with a
# formula.)

# %%
mixture = make_dataset("gaussians", 1, 0, noise=0.3, modes=3).mixture
assert mixture is not None
scheduler = LinearNoiseScheduler(20_000)
denoise = exact_denoiser(mixture, scheduler)
x_T = torch.randn(effort(200, 50), 2, generator=generator(0, "sampling"), dtype=torch.float64)
truth = exact_flow(mixture.denoise, scheduler, x_T)[0]


def error(sampler: str, evaluations: int) -> float:
    """The median distance of the samples from the end of the flow."""
    options = SamplingOptions(sampler=sampler, sampling_steps=evaluations)
    x = last(sample(denoise, scheduler, x_T, options))
    return float((x - truth).norm(dim=1).median())


ORDERS = {"ddim": 1, "dpmpp_2m": 2, "adams": 3}
counts = [7, 10, 14, 20, 28, 40, 57, 80, 113, 160]
errors = {name: [error(name, n) for n in counts] for name in ORDERS}

# %% [markdown]
# ## The exact answer
#
# On logarithmic axes $C\,n^{-p}$ is a straight line of slope -p. The function `slope` fits p by
# least squares.

# %%
figure = Figure(figsize=(7, 4.6), layout="constrained")
ax = figure.add_subplot()
for colour, (name, order) in zip(PALETTE, ORDERS.items()):
    rgb = hex_colour(colour)
    measured = slope(counts, errors[name])
    print(f"{name:<9} order {order}, measured slope {measured:.2f}")
    line = [errors[name][-1] * (counts[-1] / n) ** order for n in counts]
    label = f"{name}: slope {measured:.2f}, order {order}"
    ax.loglog(counts, errors[name], "o", color=rgb, label=label)
    ax.loglog(counts, line, "--", lw=1, color=rgb)
ax.set_xlabel("evaluations of the denoiser")
ax.set_ylabel("median distance from the end of the exact flow")
ax.set_xticks([10, 20, 40, 80, 160], ["10", "20", "40", "80", "160"])
ax.set_title("dashed: straight lines of exactly the order")
ax.legend(frameon=False)
show(figure, "4_samplers")

# %% [markdown]
# DDIM has order 1. So its error falls by some ratio if its number of evaluations grows by the same
# ratio. This predicts how many evaluations DDIM needs. We try that number.

# %%
wanted = error("adams", FEW)
needed = round(counts[-1] * errors["ddim"][-1] / wanted)
print(f"evaluations that DDIM needs to be as good as Adams' method with {FEW}")
compare(prediction, by_its_order=needed)
found = error("ddim", needed)
print(f"with so many its error is {found:.2g}, and that of Adams' method was {wanted:.2g}")

# %% [markdown]
# With a trained network the error stops falling at the network's own error, which no solver can
# reduce. (`python compare.py` draws both.)
#
# ## Exercise 1: write DDIM
#
# Go through the steps. At each t ask the denoiser for its predictions of $\epsilon$ and $x_0$. Then
# combine the same two with the alpha and sigma of the next step (DDIM, eq. 12 without fresh noise).
# After the last step come clean data, where alpha is 1 and sigma 0.


# %%
def my_ddim(denoise, scheduler, x: torch.Tensor, timesteps: list[int]) -> torch.Tensor:
    """Samples from x at timesteps[0].

    Use denoise(x, torch.tensor(t)) -> (eps, x_0) and scheduler.alpha_sigma_at(t).
    """
    raise NotImplementedError


def check_my_ddim(my_ddim) -> None:
    process = LinearNoiseScheduler(100)
    mixture = GaussianMixture(torch.tensor([[-1.0, 0.0], [1.0, 0.5]]), 0.1)
    denoise = exact_denoiser(mixture, process)
    x_T = torch.randn(20, 2, generator=generator(0, "check")).double()
    for n in (1, 2, 10):
        options = SamplingOptions(sampler="ddim", sampling_steps=n)
        true = last(sample(denoise, process, x_T, options))
        ours = my_ddim(denoise, process, x_T, sampler_timesteps(process, options))
        off = float((ours - true).abs().max())
        assert off < 1e-6, f"with {n} evaluations a sample is {off:.2g} off"


attempt(1, check_my_ddim, my_ddim)

# %% [markdown]
# ## Exercise 2: a flow that has a formula
#
# For data $N(0, s^2)$ we have $E[\epsilon \mid x_t] = \bar\sigma\,\bar x / (s^2 + \bar\sigma^2)$.
# Separate the variables and integrate from $\bar\sigma = \sigma_T / \alpha_T$ down to 0. Where does
# $x_T$ end?


# %%
def end_of_flow(x_T: torch.Tensor, alpha_T: float, sigma_T: float, s: float) -> torch.Tensor:
    """The clean point to which the flow carries each x_T, for data N(0, s^2)."""
    raise NotImplementedError


def check_end_of_flow(end_of_flow) -> None:
    x_T = torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None]
    cases = [(LinearNoiseScheduler(100), 0.5), (LinearNoiseScheduler(100, 1e-4, 0.02), 2.0)]
    for process, s in cases:
        alpha, sigma = process.alpha_sigma_at(99)
        gaussian = GaussianMixture(torch.zeros(1, 1), s**2)
        true = exact_flow(gaussian.denoise, process, x_T)[0]
        off = float((end_of_flow(x_T, alpha, sigma, s) - true).abs().max())
        deviation = math.hypot(alpha * s, sigma)
        case = f"with s = {s} and a standard deviation of x_T of {deviation:.2f}"
        assert off < 1e-6, f"{case} a point is {off:.2g} off"


attempt(2, check_end_of_flow, end_of_flow)
