"""Points in three dimensions on a flat picture."""

import numpy as np
from numpy.typing import NDArray

# The angle above the horizon from which the points are seen. From a lower angle the turns of a
# helix would look like lines.
ELEVATION_DEGREES = 35


def seen(points: NDArray, turn: float) -> NDArray:
    """Return the place of points on a picture, after a turn about the vertical axis.

    Args:
        points: (..., 2), returned as they are, or (..., 3), projected in parallel.
        turn: in radians.

    Returns:
        Places (..., 2): to the right and up.
    """
    if points.shape[-1] == 2:
        return points
    x, y, z = np.moveaxis(points, -1, 0)
    right = x * np.cos(turn) - y * np.sin(turn)
    away = x * np.sin(turn) + y * np.cos(turn)
    elevation = np.radians(ELEVATION_DEGREES)
    up = z * np.cos(elevation) + away * np.sin(elevation)
    return np.stack([right, up], -1)
