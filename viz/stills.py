"""Stills, drawn with matplotlib. Every function returns a Figure; `save` writes it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from runtime.atomic_file import atomic_file
from viz.colours import CLASSES, DATA, ERROR, GENERATED, hex_colour, noise_colours

SCREEN_DPI, PRINT_DPI = 120, 300  # of a png; of the pixels in a pdf or svg
NOISE = r"noise: $\sigma / \sqrt{\alpha^2 + \sigma^2}$"  # in every process 0 of clean data and 1 of pure noise
GREY, BLUE, PURPLE = hex_colour(DATA), hex_colour(GENERATED), hex_colour(ERROR)


def save(figure: Figure, path: str | Path, formats: Sequence[str] = ()) -> Path:
    """Write a picture, in each of some formats in place of the suffix, and return the first path.

    The folder is made where it is missing.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    paths = [path.with_suffix(f".{name}") for name in formats] or [path]
    for each in paths:
        kind = each.suffix.lstrip(".").lower() or "png"
        with atomic_file(each) as file:
            figure.savefig(file, dpi=SCREEN_DPI if kind == "png" else PRINT_DPI, format=kind)
    return paths[0]


def scatter(points: NDArray, title: str) -> Figure:
    """Points (N, d), alone."""
    figure = Figure(figsize=(5, 4), layout="constrained")
    _points(_subplots(figure, 1, 1, d=points.shape[1])[0, 0], points, hex_colour(noise_colours(0)), title)
    return figure


def samples(
    generated: NDArray,
    real: NDArray,
    labels: NDArray | None = None,
    real_labels: NDArray | None = None,
    classes: Sequence[str] = (),
    steered: str = "",
) -> Figure:
    """Generated points (N, d) beside as many real ones, on the same axes; with labels (N,) in a colour for each.

    steered: how they were guided, in words.
    """
    figure = Figure(figsize=(9, 3.3), layout="constrained")
    left, right = _subplots(figure, 1, 2, d=real.shape[1])[0]
    title = f"generated ({len(generated):,})" + (f", {steered}" if steered else "")
    sides = ((left, generated, labels, BLUE, title), (right, real, real_labels, GREY, f"real ({len(real):,})"))
    for ax, points, of, colour, title in sides:
        colours = colour if of is None else np.array(CLASSES)[of % len(CLASSES)]
        _points(ax, points, colours, title)
    if labels is not None:
        asked = np.unique(labels)[: len(CLASSES)]
        dots = [left.scatter([], [], s=20, color=CLASSES[k % len(CLASSES)], label=f"label {classes[k]}") for k in asked]
        figure.legend(handles=dots, loc="outside lower center", ncols=len(dots), frameon=False)
    margin = np.where(np.ptp(real, 0) > 0, 0.2 * np.ptp(real, 0), 1)
    low, high = real.min(0) - margin, real.max(0) + margin
    for ax in (left, right):
        _limit(ax, low, high)
    if outside := int(((generated < low) | (generated > high)).any(1).sum()):
        left.set_xlabel(f"{outside} points lie outside of this picture")
    return figure


def forward_strip(states: Sequence[NDArray], steps: Sequence[int], noise: NDArray) -> Figure:
    """The forward process at a few moments, the last of them T: states[i] (N, d) after steps[i] forward steps.

    noise: of each, sigma / sqrt(alpha^2 + sigma^2), (S,), which gives the colour.
    """
    figure = Figure(figsize=(2.6 * len(states), 3.2), layout="constrained")
    axes = _subplots(figure, 1, len(states), d=states[0].shape[1])[0]
    low, high = np.min([s.min(0) for s in states], 0), np.max([s.max(0) for s in states], 0)
    for ax, state, step, sigma in zip(axes, states, steps, noise):
        _limit(ax, low, high)
        _points(ax, state, hex_colour(noise_colours(sigma)), f"step {step}, noise {sigma:.2f}")
    figure.suptitle(
        f"forward process: clean data after 0, pure noise after {steps[-1]} forward steps; even in log-SNR; {NOISE}"
    )
    return figure


