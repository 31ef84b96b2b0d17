"""Posterior samplers: for points beside the exact posterior where it is known, for images as inpaintings."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffusion import Denoiser, clamped_denoiser, exact_denoiser
from images.sets import ImageSet
from metrics.distances import Draw, compute_floors
from metrics.exact_truth import DISTANCE, TRUTH_DRAWS, distance_to_truth, exact_set
from pipeline import Pipeline
from points.mixture import GaussianMixture
from points.tables import coordinate_names
from registry.data_rows import POINT_SETS
from registry.posterior_rows import METHODS
from runtime.progress import progress_bar
from runtime.randomness import generator
from samplers import State, last
from samplers.observation import (
    DISTANCE_MAX,
    Observation,
    check_possible,
    draw_posterior,
    read_line,
    read_mask,
    read_terms,
)
from samplers.options import SamplingOptions
from samplers.posterior import method_timesteps, sample_given
from schedule import CLEAN, NoiseScheduler

INPAINTED_IMAGES = 8
INPAINTINGS_EACH = 10
DEFAULT_NOISE = 0.05  # of an observation; for points of a file, in standard deviations of what is observed
NOISE_LIMITS = (1e-3, 1e3)  # of points with an exact distribution, and of images
FARTHEST = 10.0  # standard deviations of a file's points: an observation beyond contradicts them


# ---------------------------------------------------------------- points


@dataclass(frozen=True)
class Posteriors:
    """Samples given an observation, by every method. All points are in data units.

    prior: points of the set; truth: draws (n, d) of the exact posterior; points: (n, d) by denoiser and method;
    distance: sliced Wasserstein-1 to the exact posterior, likewise; floor: low, median and high of that distance
    between exact draws; evaluations: of the denoiser, by method; method: the one whose samples are saved.
    """

    text: str
    noise: float
    observation: Observation
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


def has_exact_posterior(pipeline: Pipeline) -> bool:
    """Tell whether the exact posterior of a model's data is known. It is not for points of a file."""
    row = POINT_SETS.get(pipeline.config["dataset"]["name"])
    return row is not None and row.is_exact


def posteriors(
    pipeline: Pipeline, text: str, noise: float | None, method: str | None, count: int, seed: int
) -> Posteriors:
    """Samples given an observation by every method, with the exact denoiser and with the network, beside the truth.

    Args:
        text: the observation, such as y=0.2; noise: its standard deviation; default: DEFAULT_NOISE.
        method: whose samples are saved; default: sir.

    Raises:
        ValueError: no observation of such points, or one that contradicts them.
    """
    noise = _checked_noise(noise)
    _check_no_mask(text)
    observation = read_line(text, coordinate_names(None, pipeline.dims[0]), noise)
    data = exact_set(pipeline, "observe")
    assert data.mixture is not None
    check_possible(data.mixture, observation, text)
    truth = partial(_draw_truth, data.mixture, observation, seed)

    normaliser = pipeline.normaliser
    normalised = observation.scaled(normaliser.mean, normaliser.std)
    denoisers = {
        "exact denoiser": exact_denoiser(normaliser.normalise_mixture(data.mixture), pipeline.scheduler),
        "network": pipeline.denoiser(),
    }
    points: dict[str, dict[str, NDArray]] = {name: {} for name in denoisers}
    distance: dict[str, dict[str, float]] = {name: {} for name in denoisers}
    jobs = list(product(denoisers, METHODS))
    for name, each in progress_bar(jobs, "posterior", len(jobs)):
        x_0 = last(_conditioned_states(denoisers[name], pipeline, normalised, count, each, seed))
        points[name][each] = pipeline.data_units(x_0).numpy()
        distance[name][each] = distance_to_truth(points[name][each], truth)

    return Posteriors(
        text=text,
        noise=noise,
        observation=observation,
        prior=data.points,
        truth=truth(count, 2 * TRUTH_DRAWS),
        points=points,
        distance=distance,
        evaluations=_evaluations(pipeline.scheduler),
        floor=_floor(truth, count),
        method=method or "sir",
    )


def _checked_noise(noise: float | None) -> float:
    """The noise of an observation in the units of points that are about as wide as 1. Raises ValueError outside."""
    if noise is None:
        return DEFAULT_NOISE
    low, high = NOISE_LIMITS
    if not low <= noise <= high:
        raise ValueError(f"observe_noise must be at least {low:g} and at most {high:g} for these data; got {noise:g}")
    return noise


def _check_no_mask(text: str) -> None:
    if text.startswith("mask:"):
        raise ValueError(f"observe={text} is for images, and this model is of points: give a line as in observe=y=0.2")


def _floor(truth: Draw, count: int) -> tuple[float, float, float]:
    """The 5 % quantile, the median and the 95 % quantile of the distance between exact draws."""
    low, median, high = np.quantile(compute_floors(DISTANCE, truth, count), [0.05, 0.5, 0.95]).tolist()
    return low, median, high


