"""Where the samples of an entry come from: a sampler or posterior method by name, a training, or a folder of files."""

import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.board_tasks import (
    OBSERVATIONS,
    SCHEDULER,
    TASKS,
    VERSION,
    Cell,
    Start,
    observation_of,
    start,
    training_points,
)
from benchmarks.record import run_script, yardstick
from diffusion import Denoiser, Prediction
from metrics.sampler_comparison import make_plan
from pipeline import Pipeline
from registry.posterior_rows import METHODS
from runtime.atomic_file import atomic_file, save_array
from samplers import last, sample, sampler_row
from samplers.options import SamplingOptions
from samplers.posterior import sample_given

ROOT = Path(__file__).resolve().parent.parent
VERSION_FILE = "benchmark.txt"  # in the folder of an entry: the version of the benchmark
FIRST_DRAW = 10_000  # of real points as an entry: beyond those that make partitions and floors
INTERVAL = (0.2, 2.0)  # of sigma / alpha, in which the second of our guidance rows guides
# Samples of other units: a mean so many standard deviations of real points away, or so many times their spread.
FARTHEST_MEAN = 5.0
LARGEST_SPREAD = 10.0
SAME_MOMENTS = 0.06  # within which samples count as normalised, and real points as not

Made = tuple[NDArray, float | None]  # samples (n, d) in data units, evaluations for each of them
Source = Callable[[Cell], Made]


@dataclass
class Cost:
    """What a training cost: seconds of CPU, and their ratio to the yardstick of benchmarks/record.py."""

    seconds: float
    yardsticks: float


