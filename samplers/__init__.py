"""Reverse processes by name: generators that yield every state, from noise to data.

They run with any denoiser (diffusion.Denoiser) and on any process: they ask the scheduler for alpha and sigma only.
To add one, write a function in this folder and its row in registry/sampler_rows.py.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from diffusion import Denoiser
from registry import implementation
from registry.plugins import is_added
from registry.sampler_rows import SAMPLER_ALIASES, SAMPLERS, SamplerRow
from runtime.arrays import floats
from samplers.ancestral import check_variance
from samplers.heun import is_corrected
from samplers.options import SamplingOptions
from samplers.spacing import spaced_timesteps
from samplers.steps import State, checked_states, transitions
from schedule import NoiseScheduler

__all__ = [
    "SAMPLERS",
    "SAMPLER_ALIASES",
    "SamplingOptions",
    "State",
    "count_evaluations",
    "last",
    "sample",
    "sampler_row",
    "sampler_timesteps",
]

DEFAULT = "ddpm"  # of `sample`, where the options name no sampler


def sampler_row(name: str) -> SamplerRow:
    """The row of that name or alias. Raises ValueError for an unknown name."""
    own_name = SAMPLER_ALIASES.get(name, name)
    if own_name not in SAMPLERS:
        raise ValueError(f"sampler {name!r} is unknown; choose one of {', '.join(SAMPLERS)}")
    return SAMPLERS[own_name]


def sampler_timesteps(scheduler: NoiseScheduler, options: SamplingOptions) -> list[int]:
    """The falling steps t at which `sample` yields a state before the samples.

    There are as many as `sampling_steps` evaluations of the network allow, spaced as the sampler wants by default.

    Raises:
        ValueError: an unknown sampler or spacing, or a number of evaluations that the sampler cannot make.
    """
    name = options.sampler or DEFAULT
    row = sampler_row(name)
    T = scheduler.num_timesteps
    most = row.evaluations_per_step * (T - 1) + 1

    evaluations = options.sampling_steps
    if evaluations is None:
        evaluations = min(row.evaluations or T, most)
    if not 1 <= evaluations <= most:
        raise ValueError(
            f"sampling_steps of {name} must lie in 1..{most}, as this process has T = {T}; got {evaluations}"
        )

    # The last step takes one evaluation; so does a first step from far above the data (heun.is_corrected).
    spare = 0 if is_corrected(scheduler, T - 1, 0) else row.evaluations_per_step - 1
    count = (evaluations - 1 + spare) // row.evaluations_per_step + 1
    return spaced_timesteps(scheduler, count, options.spacing or row.spacing)


def count_evaluations(scheduler: NoiseScheduler, options: SamplingOptions) -> int:
    """How often `sample` runs the network: at most `sampling_steps` times.

    Covariances are not counted. They take d more evaluations at each transition of points in d dimensions that
    `covariance.draw_with_covariance` makes: some in dpmpp_2m_sde, all in ddpm with variance=exact.

    Raises:
        ValueError: as `sampler_timesteps`.
    """
    timesteps = sampler_timesteps(scheduler, options)
    evaluations = len(timesteps)
    if sampler_row(options.sampler or DEFAULT).evaluations_per_step == 2:
        for t, s in transitions(scheduler, timesteps):
            evaluations += is_corrected(scheduler, t, s)
    return evaluations


def sample(
    denoise: Denoiser,
    scheduler: NoiseScheduler,
    x_T: Tensor,
    options: SamplingOptions | None = None,
    *,
    generator: torch.Generator | None = None,
) -> Iterator[State]:
    """The reverse process that the options name, from the noise x_T (B, *dims) to data.

    The guidance in the options is not applied here: it belongs to the denoiser (`guidance.guided`).

    Args:
        options: default: ddpm through all steps.
        generator: of the fresh noise.

    Raises:
        ValueError: an unknown sampler, a number of evaluations that it cannot make, or an option of another sampler
            (eta belongs to ddim, variance to ddpm).
    """
    options = options or SamplingOptions()
    name = options.sampler or DEFAULT
    row = sampler_row(name)
    timesteps = sampler_timesteps(scheduler, options)

    own_options = {}
    for option, value in (("eta", options.eta or None), ("variance", options.variance)):
        if value is None:
            continue
        if option not in row.options:
            takers = ", ".join(other for other, its_row in SAMPLERS.items() if option in its_row.options)
            raise ValueError(f"{option} belongs to sampler={takers}, not to {name}")
        own_options[option] = value
    if options.variance is not None:
        check_variance(options.variance, floats(x_T, "x_T"))

    run = implementation(row)
    states = run(denoise, scheduler, x_T, timesteps=timesteps, generator=generator, **own_options)
    return checked_states("sampler", name, states, x_T, timesteps) if is_added("sampler", name) else states


def last(states: Iterator[State]) -> Tensor:
    """The samples (B, *dims) at the end of a reverse process. Raises ValueError where there is no state."""
    state = None
    for state in states:  # noqa: B007 (the loop is run for its last value)
        pass
    if state is None:
        raise ValueError("the reverse process has no states")
    return state.x_t
