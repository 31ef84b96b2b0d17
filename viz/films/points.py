"""The film of processes of points, side by side; those in three dimensions turn once."""

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from metrics.scene import HELD_S, LASTS_S, Process, Scene, checked_points
from viz.colours import DATA, hex_colour, noise_colours
from viz.films.moments import noise_words, playing
from viz.style import ink
from viz.turning import seen

FRAMES_PER_S, COLOURS = 10, 64
TITLES = {"forward": "forward: data to noise", "reverse": "reverse: noise to data"}
WIDTH, DPI = 480, 80  # pixels
MOST_POINTS = 600  # drawn of each set: more of them only blacken a picture this small
MARKERS = "o^sDvP*X"  # of labels


def painter(scene: Scene) -> Callable[[float], NDArray[np.uint8]]:
    """The picture (H, W, 3) after so many seconds."""
    processes = [p._replace(states=checked_points(p.states)) for p in scene.processes]
    figure, axes = _stage(scene, processes)
    canvas = FigureCanvasAgg(figure)
    data = [ax.scatter([], [], s=2, color=hex_colour(DATA), linewidths=0, zorder=0) for ax in axes]
    groups = [_groups(scene, process.side) for process in processes]
    dots = [
        [ax.scatter([], [], s=7 if m == "o" else 12, linewidths=0, marker=m) for m, _ in of]
        for ax, of in zip(axes, groups)
    ]
    texts = [ax.text(0.02, 0.02, "", transform=ax.transAxes, fontsize=8) for ax in axes]
    canvas.draw()
    figure.set_layout_engine("none")  # once is enough, and it is most of the work

    def picture(seconds: float) -> NDArray[np.uint8]:
        turn = 2 * np.pi * seconds / (LASTS_S + HELD_S)
        for process, of, clouds, text, grey in zip(processes, groups, dots, texts, data):
            i = playing(scene, process, seconds)
            colour = hex_colour(noise_colours(scene.noise(process.steps[i])))
            for (_, rows), cloud in zip(of, clouds):
                cloud.set_offsets(seen(process.states[i, rows], turn))
                cloud.set_color(colour)
            if scene.data is not None:
                grey.set_offsets(seen(scene.data[:MOST_POINTS], turn))
            text.set_text(noise_words(int(process.steps[i])))
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()

    return picture


def _groups(scene: Scene, side: str) -> list[tuple[str, NDArray | slice]]:
    """Which rows are drawn with which marker: generated samples by their label, if they have any."""
    if scene.labels is None or side == "forward":
        return [("o", slice(MOST_POINTS))]
    labels = scene.labels[:MOST_POINTS]
    return [(MARKERS[k % len(MARKERS)], np.flatnonzero(labels == k)) for k in np.unique(labels)]


def _stage(scene: Scene, processes: list[Process]) -> tuple[Figure, list[Axes]]:
    """Axes for each process, with its title, and the labels' markers."""
    height = 280 if len(processes) > 1 else 440
    figure = Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, layout="constrained")
    axes = figure.subplots(1, len(processes), sharex=True, sharey=True, squeeze=False)[0]
    far = [np.linalg.norm(p.states, axis=-1) if scene.dim == 3 else np.abs(p.states) for p in processes]
    reach = 1.05 * max(float(np.quantile(each, 0.9995)) for each in far)
    for ax, process in zip(axes, processes):
        steered = f"\n{scene.steered}" if process.side == "reverse" and scene.steered else ""
        ax.set_title(TITLES[process.side] + steered, fontsize=10)
        ax.set(aspect="equal", xlim=(-reach, reach), ylim=(-reach, reach))
        ax.tick_params(labelsize=8, labelbottom=scene.dim == 2, labelleft=scene.dim == 2)
        ax.grid(alpha=0.2)
        if process.side == "reverse" and scene.labels is not None:
            asked = np.unique(scene.labels)[: len(MARKERS)]
            names = [(MARKERS[k % len(MARKERS)], f"label {scene.classes[k]}") for k in asked]
            keys = [Line2D([], [], marker=m, linestyle="", markersize=4, color=ink(), label=name) for m, name in names]
            ax.legend(handles=keys, fontsize=7, loc="upper right", framealpha=0.6, handletextpad=0.1)
    return figure, list(axes)
