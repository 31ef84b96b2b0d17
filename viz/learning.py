"""Pictures of what a training reaches: losses, the error at each step of the process, and score fields."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.quiver import Quiver
from numpy.typing import NDArray

from viz.stills import BLUE, PURPLE
from viz.style import greys, ink

DEEP = 4.0  # nats below the densest place: farther out hardly any x_t lies, and no arrow is drawn
ENLARGED = 10  # times: arrows of the difference
NAMED = 20  # runs: a legend of more would be larger than their curves (loss/report.py names them all)
LETTERS = 110  # in a line of the legend


def losses(runs: Mapping[str, Mapping[str, NDArray]], excesses: Mapping[str, Mapping[str, NDArray]] = {}) -> Figure:
    """Training losses, raw faint and smoothed strong, with their Bayes floor if it is known; below, the excess over it.

    runs[name] holds arrays "step" and "loss"; excesses[name], where there is one, "step", "excess" and "floor".
    """
    figure = Figure(figsize=(9, 6.6 if excesses else 4), layout="constrained")
    axes = figure.subplots(2 if excesses else 1, 1, sharex=True, squeeze=False)[:, 0]
    floors = {name: float(e["floor"][0]) for name, e in excesses.items()}
    one_floor = len(floors) == len(runs) and len(set(floors.values())) == 1
    for i, (name, run) in enumerate(runs.items()):
        axes[0].plot(run["step"], run["loss"], color=f"C{i}", alpha=0.25, linewidth=0.7)
        axes[0].plot(run["step"], smoothed(run["loss"]), color=f"C{i}", linewidth=2, label=name)
        if name in excesses:
            axes[0].axhline(floors[name], color=ink() if one_floor else f"C{i}", linestyle=":")
            axes[1].plot(excesses[name]["step"], excesses[name]["excess"], ".-", color=f"C{i}", linewidth=2)
    if floors:
        axes[0].plot([], [], color=ink(), linestyle=":", label="Bayes floor: no network can do better")
    shared = f" and its floor, {next(iter(floors.values())):.4f}" if one_floor else ""
    _log_axis(axes[0], "mean squared error", f"training loss{shared}")
    axes[0].yaxis.set_minor_formatter("{x:.3g}")
    axes[0].yaxis.set_major_formatter("{x:.3g}")
    if len(runs) <= NAMED:
        _named_below(figure, axes[0])
    if excesses:
        _log_axis(axes[1], "mean squared error", "excess over the Bayes floor, measured: what is left to learn")
    axes[-1].set_xlabel("optimizer step")
    return figure


def _named_below(figure: Figure, ax: Axes) -> None:
    """The legend of `ax` below the whole picture, which grows by it: inside it would hide curves."""
    handles, names = ax.get_legend_handles_labels()
    columns = max(1, min(len(names), LETTERS // (max(map(len, names)) + 8)))  # a sign and its room are worth 8 letters
    figure.set_figheight(figure.get_figheight() + 0.25 * -(-len(names) // columns))
    figure.legend(handles, names, loc="outside lower center", ncols=columns, frameon=False)


def _log_axis(ax: Axes, label: str, title: str) -> None:
    ax.set(yscale="log", ylabel=label, title=title)
    ax.grid(alpha=0.3, which="both")


def smoothed(values: NDArray, share: float = 0.02) -> NDArray:
    """A centred moving average over `share` of the series; at the ends, over the part that exists."""
    width = max(1, round(share * len(values)))
    kernel = np.ones(width)
    return np.convolve(values, kernel, "same") / np.convolve(np.ones(len(values)), kernel, "same")


def timesteps(
    steps: NDArray, floor: NDArray, excess: NDArray, history: Mapping[str, NDArray] | None, of: str = ""
) -> Figure:
    """Where the error is: loss at each step of the process on its floor, the excess alone, and that over the training.

    steps, floor, excess: (K,); history holds "step" (S,), "timesteps" (K') and "by_t" (S, K'). of: ends the
    title, such as ", mean over the labels".
    """
    figure = Figure(figsize=(9, 8.6 if history else 5.6), layout="constrained")
    axes = figure.subplots(3 if history else 2, 1, squeeze=False)[:, 0]
    axes[0].plot(steps, floor + excess, color=BLUE, linewidth=4, alpha=0.6, label="network")
    axes[0].plot(steps, floor, color=ink(), linestyle=":", label="Bayes floor: no network can do better")
    _log_axis(axes[0], "mean squared error", rf"error of $\epsilon$ at each step of the process{of}")
    axes[0].legend(frameon=False, loc="lower left")
    axes[1].plot(steps, excess, ".-", color=PURPLE, linewidth=1.5)
    share = f"{excess.mean() / floor.mean():.2%} of it on average"
    _log_axis(axes[1], "mean squared error", f"excess of the network over its floor, {share}: what is left to learn")
    for ax in axes[:2]:
        ax.set_xlim(0, None)
        ax.set_xlabel("forward steps")
    if history:
        strip = axes[2].pcolormesh(
            history["step"], history["timesteps"] + 1, history["by_t"].T, norm="log", cmap="cividis", shading="nearest"
        )
        axes[2].set(
            title="the same over the training", xlabel="optimizer step", ylabel="forward steps",
            xscale="log",
        )  # fmt: skip
        figure.colorbar(strip, ax=axes[2], label="excess")
    return figure


def score_fields(fields: Sequence[Mapping[str, NDArray]], of: str = "") -> Figure:
    """Network's score, exact score and their difference where x_t lies, one column a step; all in normalised units.

    Each mapping holds "step", "sigma", "x" and "y" (n,), "log_density" (n, n), and the arrows "network", "exact"
    (n, n, 2). Arrows of a column have one scale, except that the difference is enlarged. of: ends the title.
    """
    figure = Figure(figsize=(3.1 * len(fields), 9.4), layout="constrained")
    axes = figure.subplots(3, len(fields), sharex=True, sharey=True, squeeze=False)
    for column, f in zip(axes.T, fields):
        weight = np.exp(f["log_density"])[..., None]  # what happens far from all points does not count
        typical = np.sqrt((weight * f["exact"] ** 2).sum() / weight.sum())
        error = f["network"] - f["exact"]
        share = np.sqrt((weight * error**2).sum() / weight.sum()) / typical
        column[0].set_title(f"step {f['step']}, sigma {f['sigma']:.2f}\nnetwork")
        quiver, cell = _arrows(column[0], f, f["network"], BLUE, typical)
        column[0].quiverkey(quiver, 0.55, -0.06, cell, f"length {typical:.2g}", labelpos="E", color=ink())
        column[1].set_title("exact", loc="left")
        _arrows(column[1], f, f["exact"], ink(), typical)
        column[2].set_title(f"difference ({share:.1%}), {ENLARGED} times as long")
        _arrows(column[2], f, ENLARGED * error, PURPLE, typical)
    figure.suptitle(f"score of x_t: the gradient of its log-density (contours, a nat apart), where x_t lies{of}")
    return figure


def _arrows(ax: Axes, f: Mapping[str, NDArray], arrows: NDArray, colour: str, typical: float) -> tuple[Quiver, float]:
    """Arrows on the points of the grid where there is density, every second or third; a `typical` one is as long."""
    depth = f["log_density"] - f["log_density"].max()
    ax.contourf(f["x"], f["y"], depth, levels=np.arange(-DEEP, 1), cmap=greys(), vmin=-DEEP, vmax=9, extend="neither")
    stride = 2 if (depth > -DEEP).mean() < 0.3 else 3
    every = slice(None, None, stride)
    dense = depth[every, every] > -DEEP
    x, y = (grid[dense] for grid in np.meshgrid(f["x"][every], f["y"][every]))
    cell = float(f["x"][stride] - f["x"][0])
    vectors = arrows[every, every][dense].T * cell / typical
    quiver = ax.quiver(x, y, *vectors, color=colour, angles="xy", scale_units="xy", scale=1, width=0.008)
    ax.set(aspect="equal")
    return quiver, cell
