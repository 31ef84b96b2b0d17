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
# # 2. The best denoiser
#
# A noisy point $x_t = \alpha x_0 + \sigma \epsilon$ is given, and we want to predict the noise in
# it. The prediction with the least mean squared error is the posterior mean $E[\epsilon \mid x_t]$.
# No network, however large, can have a smaller error. For data of a known distribution we can write
# it down. This lesson computes it, and also its error: the **Bayes floor** of the training loss.

# %%
import torch
from classroom import attempt, compare, effort, show
from matplotlib.figure import Figure

from dataset import Normaliser, make_dataset
from points.mixture import GaussianMixture
from runtime.randomness import generator
from schedule import LinearNoiseScheduler
from viz.colours import DATA, ERROR, GENERATED, hex_colour

moons = make_dataset("moons", 20_000, 0, noise=0.05)
normaliser = Normaliser.fit_dataset(moons)  # to mean 0 and variance 1
assert moons.mixture is not None
mixture = moons.mixture.scaled(normaliser.mean, normaliser.std)
scheduler = LinearNoiseScheduler(1000)
half = int((scheduler.signal - 0.5).abs().argmin())  # where half of the variance is noise

# %% [markdown]
# ## Predict
#
# Suppose that a network has as many weights as you like, and is trained for as long as you like on
# as many points as you like. It is given moons of which half of the variance is noise. **What mean
# squared error of $\epsilon$ remains?** (Always answering 0 gives an error of 1.)

# %%
prediction = None

# %% [markdown]
# ## Measure, and the exact answer
#
# The exact distribution of the moons is a mixture of Gaussians with centres $m_i$ and variance v.
# Given $x_t$, Bayes' rule gives each centre a posterior weight, and each Gaussian has a posterior
# mean. The weighted average of these means is $E[x_0 \mid x_t]$, and $E[\epsilon \mid x_t] = (x_t -
# \alpha E[x_0 \mid x_t]) / \sigma$. The method `mixture.denoise` computes both.
#
# We measure its error on points whose noise we know. The exact answer is the posterior variance
# $E\,\mathrm{Var}(\epsilon \mid x_t)$.


# %%
def error_of_the_best(t: int, count: int) -> tuple[float, float]:
    """The squared error of E[eps | x_t], measured on `count` noisy points, and its exact value."""
    alpha, sigma = scheduler.alpha_sigma_at(t)
    g = generator(0, "lesson", t)
    x_0 = mixture.sample(count, g)
    eps = torch.randn(count, 2, generator=g, dtype=torch.float64)
    x_t = alpha * x_0 + sigma * eps
    best_eps, _ = mixture.denoise(x_t, alpha, sigma)
    measured = float((best_eps - eps).square().mean())
    evenly_spread = mixture.noised(alpha, sigma).sample_evenly(4096, seed=t)
    exact = float(mixture.eps_variance(evenly_spread, alpha, sigma).mean())
    return measured, exact


measured, exact = error_of_the_best(half, effort(100_000, 20_000))
print("mean squared error of the best denoiser where half of the variance is noise")
compare(prediction, measured=measured, exact=exact)

# %% [markdown]
# The error is far from 0. Many pairs of a point and a noise give the same $x_t$, and nothing in
# $x_t$ shows which pair it was. So this error does not come from the network.
#
# The posterior mean has two more properties. First, it is the *score* up to a factor (Dhariwal and
# Nichol 2021, arXiv 2105.05233, eq. 11): $E[\epsilon \mid x_t] = -\sigma \nabla \log p(x_t)$.
# Second, $E[x_0 \mid x_t]$ is a mean, which may lie where there are no data at all.

# %%
alpha, sigma = scheduler.alpha_sigma_at(half)
x_t = torch.tensor([[-1.0, -0.5]], dtype=torch.float64)
eps, mean = mixture.denoise(x_t, alpha, sigma)
difference = (eps + sigma * mixture.noised(alpha, sigma).score(x_t)).abs().max()
print(f"E[eps | x_t] and -sigma times the score differ by {float(difference):.1e}")

figure = Figure(figsize=(10.5, 4.2), layout="constrained")
left, right = figure.subplots(1, 2)
noise, measured_errors, exact_errors = [], [], []
for share in torch.linspace(1e-4, 1, effort(25, 12)).square():  # of the variance that is noise
    t = int((1 - scheduler.signal - share).abs().argmin())
    measured, exact = error_of_the_best(t, 2000)
    noise.append(1 - float(scheduler.signal[t]))
    measured_errors.append(measured)
    exact_errors.append(exact)
