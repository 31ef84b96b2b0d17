"""The forward process on arrays; prediction targets; denoisers.

To add a prediction target, write a `Target` here and its row in registry/process_rows.py.
`python diffusion.py` prints how much of the variance is signal at some steps.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from points.mixture import GaussianMixture
from registry import implementation
from registry.plugins import called
from registry.process_rows import TARGETS
from runtime.arrays import concatenated, floats
from runtime.randomness import generator
from schedule import CLEAN, NoiseScheduler, make_scheduler, t_from_step

Array = TypeVar("Array", np.ndarray, Tensor)


# ---------------------------------------------------------------- the forward process


class DiffusionModel:
    """The forward process: adds noise to clean data of shape (B, *dims), step by step.

    NumPy arrays give NumPy arrays, and tensors give tensors.

    Args:
        num_timesteps: T.
        beta_start, beta_end, schedule, zero_snr: see schedule.make_scheduler.
        seed: the noise is a function of the seed and of the number of earlier calls.

    Raises:
        ValueError: as schedule.make_scheduler.
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

    def forward_diffusion(
        self,
        data: Array,
        t: int | Tensor,
        noise: Array | None = None,
    ) -> tuple[Array, Array]:
        """Return x_t and the noise eps in it: x_t = alpha x_0 + sigma eps.

        Source: Ho et al. 2020 (arXiv 2006.11239), eq. 4.

        Args:
            data: x_0 of shape (B, *dims).
            t: one step for all rows, or one for each row: shape (B,).
            noise: eps, of the shape of x_0; default: drawn from N(0, I).

        Returns:
            x_t and eps, both of the shape of x_0.

        Raises:
            ValueError: t outside 0 .. T-1, a wrong shape, or NaN or infinity in the data.
        """
        x_0 = _checked(data)
        t = self.scheduler.check_t(t).to(x_0.device)
        if t.ndim and t.shape != x_0.shape[:1]:
            rule = f"t must be one step or one for each of {len(x_0)} rows"
            raise ValueError(f"{rule}, got shape {tuple(t.shape)}")

        eps = self._noise_like(x_0) if noise is None else _checked(noise)
        if eps.shape != x_0.shape:
            raise ValueError(f"noise has shape {tuple(eps.shape)}, the data {tuple(x_0.shape)}")
        x_t = self.scheduler.add_noise(x_0, t, eps)
        return _as_type_of(data, x_t), _as_type_of(data, eps)

    def add_noise_trajectory(self, data: Array) -> Array:
        """Run the Markov chain through all T steps (eq. 2).

        Each step adds fresh noise to the state before it. At every t the states have the
        distribution of eq. 4.

        Args:
            data: x_0 of shape (B, *dims).

        Returns:
            Shape (T, B, *dims), where trajectory[t] is x_t. The clean data is not part of it.

        Raises:
            ValueError: a wrong shape, or NaN or infinity in the data.
        """
        x = _checked(data)
        num_timesteps = self.scheduler.num_timesteps
        trajectory = x.new_empty((num_timesteps, *x.shape))
        for t in range(num_timesteps):
            x = self.scheduler.add_noise_step(x, t, self._noise_like(x))
            trajectory[t] = x
        return _as_type_of(data, trajectory)

    def _noise_like(self, x: Tensor) -> Tensor:
        eps = torch.randn(x.shape, generator=self.generator, dtype=x.dtype)
        return eps.to(x.device)


def _checked(data: np.ndarray | Tensor) -> Tensor:
    """Return data of shape (B, *dims) as a floating-point tensor; raises ValueError otherwise."""
    x = floats(data, "data")
    if x.ndim < 2:
        shape = tuple(x.shape)
        raise ValueError(f"data must have shape (B, *dims), such as (500, 2); got {shape}")
    return x


def _as_type_of(data: Array, x: Tensor) -> Array:
    """Return x as a NumPy array if `data` is one, else as the tensor that it is."""
    if isinstance(data, Tensor):
        return cast(Array, x)
    return cast(Array, x.numpy())


