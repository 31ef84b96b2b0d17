"""Noise schedules: alpha-bar and everything derived from it.

Notation, here and everywhere: `t` is a 0-based integer step, 0 .. T-1, and `alphas_cumprod[t]` is the paper's
alpha-bar at t + 1; clean data is *before* step 0. In pictures and recordings the timeline `step` counts noisings:
0 is clean data, k is the state after k noisings (t = k - 1).

Equation numbers are those of Ho et al. 2020, "Denoising Diffusion Probabilistic Models" (arXiv 2006.11239).
"""

import math

import torch
from torch import Tensor

LARGEST_BETA = 0.999  # a beta of 1 would forget x_{t-1} completely, and eq. 11 would divide by zero
ENOUGH_SIGNAL_GONE = 0.01  # alpha-bar at the last step above this: x_T is visibly not N(0, I)


class NoiseScheduler:
    """A variance-preserving schedule, given by its betas.

    All arrays have shape (T,), float64: `betas`, `alphas`, `alphas_cumprod`, `alphas_cumprod_prev`,
    `sqrt_alphas_cumprod`, `sqrt_one_minus_alphas_cumprod`, `posterior_variance`.
    Methods take x of shape (B, *dims) and t of shape (B,), or () when one step serves all rows; they compute
    the coefficients in float64 and return x's dtype.
    """

    def __init__(self, betas: Tensor) -> None:
        betas = torch.as_tensor(betas, dtype=torch.float64)
        if betas.ndim != 1 or len(betas) < 1 or not bool(((betas > 0) & (betas < 1)).all()):
            raise ValueError("betas must be a list of numbers above 0 and below 1")
        self.betas = betas
        self.alphas = 1 - betas
        self.alphas_cumprod = self.alphas.cumprod(0)
        self.alphas_cumprod_prev = torch.cat([torch.ones(1, dtype=torch.float64), self.alphas_cumprod[:-1]])
        self.sqrt_alphas_cumprod = self.alphas_cumprod.sqrt()
        self.sqrt_one_minus_alphas_cumprod = (1 - self.alphas_cumprod).sqrt()
        # eq. 7: the variance of x_{t-1} given x_t and x_0 (0 at the first step)
        self.posterior_variance = betas * (1 - self.alphas_cumprod_prev) / (1 - self.alphas_cumprod)

    @property
    def num_timesteps(self) -> int:
        return len(self.betas)

    def check_t(self, t: int | Tensor) -> Tensor:
        """`t` as an integer tensor. Raises ValueError where it is outside 0 .. T-1."""
        t = torch.as_tensor(t)
        if t.is_floating_point() or t.is_complex() or t.dtype == torch.bool:
            raise ValueError(f"t must be an integer step, got {t.dtype}")
        if t.numel() and not (int(t.min()) >= 0 and int(t.max()) < self.num_timesteps):
            raise ValueError(f"t must lie in 0..{self.num_timesteps - 1}, got {int(t.min())}..{int(t.max())}")
        return t

    def alpha_sigma(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """(sqrt(alpha-bar), sqrt(1 - alpha-bar)) at t, shaped to multiply `like`."""
        return self._at(self.sqrt_alphas_cumprod, t, like), self._at(self.sqrt_one_minus_alphas_cumprod, t, like)

    def _at(self, values: Tensor, t: Tensor, like: Tensor) -> Tensor:
        taken = values.to(like)[t]
        return taken.reshape(taken.shape + (1,) * (like.ndim - 1)) if taken.ndim else taken

    # ------------------------------------------------------------ forward

    def add_noise(self, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """x_t from x_0 in one stride (eq. 4)."""
        alpha, sigma = self.alpha_sigma(t, x_0)
        return alpha * x_0 + sigma * eps

    def add_noise_step(self, x_prev: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """x_t from x_{t-1}: one step of the Markov chain (eq. 2)."""
        beta = self._at(self.betas, t, x_prev)
        return (1 - beta).sqrt() * x_prev + beta.sqrt() * eps

    # ------------------------------------------------------------ what a network may predict

    def predict_x0(self, x_t: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """x_0 from x_t and its noise: eq. 4 solved for x_0 (eq. 15)."""
        alpha, sigma = self.alpha_sigma(t, x_t)
        return (x_t - sigma * eps) / alpha

    def eps_from_v(self, x_t: Tensor, t: Tensor, v: Tensor) -> Tensor:
        """eps from the velocity v = alpha * eps - sigma * x_0 (Salimans and Ho 2022, arXiv 2202.00512, appendix D)."""
        alpha, sigma = self.alpha_sigma(t, x_t)
        return alpha * v + sigma * x_t

    def eps_from_x0(self, x_t: Tensor, t: Tensor, x_0: Tensor) -> Tensor:
        """eps from a guess of x_0: eq. 4 solved for eps."""
        alpha, sigma = self.alpha_sigma(t, x_t)
        return (x_t - alpha * x_0) / sigma

    # ------------------------------------------------------------ reverse

    def timesteps(self, count: int | None = None, spacing: str = "log_snr") -> list[int]:
        """At most `count` distinct steps from T-1 down to 0, even in log-SNR, or in t (spacing="even"); all by default.

        Solvers of high order want even log-SNR (Lu et al. 2022, arXiv 2206.00927, section 3); DDIM was made for even t.

        Raises:
            ValueError: count outside 2 .. T.
        """
        last = self.num_timesteps - 1
        if count is None or count == last + 1:
            return list(range(last, -1, -1))
        if not 2 <= count <= last + 1:
            raise ValueError(f"the number of sampling steps must lie in 2..{last + 1}, got {count}")
        if spacing == "even":
            return torch.linspace(last, 0, count, dtype=torch.float64).round().int().tolist()
        log_snr = (self.sqrt_alphas_cumprod / self.sqrt_one_minus_alphas_cumprod).log()
        wanted = torch.linspace(float(log_snr[last]), float(log_snr[0]), count, dtype=torch.float64)
        nearest = (log_snr[None] - wanted[:, None]).abs().argmin(1)
        return sorted(set(nearest.tolist()), reverse=True)

    def alpha_sigma_at(self, t: int) -> tuple[float, float]:
        """(sqrt(alpha-bar), sqrt(1 - alpha-bar)) at one step as numbers; (1, 0) at t = -1, the clean data."""
        if t < 0:
            return 1.0, 0.0
        return float(self.sqrt_alphas_cumprod[t]), float(self.sqrt_one_minus_alphas_cumprod[t])

    def posterior_mean(self, x_t: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """The mean of x_{t-1} given x_t and the noise in it (eq. 11)."""
        beta, sigma = self._at(self.betas, t, x_t), self._at(self.sqrt_one_minus_alphas_cumprod, t, x_t)
        return (x_t - beta / sigma * eps) / (1 - beta).sqrt()

    def reverse_step(self, x_t: Tensor, t: Tensor, eps: Tensor, noise: Tensor) -> Tensor:
        """x_{t-1} from x_t: eq. 11 plus noise of the posterior variance (eq. 7), which is 0 at t = 0."""
        return self.posterior_mean(x_t, t, eps) + self._at(self.posterior_variance, t, x_t).sqrt() * noise

    def signal_warning(self) -> str | None:
        """One line where x_T still shows the data, so that sampling from N(0, I) is biased; else None."""
        left = float(self.sqrt_alphas_cumprod[-1])
        if left**2 <= ENOUGH_SIGNAL_GONE:
            return None
        return (
            f"x_T keeps {left:.0%} of the signal's amplitude (sqrt(alpha-bar_T) = {left:.2f}), so it is not"
            " N(0, I): raise beta_end or num_timesteps, or leave both betas unset"
        )


class LinearNoiseScheduler(NoiseScheduler):
    """Betas that grow linearly (Ho et al., section 4).

    By default from 0.1 / T to 20 / T, the VP-SDE's beta_min and beta_max (Song et al. 2021, arXiv 2011.13456,
    appendix C): exactly 1e-4 .. 0.02 at T = 1000, and at every other T as little signal is left in x_T.
    Numbers that are given are taken literally.

    Raises:
        ValueError: fewer than one step, or betas outside 0 .. 1 or falling.
    """

    def __init__(
        self, num_timesteps: int = 1000, beta_start: float | None = None, beta_end: float | None = None
    ) -> None:
        if num_timesteps < 1:
            raise ValueError(f"num_timesteps must be at least 1, got {num_timesteps}")
        start = min(0.1 / num_timesteps, LARGEST_BETA) if beta_start is None else beta_start
        end = min(20 / num_timesteps, LARGEST_BETA) if beta_end is None else beta_end
        if not 0 < start <= end < 1:
            raise ValueError(f"betas must satisfy 0 < beta_start <= beta_end < 1, got {start:g} and {end:g}")
        super().__init__(torch.linspace(start, end, num_timesteps, dtype=torch.float64))


class CosineNoiseScheduler(NoiseScheduler):
    """alpha-bar follows a squared cosine (Nichol and Dhariwal 2021, arXiv 2102.09672, eq. 17): gentler at both ends."""

    def __init__(self, num_timesteps: int = 1000) -> None:
        u = torch.linspace(0, 1, num_timesteps + 1, dtype=torch.float64)
        super().__init__(_betas_of(((u + 0.008) / 1.008 * math.pi / 2).cos().square()))


class SigmoidNoiseScheduler(NoiseScheduler):
    """alpha-bar follows a sigmoid from -3 to 3 (Jabri et al. 2022, arXiv 2212.11972, algorithm 1, tau = 1)."""

    def __init__(self, num_timesteps: int = 1000) -> None:
        u = torch.linspace(-3, 3, num_timesteps + 1, dtype=torch.float64)
        falling = torch.sigmoid(-u)
        super().__init__(_betas_of((falling - falling[-1]) / (falling[0] - falling[-1])))


def _betas_of(alpha_bar: Tensor) -> Tensor:
    """The betas whose products are alpha_bar (T + 1,), which begins at the clean data; capped below 1."""
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(1e-9, LARGEST_BETA)


SCHEDULES = {"linear": LinearNoiseScheduler, "cosine": CosineNoiseScheduler, "sigmoid": SigmoidNoiseScheduler}


def make_scheduler(
    schedule: str, num_timesteps: int, beta_start: float | None = None, beta_end: float | None = None
) -> NoiseScheduler:
    """The schedule of that name. Raises ValueError for another name, and for betas where the schedule has its own."""
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule {schedule!r} is unknown; choose one of {', '.join(SCHEDULES)}")
    if schedule == "linear":
        return LinearNoiseScheduler(num_timesteps, beta_start, beta_end)
    if beta_start is not None or beta_end is not None:
        raise ValueError(f"beta_start and beta_end belong to schedule=linear; schedule={schedule} has its own betas")
    return SCHEDULES[schedule](num_timesteps)
