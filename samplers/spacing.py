"""Which of a process's steps a sampler takes: even ones, on a clock that suits it."""

from collections.abc import Callable

import numpy as np

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


def even_on(spacing: str, alpha: np.ndarray, sigma: np.ndarray, count: int) -> list[int]:
    """`count` distinct steps that fall from T-1, even on a clock of SPACINGS, of a process (alpha, sigma), both (T,).

    Where it has fewer steps than wanted in a stretch of the clock, the nearest free ones are taken.
    """
    with np.errstate(divide="ignore"):  # where no signal is left
        clock, to_clean = finite(SPACINGS[spacing](alpha, sigma)), spacing in TO_CLEAN
    wanted = np.linspace(clock[-1], 0 if to_clean else clock[0], count, endpoint=not to_clean)[::-1]
    nearest = np.abs(clock[None] - wanted[:, None]).argmin(1)
    order = np.arange(count)
    rising = np.maximum.accumulate(nearest - order) + order  # each above the one before it,
    return np.minimum(rising, len(clock) - count + order)[::-1].tolist()  # with room for those after it


def finite(clock: np.ndarray) -> np.ndarray:
    """A clock (T,), whose last value is infinite where no signal is left; it is then as far on as the one before it."""
    if np.isfinite(clock[-1]) or len(clock) < 2:
        return clock
    stride = clock[-2] - clock[-3] if len(clock) > 2 else np.sign(clock[-1])
    return np.append(clock[:-1], clock[-2] + stride)
