"""Point sets by name: curves, surfaces and Gaussians.

Each function returns the parts of a set's exact distribution. All parts have equal mass, and the
index of a part is the label of its points. `noise` is the standard deviation of the Gaussian noise
around the curve or surface.
"""

import math

import numpy as np
import torch

from points.mixture import GaussianMixture, curve, equal_mixture, surface

ROLL_END = 4.5 * math.pi  # the last angle of scikit-learn's swiss roll; its first is a third of it
ROLL_LENGTH = 9.5  # an upper bound of |d point / d angle|, times the range of the angle
DEPTH = 1.5  # of the surfaces in three dimensions


# ---------------------------------------------------------------- two dimensions


def moons(noise: float) -> list[GaussianMixture]:
    """Return scikit-learn's two moons: the upper half circle, then the lower."""

    def upper(angle: np.ndarray) -> np.ndarray:
        return np.stack([np.cos(angle), np.sin(angle)], 1)

    def lower(angle: np.ndarray) -> np.ndarray:
        return np.stack([1 - np.cos(angle), 0.5 - np.sin(angle)], 1)

    return [
        curve(upper, 0, math.pi, noise, length=math.pi),
        curve(lower, 0, math.pi, noise, length=math.pi),
    ]


def circles(noise: float, factor: float) -> list[GaussianMixture]:
    """Return two circles around the origin, of radius 1 and of radius `factor`."""
    return [_circle(1.0, noise), _circle(factor, noise)]


def _circle(radius: float, noise: float) -> GaussianMixture:
    def path(angle: np.ndarray) -> np.ndarray:
        return radius * np.stack([np.cos(angle), np.sin(angle)], 1)

    return curve(path, 0, 2 * math.pi, noise, length=2 * math.pi * radius)


def gaussians(noise: float, modes: int) -> list[GaussianMixture]:
    """Return `modes` Gaussians of standard deviation `noise` on a circle of radius 1."""
    parts = []
    for angle in 2 * math.pi * torch.arange(modes) / modes:
        centre = torch.stack([angle.cos(), angle.sin()])
        parts.append(GaussianMixture(centre[None], noise**2))
    return parts


def grid(noise: float, side: int) -> list[GaussianMixture]:
    """Return side x side Gaussians on a square grid from -1 to 1, row by row from the bottom."""
    places = torch.zeros(1)
    if side > 1:
        places = torch.linspace(-1, 1, side, dtype=torch.float64)
    parts = []
    for y in places:
        for x in places:
            centre = torch.stack([x, y])
            parts.append(GaussianMixture(centre[None], noise**2))
    return parts


def checkerboard(noise: float) -> list[GaussianMixture]:
    """Return the eight black squares of a 4 x 4 board from -1 to 1, uniform on each square."""
    parts = []
    for row in range(4):
        for column in range(4):
            if (row + column) % 2 == 0:
                parts.append(_square(column / 2 - 1, row / 2 - 1, noise))
    return parts


def _square(left: float, bottom: float, noise: float) -> GaussianMixture:
    def sheet(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        return np.stack([left + u / 2, bottom + v / 2], 1)

    return surface(sheet, noise, lengths=(0.5, 0.5))


def swiss_roll(noise: float) -> list[GaussianMixture]:
    """Return the rolled-up line of scikit-learn's swiss roll, without its depth, of radius 1."""

    def path(angle: np.ndarray) -> np.ndarray:
        return _polar(angle / ROLL_END, angle)

    return [curve(path, ROLL_END / 3, ROLL_END, noise, length=ROLL_LENGTH)]


def spirals(noise: float, arms: int) -> list[GaussianMixture]:
    """Return arms that wind outwards from radius 0.1 to radius 1, about one and a half turns."""
    return [_spiral_arm(2 * math.pi * k / arms, noise) for k in range(arms)]


def _spiral_arm(first_angle: float, noise: float) -> GaussianMixture:
    def path(radius: np.ndarray) -> np.ndarray:
        return _polar(radius, 3 * math.pi * radius + first_angle)

    return curve(path, 0.1, 1, noise, length=8.6)


def pinwheel(noise: float, arms: int) -> list[GaussianMixture]:
    """Return bent blades: the angle of a blade grows with its radius r as exp(r) / 4.

    They resemble those of Johnson et al. 2016 (arXiv 1603.06277), figure 2. Here they are uniform
    in r and equally wide everywhere, so that the exact distribution is known. The radius is scaled
    to at most 1.
    """
    return [_blade(2 * math.pi * k / arms, noise) for k in range(arms)]


def _blade(first_angle: float, noise: float) -> GaussianMixture:
    def path(r: np.ndarray) -> np.ndarray:
        return _polar(r / 1.7, np.exp(r) / 4 + first_angle)

    return curve(path, 0.3, 1.7, noise, length=2.1)


# ---------------------------------------------------------------- three dimensions


def swiss_roll_3d(noise: float) -> list[GaussianMixture]:
    """Return scikit-learn's swiss roll, a rolled-up sheet, scaled to radius 1.

    Its second coordinate is the depth, from -DEPTH / 2 to DEPTH / 2.
    """

    def sheet(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        angle = ROLL_END * (1 + 2 * u) / 3
        x, z = _polar(angle / ROLL_END, angle).T
        return np.stack([x, DEPTH * (v - 0.5), z], 1)

    return [surface(sheet, noise, lengths=(ROLL_LENGTH, DEPTH))]


def s_curve(noise: float) -> list[GaussianMixture]:
    """Return scikit-learn's s-curve: two three-quarter cylinders of radius 1 that meet.

    The curvature jumps where they meet, so each half has a smooth surface of its own.
    """
    return [equal_mixture([_half_s(-1, noise), _half_s(1, noise)])]


def _half_s(sign: int, noise: float) -> GaussianMixture:
    def sheet(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        angle = 1.5 * math.pi * u
        x = sign * np.sin(angle)
        z = sign * (np.cos(angle) - 1)
        return np.stack([x, DEPTH * (v - 0.5), z], 1)

    return surface(sheet, noise, lengths=(1.5 * math.pi, DEPTH))


def helix(noise: float) -> list[GaussianMixture]:
    """Return a helix: two turns of radius 1, from height -1 to 1."""
    last_angle = 4 * math.pi

    def path(angle: np.ndarray) -> np.ndarray:
        return np.stack([np.cos(angle), np.sin(angle), 2 * angle / last_angle - 1], 1)

    return [curve(path, 0, last_angle, noise, length=last_angle + 2)]


def _polar(radius: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Return the points (M, 2) at these polar coordinates (M,)."""
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
