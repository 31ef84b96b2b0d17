"""Stills, drawn with matplotlib. Every function returns a Figure; `save` writes it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from runtime.whole_file import whole_file
from viz.colours import DATA, ERROR, GENERATED, hex_colour, noise_colours

GREY, BLUE, PURPLE = hex_colour(DATA), hex_colour(GENERATED), hex_colour(ERROR)


def save(figure: Figure, path: str | Path) -> Path:
    """Write a picture (the folder is made where it is missing) and return its path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        figure.savefig(file, dpi=120, format=path.suffix.lstrip(".") or None)
    return path


def scatter(points: NDArray, title: str) -> Figure:
    """Points (N, d), alone."""
    figure = Figure(figsize=(5, 4), layout="constrained")
    _points(_subplots(figure, 1, 1, d=points.shape[1])[0, 0], points, hex_colour(noise_colours(0)), title)
    return figure


def samples(generated: NDArray, real: NDArray) -> Figure:
    """Generated points (N, d) beside as many real ones, on the same axes."""
    figure = Figure(figsize=(9, 3.3), layout="constrained")
    left, right = _subplots(figure, 1, 2, d=real.shape[1])[0]
    _points(left, generated, BLUE, f"generated ({len(generated):,})")
    _points(right, real, GREY, f"real ({len(real):,})")
    margin = np.where(np.ptp(real, 0) > 0, 0.2 * np.ptp(real, 0), 1)
    low, high = real.min(0) - margin, real.max(0) + margin
    for ax in (left, right):
        _limit(ax, low, high)
    if outside := int(((generated < low) | (generated > high)).any(1).sum()):
        left.set_xlabel(f"{outside} points lie outside of this picture")
    return figure


def forward_strip(states: Sequence[NDArray], steps: Sequence[int], noise: NDArray) -> Figure:
    """The forward process at a few moments, the last of them T: states[i] (N, d) after steps[i] forward steps.

    noise: sigma of each, (S,), which gives the colour.
    """
    figure = Figure(figsize=(2.6 * len(states), 2.9), layout="constrained")
    axes = _subplots(figure, 1, len(states), d=states[0].shape[1])[0]
    low, high = np.min([s.min(0) for s in states], 0), np.max([s.max(0) for s in states], 0)
    for ax, state, step, sigma in zip(axes, states, steps, noise):
        _limit(ax, low, high)
        _points(ax, state, hex_colour(noise_colours(sigma)), f"step {step}: {sigma:.0%} noise")
    figure.suptitle(f"forward process: clean data after 0, pure noise after {steps[-1]} forward steps")
    return figure


def schedule(betas: NDArray, alphas_cumprod: NDArray) -> Figure:
    """What the schedule does: signal and noise amplitude, and beta, over the number of forward steps."""
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
    left.set(title="amplitudes in x_t", xlabel="forward steps", ylim=(-0.02, 1.05))
    left.legend(frameon=False)
    right.plot(steps[1:], betas, color=BLUE)
    right.set(title=r"variance added at each step, $\beta_t$", xlabel="forward steps", ylim=(0, None))
    return figure


def losses(runs: Mapping[str, Mapping[str, NDArray]], excesses: Mapping[str, Mapping[str, NDArray]] = {}) -> Figure:
    """Training losses on a log axis, raw faint and smoothed strong; where the exact distribution is known,
    the Bayes floor and, on an axis of its own, the excess over it (dashed).

    runs[name] holds arrays "step" and "loss"; excesses[name], where there is one, "step", "excess" and "floor".
    """
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    ax = figure.subplots()
    over = ax.twinx() if excesses else None
    for i, (name, run) in enumerate(runs.items()):
        ax.plot(run["step"], run["loss"], color=f"C{i}", alpha=0.25, linewidth=0.7)
        ax.plot(run["step"], smoothed(run["loss"]), color=f"C{i}", linewidth=2, label=name)
        if over and (e := excesses.get(name)):
            ax.axhline(e["floor"][0], color=f"C{i}", linestyle=":", label=f"Bayes floor {e['floor'][0]:.4f}")
            over.plot(e["step"], e["excess"], color=f"C{i}", linestyle="--", label="excess (right axis)")
    ax.set(yscale="log", xlabel="optimizer step", ylabel="mean squared error", title="training loss")
    ax.yaxis.set_minor_formatter("{x:.3g}")
    ax.yaxis.set_major_formatter("{x:.3g}")
    ax.grid(alpha=0.3, which="both")
    lines = ax.get_lines()[1:]
    if over:
        over.set(yscale="log", ylabel="excess over the Bayes floor")
        lines += over.get_lines()
    ax.legend(handles=[line for line in lines if not str(line.get_label()).startswith("_")], frameon=False)
    return figure