@torch.no_grad()
def forward_states(
    scheduler: NoiseScheduler,
    x_0: Tensor,
    steps: Sequence[int],
    generator: torch.Generator,
) -> Iterator[Tensor]:
    """Run the Markov chain, and yield its state after some numbers of forward steps only.

    Long chains then fit into memory. Several steps at once are exact, because a sum of independent
    Gaussians is a Gaussian (see scheduler.transition).

    Args:
        scheduler: the process.
        x_0: clean data (B, *dims).
        steps: numbers of forward steps, rising, from 0 .. T.
        generator: source of the noise.

    Yields:
        x_t of shape (B, *dims) for each of `steps`.
    """
    x = x_0
    s = CLEAN
    for step in steps:
        t = t_from_step(step)
        if t != s:
            a, b = scheduler.transition(s, t)
            eps = torch.randn(x.shape, generator=generator, dtype=x.dtype)
            x = a * x + b * eps
            s = t
        yield x


# ---------------------------------------------------------------- prediction targets


class Prediction(NamedTuple):
    """What a denoiser predicts from x_t = alpha x_0 + sigma eps; both have the shape of x_t."""

    eps: Tensor
    x_0: Tensor


class Target(NamedTuple):
    """A prediction target: what the output of a network stands for.

    Attributes:
        value: the target itself, as a function of (x_0, eps, alpha, sigma).
        prediction: the Prediction, as a function of (output, x_t, alpha, sigma). Both of its parts
            come straight from the output. Computing one from the other could divide by a tiny
            alpha or sigma.
        error_factor: the error of the output, as a function of (alpha, sigma), if the errors of eps and
            x_0 are alpha and -sigma. Given x_t, either of these errors determines the other.
    """

    value: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    prediction: Callable[[Tensor, Tensor, Tensor, Tensor], Prediction]
    error_factor: Callable[[Tensor, Tensor], Tensor]


