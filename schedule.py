"""Noise schedules: alpha and sigma of each process x_t = alpha x_0 + sigma eps, and what follows.

Everywhere in moonwalk, `t` is a 0-based integer step, 0 .. T-1. `alphas_cumprod[t]` is the paper's
alpha-bar at t + 1, and clean data comes before step 0, at t = CLEAN = -1. Recordings count forward
steps instead: their `step` is 0 for clean data, and k for the state after k steps. Only `step_from_t`
and `t_from_step` convert between the two.

Equation numbers are those of Ho et al. 2020, "Denoising Diffusion Probabilistic Models"
(arXiv 2006.11239).
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from registry import implementation
from registry.plugins import called
from registry.process_rows import SCHEDULES
from runtime.arrays import numbers

CLEAN = -1  # the t of clean data

# The tables of a process then take some megabytes. A damaged checkpoint may name any number.
MAX_TIMESTEPS = 1_000_000
# With beta = 1, x_t would not depend on x_{t-1}, and eq. 11 would divide by zero.
MAX_BETA = 0.999
# For a smaller beta, 1 - alpha-bar has few correct digits in float64.
MIN_BETA = 1e-12
# Networks compute in float32, where 1 / alpha^2 must stay finite.
MIN_ALPHA_BAR = 1e-36
# Where alpha / sigma falls by a larger factor in the last step, alpha should be 0 and is not, by
# rounding: cos(pi / 2) is 6e-17. With a beta of 0.999 the ratio falls by a factor of 0.03.
MIN_LAST_FALL = 1e-9
# With more signal left at the last step, x_T visibly differs from N(0, I).
MAX_FINAL_ALPHA_BAR = 0.01


def step_from_t(t: int) -> int:
    """Return the number of forward steps that lead to x_t: t + 1, and 0 at CLEAN."""
    return t + 1


def t_from_step(step: int) -> int:
    """Return the t of the state after `step` forward steps: step - 1, and CLEAN after none."""
    return step - 1


def evenly_spaced(first: int, last: int, count: int) -> list[int]:
    """Return at most `count` distinct integers from `first` to `last`, evenly spaced.

    Both ends are included. `last` may be less than `first`; then the integers fall.
    """
    available = abs(last - first) + 1
    points = np.linspace(first, last, min(count, available))
    return points.round().astype(int).tolist()


class NoiseScheduler:
    """A process given by alpha and sigma at each step: x_t = alpha[t] x_0 + sigma[t] eps.

    Methods take x of shape (B, *dims), and t of shape (B,) or, where one step serves all rows, ().
    They compute coefficients in float64 and return the dtype of x.

    Args:
        alpha, sigma: shape (T,). alpha / sigma falls from step to step. At the last step it may
            be 0; x_t is then pure noise. It must be exactly 0 there, which cos(pi / 2) is not.

    Raises:
        ValueError: T is 0, alpha / sigma does not fall, or its last value is 0 but for rounding.
    """

    def __init__(self, alpha: Tensor, sigma: Tensor) -> None:
        self.alpha = alpha.double()
        self.sigma = sigma.double()
        if len(self.alpha) < 1:
            raise ValueError("num_timesteps must be at least 1, got 0")
        if not bool((self.log_snr.diff() < 0).all()):
            raise ValueError("alpha / sigma must fall from step to step")
        ratio = (self.alpha / self.sigma)[-2:].tolist()
        if 0 < ratio[-1] < MIN_LAST_FALL * ratio[0]:
            raise ValueError(f"alpha / sigma of the last step is {ratio[-1]:.1g}, by rounding: make alpha exactly 0")

        # alpha and sigma by dtype and device: converted once, not at each of a thousand steps
        self._converted: dict[tuple[torch.dtype, torch.device], tuple[Tensor, Tensor]] = {}

    @property
    def num_timesteps(self) -> int:
        """T."""
        return len(self.alpha)

    @property
    def log_snr(self) -> Tensor:
        """log(alpha / sigma), half the log of the signal-to-noise ratio.

        Shape (T,), falling; -inf where alpha is 0.
        """
        return (self.alpha / self.sigma).log()

    @property
    def signal(self) -> Tensor:
        """The fraction of the variance of x_t that is signal, alpha^2 / (alpha^2 + sigma^2).

        Shape (T,). It equals alpha-bar where the process preserves the variance.
        """
        return self.alpha**2 / (self.alpha**2 + self.sigma**2)

    @property
    def alpha_bar(self) -> np.ndarray:
        """`signal` after 0 .. T forward steps: shape (T + 1,), beginning with 1 for clean data."""
        return np.concatenate([[1.0], self.signal.numpy()])

    def check_t(self, t: int | Sequence[int] | np.ndarray | Tensor) -> Tensor:
        """Return `t` as an int64 tensor of the same shape.

        Raises:
            ValueError: t is not an integer, or lies outside 0 .. T-1.
        """
        t = numbers(t, "t")
        if t.is_floating_point() or t.dtype == torch.bool:
            raise ValueError(f"t must be an integer step, got {t.dtype}")
        if t.numel():
            low = int(t.min())
            high = int(t.max())
            if low < 0 or high >= self.num_timesteps:
                raise ValueError(f"t must lie in 0..{self.num_timesteps - 1}, got {low}..{high}")
        return t.long()  # as an index, torch would take uint8 for a mask

    def alpha_sigma(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return (alpha, sigma) at t, in the dtype of `like` and shaped to multiply it.

        For `like` (B, *dims) and t (B,) both have shape (B, 1, ...); for t () they have shape ().
        """
        key = (like.dtype, like.device)
        if key not in self._converted:
            self._converted[key] = (self.alpha.to(like), self.sigma.to(like))
        alpha, sigma = self._converted[key]
        return _shaped(alpha[t], like), _shaped(sigma[t], like)

    def alpha_sigma_at(self, t: int) -> tuple[float, float]:
        """Return (alpha, sigma) at one step as Python numbers; (1, 0) at CLEAN."""
        if t == CLEAN:
            return 1.0, 0.0
        return float(self.alpha[t]), float(self.sigma[t])

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
        """Return x_t = alpha x_0 + sigma eps (eq. 4)."""
        alpha, sigma = self.alpha_sigma(t, x_0)
        return alpha * x_0 + sigma * eps

    def add_noise_step(self, x_prev: Tensor, t: int | Tensor, eps: Tensor) -> Tensor:
        """Return x_t given x_{t-1}, one step of the Markov chain (eq. 2); one t for all rows."""
        a, b = self.transition(int(t) - 1, int(t))
        return a * x_prev + b * eps

    def transition(self, s: int, t: int) -> tuple[float, float]:
        """Return (a, b) of the forward transition x_t = a x_s + b eps, for s < t.

        It covers any number of steps of the Markov chain at once. Here a = alpha_t / alpha_s and
        b^2 = sigma_t^2 - a^2 sigma_s^2.

        Source: Kingma et al. 2021 (arXiv 2107.00630), appendix A.
        """
        alpha_s, sigma_s = self.alpha_sigma_at(s)
        alpha_t, sigma_t = self.alpha_sigma_at(t)
        a = alpha_t / alpha_s
        variance = sigma_t**2 - (a * sigma_s) ** 2
        return a, math.sqrt(max(variance, 0.0))

    # ------------------------------------------------------------ reverse

    def posterior(self, t: int, s: int) -> tuple[float, float, float]:
        """Return (c_t, c_0, std) of the posterior of x_s given x_t and x_0, for s < t.

        It is the Gaussian x_s = c_t x_t + c_0 x_0 + std noise (eq. 6 and 7, for any transition).
        """
        alpha_s, sigma_s = self.alpha_sigma_at(s)
        _, sigma_t = self.alpha_sigma_at(t)
        a, b = self.transition(s, t)
        c_t = a * (sigma_s / sigma_t) ** 2
        c_0 = alpha_s * (b / sigma_t) ** 2
        std = b * sigma_s / sigma_t
        return c_t, c_0, std

    def signal_warning(self) -> str | None:
        """Return a warning if x_T still contains signal, else None.

        Sampling begins at N(0, I), and is biased where x_T has another distribution.
        """
        alpha = float(self.alpha[-1])
        if alpha**2 <= MAX_FINAL_ALPHA_BAR:
            return None
        return (
            f"x_T keeps {alpha:.0%} of the signal's amplitude (sqrt(alpha-bar_T) = {alpha:.2f}), so"
            " it is not N(0, I): raise beta_end or num_timesteps, or leave both betas unset"
        )