def timesteps(steps: NDArray, floor: NDArray, excess: NDArray, history: Mapping[str, NDArray] | None) -> Figure:
    """Where the error is: loss at each step of the process against its floor, and the excess over training time.

    steps, floor, excess: (K,); history holds "step" (S,), "timesteps" (K',) and "by_t" (S, K').
    """
    figure = Figure(figsize=(9, 6 if history else 3.4), layout="constrained")
    axes = figure.subplots(2 if history else 1, 1, squeeze=False)[:, 0]
    axes[0].plot(steps, floor + excess, color=BLUE, linewidth=2, label="network")
    axes[0].plot(steps, floor, color="black", linestyle=":", label="Bayes floor: no network can do better")
    axes[0].fill_between(steps, excess, color=PURPLE, alpha=0.5, label="excess: what is left to learn")
    axes[0].set(
        title=r"error of $\epsilon$ at each step of the process",
        xlabel="forward steps",
        ylabel="mean squared error",
        yscale="log",
        ylim=(max(1e-6, excess.min() / 2), 1.5),
    )
    axes[0].legend(frameon=False)
    axes[0].grid(alpha=0.3)
    if history:
        strip = axes[1].pcolormesh(
            history["step"], history["timesteps"] + 1, history["by_t"].T, norm="log", cmap="magma", shading="nearest"
        )
        axes[1].set(title="excess over training time", xlabel="optimizer step", ylabel="forward steps", xscale="log")
        figure.colorbar(strip, ax=axes[1], label="excess")
    return figure


def score_fields(fields: Sequence[Mapping[str, NDArray]]) -> Figure:
    """Network's score, exact score and their difference over the data's log-density, one column a step.

    Each mapping holds "step", "x" and "y" (n,), "log_density" (n, n), and the arrows "network", "exact" (n, n, 2).
    """
    figure = Figure(figsize=(3.1 * len(fields), 8.6), layout="constrained")
    axes = figure.subplots(3, len(fields), sharex=True, sharey=True, squeeze=False)
    for column, f in zip(axes.T, fields):
        longest = np.quantile(np.linalg.norm(f["exact"], axis=-1), 0.9)
        error = f["network"] - f["exact"]
        weight = np.exp(f["log_density"])[..., None]  # what happens far from all points does not count
        share = np.sqrt((weight * error**2).sum() / (weight * f["exact"] ** 2).sum())
        rows = [
            (f["network"], f"step {f['step']}: network's score", BLUE),
            (f["exact"], "exact score", "black"),
            (error, f"difference: {share:.1%} where x_t is", PURPLE),
        ]
        for ax, (arrows, title, colour) in zip(column, rows):
            shown = np.clip(f["log_density"], f["log_density"].max() - 12, None)
            ax.contourf(f["x"], f["y"], shown, levels=12, cmap="Greys", alpha=0.6)
            skip = (slice(None, None, 3), slice(None, None, 3))
            ax.quiver(
                f["x"][::3], f["y"][::3], *np.moveaxis(arrows[skip], -1, 0),
                color=colour, scale=longest * 14, width=0.006,
            )  # fmt: skip
            ax.set(title=title, aspect="equal")
    figure.suptitle("score (gradient of log-density) in normalised units; grey: log-density of x_t")
    return figure


