"""Statistics of the forward process: measured on its points, and predicted by theory."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree
from scipy.special import digamma

from points.mixture import GaussianMixture
from runtime.randomness import generator
from schedule import NoiseScheduler

SPREAD_POINTS, SPREAD_DRAWS = 500, 25  # for the scatter of the estimate of KL
THEORY_POINTS = 4000  # draws for the one statistic without a closed form, the KL from N(0, I)


def measured_statistics(data: NDArray, states: NDArray) -> dict[str, NDArray]:
    """Of the states (S, N, d) of data (N, d) after S steps: "mean" and "variance" (S, d), "snr" and "kl" (S,).

    snr: the power of the part proportional to the data over that of the rest; kl: KL(x_t || N(0, I)), by neighbours.
    """
    x_0 = data - data.mean(0)
    spread = np.where(np.ptp(data, 0) > 0, x_0.var(0), 1)  # a constant coordinate carries no signal
    signal = (states * x_0).mean(1) / spread  # the regression of x_t on x_0: its slope is sqrt(alpha-bar)
    power = (signal**2 * x_0.var(0)).sum(1)
    variance = states.var(1)
    return {
        "mean": states.mean(1),
        "variance": variance,
        "snr": power / np.maximum(variance.sum(1) - power, 1e-12),
        "kl": np.array([kl_from_normal(state) for state in states]),
    }


def theoretical_statistics(
    data: NDArray, mixture: GaussianMixture | None, scheduler: NoiseScheduler, timesteps: list[int], seed: int
) -> dict[str, NDArray]:
    """The same by equation 4 and the data's mean and variance; kl from the mixture (NaN where there is none).

    "mean_sd" and so on: the standard deviation of what is measured over draws of the noise, the data being given.
    "snr_floor" and "kl_floor" (): what is measured on as many points of pure noise.
    """
    noise = np.random.default_rng(seed).normal(size=(20, *data.shape))
    of_noise = [kl_from_normal(x) for x in noise]
    alpha, sigma = np.array([scheduler.alpha_sigma_at(t) for t in timesteps]).T[:, :, None]
    mean, variance = data.mean(0), data.var(0)
    (n, d), snr = data.shape, (alpha**2 * variance).sum(1) / (sigma[:, 0] ** 2 * data.shape[1])
    # the slopes alpha + sigma N(0, 1 / (n variance)), squared, and in the denominator n d squares of noise
    power_sd = np.sqrt((4 * alpha**2 * sigma**2 * variance / n + 2 * sigma**4 / n**2).sum(1)) / (sigma[:, 0] ** 2 * d)
    return {
        "mean": alpha * mean,
        "mean_sd": np.broadcast_to(sigma / np.sqrt(n), (len(sigma), d)),
        "variance": alpha**2 * variance + sigma**2,
        "variance_sd": np.sqrt((4 * alpha**2 * sigma**2 * variance + 2 * sigma**4) / n),
        "snr": snr,
        "snr_sd": np.hypot(power_sd, snr * np.sqrt(2 / (n * d))),
        "kl": np.array(
            [_exact_kl(mixture, *scheduler.alpha_sigma_at(t), seed) if mixture else np.nan for t in timesteps]
        ),
        "snr_floor": np.array(4 / len(data)),  # a slope of 0, measured on N points, squares to about 1 / N
        "kl_sd": np.array([_kl_spread(data, *pair, seed) for pair in zip(alpha, sigma)]),
        "kl_floor": np.array(np.abs(of_noise).max()),
    }


def kl_from_normal(x: NDArray, k: int = 3) -> float:
    """KL(p || N(0, I)) in nats, estimated from points x (N, d) drawn from p.

    The entropy by the distance to the k-th neighbour (Kozachenko and Leonenko 1987); biased by about 0.1 at N = 500.
    """
    n, d = x.shape
    distance = KDTree(x).query(x, k + 1)[0][:, k]
    ball = d / 2 * math.log(math.pi) - math.lgamma(d / 2 + 1)
    entropy = digamma(n) - digamma(k) + ball + d * np.log(np.maximum(distance, 1e-12)).mean()
    return float(-entropy + 0.5 * (x**2).sum(1).mean() + d / 2 * math.log(2 * math.pi))


def _kl_spread(data: NDArray, alpha: NDArray, sigma: NDArray, seed: int) -> float:
    """The standard deviation of `kl_from_normal` over draws of the noise: of a part of large data, then scaled."""
    part = data[:SPREAD_POINTS]
    eps = np.random.default_rng([seed, 1]).normal(size=(SPREAD_DRAWS, *part.shape))
    found = [kl_from_normal(x) for x in alpha * part + sigma * eps]
    return float(np.std(found, ddof=1) * np.sqrt(len(part) / len(data)))


def _exact_kl(mixture: GaussianMixture, alpha: float, sigma: float, seed: int) -> float:
    """The same for a mixture noised by (alpha, sigma), whose density is known; a mean over draws."""
    noised = mixture.noised(alpha, sigma)
    x = noised.sample(THEORY_POINTS, generator(seed, "theory"))
    normal = -0.5 * (x.square().sum(1) + mixture.dim * math.log(2 * math.pi))
    return float((noised.log_density(x) - normal).mean())
