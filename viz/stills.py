"""Pictures of points and schedules, drawn with matplotlib. Each function returns a Figure."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from points.tables import Columns
from runtime.atomic_file import atomic_file
from viz.colours import DATA, ERROR, GENERATED, hex_colour, noise_colours
from viz.labelled_points import add_legend, draw_points, label_keys, legend_title
from viz.pair_plots import count_outside, pair_grid
from viz.point_axes import aspect_of, axes_in_words, axis_names, name_axes, point_axes, range_with_margin, set_range
from viz.style import ink, literal

SCREEN_DPI = 120  # of a png
PRINT_DPI = 300  # of what is drawn as pixels in a pdf or svg
GREY = hex_colour(DATA)
BLUE = hex_colour(GENERATED)
PURPLE = hex_colour(ERROR)
CLEAN = hex_colour(noise_colours(0))

SAMPLES_MARGIN = 0.2  # around the real points, in widths of their narrower side
WIDE = 2.2  # width by height from which two pictures stand below each other, as for a line of text
TALL = 0.6  # up to which they become higher
EXTREME = 8  # beyond it, and below 1 / EXTREME, the shape of a picture does not follow the points
SAMPLES_HEIGHT = {2: 3.3, 3: 4.2}  # inches, by the number of coordinates
STRIP_MARGIN = 0.04  # around all points of a strip, in widths of them, so that no frame cuts a point
MAX_NAMED = 8  # coordinates in the legend of the statistics
STATISTICS = {
    "mean": "mean of each coordinate",
    "variance": "variance of each coordinate",
    "snr": "signal-to-noise ratio",
    "kl": "KL from N(0, I), in nats",
}
SCHEDULE_WIDTHS = (5.0, 4.2, 3.6, 3.0, 2.4, 1.8)  # points: of the curves, in their order
SCHEDULE_LINES = ("-", "-", "-", (0, (3, 2)), (0, (5, 3)), (0, (2, 3)), "-")
SCHEDULES_ON_ANOTHER = ("linear, zero SNR",)  # almost equal to linear: drawn upon it, in the colour of text
SCHEDULES_TOP = 4.2  # inches: height of the curves on the sheet of schedules
SCHEDULES_ROW = 2.0  # inches: height of a row of points there


def save(figure: Figure, path: str | Path, formats: Sequence[str] = ()) -> Path:
    """Write a picture in one or several formats.

    A missing folder is created.

    Args:
        figure: what to write.
        path: the file. Its suffix is the format (png if it has none), unless `formats` are given.
        formats: suffixes such as "png" and "pdf", which replace the suffix of `path`.

    Returns:
        The path of the first file.

    Raises:
        OSError: a file cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    paths = [path.with_suffix(f".{name}") for name in formats]
    if not paths:
        paths = [path]
    for each in paths:
        kind = each.suffix.lstrip(".").lower() or "png"
        dpi = SCREEN_DPI if kind == "png" else PRINT_DPI
        with atomic_file(each) as file:
            figure.savefig(file, dpi=dpi, format=kind)
    return paths[0]


# ---------------------------------------------------------------- points


def scatter(
    points: NDArray,
    title: str,
    labels: NDArray | None = None,
    classes: Sequence[str] = (),
    columns: Columns | None = None,
    colour: str = CLEAN,
) -> Figure:
    """Draw points (N, d), of which there are no others to compare with.

    labels, classes, columns: as in `samples`. Of more than three coordinates the first two are drawn.
    colour: of points without labels; default: that of clean data.
    """
    d = points.shape[1]
    figure = Figure(figsize=(5, 4), layout="constrained")
    ax = point_axes(figure, 1, 1, d)[0, 0]
    _points(ax, points, colour, title, aspect_of(points, columns), labels)
    if labels is not None:
        add_legend(figure, label_keys(labels, classes, columns), legend_title(columns))
    name_axes(ax, axis_names(columns, d))
    return figure


