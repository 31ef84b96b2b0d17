"""Flow lines as light on a dark ground: one picture of all of them, and the film in which they grow.

Wide, the lines drift to the right while they form, from the noise at the left to the data at the right; square, they
stay where they are.
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
from viz.light import Light, dark, developed, dots, stroke
from viz.stills import SCREEN_DPI
from viz.turning import seen

SIZES = {"flow": (1920, 1080), "flow_square": (1080, 1080)}  # width, height, by the name of the file
RATES = {".mp4": 30, ".gif": 10}  # pictures per second
SMALL = 3  # a GIF is so many times smaller
TURN = 0.6  # radians: from where lines in three dimensions are seen

MARGIN, BELOW = 0.045, 0.075  # of the height: around the lines, and below them, where the words are
WIDE = 1.12  # of the width: what noise and data would take side by side; they overlap a little
LINE, FAINTEST = 0.28, 0.3  # light per pixel of a line where it ends, and of that where it begins
START, END = np.array([0.12, 0.13, 0.16]), 0.1  # of a dot where a line begins, which has no colour yet; where it ends
INK = 0.55  # light of words


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
    ax.imshow(developed(light + words(lines, size)), interpolation="none", aspect="auto")
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
        now, way, noise = (at_time(lines, of, frame / frames_per_s) for of in (at, lines.way, lines.noise))
        stroke(light, before, now, colours * _line(float(way), one))
        picture, before = light.copy(), now
        dots(picture, now, 0.6 * colours + END, 1.3 * one)
        _noise_bar(picture, float(noise))
        yield developed(picture), 1 if frame < LASTS_S * frames_per_s else round(HELD_S * frames_per_s)


def at_time(lines: FlowLines, of: NDArray, second: float) -> NDArray:
    """What is given for each state, (S, ...), after so many seconds, on straight lines between the states."""
    later = int(np.clip(np.searchsorted(lines.seconds, second), 1, len(of) - 1))
    begin, end = lines.seconds[later - 1 : later + 1]
    share = np.clip((second - begin) / max(end - begin, 1e-12), 0, 1)
    return of[later] if share == 1 else of[later - 1] + share * (of[later] - of[later - 1])


def placed(lines: FlowLines, size: tuple[int, int]) -> NDArray:
    """The paths in pixels, (S, N, 2), as large as fits into a picture of that size (width, height), whole."""
    (width, height), at = size, seen(lines.paths, TURN).astype(np.float64)
    low, high = at.min((0, 1)), at.max((0, 1))
    room = np.array([width - 2 * MARGIN * height, height * (1 - MARGIN - BELOW)])
    spans = high - low
    if width > height:
        begin, end = at[0, :, 0], at[-1, :, 0]
        spans[0] = max(spans[0], (np.ptp(begin) + np.ptp(end)) / WIDE)
        scale = float(np.min(room / np.maximum(spans, 1e-12)))
        left, right = -begin.min(), room[0] / scale - end.max()
        at[..., 0] += left + (right - left) * lines.way[:, None]
        low, high = at.min((0, 1)), at.max((0, 1))
    scale = float(np.min(room / np.maximum(high - low, 1e-12)))
    at = (at - (low + high) / 2) * [scale, -scale]
    return at + [width / 2, height * MARGIN + room[1] / 2]


def colours_of(lines: FlowLines) -> NDArray:
    """Light (N, 3) by where each path ends."""
    if lines.parts > 1:
        return LIGHTS[lines.reached % len(LIGHTS)] ** 1.5
    stops = np.linspace(0, 1, len(ALONG))
    return np.stack([np.interp(lines.reached, stops, ALONG[:, c]) for c in range(3)], 1) ** 1.5


def words(lines: FlowLines, size: tuple[int, int]) -> Light:
    """What the picture is, at the lower left, and what its colours mean, below that."""
    (width, height), letters = size, round(0.02 * size[1])
    page = Image.new("L", (width, height))
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(max(8, letters))
    below = f"{len(lines.reached):,} paths of the probability flow from noise to data, coloured by {lines.what}"
    for text, y in ((lines.title, 0.945), (below, 0.972)):
        draw.text((MARGIN * height, y * height), text, fill=255, font=font, anchor="lm")
    return np.asarray(page, np.float32)[..., None] / 255 * np.full(3, INK, np.float32)


def _unit(height: int) -> float:
    """The width of a line in a picture of that height, in pixels of one that is 1080 high."""
    return height / SIZES["flow"][1]


def _line(way: float, one: float) -> float:
    return LINE * one * (FAINTEST + (1 - FAINTEST) * way)


def _noise_bar(light: Light, noise: float) -> None:
    """A bar at the lower right, as long as there is noise, in its colour."""
    height, width, _ = light.shape
    top, right, long, thick = round(0.955 * height), round(width - MARGIN * height), round(0.2 * height), height // 135
    light[top : top + thick, right - long : right] += 0.06
    light[top : top + thick, right - long : right - long + round(noise * long)] += noise_colours(noise) / 255
