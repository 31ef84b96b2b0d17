"""The forward process on any array of points; what a network may predict; denoisers.

A new prediction target is a row in TARGETS, and its name in conf/choices.py.
`python diffusion.py` prints how the signal drowns.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from points.mixture import GaussianMixture
from runtime.arrays import floats, joined
from runtime.randomness import generator
from schedule import CLEAN, NoiseScheduler, make_scheduler, t_of

Array = TypeVar("Array", np.ndarray, Tensor)


class DiffusionModel:
    """The forward process: clean data of shape (B, *dims), noised step by step. NumPy in, NumPy out; tensors likewise.

    Args:
        num_timesteps: T.
        beta_start, beta_end, schedule, zero_snr: see schedule.make_scheduler.
        seed: the noise is a function of it and of how many calls came before.
    """

    def __init__(
        self,
        num_timesteps: int = 1000,
        beta_start: float | None = None,
        beta_end: float | None = None,
        seed: int = 0,
        schedule: str = "linear",
        zero_snr: bool = False,
    ) -> None:
        self.scheduler = make_scheduler(schedule, num_timesteps, beta_start, beta_end, zero_snr)
        self.generator = generator(seed, "forward")

    def forward_diffusion(self, data: Array, t: int | Tensor, noise: Array | None = None) -> tuple[Array, Array]:
        """x_t and the noise in it (Ho et al. 2020, eq. 4); `t` is one step or one for each row.

        Raises:
            ValueError: t outside 0 .. T-1, data that is not (B, *dims) floats, or NaN in it.
        """
        x_0 = _tensor(data)
        t = self.scheduler.check_t(t).to(x_0.device)
        if t.ndim and t.shape != x_0.shape[:1]:
            raise ValueError(f"t must be one step or one for each of {len(x_0)} rows, got shape {tuple(t.shape)}")
        eps = self._noise_like(x_0) if noise is None else _tensor(noise)
        if eps.shape != x_0.shape:
            raise ValueError(f"noise has shape {tuple(eps.shape)}, the data {tuple(x_0.shape)}")
        return _like(data, self.scheduler.add_noise(x_0, t, eps)), _like(data, eps)

    def add_noise_trajectory(self, data: Array) -> Array:
        """The Markov chain (eq. 2): shape (T, B, *dims), where trajectory[t] is x_t. The data is its clean state.

        Each step adds fresh noise to the step before; at every t the points are distributed as eq. 4 says.
        """
        x = _tensor(data)
        trajectory = x.new_empty((self.scheduler.num_timesteps, *x.shape))
        for t in range(self.scheduler.num_timesteps):
            x = self.scheduler.add_noise_step(x, t, self._noise_like(x))
            trajectory[t] = x
        return _like(data, trajectory)

    def _noise_like(self, x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=self.generator, dtype=x.dtype).to(x.device)


def _tensor(data: np.ndarray | Tensor) -> Tensor:
    """Data as a floating-point tensor (see arrays.floats), checked."""
    x = floats(data, "data")
    if x.ndim < 2:
        raise ValueError(f"data must have shape (B, *dims), such as (500, 2); got {tuple(x.shape)}")
    return x


def _like(data: Array, x: Tensor) -> Array:
    return cast(Array, x if isinstance(data, Tensor) else x.numpy())


@torch.no_grad()
def forward_states(
    scheduler: NoiseScheduler, x_0: Tensor, steps: Sequence[int], generator: torch.Generator
) -> Iterator[Tensor]:
    """The same chain after chosen numbers of forward steps only (rising, from 0), so that long ones fit into memory.

    Several steps at once are exact: independent Gaussians add up to one (scheduler.stride).
    """
    x, s = x_0, CLEAN
    for t in map(t_of, steps):
        if t != s:
            a, b = scheduler.stride(s, t)
            x, s = a * x + b * torch.randn(x.shape, generator=generator, dtype=x.dtype), t
        yield x


# ---------------------------------------------------------------- what a network may predict


class Prediction(NamedTuple):
    """What a denoiser believes of x_t = alpha x_0 + sigma eps; both of x_t's shape (B, *dims)."""

    eps: Tensor
    x_0: Tensor


class Target(NamedTuple):
    """What a network's output stands for, in any process.

    of: (x_0, eps, alpha, sigma) -> what it should be. prediction: (output, x_t, alpha, sigma) -> Prediction, both
    parts straight from the output, never one from the other through a division by a tiny alpha or sigma.
    error: (alpha, sigma) -> how wrong it is where eps is wrong by alpha and x_0 by -sigma: given x_t, only together.
    """

    of: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    prediction: Callable[[Tensor, Tensor, Tensor, Tensor], Prediction]
    error: Callable[[Tensor, Tensor], Tensor]