def _from_v(v: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Prediction:
    variance = alpha**2 + sigma**2  # 1 where the process preserves the variance
    a = alpha / variance
    s = sigma / variance
    return Prediction(eps=s * x_t + a * v, x_0=a * x_t - s * v)


def _from_velocity(u: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Prediction:
    total = alpha + sigma  # 1 in a flow
    return Prediction(eps=(x_t + alpha * u) / total, x_0=(x_t - sigma * u) / total)


# Ho et al. 2020: eq. 14, and eq. 15 for x_0
EPS = Target(
    value=lambda x_0, eps, alpha, sigma: eps,
    prediction=lambda eps, x_t, alpha, sigma: Prediction(eps, (x_t - sigma * eps) / alpha),
    error_factor=lambda alpha, sigma: alpha,
)

# Salimans and Ho 2022, arXiv 2202.00512, appendix D
V = Target(
    value=lambda x_0, eps, alpha, sigma: alpha * eps - sigma * x_0,
    prediction=_from_v,
    error_factor=lambda alpha, sigma: alpha**2 + sigma**2,
)

X_0 = Target(
    value=lambda x_0, eps, alpha, sigma: x_0,
    prediction=lambda x_0, x_t, alpha, sigma: Prediction((x_t - alpha * x_0) / sigma, x_0),
    error_factor=lambda alpha, sigma: sigma,
)

# dx_t/ds of the flow: Lipman et al. 2023, arXiv 2210.02747, eq. 23; Liu et al. 2023, eq. 1
VELOCITY = Target(
    value=lambda x_0, eps, alpha, sigma: eps - x_0,
    prediction=_from_velocity,
    error_factor=lambda alpha, sigma: alpha + sigma,
)


def prediction_target(name: str) -> Target:
    """What a network predicts, by name: a key of registry.process_rows.TARGETS. Raises ValueError for another name."""
    if name not in TARGETS:
        raise ValueError(f"prediction {name!r} is unknown; choose one of {', '.join(TARGETS)}")
    target = implementation(TARGETS[name])
    if not isinstance(target, Target):
        raise ValueError(f"{called('target', name)} is no diffusion.Target")
    return target


def check_target(scheduler: NoiseScheduler, target: str) -> None:
    """Check that a network can be trained to predict `target` in this process.

    Raises:
        ValueError: x_T is pure noise, and the target, such as eps, then determines no x_0.
    """
    error_factor = prediction_target(target).error_factor(scheduler.alpha[-1], scheduler.sigma[-1])
    if error_factor == 0:
        raise ValueError(
            f"model.prediction={target} cannot work where no signal is left at the last step"
            f" (schedule=flow, zero_snr=true), as x_0 cannot be had from {target} there:"
            " take model.prediction=v, x0 or velocity"
        )


# ---------------------------------------------------------------- denoisers


class Denoiser(Protocol):
    """A network, a guided network or the exact distribution, as a function of a noisy state.

    Args:
        x_t: shape (B, *dims).
        t: shape (B,), or () for one step for all rows.
        label: shape (B,), or None for the unconditional prediction.
    """

    def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction: ...


Network = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def denoiser(net: Network, scheduler: NoiseScheduler, target: str) -> Denoiser:
    """Return a network as a denoiser.

    Args:
        net: `net(x_t, t, label)`, with an output of the shape of x_t.
        scheduler: the process for which the network was trained.
        target: what its output stands for, a key of TARGETS.

    Raises:
        ValueError: an unknown target.
    """
    prediction = prediction_target(target).prediction

    def denoise(x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        output = net(x_t, t, label)
        alpha, sigma = scheduler.alpha_sigma(t, x_t)
        return prediction(output, x_t, alpha, sigma)

    return denoise


def exact_denoiser(mixture: GaussianMixture, scheduler: NoiseScheduler) -> Denoiser:
    """The best denoiser of data of a known distribution: E[eps | x_t] and E[x_0 | x_t]; one t for all rows."""

    def denoise(x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        return Prediction(*mixture.denoise(x_t, *scheduler.alpha_sigma_at(int(t))))

    return denoise


def clamped_denoiser(denoise: Denoiser, scheduler: NoiseScheduler, limit: float = 1.0) -> Denoiser:
    """Return a denoiser of images whose prediction of x_0 is clamped to [-limit, limit].

    All pixels lie in [-1, 1]. eps changes with x_0, so that x_t = alpha x_0 + sigma eps holds.
    """

    def denoise_within(x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        eps, x_0 = denoise(x_t, t, label)
        alpha, sigma = scheduler.alpha_sigma(t, x_t)
        clamped = x_0.clamp(-limit, limit)
        return Prediction(eps + alpha / sigma * (x_0 - clamped), clamped)

    return denoise_within


def in_chunks(denoise: Denoiser, rows: int) -> Denoiser:
    """The same denoiser, `rows` rows at a time: the network's intermediate results then stay in the CPU's cache.

    It also takes an int as t, one step for all rows.
    """

    def denoise_in_chunks(x_t: Tensor, t: Tensor | int, label: Tensor | None = None) -> Prediction:
        if not isinstance(t, Tensor):
            t = torch.tensor(t, device=x_t.device)
        parts = x_t.split(rows)
        steps = t.split(rows) if t.ndim else [t] * len(parts)
        labels = [None] * len(parts) if label is None else label.split(rows)
        predictions = (denoise(*part) for part in zip(parts, steps, labels))
        return Prediction(*concatenated(predictions, len(x_t)))

    return denoise_in_chunks


if __name__ == "__main__":
    from dataset import create_moon_dataset

    model = DiffusionModel(num_timesteps=100)
    data = create_moon_dataset(n_samples=500)
    trajectory = model.add_noise_trajectory(data)
    print(f"trajectory {trajectory.shape}: the share of variance that is signal")
    for t in (0, 25, 50, 75, 99):
        share = float(model.scheduler.signal[t])
        bar = "#" * round(50 * share)
        print(f"t = {t:2d}  {share:6.1%}  {bar}")