def _evaluations(scheduler: NoiseScheduler) -> dict[str, int]:
    """How many evaluations of the denoiser each method takes for a sample."""
    evaluations = {}
    for method, row in METHODS.items():
        evaluations[method] = len(method_timesteps(scheduler, method)) * row.evaluations
    return evaluations


def _draw_truth(mixture: GaussianMixture, observation: Observation, seed: int, count: int, index: int) -> NDArray:
    """Set number `index` of `count` draws of the exact posterior, float32."""
    return draw_posterior(mixture, observation, count, generator(seed, "posterior", index)).float().numpy()


def _conditioned_states(
    denoise: Denoiser, pipeline: Pipeline, observation: Observation, count: int, method: str, seed: int
) -> Iterator[State]:
    """The states of `count` samples given an observation in normalised units."""
    x_T, g = pipeline.start(count, seed)
    within = partial(clamped_denoiser, scheduler=pipeline.scheduler) if pipeline.of_images else None
    return sample_given(denoise, pipeline.scheduler, x_T, observation, method=method, generator=g, postprocess=within)


def posterior_table(found: Posteriors) -> str:
    """One line for each method."""
    low, median, high = found.floor
    lines = [f"observed {found.text} with noise {found.noise:g}; {len(found.truth):,} samples by each method;"]
    lines.append(f"sliced Wasserstein-1 to the exact posterior, floor {median:.4f} [{low:.4f}, {high:.4f}]")
    lines.append(f"  {'method':<9}{'evaluations':>12}{'exact denoiser':>17}{'network':>10}   over the floor")
    for method, evaluations in found.evaluations.items():
        exact = found.distance["exact denoiser"][method]
        network = found.distance["network"][method]
        ratios = f"{exact / median:.1f}x, {network / median:.1f}x"
        lines.append(f"  {method:<9}{evaluations:>12,}{exact:>17.4f}{network:>10.4f}   {ratios}")
    return "\n".join(lines)


# ---------------------------------------------------------------- points of a file


@dataclass(frozen=True)
class FilePosteriors:
    """Samples given an observation of points whose exact posterior is not known, by every method; in data units.

    names: of the d coordinates; row (d,) and value: the observation row x = value, with noise; noise_text: how large
    that is, in words; prior: samples (n, d) of the model without the observation; points: (n, d) by method; misfit: the
    root mean square of (row x - value) / noise, by method; different: how many of the samples differ, by method;
    evaluations: of the denoiser, by method; method: the one whose samples are saved.
    """

    text: str
    names: Sequence[str]
    row: NDArray
    value: float
    noise: float
    noise_text: str
    prior: NDArray
    points: Mapping[str, NDArray]
    misfit: Mapping[str, float]
    different: Mapping[str, int]
    evaluations: Mapping[str, int]
    method: str

    @property
    def samples(self) -> NDArray:
        return self.points[self.method]

    def observed(self, points: NDArray) -> NDArray:
        """What would be observed of points (n, d) without noise: (n,)."""
        return points.astype(np.float64) @ self.row


def file_posteriors(
    pipeline: Pipeline, text: str, noise: float | None, method: str | None, count: int, seed: int
) -> FilePosteriors:
    """Samples given an observation by every method and the network. Nothing is read but the model.

    Args:
        text: the observation, such as carat=1; noise: its standard deviation in data units; default: DEFAULT_NOISE
            standard deviations of what is observed, if the columns did not depend on each other.
        method: whose samples are saved; default: sir.

    Raises:
        ValueError: no observation of these columns, or one far from all data.
    """
    _check_no_mask(text)
    names = coordinate_names(pipeline.columns, pipeline.dims[0])
    mean = pipeline.normaliser.mean.double().cpu()
    std = pipeline.normaliser.std.double().cpu()
    row, value = read_terms(text, names)
    spread = float((row * std).norm())
    noise_text = f"noise {noise:.4g}" if noise is not None else ""
    if noise is None:
        noise = DEFAULT_NOISE * spread
        noise_text = f"noise {noise:.4g}, {DEFAULT_NOISE} standard deviations of the data (observe_noise= sets it)"
    observation = read_line(text, names, noise, std)
    middle = float(row @ mean)
    if abs(value - middle) > FARTHEST * spread + DISTANCE_MAX * noise:
        raise ValueError(
            f"observe={text} contradicts the data, in which {text.rpartition('=')[0].strip()} lies around {middle:.4g},"
            f" with a standard deviation of about {spread:.2g}: observe a value there, or raise observe_noise"
        )

    # Normalised, and divided by what is left of the data's units. So all numbers are near 1, as float32 needs.
    normalised = observation.scaled(mean, std)
    normalised = Observation(normalised.matrix / spread, normalised.value / spread, noise / spread)
    denoise = pipeline.denoiser()
    points = {}
    for each in progress_bar(METHODS, "posterior", len(METHODS)):
        x_0 = last(_conditioned_states(denoise, pipeline, normalised, count, each, seed))
        points[each] = pipeline.data_units(x_0).numpy()

    misfit = {}
    different = {}
    for each, samples in points.items():
        residual = (samples.astype(np.float64) @ row.numpy() - value) / noise
        misfit[each] = float(np.sqrt(np.square(residual).mean()))
        different[each] = len(np.unique(samples, axis=0))
    plain = SamplingOptions(guidance=-1.0 if pipeline.classes else 0.0)
    return FilePosteriors(
        text=text,
        names=names,
        row=row.numpy(),
        value=value,
        noise=noise,
        noise_text=noise_text,
        prior=pipeline.sample(count, plain, seed=seed).numpy(),
        points=points,
        misfit=misfit,
        different=different,
        evaluations=_evaluations(pipeline.scheduler),
        method=method or "sir",
    )


