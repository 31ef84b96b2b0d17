"""Flow lines: paths of the probability-flow ODE from noise to data, and where on the data each of them ends."""

import textwrap
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dataset import PointSet, make_dataset, source_name
from pipeline import Pipeline
from registry.data_rows import POINT_SETS
from runtime.progress import progress_bar
from samplers import State, count_evaluations, sample
from samplers.guidance import exact_guided_denoiser
from samplers.options import SamplingOptions
from schedule import t_from_step
from viz.scene import Process, Scene

SOFTENED = 1e-3  # noise that gives sets without any a density


class FlowLines(NamedTuple):
    """Paths (S, N, d), d = 2 or 3, from noise to the samples.

    They are in data units; those of a table are normalised, because its columns may have unlike units.

    seconds (S,): when each state is played. way (S,): how far it is from noise, 0, to data, 1, in the angle
    arctan(sigma / alpha). noise (S,): its sigma. reached (N,): where on the data a path ends: the number of one of
    `parts` parts or, of a set in one part, a position from 0 to 1. what: the meaning of `reached`; by: the sampler and
    its evaluations; title: all in words.
    """

    paths: NDArray
    seconds: NDArray
    way: NDArray
    noise: NDArray
    reached: NDArray
    parts: int
    what: str
    title: str
    by: str


def flow_lines(pipeline: Pipeline, count: int, seed: int, labels: Tensor | None, options: SamplingOptions) -> FlowLines:
    """`count` paths of a sampler without noise, coloured by their labels (count,) where they have any."""
    states = pipeline.states(count, options, labels=labels, seed=seed)
    return _lines_of_states(pipeline, states, labels, options)


def beside_exact(
    pipeline: Pipeline, network: FlowLines, seed: int, labels: Tensor | None, options: SamplingOptions
) -> tuple[FlowLines, FlowLines] | None:
    """The network's paths and those of the exact denoiser from the same noise, both with a title.

    options: of both. Returns None where the distribution is not known, or for autoguidance, which has no exact form.
    """
    dataset = pipeline.config["dataset"]
    if dataset["name"] not in POINT_SETS or options.autoguidance:
        return None
    real = make_dataset(n_samples=2, seed=seed, **dataset)
    if real.mixture is None:
        return None

    parts = [pipeline.normaliser.normalise_mixture(part) for part in real.parts]
    exact = exact_guided_denoiser(parts, pipeline.scheduler, options.guidance or 0.0, options.guidance_interval)
    x_T, _ = pipeline.start(network.paths.shape[1], seed)
    states = sample(partial(exact, label=labels), pipeline.scheduler, x_T.cpu(), options)
    found = _lines_of_states(pipeline, states, labels, options)

    distances = np.linalg.norm(network.paths[-1] - found.paths[-1], axis=1)
    apart = float(np.median(distances))
    left = network._replace(title=f"{network.title}, with the network")
    right_title = f"with the exact denoiser (half of the ends within {apart:.2g} of the left ones)"
    return left, found._replace(title=right_title)


def _lines_of_states(
    pipeline: Pipeline, states: Iterable[State], labels: Tensor | None, options: SamplingOptions
) -> FlowLines:
    scheduler = pipeline.scheduler
    data = pipeline.config["dataset"]
    steps = []
    paths = []
    for state in progress_bar(states, "sampling", count_evaluations(scheduler, options) + 1):
        steps.append(state.step)
        drawn = state.x_t.cpu() if pipeline.columns else pipeline.data_units(state.x_t)
        paths.append(drawn.numpy())

    process = Process("reverse", np.stack(paths), np.array(steps))
    scene = Scene([process], alpha_bar=scheduler.alpha_bar)
    alpha, sigma = np.array([scheduler.alpha_sigma_at(t_from_step(step)) for step in steps]).T
    angle = np.arctan2(sigma, alpha)
    if labels is not None:
        ends = labels.numpy(), len(pipeline.classes), "their labels"
    else:
        real = PointSet(paths[-1])  # of a file no distribution is known: it need not be read
        if data["name"] in POINT_SETS:
            real = make_dataset(n_samples=2, seed=pipeline.config["seed"], **data)
        ends = reached(paths[-1], real)

    title = f"how noise becomes {called(data)}"
    if options.guidance_text:
        title = f"{title}, {options.guidance_text}"
    return FlowLines(
        process.states,
        scene.seconds(process),
        1 - angle / angle[0],
        scene.noise(process.steps),
        *ends,
        title,
        f"{options.sampler} with {count_evaluations(scheduler, options)} evaluations",
    )


def called(dataset: Mapping[str, Any]) -> str:
    """A data set by its text, its file or its name, in one line."""
    return textwrap.shorten(source_name(dataset) or dataset["name"], 40, placeholder=" ...")


def reached(ends: NDArray, real: PointSet) -> tuple[NDArray, int, str]:
    """Where on the data points (N, d) lie, in how many parts, and what that means: see FlowLines.

    A part is the one of the exact distribution to which a point most probably belongs. Of a set in one part it is the
    position of its likeliest centre, in their order along a curve; where no distribution is known, the share of points
    that lie further left, along the direction in which the set is widest.
    """
    x = torch.from_numpy(ends).double()
    if len(real.parts) > 1:
        densities = torch.stack([part.noised(1, SOFTENED).log_density(x) for part in real.parts])
        return densities.argmax(0).numpy(), len(real.parts), "the part of the data that they reach"
    if real.mixture is not None:
        along = real.mixture.weights.cumsum(0)[real.mixture.noised(1, SOFTENED).likeliest_centre(x)]
        return along.numpy(), 1, "where along the data they end"
    widest = np.linalg.svd(ends - ends.mean(0), full_matrices=False)[2][0]
    rank = (ends @ widest).argsort().argsort()
    return rank / max(1, len(ends) - 1), 1, "where across the data they end"
