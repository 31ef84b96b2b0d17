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
# A denoiser defines a flow from noise to data. With $\bar x = x_t / \alpha$ and noise $\bar\sigma = \sigma / \alpha$
# it is an ordinary differential equation (Song, Meng and Ermon 2021, arXiv 2010.02502, eq. 14):
#
# $$\frac{d\bar x}{d\bar\sigma} = E[\epsilon \mid x_t].$$
#
# A deterministic sampler is a solver of it. With n evaluations of the denoiser a solver of **order p** makes an error
# of about $C\,n^{-p}$: DDIM (their eq. 12) is Euler's method, of order 1; DPM-Solver++(2M) (Lu et al. 2022, arXiv
# 2211.01095, algorithm 2) has order 2; Adams' method (`samplers/multistep.py`) has order 3. All cost the same.

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
# Adams' method gets `FEW` evaluations (see above). **How many does DDIM need to end as close to the end of the flow?**

# %%
prediction = None

# %% [markdown]
# ## Measure
#
# Data of three Gaussians, and their *exact* denoiser: what is wrong is then the sampler's fault alone. T is large, so
# that a solver may place its steps where it wants. Where each noise really ends, `exact_flow` knows, by an
# integration to many digits (in exercise 2 you check it by a formula).

# %%
mixture = make_dataset("gaussians", 1, 0, noise=0.3, modes=3).mixture
assert mixture is not None
scheduler = LinearNoiseScheduler(20_000)
denoise = exact_denoiser(mixture, scheduler)
x_T = torch.randn(effort(200, 50), 2, generator=generator(0, "sampling"), dtype=torch.float64)
truth = exact_flow(mixture.denoise, scheduler, x_T)[0]


def error(sampler: str, evaluations: int) -> float:
    """Half of the samples end farther than this from where the flow ends."""
    x = last(sample(denoise, scheduler, x_T, SamplingOptions(sampler=sampler, sampling_steps=evaluations)))
    return float((x - truth).norm(dim=1).median())


ORDERS = {"ddim": 1, "dpmpp_2m": 2, "adams": 3}
counts = [7, 10, 14, 20, 28, 40, 57, 80, 113, 160]
errors = {name: [error(name, n) for n in counts] for name in ORDERS}

# %% [markdown]
# ## The exact answer
#
# On logarithmic axes $C\,n^{-p}$ is a straight line of slope -p. `slope` fits it by least squares and turns its sign.

# %%
figure = Figure(figsize=(7, 4.6), layout="constrained")
ax = figure.add_subplot()
for colour, (name, order) in zip(PALETTE, ORDERS.items()):
    rgb = hex_colour(colour)
    measured = slope(counts, errors[name])
    print(f"{name:<9} order {order}, measured slope {measured:.2f}")
    ax.loglog(counts, errors[name], "o", color=rgb, label=f"{name}: slope {measured:.2f}, order {order}")
    ax.loglog(counts, [errors[name][-1] * (counts[-1] / n) ** order for n in counts], "--", lw=1, color=rgb)
ax.set(xlabel="evaluations of the denoiser", ylabel="median distance from the end of the exact flow")
ax.set(title="dashed: straight lines of exactly the order")
ax.legend(frameon=False)
show(figure, "4_samplers")

# %% [markdown]
# Order 1 tells how many evaluations DDIM needs: its error must fall by the ratio of the two errors, so its number of
# evaluations must grow by it. We let it have as many and look.

# %%
wanted = error("adams", FEW)
needed = round(counts[-1] * errors["ddim"][-1] / wanted)
print(f"evaluations that DDIM needs to be as good as Adams' method with {FEW}")
compare(prediction, by_its_order=needed)
print(f"with so many its error is {error('ddim', needed):.2g}, and that of Adams' method was {wanted:.2g}")

# %% [markdown]
# With a trained network there is an end to this: its own error, which no solver mends (`python compare.py` draws both).
#
# ## Exercise 1: DDIM by yourself
#
# Walk down the steps: at each t ask for the guesses, and put the same $x_0$ and $\epsilon$ together at the next step
# (DDIM, eq. 12 without fresh noise). After the last step come clean data: alpha is 1 there, and sigma 0.


# %%
def my_ddim(denoise, scheduler, x: torch.Tensor, timesteps: list[int]) -> torch.Tensor:
    """Samples from x at timesteps[0]; denoise(x, torch.tensor(t)) -> (eps, x_0); scheduler.alpha_sigma_at(t)."""
    raise NotImplementedError


def check_my_ddim(my_ddim) -> None:
    process = LinearNoiseScheduler(100)
    mixture = GaussianMixture(torch.tensor([[-1.0, 0.0], [1.0, 0.5]]), 0.1)
    denoise, x_T = exact_denoiser(mixture, process), torch.randn(20, 2, generator=generator(0, "check")).double()
    for n in (1, 2, 10):
        true = last(sample(denoise, process, x_T, SamplingOptions(sampler="ddim", sampling_steps=n)))
        off = float(
            (my_ddim(denoise, process, x_T, sampler_timesteps(process, SamplingOptions("ddim", n))) - true).abs().max()
        )
        assert off < 1e-6, f"with {n} evaluations a sample is {off:.2g} off"


attempt(1, check_my_ddim, my_ddim)

# %% [markdown]
# ## Exercise 2: a flow that has a formula
#
# Data $N(0, s^2)$: then $E[\epsilon \mid x_t] = \bar\sigma\,\bar x / (s^2 + \bar\sigma^2)$. Separate the variables,
# integrate from $\bar\sigma = \sigma_T / \alpha_T$ down to 0, and say where $x_T$ ends.


# %%
def end_of_flow(x_T: torch.Tensor, alpha_T: float, sigma_T: float, s: float) -> torch.Tensor:
    """The clean point to which the flow carries each x_T, for data N(0, s^2)."""
    raise NotImplementedError


def check_end_of_flow(end_of_flow) -> None:
    x_T = torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None]
    for process, s in ((LinearNoiseScheduler(100), 0.5), (LinearNoiseScheduler(100, 1e-4, 0.02), 2.0)):
        alpha, sigma = process.alpha_sigma_at(99)
        true = exact_flow(GaussianMixture(torch.zeros(1, 1), s**2).denoise, process, x_T)[0]
        ours = end_of_flow(x_T, alpha, sigma, s)
        off, kept = float((ours - true).abs().max()), math.hypot(alpha * s, sigma)
        assert off < 1e-6, f"with s = {s} and a standard deviation of x_T of {kept:.2f} a point is {off:.2g} off"


attempt(2, check_end_of_flow, end_of_flow)
