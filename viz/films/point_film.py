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
from matplotlib.ticker import MultipleLocator
from numpy.typing import NDArray

from viz.colours import DATA, TRACKED, hex_colour, noise_colours
from viz.films.film_files import Frame
from viz.films.film_moments import between, noise_words
from viz.scene import HELD_S, LASTS_S, Process, Scene, checked_points
from viz.style import ink, label_text, literal, paper, shortened
from viz.turning import seen

TITLES = {"forward": "forward: data to noise", "reverse": "reverse: noise to data"}
RINGS = "grey: clean data; cyan: some samples;\nring: where the network predicts their end"
UNITS = "units: standard deviations of the data"
MARKERS = "o^sDvP*X"  # of labels
COLOURS = 32  # of a GIF's palette
QUANTILE = 0.9995  # share of the points that lie within the axes

TAILS = 300  # points that have a tail
TAIL_S = 0.7  # a tail shows where its point was during so many seconds,
PIECES = 6  # in so many pieces

NAME_LETTERS = 32  # of the name of a coordinate

BAR = 0.3  # length of the bar at full noise, as a share of a panel's width


class Look(NamedTuple):
    """How a film looks.

    Attributes:
        size: width and height in inches.
        dpi: pixels per inch.
        frames_per_s: frames per second.
        text: size of the letters in points.
        most_points: points of a set, at most; a small picture would turn black with more.
        dot: area of a point, in square points.
        tails: whether points have tails.
        smooth_edges: whether the edges of points are smoothed, which makes a GIF twice as large.
    """

    size: tuple[float, float]
    dpi: int
    frames_per_s: int
    text: float
    most_points: int
    dot: float
    tails: bool
    smooth_edges: bool


# At 72 dots per inch a point is a pixel.
LOOKS = {
    ".gif": Look(
        (10, 5.8),
        dpi=72,
        frames_per_s=15,
        text=14,
        most_points=300,
        dot=8,
        tails=False,
        smooth_edges=False,
    ),
    ".mp4": Look(
        (32 / 3, 6),
        dpi=180,
        frames_per_s=30,
        text=9,
        most_points=1500,
        dot=7,
        tails=True,
        smooth_edges=True,
    ),
}
SINGLE_HEIGHT = 10  # inches: the height of a GIF of one process
WORDS_HEIGHT = 1.1  # inches: of the words above and below a panel
MOST_STRETCHED = 6.0  # sets that are wider or higher than that are drawn less so


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
    return panel._replace(title=literal(title) + _guidance_line(scene, panel.process))


def _guidance_line(scene: Scene, process: Process) -> str:
    """Return the line of a title that says how a reverse process was guided, if it was."""
    if process.side == "reverse" and scene.guidance_text:
        return f"\n{scene.guidance_text}"
    return ""


# ---------------------------------------------------------------- frames


def frames(panels: Sequence[Panel], look: Look) -> Iterator[Frame]:
    """Yield the frames of a film of LASTS_S and HELD_S seconds.

    There is a frame for every moment, also between states; the last is held.
    """
    rate = look.frames_per_s
    picture = painter(panels, look)
    end = round((LASTS_S + HELD_S) * rate)
    for frame, next_frame in pairwise([*range(_number_of_frames(panels, look)), end]):
        yield picture(frame / rate), next_frame - frame


def _number_of_frames(panels: Sequence[Panel], look: Look) -> int:
    """Return how many frames to draw: points in three dimensions turn until the end."""
    if panels[0].scene.dim == 3:
        return round((LASTS_S + HELD_S) * look.frames_per_s)
    return round(LASTS_S * look.frames_per_s) + 1


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
        return between(seconds, of, second)

    movers = [_clouds(ax, panel, at, look), _noise_bar(ax, panel, at, look)]
    if look.tails:
        movers.append(_tails(ax, panel, at))
    if scene.predictions is not None and process.side == "reverse":
        movers.append(_predictions(ax, scene.predictions, at))
    return movers