class CountedDenoiser:
    """A denoiser that counts its evaluations for each of `n` samples: rows of all calls, divided by n.

    So a call with ten times the rows counts ten times. A pass for derivatives counts as an evaluation. Where `limit` is
    set, there are no derivatives, and the evaluation beyond the limit raises ValueError.
    """

    def __init__(self, denoise: Denoiser, n: int, limit: int | None, who: str) -> None:
        self._denoise = denoise
        self._n = n
        self._limit = limit
        self._who = who
        self._rows = 0

    @property
    def evaluations(self) -> float:
        return self._rows / self._n

    def __call__(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
        self._count(len(x_t))
        if self._limit is not None:
            return self._denoise(x_t.detach(), t, label)
        if x_t.requires_grad:
            x_t = x_t.view_as(x_t)
            x_t.register_hook(lambda gradient: self._count(len(gradient)))
        return self._denoise(x_t, t, label)

    def _count(self, rows: int) -> None:
        self._rows += rows
        if self._limit is not None and self.evaluations > self._limit:
            raise ValueError(f"{self._who} evaluates the denoiser more often than the {self._limit} times allowed")


# ---------------------------------------------------------------- samplers and posterior methods


def by_sampler(name: str, interval: tuple[float, float] | None = None) -> Source:
    """Samples by the sampler of that name, with the exact denoiser, guided where the task is guidance.

    Raises:
        ValueError: an unknown sampler.
    """
    sampler_row(name)

    def make(cell: Cell) -> Made:
        return _sampled(cell, start(cell, interval), SamplingOptions(name))

    return make


def _sampled(cell: Cell, begin: Start, options: SamplingOptions) -> Made:
    """Samples of a cell by the sampler of the options, with as many evaluations as the cell allows.

    Raises:
        ValueError: the sampler cannot keep to that number, exceeds it, or gives no points.
    """
    assert cell.evaluations is not None
    assert options.sampler is not None
    who = f"sampler={options.sampler} in {cell.label}"
    planned = make_plan(SCHEDULER, begin.x_T.shape[1:], options.sampler, cell.evaluations)
    if planned.steps is None:
        raise ValueError(
            f"{who} makes {planned.evaluations} or more evaluations, and {cell.evaluations} are allowed:"
            f" leave out the task {cell.task}"
        )
    denoise = CountedDenoiser(begin.denoise, cell.n, cell.evaluations, who)
    options = replace(options, sampling_steps=planned.steps)
    with torch.no_grad():
        x_0 = last(sample(denoise, SCHEDULER, begin.x_T, options, generator=begin.noise))
    return _checked(begin.normaliser.denormalise(x_0).numpy(), cell, who), denoise.evaluations


def by_method(name: str) -> Source:
    """Samples by the posterior method of that name, with the exact denoiser.

    Raises:
        ValueError: an unknown method.
    """
    if name not in METHODS:
        raise ValueError(f"method {name!r} is unknown; choose one of {', '.join(METHODS)}")

    def make(cell: Cell) -> Made:
        begin = start(cell)
        set_name, _, number = cell.name.rpartition("-")
        observation = observation_of(set_name, int(number))
        normalised = observation.scaled(begin.normaliser.mean, begin.normaliser.std)
        who = f"method={name} in {cell.label}"
        denoise = CountedDenoiser(begin.denoise, cell.n, None, who)
        states = sample_given(denoise, SCHEDULER, begin.x_T, normalised, method=name, generator=begin.noise)
        x_0 = last(states)
        return _checked(begin.normaliser.denormalise(x_0).numpy(), cell, who), denoise.evaluations

    return make


# ---------------------------------------------------------------- trainings


def by_training(costs: dict[str, Cost]) -> Source:
    """Samples of `python train.py` on the points of a cell, by its defaults. The cost of each goes to `costs`."""

    def make(cell: Cell) -> Made:
        with tempfile.TemporaryDirectory() as folder:
            run_folder, cost = _trained(folder, f"dataset={cell.set_name}")
            costs[cell.name] = cost
            pipeline = Pipeline.load(run_folder, "cpu")
            samples = pipeline.sample(cell.n, seed=1).numpy()
        return _checked(samples, cell, "train.py"), None

    return make


def by_reflow(folder: str) -> tuple[Source, Source]:
    """Samples of a flow of two moons and of its reflow, both trained in `folder` now, by Euler's method."""
    run_folder, _ = _trained(folder, "dataset=moons", "schedule=flow")
    _run("scripts/reflow.py", str(run_folder))
    return _by_euler(run_folder), _by_euler(run_folder / "reflow")


def _by_euler(run_folder: Path) -> Source:
    pipeline = Pipeline.load(run_folder, "cpu")

    def make(cell: Cell) -> Made:
        who = f"the flow in {cell.label}"
        x_T, g = pipeline.start(cell.n, seed=1)
        denoise = CountedDenoiser(pipeline.denoiser(), cell.n, cell.evaluations, who)
        options = SamplingOptions("ddim", cell.evaluations, spacing="trailing")
        with torch.no_grad():
            x_0 = last(sample(denoise, pipeline.scheduler, x_T, options, generator=g))
        return _checked(pipeline.data_units(x_0).numpy(), cell, who), denoise.evaluations

    return make


def _trained(folder: str, *options: str) -> tuple[Path, Cost]:
    """The folder of a training without its evaluation, and what it cost."""
    run_folder = Path(folder, "run")
    before = yardstick()
    _run("train.py", *options, "eval_samples=0", "threads=1", f"task_name={run_folder}")
    after = yardstick()
    seconds = json.loads((run_folder / "metrics.json").read_text())["cpu_seconds"]
    return run_folder, Cost(seconds, seconds / ((before + after) / 2))


def _run(script: str, *words: str) -> None:
    """Run one of our commands to its end. Raises ValueError with what it says if it fails."""
    done = run_script(script, *words)
    if done.returncode:
        raise ValueError(f"{script} failed: {done.stderr.strip()}")


# ---------------------------------------------------------------- files


def by_files(folder: Path) -> Source:
    """Samples from FOLDER/TASK/NAME.npy, checked."""
    _check_version(folder)

    def make(cell: Cell) -> Made:
        path = folder / f"{cell.label}.npy"
        if not path.is_file():
            raise ValueError(f"there is no {path}: an entry has a file for each of {names_of(cell.task)}")
        samples = _checked(_read_array(path), cell, str(path))
        _check_units(samples, cell, str(path))
        return samples, None

    return make


def _read_array(path: Path) -> NDArray:
    """The array in a .npy file. Raises ValueError for anything else."""
    try:
        found = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is no array of numbers: write it by numpy.save") from error
    if not isinstance(found, np.ndarray):  # an archive of several arrays
        raise ValueError(f"{path} is no array of numbers: write it by numpy.save")
    return found


def tasks_in(folder: Path) -> list[str]:
    """The tasks for which a folder holds samples. Raises ValueError where there are none, or other folders."""
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name != "given")
    unknown = [name for name in names if name not in TASKS]
    if unknown or not names:
        found = f"the task {unknown[0]}" if unknown else "no samples"
        raise ValueError(f"{folder} holds {found}: its folders are some of {', '.join(TASKS)}")
    return [name for name in TASKS if name in names]


