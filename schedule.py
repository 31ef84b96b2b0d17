"""Noise schedules: the (alpha, sigma) of every process x_t = alpha x_0 + sigma eps, and everything derived from them.

Notation, here and everywhere: `t` is a 0-based integer step, 0 .. T-1, and `alphas_cumprod[t]` is the paper's
alpha-bar at t + 1; clean data is *before* step 0. On the recordings' clock `step` counts forward steps: 0 is clean
data, k the state after k of them. `step_of` and `t_of` are the only places where one becomes the other.

Equation numbers are those of Ho et al. 2020, "Denoising Diffusion Probabilistic Models" (arXiv 2006.11239).
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from registry import implementation
from registry.process_rows import SCHEDULES
from runtime.arrays import numbers

LARGEST_BETA = 0.999  # a beta of 1 would forget x_{t-1} completely, and eq. 11 would divide by zero
ENOUGH_SIGNAL_GONE = 0.01  # alpha-bar at the last step above this: x_T is visibly not N(0, I)
SMALLEST_BETA = 1e-12  # 1 - alpha-bar, in float64, has few digits left of a smaller one
SMALLEST_ALPHA_BAR = 1e-36  # in float32, in which networks compute, 1 / alpha^2 must be finite
CLEAN = -1  # the t of clean data


def step_of(t: int) -> int:
    """How many forward steps lead to x_t: 1 at t = 0, and 0 at CLEAN."""
    return t + 1


def t_of(step: int) -> int:
    """The t of the state after `step` forward steps: CLEAN after none."""
    return step - 1


class NoiseScheduler:
    """A process, given by alpha and sigma at each step: x_t = alpha[t] x_0 + sigma[t] eps.

    `alpha` and `sigma` have shape (T,), float64; alpha / sigma must fall, down to 0 if it likes: alpha may be 0 at the
    last step, where x_t is then nothing but noise. Everybody asks for these two only; betas are a subclass's own.
    Methods take x of shape (B, *dims) and t of shape (B,), or () when one step serves all rows; they compute
    the coefficients in float64 and return x's dtype.
    """

    def __init__(self, alpha: Tensor, sigma: Tensor) -> None:
        self.alpha, self.sigma = alpha.double(), sigma.double()
        if len(self.alpha) < 1:
            raise ValueError("num_timesteps must be at least 1, got 0")
        if not bool((self.log_snr.diff() < 0).all()):
            raise ValueError("alpha / sigma must fall from step to step")
        self._like: dict[tuple[torch.dtype, torch.device], tuple[Tensor, Tensor]] = {}

    @property
    def num_timesteps(self) -> int:
        return len(self.alpha)

    @property
    def log_snr(self) -> Tensor:
        """log(alpha / sigma), half the logarithm of the signal-to-noise ratio: (T,), falling; -inf where alpha is 0."""
        return (self.alpha / self.sigma).log()

    @property
    def signal(self) -> Tensor:
        """The share of x_t's variance that is signal, (T,): alpha-bar where variance is preserved."""
        return self.alpha**2 / (self.alpha**2 + self.sigma**2)

    @property
    def alpha_bar(self) -> np.ndarray:
        """`signal` after 0 .. T forward steps: (T + 1,), beginning with 1 for the clean data."""
        return np.concatenate([[1.0], self.signal.numpy()])

    def check_t(self, t: int | Sequence[int] | np.ndarray | Tensor) -> Tensor:
        """`t` as an integer tensor. Raises ValueError where it is outside 0 .. T-1."""
        t = numbers(t, "t")
        if t.is_floating_point() or t.dtype == torch.bool:
            raise ValueError(f"t must be an integer step, got {t.dtype}")
        if t.numel() and not (int(t.min()) >= 0 and int(t.max()) < self.num_timesteps):
            raise ValueError(f"t must lie in 0..{self.num_timesteps - 1}, got {int(t.min())}..{int(t.max())}")
        return t.long()  # torch takes bytes as an index for a mask

    def alpha_sigma(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha, sigma) at t, shaped to multiply `like`."""
        key = like.dtype, like.device
        if key not in self._like:  # converted once, not at each of a thousand steps
            self._like[key] = self.alpha.to(like), self.sigma.to(like)
        alpha, sigma = self._like[key]
        return _shaped(alpha[t], like), _shaped(sigma[t], like)

    def alpha_sigma_at(self, t: int) -> tuple[float, float]:
        """(alpha, sigma) at one step as numbers; (1, 0) at CLEAN."""
        return (1.0, 0.0) if t == CLEAN else (float(self.alpha[t]), float(self.sigma[t]))

    def log_snr_at(self, t: int) -> float:
        """log(alpha / sigma) at one step; infinity at CLEAN, -infinity where no signal is left."""
        alpha, sigma = self.alpha_sigma_at(t)
        if alpha == 0:
            return -math.inf
        if sigma == 0:
            return math.inf
        return math.log(alpha / sigma)

    # ------------------------------------------------------------ forward

    def add_noise(self, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """x_t from x_0 in one stride (eq. 4)."""
        alpha, sigma = self.alpha_sigma(t, x_0)
        return alpha * x_0 + sigma * eps

    def add_noise_step(self, x_prev: Tensor, t: int | Tensor, eps: Tensor) -> Tensor:
        """x_t from x_{t-1}, one step t for all rows: the Markov chain (eq. 2)."""
        a, b = self.stride(int(t) - 1, int(t))
        return a * x_prev + b * eps

    def stride(self, s: int, t: int) -> tuple[float, float]:
        """(a, b) of x_t = a x_s + b eps, s < t: any number of steps of the chain at once.

        a = alpha_t / alpha_s, b^2 = sigma_t^2 - a^2 sigma_s^2 (Kingma et al. 2021, arXiv 2107.00630, appendix A).
        """
        (alpha_s, sigma_s), (alpha_t, sigma_t) = self.alpha_sigma_at(s), self.alpha_sigma_at(t)
        a = alpha_t / alpha_s
        return a, math.sqrt(max(sigma_t**2 - (a * sigma_s) ** 2, 0.0))

    # ------------------------------------------------------------ reverse

    def posterior(self, t: int, s: int) -> tuple[float, float, float]:
        """(c_t, c_0, std) of x_s given x_t and x_0, s < t: c_t x_t + c_0 x_0 + std noise (eq. 6 and 7, any stride)."""
        (alpha_s, sigma_s), (_, sigma_t), (a, b) = self.alpha_sigma_at(s), self.alpha_sigma_at(t), self.stride(s, t)
        return a * (sigma_s / sigma_t) ** 2, alpha_s * (b / sigma_t) ** 2, b * sigma_s / sigma_t

    def signal_warning(self) -> str | None:
        """One line where x_T still shows the data, so that sampling from N(0, I) is biased; else None."""
        left = float(self.alpha[-1])
        if left**2 <= ENOUGH_SIGNAL_GONE:
            return None
        return (
            f"x_T keeps {left:.0%} of the signal's amplitude (sqrt(alpha-bar_T) = {left:.2f}), so it is not"
            " N(0, I): raise beta_end or num_timesteps, or leave both betas unset"
        )


def _shaped(coefficient: Tensor, like: Tensor) -> Tensor:
    """(B,) as (B, 1, ...) with the dimensions of `like`; () stays."""
    return coefficient.reshape(coefficient.shape + (1,) * (like.ndim - 1)) if coefficient.ndim else coefficient


def evenly(first: int, last: int, count: int) -> list[int]:
    """At most `count` distinct integers from `first` to `last`, evenly chosen, always with both ends."""
    return np.linspace(first, last, min(count, abs(last - first) + 1)).round().astype(int).tolist()


# ---------------------------------------------------------------- variance-preserving schedules


class VariancePreserving(NoiseScheduler):
    """A schedule given by its betas: alpha = sqrt(alpha-bar), sigma = sqrt(1 - alpha-bar). The last beta may be 1.

    All arrays have shape (T,), float64: `betas`, `alphas`, `alphas_cumprod`, `alphas_cumprod_prev`,
    `sqrt_alphas_cumprod`, `sqrt_one_minus_alphas_cumprod`, `posterior_variance`.
    """

    def __init__(self, betas: Tensor | Sequence[float]) -> None:
        betas = numbers(betas, "betas").double()
        allowed = (betas >= SMALLEST_BETA) & (betas <= 1)
        if betas.ndim != 1 or len(betas) < 1 or not bool(allowed.all() and (betas[:-1] < 1).all()):
            raise ValueError(
                f"betas must be a list of numbers from {SMALLEST_BETA:g} to 1, and 1 itself only at the end"
            )
        self.betas = betas
        self.alphas = 1 - betas
        self.alphas_cumprod = self.alphas.cumprod(0)
        kept = self.alphas_cumprod >= SMALLEST_ALPHA_BAR
        if not bool((kept | (betas == 1)).all()):
            gone = int(kept.sum())
            raise ValueError(
                f"these betas are too large for {len(betas)} steps: after {gone} nothing at all is left of the signal;"
                " lower beta_end, or leave both betas unset"
            )
        self.alphas_cumprod_prev = torch.cat([torch.ones(1, dtype=torch.float64), self.alphas_cumprod[:-1]])
        self.sqrt_alphas_cumprod = self.alphas_cumprod.sqrt()
        self.sqrt_one_minus_alphas_cumprod = (1 - self.alphas_cumprod).sqrt()
        # eq. 7: the variance of x_{t-1} given x_t and x_0 (0 at the first step)
        self.posterior_variance = betas * (1 - self.alphas_cumprod_prev) / (1 - self.alphas_cumprod)
        super().__init__(self.sqrt_alphas_cumprod, self.sqrt_one_minus_alphas_cumprod)

    def posterior_mean(self, x_t: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """The mean of x_{t-1} given x_t and the noise in it (eq. 11); beta < 1, else eps says nothing of x_0."""
        beta, (_, sigma) = _shaped(self.betas.to(x_t)[t], x_t), self.alpha_sigma(t, x_t)
        return (x_t - beta / sigma * eps) / (1 - beta).sqrt()

    def reverse_step(self, x_t: Tensor, t: Tensor, eps: Tensor, noise: Tensor) -> Tensor:
        """x_{t-1} from x_t: eq. 11 plus noise of the posterior variance (eq. 7), which is 0 at t = 0."""
        return self.posterior_mean(x_t, t, eps) + _shaped(self.posterior_variance.to(x_t)[t], x_t).sqrt() * noise


class LinearNoiseScheduler(VariancePreserving):
    """Betas that grow linearly (Ho et al., section 4).

    By default from 0.1 / T to 20 / T, the VP-SDE's beta_min and beta_max (Song et al. 2021, arXiv 2011.13456,
    appendix C): exactly 1e-4 .. 0.02 at T = 1000, and at every other T as little signal is left in x_T.
    Numbers that are given are taken literally.

    Raises:
        ValueError: fewer than one step, or betas outside 0 .. 1 or falling.
    """

    power = 1  # of a linear ramp

    def __init__(
        self, num_timesteps: int = 1000, beta_start: float | None = None, beta_end: float | None = None
    ) -> None:
        _check_length(num_timesteps)
        start = min(0.1 / num_timesteps, LARGEST_BETA) if beta_start is None else beta_start
        end = min(20 / num_timesteps, LARGEST_BETA) if beta_end is None else beta_end
        if not 0 < start <= end < 1:
            raise ValueError(f"betas must satisfy 0 < beta_start <= beta_end < 1, got {start:g} and {end:g}")
        ends = start ** (1 / self.power), end ** (1 / self.power)
        super().__init__(torch.linspace(*ends, num_timesteps, dtype=torch.float64) ** self.power)


class ScaledLinearNoiseScheduler(LinearNoiseScheduler):
    """The square roots of the betas grow linearly: "scaled linear" of Rombach et al. 2022 (arXiv 2112.10752), who end
    at 0.85 / T and 12 / T, "quad" of Song, Meng and Ermon 2021 (arXiv 2010.02502). Ends and errors as above."""

    power = 2


def _check_length(num_timesteps: int) -> None:
    if num_timesteps < 1:
        raise ValueError(f"num_timesteps must be at least 1, got {num_timesteps}")


class CosineNoiseScheduler(VariancePreserving):
    """alpha-bar follows a squared cosine (Nichol and Dhariwal 2021, arXiv 2102.09672, eq. 17): gentler at both ends."""

    def __init__(self, num_timesteps: int = 1000) -> None:
        u = torch.linspace(0, 1, num_timesteps + 1, dtype=torch.float64)
        super().__init__(_betas_of(((u + 0.008) / 1.008 * math.pi / 2).cos().square()))


class SigmoidNoiseScheduler(VariancePreserving):
    """alpha-bar follows a sigmoid from -3 to 3 (Jabri et al. 2022, arXiv 2212.11972, algorithm 1, tau = 1)."""

    def __init__(self, num_timesteps: int = 1000) -> None:
        u = torch.linspace(-3, 3, num_timesteps + 1, dtype=torch.float64)
        falling = torch.sigmoid(-u)
        super().__init__(_betas_of((falling - falling[-1]) / (falling[0] - falling[-1])))


def _betas_of(alpha_bar: Tensor) -> Tensor:
    """The betas whose products are alpha_bar (T + 1,), which begins at the clean data; capped below 1."""
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(1e-9, LARGEST_BETA)


def zero_terminal_snr(betas: Tensor) -> Tensor:
    """Betas (T,) that take the last of the signal away, too: sqrt(alpha-bar) shifted so that it ends at 0 and scaled so
    that it begins as it did (Lin et al. 2024, arXiv 2305.08891, algorithm 1). The last beta is then 1."""
    if len(betas) < 2:
        raise ValueError("zero_snr needs a process of at least 2 steps")
    root = (1 - betas).cumprod(0).sqrt()
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    return 1 - torch.cat([root[:1], root[1:] / root[:-1]]).square()


class FlowNoiseScheduler(NoiseScheduler):
    """A straight line from data to noise: alpha = 1 - s, sigma = s with s = (t + 1) / T, so that x_T is eps itself.

    Flow matching with optimal-transport paths (Lipman et al. 2023, arXiv 2210.02747, eq. 20 to 22, sigma_min = 0) and
    rectified flow (Liu et al. 2023, arXiv 2209.03003, eq. 1), with time running from data to noise.
    """

    def __init__(self, num_timesteps: int = 1000) -> None:
        _check_length(num_timesteps)
        s = torch.arange(1, num_timesteps + 1, dtype=torch.float64) / num_timesteps
        super().__init__(1 - s, s)


def make_scheduler(
    schedule: str,
    num_timesteps: int,
    beta_start: float | None = None,
    beta_end: float | None = None,
    zero_snr: bool = False,
) -> NoiseScheduler:
    """The schedule of that name; zero_snr: see zero_terminal_snr. The flow ends in pure noise either way.

    Raises:
        ValueError: another name, fewer than one step, or betas for a schedule that has its own.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule {schedule!r} is unknown; choose one of {', '.join(SCHEDULES)}")
    _check_length(num_timesteps)
    row = SCHEDULES[schedule]
    betas = {"beta_start": beta_start, "beta_end": beta_end} if row.has_betas else {}
    if not betas and (beta_start is not None or beta_end is not None):
        takers = " and ".join(name for name, its_row in SCHEDULES.items() if its_row.has_betas)
        raise ValueError(f"beta_start and beta_end belong to schedule={takers}; schedule={schedule} has its own noise")
    scheduler = implementation(row)(num_timesteps, **betas)
    if zero_snr and isinstance(scheduler, VariancePreserving):
        return VariancePreserving(zero_terminal_snr(scheduler.betas))
    return scheduler
