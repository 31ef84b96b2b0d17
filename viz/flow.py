"""Flow lines as light on a dark ground: one picture of all of them, and the film in which they grow.

In a wide picture the lines drift while they form, from the noise at one side to the data at the other; in a square one
they stay where they are. In three dimensions films turn them once.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from runtime.progress import progress_bar
from samplers.spacing import evenly_on
from viz.colours import ALONG, LIGHTS, noise_colours
from viz.films.film_files import Frame, write
from viz.films.film_moments import between
from viz.flow_lines import FlowLines
from viz.light import STEP, Light, developed, dots, exposed, stroke
from viz.scene import HELD_S, LASTS_S
from viz.stills import SCREEN_DPI
from viz.turning import seen

SIZES = {"flow": (1920, 1080), "flow_square": (1080, 1080)}  # width, height, by the name of the file
RATES = {".mp4": 30, ".gif": 10}  # pictures per second
SMALL = 3  # a GIF is so many times smaller
TURN = 0.6  # radians: from where lines in three dimensions are seen
TURNS = TURN + np.linspace(0, 2 * np.pi, 12, endpoint=False)  # in films: all around, and these must fit in
PIECES, COARSE = 50, 1.0  # straight pieces of a path that turns, and pixels between drops: each picture draws all anew

MARGIN, BELOW = 0.045, 0.075  # of the height: around the lines, and below them, where the words are
OVERLAP = 1.12  # so much more than the picture is wide noise and data would take side by side
LINE, FAINTEST = 0.28, 0.3  # light per pixel of a line where it ends, and of that where it begins
START, END = np.array([0.12, 0.13, 0.16]), 0.1  # of a dot where a line begins, which has no colour yet; where it ends
INK, TITLE_AT, BELOW_AT = 0.55, 0.942, 0.972  # light of words, and how far down they stand
BAR, BAR_LIGHT = "noise", 0.06  # what the bar of a film says, and its light where there is none
LEVELS = 4  # steps in which a still's colours are rounded: nobody sees them, and the file is half as large


def still(lines: FlowLines, size: tuple[int, int]) -> Figure:
    """All lines from end to end, and below them words that say what they are; a png has `size` pixels."""
    return _figure(_whole(lines, size, placed(lines, size)))


def beside(left: FlowLines, right: FlowLines, size: tuple[int, int]) -> Figure:
    """Two sets of lines from the same noise, each in its half of a picture and under its own words, on one scale."""
    half = size[0] // 2, size[1]
    both = left._replace(paths=np.concatenate([left.paths, right.paths], 1))
    at = np.split(placed(both, half), [left.paths.shape[1]], 1)
    return _figure(np.concatenate([_whole(lines, half, there) for lines, there in zip((left, right), at)], 1))


def _whole(lines: FlowLines, size: tuple[int, int], at: NDArray) -> NDArray[np.uint8]:
    """The pixels (H, W, 3) of lines that go through `at` (S, N, 2), and of their words."""
    light, colours, one = words(lines, size), colours_of(lines), _unit(size[1])
    _draw(light, at, lines.way, colours, one)
    dots(light, at[0], np.tile(START, (len(colours), 1)), one)
    dots(light, at[-1], 0.6 * colours + END, 1.3 * one)
    return developed(light) // LEVELS * LEVELS


def _draw(light: Light, at: NDArray, way: NDArray, colours: NDArray, one: float, step: float = STEP) -> None:
    """Add lines through `at` (S, N, 2), the brighter the further on their way (S,)."""
    for i in range(len(at) - 1):
        stroke(light, at[i], at[i + 1], colours * _line(way[i], one), step)


def _figure(pixels: NDArray[np.uint8]) -> Figure:
    height, width, _ = pixels.shape
    figure = Figure(figsize=(width / SCREEN_DPI, height / SCREEN_DPI), dpi=SCREEN_DPI)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.axis("off")
    ax.imshow(pixels, interpolation="none", aspect="auto")
    return figure


def save_film(lines: FlowLines, size: tuple[int, int], path: Path) -> Path:
    """FILE.mp4 of that size; FILE.gif smaller, and with fewer pictures."""
    gif = path.suffix == ".gif"
    width, height = (side // SMALL for side in size) if gif else size
    rate = RATES[path.suffix]
    whole = LASTS_S + HELD_S if lines.paths.shape[-1] == 3 else LASTS_S
    film = progress_bar(frames(lines, (width, height), rate), f"{path.name}", round(whole * rate) + 1)
    return write(film, path, rate, 128, exposed(BAR_LIGHT + noise_colours(np.linspace(0, 1, 12)) / 255))


def frames(lines: FlowLines, size: tuple[int, int], frames_per_s: int) -> Iterator[Frame]:
    """The same lines as they grow, with a dot at the head of each and a bar that says how much noise is left."""
    return (_turning if lines.paths.shape[-1] == 3 else _growing)(lines, size, frames_per_s)


def _growing(lines: FlowLines, size: tuple[int, int], frames_per_s: int) -> Iterator[Frame]:
    """Each picture is the one before with a little more of each line; the last one is held."""
    at, light, colours, one = placed(lines, size), words(lines, size, BAR), colours_of(lines), _unit(size[1])
    dots(light, at[0], np.tile(START, (len(colours), 1)), one)
    before = at[0]
    for frame in range(round(LASTS_S * frames_per_s) + 1):
        now, way, noise = (between(lines.seconds, of, frame / frames_per_s) for of in (at, lines.way, lines.noise))
        stroke(light, before, now, colours * _line(float(way), one))
        before, stays = now, 1 if frame < LASTS_S * frames_per_s else round(HELD_S * frames_per_s)
        yield _with_heads(light.copy(), now, colours, noise, one), stays


def _turning(lines: FlowLines, size: tuple[int, int], frames_per_s: int) -> Iterator[Frame]:
    """Lines in three dimensions: they turn once, and go on turning where others are held."""
    kept, count = evenly_on(-lines.way, PIECES + 1), round((LASTS_S + HELD_S) * frames_per_s)
    paths, seconds, way, noise = (of[kept] for of in (lines.paths, lines.seconds, lines.way, lines.noise))
    place, one = camera(lines._replace(paths=paths, way=way), size, TURNS), _unit(size[1])
    page, colours = words(lines, size, BAR), colours_of(lines)
    for frame in range(count):
        second, at, light = frame / frames_per_s, place(TURN + 2 * np.pi * frame / count), page.copy()
        now, so_far = between(seconds, at, second), seconds < second
        dots(light, at[0], np.tile(START, (len(colours), 1)), one)
        _draw(light, np.concatenate([at[so_far], now[None]]), way, colours, one, COARSE)
        yield _with_heads(light, now, colours, between(seconds, noise, second), one), 1


def _with_heads(light: Light, now: NDArray, colours: NDArray, noise: NDArray, one: float) -> NDArray[np.uint8]:
    """A picture of the film: with dots where the lines are `now` (N, 2), and the bar."""
    dots(light, now, 0.6 * colours + END, 1.3 * one)
    _noise_bar(light, float(noise))
    return developed(light)


def placed(lines: FlowLines, size: tuple[int, int]) -> NDArray:
    """The paths of a still in pixels, (S, N, 2)."""
    return camera(lines, size, [TURN])(TURN)


def camera(lines: FlowLines, size: tuple[int, int], turns: Sequence[float] | NDArray) -> Callable[[float], NDArray]:
    """After a turn in radians the paths in pixels, (S, N, 2); whole at each of `turns`, and as large as fits then.

    In a wide picture of that size (width, height) they drift while they form: to the right or, where that makes them
    larger, downwards.
    """
    (width, height), paths = size, (lines.paths - lines.paths[-1].mean(0)).astype(np.float64)
    room = np.array([width - 2 * MARGIN * height, height * (1 - MARGIN - BELOW)])

    def view(turn: float, drift: NDArray) -> NDArray:
        return seen(paths, turn) * [1, -1] + drift * lines.way[:, None, None]

    def ends(drift: NDArray) -> tuple[NDArray, NDArray]:
        views = [view(turn, drift) for turn in (turns if paths.shape[-1] == 3 else [TURN])]
        return np.min([at.min((0, 1)) for at in views], 0), np.max([at.max((0, 1)) for at in views], 0)

    still = [view(turn, np.zeros(2))[[0, -1]] for turn in turns]
    drifts = [np.zeros(2)] if width <= height else [np.max([_drift(at, axis) for at in still], 0) for axis in (0, 1)]
    low, high, drift = max(((*ends(drift), drift) for drift in drifts), key=lambda box: _fitting(box[1] - box[0], room))
    scale, middle = _fitting(high - low, room), [width / 2, height * MARGIN + room[1] / 2]
    return lambda turn: (view(turn, drift) - (low + high) / 2) * scale + middle


def _drift(ends: NDArray, axis: int) -> NDArray:
    """How far paths whose `ends` are (2, N, 2) must drift for noise and data to stand nearly side by side: (2,)."""
    begin, end = ends[..., axis]
    return np.eye(2)[axis] * ((np.ptp(begin) + np.ptp(end)) / OVERLAP - end.max() + begin.min())


def _fitting(extent: NDArray, room: NDArray) -> float:
    """Pixels per unit with which what is so wide and high just fits into so much room, both (2,)."""
    return float(np.min(room / np.maximum(extent, 1e-12)))


def colours_of(lines: FlowLines) -> NDArray:
    """Light (N, 3) by where each path ends."""
    if lines.parts > 1:
        return LIGHTS[lines.reached % len(LIGHTS)] ** 1.5
    stops = np.linspace(0, 1, len(ALONG))
    return np.stack([np.interp(lines.reached, stops, ALONG[:, c]) for c in range(3)], 1) ** 1.5


def words(lines: FlowLines, size: tuple[int, int], bar: str = "") -> Light:
    """What the picture is, at the lower left, below that what its colours mean, and beside a film's bar what it is."""
    (width, height), edge = size, MARGIN * size[1]
    page = Image.new("L", (width, height))
    draw = ImageDraw.Draw(page)
    below = f"{len(lines.reached):,} paths of the probability flow from noise to data, coloured by {lines.what}"
    letters = 0.022 * height
    widest = max(draw.textlength(text, ImageFont.load_default(letters)) for text in (lines.title, below))
    letters *= min(1, (width - 2 * edge) / widest)
    for text, y in ((lines.title, TITLE_AT), (below, BELOW_AT)):
        draw.text((edge, y * height), text, fill=255, font=ImageFont.load_default(letters), anchor="lm")
    at = width - edge - 1.1 * height // 5, TITLE_AT * height
    draw.text(at, bar, fill=255, font=ImageFont.load_default(letters), anchor="rm")
    return np.asarray(page, np.float32)[..., None].repeat(3, 2) * np.float32(INK / 255)


def _unit(height: int) -> float:
    """The width of a line in a picture of that height, in pixels of one that is 1080 high."""
    return height / SIZES["flow"][1]


def _line(way: float, one: float) -> float:
    return LINE * one * (FAINTEST + (1 - FAINTEST) * way)


def _noise_bar(light: Light, noise: float) -> None:
    """A bar at the right of the title, as long as there is noise, in its colour."""
    height, width, _ = light.shape
    top, right, long, thick = round(TITLE_AT * height), round(width - MARGIN * height), height // 5, height // 180
    bar = light[top - thick // 2 : top - thick // 2 + thick, right - long : right]
    bar += BAR_LIGHT
    bar[:, : round(noise * long)] += noise_colours(noise) / 255