def file_posterior_table(found: FilePosteriors) -> str:
    """One line for each method."""
    lines = [f"observed {found.text} with {found.noise_text}; {len(found.samples):,} samples by each method;"]
    lines.append("no truth is known for points of a file: the table says how near the samples come to the observation,")
    lines.append("in its noise (about 1 or less is right), and how many of them differ, not whether they are right")
    lines.append(f"  {'method':<9}{'evaluations':>12}{'misfit':>10}{'different':>12}")
    for method, evaluations in found.evaluations.items():
        lines.append(f"  {method:<9}{evaluations:>12,}{found.misfit[method]:>10.2f}{found.different[method]:>12,}")
    return "\n".join(lines)


# ---------------------------------------------------------------- images


@dataclass(frozen=True)
class Inpainting:
    """images (R, C, H, W), which of their pixels were observed (R, C, H, W), and samples (R, K, C, H, W)."""

    text: str
    method: str
    images: NDArray
    observed: NDArray
    samples: NDArray


def inpaint(
    pipeline: Pipeline, text: str, noise: float | None, method: str | None, first: int, seed: int
) -> Inpainting:
    """Ten samples for each of eight held-out images, of which a mask and noise leave a part.

    Args:
        text: the mask, such as mask:left; noise: the standard deviation of the observed pixels;
            default: DEFAULT_NOISE.
        method: default: pigdm.
        first: the number of the first image.

    Raises:
        ValueError: an unknown mask, no such image, or a method that is not for images.
    """
    noise = _checked_noise(noise)
    method = method or "pigdm"
    if method in METHODS and not METHODS[method].for_images:
        raise ValueError(
            f"observe_method={method} is for points: hardly an image that was drawn blindly fits an observation"
        )
    _, unseen = pipeline.data_sets()
    assert isinstance(unseen, ImageSet)
    if first >= len(unseen):
        raise ValueError(f"observe_image must lie in 0..{len(unseen) - 1}, the held-out images; got {first}")

    images = unseen[first : first + INPAINTED_IMAGES][0]
    observations = [read_mask(text, image, noise) for image in images]
    values = _noisy_values(observations, noise, generator(seed, "observation", first))
    states = progress_bar(*_inpainting_states(pipeline, observations[0], values, method, seed))
    samples = torch.cat([state.x_t for state in states if state.t == CLEAN]).cpu().clamp(-1, 1).float()

    mask = observations[0].matrix.sum(0).bool().reshape(images.shape[1:]).expand(images.shape)
    by_image = samples.unflatten(0, (len(images), INPAINTINGS_EACH))
    return Inpainting(text, method, images.numpy(), mask.numpy(), by_image.numpy())


def _noisy_values(observations: list[Observation], noise: float, g: torch.Generator) -> Tensor:
    """The observed value of each image, with noise: (R, m)."""
    values = []
    for observation in observations:
        z = torch.randn(observation.value.shape, generator=g).double()
        values.append(observation.value + noise * z)
    return torch.stack(values)


def _inpainting_states(
    pipeline: Pipeline, observation: Observation, values: Tensor, method: str, seed: int
) -> tuple[Iterator[State], str, int]:
    """The arguments of a progress bar: the states of all samples, a name, and how many states there are.

    All images are sampled at once, except by methods with weights: these compare rows of one image only.
    """
    count = INPAINTINGS_EACH * len(values)
    parts = [values.repeat_interleave(INPAINTINGS_EACH, 0)]
    if METHODS[method].weighted:
        count = INPAINTINGS_EACH
        parts = list(values)

    denoise = pipeline.denoiser()
    runs = []
    for value in parts:
        own = observation._replace(value=value)
        runs.append(_conditioned_states(denoise, pipeline, own, count, method, seed))
    total = len(runs) * (1 + len(method_timesteps(pipeline.scheduler, method)))
    return chain.from_iterable(runs), "inpainting", total