def schedule(alpha: NDArray, sigma: NDArray, fresh: NDArray) -> Figure:
    """What the schedule does: signal and noise amplitude, and the variance `fresh` of each step's noise, all (T,)."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    steps = np.arange(len(alpha) + 1)
    left.plot(steps, [1, *alpha], color=hex_colour(noise_colours(0)), label=r"signal $\alpha_t$")
    left.plot(steps, [0, *sigma], color=hex_colour(noise_colours(1)), label=r"noise $\sigma_t$")
    left.set(title="amplitudes in x_t", xlabel="forward steps", ylim=(-0.02, 1.05))
    left.legend(frameon=False)
    right.plot(steps[1:], fresh, color=BLUE)
    right.set(title=r"variance added at each step, $\beta_t$", xlabel="forward steps", ylim=(0, None))
    return figure


def forward_statistics(steps: NDArray, measured: Mapping[str, NDArray], theory: Mapping[str, NDArray]) -> Figure:
    """Statistics of the forward process at each step, measured (dots) against theory (lines) with its sampling band.

    Both hold "mean" and "variance" (S, d), "snr" (S,) and "kl" (S,); theory also the standard deviation of each over
    draws of the noise, "mean_sd" and so on, and "snr_floor" and "kl_floor", what as many points of pure noise would
    seem to have.
    """
    figure = Figure(figsize=(10, 7), layout="constrained")
    axes = dict(zip(("mean", "variance", "snr", "kl"), figure.subplots(2, 2, sharex=True).flat))
    titles = {
        "mean": "mean of each coordinate",
        "variance": "variance of each coordinate",
        "snr": "signal-to-noise ratio",
        "kl": "KL from N(0, I), in nats",
    }
    for key, ax in axes.items():
        spread = np.atleast_2d(theory[f"{key}_sd"].T)
        for i, (dots, line) in enumerate(zip(np.atleast_2d(measured[key].T), np.atleast_2d(theory[key].T))):
            colour = f"C{i}" if key in ("mean", "variance") else BLUE
            ax.fill_between(
                steps, line - 1.96 * spread[i], line + 1.96 * spread[i], color=colour, alpha=0.2, linewidth=0
            )
            ax.plot(steps, line, color=colour, linewidth=1, label="xyz"[i] if colour[0] == "C" and i < 3 else None)
            ax.plot(steps, dots, ".", color=colour, markersize=4)
        ax.set(title=titles[key], xlim=(0, None))
        ax.set_xlabel("forward steps" if key in ("snr", "kl") else "")
        ax.grid(alpha=0.3)
    for key in ("snr", "kl"):
        floor = theory[f"{key}_floor"]
        axes[key].axhspan(floor / 1e3, floor, color=GREY, alpha=0.3, label="indistinguishable from 0 at this n")
        axes[key].set(yscale="log", ylim=(floor / 30, None))
        axes[key].legend(frameon=False, fontsize="small", loc="upper right")
    axes["mean"].legend(frameon=False, fontsize="small")
    figure.suptitle("the forward process: measured (dots), theory (lines), and where 95 % of such dots lie (bands)")
    return figure


def schedules(named: Mapping[str, NDArray], states: Mapping[str, Sequence[NDArray]], moments: Sequence[int]) -> Figure:
    """Schedules on one sheet: signal amplitude, log-SNR, and the same points under each.

    named[name] is alpha-bar (T + 1,), from the clean data on; states[name][i] are points (N, 2) after moments[i] steps.
    """
    figure = Figure(figsize=(12, 3.4 + 2.0 * len(named)), layout="constrained")
    halves = figure.add_gridspec(2, 1, height_ratios=[3.4, 2.0 * len(named)])
    top, bottom = figure.add_subfigure(halves[0]), figure.add_subfigure(halves[1])
    signal, log_snr = top.subplots(1, 2)
    for name, alpha_bar in named.items():
        steps = np.arange(len(alpha_bar))
        signal.plot(steps, np.sqrt(alpha_bar), label=f"{name}: {np.sqrt(alpha_bar[-1]):.1%} left")
        known = (alpha_bar > 0) & (alpha_bar < 1)
        log_snr.plot(steps[known], np.log(alpha_bar[known] / (1 - alpha_bar[known])), label=name)
    signal.set(title="signal amplitude in x_t at variance 1", xlabel="forward steps", xlim=(0, None))
    log_snr.set(title="log signal-to-noise ratio", xlabel="forward steps", xlim=(0, None))
    signal.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    bottom.suptitle(f"the same points with the same noise; {NOISE}", fontsize="medium")
    axes = bottom.subplots(len(named), len(moments), sharex=True, sharey=True, squeeze=False)
    for row, (name, clouds) in zip(axes, states.items()):
        for ax, cloud, step in zip(row, clouds, moments):
            sigma = np.sqrt(1 - named[name][step])
            _points(ax, cloud, hex_colour(noise_colours(sigma)), f"step {step}, noise {sigma:.2f}")
            ax.title.set_fontsize("small")
        row[0].set_ylabel(name.replace(", ", "\n"))
    return figure


def _subplots(figure: Figure, rows: int, columns: int, d: int) -> NDArray:
    """Axes (rows, columns) for points of d dimensions: 3D ones where d is 3."""
    return figure.subplots(rows, columns, squeeze=False, subplot_kw={"projection": "3d"} if d == 3 else {})


def _limit(ax, low: NDArray, high: NDArray) -> None:
    for set_limit, a, b in zip((ax.set_xlim, ax.set_ylim, getattr(ax, "set_zlim", None)), low, high):
        if set_limit:
            set_limit(a, b)


def _points(ax, points: NDArray, colour: str | NDArray, title: str) -> None:
    """A cloud of one colour, or of one for each point; of more than three coordinates the first two."""
    size = float(np.clip(4000 / len(points), 0.5, 12))
    shown = points.T[: 3 if ax.name == "3d" else 2]
    ax.scatter(*shown, s=size, color=colour, linewidths=0, rasterized=True)
    ax.set(title=title, aspect="equal")
    ax.grid(alpha=0.2)
