"""What a recording or an animation is about: plain arrays, computed here, drawn elsewhere.

Everything is in one coordinate system: for a trained model the normalised one, in which it was trained and in which
x_T is N(0, I). "Noisings" and the two clocks are explained in schedule.py and rerun_viz.py.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from dataset import PointSet
from diffusion import chosen_steps, exact_denoiser, forward_states
from law import Law
from loss.log import NAME as LOSS_FILE
from loss.log import read_losses
from metrics import sliced_wasserstein
from randomness import generator
from sampler import Denoiser, State
from schedule import NoiseScheduler
from trained import Trained

REACH = 3.0  # the score field is drawn from -REACH to REACH
PER_SIDE = {2: 13, 3: 5}  # arrows along one side of the field
LEAST_SIGNAL = 0.02  # below this alpha-bar a guess of x_0 divides by almost nothing
COMPARED = 1000  # points in a distance
LONGEST_LOSS = 30  # bars


class Process(NamedTuple):
    """states (S, N, d), the i-th of them noised noisings[i] times; side is "forward" or "reverse"."""

    side: str
    states: NDArray
    noisings: NDArray

    @property
    def story(self) -> NDArray:
        """(S,): how many steps the process has gone."""
        return np.abs(self.noisings - self.noisings[0])


class Field(NamedTuple):
    """Arrows along a score: origins (G, d), vectors (S, G, d), the i-th set of them for noisings[i]."""

    name: str
    origins: NDArray
    vectors: NDArray
    noisings: NDArray


class Loss(NamedTuple):
    """A training loss (K,), means up to optimizer steps (K,), and the least that is possible, where it is known."""

    step: NDArray
    loss: NDArray
    floor: float | None


class Distance(NamedTuple):
    """Distance to the data at each state of each process, by side, and its floor: between two real draws."""

    by_side: dict[str, NDArray]
    floor: float


class Scene(NamedTuple):
    """One or two processes and whatever is known around them."""

    processes: list[Process]
    data: NDArray | None = None  # (N, d), clean
    alpha_bar: NDArray | None = None  # (T + 1,), 1 for the clean data
    fields: Sequence[Field] = ()
    guesses: tuple[NDArray, NDArray] | None = None  # of tracked samples: where they are, their x_0; both (S, K, d)
    distance: Distance | None = None
    loss: Loss | None = None
    normalised: bool = False

    @property
    def dim(self) -> int:
        return self.processes[0].states.shape[-1]


def checked_points(points: NDArray) -> NDArray[np.float32]:
    """Points (..., 2 or 3) as contiguous float32, finite: rerun itself accepts NaN without a word."""
    points = np.ascontiguousarray(points, dtype=np.float32)
    if points.ndim < 2 or points.shape[-1] not in (2, 3):
        raise ValueError(f"points must have 2 or 3 coordinates, got shape {points.shape}")
    if 0 in points.shape:
        raise ValueError(f"there are no points to show: the shape is {points.shape}")
    if not np.isfinite(points).all():
        raise ValueError("the points hold NaN or infinity: nothing was recorded")
    return points


def checked_rows(rows: Sequence[int] | None, count: int) -> NDArray[np.int64]:
    """Tracked rows of `count`; by default the first six."""
    rows = np.arange(min(6, count)) if rows is None else np.asarray(rows, dtype=np.int64)
    if rows.size and not (rows.min() >= 0 and rows.max() < count):
        raise ValueError(f"track_samples must lie in 0..{count - 1}, got {rows.tolist()}")
    return rows


def alpha_bar(scheduler: NoiseScheduler) -> NDArray:
    """(T + 1,), beginning with 1 for the clean data: indexed by the number of noisings."""
    return np.concatenate([[1.0], scheduler.alphas_cumprod.numpy()])


def forward(scheduler: NoiseScheduler, data: NDArray, noisings: Sequence[int], seed: int) -> Process:
    """The forward chain of data (N, d) at the chosen numbers of noisings, which rise from 0."""
    states = np.empty((len(noisings), *data.shape), np.float32)
    chain = forward_states(scheduler, torch.as_tensor(data), noisings, generator(seed, "forward"))
    for i, x_t in enumerate(chain):
        states[i] = x_t
    return Process("forward", states, np.asarray(noisings))


def reverse(states: Iterable[State], tracked: NDArray) -> tuple[Process, tuple[NDArray, NDArray]]:
    """The reverse process out of a sampler's states, and the x_0 guesses of the tracked rows."""
    noisings, points, guesses = [], [], []
    for state in states:
        noisings.append(state.step)
        points.append(state.x_t.float().cpu().numpy())
        guesses.append(state.x_0[tracked].float().cpu().numpy())
    process = Process("reverse", np.stack(points), np.array(noisings))
    return process, (process.states[:, tracked], np.stack(guesses))


