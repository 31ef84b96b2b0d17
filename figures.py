"""Stills, drawn with matplotlib. Every function returns a Figure; `save` writes it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from palette import DATA, GENERATED, hex_colour, noise_colours

GREY, ORANGE, BLUE = hex_colour(DATA), hex_colour(GENERATED), "#2f6db5"


def save(figure: Figure, path: str | Path) -> Path:
    """Write a picture (the folder is made where it is missing) and return its path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path


def scatter(points: NDArray, title: str) -> Figure:
    """Points (N, 2), alone."""
    figure = Figure(figsize=(5, 4), layout="constrained")
    _points(figure.subplots(), points, hex_colour(noise_colours(0)), title)
    return figure


def samples(generated: NDArray, real: NDArray) -> Figure:
    """Generated points (N, 2) beside as many real ones, on the same axes."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    _points(left, generated, ORANGE, f"generated ({len(generated):,})")
    _points(right, real, GREY, f"real ({len(real):,})")
    spread = real.max(0) - real.min(0)
    left.set_xlim(real[:, 0].min() - 0.2 * spread[0], real[:, 0].max() + 0.2 * spread[0])
    left.set_ylim(real[:, 1].min() - 0.2 * spread[1], real[:, 1].max() + 0.2 * spread[1])
    if outside := int((np.abs(generated - real.mean(0)) > 0.7 * spread).any(1).sum()):
        left.set_xlabel(f"{outside} points lie outside of this picture")
    return figure


def forward_strip(states: Sequence[NDArray], steps: Sequence[int], num_timesteps: int) -> Figure:
    """The forward process at a few moments: states[i] (N, 2) after steps[i] noisings."""
    figure = Figure(figsize=(2.6 * len(states), 2.9), layout="constrained")
    axes = figure.subplots(1, len(states), sharex=True, sharey=True)
    for ax, state, step in zip(axes, states, steps):
        _points(ax, state, hex_colour(noise_colours(step / num_timesteps)), f"step {step}")
    figure.suptitle(f"forward process: clean data after 0, pure noise after {num_timesteps} noisings")
    return figure


def schedule(betas: NDArray, alphas_cumprod: NDArray) -> Figure:
    """What the schedule does: signal and noise amplitude, and beta, over the number of noisings."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    steps = np.arange(len(betas) + 1)
    alpha_bar = np.concatenate([[1.0], alphas_cumprod])
    left.plot(steps, np.sqrt(alpha_bar), color=hex_colour(noise_colours(0)), label=r"signal $\sqrt{\bar\alpha_t}$")
    left.plot(
        steps,
        np.sqrt(1 - alpha_bar),
        color=hex_colour(noise_colours(1)),
        label=r"noise $\sqrt{1-\bar\alpha_t}$",
    )
    left.set(title="amplitudes in x_t", xlabel="step (number of noisings)", ylim=(-0.02, 1.05))
    left.legend(frameon=False)
    right.plot(steps[1:], betas, color=BLUE)
    right.set(title=r"variance added at each step, $\beta_t$", xlabel="step (number of noisings)", ylim=(0, None))
    return figure


def losses(runs: Mapping[str, Mapping[str, NDArray]]) -> Figure:
    """Training losses on one log axis, raw faint and smoothed strong; runs[name] holds arrays "step" and "loss"."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    ax = figure.subplots()
    for i, (name, run) in enumerate(runs.items()):
        ax.plot(run["step"], run["loss"], color=f"C{i}", alpha=0.25, linewidth=0.7)
        ax.plot(run["step"], smoothed(run["loss"]), color=f"C{i}", linewidth=2, label=name)
    ax.set(
        yscale="log",
        xlabel="optimizer step",
        ylabel=r"mean squared error of $\epsilon$",
        title="training loss",
    )
    ax.yaxis.set_minor_formatter("{x:.3g}")
    ax.yaxis.set_major_formatter("{x:.3g}")
    ax.grid(alpha=0.3, which="both")
    ax.legend(frameon=False)
    return figure


def smoothed(values: NDArray, share: float = 0.02) -> NDArray:
    """A centred moving average over `share` of the series; at the ends, over the part that exists."""
    width = max(1, round(share * len(values)))
    kernel = np.ones(width)
    return np.convolve(values, kernel, "same") / np.convolve(np.ones(len(values)), kernel, "same")


def _points(ax, points: NDArray, colour: str, title: str) -> None:
    size = float(np.clip(4000 / len(points), 0.5, 12))
    ax.scatter(points[:, 0], points[:, 1], s=size, color=colour, linewidths=0)
    ax.set(title=title, aspect="equal")
    ax.grid(alpha=0.2)
