"""Pictures of what a training reaches: losses, the error at each step, and score fields."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.quiver import Quiver
from numpy.typing import NDArray

from viz import style
from viz.colours import run_colours as colours_of_runs
from viz.stills import BLUE, PURPLE
from viz.style import greys, ink

DEPTH = 4.0  # nats below the densest place: hardly any x_t lies farther out, so no arrow is drawn
ERROR_SCALE = 10  # arrows of the difference are so many times longer
NAMED_RUNS = 20  # above this a legend would be larger than its curves; loss/report.py names all
COLOUR_BAR = 0.025  # width of a colour bar, in widths of its panel
STEPS = "forward steps (0: clean data)"
LEGEND_LETTERS = 110  # in one line of a legend
SIGN_LETTERS = 8  # the sign of a curve and the space around it are as wide as so many letters
SAME_FLOOR = 0.005  # floors of runs whose relative difference is smaller share a line
FLOOR_LINE = (0, (2, 2))  # dots and gaps of two line widths each
FLOOR_LABEL = "Bayes floor: no network can do better"
LOSS_FLOOR_LABEL = "Bayes floor of the mean loss; single batches lie around it"


# ---------------------------------------------------------------- losses


def losses(
    runs: Mapping[str, Mapping[str, NDArray]],
    excesses: Mapping[str, Mapping[str, NDArray]] = {},
    labelled: Collection[str] = (),
    run_colours: Sequence[str] = (),
) -> Figure:
    """Draw training losses, smoothed and, thin, of single batches; below them the excess over the floor.

    Runs without labels have their panels at the left and runs with labels have theirs at the right:
    labels say something about x_0, which lowers the loss and its floor.

    Args:
        runs: runs[name] holds the arrays "step" and "loss".
        excesses: excesses[name] holds "step", "excess" and "floor", for runs whose Bayes floor is
            known. Without any there is no lower panel.
        labelled: the names of the conditional runs.
        run_colours: one for each run; default: those of so many runs in a report (colours.run_colours).
    """
    run_colours = run_colours or colours_of_runs(len(runs), dark=style.is_dark())
    without = [name for name in runs if name not in labelled]
    kinds = [names for names in (without, [name for name in runs if name in labelled]) if names]
    figure = Figure(figsize=(9, 6.6 if excesses else 4), layout="constrained")
    axes = figure.subplots(2 if excesses else 1, len(kinds), sharex="col", squeeze=False)
    colours = dict(zip(runs, run_colours))
    for column, names in zip(axes.T, kinds):
        kind = ""
        if len(kinds) == 2:
            kind = " without labels" if names is without else " with labels"
        _loss_column(column, {name: runs[name] for name in names}, excesses, colours, kind)
    if len(runs) <= NAMED_RUNS:
        _legend_below(figure, axes[0])
    return figure


def _loss_column(
    axes: NDArray,
    runs: Mapping[str, Mapping[str, NDArray]],
    excesses: Mapping[str, Mapping[str, NDArray]],
    colours: Mapping[str, str],
    kind: str,
) -> None:
    """Draw the losses of some runs and, where there is a second panel, their excesses."""
    for name, run in runs.items():
        axes[0].plot(run["step"], run["loss"], color=colours[name], alpha=0.25, linewidth=0.7)
        axes[0].plot(run["step"], smoothed(run["loss"]), color=colours[name], linewidth=2, label=name)
        if name in excesses:
            excess = excesses[name]
            axes[1].plot(excess["step"], excess["excess"], ".-", color=colours[name], linewidth=2)

    floors = _distinct_floors({name: float(excesses[name]["floor"][0]) for name in runs if name in excesses})
    shared = len(floors) == 1 and len(floors[0].names) == len(runs)
    for floor in floors:
        colour = colours[floor.names[0]] if len(floor.names) == 1 and not shared else ink()
        label = LOSS_FLOOR_LABEL if shared else f"Bayes floor of {', '.join(floor.names)}"
        axes[0].axhline(floor.value, color=colour, linestyle=FLOOR_LINE, label=label)

    title = f"training loss{kind}"
    if shared:
        title += f", floor {floors[0].value:.4f}"
    gap = "\n" if kind else " "  # half as wide a panel has room for half a line
    _log_axis(axes[0], f"{title}{gap}(thick: smoothed, thin: single batches)")
    axes[0].yaxis.set_minor_formatter("{x:.3g}")
    axes[0].yaxis.set_major_formatter("{x:.3g}")
    if len(axes) > 1:
        _log_axis(axes[1], "excess over the floor: what is left to learn")
        if not floors:
            axes[1].text(0.5, 0.5, "floor not known", ha="center", transform=axes[1].transAxes)
    axes[-1].set_xlabel("optimizer step")


class _Floor(NamedTuple):
    """A Bayes floor and the runs that have it."""

    value: float
    names: list[str]


def _distinct_floors(floors: Mapping[str, float]) -> list[_Floor]:
    """Return the floors that differ by more than SAME_FLOOR, each as the mean over its runs.

    Runs with other seeds have slightly other data. Their lines would lie on each other, and dotted
    lines that are a little apart look like a full one.
    """
    groups: list[list[str]] = []
    for name in sorted(floors, key=lambda name: floors[name]):
        if groups and floors[name] <= (1 + SAME_FLOOR) * floors[groups[-1][0]]:
            groups[-1].append(name)
        else:
            groups.append([name])
    distinct = []
    for names in groups:
        in_order = [name for name in floors if name in names]
        distinct.append(_Floor(float(np.mean([floors[name] for name in names])), in_order))
    return distinct


def _legend_below(figure: Figure, axes: NDArray) -> None:
    """Put the legend of some axes below the figure, which grows by it: inside it would hide curves.

    A name that several of the axes have appears once.
    """
    handles_by_name = {}
    for ax in axes:
        for handle, name in zip(*ax.get_legend_handles_labels()):
            handles_by_name.setdefault(name, handle)
    names = list(handles_by_name)
    handles = list(handles_by_name.values())
    widest = max(len(name) for name in names) + SIGN_LETTERS
    columns = max(1, min(len(names), LEGEND_LETTERS // widest))
    rows = math.ceil(len(names) / columns)
    figure.set_figheight(figure.get_figheight() + 0.25 * rows)
    figure.legend(handles, names, loc="outside lower center", ncols=columns, frameon=False)


def _log_axis(ax: Axes, title: str) -> None:
    """Give an axis of mean squared errors its logarithmic scale, grid and title."""
    ax.set(yscale="log", ylabel="mean squared error (log scale)", title=title)
    ax.grid(alpha=0.3, which="both")


def smoothed(values: NDArray, share: float = 0.02) -> NDArray:
    """Return a centred moving average of values (K,).

    Args:
        values: the series.
        share: the width of the window, as a share of the series. At the ends the mean is taken over
            the part of the window that exists.
    """
    width = max(1, round(share * len(values)))
    kernel = np.ones(width)
    sums = np.convolve(values, kernel, "same")
    counts = np.convolve(np.ones(len(values)), kernel, "same")
    return sums / counts


# ---------------------------------------------------------------- the error at each step


def timesteps(
    steps: NDArray,
    floor: NDArray,
    excess: NDArray,
    history: Mapping[str, NDArray] | None,
    of: str = "",
) -> Figure:
    """Draw where the error is: the loss at each step, its excess, and the excess over the training.

    Args:
        steps: (K,), numbers of forward steps.
        floor: (K,), the Bayes floor of the mean squared error of eps.
        excess: (K,), the error of the network above that floor.
        history: "step" (S,), "timesteps" (K',) and "by_t" (S, K'), the excess over the training.
            Without it there is no third panel.
        of: the end of the title, such as ", mean over the labels".
    """
    figure = Figure(figsize=(9, 8.6 if history else 5.6), layout="constrained")
    rows = 3 if history else 2
    grid = figure.add_gridspec(rows, 2, width_ratios=[1, COLOUR_BAR])
    axes = [figure.add_subplot(grid[row, 0]) for row in range(rows)]

    axes[0].plot(steps, floor + excess, color=BLUE, linewidth=4, alpha=0.6, label="network")
    axes[0].plot(steps, floor, color=ink(), linestyle=FLOOR_LINE, label=FLOOR_LABEL)
    _log_axis(axes[0], rf"error of $\epsilon$ at each step of the process{of}")
    axes[0].legend(frameon=False, loc="lower left")

    axes[1].plot(steps, excess, ".-", color=PURPLE, linewidth=1.5)
    share = f"{excess.mean() / floor.mean():.2%} of it on average"
    title = f"excess of the network over its floor, {share}: what is left to learn"
    _log_axis(axes[1], title)
    for ax in axes[:2]:
        ax.set_xlim(0, None)
        ax.set_xlabel(STEPS)

    if history:
        strip = axes[2].pcolormesh(
            history["step"],
            history["timesteps"] + 1,
            history["by_t"].T,
            norm="log",
            cmap="cividis",
            shading="nearest",
        )
        axes[2].set(
            title="the same excess over the training, by colour",
            xlabel="optimizer step of the training",
            ylabel=STEPS,
            xscale="log",
        )
        figure.colorbar(strip, cax=figure.add_subplot(grid[2, 1]), label="mean squared error")
    return figure


# ---------------------------------------------------------------- score fields


def score_fields(fields: Sequence[Mapping[str, NDArray]], of: str = "") -> Figure:
    """Draw the network's score, the exact score and their difference, in one column for each step.

    Args:
        fields: one mapping for each step: "step", "sigma", "x" and "y" (n,), "log_density" (n, n),
            "network" and "exact" (n, n, 2). All are in normalised units.
        of: the end of the title.
    """
    figure = Figure(figsize=(3.1 * len(fields), 10), layout="constrained")
    axes = figure.subplots(3, len(fields), sharex=True, sharey=True, squeeze=False)
    for column, field in zip(axes.T, fields):
        _score_column(column, field)
    rows = ("network's score", "exact score", f"network's minus exact,\n{ERROR_SCALE} times as long")
    for ax, name in zip(axes[:, 0], rows):
        ax.set_ylabel(name, size="large")
    figure.suptitle(
        f"score of x_t: the gradient of its log-density (grey, a shade for each nat){of}\n"
        "positions in standard deviations of the data, scores in their inverse",
        size="medium",
    )
    return figure


def _score_column(axes: NDArray, field: Mapping[str, NDArray]) -> None:
    """Draw one step: the two scores on one scale, and ERROR_SCALE times their difference."""
    network = field["network"]
    exact = field["exact"]
    error = network - exact
    density = np.exp(field["log_density"])[..., None]
    typical = _weighted_rms(exact, density)
    relative_error = _weighted_rms(error, density) / typical

    axes[0].set_title(f"step {field['step']}, sigma {field['sigma']:.2f}")
    quiver, cell = _arrows(axes[0], field, network, BLUE, typical)
    axes[0].quiverkey(
        quiver,
        0.32,
        -0.07,
        cell,
        f"a score of {typical:.2g}",
        labelpos="E",
        color=ink(),
    )
    _arrows(axes[1], field, exact, ink(), typical)
    axes[2].set_title(f"{relative_error:.1%} of the exact score", size="medium")
    _arrows(axes[2], field, ERROR_SCALE * error, PURPLE, typical)


def _weighted_rms(vectors: NDArray, density: NDArray) -> float:
    """Return the root mean square of vectors (n, n, 2), weighted by the density (n, n, 1)."""
    return np.sqrt((density * vectors**2).sum() / density.sum())


def _arrows(
    ax: Axes,
    field: Mapping[str, NDArray],
    arrows: NDArray,
    colour: str,
    typical: float,
) -> tuple[Quiver, float]:
    """Draw the density and, where it is high, arrows on every second or third point of the grid.

    Args:
        ax: where to draw.
        field: see `score_fields`.
        arrows: (n, n, 2).
        colour: of the arrows.
        typical: the length that is drawn as long as the distance between two arrows.

    Returns:
        The arrows, and that distance.
    """
    depth = field["log_density"] - field["log_density"].max()
    ax.contourf(
        field["x"],
        field["y"],
        depth,
        levels=np.arange(-DEPTH, 1),
        cmap=greys(),
        vmin=-DEPTH,
        vmax=9,
        extend="neither",
    )
    spacing = 2 if (depth > -DEPTH).mean() < 0.3 else 3
    every = slice(None, None, spacing)
    dense = depth[every, every] > -DEPTH
    grid_x, grid_y = np.meshgrid(field["x"][every], field["y"][every])
    cell = float(field["x"][spacing] - field["x"][0])
    vectors = arrows[every, every][dense].T * cell / typical
    quiver = ax.quiver(
        grid_x[dense],
        grid_y[dense],
        *vectors,
        color=colour,
        angles="xy",
        scale_units="xy",
        scale=1,
        width=0.008,
    )
    ax.set(aspect="equal")
    return quiver, cell