purple, blue, grey = (hex_colour(colour) for colour in (ERROR, GENERATED, DATA))
left.plot([0, 1], [1, 0], ":", color="black", label="Bayes floor of data N(0, I)")
left.plot(noise, exact_errors, color=purple, label="Bayes floor of moons, exact")
left.plot(noise, measured_errors, "o", ms=4, color=blue, label="best denoiser, on 2,000 points")
left.set(xlabel="share of the variance that is noise", ylabel="mean squared error of eps")
left.legend(frameon=False)

clean = mixture.sample(3000, generator(0, "real"))
possible = mixture.posterior(x_t[0], alpha, sigma).sample(400, generator(0, "possible"))
right.scatter(*clean.T, s=1, color=grey, label="clean data")
right.scatter(*possible.T, s=4, color=blue, label="draws of x_0 given x_t")
right.plot(*x_t[0], "x", ms=10, mew=3, color="black", label="x_t")
right.plot(*mean[0], "*", ms=14, color=purple, label="E[x_0 | x_t], their mean")
right.set(aspect="equal", title="the posterior of x_0", xticks=[], yticks=[])
right.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
show(figure, "2_best_denoiser")

# %% [markdown]
# ## Exercise 1: the posterior mean for a few points
#
# Let the data be the rows $m_i$ of a table. All are equally likely, and have no noise of their own.
# Then (Karras et al. 2022, arXiv 2206.00364, eq. 57, here with our alpha and sigma)
#
# $$E[x_0 \mid x_t] = \sum_i w_i m_i, \qquad
#   w_i \propto \exp\left(-|x_t - \alpha m_i|^2 / 2 \sigma^2\right).$$
#
# Write it for a whole batch. (`torch.softmax` normalises the weights, and does not overflow.)


# %%
def best_prediction(x_t: torch.Tensor, points: torch.Tensor, alpha: float, sigma: float) -> torch.Tensor:
    """E[x_0 | x_t]: noisy points (B, d) and the data (M, d) -> (B, d)."""
    raise NotImplementedError


def check_best_prediction(best_prediction) -> None:
    g = generator(0, "check")
    points = torch.randn(7, 3, generator=g, dtype=torch.float64)
    x_t = torch.randn(50, 3, generator=g, dtype=torch.float64)
    for alpha, sigma in ((0.6, 0.8), (0.1, 0.995), (0.9999, 0.0141)):
        ours = best_prediction(x_t, points, alpha, sigma)
        _, exact = GaussianMixture(points).denoise(x_t, alpha, sigma)
        shapes = f"the mean must have shape {tuple(exact.shape)}, not {tuple(ours.shape)}"
        assert ours.shape == exact.shape, shapes
        off = float((ours - exact).abs().max())
        assert off < 1e-6, f"at alpha = {alpha}, sigma = {sigma} a mean is off by {off:.2g}"


attempt(1, check_best_prediction, best_prediction)

# %% [markdown]
# ## Exercise 2: the floor of a single Gaussian
#
# Let the data be $N(0, s^2)$ in one dimension. Then $x_0$, $\epsilon$ and $x_t$ are jointly
# Gaussian, and $\mathrm{Var}(\epsilon \mid x_t) = 1 - \mathrm{Cov}(\epsilon, x_t)^2 /
# \mathrm{Var}(x_t)$. Express it by alpha, sigma and s.


# %%
def floor_of_gaussian(alpha: float, sigma: float, s: float) -> float:
    """Var(eps | x_t) for data N(0, s^2)."""
    raise NotImplementedError


def check_floor_of_gaussian(floor_of_gaussian) -> None:
    for alpha, sigma, s in ((0.6, 0.8, 1.0), (0.8, 0.6, 0.3), (0.5, 0.5, 2.0)):
        gaussian = GaussianMixture(torch.zeros(1, 1), s**2)
        exact = float(gaussian.eps_variance(torch.zeros(1, 1), alpha, sigma))
        ours = floor_of_gaussian(alpha, sigma, s)
        case = f"for alpha = {alpha}, sigma = {sigma}, s = {s}"
        assert abs(ours - exact) < 1e-9, f"{case} it is {exact:.4f}, not {ours:.4f}"


attempt(2, check_floor_of_gaussian, floor_of_gaussian)
