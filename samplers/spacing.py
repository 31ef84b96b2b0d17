"""Which of a process's steps a sampler takes: even ones, on a clock that suits it."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from schedule import NoiseScheduler, evenly

# Clocks on which steps may be even: (alpha, sigma), both (T,) -> (T,). High orders want log-SNR (Lu et al. 2022, arXiv
# 2206.00927, section 3), DDIM was made for even t; "karras" is eq. 5 of Karras et al. 2022 (arXiv 2206.00364), rho = 7;
# "angle" is the same idea for arctan(sigma / alpha), finite at both ends; its power was chosen on moons with the exact
# denoiser. Those of TO_CLEAN count the stride to clean data, at 0, among the equal ones.
SPACINGS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "even": lambda alpha, sigma: np.arange(len(alpha), dtype=float),
    "trailing": lambda alpha, sigma: np.arange(1.0, len(alpha) + 1),
    "log_snr": lambda alpha, sigma: np.log(alpha / sigma),
    "karras": lambda alpha, sigma: (sigma / alpha) ** (1 / 7),
    "angle": lambda alpha, sigma: np.arctan2(sigma, alpha) ** (1 / 2.5),
}
TO_CLEAN = ("trailing", "angle")

# Two clocks have no end, and a process may go on where nothing happens any more: sigma / alpha of cosine's T = 1000
# reaches 20,291, that of a flow infinity, from 0.001 on. Where the noise is 20 times the data, whose standard deviation
# is about 1, the best guess is the mean; where it is 1 %, the data is there. So steps are even between these, and T-1
# takes the place of the noisiest (Karras et al.: between 0.002 and 80, for pixels of standard deviation 0.5).
ENDLESS, LEAST_NOISE, MOST_NOISE = ("log_snr", "karras"), 0.01, 20.0  # sigma / alpha


def even_on(spacing: str, alpha: np.ndarray, sigma: np.ndarray, count: int) -> list[int]:
    """`count` distinct steps that fall from T-1, even on a clock of SPACINGS, of a process (alpha, sigma), both (T,).

    Where it has fewer steps than wanted in a stretch of the clock, the nearest free ones are taken.
    """
    with np.errstate(divide="ignore"):  # where no signal is left
        clock, noise = SPACINGS[spacing](alpha, sigma), sigma / alpha
    first, last = 0, len(clock) - 1
    if spacing in ENDLESS:
        first = min(int(np.searchsorted(noise, LEAST_NOISE)), last)
        last = max(int(np.searchsorted(noise, MOST_NOISE, side="right")) - 1, first)
    to_clean = spacing in TO_CLEAN
    wanted = np.linspace(clock[last], 0 if to_clean else clock[first], count, endpoint=not to_clean)[::-1]
    nearest = np.abs(clock[None] - wanted[:, None]).argmin(1)
    nearest[-1], order = len(clock) - 1, np.arange(count)
    rising = np.maximum.accumulate(nearest - order) + order  # each above the one before it,
    return np.minimum(rising, len(clock) - count + order)[::-1].tolist()  # with room for those after it


def spaced_timesteps(scheduler: NoiseScheduler, count: int | None = None, spacing: str = "log_snr") -> list[int]:
    """`count` distinct steps that fall from T-1 (all by default), even on the clock of SPACINGS.

    Where a schedule has fewer steps than wanted in a stretch of it, the nearest free ones are taken.

    Raises:
        ValueError: count outside 1 .. T, or no such spacing.
    """
    last = scheduler.num_timesteps - 1
    if spacing not in SPACINGS:
        raise ValueError(f"spacing must be one of {', '.join(SPACINGS)}; got {spacing!r}")
    if count is None or count == last + 1:
        return list(range(last, -1, -1))
    if not 1 <= count <= last + 1:
        raise ValueError(f"the number of sampling steps must lie in 1..{last + 1}, got {count}")
    if spacing == "even":
        return evenly(last, 0, count)
    return even_on(spacing, scheduler.alpha.numpy(), scheduler.sigma.numpy(), count)


# ---------------------------------------------------------------- states that a person sees

LEAST_SEEN, MOST_SEEN = -3.0, 4.0  # of log(alpha / sigma): beyond them neither data nor noise can be seen
UNSEEN_PACE = 0.02  # of the clock there, in units of log(alpha / sigma)


def clock(alpha_bar: NDArray) -> NDArray:
    """log(alpha / sigma) after 0 .. T forward steps: on this clock, which falls, a process changes evenly. (T + 1,).

    Where nothing can be seen to change it hardly moves. Clean data, at infinity, stand half a unit before step 1.
    """
    left = np.clip(alpha_bar[1:], 1e-12, 1 - 1e-12)
    log_snr = 0.5 * np.log(left / (1 - left))
    seen = np.clip(log_snr, LEAST_SEEN, MOST_SEEN)
    falling = seen + UNSEEN_PACE * (log_snr - seen)
    return np.concatenate([falling[:1] + 0.5, falling])


def evenly_on(hands: NDArray, count: int) -> list[int]:
    """At most `count` distinct indices of a monotone clock (S,), as even on it as it allows, with both ends."""
    if count >= len(hands):
        return list(range(len(hands)))
    rising = hands if hands[0] < hands[-1] else -hands
    wanted = np.linspace(rising[0], rising[-1], count)
    return np.unique(np.searchsorted((rising[1:] + rising[:-1]) / 2, wanted)).tolist()
