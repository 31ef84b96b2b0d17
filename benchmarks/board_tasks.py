"""The tasks of the board: sets, observations and numbers of samples, and the exact truth of each cell.

A task consists of cells, such as the moons with 5 evaluations. An entry gives samples for every cell of a task. All
that a cell depends on is fixed here: a change needs a new VERSION, because its figures no longer compare with others.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from torch import Tensor

from dataset import Normaliser, exact_parts, make_dataset
from diffusion import Denoiser, Prediction, exact_denoiser
from metrics.binned_kl import Floor, Partition, fit_partition
from metrics.distances import Draw, compute_floors, exact_draws
from metrics.exact_truth import DISTANCE
from points.mixture import GaussianMixture, equal_mixture
from points.tables import coordinate_names
from runtime.randomness import generator
from samplers.guidance import draw_claimed, exact_guided_denoiser
from samplers.observation import Observation, draw_posterior, read_line, whitened_posterior
from schedule import LinearNoiseScheduler

VERSION = "v1"
SCHEDULER = LinearNoiseScheduler(1000)  # of every task with the exact denoiser
SEED = 1  # of x_T, of fresh noise and of real points
REFERENCE = 1000  # the index of the real points that make a partition; smaller ones are for distances
TRAINING_POINTS = 200_000
TRAINING_SEED = 0  # that of train.py

SETS = {
    "moons": {"noise": 0.05},
    "circles": {"noise": 0.05, "factor": 0.5},
    "grid": {"noise": 0.05, "side": 5},
    "checkerboard": {"noise": 0.05},
    "spirals": {"noise": 0.03, "arms": 2},
    "swiss_roll_3d": {"noise": 0.1},
    "moons_32d": {"noise": 0.05, "embed": 32},
    "gaussians_32d": {},  # see gaussians_in_32_dimensions
    "gaussians": {"noise": 0.1, "modes": 8},  # of the posterior task
}
# Two sets whose labels overlap, so that guidance claims something else than the label's own points.
LABELLED_SETS = {
    "moons": {"noise": 0.2},
    "gaussians": {"noise": 0.3, "modes": 8},
}
OBSERVATIONS = {  # text and noise
    "moons": (("y=0.2", 0.05), ("x=0.5", 0.05), ("x-y=0.5", 0.1)),
    "grid": (("x=0.1", 0.2), ("x+y=0.3", 0.2), ("2x-y=0.5", 0.3)),
    "gaussians": (("x=0.4", 0.2), ("y=-0.3", 0.2), ("x+2y=0.5", 0.3)),
}
EVALUATIONS = (5, 8, 10, 15, 20, 50)
FEW_EVALUATIONS = (1, 2, 4)
GUIDANCE = (1.0, 2.0, 4.0)
GUIDED_EVALUATIONS = 50
MODE_GAP = 6.0  # standard deviations between two modes of a posterior
SMALLEST_WEIGHT = 1e-4  # of a component that counts as part of a mode


@dataclass(frozen=True, eq=False)
class Truth:
    """The exact distribution of a cell.

    draw: independent real points (n, d), float32; log_density: log p of points (n, d) up to a constant, (n,).
    references: how many real points make the partition. mixture: the distribution of W x as a mixture with one
    variance, and whitening: W (d, d); None: the identity. mixture is None where the truth is no mixture.
    """

    draw: Draw
    log_density: Callable[[NDArray], NDArray]
    references: int
    mixture: GaussianMixture | None = None
    whitening: Tensor | None = None

    @cached_property
    def _reference(self) -> tuple[NDArray, NDArray]:
        points = self.draw(self.references, REFERENCE)
        return points, self.log_density(points)

    @cached_property
    def partition(self) -> Partition:
        points, log_density = self._reference
        return fit_partition(torch.from_numpy(points), log_density)

    @cached_property
    def mean_log_density(self) -> float:
        return float(self._reference[1].mean())

    @cached_property
    def moments(self) -> tuple[NDArray, NDArray]:
        """The mean and the standard deviation of each coordinate, (d,) each."""
        points, _ = self._reference
        return points.mean(0, dtype=np.float64), points.std(0, dtype=np.float64)

    @cache  # noqa: B019 (a truth lives as long as the program)
    def floor(self, n: int) -> Floor:
        return self.partition.floor(n)

    @cache  # noqa: B019
    def distance_floor(self, n: int) -> float:
        """The median distance between two sets of n real points."""
        return float(np.median(compute_floors(DISTANCE, self.draw, n)))

    def whitened(self, points: NDArray) -> NDArray:
        """W x of points (n, d)."""
        return points if self.whitening is None else points @ self.whitening.numpy().T

    @cached_property
    def modes(self) -> tuple[NDArray, NDArray]:
        """The mode of each component of the mixture (M,), -1 for components of no weight; and the modes' weights."""
        assert self.mixture is not None
        weights = self.mixture.weights.numpy()
        is_heavy = weights > SMALLEST_WEIGHT
        deviation = math.sqrt(float(self.mixture.variance[0]))
        tree = linkage(self.mixture.centres.numpy()[is_heavy], "single")
        mode = np.full(len(weights), -1)
        mode[is_heavy] = fcluster(tree, MODE_GAP * deviation, "distance") - 1
        return mode, np.bincount(mode[is_heavy], weights[is_heavy])

    def largest_weight_error(self, points: NDArray) -> float:
        """The largest difference between the share of the points (n, d) in a mode and the mode's exact weight."""
        assert self.mixture is not None
        mode, weights = self.modes
        nearest = self.mixture.likeliest_centre(torch.from_numpy(self.whitened(points))).numpy()
        found = mode[nearest]
        shares = np.bincount(found[found >= 0], minlength=len(weights)) / len(points)
        return float(np.abs(shares - weights).max())


