"""Posterior samplers: for points beside the exact posterior, for images as inpaintings."""

from collections.abc import Iterator, Mapping
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
from registry.posterior_rows import METHODS
from runtime.progress import progress_bar
from runtime.randomness import generator
from samplers import State, last
from samplers.observation import Observation, check_possible, draw_posterior, read_line, read_mask
from samplers.posterior import method_timesteps, sample_given
from schedule import CLEAN, NoiseScheduler

INPAINTED_IMAGES = 8
INPAINTINGS_EACH = 10


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


def posteriors(pipeline: Pipeline, text: str, noise: float, method: str | None, count: int, seed: int) -> Posteriors:
    """Samples given an observation by every method, with the exact denoiser and with the network, beside the truth.

    Args:
        text: the observation, such as y=0.2; noise: its standard deviation.
        method: whose samples are saved; default: sir.

    Raises:
        ValueError: no observation of such points, or one that contradicts them.
    """
    observation = _read_observation(pipeline, text, noise)
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


def _read_observation(pipeline: Pipeline, text: str, noise: float) -> Observation:
    if text.startswith("mask"):
        raise ValueError(f"observe={text} is for images, and this model is of points: give a line as in observe=y=0.2")
    return read_line(text, pipeline.dims[0], noise)


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


# ---------------------------------------------------------------- images


@dataclass(frozen=True)
class Inpainting:
    """images (R, C, H, W), which of their pixels were observed (R, C, H, W), and samples (R, K, C, H, W)."""

    text: str
    method: str
    images: NDArray
    observed: NDArray
    samples: NDArray


def inpaint(pipeline: Pipeline, text: str, noise: float, method: str | None, first: int, seed: int) -> Inpainting:
    """Ten samples for each of eight held-out images, of which a mask and noise leave a part.

    Args:
        text: the mask, such as mask:left; noise: the standard deviation of the observed pixels.
        method: default: pigdm.
        first: the number of the first image.

    Raises:
        ValueError: an unknown mask, no such image, or a method that is not for images.
    """
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