def samples(
    generated: NDArray,
    real: NDArray,
    labels: NDArray | None = None,
    real_labels: NDArray | None = None,
    classes: Sequence[str] = (),
    guidance_text: str = "",
    drawn: int | None = None,
    columns: Columns | None = None,
) -> Figure:
    """Draw generated points beside real ones, on the same axes.

    Points of 2 or 3 coordinates stand in two panels, others in a grid of pair plots.

    Args:
        generated, real: points (N, d).
        labels, real_labels: indices (N,) into `classes`. Labelled points get the colour of their
            label.
        classes: the names of the labels.
        guidance_text: how sampling was guided, in words for the title.
        drawn: how many points were generated, if not all of them are here.
        columns: the names of the coordinates, for points of a table. Only these may have unlike
            units; then each axis has its own scale.
    """
    d = real.shape[1]
    title = f"generated ({len(generated):,})"
    if drawn is not None and drawn > len(generated):
        title = f"generated ({len(generated):,} of {drawn:,} shown)"
    if guidance_text:
        title += f", {guidance_text}"
    real_title = f"real ({len(real):,})"
    if d not in (2, 3):
        both = f"{title} and {real_title}"
        return pair_grid(generated, real, labels, real_labels, classes, columns, both)

    aspect = aspect_of(real, columns)
    low, high = range_with_margin(real, SAMPLES_MARGIN, STRIP_MARGIN if aspect == "equal" else None)
    num_rows, num_columns, size = _samples_layout(high - low, aspect)
    figure = Figure(figsize=size, layout="constrained")
    left, right = point_axes(figure, num_rows, num_columns, d).flat
    _points(left, generated, BLUE, title, aspect, labels)
    _points(right, real, GREY, real_title, aspect, real_labels)
    if labels is not None:
        add_legend(figure, label_keys(labels, classes, columns), legend_title(columns))

    for ax in (left, right):
        set_range(ax, low, high)
        name_axes(ax, axis_names(columns, d))
    outside = count_outside(generated, low, high)
    if outside:
        name = left.get_xlabel()
        note = f"{outside:,} points lie outside of this picture"
        left.set_xlabel(f"{name}\n{note}" if name else note)
    return figure


def _samples_layout(width: NDArray, aspect: str) -> tuple[int, int, tuple[float, float]]:
    """Return rows, columns and the size in inches of two pictures of points.

    In one unit, points of this width (d,) fill their pictures.
    """
    d = len(width)
    ratio = width[0] / width[1] if d == 2 and aspect == "equal" else 1
    if WIDE < ratio <= EXTREME:
        return 2, 1, (9, 2 * (8.2 / ratio + 0.6))
    if 1 / EXTREME <= ratio < TALL:
        height = min(8.0, 4 / ratio)
        return 1, 2, (2 * (height * ratio + 0.5), height + 0.6)
    return 1, 2, (9, SAMPLES_HEIGHT[d])


# ---------------------------------------------------------------- the forward process


class Moments(NamedTuple):
    """Points at a few moments of the forward process.

    name: how these moments are spaced, in words.
    states: states[i] are the points (N, d) after steps[i] forward steps.
    steps: numbers of forward steps, rising.
    noise: (S,), sigma / sqrt(alpha^2 + sigma^2) of each state, which gives its colour.
    """

    name: str
    states: Sequence[NDArray]
    steps: Sequence[int]
    noise: NDArray


def forward_strip(rows: Sequence[Moments], last_step: int, columns: Columns | None = None) -> Figure:
    """Draw the forward process at a few moments: a row for each way to space them.

    Of points with more than 3 coordinates it shows the first two.

    Args:
        rows: with equally many moments each.
        last_step: T.
        columns: the names of the coordinates, for points of a table.
    """
    moments = max(len(row.states) for row in rows)
    d = rows[0].states[0].shape[1]
    names = axis_names(columns, d)
    figure = Figure(figsize=(2.1 * moments, 2.45 * len(rows) + 0.3), layout="constrained")
    axes = point_axes(figure, len(rows), moments, d)
    low, high = range_with_margin(np.concatenate([x for row in rows for x in row.states]), STRIP_MARGIN)
    for row_axes, row in zip(axes, rows):
        for ax, state, step, sigma in zip(row_axes, row.states, row.steps, row.noise):
            _points(ax, state, hex_colour(noise_colours(sigma)), f"step {step}, noise {sigma:.2f}")
            set_range(ax, low, high)
            ax.title.set_fontsize("medium")
            if d == 3:
                name_axes(ax, ())
                continue
            if names:
                name_axes(ax, names)
            ax.label_outer()
        for ax in row_axes[len(row.states) :]:
            ax.set_visible(False)
        _name_strip(row_axes[0], row.name)

    title = f"forward process, from clean data (step 0, noise 0) to pure noise (step {last_step}, noise 1)"
    if names:
        title += "\n" + _columns_of_strip(names)
    figure.suptitle(title, size="medium")
    return figure


