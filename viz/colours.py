"""The colours of moonwalk, the same in stills, animations and recordings."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from runtime.arrays import floats

# Clean -> noise: lightness falls evenly from 78 to 40 (CIELAB), and the hue turns from green to red. So whoever cannot
# tell green from red still sees light turn into dark (tests/test_colours.py simulates that).
NOISE_STOPS = np.array([[99, 215, 137], [144, 179, 70], [170, 139, 28], [184, 93, 21], [183, 32, 47]], dtype=float)
TRACKED = (0, 200, 220)  # cyan
DATA = (150, 150, 150)  # grey: real, clean data
GENERATED = (56, 128, 214)  # blue: what the network makes, far from every colour of noise
ERROR = (140, 60, 160)  # purple: a difference from the exact answer
# Labels: Okabe and Ito 2008, "Color Universal Design"; without the vermilion, which is that of noise
CLASSES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#8a7a00", "#6a51a3", "#777777")
GROUND = (58, 82, 130)  # between images: neither a shade of grey, as noise is, nor black or white

# in recordings, on a dark ground; alpha darkens there instead of blending, so these are opaque and dark
RING = (62, 70, 84)
SCORE = (72, 96, 140)  # blue: the network's
SCORE_EXACT = (190, 120, 60)
GUESS = (240, 240, 240)
LABEL = (200, 200, 200)
LOSS = (72, 120, 190)

# of flow lines, on a dark ground, where light adds up: of parts, blue and orange first, which everyone can tell; and
# along a set that is one piece, cold to warm
LIGHTS = np.array([
    (255, 140, 40), (60, 140, 255), (60, 220, 130), (255, 95, 170), (255, 215, 80), (160, 110, 255), (70, 225, 235),
    (255, 80, 70),
]) / 255  # fmt: skip
ALONG = np.array([(60, 140, 255), (160, 110, 255), (255, 95, 170), (255, 140, 40), (255, 215, 80)]) / 255

# of things that stand beside each other, such as samplers
PALETTE = [
    (31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189), (200, 170, 0), (227, 119, 194),
    (140, 86, 75), (23, 190, 207), (127, 127, 127),
]  # fmt: skip


def noise_colours(share: ArrayLike) -> NDArray[np.uint8]:
    """RGB for noise of amplitude sigma = sqrt(1 - alpha-bar), 0 (light green) to 1 (dark red): (*share.shape, 3)."""
    at = floats(share, "share").double().numpy().clip(0, 1)
    stops = np.linspace(0, 1, len(NOISE_STOPS))
    channels = [np.interp(at, stops, NOISE_STOPS[:, i]) for i in range(3)]
    return np.stack(channels, -1).round().astype(np.uint8)


def hex_colour(rgb: ArrayLike) -> str:
    """'#rrggbb', as matplotlib wants it."""
    return "#" + "".join(f"{int(c):02x}" for c in np.asarray(rgb))
