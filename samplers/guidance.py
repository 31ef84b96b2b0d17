"""Guidance: eps is moved away from the eps of a weaker denoiser. And the distribution that it claims to sample.

The weaker denoiser is the same network without the label (classifier-free guidance: Ho and Salimans 2022, arXiv
2207.12598), or the network early in its training, with the same label (autoguidance: Karras et al. 2024, arXiv
2406.02507). For labelled point sets the distribution that classifier-free guidance claims can be sampled exactly.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from diffusion import Denoiser, Prediction
from points.mixture import GaussianMixture, equal_mixture
from schedule import NoiseScheduler

Interval = tuple[float, float]


def guided(
    denoise: Denoiser,
    weak: Denoiser,
    guidance: float,
    scheduler: NoiseScheduler | None = None,
    interval: Interval | None = None,
) -> Denoiser:
    """The denoiser with eps = (1 + w) eps - w eps_weak, where w is `guidance` (Ho and Salimans, eq. 6; Karras et al.,
    eq. 3, whose w is 1 + w). The prediction of x_0 is combined in the same way.

    interval: guide only where the noise level sigma / alpha of `scheduler` lies within it (Kynkaanniemi et al. 2024,
    arXiv 2404.07724, eq. 5). One t then serves all rows. w = 0 is `denoise` itself, w = -1 is `weak`.
    """
    if guidance == 0:
        return denoise

    def denoise_guided(x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        strong = denoise(x_t, t, label)
        if scheduler and interval and not interval[0] <= _noise_level(scheduler, int(t)) <= interval[1]:
            return strong
        weaker = weak(x_t, t, label)
        eps = (1 + guidance) * strong.eps - guidance * weaker.eps
        x_0 = (1 + guidance) * strong.x_0 - guidance * weaker.x_0
        return Prediction(eps, x_0)

    return denoise_guided


def _noise_level(scheduler: NoiseScheduler, t: int) -> float:
    """sigma / alpha: the noise in units of the data; infinite where no signal is left."""
    alpha, sigma = scheduler.alpha_sigma_at(t)
    return sigma / alpha if alpha > 0 else math.inf


def classifier_free(
    denoise: Denoiser, guidance: float, scheduler: NoiseScheduler | None = None, interval: Interval | None = None
) -> Denoiser:
    """`guided` away from the same denoiser without the label. Without a label it is `denoise` itself."""

    def denoise_unlabelled(x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        return denoise(x_t, t, None)

    denoise_guided = guided(denoise, denoise_unlabelled, guidance, scheduler, interval)

    def denoise_labelled(x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        if label is None:
            return denoise(x_t, t, None)
        return denoise_guided(x_t, t, label)

    return denoise_labelled


def checked_interval(asked: Sequence[float] | None) -> Interval | None:
    """[low, high] of sigma / alpha. Raises ValueError for anything but two numbers that rise from 0."""
    if asked is None:
        return None
    if len(asked) != 2 or not 0 <= asked[0] < asked[1]:
        given = ",".join(f"{number:g}" for number in asked)
        raise ValueError(
            "guidance_interval must be [lowest,highest] noise sigma/alpha at which to guide, such as [0.2,2]:"
            f" two numbers that rise from 0; got [{given}]"
        )
    return float(asked[0]), float(asked[1])


# ---------------------------------------------------------------- the exact answers, for a known distribution


def exact_predictor(parts: Sequence[GaussianMixture]) -> Callable[..., Prediction]:
    """The best predictions for labelled data at any noise level: a function (x_t, alpha, sigma, label) -> Prediction.

    parts[k] is the distribution of label k; all labels have equal shares. Without a label the prediction is that for
    the whole mixture.
    """
    whole = equal_mixture(list(parts))

    def predict(x_t: Tensor, alpha: float, sigma: float, label: Tensor | None = None) -> Prediction:
        if label is None:
            return Prediction(*whole.denoise(x_t, alpha, sigma))
        eps = torch.empty_like(x_t)
        x_0 = torch.empty_like(x_t)
        for k in label.unique().tolist():
            rows = label == k
            eps[rows], x_0[rows] = parts[k].denoise(x_t[rows], alpha, sigma)
        return Prediction(eps, x_0)

    return predict


def exact_guided_denoiser(
    parts: Sequence[GaussianMixture],
    scheduler: NoiseScheduler,
    guidance: float = 0.0,
    interval: Sequence[float] | None = None,
) -> Denoiser:
    """The best denoiser of labelled data (`exact_predictor`), guided as `Pipeline.denoiser` guides a network.

    One t serves all rows. Raises ValueError as `checked_interval`.
    """
    predict = exact_predictor(parts)

    def denoise(x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        alpha, sigma = scheduler.alpha_sigma_at(int(t))
        return predict(x_t, alpha, sigma, label)

    return classifier_free(denoise, guidance, scheduler, checked_interval(interval))


def draw_claimed(
    parts: Sequence[GaussianMixture], label: int, guidance: float, count: int, generator: torch.Generator
) -> Tensor:
    """Exact draws (count, d), float64, of the distribution that classifier-free guidance claims to sample for label c.

    That is p(x | c)^(1 + w) p(x)^(-w), which is p(x | c) p(c | x)^w up to a constant (Ho and Salimans, section 3.1). So
    a draw of p(x | c) is accepted with probability p(c | x)^w. w is `guidance`, at least 0.
    """
    accepted = []
    total = 0
    while total < count:
        x = parts[label].sample(count, generator)
        log_densities = torch.stack([part.log_density(x) for part in parts])
        log_p_label = log_densities.log_softmax(0)[label]
        log_u = torch.rand(count, generator=generator, dtype=torch.float64).log()
        kept = x[log_u < guidance * log_p_label]
        accepted.append(kept)
        total += len(kept)
    return torch.cat(accepted)[:count]