def _columns_of_strip(names: Sequence[str]) -> str:
    """Return the line of a strip's title about the columns of a table."""
    line = "every column is scaled to mean 0 and standard deviation 1"
    if len(names) == 3:
        return f"{line}; {axes_in_words(names)}"
    if len(names) > 3:
        return f"{line}; shown are the first 2 of {len(names)}"
    return line


def _name_strip(first, name: str) -> None:
    """Write how the moments of a strip are spaced at the left of its `first` axes."""
    if first.name == "3d":
        first.text2D(-0.12, 0.5, name, rotation=90, va="center", transform=first.transAxes)
        return
    coordinate = first.get_ylabel()
    first.set_ylabel(f"{name}\n{coordinate}" if coordinate else name, size="medium")


def schedule(alpha: NDArray, sigma: NDArray, fresh: NDArray) -> Figure:
    """Draw the amplitudes alpha and sigma, and the variance of the noise that each step adds.

    Args:
        alpha, sigma, fresh: (T,); `fresh` is that variance, beta_t.
    """
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    steps = np.arange(len(alpha) + 1)
    green = hex_colour(noise_colours(0))
    red = hex_colour(noise_colours(1))
    left.plot(steps, [1, *alpha], color=green, label=r"signal $\alpha_t$")
    left.plot(steps, [0, *sigma], color=red, label=r"noise $\sigma_t$")
    left.set(title="amplitudes in x_t", xlabel="forward steps", ylim=(-0.02, 1.05))
    left.legend(frameon=False)
    right.plot(steps[1:], fresh, color=BLUE)
    right.set(
        title=r"variance added at each step, $\beta_t$",
        xlabel="forward steps",
        ylim=(0, None),
    )
    return figure


def forward_statistics(
    steps: NDArray,
    measured: Mapping[str, NDArray],
    theory: Mapping[str, NDArray],
    columns: Columns | None = None,
) -> Figure:
    """Draw statistics of the forward process: measured (dots), theory (lines) and its 95 % band.

    Args:
        steps: (S,), numbers of forward steps.
        measured: "mean" and "variance" (S, d), "snr" and "kl" (S,).
        theory: the same, and the standard deviation of each over draws of the noise ("mean_sd" and
            so on). "snr_floor" and "kl_floor" are what as many points of pure noise would show.
        columns: the names of the coordinates, for points of a table.
    """
    figure = Figure(figsize=(10, 7), layout="constrained")
    axes = dict(zip(STATISTICS, figure.subplots(2, 2, sharex=True).flat))
    names = axis_names(columns, measured["mean"].shape[1]) or list("xyz")
    for key, ax in axes.items():
        _statistic(ax, key, steps, measured[key], theory[key], theory[f"{key}_sd"], names)
        ax.set(title=STATISTICS[key], xlim=(0, None))
        ax.grid(alpha=0.3)
    axes["mean"].legend(frameon=False, fontsize="small")

    for key in ("snr", "kl"):
        ax = axes[key]
        floor = theory[f"{key}_floor"]
        ax.axhspan(
            floor / 1e3,
            floor,
            color=GREY,
            alpha=0.3,
            label="indistinguishable from 0 at this n",
        )
        ax.set(yscale="log", ylim=(floor / 30, None), xlabel="forward steps")
        ax.legend(frameon=False, fontsize="small", loc="upper right")
    figure.suptitle(
        "the forward process: measured (dots), theory (lines), and where 95 % of such dots lie (bands)",
    )
    return figure


def _statistic(
    ax: Axes,
    key: str,
    steps: NDArray,
    measured: NDArray,
    theory: NDArray,
    deviation: NDArray,
    names: Sequence[str],
) -> None:
    """Draw one statistic, (S,) or (S, d): dots, lines and bands of 1.96 standard deviations.

    names: of the first coordinates, for the legend.
    """
    by_coordinate = key in ("mean", "variance")
    all_dots = np.atleast_2d(measured.T)
    all_lines = np.atleast_2d(theory.T)
    all_deviations = np.atleast_2d(deviation.T)
    for i, (dots, line) in enumerate(zip(all_dots, all_lines)):
        colour = f"C{i}" if by_coordinate else BLUE
        label = literal(names[i]) if by_coordinate and i < min(len(names), MAX_NAMED) else None
        half_band = 1.96 * all_deviations[i]
        ax.fill_between(
            steps,
            line - half_band,
            line + half_band,
            color=colour,
            alpha=0.2,
            linewidth=0,
        )
        ax.plot(steps, line, color=colour, linewidth=1, label=label)
        ax.plot(steps, dots, ".", color=colour, markersize=4)


