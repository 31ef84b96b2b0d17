"""The colours of moonwalk, as RGB from 0 to 255: the same in pictures, films and recordings."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from runtime.arrays import floats

# From clean to noise. The lightness falls evenly from 78 to 40 (CIELAB) while the hue turns from
# green to red. Readers who cannot tell green from red still see a change from light to dark;
# tests/viz/test_colours.py simulates their vision.
NOISE_STOPS = np.array(
    [[99, 215, 137], [144, 179, 70], [170, 139, 28], [184, 93, 21], [183, 32, 47]],
    dtype=float,
)
TRACKED = (0, 200, 220)  # cyan: samples whose paths are drawn
DATA = (150, 150, 150)  # grey: real, clean data
GENERATED = (56, 128, 214)  # blue: samples of the network; far from every colour of noise
ERROR = (140, 60, 160)  # purple: a difference from the exact answer

# Labels: Okabe and Ito 2008, "Color Universal Design", without vermilion, which resembles noise.
CLASSES = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#8a7a00",
    "#6a51a3",
    "#777777",
)

# Between the images of a grid: no shade of grey, because noise is grey; neither black nor white.
GROUND = (58, 82, 130)

# Recordings have a dark ground, and their viewer darkens instead of blending where alpha is below
# 1. These colours are therefore opaque and dark.
RING = (62, 70, 84)
NOISE_ON_DARK = (228, 100, 94)  # light red: noise that does not move, readable on the dark ground
SCORE = (72, 96, 140)  # blue: the network's score
SCORE_EXACT = (190, 120, 60)
PREDICTION = (240, 240, 240)  # the x_0 that the network predicts
LABEL = (200, 200, 200)
LOSS = (72, 120, 190)

# Flow lines are light on a dark ground, and light adds up. LIGHTS colours the parts of a data set;
# its first two, orange and blue, are distinct for every reader. LIGHT_RAMP runs along a data set
# that has one part, from cold to warm.
LIGHTS = np.divide(
    [
        (255, 140, 40),
        (60, 140, 255),
        (60, 220, 130),
        (255, 95, 170),
        (255, 215, 80),
        (160, 110, 255),
        (70, 225, 235),
        (255, 80, 70),
    ],
    255,
)
LIGHT_RAMP = np.divide(
    [
        (60, 140, 255),
        (160, 110, 255),
        (255, 95, 170),
        (255, 140, 40),
        (255, 215, 80),
    ],
    255,
)

# Things that are compared with each other, such as samplers.
PALETTE = [
    (31, 119, 180),
    (255, 127, 14),
    (44, 160, 44),
    (214, 39, 40),
    (148, 103, 189),
    (200, 170, 0),
    (227, 119, 194),
    (140, 86, 75),
    (23, 190, 207),
    (127, 127, 127),
]


# The runs of a sweep, from the first to the last; viz/pages/report.css has the same, and mixes alike.
RUNS_ON_LIGHT = ("#1a5fb4", "#e66100")
RUNS_ON_DARK = ("#78aeed", "#ffa348")
# From linear sRGB to the responses of the eye's cones, and from their cube roots to Oklab (Ottosson
# 2020, "A perceptual color space for image processing").
CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
OKLAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def run_colours(count: int, dark: bool = False) -> list[str]:
    """Return the colours of the runs of a sweep, evenly spaced in lightness, chroma and hue of Oklab.

    Args:
        count: the number of runs.
        dark: whether the background is dark.
    """
    first, last = (_oklch(colour) for colour in (RUNS_ON_DARK if dark else RUNS_ON_LIGHT))
    turn = (last[2] - first[2] + np.pi) % (2 * np.pi) - np.pi  # the shorter way around
    way = np.array([last[0] - first[0], last[1] - first[1], turn])
    return [_from_oklch(first + rank * way) for rank in np.arange(count) / max(1, count - 1)]


def _oklch(colour: str) -> NDArray:
    """Return lightness, chroma and hue (in radians) of a colour '#rrggbb'."""
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    lightness, a, b = OKLAB @ np.cbrt(CONES @ linear)
    return np.array([lightness, np.hypot(a, b), np.arctan2(b, a)])


def _from_oklch(colour: NDArray) -> str:
    """Return the colour '#rrggbb' of lightness, chroma and hue, clipped to what a screen can show."""
    lightness, chroma, hue = colour
    lab = np.array([lightness, chroma * np.cos(hue), chroma * np.sin(hue)])
    linear = np.linalg.solve(CONES, np.linalg.solve(OKLAB, lab) ** 3).clip(0, 1)
    channels = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return hex_colour((255 * channels).round())


def noise_colours(share: ArrayLike) -> NDArray[np.uint8]:
    """Return the RGB colours of noise amplitudes sigma = sqrt(1 - alpha_bar).

    Args:
        share: amplitudes of any shape, from 0 (light green) to 1 (dark red); others are clipped.

    Returns:
        Bytes of shape (*share.shape, 3).
    """
    amplitudes = floats(share, "share").double().numpy().clip(0, 1)
    positions = np.linspace(0, 1, len(NOISE_STOPS))
    channels = []
    for stops in NOISE_STOPS.T:
        channels.append(np.interp(amplitudes, positions, stops))
    return np.stack(channels, -1).round().astype(np.uint8)


def hex_colour(rgb: ArrayLike) -> str:
    """Return a colour (3,) of bytes as matplotlib takes it: '#rrggbb'."""
    red, green, blue = (int(channel) for channel in np.asarray(rgb))
    return f"#{red:02x}{green:02x}{blue:02x}"
