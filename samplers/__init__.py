"""Reverse processes by name: from noise to data, as generators that yield every state. They live in samplers/.

They run with any denoiser (diffusion.Denoiser) and any process: of the scheduler they ask for alpha and sigma only.
A new one is a function in samplers/, its row in SAMPLERS, and its name in conf/choices.py.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from diffusion import Denoiser
from runtime.arrays import floats
from samplers.ancestral import VARIANCES, check_variance, ddim, ddpm
from samplers.heun import corrected, heun
from samplers.multistep import adams, dpmpp, unipc
from samplers.spacing import spaced_timesteps
from samplers.steps import State, strides
from schedule import NoiseScheduler

__all__ = [
    "ALIASES",
    "SAMPLERS",
    "VARIANCES",
    "State",
    "evaluations_of",
    "last",
    "sample",
    "sampler_of",
    "timesteps_of",
]


class Sampler(NamedTuple):
    """evaluations: of the network, by default (None: one for each of the T steps); spacing: of its steps, a key of
    SPACINGS; takes: the options of `sample` that mean something to it; a_step: evaluations at each of its
    steps, at most, but the last, which takes one; noisy: it draws noise on its way."""

    run: Callable[..., Iterator[State]]
    evaluations: int | None
    spacing: str
    takes: tuple[str, ...] = ()
    a_step: int = 1
    noisy: bool = False


CHURN = 5  # of heun_sde, as S_churn in Karras et al.

SAMPLERS = {
    "ddpm": Sampler(ddpm, None, "even", takes=("variance",), noisy=True),
    "ddim": Sampler(ddim, 50, "even", takes=("eta",)),
    "dpmpp_2m": Sampler(dpmpp, 50, "log_snr"),
    "dpmpp_3m": Sampler(partial(dpmpp, order=3), 50, "log_snr"),
    "dpmpp_2m_sde": Sampler(partial(dpmpp, stochastic=True, draw=True), 50, "log_snr", noisy=True),
    "unipc": Sampler(unipc, 25, "angle"),
    "heun": Sampler(heun, 50, "karras", a_step=2),
    "heun_sde": Sampler(partial(heun, churn=CHURN), 50, "karras", a_step=2, noisy=True),
    "adams": Sampler(adams, 25, "angle"),
}
ALIASES = {"dpm": "dpmpp_2m", "euler": "ddim"}


def sampler_of(name: str) -> Sampler:
    """The row of that name or alias. Raises ValueError where there is none."""
    if ALIASES.get(name, name) not in SAMPLERS:
        raise ValueError(f"sampler {name!r} is unknown; choose one of {', '.join(SAMPLERS)}")
    return SAMPLERS[ALIASES.get(name, name)]


def timesteps_of(
    scheduler: NoiseScheduler, sampler: str, sampling_steps: int | None = None, spacing: str | None = None
) -> list[int]:
    """The falling steps t for which `sample` yields a state, before the samples: as many as `sampling_steps`
    evaluations of the network allow, spaced as the sampler wants them by default.

    Raises:
        ValueError: no such sampler or spacing, or a number of evaluations that it cannot make.
    """
    row, T = sampler_of(sampler), scheduler.num_timesteps
    most = row.a_step * (T - 1) + 1
    if sampling_steps is None:
        sampling_steps = min(row.evaluations or T, most)
    if not 1 <= sampling_steps <= most:
        raise ValueError(
            f"sampling_steps of {sampler} must lie in 1..{most}, as this process has T = {T}; got {sampling_steps}"
        )
    spare = (row.a_step - 1) * (not corrected(scheduler, T - 1, 0))  # from far above the data one is enough
    return spaced_timesteps(scheduler, (sampling_steps - 1 + spare) // row.a_step + 1, spacing or row.spacing)


def evaluations_of(scheduler: NoiseScheduler, sampler: str, sampling_steps: int | None = None) -> int:
    """How often `sample` runs the network: at most `sampling_steps` times, but for what a covariance takes: d more at
    each stride of points that `covariance.drawn` draws, some in dpmpp_2m_sde, all in ddpm with variance=exact.

    Raises:
        ValueError: as `timesteps_of`.
    """
    timesteps = timesteps_of(scheduler, sampler, sampling_steps)
    twice = strides(scheduler, timesteps) if sampler_of(sampler).a_step == 2 else ()
    return len(timesteps) + sum(corrected(scheduler, t, s) for t, s in twice)


def sample(
    denoise: Denoiser,
    scheduler: NoiseScheduler,
    x_T: Tensor,
    *,
    sampler: str = "ddpm",
    sampling_steps: int | None = None,
    spacing: str | None = None,
    eta: float = 0.0,
    variance: str | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[State]:
    """The reverse process by name, a key of SAMPLERS.

    Raises:
        ValueError: no such sampler, a number of evaluations that it cannot make, or an option that has no meaning for
            it: eta is ddim's, variance ddpm's.
    """
    row, timesteps = sampler_of(sampler), timesteps_of(scheduler, sampler, sampling_steps, spacing)
    options = {"eta": eta or None, "variance": variance}
    given = {name: value for name, value in options.items() if value is not None}
    for name in given.keys() - set(row.takes):
        takers = ", ".join(taker for taker, other in SAMPLERS.items() if name in other.takes)
        raise ValueError(f"{name} belongs to sampler={takers}, not to {sampler}")
    if variance is not None:
        check_variance(variance, floats(x_T, "x_T"))
    return row.run(denoise, scheduler, x_T, timesteps=timesteps, generator=generator, **given)


def last(states: Iterator[State]) -> Tensor:
    """The samples at the end of a reverse process."""
    state = None
    for state in states:  # noqa: B007 (the loop is run for its last value)
        pass
    if state is None:
        raise ValueError("the reverse process has no states")
    return state.x_t