def schedules(
    named: Mapping[str, NDArray],
    states: Mapping[str, Sequence[NDArray]],
    moments: Sequence[int],
) -> Figure:
    """Draw schedules on one sheet: signal amplitude, log-SNR, and the same points under each.

    Args:
        named: named[name] is alpha_bar (T + 1,), beginning with 1 for clean data.
        states: states[name][i] are points (N, 2) after moments[i] forward steps.
        moments: numbers of forward steps.
    """
    rows_height = SCHEDULES_ROW * len(named)
    figure = Figure(figsize=(12, SCHEDULES_TOP + rows_height), layout="constrained")
    halves = figure.add_gridspec(2, 1, height_ratios=[SCHEDULES_TOP, rows_height])
    top = figure.add_subfigure(halves[0])
    bottom = figure.add_subfigure(halves[1])

    signal, log_snr = top.subplots(1, 2)
    for i, (name, alpha_bar) in enumerate(named.items()):
        _schedule_curves(signal, log_snr, i, name, alpha_bar)
    signal.set(
        title="signal amplitude in x_t (1: clean data)",
        xlabel="forward steps",
        xlim=(0, None),
    )
    log_snr.set(title="log signal-to-noise ratio", xlabel="forward steps", xlim=(0, None))
    handles, names = signal.get_legend_handles_labels()
    top.legend(handles, names, loc="outside lower center", ncols=2, frameon=False, fontsize="small")

    bottom.suptitle(
        "the same points with the same noise under each schedule; noise 0: clean data, noise 1: pure noise",
        fontsize="medium",
    )
    axes = bottom.subplots(len(named), len(moments), sharex=True, sharey=True, squeeze=False)
    for row, (name, clouds) in zip(axes, states.items()):
        row[0].set_ylabel(name.replace(", ", "\n"))
        for ax, cloud, step in zip(row, clouds, moments):
            sigma = np.sqrt(1 - named[name][step])
            title = f"step {step}, noise {sigma:.2f}"
            _points(ax, cloud, hex_colour(noise_colours(sigma)), title)
            ax.title.set_fontsize("small")
    return figure


def _schedule_curves(signal: Axes, log_snr: Axes, i: int, name: str, alpha_bar: NDArray) -> None:
    """Draw the signal amplitude and the log-SNR of schedule number i, where the latter is finite.

    Later curves are thinner and have longer gaps, so that they show those on which they lie.
    """
    steps = np.arange(len(alpha_bar))
    amplitude = np.sqrt(alpha_bar)
    look = {
        "color": ink() if name in SCHEDULES_ON_ANOTHER else f"C{i}",
        "linewidth": SCHEDULE_WIDTHS[min(i, len(SCHEDULE_WIDTHS) - 1)],
        "linestyle": SCHEDULE_LINES[i % len(SCHEDULE_LINES)],
    }
    signal.plot(steps, amplitude, label=f"{name}: {amplitude[-1]:.1%} signal at the end", **look)
    finite = (alpha_bar > 0) & (alpha_bar < 1)
    ratio = alpha_bar[finite] / (1 - alpha_bar[finite])
    log_snr.plot(steps[finite], np.log(ratio), label=name, **look)


# ---------------------------------------------------------------- points on axes


def _points(
    ax,
    points: NDArray,
    colour: str,
    title: str,
    aspect: str = "equal",
    labels: NDArray | None = None,
) -> None:
    """Draw points (N, d) in one colour, or in that of their labels; as many coordinates as axes."""
    size = float(np.clip(4000 / len(points), 0.5, 12))
    shown = points[:, : 3 if ax.name == "3d" else 2]
    draw_points(ax, shown, colour, labels, size)
    ax.set(title=title, aspect=aspect)
    ax.grid(alpha=0.2)
