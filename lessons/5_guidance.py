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
# # 5. Guidance, and what it really samples
#
# Guidance makes samples more typical of their label c. It extrapolates from the denoiser without a
# label (Ho and Salimans 2022, arXiv 2207.12598, eq. 6):
#
# $$\epsilon_w = (1 + w)\,\epsilon(x_t, c) - w\,\epsilon(x_t).$$
#
# Since $\epsilon$ is $-\sigma$ times a score, this looks like the score of (section 3.1 there)
#
# $$p_w(x) \propto p(x \mid c)^{1 + w}\,p(x)^{-w} \propto p(x \mid c)\,p(c \mid x)^w,$$
#
# and many texts say that guidance samples from $p_w$. Does it?

# %%
from functools import partial

import torch
from classroom import attempt, compare, effort, show
from matplotlib.figure import Figure

from dataset import make_dataset
from diffusion import Prediction, exact_denoiser
from metrics.distances import sliced_wasserstein
from points.mixture import GaussianMixture
from runtime.randomness import generator
from samplers import SamplingOptions, last, sample
from samplers.guidance import classifier_free, draw_claimed, exact_guided_denoiser, guided
from schedule import LinearNoiseScheduler
from viz.colours import DATA, ERROR, GENERATED, hex_colour

BLUE, GREY, PURPLE = map(hex_colour, (GENERATED, DATA, ERROR))
scheduler = LinearNoiseScheduler(1000)

# %% [markdown]
# ## Predict
#
# In one dimension, let all data be $N(0, 2)$, and those of label c $N(0, 1)$. Then $p_w$ is a
# Gaussian of precision (1 / variance) $(1 + w) - w / 2$. **What variance do the samples have at
# w = 4?**

# %%
W = 4.0
prediction = None

# %% [markdown]
# ## Measure, with exact denoisers

# %%
own, whole = (GaussianMixture(torch.zeros(1, 1), v) for v in (1.0, 2.0))
x_T = torch.randn(effort(20_000, 4_000), 1, generator=generator(0, "sampling"), dtype=torch.float64)


def sampled_variance(w: float, sampler: str, steps: int) -> float:
    """The variance of samples with guidance w."""
    denoise = guided(exact_denoiser(own, scheduler), exact_denoiser(whole, scheduler), w)
    options = SamplingOptions(sampler=sampler, sampling_steps=steps)
    return float(last(sample(denoise, scheduler, x_T, options)).var())


measured = sampled_variance(W, "dpmpp_2m", 100)

# %% [markdown]
# ## The exact answer
#
# For Gaussians the flow of lesson 4 can be integrated with guidance as well. With $\bar\sigma =
# \sigma / \alpha$ it is
#
# $$\frac{d \log \bar x}{d\bar\sigma} =
#   \bar\sigma\left(\frac{1 + w}{1 + \bar\sigma^2} - \frac{w}{2 + \bar\sigma^2}\right).$$
#
# Integrated from infinite $\bar\sigma$ down to 0, it reduces the variance to $2^{-w}$. (Bradley
# and Nakkiran 2024, arXiv 2408.09000, section 3, give this example. Their $\gamma$ is our 1 + w.)


# %%
def claimed_variance(w: float) -> float:
    """The variance of p_w."""
    return 1 / (1 + w - w / 2)


print(f"variance of the samples at w = {W:g}")
compare(prediction, measured=measured, exact=2**-W, claimed=claimed_variance(W))
weights = [0.0, 1.0, 2.0, 4.0, 8.0]
figure = Figure(figsize=(6, 4.2), layout="constrained")
ax = figure.add_subplot()
ax.semilogy(weights, [claimed_variance(w) for w in weights], color=GREY, lw=3, label="claimed")
ax.semilogy(weights, [2**-w for w in weights], color=PURPLE, label="exact end of the flow")
for sampler, steps, mark in (("dpmpp_2m", 100, "o"), ("ddpm", effort(1000, 200), "^")):
    variances = [sampled_variance(w, sampler, steps) for w in weights]
    ax.semilogy(weights, variances, mark, color=BLUE, label=f"samples by {sampler}")
ax.set(xlabel="guidance w", ylabel="variance of the samples")
ax.set_title("label: N(0, 1), all data: N(0, 2)")
ax.legend(frameon=False)
show(figure, "5_variance")

