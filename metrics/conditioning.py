"""Guidance and posterior samplers beside the exact truth: what is claimed, what is sampled, and how far apart."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray

from dataset import PointSet, make_dataset, make_sets
from diffusion import Denoiser, exact_denoiser, within_range
from images.sets import ImageSet
from metrics.distances import METRICS, Draw, compute_floors
from pipeline import Pipeline
from runtime.progress import progress_bar
from runtime.randomness import generator
from samplers import State, last, sample
from samplers.guidance import draw_claimed, exact_denoiser_of
from samplers.observation import Observation, check_possible, draw_posterior, read_line, read_mask
from samplers.posterior import METHODS, sample_given, timesteps_of
from schedule import CLEAN

DISTANCE = METRICS[0]  # sliced Wasserstein-1
DRAWS = 5  # of the truth, to which a distance is the median
WEIGHTS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)  # of guidance
STEPS = 100  # of the solver
ROWS, COLUMNS = 8, 10  # of a grid of inpaintings


def exact_set(pipeline: Pipeline, what: str) -> PointSet:
    """The set that a model of points has learnt, with its exact distribution.

    Raises:
        ValueError: that is not known.
    """
    data = None if pipeline.of_images else make_dataset(n_samples=1000, seed=0, **pipeline.config["dataset"])
    if data is None or data.mixture is None:
        name = pipeline.config["dataset"]["name"]
        raise ValueError(f"{what} needs points whose exact distribution is known, and dataset={name} has none")
    return data


def _distance(points: NDArray, truth: Draw) -> float:
    """NaN where the samples are not finite."""
    if not np.isfinite(points).all() or np.abs(points).max() > 1e6:
        return float("nan")
    return float(np.median([DISTANCE.compute(points, truth(len(points), i)) for i in range(DRAWS)]))


# ---------------------------------------------------------------- guidance


@dataclass(frozen=True)
class GuidanceSheet:
    """Points (n, d) with labels (n,) by row ("claimed" ...) and weight w; distances; floors: both by the same."""

    weights: Sequence[float]
    labels: NDArray
    points: dict[str, list[NDArray]]
    distance: dict[str, list[float]]
    floor: list[float]


def guidance_sheet(pipeline: Pipeline, count: int, seed: int, interval: Sequence[float] | None = None) -> GuidanceSheet:
    """What guidance of each of WEIGHTS claims to sample, and what it samples with the exact denoiser and the network.

    Distances are means over the labels.

    Raises:
        ValueError: an unconditional model, or a set that is not known exactly.
    """
    data = exact_set(pipeline, "guidance_sheet=true")
    if not pipeline.classes:
        raise ValueError("guidance needs labels, and this model is unconditional; train one with conditional=true")
    labels = pipeline.labels(None, count)
    assert labels is not None
    scheduler, x_T = pipeline.scheduler, pipeline.start(count, seed)[0]
    parts = [pipeline.normaliser.distribution(part) for part in data.parts]
    steps, classes = min(STEPS, scheduler.num_timesteps), range(len(pipeline.classes))
    sheet = GuidanceSheet(WEIGHTS, labels.numpy(), {"claimed": [], "exact denoiser": [], "network": []}, {}, [])
    for w in progress_bar(iter(WEIGHTS), "guidance", len(WEIGHTS)):

        def truth(k: int, n: int, i: int, w: float = w) -> NDArray:
            return draw_claimed(data.parts, k, w, n, generator(seed, f"claimed {k}", i)).float().numpy()

        own = [truth(k, int((labels == k).sum()), 2 * DRAWS) for k in classes]
        claimed = np.empty((count, *pipeline.dims), np.float32)
        for k in classes:
            claimed[labels == k] = own[k]
        denoisers = {
            "exact denoiser": (exact_denoiser_of(parts, scheduler, w, interval), x_T.cpu()),
            "network": (pipeline.denoise(w, interval if w else None), x_T),
        }
        clouds = {"claimed": claimed}
        for name, (denoise, start) in denoisers.items():
            steered = partial(denoise, label=labels.to(start.device))
            x = last(sample(steered, scheduler, start, sampler="dpmpp_2m", sampling_steps=steps))
            clouds[name] = pipeline.data_units(x).numpy()
        for name, points in clouds.items():
            sheet.points[name].append(points)
            of_label = [_distance(points[labels == k], partial(truth, k)) for k in classes]
            sheet.distance.setdefault(name, []).append(float(np.mean(of_label)))
        floors = [compute_floors(DISTANCE, partial(truth, k), len(own[k])) for k in classes]
        sheet.floor.append(float(np.median(np.mean(floors, 0))))
    return sheet


def guidance_table(sheet: GuidanceSheet) -> str:
    """One line for each weight."""
    lines = ["sliced Wasserstein-1 to what guidance w claims to sample, mean over the labels"]
    lines.append(f"  {'w':>5}{'exact denoiser':>17}{'network':>10}{'floor':>9}")
    for i, w in enumerate(sheet.weights):
        exact, net = (sheet.distance[name][i] for name in ("exact denoiser", "network"))
        lines.append(f"  {w:>5g}{exact:>17.4f}{net:>10.4f}{sheet.floor[i]:>9.4f}")
    return "\n".join(lines)


# ---------------------------------------------------------------- posterior samplers of points


@dataclass(frozen=True)
class Posteriors:
    """truth: draws (n, d) of the exact posterior; points[denoiser][method] (n, d); distances likewise; floor: low,
    median and high; samples: those of `method` with the network. All in data units."""

    text: str
    noise: float
    seen: Observation
    prior: NDArray
    truth: NDArray
    points: Mapping[str, Mapping[str, NDArray]]
    distance: Mapping[str, Mapping[str, float]]
    evaluations: Mapping[str, int]
    floor: tuple[float, float, float]
    method: str

    @property
    def samples(self) -> NDArray:
        return self.points["network"][self.method]


def posteriors(pipeline: Pipeline, text: str, noise: float, method: str | None, count: int, seed: int) -> Posteriors:
    """Samples given an observation by every method, with the exact denoiser and the network, beside the exact ones.

    Raises:
        ValueError: no observation of such points, or one that contradicts them.
    """
    if text.startswith("mask"):
        raise ValueError(f"observe={text} is for images, and this model is of points: give a line as in observe=y=0.2")
    seen = read_line(text, pipeline.dims[0], noise)
    data = exact_set(pipeline, "observe")
    mixture, normaliser = data.mixture, pipeline.normaliser
    assert mixture is not None
    check_possible(mixture, seen, text)

    def truth(n: int, i: int) -> NDArray:
        return draw_posterior(mixture, seen, n, generator(seed, "posterior", i)).float().numpy()

    denoisers = {
        "exact denoiser": exact_denoiser(normaliser.distribution(mixture), pipeline.scheduler),
        "network": pipeline.denoise(),
    }
    jobs = progress_bar(iter([(d, m) for d in denoisers for m in METHODS]), "posterior", len(denoisers) * len(METHODS))
    points, distance = {d: {} for d in denoisers}, {d: {} for d in denoisers}
    for d, m in jobs:
        x = last(_given(denoisers[d], pipeline, seen.scaled(normaliser.mean, normaliser.std), count, m, seed))
        points[d][m] = pipeline.data_units(x).numpy()
        distance[d][m] = _distance(points[d][m], truth)
    low, median, high = np.quantile(compute_floors(DISTANCE, truth, count), [0.05, 0.5, 0.95]).tolist()
    cost = {m: len(timesteps_of(pipeline.scheduler, m)) * METHODS[m].evaluations for m in METHODS}
    return Posteriors(
        text, noise, seen, data.points, truth(count, 2 * DRAWS), points, distance, cost, (low, median, high),
        method or "sir",
    )  # fmt: skip


def _given(
    denoise: Denoiser, pipeline: Pipeline, seen: Observation, count: int, method: str, seed: int
) -> Iterator[State]:
    x_T, g = pipeline.start(count, seed)
    within = partial(within_range, scheduler=pipeline.scheduler) if pipeline.of_images else None
    return sample_given(denoise, pipeline.scheduler, x_T, seen, method=method, generator=g, last_word=within)


def posterior_table(found: Posteriors) -> str:
    """One line for each method."""
    low, median, high = found.floor
    lines = [f"observed {found.text} with noise {found.noise:g}; {len(found.truth):,} samples by each method;"]
    lines.append(f"sliced Wasserstein-1 to the exact posterior, floor {median:.4f} [{low:.4f}, {high:.4f}]")
    lines.append(f"  {'method':<9}{'evaluations':>12}{'exact denoiser':>17}{'network':>10}   over the floor")
    for m, evaluations in found.evaluations.items():
        exact, net = found.distance["exact denoiser"][m], found.distance["network"][m]
        lines.append(
            f"  {m:<9}{evaluations:>12,}{exact:>17.4f}{net:>10.4f}   {exact / median:.1f}x, {net / median:.1f}x"
        )
    return "\n".join(lines)


# ---------------------------------------------------------------- inpainting


@dataclass(frozen=True)
class Inpainting:
    """images (R, C, H, W), which of their pixels were observed (R, C, H, W), and samples (R, K, C, H, W)."""

    text: str
    method: str
    images: NDArray
    observed: NDArray
    samples: NDArray


def inpaint(pipeline: Pipeline, text: str, noise: float, method: str | None, first: int, seed: int) -> Inpainting:
    """Held-out images from number `first` on, each seen through a mask: COLUMNS samples given that.

    Raises:
        ValueError: no mask, or no such image.
    """
    config, method = pipeline.config, method or "pigdm"
    if method == "sir":
        raise ValueError("observe_method=sir is for points: hardly an image that was drawn blindly fits an observation")
    _, unseen = make_sets(n_samples=config["num_samples"], seed=config["seed"], **config["dataset"])
    assert isinstance(unseen, ImageSet)
    if first >= len(unseen):
        raise ValueError(f"observe_image must lie in 0..{len(unseen) - 1}, the held-out images; got {first}")
    images = unseen[first : first + ROWS][0]
    rows = [read_mask(text, image, noise) for image in images]
    g = generator(seed, "observation", first)
    values = torch.stack([row.value + noise * torch.randn(row.value.shape, generator=g).double() for row in rows])
    # all images at once; but the particles of one must not be weighed against those of another
    parts = [*values] if METHODS[method].weighs else [values.repeat_interleave(COLUMNS, 0)]
    denoise = pipeline.denoise()
    count = COLUMNS * len(rows) // len(parts)
    runs = [_given(denoise, pipeline, rows[0]._replace(value=v), count, method, seed) for v in parts]
    total = len(runs) * (1 + len(timesteps_of(pipeline.scheduler, method)))
    states = progress_bar(chain.from_iterable(runs), "inpainting", total)
    x = torch.cat([state.x_t for state in states if state.t == CLEAN]).cpu().clamp(-1, 1).float()
    mask = rows[0].matrix.sum(0).bool().reshape(images.shape[1:]).expand(images.shape)
    samples = x.unflatten(0, (len(images), COLUMNS)).numpy()
    return Inpainting(text, method, images.numpy(), mask.numpy(), samples)