def _from_v(v: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Prediction:
    a, s = alpha / (alpha**2 + sigma**2), sigma / (alpha**2 + sigma**2)  # the sum is 1 where the variance is preserved
    return Prediction(s * x_t + a * v, a * x_t - s * v)


def _from_velocity(u: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Prediction:
    total = alpha + sigma  # 1 in the flow
    return Prediction((x_t + alpha * u) / total, (x_t - sigma * u) / total)


TARGETS = {
    "eps": Target(  # Ho et al. 2020: eq. 14, and eq. 15 for x_0
        of=lambda x_0, eps, alpha, sigma: eps,
        prediction=lambda eps, x_t, alpha, sigma: Prediction(eps, (x_t - sigma * eps) / alpha),
        error=lambda alpha, sigma: alpha,
    ),
    "v": Target(  # Salimans and Ho 2022, arXiv 2202.00512, appendix D
        of=lambda x_0, eps, alpha, sigma: alpha * eps - sigma * x_0,
        prediction=_from_v,
        error=lambda alpha, sigma: alpha**2 + sigma**2,
    ),
    "x0": Target(
        of=lambda x_0, eps, alpha, sigma: x_0,
        prediction=lambda x_0, x_t, alpha, sigma: Prediction((x_t - alpha * x_0) / sigma, x_0),
        error=lambda alpha, sigma: sigma,
    ),
    "velocity": Target(  # of the flow, dx_t/ds: Lipman et al. 2023, arXiv 2210.02747, eq. 23; Liu et al. 2023, eq. 1
        of=lambda x_0, eps, alpha, sigma: eps - x_0,
        prediction=_from_velocity,
        error=lambda alpha, sigma: alpha + sigma,
    ),
}


def check_target(scheduler: NoiseScheduler, target: str) -> None:
    """Raises ValueError where the process ends in pure noise, which says nothing of x_0 to a network that finds eps."""
    if target == "eps" and scheduler.alpha[-1] == 0:
        raise ValueError(
            "model.prediction=eps cannot work where no signal is left at the last step (schedule=flow, zero_snr=true),"
            " as x_0 cannot be had from eps there: take model.prediction=v, x0 or velocity"
        )


# ---------------------------------------------------------------- denoisers


class Denoiser(Protocol):
    """x_t (B, *dims), t () or (B,), label (B,) or None -> Prediction: a network, guided or not, or the exact answer."""

    def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction: ...


Network = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def denoiser(net: Network, scheduler: NoiseScheduler, target: str) -> Denoiser:
    """A network as a denoiser, whatever its output means: `target` is a key of TARGETS, else ValueError."""
    if target not in TARGETS:
        raise ValueError(f"prediction {target!r} is unknown; choose one of {', '.join(TARGETS)}")
    prediction = TARGETS[target].prediction

    def denoise(x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        return prediction(net(x_t, t, label), x_t, *scheduler.alpha_sigma(t, x_t))

    return denoise


def exact_denoiser(mixture: GaussianMixture, scheduler: NoiseScheduler) -> Denoiser:
    """The best denoiser of data of a known distribution: E[eps | x_t] and E[x_0 | x_t]; one t for all rows."""

    def denoise(x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        return Prediction(*mixture.denoise(x_t, *scheduler.alpha_sigma_at(int(t))))

    return denoise


def within_range(denoise: Denoiser, scheduler: NoiseScheduler) -> Denoiser:
    """A denoiser of images, whose guess of x_0 is kept within [-1, 1], where all pixels are; eps moves along."""

    def denoise_within(x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        eps, x_0 = denoise(x_t, t, label)
        (alpha, sigma), inside = scheduler.alpha_sigma(t, x_t), x_0.clamp(-1, 1)
        return Prediction(eps + alpha / sigma * (x_0 - inside), inside)

    return denoise_within


def in_chunks(denoise: Denoiser, rows: int) -> Denoiser:
    """The same denoiser, `rows` rows at a time: the network's intermediate results then stay in the CPU's cache."""

    def chunked(x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        parts = x_t.split(rows)
        labels = [None] * len(parts) if label is None else label.split(rows)
        return Prediction(*joined((denoise(x, t, of) for x, of in zip(parts, labels)), len(x_t)))

    return chunked


if __name__ == "__main__":
    from dataset import create_moon_dataset

    model = DiffusionModel(num_timesteps=100)
    data = create_moon_dataset(n_samples=500)
    trajectory = model.add_noise_trajectory(data)
    print(f"trajectory {trajectory.shape}: the share of variance that is signal")
    for t in (0, 25, 50, 75, 99):
        share = float(model.scheduler.signal[t])
        print(f"t = {t:2d}  {share:6.1%}  {'#' * round(50 * share)}")
