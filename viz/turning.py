"""Points in three dimensions on a flat picture."""

import numpy as np
from numpy.typing import NDArray

FEW_DEGREES = 35  # above the horizon: from where they are seen; from lower the turns of a helix are lines


def seen(points: NDArray, turn: float) -> NDArray:
    """Points (..., 2) as they are, (..., 3) from the side and a little above, after a turn in radians: (..., 2)."""
    if points.shape[-1] == 2:
        return points
    x, y, z = np.moveaxis(points, -1, 0)
    right, away = x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)
    above = np.radians(FEW_DEGREES)
    return np.stack([right, z * np.cos(above) + away * np.sin(above)], -1)