def _shaped(coefficient: Tensor, like: Tensor) -> Tensor:
    """Reshape (B,) to (B, 1, ...) with as many dimensions as `like`; () stays."""
    if coefficient.ndim == 0:
        return coefficient
    ones = (1,) * (like.ndim - 1)
    return coefficient.reshape(coefficient.shape + ones)


# ---------------------------------------------------------------- variance-preserving schedules


class VariancePreserving(NoiseScheduler):
    """A schedule given by its betas: alpha = sqrt(alpha-bar) and sigma = sqrt(1 - alpha-bar).

    Args:
        betas: shape (T,), from MIN_BETA to 1. Only the last beta may be 1.

    Attributes:
        betas, alphas, alphas_cumprod, alphas_cumprod_prev, sqrt_alphas_cumprod,
        sqrt_one_minus_alphas_cumprod, posterior_variance: shape (T,), float64.

    Raises:
        ValueError: betas outside that range, or so large that alpha-bar falls below MIN_ALPHA_BAR.
    """

    def __init__(self, betas: Tensor | Sequence[float]) -> None:
        betas = numbers(betas, "betas").double()
        _check_betas(betas)
        self.betas = betas
        self.alphas = 1 - betas
        self.alphas_cumprod = self.alphas.cumprod(0)
        _check_alpha_bar(self.alphas_cumprod, betas)

        one = torch.ones(1, dtype=torch.float64)
        self.alphas_cumprod_prev = torch.cat([one, self.alphas_cumprod[:-1]])
        self.sqrt_alphas_cumprod = self.alphas_cumprod.sqrt()
        self.sqrt_one_minus_alphas_cumprod = (1 - self.alphas_cumprod).sqrt()
        # eq. 7: the variance of x_{t-1} given x_t and x_0, which is 0 at the first step
        self.posterior_variance = betas * (1 - self.alphas_cumprod_prev) / (1 - self.alphas_cumprod)
        super().__init__(self.sqrt_alphas_cumprod, self.sqrt_one_minus_alphas_cumprod)

    def posterior_mean(self, x_t: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """Return the mean of x_{t-1} given x_t and the noise eps in it (eq. 11).

        It requires beta < 1: with beta = 1, x_t is pure noise, and eps tells nothing about x_0.
        """
        beta = _shaped(self.betas.to(x_t)[t], x_t)
        _, sigma = self.alpha_sigma(t, x_t)
        return (x_t - beta / sigma * eps) / (1 - beta).sqrt()

    def reverse_step(self, x_t: Tensor, t: Tensor, eps: Tensor, noise: Tensor) -> Tensor:
        """Return x_{t-1} given x_t: `posterior_mean` plus noise of the variance of eq. 7.

        The noise (B, *dims) is standard normal. At t = 0 its factor is 0.
        """
        variance = _shaped(self.posterior_variance.to(x_t)[t], x_t)
        return self.posterior_mean(x_t, t, eps) + variance.sqrt() * noise


def _check_betas(betas: Tensor) -> None:
    in_range = (betas >= MIN_BETA) & (betas <= 1)
    is_list = betas.ndim == 1 and len(betas) >= 1
    if not is_list or not bool(in_range.all() and (betas[:-1] < 1).all()):
        rule = f"a list of numbers from {MIN_BETA:g} to 1, and 1 itself only at the end"
        raise ValueError(f"betas must be {rule}")


def _check_alpha_bar(alpha_bar: Tensor, betas: Tensor) -> None:
    has_signal = alpha_bar >= MIN_ALPHA_BAR
    if not bool((has_signal | (betas == 1)).all()):
        count = int(has_signal.sum())
        raise ValueError(
            f"these betas are too large for {len(betas)} steps: after {count} nothing at all is"
            " left of the signal; lower beta_end, or leave both betas unset"
        )


def _check_length(num_timesteps: int) -> None:
    if num_timesteps < 1:
        raise ValueError(f"num_timesteps must be at least 1, got {num_timesteps}")
    if num_timesteps > MAX_TIMESTEPS:
        raise ValueError(f"num_timesteps must be at most {MAX_TIMESTEPS:,}, got {num_timesteps:,}")


class LinearNoiseScheduler(VariancePreserving):
    """Betas that grow linearly from beta_start to beta_end (Ho et al. 2020, section 4).

    By default they grow from 0.1 / T to 20 / T, which for T = 1000 is 1e-4 to 0.02. For every
    other T, x_T keeps as little signal as for T = 1000. Numbers that are given are taken as they
    are.

    Source of the defaults: beta_min and beta_max of the VP-SDE, Song et al. 2021
    (arXiv 2011.13456), appendix C.

    Raises:
        ValueError: T is less than 1, or not 0 < beta_start <= beta_end < 1; also as
            VariancePreserving.
    """

    power = 1  # betas ** (1 / power) grow linearly

    def __init__(
        self,
        num_timesteps: int = 1000,
        beta_start: float | None = None,
        beta_end: float | None = None,
    ) -> None:
        _check_length(num_timesteps)
        if beta_start is None:
            beta_start = min(0.1 / num_timesteps, MAX_BETA)
        if beta_end is None:
            beta_end = min(20 / num_timesteps, MAX_BETA)
        if not 0 < beta_start <= beta_end < 1:
            rule = "0 < beta_start <= beta_end < 1"
            raise ValueError(f"betas must satisfy {rule}, got {beta_start:g} and {beta_end:g}")

        first_root = beta_start ** (1 / self.power)
        last_root = beta_end ** (1 / self.power)
        roots = torch.linspace(first_root, last_root, num_timesteps, dtype=torch.float64)
        super().__init__(roots**self.power)


class ScaledLinearNoiseScheduler(LinearNoiseScheduler):
    """Betas whose square roots grow linearly; defaults and errors as LinearNoiseScheduler.

    Rombach et al. 2022 (arXiv 2112.10752) call it "scaled linear", and take 0.85 / T and 12 / T.
    Song, Meng and Ermon 2021 (arXiv 2010.02502) call it "quad".
    """

    power = 2


class CosineNoiseScheduler(VariancePreserving):
    """alpha-bar follows a squared cosine, with small betas at the start and the end.

    Source: Nichol and Dhariwal 2021 (arXiv 2102.09672), eq. 17.
    """

    def __init__(self, num_timesteps: int = 1000) -> None:
        u = torch.linspace(0, 1, num_timesteps + 1, dtype=torch.float64)
        alpha_bar = ((u + 0.008) / 1.008 * math.pi / 2).cos().square()
        super().__init__(_betas_from(alpha_bar))


class SigmoidNoiseScheduler(VariancePreserving):
    """alpha-bar follows a sigmoid from -3 to 3.

    Source: Jabri et al. 2022 (arXiv 2212.11972), algorithm 1 with tau = 1.
    """

    def __init__(self, num_timesteps: int = 1000) -> None:
        u = torch.linspace(-3, 3, num_timesteps + 1, dtype=torch.float64)
        falling = torch.sigmoid(-u)
        alpha_bar = (falling - falling[-1]) / (falling[0] - falling[-1])
        super().__init__(_betas_from(alpha_bar))


def _betas_from(alpha_bar: Tensor) -> Tensor:
    """Return the betas (T,) whose alpha-bar is given as (T + 1,), beginning at clean data.

    They are limited to 1e-9 .. MAX_BETA.
    """
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(1e-9, MAX_BETA)


def zero_terminal_snr(betas: Tensor) -> Tensor:
    """Change betas (T,) so that no signal is left at the last step; the last beta becomes 1.

    sqrt(alpha-bar) is shifted to end at 0 and scaled to begin at its former value (Lin et al. 2024,
    arXiv 2305.08891, algorithm 1).

    Raises:
        ValueError: T is less than 2.
    """
    if len(betas) < 2:
        raise ValueError("zero_snr needs a process of at least 2 steps")
    root = (1 - betas).cumprod(0).sqrt()
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    alpha_roots = torch.cat([root[:1], root[1:] / root[:-1]])
    return 1 - alpha_roots.square()


# ---------------------------------------------------------------- flow matching


class FlowNoiseScheduler(NoiseScheduler):
    """A straight line from data to noise: alpha = 1 - s and sigma = s, with s = (t + 1) / T.

    At the last step x_T is eps itself. Unlike in the sources, time runs from data to noise.

    Sources: flow matching, Lipman et al. 2023 (arXiv 2210.02747), eq. 20 to 22 with sigma_min = 0;
    rectified flow, Liu et al. 2023 (arXiv 2209.03003), eq. 1.

    Args:
        num_timesteps: T.
        shift: see flow_sigmas. moonwalk trains without one; models of diffusers may have one.

    Raises:
        ValueError: T is less than 1.
    """

    def __init__(self, num_timesteps: int = 1000, shift: float = 1.0) -> None:
        _check_length(num_timesteps)
        sigma = flow_sigmas(num_timesteps, shift)
        super().__init__(1 - sigma, sigma)


def flow_sigmas(num_timesteps: int, shift: float = 1.0) -> Tensor:
    """Return the noise levels of a flow: shape (T,), float64, rising to 1.

    A shift above 1 gives more of the steps to much noise: s becomes shift s / (1 + (shift - 1) s).

    Source: Esser et al. 2024 (arXiv 2403.03206), eq. 23.
    """
    s = torch.arange(1, num_timesteps + 1, dtype=torch.float64) / num_timesteps
    return shift * s / (1 + (shift - 1) * s)


# ---------------------------------------------------------------- schedules by name


def make_scheduler(
    schedule: str,
    num_timesteps: int,
    beta_start: float | None = None,
    beta_end: float | None = None,
    zero_snr: bool = False,
    betas: Sequence[float] | None = None,
    flow_shift: float = 1.0,
) -> NoiseScheduler:
    """Return the schedule of that name, a key of SCHEDULES.

    Args:
        schedule: the name.
        num_timesteps: T.
        beta_start, beta_end: see LinearNoiseScheduler; only for schedules with betas.
        zero_snr: apply zero_terminal_snr. A flow ends in pure noise anyway.
        betas: shape (T,), in place of those of the schedule.
        flow_shift: of schedule=flow, see flow_sigmas.

    Raises:
        ValueError: an unknown name, T less than 1, or betas that the schedule cannot take.
    """
    if schedule not in SCHEDULES:
        known = ", ".join(SCHEDULES)
        raise ValueError(f"schedule {schedule!r} is unknown; choose one of {known}")
    _check_length(num_timesteps)

    row = SCHEDULES[schedule]
    options = {}
    if row.has_betas:
        options = {"beta_start": beta_start, "beta_end": beta_end}
    elif beta_start is not None or beta_end is not None:
        takers = " and ".join(name for name, its_row in SCHEDULES.items() if its_row.has_betas)
        raise ValueError(f"beta_start and beta_end belong to schedule={takers}; schedule={schedule} has its own noise")
    if schedule == "flow":
        options = {"shift": flow_shift}
    scheduler = VariancePreserving(betas) if betas is not None else implementation(row)(num_timesteps, **options)
    if not isinstance(scheduler, NoiseScheduler) or scheduler.num_timesteps != num_timesteps:
        raise ValueError(f"{called('schedule', schedule)} returned no NoiseScheduler of {num_timesteps} steps")

    if zero_snr and isinstance(scheduler, VariancePreserving):
        return VariancePreserving(zero_terminal_snr(scheduler.betas))
    return scheduler