@dataclass(frozen=True)
class Cell:
    """One line of samples that an entry gives.

    task, name: also those of its file, TASK/NAME.npy. set_name: of its points; column: that of the page to which its
    figure contributes. n: samples. evaluations: of the denoiser for each sample, at most; None: any number. guidance:
    the weight w, in the task of that name.
    """

    task: str
    name: str
    set_name: str
    column: str
    n: int
    evaluations: int | None = None
    guidance: float | None = None

    @property
    def label(self) -> str:
        return f"{self.task}/{self.name}"

    @property
    def truth(self) -> Truth:
        if self.task == "posterior":
            return posterior_truth(self.name)
        if self.guidance is not None:
            return claimed_truth(self.set_name, self.guidance)
        return set_truth(self.set_name)

    @property
    def dim(self) -> int:
        return mixture_of(self.set_name).dim


@dataclass(frozen=True)
class Start:
    """What an entry that is a program starts from: a denoiser in normalised units, x_T (n, d), and fresh noise."""

    denoise: Denoiser
    x_T: Tensor
    normaliser: Normaliser
    noise: torch.Generator


# ---------------------------------------------------------------- sets


@cache
def mixture_of(set_name: str) -> GaussianMixture:
    """The exact distribution of a set, in data units."""
    if set_name == "gaussians_32d":  # 32 dimensions of its own
        return gaussians_in_32_dimensions()
    return equal_mixture(exact_parts(set_name.removesuffix("_32d"), **SETS[set_name]))


def gaussians_in_32_dimensions() -> GaussianMixture:
    """Forty Gaussians of standard deviation 0.3 whose centres are standard normal; the last weighs twice the first."""
    g = generator(SEED, "gaussians_32d")
    centres = torch.randn(40, 32, generator=g, dtype=torch.float64)
    weights = torch.linspace(1, 2, 40, dtype=torch.float64)
    return GaussianMixture(centres, 0.3**2, weights / weights.sum())


@cache
def labelled_parts(set_name: str) -> list[GaussianMixture]:
    """The exact distribution of each label of a set of the guidance task."""
    return exact_parts(set_name, **LABELLED_SETS[set_name])


def exact_normaliser(mixture: GaussianMixture) -> Normaliser:
    """Shift and scale by the exact mean and standard deviation of a mixture, in float32."""
    mean = mixture.weights @ mixture.centres
    variance = mixture.weights @ (mixture.centres - mean).square() + mixture.variance
    return Normaliser(mean.float(), variance.sqrt().float())


def training_points(set_name: str) -> NDArray:
    """The 200,000 points that a model of the training task may learn from."""
    return make_dataset(set_name, TRAINING_POINTS, TRAINING_SEED, **SETS[set_name]).points


# ---------------------------------------------------------------- truths


@cache
def set_truth(set_name: str) -> Truth:
    mixture = mixture_of(set_name)

    def log_density(points: NDArray) -> NDArray:
        return mixture.log_density(torch.from_numpy(points)).numpy()

    few = len(mixture.centres) > 500  # a density of so many centres takes long
    return Truth(exact_draws(mixture, SEED), log_density, 2**15 if few else 2**17, mixture)


