"""The distribution that guidance claims to sample, beside the one that it samples, for labelled points."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from diffusion import Denoiser
from metrics.distances import Draw, compute_floors
from metrics.exact_truth import DISTANCE, TRUTH_DRAWS, distance_to_truth, exact_set
from pipeline import Pipeline
from points.mixture import GaussianMixture
from runtime.progress import progress_bar
from runtime.randomness import generator
from samplers import last, sample
from samplers.guidance import draw_claimed, exact_guided_denoiser
from samplers.options import SamplingOptions

WEIGHTS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
SAMPLING_STEPS = 100


@dataclass(frozen=True)
class GuidanceSheet:
    """points: (n, d) by row ("claimed", "exact denoiser", "network") and weight w, in data units; labels (n,).

    distance: sliced Wasserstein-1 to the claimed distribution, by row and weight, the mean over the labels.
    floor: the same distance between two exact draws, by weight.
    """

    weights: Sequence[float]
    labels: NDArray
    points: dict[str, list[NDArray]]
    distance: dict[str, list[float]]
    floor: list[float]


def guidance_sheet(pipeline: Pipeline, count: int, seed: int, interval: Sequence[float] | None = None) -> GuidanceSheet:
    """For each of WEIGHTS: exact draws of the claimed distribution, and samples by the exact denoiser and the network.

    Raises:
        ValueError: an unconditional model, or a set whose distribution is not known.
    """
    data = exact_set(pipeline, "guidance_sheet=true")
    if not pipeline.classes:
        raise ValueError("guidance needs labels, and this model is unconditional; train one with conditional=true")
    labels = pipeline.labels("all", count)  # the parts of an exact distribution have equal mass
    assert labels is not None

    rows = ("claimed", "exact denoiser", "network")
    sheet = GuidanceSheet(WEIGHTS, labels.numpy(), {row: [] for row in rows}, {row: [] for row in rows}, [])
    for weight in progress_bar(WEIGHTS, "guidance", len(WEIGHTS)):
        truths = []
        for k in range(len(pipeline.classes)):
            truths.append(partial(_draw_claimed_points, data.parts, k, weight, seed))

        points = _sampled_points(pipeline, data.parts, labels, weight, interval, seed)
        points["claimed"] = _claimed_points(truths, labels, pipeline.dims)
        for row in rows:
            sheet.points[row].append(points[row])
            sheet.distance[row].append(_mean_distance(points[row], labels, truths))
        sheet.floor.append(_mean_floor(truths, labels))
    return sheet


def _draw_claimed_points(
    parts: Sequence[GaussianMixture], label: int, weight: float, seed: int, count: int, index: int
) -> NDArray:
    """Set number `index` of `count` exact draws of what guidance claims for a label, float32."""
    g = generator(seed, f"claimed {label}", index)
    return draw_claimed(parts, label, weight, count, g).float().numpy()


def _claimed_points(truths: Sequence[Draw], labels: Tensor, dims: tuple[int, ...]) -> NDArray:
    """Exact draws with these labels; a set of its own, that no distance is measured to."""
    points = np.empty((len(labels), *dims), np.float32)
    for k, truth in enumerate(truths):
        rows = labels == k
        points[rows] = truth(int(rows.sum()), 2 * TRUTH_DRAWS)
    return points


def _sampled_points(
    pipeline: Pipeline,
    parts: Sequence[GaussianMixture],
    labels: Tensor,
    weight: float,
    interval: Sequence[float] | None,
    seed: int,
) -> dict[str, NDArray]:
    """Samples in data units by the exact denoiser and the network, from the same x_T, with guidance `weight`."""
    x_T, _ = pipeline.start(len(labels), seed)
    normalised_parts = [pipeline.normaliser.normalise_mixture(part) for part in parts]
    exact = exact_guided_denoiser(normalised_parts, pipeline.scheduler, weight, interval)
    guidance = SamplingOptions(guidance=weight, guidance_interval=interval if weight else None)
    network = pipeline.denoiser(guidance)
    return {
        "exact denoiser": _samples_from(pipeline, exact, x_T.cpu(), labels),
        "network": _samples_from(pipeline, network, x_T, labels),
    }


def _samples_from(pipeline: Pipeline, denoise: Denoiser, x_T: Tensor, labels: Tensor) -> NDArray:
    """Samples in data units by DPM-Solver++(2M), on the device of x_T."""
    steps = min(SAMPLING_STEPS, pipeline.scheduler.num_timesteps)
    options = SamplingOptions(sampler="dpmpp_2m", sampling_steps=steps)
    denoise_labelled = partial(denoise, label=labels.to(x_T.device))
    x_0 = last(sample(denoise_labelled, pipeline.scheduler, x_T, options))
    return pipeline.data_units(x_0).numpy()


def _mean_distance(points: NDArray, labels: Tensor, truths: Sequence[Draw]) -> float:
    """The distance to the claimed distribution, the mean over the labels."""
    distances = []
    for k, truth in enumerate(truths):
        distances.append(distance_to_truth(points[labels == k], truth))
    return float(np.mean(distances))


def _mean_floor(truths: Sequence[Draw], labels: Tensor) -> float:
    """The median floor of that distance."""
    floors = []
    for k, truth in enumerate(truths):
        floors.append(compute_floors(DISTANCE, truth, int((labels == k).sum())))
    return float(np.median(np.mean(floors, 0)))


def guidance_table(sheet: GuidanceSheet) -> str:
    """One line for each weight."""
    lines = ["sliced Wasserstein-1 to what guidance w claims to sample, mean over the labels"]
    lines.append(f"  {'w':>5}{'exact denoiser':>17}{'network':>10}{'floor':>9}")
    for i, weight in enumerate(sheet.weights):
        exact = sheet.distance["exact denoiser"][i]
        network = sheet.distance["network"][i]
        lines.append(f"  {weight:>5g}{exact:>17.4f}{network:>10.4f}{sheet.floor[i]:>9.4f}")
    return "\n".join(lines)
