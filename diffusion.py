"""The forward process on any array of points; what a network may predict; denoisers; the training objective.

A new prediction target is a row in TARGETS, and its name in conf/choices.py.
`python diffusion.py` prints how the signal drowns.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from points.mixture import GaussianMixture
from runtime.arrays import floats
from runtime.randomness import generator
from schedule import CLEAN, NoiseScheduler, make_scheduler, t_of

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
    """What a network's output stands for.

    of: (x_0, eps, alpha, sigma) -> what it should be. prediction: (output, x_t, alpha, sigma) -> Prediction, both
    parts straight from the output, never one from the other through a division by a tiny alpha or sigma.
    share: (alpha, sigma) -> what an error of eps is, in units of an error of the target.
    """

    of: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    prediction: Callable[[Tensor, Tensor, Tensor, Tensor], Prediction]
    share: Callable[[Tensor, Tensor], Tensor]


TARGETS = {
    "eps": Target(  # Ho et al. 2020: eq. 14, and eq. 15 for x_0
        of=lambda x_0, eps, alpha, sigma: eps,
        prediction=lambda eps, x_t, alpha, sigma: Prediction(eps, (x_t - sigma * eps) / alpha),
        share=lambda alpha, sigma: torch.ones_like(alpha),
    ),
    "v": Target(  # the velocity of Salimans and Ho 2022, arXiv 2202.00512, appendix D
        of=lambda x_0, eps, alpha, sigma: alpha * eps - sigma * x_0,
        prediction=lambda v, x_t, alpha, sigma: Prediction(sigma * x_t + alpha * v, alpha * x_t - sigma * v),
        share=lambda alpha, sigma: alpha,
    ),
    "x0": Target(
        of=lambda x_0, eps, alpha, sigma: x_0,
        prediction=lambda x_0, x_t, alpha, sigma: Prediction((x_t - alpha * x_0) / sigma, x_0),
        share=lambda alpha, sigma: alpha / sigma,
    ),
}

# ---------------------------------------------------------------- denoisers


class Denoiser(Protocol):
    """x_t (B, *dims), t () or (B,), label (B,) or None -> Prediction: a network, guided or not, or the exact answer."""

    def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction: ...


Network = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def denoiser(net: Network, scheduler: NoiseScheduler, target: str) -> Denoiser:
    """A network as a denoiser, whatever its output means: `target` is a key of TARGETS."""
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
        return Prediction(*map(torch.cat, zip(*(denoise(x, t, of) for x, of in zip(parts, labels)))))

    return chunked


# ---------------------------------------------------------------- training


class Loss(NamedTuple):
    """Squared errors of the network's output, averaged over dims and weighted: (B,) each.

    ordinary: against the noise that was drawn, comparable with the Bayes floor. stable: against what the network
    learns from, its expectation over a reference batch (the same where there is none).
    """

    ordinary: Tensor
    stable: Tensor


def training_loss(
    net: Network,
    scheduler: NoiseScheduler,
    x_0: Tensor,
    t: Tensor,
    eps: Tensor,
    label: Tensor | None = None,
    *,
    target: str = "eps",
    weights: Tensor | None = None,
    references: int = 0,
    null_label: int = -1,
) -> Loss:
    """The loss of each row, times weights[t] (see loss_weights). With target and weight "eps" it is L_simple (eq. 14).

    references: rows at a time that serve each other as reference batch (see stable_target); 0: none.
    null_label: what stands in `label` for none.
    """
    x_t, alpha_sigma = scheduler.add_noise(x_0, t, eps), scheduler.alpha_sigma(t, x_0)
    output, of = net(x_t, t, label), TARGETS[target].of
    weight = 1 if weights is None else weights.to(x_0)[t]
    ordinary = (output - of(x_0, eps, *alpha_sigma)).square().flatten(1).mean(1) * weight
    if not references:
        return Loss(ordinary, ordinary)
    expected = stable_target(x_t, x_0, *alpha_sigma, label, references, null_label)
    stable = (output - of(expected.x_0, expected.eps, *alpha_sigma)).square().flatten(1).mean(1) * weight
    return Loss(ordinary.detach(), stable)


@torch.no_grad()
def stable_target(
    x_t: Tensor, x_0: Tensor, alpha: Tensor, sigma: Tensor, label: Tensor | None, references: int, null_label: int = -1
) -> Prediction:
    """E[eps | x_t] and E[x_0 | x_t] if data were the rows of x_0 only, `references` of them at a time (Xu, Tong and
    Jaakkola 2023, arXiv 2302.00670, eq. 7).

    Given which rows these are and x_t, but not which of them x_t came from, this is the expectation of what was drawn:
    on average over batches the target stays the same, with a fraction of its variance. Rows with a label refer to those
    of the same label, others to all.
    """
    x, data, a, s = (v.flatten(1) for v in (x_t, x_0, alpha, sigma))
    rows = [x, data, a / s.square(), (a / s).square() / 2, *([] if label is None else [label])]
    means = []
    for x, data, gain, precision, *label_of in zip(*(r.split(references) for r in rows)):
        logits = torch.addmm(precision * -data.square().sum(1), gain * x, data.T)  # log N(x_t; a x_0, s^2) + const
        for own in label_of:
            logits.masked_fill_((own[:, None] != own) & (own[:, None] != null_label), -torch.inf)
        means.append((data.T @ logits.softmax(1).T).T)  # the same as softmax @ data, which takes eight times as long
    mean = torch.cat(means).view_as(x_t)
    return Prediction((x_t - alpha * mean) / sigma, mean)


def draw_steps(num_timesteps: int, rows: int, power: float, generator: torch.Generator) -> Tensor:
    """A step t for each row, t = T u^power (rows,), where each of as many equal bins of 0..1 gives one u (Kingma et al.
    2021, arXiv 2107.00630, appendix I.1). power 1: every step as often as any other; more: small t more often."""
    u = (torch.arange(rows) + torch.rand(rows, generator=generator)) / rows
    return (u**power * num_timesteps).long().clamp(max=num_timesteps - 1)


def step_weights(num_timesteps: int, power: float) -> Tensor:
    """How much rarer `draw_steps` gives each step than even draws do, (T,): with these weights the loss is theirs."""
    ends = torch.linspace(0, 1, num_timesteps + 1, dtype=torch.float64) ** (1 / power)
    return 1 / (num_timesteps * ends.diff())


def loss_weights(scheduler: NoiseScheduler, target: str, weight: str) -> Tensor:
    """What the squared error of the network's output counts at each step, (T,) float64.

    "target": 1, so that the error of what the network predicts counts evenly. Else the error of eps counts
    "eps": 1 (Ho et al. 2020, eq. 14), "v": 1 / alpha^2, which makes it the error of v (Salimans and Ho 2022,
    appendix D), or "min_snr": min(SNR, 5) / SNR (Hang et al. 2023, arXiv 2303.09556, section 3.4).
    """
    alpha, sigma = scheduler.alpha, scheduler.sigma
    if weight == "target":
        return torch.ones_like(alpha)
    snr = (alpha / sigma).square()
    of_eps = {"eps": torch.ones_like(snr), "v": alpha**-2, "min_snr": snr.clamp(max=5) / snr}[weight]
    return of_eps * TARGETS[target].share(alpha, sigma).square()


if __name__ == "__main__":
    from dataset import create_moon_dataset

    model = DiffusionModel(num_timesteps=100)
    data = create_moon_dataset(n_samples=500)
    trajectory = model.add_noise_trajectory(data)
    print(f"trajectory {trajectory.shape}: the share of variance that is signal")
    for t in (0, 25, 50, 75, 99):
        share = float(model.scheduler.alphas_cumprod[t])
        print(f"t = {t:2d}  {share:6.1%}  {'#' * round(50 * share)}")
