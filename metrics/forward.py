"""Statistics of the forward process at each step, measured on its states and predicted."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree
from scipy.special import digamma

from points.mixture import GaussianMixture
from runtime.randomness import generator
from schedule import NoiseScheduler

NOISE_DRAWS = 20  # sets of pure noise from which the floor of the KL estimate is taken
SPREAD_POINTS = 500  # the scatter of the KL estimate is measured on at most so many points,
SPREAD_DRAWS = 25  # over so many draws of the noise
THEORY_POINTS = 4000  # Monte Carlo draws for the KL, the only statistic without a closed form
SMALLEST = 1e-12  # keeps divisors and logarithms finite


# ---------------------------------------------------------------- measured


def measured_statistics(data: NDArray, states: NDArray) -> dict[str, NDArray]:
    """Measure the statistics of the states of the forward process.

    Args:
        data: the clean data, of shape (N, d).
        states: the noisy data at S steps, of shape (S, N, d).

    Returns:
        "mean" and "variance" of each coordinate, of shape (S, d).
        "snr", of shape (S,): the power of the part that is proportional to the data, divided by the
            power of the rest.
        "kl", of shape (S,): KL(x_t || N(0, I)) in nats, estimated from nearest neighbours.
    """
    x_0 = data - data.mean(0)
    data_variance = x_0.var(0)
    varies = np.ptp(data, 0) > 0
    divisor = np.where(varies, data_variance, 1)  # a constant coordinate carries no signal

    # The regression of x_t on x_0 has the slope sqrt(alpha-bar).
    slope = (states * x_0).mean(1) / divisor
    signal_power = (slope**2 * data_variance).sum(1)

    variance = states.var(1)
    noise_power = variance.sum(1) - signal_power
    return {
        "mean": states.mean(1),
        "variance": variance,
        "snr": signal_power / np.maximum(noise_power, SMALLEST),
        "kl": np.array([kl_from_normal(state) for state in states]),
    }


# ---------------------------------------------------------------- predicted


def theoretical_statistics(
    data: NDArray,
    mixture: GaussianMixture | None,
    scheduler: NoiseScheduler,
    timesteps: list[int],
    seed: int,
) -> dict[str, NDArray]:
    """Predict the statistics from the data's mean and variance (Ho et al. 2020, eq. 4).

    Args:
        data: the clean data, of shape (N, d).
        mixture: the exact distribution of the data. Without one the KL is NaN.
        scheduler: the process.
        timesteps: the S steps t.
        seed: of the Monte Carlo draws.

    Returns:
        "mean", "variance", "snr" and "kl": the predictions, shaped as in `measured_statistics`.
        "mean_sd", "variance_sd", "snr_sd" and "kl_sd": the standard deviation of each measured
            statistic over draws of the noise, with the data held fixed.
        "snr_floor" and "kl_floor", of shape (): what is measured on as many points of pure noise.
    """
    n, d = data.shape
    variance = data.var(0)
    pairs = [scheduler.alpha_sigma_at(t) for t in timesteps]
    alpha, sigma = np.array(pairs).T[:, :, None]  # both (S, 1)
    snr, snr_sd = _snr(alpha, sigma, variance, n)
    kl = [np.nan if mixture is None else _exact_kl(mixture, *pair, seed) for pair in pairs]
    kl_sd = [_kl_spread(data, *pair, seed) for pair in zip(alpha, sigma)]
    return {
        "mean": alpha * data.mean(0),
        "mean_sd": np.broadcast_to(sigma / np.sqrt(n), (len(sigma), d)),
        "variance": alpha**2 * variance + sigma**2,
        "variance_sd": np.sqrt((4 * alpha**2 * sigma**2 * variance + 2 * sigma**4) / n),
        "snr": snr,
        "snr_sd": snr_sd,
        "snr_floor": np.array(4 / n),  # the measured square of a slope of 0 is about 1 / N
        "kl": np.array(kl),
        "kl_sd": np.array(kl_sd),
        "kl_floor": np.array(_kl_floor(data.shape, seed)),
    }


def _snr(
    alpha: NDArray,
    sigma: NDArray,
    variance: NDArray,
    n: int,
) -> tuple[NDArray, NDArray]:
    """Return the signal-to-noise ratio and the standard deviation of its measurement, both (S,).

    A measured slope is distributed as N(alpha, sigma^2 / (n variance)). The signal power is the sum
    of the squared slopes times the variances. The noise power is a mean of n d squares of the
    noise.

    Args:
        alpha, sigma: of shape (S, 1).
        variance: of each coordinate of the data, of shape (d,).
        n: the number of points.
    """
    d = len(variance)
    noise_power = sigma[:, 0] ** 2 * d
    snr = (alpha**2 * variance).sum(1) / noise_power
    signal_variance = (4 * alpha**2 * sigma**2 * variance / n + 2 * sigma**4 / n**2).sum(1)
    sd_from_signal = np.sqrt(signal_variance) / noise_power
    sd_from_noise = snr * np.sqrt(2 / (n * d))
    return snr, np.hypot(sd_from_signal, sd_from_noise)


def _kl_floor(shape: tuple[int, ...], seed: int) -> float:
    """Return the largest KL estimate, in absolute value, of sets of pure noise of that shape."""
    noise = np.random.default_rng(seed).normal(size=(NOISE_DRAWS, *shape))
    return np.abs([kl_from_normal(x) for x in noise]).max()


# ---------------------------------------------------------------- the KL divergence from N(0, I)


def kl_from_normal(x: NDArray, k: int = 3) -> float:
    """Estimate KL(p || N(0, I)) in nats from points drawn from p.

    KL = -H(p) - E_p[log N(x; 0, I)]. The entropy H is estimated from the distance of each point to
    its k-th nearest neighbour (Kozachenko and Leonenko 1987). The bias is about 0.1 for 500 points.

    Args:
        x: points of shape (N, d).
        k: the number of the neighbour.
    """
    n, d = x.shape
    distances, _ = KDTree(x).query(x, k + 1)  # the nearest is the point itself
    distance = distances[:, k]
    log_ball_volume = d / 2 * math.log(math.pi) - math.lgamma(d / 2 + 1)
    mean_log_distance = np.log(np.maximum(distance, SMALLEST)).mean()
    entropy = digamma(n) - digamma(k) + log_ball_volume + d * mean_log_distance
    return float(-entropy + 0.5 * (x**2).sum(1).mean() + d / 2 * math.log(2 * math.pi))


def _kl_spread(data: NDArray, alpha: NDArray, sigma: NDArray, seed: int) -> float:
    """Return the standard deviation of `kl_from_normal` over draws of the noise.

    For large data it is measured on a part, then scaled by the square root of the sizes.
    """
    part = data[:SPREAD_POINTS]
    eps = np.random.default_rng([seed, 1]).normal(size=(SPREAD_DRAWS, *part.shape))
    estimates = [kl_from_normal(x) for x in alpha * part + sigma * eps]
    return float(np.std(estimates, ddof=1) * np.sqrt(len(part) / len(data)))


def _exact_kl(mixture: GaussianMixture, alpha: float, sigma: float, seed: int) -> float:
    """Return KL(p || N(0, I)) of a noised mixture, whose density p is known, as a mean over
    draws."""
    noised = mixture.noised(alpha, sigma)
    x = noised.sample(THEORY_POINTS, generator(seed, "theory"))
    log_normal = -0.5 * (x.square().sum(1) + mixture.dim * math.log(2 * math.pi))
    return float((noised.log_density(x) - log_normal).mean())