# %% [markdown]
# The samples are narrower than claimed, although nothing in the computation is approximate. The
# reason is that the noised data of $p_w$ do not have the score that guidance combines: raising a
# density to a power and adding noise do not commute. The result even depends on the sampler. DDPM,
# which adds fresh noise, ends elsewhere than the deterministic flow.
#
# The same happens on two overlapping moons. `draw_claimed` draws from $p_w$ itself: it accepts a
# draw of $p(x \mid c)$ with probability $p(c \mid x)^w$. Each distance has a floor, the distance
# between two sets of claimed points.

# %%
parts = make_dataset("moons", 1, 0, noise=0.25).parts
count = effort(2000, 500)
exact = exact_guided_denoiser(parts, scheduler)
noise = torch.randn(count, 2, generator=generator(0, "sampling"), dtype=torch.float64)
other = parts[1].sample(count, generator(0, "other"))
figure = Figure(figsize=(9, 5.4), layout="constrained")
axes = figure.subplots(2, 3, sharex=True, sharey=True)
options = SamplingOptions(sampler="dpmpp_2m", sampling_steps=100)
for column, w in enumerate((0.0, 1.0, 4.0)):
    claimed, again = (draw_claimed(parts, 0, w, count, generator(0, "claimed", i)) for i in (0, 1))
    denoise = partial(classifier_free(exact, w), label=torch.full((count,), 0))
    samples = last(sample(denoise, scheduler, noise, options))
    off, floor = (sliced_wasserstein(x.numpy(), claimed.numpy()) for x in (samples, again))
    print(f"w = {w:g}: samples are {off:.3f} from what is claimed; floor {floor:.3f}")
    axes[0, column].set_title(f"w = {w:g}")
    axes[0, column].scatter(*claimed.T, s=2, color=GREY, zorder=2)
    axes[1, column].scatter(*samples.T, s=2, color=BLUE, zorder=2)
for ax in axes.flat:
    ax.scatter(*other.T, s=1, color="0.9")
    ax.set(aspect="equal", xlim=(-2, 3), ylim=(-2, 2))
axes[0, 0].set_ylabel("claimed")
axes[1, 0].set_ylabel("sampled, exact denoiser")
show(figure, "5_guidance")

# %% [markdown]
# ## Exercise 1: the claim for any two Gaussians
#
# Label c: $N(m, v)$, all data: $N(0, V)$. Multiply the densities and complete the square.


# %%
def claimed_gaussian(w: float, m: float, v: float, V: float) -> tuple[float, float]:
    """Mean and variance of p(x | c)^(1 + w) p(x)^(-w)."""
    raise NotImplementedError


def check_claimed_gaussian(claimed_gaussian) -> None:
    x = torch.linspace(-20, 20, 20_001, dtype=torch.float64)
    for w, m, v, V in ((0.0, 1.0, 0.5, 2.0), (2.0, 0.0, 1.0, 2.0), (3.0, 1.0, 0.5, 2.0)):
        log_own = GaussianMixture(torch.tensor([[m]]), v).log_density(x[:, None])
        log_whole = GaussianMixture(torch.tensor([[0.0]]), V).log_density(x[:, None])
        mass = ((1 + w) * log_own - w * log_whole).softmax(0)
        mean = float(mass @ x)
        variance = float(mass @ (x - mean).square())
        ours = claimed_gaussian(w, m, v, V)
        for what, exact, own in zip(("mean", "variance"), (mean, variance), ours):
            assert abs(own - exact) < 1e-4, f"at w = {w:g} the {what} is {exact:.4f}, not {own:.4f}"


attempt(1, check_claimed_gaussian, claimed_gaussian)

# %% [markdown]
# ## Exercise 2: the other convention
#
# diffusers and many papers use a `guidance_scale` that is 1 without guidance. Write their formula.


# %%
def guided_eps(eps_label, eps_none, guidance_scale: float) -> torch.Tensor:
    """The guided noise from the predictions with and without the label; guidance_scale = 1 + w."""
    raise NotImplementedError


def check_guided_eps(guided_eps) -> None:
    with_label, without = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5, -1.0]])

    def denoise(x_t, t, label=None) -> Prediction:
        eps = without if label is None else with_label
        return Prediction(eps, eps)

    for w in (-1.0, 0.0, 0.5, 4.0):
        true = classifier_free(denoise, w)(with_label, torch.tensor(0), torch.tensor([0])).eps
        ours = guided_eps(with_label, without, 1 + w)
        case = f"guidance_scale = {1 + w:g} must give {true.tolist()}, not {ours.tolist()}"
        assert torch.allclose(ours, true), case


attempt(2, check_guided_eps, guided_eps)
