"""Which steps of a process a sampler takes, and which states of a process are shown: both evenly spaced in a quantity.

High orders want steps even in log-SNR (Lu et al. 2022, arXiv 2206.00927, section 3). DDIM was made for steps even in t.
"karras" is eq. 5 of Karras et al. 2022 (arXiv 2206.00364) with rho = 7. "angle" is the same idea for
arctan(sigma / alpha), which is finite at both ends; its power was chosen on moons with the exact denoiser.

Log-SNR and "karras" are unbounded, and a process may go on where nothing changes any more: sigma / alpha of cosine's
T = 1000 reaches 20,291, that of a flow infinity, and it starts at 0.001. At a noise level of 20 times the data's
standard deviation, which is about 1, the best prediction of x_0 is the mean; at 1 % of it, x_0 is known. So steps are
even between these two levels, and T-1 takes the place of the noisiest (Karras et al. stay between 0.002 and 80, for
pixels of standard deviation 0.5).
"""

import numpy as np
from numpy.typing import NDArray

from registry import implementation
from registry.plugins import called
from registry.sampler_rows import SPACINGS
from schedule import NoiseScheduler, evenly_spaced

NOISE_MIN = 0.01  # sigma / alpha
NOISE_MAX = 20.0


# ---------------------------------------------------------------- quantities: (alpha, sigma), both (T,) -> (T,)


def step_number(alpha: NDArray, sigma: NDArray) -> NDArray:
    """t: 0 .. T-1."""
    return np.arange(len(alpha), dtype=float)


def steps_to_clean(alpha: NDArray, sigma: NDArray) -> NDArray:
    """Forward steps from clean data: 1 .. T."""
    return np.arange(1.0, len(alpha) + 1)


def log_snr(alpha: NDArray, sigma: NDArray) -> NDArray:
    """log(alpha / sigma)."""
    return np.log(alpha / sigma)


def karras(alpha: NDArray, sigma: NDArray) -> NDArray:
    """(sigma / alpha)^(1/7)."""
    return (sigma / alpha) ** (1 / 7)


def angle(alpha: NDArray, sigma: NDArray) -> NDArray:
    """arctan(sigma / alpha)^0.4."""
    return np.arctan2(sigma, alpha) ** (1 / 2.5)


# ---------------------------------------------------------------- the steps of a sampler


def spaced_timesteps(scheduler: NoiseScheduler, count: int | None = None, spacing: str = "log_snr") -> list[int]:
    """`count` distinct steps that fall from T-1 (default: all), evenly spaced; `spacing` is a key of SPACINGS.

    Where the schedule has fewer steps than wanted in an interval, the nearest free ones are taken.

    Raises:
        ValueError: count outside 1 .. T, or an unknown spacing.
    """
    T = scheduler.num_timesteps
    if spacing not in SPACINGS:
        raise ValueError(f"spacing must be one of {', '.join(SPACINGS)}; got {spacing!r}")
    if count is None or count == T:
        return list(range(T - 1, -1, -1))
    if not 1 <= count <= T:
        raise ValueError(f"the number of sampling steps must lie in 1..{T}, got {count}")
    if spacing == "even":
        return evenly_spaced(T - 1, 0, count)
    return _evenly_spaced(spacing, scheduler.alpha.numpy(), scheduler.sigma.numpy(), count)


def _evenly_spaced(spacing: str, alpha: NDArray, sigma: NDArray, count: int) -> list[int]:
    """`count` distinct steps that fall from T-1, evenly spaced in the quantity of `spacing`; alpha, sigma: (T,)."""
    row = SPACINGS[spacing]
    with np.errstate(divide="ignore"):  # alpha may be 0 at the last step
        quantity = np.asarray(implementation(row)(alpha, sigma))
        noise = sigma / alpha
    if quantity.shape != alpha.shape or np.isnan(quantity).any():
        raise ValueError(f"{called('spacing', spacing)} did not return {len(alpha)} numbers, one for each step")
    T = len(quantity)
    first = 0
    last = T - 1
    if row.unbounded:
        first = min(int(np.searchsorted(noise, NOISE_MIN)), last)
        last = max(int(np.searchsorted(noise, NOISE_MAX, side="right")) - 1, first)

    if row.counts_clean:
        wanted = np.linspace(quantity[last], 0, count, endpoint=False)
    else:
        wanted = np.linspace(quantity[last], quantity[first], count)
    rising = np.abs(quantity[None] - wanted[::-1, None]).argmin(1)
    rising[-1] = T - 1

    # Each step lies above the one before it, with enough steps left for those after it.
    steps = []
    for nearest in rising.tolist():
        lowest = steps[-1] + 1 if steps else 0
        steps.append(max(nearest, lowest))
    for i in range(count):
        steps[i] = min(steps[i], T - count + i)
    return steps[::-1]


# ---------------------------------------------------------------- the states that a person sees

LOG_SNR_MIN = -3.0  # of log(alpha / sigma): below it no data can be seen, above LOG_SNR_MAX no noise
LOG_SNR_MAX = 4.0
TAIL_SPEED = 0.02  # of the display grid outside of these, in units of log(alpha / sigma)


def clock(alpha_bar: NDArray) -> NDArray:
    """The display grid: log(alpha / sigma) after 0 .. T forward steps, (T + 1,), falling, in which a process changes
    evenly. alpha_bar: (T + 1,).

    Outside of LOG_SNR_MIN .. LOG_SNR_MAX, where nothing can be seen to change, it hardly moves. Clean data, at
    infinity, stand half a unit before step 1.
    """
    signal = np.clip(alpha_bar[1:], 1e-12, 1 - 1e-12)
    log_snr = 0.5 * np.log(signal / (1 - signal))
    visible = np.clip(log_snr, LOG_SNR_MIN, LOG_SNR_MAX)
    falling = visible + TAIL_SPEED * (log_snr - visible)
    return np.concatenate([falling[:1] + 0.5, falling])


def evenly_on(grid: NDArray, count: int) -> list[int]:
    """At most `count` distinct indices of a monotone grid (S,), with both ends, as evenly spaced in its values as it
    allows."""
    if count >= len(grid):
        return list(range(len(grid)))
    rising = grid if grid[0] < grid[-1] else -grid
    wanted = np.linspace(rising[0], rising[-1], count)
    middles = (rising[1:] + rising[:-1]) / 2
    return np.unique(np.searchsorted(middles, wanted)).tolist()