def names_of(task: str) -> str:
    """The names of the cells of a task, in words."""
    names = [cell.name for cell in TASKS[task].cells]
    if len(names) <= 9:
        return ", ".join(names)
    return f"{names[0]}, {names[1]} ... {names[-1]} ({len(names)} files)"


def _check_version(folder: Path) -> None:
    path = folder / VERSION_FILE
    found = path.read_text().strip() if path.is_file() else "no version"
    if found != VERSION:
        raise ValueError(
            f"{path} must say for which benchmark the samples were made: {VERSION} here, and there it is {found}"
        )


def _checked(samples: NDArray, cell: Cell, who: str) -> NDArray:
    """Samples of a cell as float32. Raises ValueError for a wrong number or dimension, NaN or infinity."""
    if samples.shape != (cell.n, cell.dim) or samples.dtype.kind != "f":
        raise ValueError(
            f"{who}: {cell.label} takes {cell.n:,} points of {cell.dim} coordinates, floats of shape"
            f" ({cell.n}, {cell.dim}), and these are {samples.dtype} of shape {samples.shape}"
        )
    if not np.isfinite(samples).all():
        raise ValueError(f"{who}: samples of {cell.label} hold NaN or infinity")
    return samples.astype(np.float32)


def _check_units(samples: NDArray, cell: Cell, who: str) -> None:
    """Raises ValueError where samples from a file are normalised, or far from the data. Poor samples are neither."""
    mean, spread = cell.truth.moments
    own_mean, own_spread = samples.mean(0, dtype=np.float64), samples.std(0, dtype=np.float64)
    is_far = bool((np.abs(own_mean - mean) > FARTHEST_MEAN * spread).any())
    is_wide = bool((own_spread > LARGEST_SPREAD * spread).any())
    is_normal = _are_normal(own_mean, own_spread) and not _are_normal(mean, spread)
    if is_far or is_wide or is_normal:
        raise ValueError(
            f"{who}: samples of {cell.label} have other units: real points have the mean {_listed(mean)} and the"
            f" standard deviation {_listed(spread)}, and these {_listed(own_mean)} and {_listed(own_spread)}"
        )


def _are_normal(mean: NDArray, spread: NDArray) -> bool:
    """Whether mean and standard deviation of each coordinate are about 0 and 1."""
    return bool((np.abs(mean) < SAME_MOMENTS).all() and (np.abs(spread - 1) < SAME_MOMENTS).all())


def _listed(values: NDArray) -> str:
    """The first three values, such as [0.5, 0.25]."""
    shown = ", ".join(f"{value:.3g}" for value in values[:3])
    return f"[{shown}{', ...' if len(values) > 3 else ''}]"


# ---------------------------------------------------------------- an example of an entry


def write_example(folder: Path, tasks: Sequence[str], seed: int) -> None:
    """An entry of real points for these tasks, and what an entry may use, in FOLDER/given.

    Raises:
        ValueError: the folder holds something already.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"example={folder} is not empty: name a new folder")
    source = by_real_points(seed)
    for task in tasks:
        (folder / task).mkdir(parents=True)
        for cell in TASKS[task].cells:
            samples, _ = source(cell)
            save_array(folder / f"{cell.label}.npy", samples)
    (folder / VERSION_FILE).write_text(f"{VERSION}\n")

    given = folder / "given"
    given.mkdir()
    if "training" in tasks:
        for cell in TASKS["training"].cells:
            save_array(given / f"training-{cell.name}.npy", training_points(cell.set_name))
    if "posterior" in tasks:
        with atomic_file(given / "observations.json") as file:
            file.write(f"{json.dumps(_observations(), indent=2)}\n".encode())


def by_real_points(seed: int) -> Source:
    """Real points, other ones for each seed and each cell."""

    def make(cell: Cell) -> Made:
        number = TASKS[cell.task].cells.index(cell)
        return cell.truth.draw(cell.n, FIRST_DRAW + 1000 * seed + number), None

    return make


def _observations() -> Mapping[str, Mapping[str, object]]:
    found = {}
    for set_name, texts in OBSERVATIONS.items():
        for number, (text, noise) in enumerate(texts, start=1):
            found[f"{set_name}-{number}"] = {"observation": text, "noise": noise}
    return found


def total_cost(costs: Mapping[str, Cost]) -> Cost | None:
    """The sum of all costs; None where there are none."""
    if not costs:
        return None
    seconds = math.fsum(cost.seconds for cost in costs.values())
    yardsticks = math.fsum(cost.yardsticks for cost in costs.values())
    return Cost(seconds, yardsticks)