def forward_statistics(steps: NDArray, measured: Mapping[str, NDArray], theory: Mapping[str, NDArray]) -> Figure:
    """Statistics of the forward process at each step, measured (dots) against theory (lines).

    Both hold "mean" and "variance" (S, d), "snr" (S,) and "kl" (S,); theory also "snr_floor" and "kl_floor", what
    as many points of pure noise would seem to have.
    """
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    axes = dict(zip(("mean", "variance", "snr", "kl"), figure.subplots(2, 2, sharex=True).flat))
    titles = {
        "mean": "mean of each coordinate",
        "variance": "variance of each coordinate",
        "snr": "signal-to-noise ratio",
        "kl": "KL from N(0, I), in nats",
    }
    for key, ax in axes.items():
        for i, (dots, line) in enumerate(zip(np.atleast_2d(measured[key].T), np.atleast_2d(theory[key].T))):
            coordinate = f" ({'xyz'[i]})" if key in ("mean", "variance") and i < 3 else ""
            ax.plot(steps, dots, ".", color=f"C{i}", markersize=4, label=f"measured{coordinate}")
            ax.plot(steps, line, color=f"C{i}", linewidth=1, label=f"theory{coordinate}")
        ax.set(title=titles[key], xlabel="forward steps")
        ax.grid(alpha=0.3)
    for key in ("snr", "kl"):
        floor = theory[f"{key}_floor"]
        axes[key].axhspan(floor / 1e3, floor, color=GREY, alpha=0.3, label="indistinguishable from 0 at this n")
        axes[key].set(yscale="log", ylim=(floor / 30, None))
        axes[key].legend(frameon=False, fontsize="small")
    axes["mean"].legend(frameon=False, fontsize="small")
    figure.suptitle("the forward process: measured against theory")
    return figure


def schedules(named: Mapping[str, NDArray], states: Mapping[str, Sequence[NDArray]], moments: Sequence[int]) -> Figure:
    """Schedules on one sheet: signal amplitude, log-SNR, and the same points under each.

    named[name] is alpha-bar (T,); states[name][i] are points (N, 2) after moments[i] forward steps.
    """
    figure = Figure(figsize=(11, 3.2 + 2.0 * len(named)), layout="constrained")
    halves = figure.add_gridspec(2, 1, height_ratios=[3.2, 2.0 * len(named)])
    top, bottom = figure.add_subfigure(halves[0]), figure.add_subfigure(halves[1])
    signal, log_snr = top.subplots(1, 2)
    for name, alpha_bar in named.items():
        steps = np.arange(1, len(alpha_bar) + 1)
        signal.plot(steps, np.sqrt(alpha_bar), label=f"{name}: {np.sqrt(alpha_bar[-1]):.1%} left at T")
        log_snr.plot(steps, np.log(alpha_bar / (1 - alpha_bar)), label=name)
    signal.set(title=r"signal amplitude $\sqrt{\bar\alpha_t}$", xlabel="forward steps")
    log_snr.set(title="log signal-to-noise ratio", xlabel="forward steps")
    signal.legend(frameon=False, fontsize="small")
    axes = bottom.subplots(len(named), len(moments), sharex=True, sharey=True, squeeze=False)
    for row, (name, clouds) in zip(axes, states.items()):
        for ax, cloud, step in zip(row, clouds, moments):
            sigma = np.sqrt(1 - named[name][step - 1])
            _points(ax, cloud, hex_colour(noise_colours(sigma)), f"{name}, step {step}")
            ax.title.set_fontsize("small")
    return figure


def smoothed(values: NDArray, share: float = 0.02) -> NDArray:
    """A centred moving average over `share` of the series; at the ends, over the part that exists."""
    width = max(1, round(share * len(values)))
    kernel = np.ones(width)
    return np.convolve(values, kernel, "same") / np.convolve(np.ones(len(values)), kernel, "same")


def _subplots(figure: Figure, rows: int, columns: int, d: int) -> NDArray:
    """Axes (rows, columns) for points of d dimensions: 3D ones where d is 3."""
    return figure.subplots(rows, columns, squeeze=False, subplot_kw={"projection": "3d"} if d == 3 else {})


def _limit(ax, low: NDArray, high: NDArray) -> None:
    for set_limit, a, b in zip((ax.set_xlim, ax.set_ylim, getattr(ax, "set_zlim", None)), low, high):
        if set_limit:
            set_limit(a, b)


def _points(ax, points: NDArray, colour: str, title: str) -> None:
    """A cloud; of more than three coordinates the first two."""
    size = float(np.clip(4000 / len(points), 0.5, 12))
    shown = points.T[: 3 if ax.name == "3d" else 2]
    ax.scatter(*shown, s=size, color=colour, linewidths=0)
    ax.set(title=title, aspect="equal")
    ax.grid(alpha=0.2)