@cache
def posterior_truth(name: str) -> Truth:
    """The exact posterior of the cell of that name."""
    set_name, _, number = name.rpartition("-")
    prior = mixture_of(set_name)
    observation = observation_of(set_name, int(number))
    mixture, whitening = whitened_posterior(prior, observation)

    def draw(n: int, i: int) -> NDArray:
        return draw_posterior(prior, observation, n, generator(SEED, f"posterior {name}", i)).float().numpy()

    def log_density(points: NDArray) -> NDArray:
        return mixture.log_density(torch.from_numpy(points).double() @ whitening.T).numpy()

    return Truth(draw, log_density, 2**17, mixture, whitening)


def observation_of(set_name: str, number: int) -> Observation:
    """Observation 1, 2 or 3 of a set of the posterior task."""
    text, noise = OBSERVATIONS[set_name][number - 1]
    return read_line(text, coordinate_names(None, mixture_of(set_name).dim), noise)


@cache
def claimed_truth(set_name: str, guidance: float) -> Truth:
    """What guidance claims to sample for label 0: p(x | 0) p(0 | x)^w up to a constant."""
    parts = labelled_parts(set_name)

    def draw(n: int, i: int) -> NDArray:
        g = generator(SEED, f"claimed {set_name} {guidance:g}", i)
        return draw_claimed(parts, 0, guidance, n, g).float().numpy()

    def log_density(points: NDArray) -> NDArray:
        log_densities = torch.stack([part.log_density(torch.from_numpy(points)) for part in parts])
        return (log_densities[0] + guidance * log_densities.log_softmax(0)[0]).numpy()

    return Truth(draw, log_density, 2**17)


# ---------------------------------------------------------------- cells


def _sampler_cells() -> list[Cell]:
    cells = []
    for set_name in SETS:
        if set_name == "gaussians":
            continue
        for count in EVALUATIONS:
            cells.append(Cell("samplers", f"{set_name}-{count}", set_name, str(count), 1000, count))
    return cells


def _training_cells() -> list[Cell]:
    return [Cell("training", name, name, name, 10_000) for name in ("moons", "grid", "spirals")]


def _few_step_cells() -> list[Cell]:
    return [Cell("few_steps", f"moons-{count}", "moons", str(count), 10_000, count) for count in FEW_EVALUATIONS]


def _posterior_cells() -> list[Cell]:
    cells = []
    for set_name in OBSERVATIONS:
        for number in (1, 2, 3):
            cells.append(Cell("posterior", f"{set_name}-{number}", set_name, set_name, 1000))
    return cells


def _guidance_cells() -> list[Cell]:
    cells = []
    for set_name in LABELLED_SETS:
        for w in GUIDANCE:
            column = f"w = {w:g}"
            cells.append(Cell("guidance", f"{set_name}-{w:g}", set_name, column, 8000, GUIDED_EVALUATIONS, guidance=w))
    return cells


@dataclass(frozen=True)
class Task:
    """help: one line."""

    help: str
    cells: Sequence[Cell]


TASKS = {
    "samplers": Task("the exact denoiser with few evaluations, on eight sets", _sampler_cells()),
    "training": Task("a model of 200,000 given points, on three sets", _training_cells()),
    "few_steps": Task("one, two and four evaluations, of any denoiser, on two moons", _few_step_cells()),
    "posterior": Task("samples given an observation, three for each of three sets", _posterior_cells()),
    "guidance": Task("what guidance claims to sample for a label, on two sets", _guidance_cells()),
}


def columns_of(cells: Sequence[Cell]) -> list[str]:
    """The columns of the page, in the order of the cells."""
    return [*dict.fromkeys(cell.column for cell in cells)]


# ---------------------------------------------------------------- where programs start


def start(cell: Cell, interval: tuple[float, float] | None = None) -> Start:
    """The exact denoiser of a cell, guided towards label 0 where the cell says so, and x_T, the same for all entries.

    interval: guide only where sigma / alpha lies within it.
    """
    if cell.guidance is None:
        whole = mixture_of(cell.set_name)
        normaliser = exact_normaliser(whole)
        denoise = exact_denoiser(normaliser.normalise_mixture(whole), SCHEDULER)
    else:
        parts = labelled_parts(cell.set_name)
        normaliser = exact_normaliser(equal_mixture(parts))
        normalised = [normaliser.normalise_mixture(part) for part in parts]
        denoise = _with_label_0(exact_guided_denoiser(normalised, SCHEDULER, cell.guidance, interval))
    noise = generator(SEED, f"board {cell.label}")
    x_T = torch.randn(cell.n, cell.dim, generator=noise)
    return Start(denoise, x_T, normaliser, noise)


def _with_label_0(denoise: Denoiser) -> Denoiser:
    def denoise_label_0(x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        return denoise(x_t, t, torch.zeros(len(x_t), dtype=torch.long))

    return denoise_label_0
