"""The forward process on any array of points, and the objective that a network is trained with.

`python diffusion.py` prints how the signal drowns.
"""

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from mixture import GaussianMixture
from runtime.randomness import generator
from sampler import Denoiser
from schedule import NoiseScheduler, make_scheduler

Array = TypeVar("Array", np.ndarray, Tensor)


class DiffusionModel:
    """The forward process: clean data of shape (B, *dims), noised step by step. NumPy in, NumPy out; tensors likewise.

    Args:
        num_timesteps: T.
        beta_start, beta_end: see schedule.LinearNoiseScheduler.
        schedule: a key of schedule.SCHEDULES.
        seed: the noise is a function of it and of how many calls came before.
    """

    def __init__(
        self,
        num_timesteps: int = 1000,
        beta_start: float | None = None,
        beta_end: float | None = None,
        seed: int = 0,
        schedule: str = "linear",
    ) -> None:
        self.scheduler = make_scheduler(schedule, num_timesteps, beta_start, beta_end)
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
            x = self.scheduler.add_noise_step(x, torch.tensor(t), self._noise_like(x))
            trajectory[t] = x
        return _like(data, trajectory)

    def _noise_like(self, x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=self.generator, dtype=x.dtype).to(x.device)


def _tensor(data: np.ndarray | Tensor) -> Tensor:
    """Data as a floating-point tensor, checked. Integers and lists become float32."""
    x = torch.as_tensor(data)
    if not x.is_floating_point():
        x = x.to(torch.float32)
    if x.ndim < 2:
        raise ValueError(f"data must have shape (B, *dims), such as (500, 2); got {tuple(x.shape)}")
    if not bool(torch.isfinite(x).all()):
        raise ValueError("data holds NaN or infinity")
    return x


def _like(data: np.ndarray | Tensor, x: Tensor) -> np.ndarray | Tensor:
    return x if isinstance(data, Tensor) else x.numpy()


@torch.no_grad()
def forward_states(
    scheduler: NoiseScheduler, x_0: Tensor, steps: Sequence[int], generator: torch.Generator
) -> Iterator[Tensor]:
    """The same chain at chosen numbers of noisings only (rising, from 0), so that long ones fit into memory.

    A stride over several steps is exact: alpha-bars divide, and independent Gaussians add up to one.
    """
    x, left = x_0, 1.0
    for n in steps:
        alpha_bar = scheduler.alpha_sigma_at(n - 1)[0] ** 2
        if n > 0:
            kept, left = alpha_bar / left, alpha_bar
            noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
            x = kept**0.5 * x + (1 - kept) ** 0.5 * noise
        yield x


def chosen_steps(num_timesteps: int, count: int) -> list[int]:
    """At most `count` numbers of noisings from 0 to T, evenly chosen, always with the first and the last."""
    return np.unique(np.linspace(0, num_timesteps, count).round().astype(int)).tolist()


# ---------------------------------------------------------------- training


def denoiser(net: nn.Module, scheduler: NoiseScheduler, prediction: str) -> Denoiser:
    """A network as eps = denoise(x_t, t, label=None), whatever its output means: `prediction` is "eps", "v" or "x0"."""

    def denoise(x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        out = net(x_t, t, label)
        if prediction == "v":
            return scheduler.eps_from_v(x_t, t, out)
        return scheduler.eps_from_x0(x_t, t, out) if prediction == "x0" else out

    return denoise


def guided(denoise: Denoiser, guidance: float) -> Denoiser:
    """eps = (1 + w) eps_cond - w eps_uncond, w = `guidance` (Ho and Salimans 2022, arXiv 2207.12598, eq. 6); 0: off."""

    def steered(x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        eps = denoise(x_t, t, label)
        if guidance == 0 or label is None:
            return eps
        return (1 + guidance) * eps - guidance * denoise(x_t, t, None)

    return steered


def within_range(denoise: Denoiser, scheduler: NoiseScheduler) -> Denoiser:
    """A denoiser of images, whose guess of x_0 is kept within [-1, 1], where all pixels are."""

    def denoise_within(x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        x_0 = scheduler.predict_x0(x_t, t, denoise(x_t, t, label))
        return scheduler.eps_from_x0(x_t, t, x_0.clamp(-1, 1))

    return denoise_within


def exact_denoiser(mixture: GaussianMixture, scheduler: NoiseScheduler) -> Denoiser:
    """The best denoiser there is for data of a known law: E[eps | x_t]. It runs in every sampler."""

    def denoise(x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        return mixture.eps(x_t, *scheduler.alpha_sigma_at(int(t)))

    return denoise


def training_loss(
    denoise: Denoiser,
    scheduler: NoiseScheduler,
    x_0: Tensor,
    t: Tensor,
    eps: Tensor,
    label: Tensor | None = None,
    weight: str = "eps",
) -> Tensor:
    """The squared error of the predicted noise, averaged over dims (L_simple, eq. 14), times loss_weights: (B,)."""
    x_t = scheduler.add_noise(x_0, t, eps)
    error = (denoise(x_t, t, label) - eps).square().flatten(1).mean(1)
    return error if weight == "eps" else error * loss_weights(scheduler, weight).to(error)[t]


def loss_weights(scheduler: NoiseScheduler, weight: str) -> Tensor:
    """What the error of eps counts at every step, (T,): "eps" 1; "v" what makes it the error of v; "min_snr".

    The error of v is that of eps over alpha-bar (Salimans and Ho 2022, appendix D): heavier where noise prevails.
    min_snr is min(SNR, 5) / SNR (Hang et al. 2023, arXiv 2303.09556, section 3.4): lighter where little is left to do.
    """
    alpha_bar = scheduler.alphas_cumprod
    snr = alpha_bar / (1 - alpha_bar)
    return {
        "eps": torch.ones_like(snr),
        "v": 1 / alpha_bar,
        "target": 1 / alpha_bar,
        "min_snr": snr.clamp(max=5) / snr,
    }[weight]


if __name__ == "__main__":
    from dataset import create_moon_dataset

    model = DiffusionModel(num_timesteps=100)
    data = create_moon_dataset(n_samples=500)
    trajectory = model.add_noise_trajectory(data)
    print(f"trajectory {trajectory.shape}: the share of variance that is signal")
    for t in (0, 25, 50, 75, 99):
        share = float(model.scheduler.alphas_cumprod[t])
        print(f"t = {t:2d}  {share:6.1%}  {'#' * round(50 * share)}")