def _clouds(ax: Axes, panel: Panel, at: At, look: Look) -> Mover:
    """Draw the points in the colour of their noise, above clean data in grey."""
    scene, process, _ = panel
    most = look.most_points
    sharp = {"linewidths": 0, "antialiaseds": look.smooth_edges}
    grey = ax.scatter([], [], s=3, color=hex_colour(DATA), zorder=0, **sharp)
    clouds = []
    for marker, rows in _groups(scene, process.side, most):
        size = look.dot if marker == "o" else 1.7 * look.dot
        cloud = ax.scatter([], [], s=size, marker=marker, zorder=2, **sharp)
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
    lines = LineCollection([], linewidths=1.2, colors=ink(), zorder=3)
    ax.add_collection(lines, autolim=False)
    edge = {"edgecolors": ink(), "linewidths": 1.2}
    dots = ax.scatter([], [], s=36, facecolors=hex_colour(TRACKED), zorder=5, **edge)
    rings = ax.scatter([], [], s=80, facecolors=paper(), zorder=4, **edge)

    def move(second: float) -> None:
        here = _turned(at(where, second), second)
        there = _turned(at(predicted, second), second)
        lines.set_segments([*np.stack([here, there], 1)])
        dots.set_offsets(here)
        rings.set_offsets(there)

    return move


def _noise_bar(ax: Axes, panel: Panel, at: At, look: Look) -> Mover:
    """Draw the noise level in words, and as a bar that is full at sigma = 1."""
    words = ax.text(0.02, 0.055, "", transform=ax.transAxes, fontsize=look.text, zorder=5)
    words.set_bbox({"facecolor": paper(), "edgecolor": "none", "alpha": 0.75, "pad": 1})
    place = {"xy": (0.02, 0.022), "height": 0.018, "transform": ax.transAxes, "zorder": 5}
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
    aspect = _aspect(panels)
    rows, columns = (len(panels), 1) if aspect < 1 else (1, len(panels))
    figure = Figure(figsize=_size(panels, look, aspect), dpi=look.dpi, layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
    reach = _reach(panels)
    flat = panels[0].scene.dim == 2
    for ax, panel in zip(axes, panels):
        ax.set_title(panel.title, fontsize=1.1 * look.text)
        ax.set(aspect=aspect, xlim=(-reach, reach), ylim=(-reach, reach))
        ax.tick_params(labelsize=look.text, labelbottom=flat, labelleft=flat, bottom=flat, left=flat)
        ax.xaxis.set_major_locator(MultipleLocator(2))
        ax.yaxis.set_major_locator(MultipleLocator(2))
        if flat and panel.scene.names:
            x_name, y_name = [literal(shortened(name, NAME_LETTERS)) for name in panel.scene.names]
            ax.set_xlabel(f"{x_name}, standardised", fontsize=look.text)
            ax.set_ylabel(f"{y_name}, standardised", fontsize=look.text)
        if panel.process.side == "reverse":
            _explain(ax, panel.scene, look)
        elif flat:
            ax.set_xlabel(UNITS, fontsize=look.text)
    return figure, list(axes)


def _aspect(panels: Sequence[Panel]) -> float:
    """Return the length of a unit of y in units of x, within limits; 1 where the panels differ in it."""
    aspects = {panel.scene.aspect for panel in panels}
    if len(aspects) > 1:
        return 1.0
    return min(max(aspects.pop(), 1 / MOST_STRETCHED), MOST_STRETCHED)


def _size(panels: Sequence[Panel], look: Look, aspect: float) -> tuple[float, float]:
    """Return the width and the height of a film in inches. An MP4 always fills a screen."""
    width, height = look.size
    if look.tails:
        return width, height
    if aspect < 1:
        return width, len(panels) * (width * aspect + WORDS_HEIGHT)
    if len(panels) == 1:
        return width, SINGLE_HEIGHT
    return width, height


def _reach(panels: Sequence[Panel]) -> float:
    """Return how far the axes reach from 0: nearly all points lie within, after every turn."""
    reaches = []
    for panel in panels:
        states = panel.process.states
        flat = panel.scene.dim == 2
        far = np.abs(states) if flat else np.linalg.norm(states, axis=-1)
        reaches.append(float(np.quantile(far, QUANTILE)))
    return 1.05 * max(reaches)


def _explain(ax: Axes, scene: Scene, look: Look) -> None:
    """Add a legend of the labels' markers, and below the panel what dots and rings are."""
    if scene.labels is not None:
        keys = []
        for label in np.unique(scene.labels)[: len(MARKERS)]:
            keys.append(
                Line2D(
                    [],
                    [],
                    marker=MARKERS[label % len(MARKERS)],
                    linestyle="",
                    markersize=0.5 * look.text,
                    color=ink(),
                    label=label_text(scene.classes, label),
                )
            )
        ax.legend(
            handles=keys,
            fontsize=look.text,
            loc="upper right",
            framealpha=0.6,
            handletextpad=0.1,
        )
    if scene.predictions is not None:
        name = ax.get_xlabel()
        ax.set_xlabel(f"{name}\n{RINGS}" if name else RINGS, fontsize=look.text)
