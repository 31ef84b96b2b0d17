"""Flow lines as light on a dark ground: one picture of all of them, and the film in which they grow.

In a wide picture the lines drift while they form, from the noise at one side to the data at the other; in a square one
they stay where they are.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from metrics.flow_lines import FlowLines
from metrics.scene import HELD_S, LASTS_S
from runtime.progress import progress_bar
from viz.colours import ALONG, LIGHTS, noise_colours
from viz.films.files import Frame, write
from viz.films.moments import between
from viz.light import Light, dark, developed, dots, stroke
from viz.stills import SCREEN_DPI
from viz.turning import seen

SIZES = {"flow": (1920, 1080), "flow_square": (1080, 1080)}  # width, height, by the name of the file
RATES = {".mp4": 30, ".gif": 10}  # pictures per second
SMALL = 3  # a GIF is so many times smaller
TURN = 0.6  # radians: from where lines in three dimensions are seen

MARGIN, BELOW = 0.045, 0.075  # of the height: around the lines, and below them, where the words are
OVERLAP = 1.12  # so much more than the picture is wide noise and data would take side by side
LINE, FAINTEST = 0.28, 0.3  # light per pixel of a line where it ends, and of that where it begins
START, END = np.array([0.12, 0.13, 0.16]), 0.1  # of a dot where a line begins, which has no colour yet; where it ends
INK, TITLE_AT, BELOW_AT = 0.55, 0.942, 0.972  # light of words, and how far down they stand
LEVELS = 4  # steps in which a still's colours are rounded: nobody sees them, and the file is half as large


def still(lines: FlowLines, size: tuple[int, int]) -> Figure:
    """All lines from end to end, and below them words that say what they are; a png has `size` pixels."""
    at, (width, height) = placed(lines, size), size
    light, colours, one = dark(height, width), colours_of(lines), _unit(height)
    for i in range(len(at) - 1):
        stroke(light, at[i], at[i + 1], colours * _line(lines.way[i], one))
    dots(light, at[0], np.tile(START, (len(colours), 1)), one)
    dots(light, at[-1], 0.6 * colours + END, 1.3 * one)
    figure = Figure(figsize=(width / SCREEN_DPI, height / SCREEN_DPI), dpi=SCREEN_DPI)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.axis("off")
    pixels = developed(light + words(lines, size)) // LEVELS * LEVELS
    ax.imshow(pixels, interpolation="none", aspect="auto")
    return figure


def save_film(lines: FlowLines, size: tuple[int, int], path: Path) -> Path:
    """FILE.mp4 of that size; FILE.gif smaller, and with fewer pictures."""
    gif = path.suffix == ".gif"
    width, height = (side // SMALL for side in size) if gif else size
    rate = RATES[path.suffix]
    film = progress_bar(frames(lines, (width, height), rate), f"{path.name}", round(LASTS_S * rate) + 1)
    return write(film, path, rate, colours=128)


def frames(lines: FlowLines, size: tuple[int, int], frames_per_s: int) -> Iterator[Frame]:
    """The same lines as they grow, with a dot at the head of each and a bar that says how much noise is left."""
    at, light, colours, one = placed(lines, size), words(lines, size), colours_of(lines), _unit(size[1])
    dots(light, at[0], np.tile(START, (len(colours), 1)), one)
    before = at[0]
    for frame in range(round(LASTS_S * frames_per_s) + 1):
        now, way, noise = (between(lines.seconds, of, frame / frames_per_s) for of in (at, lines.way, lines.noise))
        stroke(light, before, now, colours * _line(float(way), one))
        picture, before = light.copy(), now
        dots(picture, now, 0.6 * colours + END, 1.3 * one)
        _noise_bar(picture, float(noise))
        yield developed(picture), 1 if frame < LASTS_S * frames_per_s else round(HELD_S * frames_per_s)


def placed(lines: FlowLines, size: tuple[int, int]) -> NDArray:
    """The paths in pixels, (S, N, 2), as large as fits into a picture of that size (width, height), whole.

    In a wide picture they drift while they form: to the right or, where that leaves them larger, downwards.
    """
    (width, height), at = size, seen(lines.paths, TURN).astype(np.float64) * [1, -1]
    room = np.array([width - 2 * MARGIN * height, height * (1 - MARGIN - BELOW)])
    if width > height:
        at = max((_drifting(at, lines.way, axis) for axis in (0, 1)), key=lambda moved: _fitting(moved, room))
    low, high = at.min((0, 1)), at.max((0, 1))
    return (at - (low + high) / 2) * _fitting(at, room) + [width / 2, height * MARGIN + room[1] / 2]


def _drifting(at: NDArray, way: NDArray, axis: int) -> NDArray:
    """Paths (S, N, 2) that drift along an axis, so far that noise and data stand nearly side by side."""
    begin, end = at[0, :, axis], at[-1, :, axis]
    drift = np.zeros(2)
    drift[axis] = (np.ptp(begin) + np.ptp(end)) / OVERLAP - end.max() + begin.min()
    return at + drift * way[:, None, None]


def _fitting(at: NDArray, room: NDArray) -> float:
    """Pixels per unit with which the paths just fit into so much room (width, height)."""
    return float(np.min(room / np.maximum(np.ptp(at, (0, 1)), 1e-12)))


def colours_of(lines: FlowLines) -> NDArray:
    """Light (N, 3) by where each path ends."""
    if lines.parts > 1:
        return LIGHTS[lines.reached % len(LIGHTS)] ** 1.5
    stops = np.linspace(0, 1, len(ALONG))
    return np.stack([np.interp(lines.reached, stops, ALONG[:, c]) for c in range(3)], 1) ** 1.5


def words(lines: FlowLines, size: tuple[int, int]) -> Light:
    """What the picture is, at the lower left, and what its colours mean, below that."""
    (width, height), edge = size, MARGIN * size[1]
    page = Image.new("L", (width, height))
    draw = ImageDraw.Draw(page)
    below = f"{len(lines.reached):,} paths of the probability flow from noise to data, coloured by {lines.what}"
    letters = 0.022 * height
    letters *= min(1, (width - 2 * edge) / draw.textlength(below, ImageFont.load_default(letters)))
    for text, y in ((lines.title, TITLE_AT), (below, BELOW_AT)):
        draw.text((edge, y * height), text, fill=255, font=ImageFont.load_default(letters), anchor="lm")
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
    bar += 0.06
    bar[:, : round(noise * long)] += noise_colours(noise) / 255
