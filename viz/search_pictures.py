"""Pictures of a search: what its trials found, one after the other and along each option."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from viz.colours import ERROR, GENERATED, hex_colour
from viz.style import literal

MAX_COLUMNS = 4  # options beside each other
BLUE = hex_colour(GENERATED)
PURPLE = hex_colour(ERROR)


def short(value: Any) -> str:
    """Return a value for a reader: numbers that are not whole have three significant digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def history(numbers: Sequence[int], values: Sequence[float], figure_name: str, maximise: bool) -> Figure:
    """Draw the value of each trial, and the best value so far.

    Args:
        numbers: (K,), the numbers of the trials, rising.
        values: (K,), what each has found.
        figure_name: what the values are.
        maximise: whether higher is better.
    """
    best = np.maximum.accumulate(values) if maximise else np.minimum.accumulate(values)
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    ax = figure.subplots()
    ax.plot(numbers, values, "o", color=BLUE, label="a trial")
    ax.step(numbers, best, where="post", color=PURPLE, label="the best so far")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="trial", ylabel=figure_name, title=f"{figure_name} of each trial")
    ax.legend(frameon=False)
    return figure


def importances(shares: Mapping[str, float], figure_name: str) -> Figure:
    """Draw how much of the variation of the values each option explains, from 0 to 1."""
    figure = Figure(figsize=(7, 1.4 + 0.5 * len(shares)), layout="constrained")
    ax = figure.subplots()
    bars = ax.barh(list(shares), list(shares.values()), color=BLUE)
    ax.bar_label(bars, fmt="{:.2f}", padding=4)
    ax.invert_yaxis()
    ax.set(xlim=(0, 1.12), xlabel="share of the variation", title=f"which options change {figure_name}")
    return figure


def slices(
    options: Mapping[str, Sequence[Any]],
    values: Sequence[float],
    figure_name: str,
    logarithmic: Sequence[str],
) -> Figure:
    """Draw the values of all trials along each option.

    Args:
        options: for each option its value in each trial, (K,); None where a trial has none.
        values: (K,), what each trial has found.
        figure_name: what the values are.
        logarithmic: the options whose range is logarithmic.
    """
    columns = min(MAX_COLUMNS, len(options))
    rows = -(-len(options) // columns)
    figure = Figure(figsize=(3.6 * columns + 0.6, 3.6 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for ax in axes.flat[len(options) :]:
        ax.set_axis_off()
    for ax, (name, chosen) in zip(axes.flat, options.items()):
        _slice(ax, chosen, values)
        ax.set(xlabel=name)
        if name in logarithmic:
            _scale_logarithmically(ax, chosen)
    for ax in axes[:, 0]:
        ax.set_ylabel(figure_name)
    figure.suptitle(f"{figure_name} of each trial, along each option")
    return figure


def _slice(ax: Axes, chosen: Sequence[Any], values: Sequence[float]) -> None:
    """Draw the values of the trials that have this option."""
    pairs = []
    for option, value in zip(chosen, values):
        if option is not None:
            pairs.append((literal(option) if isinstance(option, str) else option, value))
    ax.plot(*zip(*pairs), "o", color=BLUE)
    ax.margins(x=0.12)


def _scale_logarithmically(ax: Axes, chosen: Sequence[Any]) -> None:
    """Give an axis a logarithmic scale, with three round ticks."""
    known = [option for option in chosen if option is not None]
    ends = np.geomspace(min(known), max(known), 3)
    ticks = sorted({float(f"{end:.1g}") for end in ends})
    ax.set_xscale("log")
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
