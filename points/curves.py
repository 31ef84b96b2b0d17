"""Exact distributions of point sets: a list of parts, of equal mass, for each set; each part is a label."""

import math

import numpy as np
import torch

from points.mixture import GaussianMixture, curve, mixed, surface

ROLL = 4.5 * math.pi  # where scikit-learn's swiss roll ends, from a third of that on: there its radius is 1 here
DEPTH = 1.5  # of the surfaces in three dimensions


def moons(noise: float) -> list[GaussianMixture]:
    """scikit-learn's two moons: the upper half circle, then the lower."""
    return [
        curve(lambda a: np.stack([np.cos(a), np.sin(a)], 1), 0, math.pi, noise, math.pi),
        curve(lambda a: np.stack([1 - np.cos(a), 0.5 - np.sin(a)], 1), 0, math.pi, noise, math.pi),
    ]


def circles(noise: float, factor: float) -> list[GaussianMixture]:
    """Two circles around the origin: radius 1, then radius `factor`."""
    return [
        curve(lambda a, r=r: r * np.stack([np.cos(a), np.sin(a)], 1), 0, 2 * math.pi, noise, 2 * math.pi * r)
        for r in (1.0, factor)
    ]


def gaussians(noise: float, modes: int) -> list[GaussianMixture]:
    """Equal Gaussians on a circle of radius 1."""
    angles = 2 * math.pi * torch.arange(modes) / modes
    return [GaussianMixture(torch.stack([a.cos(), a.sin()])[None], noise**2) for a in angles]


def grid(noise: float, side: int) -> list[GaussianMixture]:
    """Equal Gaussians on a square grid of side x side, from -1 to 1; row by row, from below."""
    places = torch.linspace(-1, 1, side, dtype=torch.float64) if side > 1 else torch.zeros(1)
    return [GaussianMixture(torch.stack([x, y])[None], noise**2) for y in places for x in places]


def checkerboard(noise: float) -> list[GaussianMixture]:
    """The eight black squares of a board of 4 x 4 from -1 to 1: uniform on each, with Gaussian noise."""
    corners = [(i / 2 - 1, j / 2 - 1) for j in range(4) for i in range(4) if (i + j) % 2 == 0]
    return [surface(lambda u, v, x=x, y=y: np.stack([x + u / 2, y + v / 2], 1), noise, (0.5, 0.5)) for x, y in corners]


def swiss_roll(noise: float) -> list[GaussianMixture]:
    """The rolled-up line of scikit-learn's swiss roll, without its depth, scaled to radius 1."""
    return [curve(lambda a: _arm(a / ROLL, a), ROLL / 3, ROLL, noise, 9.5)]


def swiss_roll_3d(noise: float) -> list[GaussianMixture]:
    """scikit-learn's swiss roll, a rolled-up sheet, scaled to radius 1; its depth, here the second axis, is DEPTH."""

    def sheet(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        angle = ROLL * (1 + 2 * u) / 3
        x, z = _arm(angle / ROLL, angle).T
        return np.stack([x, DEPTH * (v - 0.5), z], 1)

    return [surface(sheet, noise, (9.5, DEPTH))]


def s_curve(noise: float) -> list[GaussianMixture]:
    """scikit-learn's s-curve: two three-quarter cylinders of radius 1 that meet, of depth DEPTH."""

    def half(sign: int, u: np.ndarray, v: np.ndarray) -> np.ndarray:  # the curvature jumps where the two meet
        angle = 1.5 * math.pi * u
        return np.stack([sign * np.sin(angle), DEPTH * (v - 0.5), sign * (np.cos(angle) - 1)], 1)

    return [mixed([surface(lambda u, v, s=s: half(s, u, v), noise, (1.5 * math.pi, DEPTH)) for s in (-1, 1)])]


def spirals(noise: float, arms: int) -> list[GaussianMixture]:
    """Arms that wind outwards from near the centre, one and a half turns, to radius 1."""
    return [
        curve(lambda a, k=k: _arm(a, 3 * math.pi * a + 2 * math.pi * k / arms), 0.1, 1, noise, 8.6) for k in range(arms)
    ]


def pinwheel(noise: float, arms: int) -> list[GaussianMixture]:
    """Bent blades, as in Johnson et al. 2016 (arXiv 1603.06277, figure 2): r turns by exp(r) / 4.

    Ours are even in r and equally wide everywhere, so that the exact distribution is known; scaled to radius 1.
    """

    def blade(r: np.ndarray, k: int) -> np.ndarray:
        return _arm(r / 1.7, np.exp(r) / 4 + 2 * math.pi * k / arms)

    return [curve(lambda r, k=k: blade(r, k), 0.3, 1.7, noise, 2.1) for k in range(arms)]


def helix(noise: float) -> list[GaussianMixture]:
    """A screw line in three dimensions: two turns of radius 1, height 2."""
    turns = 4 * math.pi
    return [curve(lambda a: np.stack([np.cos(a), np.sin(a), 2 * a / turns - 1], 1), 0, turns, noise, turns + 2)]


def _arm(radius: np.ndarray, angle: np.ndarray) -> np.ndarray:
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
