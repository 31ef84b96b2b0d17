"""The film of processes of points, side by side: small as a GIF, 1920x1080 and with tails as an MP4.

In three dimensions the points turn once.
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
RINGS = "some samples, and rings where the network\nbelieves that they will end"
MARKERS = "o^sDvP*X"  # of labels
COLOURS = 64  # of a GIF
TAIL_S, PIECES, TAILS = 0.7, 6, 300  # what is drawn behind a point, in how many pieces, and behind how many points
BAR = 0.3  # of a panel's width: a bar as long as there is noise


class Look(NamedTuple):
    """Inches wide and high, and pixels in each; pictures per second; points of a set: more blacken a small picture.

    smooth: a picture for every moment, between states as well, and tails behind the points.
    """

    size: tuple[float, float]
    dpi: int
    frames_per_s: int
    most_points: int
    smooth: bool


LOOKS = {".gif": Look((6, 3.5), 80, 10, 600, False), ".mp4": Look((32 / 3, 6), 180, 30, 1500, True)}
ALONE = 5.5  # inches that a GIF of one process is high


class Panel(NamedTuple):
    """One process of a scene, under a title."""

    scene: Scene
    process: Process
    title: str


def panels_of(scene: Scene) -> list[Panel]:
    """The processes of a scene."""
    checked = [p._replace(states=checked_points(p.states)) for p in scene.processes]
    return [Panel(scene, p, TITLES[p.side] + _steered(scene, p)) for p in checked]


def reverse_panel(title: str, scene: Scene) -> Panel:
    """The reverse process of a scene under another title. Raises ValueError where there is none, or none of points."""
    if scene.of_images or scene.processes[-1].side != "reverse":
        raise ValueError(f"{title} holds no reverse process of points: save one by inference.py save_trajectory=true")
    panel = panels_of(scene)[-1]
    return panel._replace(title=title + _steered(scene, panel.process))


def _steered(scene: Scene, process: Process) -> str:
    return f"\n{scene.steered}" if process.side == "reverse" and scene.steered else ""


def frames(panels: Sequence[Panel], look: Look) -> Iterator[Frame]:
    """The film, which lasts LASTS_S and HELD_S: a picture where a state begins, or of every moment; the last held."""
    rate, picture, last = look.frames_per_s, painter(panels, look), round(LASTS_S * look.frames_per_s)
    end = round((LASTS_S + HELD_S) * rate)
    moments = {round(rate * float(second)) for panel in panels for second in panel.scene.seconds(panel.process)}
    if panels[0].scene.dim == 3:  # it turns until the end
        moments = set(range(end))
    elif look.smooth:
        moments = set(range(last + 1))
    for now, after in pairwise([*sorted(moments), end]):
        yield picture(now / rate), after - now


def painter(panels: Sequence[Panel], look: Look) -> Callable[[float], NDArray[np.uint8]]:
    """The picture (H, W, 3) after so many seconds."""
    figure, axes = _stage(panels, look)
    canvas = FigureCanvasAgg(figure)
    movers = [mover for ax, panel in zip(axes, panels) for mover in _movers(ax, panel, look)]
    canvas.draw()
    figure.set_layout_engine("none")  # once is enough, and it is most of the work

    def picture(second: float) -> NDArray[np.uint8]:
        for move in movers:
            move(second)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()

    return picture


# ---------------------------------------------------------------- what moves in a panel

Mover = Callable[[float], None]  # puts it where it is after so many seconds
Places = Callable[[NDArray, float], NDArray]  # what is known of each state (S, ...), after so many seconds: (...)


def _movers(ax: Axes, panel: Panel, look: Look) -> list[Mover]:
    """Draw everything that moves in a panel; each of what is returned moves some of it."""
    scene, process, _ = panel
    seconds = scene.seconds(process)

    def at(of: NDArray, second: float) -> NDArray:
        return between(seconds, of, second) if look.smooth else of[playing(scene, process, second)]

    movers = [_clouds(ax, panel, at, look.most_points), _noise_bar(ax, panel, at)]
    if look.smooth:
        movers.append(_tails(ax, panel, at))
    if scene.guesses is not None and process.side == "reverse":
        movers.append(_guesses(ax, scene.guesses, at))
    return movers


def _clouds(ax: Axes, panel: Panel, at: Places, most: int) -> Mover:
    """The points in the colour of their noise, over clean data in grey."""
    scene, process, _ = panel
    grey = ax.scatter([], [], s=2, color=hex_colour(DATA), linewidths=0, zorder=0)
    clouds = [
        (rows, ax.scatter([], [], s=7 if marker == "o" else 12, linewidths=0, marker=marker, zorder=2))
        for marker, rows in _groups(scene, process.side, most)
    ]

    def move(second: float) -> None:
        points, colour = at(process.states, second), _colour(panel, at, second)
        for rows, cloud in clouds:
            cloud.set_offsets(_turned(points[rows], second))
            cloud.set_color(colour)
        if scene.data is not None:
            grey.set_offsets(_turned(scene.data[:most], second))

    return move


def _tails(ax: Axes, panel: Panel, at: Places) -> Mover:
    """Where the first points have just been, the fainter the longer ago."""
    pieces = [ax.plot([], [], linewidth=0.6, alpha=alpha, zorder=1)[0] for alpha in np.linspace(0.5, 0.1, PIECES)]

    def move(second: float) -> None:
        ago = [max(0.0, second - TAIL_S * k / PIECES) for k in range(PIECES + 1)]
        places = [_turned(at(panel.process.states, s)[:TAILS], second) for s in ago]
        for piece, begin, end in zip(pieces, places, places[1:]):
            gap = np.full_like(begin, np.nan)  # one line that is drawn in pieces takes a tenth of the time of many
            piece.set_data(*np.stack([begin, end, gap], 1).reshape(-1, 2).T)
            piece.set_color(_colour(panel, at, second))

    return move


def _guesses(ax: Axes, guesses: tuple[NDArray, NDArray], at: Places) -> Mover:
    """A line from each tracked sample to a ring where the network believes that it will end."""
    cyan = hex_colour(TRACKED)
    lines = ax.add_collection(LineCollection([], linewidths=0.8, colors=cyan, zorder=3), autolim=False)
    dots = ax.scatter([], [], s=11, color=cyan, linewidths=0, zorder=4)
    rings = ax.scatter([], [], s=18, facecolors="none", edgecolors=cyan, linewidths=0.8, zorder=4)
    assert isinstance(lines, LineCollection)

    def move(second: float) -> None:
        here, there = (_turned(at(of, second), second) for of in guesses)
        lines.set_segments([*np.stack([here, there], 1)])
        dots.set_offsets(here)
        rings.set_offsets(there)

    return move


def _noise_bar(ax: Axes, panel: Panel, at: Places) -> Mover:
    """How much noise there is, in words and as a bar that is full at sigma = 1."""
    words = ax.text(0.02, 0.055, "", transform=ax.transAxes, fontsize=7)
    place = {"xy": (0.02, 0.022), "height": 0.018, "transform": ax.transAxes}
    ax.add_patch(Rectangle(width=BAR, color=hex_colour(DATA), alpha=0.3, linewidth=0, **place))
    bar = Rectangle(width=0, linewidth=0, **place)
    ax.add_patch(bar)

    def move(second: float) -> None:
        words.set_text(noise_words(round(float(at(panel.process.steps, second)))))
        bar.set_width(BAR * float(at(panel.scene.noise(panel.process.steps), second)))
        bar.set_color(_colour(panel, at, second))

    return move


def _colour(panel: Panel, at: Places, second: float) -> str:
    return hex_colour(noise_colours(at(panel.scene.noise(panel.process.steps), second)))


def _turned(points: NDArray, second: float) -> NDArray:
    return seen(points, 2 * np.pi * second / (LASTS_S + HELD_S))


def _groups(scene: Scene, side: str, most: int) -> list[tuple[str, NDArray | slice]]:
    """Which rows are drawn with which marker: generated samples by their label, if they have any."""
    if scene.labels is None or side == "forward":
        return [("o", slice(most))]
    labels = scene.labels[:most]
    return [(MARKERS[k % len(MARKERS)], np.flatnonzero(labels == k)) for k in np.unique(labels)]


# ---------------------------------------------------------------- what stands still


def _stage(panels: Sequence[Panel], look: Look) -> tuple[Figure, list[Axes]]:
    """Axes for each process, with its title, and the labels' markers."""
    wide, high = look.size
    size = (wide, high if look.smooth or len(panels) > 1 else ALONE)
    figure = Figure(figsize=size, dpi=look.dpi, layout="constrained")
    axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    states, flat = [panel.process.states for panel in panels], panels[0].scene.dim == 2
    far = [np.abs(of) if flat else np.linalg.norm(of, axis=-1) for of in states]
    reach = 1.05 * max(float(np.quantile(each, 0.9995)) for each in far)
    for ax, panel in zip(axes, panels):
        ax.set_title(panel.title, fontsize=10)
        ax.set(aspect="equal", xlim=(-reach, reach), ylim=(-reach, reach))
        ax.tick_params(labelsize=8, labelbottom=flat, labelleft=flat, bottom=flat, left=flat)
        ax.grid(alpha=0.2)
        if panel.process.side == "reverse":
            _explain(ax, panel.scene)
    return figure, list(axes)


def _explain(ax: Axes, scene: Scene) -> None:
    """The labels' markers, and what the rings are."""
    if scene.labels is not None:
        asked = np.unique(scene.labels)[: len(MARKERS)]
        names = [(MARKERS[k % len(MARKERS)], f"label {scene.classes[k]}") for k in asked]
        keys = [Line2D([], [], marker=m, linestyle="", markersize=4, color=ink(), label=name) for m, name in names]
        ax.legend(handles=keys, fontsize=7, loc="upper right", framealpha=0.6, handletextpad=0.1)
    if scene.guesses is not None:
        ax.text(0.02, 0.965, RINGS, transform=ax.transAxes, fontsize=6, va="top", color=hex_colour(TRACKED))