def of_forward(scheduler: NoiseScheduler, data: NDArray, viz_steps: int, seed: int) -> Scene:
    """The forward process alone, in the data's own coordinates: at most viz_steps states."""
    process = forward(scheduler, data, chosen_steps(scheduler.num_timesteps, viz_steps), seed)
    return Scene([process], data=data, alpha_bar=alpha_bar(scheduler))


def of_trained(
    trained: Trained,
    process: Process,
    guesses: tuple[NDArray, NDArray],
    folder: Path,
    real: PointSet,
    other: NDArray,
    seed: int,
) -> Scene:
    """Both processes of a trained network, with everything that can be known around them.

    Args:
        process, guesses: what `reverse` returned.
        folder: the run folder; its loss.csv is shown where there is one.
        real, other: independent points (N, d) in data units, as many as samples; `real` is drawn and noised.
    """
    scheduler, noisings = trained.scheduler, process.noisings[::-1].tolist()
    law = real.law and real.law.scaled(trained.normaliser.mean, trained.normaliser.std)
    data, held_out = (trained.normaliser.normalise(torch.as_tensor(p)).numpy() for p in (real.points, other))
    processes = [forward(scheduler, data, noisings, seed), process]
    denoisers = {"network": trained.denoise()} | ({"exact": exact_denoiser(law, scheduler)} if law else {})
    return Scene(
        processes,
        data=data,
        alpha_bar=alpha_bar(scheduler),
        fields=[field(name, denoise, scheduler, noisings, data.shape[1]) for name, denoise in denoisers.items()],
        guesses=guesses,
        distance=distance(processes, held_out, data),
        loss=loss(folder, law, scheduler),
        normalised=True,
    )


# ---------------------------------------------------------------- what stands beside the points


def field(name: str, denoise: Denoiser, scheduler: NoiseScheduler, noisings: Sequence[int], dim: int) -> Field:
    """Arrows on a grid that point along the score, -eps / sigma: towards where points are likelier at that noise.

    Scores span orders of magnitude, so the lengths saturate: half a cell at |eps| = 1, never more than a whole one.
    """
    side = torch.linspace(-REACH, REACH, PER_SIDE[dim])
    grid, cell = torch.cartesian_prod(*[side] * dim), float(side[1] - side[0])
    shown = [n for n in noisings if n > 0]  # clean data has no score that a network could know
    with torch.no_grad():
        eps = torch.stack([denoise(grid, torch.tensor(n - 1)) for n in shown])
    vectors = -eps * cell / (1 + eps.norm(dim=-1, keepdim=True))
    return Field(name, grid.numpy(), vectors.float().numpy(), np.array(shown))


def distance(processes: Sequence[Process], real: NDArray, other: NDArray) -> Distance:
    """Sliced Wasserstein-1 of every state to `real` points (N, d) that no process began with; `other` is real too."""
    n = min(COMPARED, len(real), *[p.states.shape[1] for p in processes])
    real, other = real[:n], other[:n]
    by_side = {p.side: np.array([sliced_wasserstein(s[:n], real, 32) for s in p.states]) for p in processes}
    return Distance(by_side, sliced_wasserstein(other, real, 32))


def loss(folder: Path, law: Law | None, scheduler: NoiseScheduler) -> Loss | None:
    """The training loss in a run folder, thinned to means; None where there is no loss.csv."""
    if not (folder / LOSS_FILE).exists():
        return None
    columns = read_losses(folder)
    size = -(-len(columns["loss"]) // LONGEST_LOSS)
    value = np.array([part.mean() for part in np.split(columns["loss"], range(size, len(columns["loss"]), size))])
    step = columns["step"][0] * size * np.arange(1, len(value) + 1)
    floor = None if law is None else bayes_floor(law, scheduler)
    return Loss(step, value, floor)


def bayes_floor(law: Law, scheduler: NoiseScheduler, points: int = 1000, moments: int = 100) -> float:
    """The least training loss that any network can reach: E|E[eps | x_t] - eps|^2, averaged over t and dims."""
    total, g = 0.0, generator(0, "bayes floor")
    times = ((torch.arange(moments) + 0.5) * scheduler.num_timesteps / moments).long().unique()
    for t in times:
        x_0, eps = law.sample(points, g), torch.randn(points, law.dim, generator=g, dtype=torch.float64)
        alpha, sigma = scheduler.alpha_sigma_at(int(t))
        total += float((law.eps(alpha * x_0 + sigma * eps, alpha, sigma) - eps).square().mean())
    return total / len(times)
