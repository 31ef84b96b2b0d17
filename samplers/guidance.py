"""Guidance: away from a weaker denoiser. Of labels, also what it claims to sample from, which can be drawn exactly.

Weak is the same network without the label (classifier-free guidance: Ho and Salimans 2022, arXiv 2207.12598), or the
network as it was early in its training, with the same label (autoguidance: Karras et al. 2024, arXiv 2406.02507).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffusion import Denoiser, Prediction
from points.mixture import GaussianMixture, mixed
from schedule import NoiseScheduler

Interval = tuple[float, float]


class Guidance(NamedTuple):
    """Weights and interval of guidance, as in Pipeline.denoise."""

    guidance: float = 0.0
    guidance_interval: Sequence[float] | None = None
    autoguidance: float = 0.0

    @classmethod
    def of(cls, sampling: Mapping[str, Any]) -> "Guidance":
        """Out of the options of Pipeline.sample, none where there are none."""
        return cls(**{name: sampling[name] for name in cls._fields if name in sampling})

    @property
    def words(self) -> str:
        """'guidance 1', 'autoguidance 2 at noise 0.2 .. 2'; '' for none."""
        weights = {"guidance": self.guidance, "autoguidance": self.autoguidance}
        named = [f"{name} {weight:g}" for name, weight in weights.items() if weight]
        if named and self.guidance_interval:
            named.append("at noise {:g} .. {:g}".format(*self.guidance_interval))
        return " ".join(named)


def guided(
    denoise: Denoiser,
    weak: Denoiser,
    guidance: float,
    scheduler: NoiseScheduler | None = None,
    interval: Interval | None = None,
) -> Denoiser:
    """eps = (1 + w) eps - w eps_weak, w = `guidance` (Ho and Salimans, eq. 6; Karras et al., eq. 3, whose w is 1 + w).

    interval: only where the noise sigma / alpha of `scheduler` lies within it (Kynkaanniemi et al. 2024, arXiv
    2404.07724, eq. 5); then there is one t for all rows. w = 0 is `denoise` itself, w = -1 is `weak`.
    """
    if guidance == 0:
        return denoise

    def steered(x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        strong = denoise(x_t, t, label)
        if scheduler and interval and not interval[0] <= noise_at(scheduler, int(t)) <= interval[1]:
            return strong
        pairs = zip(strong, weak(x_t, t, label))
        return Prediction(*((1 + guidance) * s - guidance * w for s, w in pairs))

    return steered


def noise_at(scheduler: NoiseScheduler, t: int) -> float:
    """sigma / alpha: the noise in units of the data."""
    alpha, sigma = scheduler.alpha_sigma_at(t)
    return sigma / alpha


def classifier_free(
    denoise: Denoiser, guidance: float, scheduler: NoiseScheduler | None = None, interval: Interval | None = None
) -> Denoiser:
    """`guided` away from the same denoiser without the label; where there is no label, `denoise` itself."""
    steered = guided(denoise, lambda x_t, t, label=None: denoise(x_t, t, None), guidance, scheduler, interval)
    return lambda x_t, t, label=None: (denoise if label is None else steered)(x_t, t, label)


def checked_interval(asked: Sequence[float] | None) -> Interval | None:
    """[low, high] of sigma / alpha. Raises ValueError where it is none or upside down."""
    if asked is None:
        return None
    if len(asked) != 2 or not 0 <= asked[0] < asked[1]:
        given = ",".join(f"{number:g}" for number in asked)
        raise ValueError(
            "guidance_interval must be [lowest,highest] noise sigma/alpha at which to guide, such as [0.2,2]:"
            f" two numbers that rise from 0; got [{given}]"
        )
    return float(asked[0]), float(asked[1])


# ---------------------------------------------------------------- the truth, of a known distribution


def best_guess_of(parts: Sequence[GaussianMixture]) -> Callable[..., Prediction]:
    """(x_t, alpha, sigma, label) -> the best guesses of labelled data at any noise, parts[k] for label k in equal
    shares; without labels those of them all."""
    whole = mixed(list(parts))

    def guess(x_t: Tensor, alpha: float, sigma: float, label: Tensor | None = None) -> Prediction:
        if label is None:
            return Prediction(*whole.denoise(x_t, alpha, sigma))
        eps, x_0 = torch.empty_like(x_t), torch.empty_like(x_t)
        for k in label.unique().tolist():
            rows = label == k
            eps[rows], x_0[rows] = parts[k].denoise(x_t[rows], alpha, sigma)
        return Prediction(eps, x_0)

    return guess


def exact_denoiser_of(
    parts: Sequence[GaussianMixture],
    scheduler: NoiseScheduler,
    guidance: float = 0.0,
    interval: Sequence[float] | None = None,
) -> Denoiser:
    """The best denoiser of labelled data (see best_guess_of), guided as Pipeline.denoise guides a network; one t for
    all rows. Raises ValueError as checked_interval."""
    guess = best_guess_of(parts)

    def best(x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        return guess(x_t, *scheduler.alpha_sigma_at(int(t)), label)

    return classifier_free(best, guidance, scheduler, checked_interval(interval))


def draw_claimed(
    parts: Sequence[GaussianMixture], label: int, guidance: float, count: int, generator: torch.Generator
) -> Tensor:
    """Exact draws (count, d), float64, of what classifier-free guidance of weight w claims to sample for a label c:

    p(x | c)^(1 + w) p(x)^(-w), which is p(x | c) p(c | x)^w up to a constant (Ho and Salimans, section 3.1). So a draw
    of p(x | c) is accepted with probability p(c | x)^w, w = `guidance` at least 0.
    """
    accepted, total = [], 0
    while total < count:
        x = parts[label].sample(count, generator)
        log_c = torch.stack([part.log_density(x) for part in parts]).log_softmax(0)[label]
        kept = x[torch.rand(count, generator=generator, dtype=torch.float64).log() < guidance * log_c]
        accepted.append(kept)
        total += len(kept)
    return torch.cat(accepted)[:count]
