"""The film of processes of points beside each other: a small GIF, or a 1920x1080 MP4 with tails.

Points in three dimensions turn once around.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from viz.colours import DATA, TRACKED, hex_colour, noise_colours
from viz.films.film_files import Frame
from viz.films.film_moments import between, noise_words, playing
from viz.scene import HELD_S, LASTS_S, Process, Scene, checked_points
from viz.style import ink
from viz.turning import seen

TITLES = {"forward": "forward: data to noise", "reverse": "reverse: noise to data"}
RINGS = "some samples, and rings where the network\npredicts that they will end"
MARKERS = "o^sDvP*X"  # of labels
COLOURS = 64  # of a GIF's palette
QUANTILE = 0.9995  # share of the points that lie within the axes

TAILS = 300  # points that have a tail
TAIL_S = 0.7  # a tail shows where its point was during so many seconds,
PIECES = 6  # in so many pieces

BAR = 0.3  # length of the bar at full noise, as a share of a panel's width


class Look(NamedTuple):
    """How a film looks.

    Attributes:
        size: width and height in inches.
        dpi: pixels per inch.
        frames_per_s: frames per second.
        most_points: points of a set, at most; a small picture would turn black with more.
        smooth: whether there is a frame for every moment, also between states, and tails.
    """

    size: tuple[float, float]
    dpi: int
    frames_per_s: int
    most_points: int
    smooth: bool


LOOKS = {
    ".gif": Look((6, 3.5), dpi=80, frames_per_s=10, most_points=600, smooth=False),
    ".mp4": Look((32 / 3, 6), dpi=180, frames_per_s=30, most_points=1500, smooth=True),
}
SINGLE_HEIGHT = 5.5  # inches: the height of a GIF of one process


class Panel(NamedTuple):
    """One process of a scene, under a title."""

    scene: Scene
    process: Process
    title: str


def panels_of(scene: Scene) -> list[Panel]:
    """Return a panel for each process of a scene.

    Raises:
        ValueError: the states are no finite points of 2 or 3 coordinates.
    """
    panels = []
    for process in scene.processes:
        checked = process._replace(states=checked_points(process.states))
        title = TITLES[process.side] + _guidance_line(scene, process)
        panels.append(Panel(scene, checked, title))
    return panels


def reverse_panel(title: str, scene: Scene) -> Panel:
    """Return a panel for the reverse process of a scene, under another title.

    Raises:
        ValueError: there is no reverse process, or it is not of points.
    """
    if scene.of_images or scene.processes[-1].side != "reverse":
        raise ValueError(f"{title} holds no reverse process of points: save one by inference.py save_trajectory=true")
    panel = panels_of(scene)[-1]
    return panel._replace(title=title + _guidance_line(scene, panel.process))


def _guidance_line(scene: Scene, process: Process) -> str:
    """Return the line of a title that says how a reverse process was guided, if it was."""
    if process.side == "reverse" and scene.guidance_text:
        return f"\n{scene.guidance_text}"
    return ""


# ---------------------------------------------------------------- frames


def frames(panels: Sequence[Panel], look: Look) -> Iterator[Frame]:
    """Yield the frames of a film of LASTS_S and HELD_S seconds.

    There is a frame where a state begins, or one for every moment; the last is held.
    """
    rate = look.frames_per_s
    picture = painter(panels, look)
    end = round((LASTS_S + HELD_S) * rate)
    for frame, next_frame in pairwise([*_frame_numbers(panels, look), end]):
        yield picture(frame / rate), next_frame - frame


def _frame_numbers(panels: Sequence[Panel], look: Look) -> list[int]:
    """Return the numbers of the frames to draw, rising."""
    rate = look.frames_per_s
    if panels[0].scene.dim == 3:  # the points turn until the end
        return list(range(round((LASTS_S + HELD_S) * rate)))
    if look.smooth:
        return list(range(round(LASTS_S * rate) + 1))
    numbers = set()
    for panel in panels:
        for second in panel.scene.seconds(panel.process):
            numbers.add(round(rate * float(second)))
    return sorted(numbers)


def painter(panels: Sequence[Panel], look: Look) -> Callable[[float], NDArray[np.uint8]]:
    """Return a function of the second that gives the picture (H, W, 3)."""
    figure, axes = _stage(panels, look)
    canvas = FigureCanvasAgg(figure)
    movers: list[Mover] = []
    for ax, panel in zip(axes, panels):
        movers += _movers(ax, panel, look)
    canvas.draw()
    figure.set_layout_engine("none")  # the layout stays, and computing it takes most of the time

    def picture(second: float) -> NDArray[np.uint8]:
        for move in movers:
            move(second)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()

    return picture


# ---------------------------------------------------------------- what moves in a panel

Mover = Callable[[float], None]  # moves something to its place at a given second
At = Callable[[NDArray, float], NDArray]  # values of all states (S, ...), second -> values (...)


def _movers(ax: Axes, panel: Panel, look: Look) -> list[Mover]:
    """Draw everything that moves in a panel, and return the functions that move it."""
    scene, process, _ = panel
    seconds = scene.seconds(process)

    def at(of: NDArray, second: float) -> NDArray:
        if look.smooth:
            return between(seconds, of, second)
        return of[playing(scene, process, second)]

    movers = [_clouds(ax, panel, at, look.most_points), _noise_bar(ax, panel, at)]
    if look.smooth:
        movers.append(_tails(ax, panel, at))
    if scene.predictions is not None and process.side == "reverse":
        movers.append(_predictions(ax, scene.predictions, at))
    return movers


def _clouds(ax: Axes, panel: Panel, at: At, most: int) -> Mover:
    """Draw the points in the colour of their noise, above clean data in grey."""
    scene, process, _ = panel
    grey = ax.scatter([], [], s=2, color=hex_colour(DATA), linewidths=0, zorder=0)
    clouds = []
    for marker, rows in _groups(scene, process.side, most):
        size = 7 if marker == "o" else 12
        cloud = ax.scatter([], [], s=size, linewidths=0, marker=marker, zorder=2)
        clouds.append((rows, cloud))

    def move(second: float) -> None:
        points = at(process.states, second)
        colour = _colour(panel, at, second)
        for rows, cloud in clouds:
            cloud.set_offsets(_turned(points[rows], second))
            cloud.set_color(colour)
        if scene.data is not None:
            grey.set_offsets(_turned(scene.data[:most], second))

    return move


def _groups(scene: Scene, side: str, most: int) -> list[tuple[str, NDArray | slice]]:
    """Return (marker, rows) for each label of generated samples; else one marker for all rows."""
    if scene.labels is None or side == "forward":
        return [("o", slice(most))]
    labels = scene.labels[:most]
    groups = []
    for label in np.unique(labels):
        groups.append((MARKERS[label % len(MARKERS)], np.flatnonzero(labels == label)))
    return groups


def _tails(ax: Axes, panel: Panel, at: At) -> Mover:
    """Draw where the first points have been, fainter the longer ago."""
    pieces = []
    for alpha in np.linspace(0.5, 0.1, PIECES):
        pieces += ax.plot([], [], linewidth=0.6, alpha=alpha, zorder=1)

    def move(second: float) -> None:
        colour = _colour(panel, at, second)
        places = []
        for k in range(PIECES + 1):
            earlier = max(0.0, second - TAIL_S * k / PIECES)
            places.append(_turned(at(panel.process.states, earlier)[:TAILS], second))
        for piece, (begin, end) in zip(pieces, pairwise(places)):
            # One line with gaps takes a tenth of the time that many lines take.
            gap = np.full_like(begin, np.nan)
            piece.set_data(*np.stack([begin, end, gap], 1).reshape(-1, 2).T)
            piece.set_color(colour)

    return move


def _predictions(ax: Axes, predictions: tuple[NDArray, NDArray], at: At) -> Mover:
    """Draw a line from each tracked sample to a ring at the x_0 that the network predicts."""
    where, predicted = predictions
    cyan = hex_colour(TRACKED)
    lines = LineCollection([], linewidths=0.8, colors=cyan, zorder=3)
    ax.add_collection(lines, autolim=False)
    dots = ax.scatter([], [], s=11, color=cyan, linewidths=0, zorder=4)
    rings = ax.scatter(
        [],
        [],
        s=18,
        facecolors="none",
        edgecolors=cyan,
        linewidths=0.8,
        zorder=4,
    )

    def move(second: float) -> None:
        here = _turned(at(where, second), second)
        there = _turned(at(predicted, second), second)
        lines.set_segments([*np.stack([here, there], 1)])
        dots.set_offsets(here)
        rings.set_offsets(there)

    return move


def _noise_bar(ax: Axes, panel: Panel, at: At) -> Mover:
    """Draw the noise level in words, and as a bar that is full at sigma = 1."""
    words = ax.text(0.02, 0.055, "", transform=ax.transAxes, fontsize=7)
    place = {"xy": (0.02, 0.022), "height": 0.018, "transform": ax.transAxes}
    full = Rectangle(width=BAR, color=hex_colour(DATA), alpha=0.3, linewidth=0, **place)
    ax.add_patch(full)
    bar = Rectangle(width=0, linewidth=0, **place)
    ax.add_patch(bar)
    steps = panel.process.steps
    noise = panel.scene.noise(steps)

    def move(second: float) -> None:
        words.set_text(noise_words(round(float(at(steps, second)))))
        bar.set_width(BAR * float(at(noise, second)))
        bar.set_color(_colour(panel, at, second))

    return move


def _colour(panel: Panel, at: At, second: float) -> str:
    """Return the colour of the noise at that second."""
    noise = panel.scene.noise(panel.process.steps)
    return hex_colour(noise_colours(at(noise, second)))


def _turned(points: NDArray, second: float) -> NDArray:
    """Return the place (..., 2) of points at that second; those of three dimensions turn."""
    return seen(points, 2 * np.pi * second / (LASTS_S + HELD_S))


# ---------------------------------------------------------------- what does not move


def _stage(panels: Sequence[Panel], look: Look) -> tuple[Figure, list[Axes]]:
    """Return a figure with axes for each panel, with its title and legend."""
    width, height = look.size
    if len(panels) == 1 and not look.smooth:
        height = SINGLE_HEIGHT
    figure = Figure(figsize=(width, height), dpi=look.dpi, layout="constrained")
    axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    reach = _reach(panels)
    flat = panels[0].scene.dim == 2
    for ax, panel in zip(axes, panels):
        ax.set_title(panel.title, fontsize=10)
        ax.set(aspect="equal", xlim=(-reach, reach), ylim=(-reach, reach))
        ax.tick_params(labelsize=8, labelbottom=flat, labelleft=flat, bottom=flat, left=flat)
        ax.grid(alpha=0.2)
        if panel.process.side == "reverse":
            _explain(ax, panel.scene)
    return figure, list(axes)


def _reach(panels: Sequence[Panel]) -> float:
    """Return how far the axes reach from 0: nearly all points lie within, after every turn."""
    reaches = []
    for panel in panels:
        states = panel.process.states
        flat = panel.scene.dim == 2
        far = np.abs(states) if flat else np.linalg.norm(states, axis=-1)
        reaches.append(float(np.quantile(far, QUANTILE)))
    return 1.05 * max(reaches)


def _explain(ax: Axes, scene: Scene) -> None:
    """Add a legend of the labels' markers, and a text that says what the rings are."""
    if scene.labels is not None:
        keys = []
        for label in np.unique(scene.labels)[: len(MARKERS)]:
            keys.append(
                Line2D(
                    [],
                    [],
                    marker=MARKERS[label % len(MARKERS)],
                    linestyle="",
                    markersize=4,
                    color=ink(),
                    label=f"label {scene.classes[label]}",
                )
            )
        ax.legend(
            handles=keys,
            fontsize=7,
            loc="upper right",
            framealpha=0.6,
            handletextpad=0.1,
        )
    if scene.predictions is not None:
        cyan = hex_colour(TRACKED)
        ax.text(0.02, 0.965, RINGS, transform=ax.transAxes, fontsize=6, va="top", color=cyan)
