"""Flow lines as light on a dark ground: a picture of all lines, and the film in which they grow.

In a wide picture the lines drift while they form, from noise at one side to data at the other. In a
square picture they do not drift. Films turn lines in three dimensions once around.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from runtime.progress import progress_bar
from samplers.spacing import evenly_on
from viz.colours import LIGHT_RAMP, LIGHTS, noise_colours
from viz.films.film_files import Frame, write
from viz.films.film_moments import between
from viz.flow_lines import FlowLines
from viz.light import DROP_SPACING, Light, developed, dots, exposed, stroke
from viz.scene import HELD_S, LASTS_S
from viz.stills import SCREEN_DPI
from viz.turning import seen

# ---------------------------------------------------------------- sizes and rates

SIZES = {"flow": (1920, 1080), "flow_square": (1080, 1080)}  # (width, height) by the file's name
RATES = {".mp4": 30, ".gif": 10}  # frames per second
GIF_SHRINKING = 3  # each side of a GIF is so many times shorter
GIF_COLOURS = 128

TURN = 0.6  # radians: the view of lines in three dimensions in a still
TURNS = TURN + np.linspace(0, 2 * np.pi, 12, endpoint=False)  # in a film: all of them must fit in

# A film of lines that turn draws every line anew in each frame, so it draws them coarsely.
TURNING_PIECES = 50  # straight pieces of a path
TURNING_SPACING = 1.0  # pixels between two drops of light

# ---------------------------------------------------------------- layout, as shares of the height

MARGIN = 0.045  # around the lines
LAST_LINE_AT = 0.958  # how far down the last line of text stands
LINE_SPACING = 0.036  # between two lines of text
LETTERS = 0.024  # size of the text of a wide picture
NARROW_LETTERS = 0.028  # and of a narrow one, which has one line more
BAR_LENGTH = 5  # the bar of a film is 1 / 5 of the height long
BAR_THICKNESS = 180  # and 1 / 180 of it thick
OVERLAP = 1.12  # noise and data side by side may take so many times the width of the picture

# ---------------------------------------------------------------- amounts of light

LINE = 0.28  # per pixel of a line, at its end
FAINTEST = 0.3  # the share of LINE that a line has at its beginning
START_DOT = np.array([0.12, 0.13, 0.16])  # the dot where a line begins, which has no colour yet
END_DOT = 0.1  # added to 0.6 of the colour of a line, in the dot at its end
END_DOT_RADIUS = 1.3  # line widths
GAMMA = 1.5  # an exponent that makes the colours of lines more saturated
TEXT = 0.8
BAR_TEXT = "noise"
BAR_LIGHT = 0.06  # of the bar where there is no noise
LEVELS = 4  # colours of a still are rounded to multiples of it, which halves the size of the file

# ---------------------------------------------------------------- stills


def still(lines: FlowLines, size: tuple[int, int]) -> Figure:
    """Draw all lines from end to end, with text below them.

    Args:
        lines: paths of two or three dimensions.
        size: (width, height) of the png, in pixels.
    """
    return _figure(_pixels(lines, size, placed(lines, size)))


def beside(left: FlowLines, right: FlowLines, size: tuple[int, int]) -> Figure:
    """Draw two sets of lines from the same noise beside each other, on one scale.

    Each set has its own text below it.
    """
    width, height = size
    half = (width // 2, height)
    both = left._replace(paths=np.concatenate([left.paths, right.paths], 1))
    count = left.paths.shape[1]
    at = placed(both, half)
    left_pixels = _pixels(left, half, at[:, :count])
    right_pixels = _pixels(right, half, at[:, count:])
    return _figure(np.concatenate([left_pixels, right_pixels], 1))


def _pixels(lines: FlowLines, size: tuple[int, int], at: NDArray) -> NDArray[np.uint8]:
    """Return the pixels (H, W, 3) of lines through `at` (S, N, 2), and of their text."""
    light = words(lines, size)
    colours = colours_of(lines)
    unit = _line_width(size[1])
    _draw_lines(light, at, lines.way, colours, unit)
    _draw_start_dots(light, at[0], unit)
    _draw_end_dots(light, at[-1], colours, unit)
    return developed(light) // LEVELS * LEVELS


def _figure(pixels: NDArray[np.uint8]) -> Figure:
    """Return a figure that shows these pixels (H, W, 3) and nothing else."""
    height, width, _ = pixels.shape
    figure = Figure(figsize=(width / SCREEN_DPI, height / SCREEN_DPI), dpi=SCREEN_DPI)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.axis("off")
    ax.imshow(pixels, interpolation="none", aspect="auto")
    return figure


# ---------------------------------------------------------------- films


def save_film(lines: FlowLines, size: tuple[int, int], path: Path) -> Path:
    """Write FILE.mp4 of that size, or a smaller FILE.gif with fewer frames; return the path."""
    width, height = size
    if path.suffix == ".gif":
        width //= GIF_SHRINKING
        height //= GIF_SHRINKING
    rate = RATES[path.suffix]
    seconds = LASTS_S + HELD_S if _is_3d(lines) else LASTS_S
    film = progress_bar(
        frames(lines, (width, height), rate),
        path.name,
        round(seconds * rate) + 1,
    )
    bar_colours = exposed(BAR_LIGHT + noise_colours(np.linspace(0, 1, 12)) / 255)
    return write(film, path, rate, GIF_COLOURS, bar_colours)


def frames(lines: FlowLines, size: tuple[int, int], frames_per_s: int) -> Iterator[Frame]:
    """Yield the frames of a film in which the lines grow.

    Each line has a dot at its head, and a bar shows how much noise is left.
    """
    if _is_3d(lines):
        yield from _turning(lines, size, frames_per_s)
    else:
        yield from _growing(lines, size, frames_per_s)


def _is_3d(lines: FlowLines) -> bool:
    return lines.paths.shape[-1] == 3


def _growing(lines: FlowLines, size: tuple[int, int], frames_per_s: int) -> Iterator[Frame]:
    """Add to each frame a little more of every line; hold the last frame."""
    at = placed(lines, size)
    colours = colours_of(lines)
    unit = _line_width(size[1])
    light = words(lines, size, BAR_TEXT)
    _draw_start_dots(light, at[0], unit)

    last = LASTS_S * frames_per_s
    before = at[0]
    for frame in range(round(last) + 1):
        second = frame / frames_per_s
        heads = between(lines.seconds, at, second)
        way = between(lines.seconds, lines.way, second)
        noise = between(lines.seconds, lines.noise, second)
        stroke(light, before, heads, colours * _brightness(float(way), unit))
        before = heads
        shown_for = 1 if frame < last else round(HELD_S * frames_per_s)
        yield _with_heads(light.copy(), heads, colours, float(noise), unit), shown_for


def _turning(lines: FlowLines, size: tuple[int, int], frames_per_s: int) -> Iterator[Frame]:
    """Turn lines in three dimensions once around while they grow, and while others are held."""
    lines = _coarser(lines, TURNING_PIECES + 1)
    place = camera(lines, size, TURNS)
    colours = colours_of(lines)
    unit = _line_width(size[1])
    page = words(lines, size, BAR_TEXT)

    count = round((LASTS_S + HELD_S) * frames_per_s)
    for frame in range(count):
        second = frame / frames_per_s
        at = place(TURN + 2 * np.pi * frame / count)
        heads = between(lines.seconds, at, second)
        noise = between(lines.seconds, lines.noise, second)
        drawn = np.concatenate([at[lines.seconds < second], heads[None]])

        light = page.copy()
        _draw_start_dots(light, at[0], unit)
        _draw_lines(light, drawn, lines.way, colours, unit, TURNING_SPACING)
        yield _with_heads(light, heads, colours, float(noise), unit), 1


def _coarser(lines: FlowLines, count: int) -> FlowLines:
    """Return the same lines at `count` of their states, evenly spaced on the way."""
    kept = evenly_on(-lines.way, count)
    return lines._replace(
        paths=lines.paths[kept],
        seconds=lines.seconds[kept],
        way=lines.way[kept],
        noise=lines.noise[kept],
    )


def _with_heads(
    light: Light,
    heads: NDArray,
    colours: NDArray,
    noise: float,
    unit: float,
) -> NDArray[np.uint8]:
    """Add dots at the heads (N, 2) of the lines and the bar; return the pixels (H, W, 3)."""
    _draw_end_dots(light, heads, colours, unit)
    _draw_noise_bar(light, noise)
    return developed(light)


# ---------------------------------------------------------------- where the lines are


def placed(lines: FlowLines, size: tuple[int, int]) -> NDArray:
    """Return the paths of a still in pixels, (S, N, 2)."""
    return camera(lines, size, [TURN])(TURN)


def camera(
    lines: FlowLines,
    size: tuple[int, int],
    turns: Sequence[float] | NDArray,
) -> Callable[[float], NDArray]:
    """Choose scale and drift such that the lines fill the picture and stay inside it.

    In a wide picture the lines drift while they form. They drift to the right, or downwards where
    that makes them larger.

    Args:
        lines: paths of two or three dimensions.
        size: (width, height) in pixels.
        turns: views, in radians, in all of which the whole lines must fit.

    Returns:
        A function of a turn in radians that gives the paths in pixels, (S, N, 2).
    """
    width, height = size
    room = np.array([width - 2 * MARGIN * height, height * (1 - MARGIN - below(size))])
    middle = [width / 2, height * MARGIN + room[1] / 2]
    paths = (lines.paths - lines.paths[-1].mean(0)).astype(np.float64)
    if not _is_3d(lines):
        turns = turns[:1]  # every turn shows the same

    drift = low = high = np.zeros(2)
    scale = 0.0
    for candidate in _drifts(paths, size, turns):
        lowest, highest = _bounds(paths, lines.way, turns, candidate)
        largest = _fitting(highest - lowest, room)
        if largest > scale:
            drift = candidate
            low = lowest
            high = highest
            scale = largest

    def place(turn: float) -> NDArray:
        return (_view(paths, lines.way, turn, drift) - (low + high) / 2) * scale + middle

    return place


def _view(paths: NDArray, way: NDArray, turn: float, drift: NDArray) -> NDArray:
    """Return paths (S, N, d) as seen after a turn, with y downwards and the drift: (S, N, 2)."""
    return seen(paths, turn) * [1, -1] + drift * way[:, None, None]


def _bounds(
    paths: NDArray,
    way: NDArray,
    turns: Sequence[float] | NDArray,
    drift: NDArray,
) -> tuple[NDArray, NDArray]:
    """Return the lowest and highest coordinates of the paths over all turns, both (2,)."""
    views = [_view(paths, way, turn, drift) for turn in turns]
    lowest = np.min([view.min((0, 1)) for view in views], 0)
    highest = np.max([view.max((0, 1)) for view in views], 0)
    return lowest, highest


def _drifts(
    paths: NDArray,
    size: tuple[int, int],
    turns: Sequence[float] | NDArray,
) -> list[NDArray]:
    """Return the drifts, each (2,), among which `camera` chooses: none in a square picture."""
    width, height = size
    if width <= height:
        return [np.zeros(2)]
    ends = [seen(paths[[0, -1]], turn) * [1, -1] for turn in turns]
    drifts = []
    for axis in (0, 1):
        drift = np.zeros(2)
        drift[axis] = max(_distance_apart(view[..., axis]) for view in ends)
        drifts.append(drift)
    return drifts


def _distance_apart(ends: NDArray) -> float:
    """Return how far the ends (2, N) must drift for noise and data to stand nearly side by side."""
    begin, end = ends
    return (np.ptp(begin) + np.ptp(end)) / OVERLAP - end.max() + begin.min()


def _fitting(extent: NDArray, room: NDArray) -> float:
    """Return the largest scale, in pixels per unit, at which an extent (2,) fits into a room (2,)."""
    return float(np.min(room / np.maximum(extent, 1e-12)))


# ---------------------------------------------------------------- colours, lines, dots, text


def colours_of(lines: FlowLines) -> NDArray:
    """Return the light (N, 3) of each path, which depends on where the path ends."""
    if lines.parts > 1:
        return LIGHTS[lines.reached % len(LIGHTS)] ** GAMMA
    positions = np.linspace(0, 1, len(LIGHT_RAMP))
    channels = [np.interp(lines.reached, positions, stops) for stops in LIGHT_RAMP.T]
    return np.stack(channels, 1) ** GAMMA


def words(lines: FlowLines, size: tuple[int, int], bar_text: str = "") -> Light:
    """Return the text of a picture as light (H, W, 3).

    At the lower left stand the title and below it the sampler and the meaning of the colours; at the
    lower right the text of a film's bar.
    """
    width, height = size
    edge = MARGIN * height
    page = Image.new("L", (width, height))
    draw = ImageDraw.Draw(page)

    texts = _text_lines(lines, size)
    letters = height * (NARROW_LETTERS if _is_narrow(size) else LETTERS)
    font = ImageFont.load_default(letters)
    while max(draw.textlength(text, font) for text in texts) > width - 2 * edge:
        letters *= 0.97  # letters are fitted to pixels, so that their width is not proportional to their size
        font = ImageFont.load_default(letters)

    first = _first_line_at(size)
    for i, text in enumerate(texts):
        y = (first + i * LINE_SPACING) * height
        draw.text((edge, y), text, fill=255, font=font, anchor="lm")
    before_bar = width - edge - 1.1 * height // BAR_LENGTH
    draw.text((before_bar, first * height), bar_text, fill=255, font=font, anchor="rm")

    grey = np.asarray(page, np.float32)[..., None]
    return grey.repeat(3, 2) * np.float32(TEXT / 255)


def _text_lines(lines: FlowLines, size: tuple[int, int]) -> list[str]:
    """Return the lines of text of a picture of that size."""
    paths = f"{len(lines.reached):,} paths from noise to data by {lines.by}"
    colours = f"coloured by {lines.what}"
    if _is_narrow(size):
        return [lines.title, paths, colours]
    return [lines.title, f"{paths}, {colours}"]


def _is_narrow(size: tuple[int, int]) -> bool:
    """Return whether a picture of that (width, height) is a square or higher than wide."""
    width, height = size
    return width <= height


def below(size: tuple[int, int]) -> float:
    """Return the room below the lines, where the text is, as a share of the height."""
    return 1 - _first_line_at(size) + LINE_SPACING


def _first_line_at(size: tuple[int, int]) -> float:
    """Return how far down the first line of text stands, as a share of the height."""
    return LAST_LINE_AT - (2 if _is_narrow(size) else 1) * LINE_SPACING


def _line_width(height: int) -> float:
    """Return the width of a line, which is one pixel in a picture that is 1080 pixels high."""
    return height / SIZES["flow"][1]


def _brightness(way: float, unit: float) -> float:
    """Return the light of a line per pixel, which rises with its way from noise 0 to data 1."""
    return LINE * unit * (FAINTEST + (1 - FAINTEST) * way)


def _draw_lines(
    light: Light,
    at: NDArray,
    way: NDArray,
    colours: NDArray,
    unit: float,
    spacing: float = DROP_SPACING,
) -> None:
    """Add lines through `at` (S, N, 2), brighter the further they are on their way (S,)."""
    for i in range(len(at) - 1):
        stroke(light, at[i], at[i + 1], colours * _brightness(way[i], unit), spacing)


def _draw_start_dots(light: Light, at: NDArray, unit: float) -> None:
    """Add a grey dot at each of the places `at` (N, 2) where lines begin."""
    dots(light, at, np.tile(START_DOT, (len(at), 1)), unit)


def _draw_end_dots(light: Light, at: NDArray, colours: NDArray, unit: float) -> None:
    """Add a coloured dot at each of the places `at` (N, 2) where lines end."""
    dots(light, at, 0.6 * colours + END_DOT, END_DOT_RADIUS * unit)


def _draw_noise_bar(light: Light, noise: float) -> None:
    """Add a bar at the right of the title. Its length and colour show the noise, 0 .. 1."""
    height, width, _ = light.shape
    length = height // BAR_LENGTH
    thickness = height // BAR_THICKNESS
    top = round(_first_line_at((width, height)) * height) - thickness // 2
    right = round(width - MARGIN * height)
    bar = light[top : top + thickness, right - length : right]
    bar += BAR_LIGHT
    bar[:, : round(noise * length)] += noise_colours(noise) / 255
