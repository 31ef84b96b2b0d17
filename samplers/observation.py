"""Observations y = A x_0 + noise of a point or an image, and the exact posterior given one.

The posterior of a Gaussian mixture is a mixture again. Every component is conditioned (one gain serves them all, as
they share their covariance), and components that explain y better get more weight. Its covariance is not diagonal where
the observation mixes coordinates, so it is no `GaussianMixture`. Draws and density are exact all the same.
"""

import math
import re
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from points.mixture import GaussianMixture

COORDINATES = "xyz"
DISTANCE_MAX = 6.0  # standard deviations: an observation farther than that from all components contradicts the set
PRECISION_MIN = 1e-4  # of an observation's noise, as a distance from its line


class Observation(NamedTuple):
    """y = A x + noise of standard deviation `noise` in each part; x is flattened to d numbers.

    matrix: A (m, d); value: y (m,), or (B, m) where each of B rows has an observation of its own.
    """

    matrix: Tensor
    value: Tensor
    noise: float

    def observe(self, x: Tensor) -> Tensor:
        """A x: (B, *dims) -> (B, m)."""
        return x.flatten(1) @ self.matrix.to(x).T

    def adjoint(self, v: Tensor, like: Tensor) -> Tensor:
        """A^T v, in the shape of `like`: (B, m) -> (B, *dims)."""
        return (v @ self.matrix.to(v)).reshape(like.shape)

    def log_likelihood(self, x: Tensor, spread: float = 0.0) -> Tensor:
        """log N(y; A x, noise^2 + spread A A^T), (B,): how well each x (B, *dims), of variance `spread`, explains y."""
        A = self.matrix.to(x)
        covariance = self.noise**2 * torch.eye(len(A)).to(x) + spread * A @ A.T
        return torch.distributions.MultivariateNormal(self.observe(x), covariance).log_prob(self.value.to(x))

    def scaled(self, shift: Tensor, scale: Tensor) -> "Observation":
        """The same observation of (x - shift) / scale, such as normalised data. shift, scale: (*dims)."""
        shift = shift.double().flatten()
        scale = scale.double().flatten()
        return Observation(self.matrix * scale, self.value - self.matrix @ shift, self.noise)


# ---------------------------------------------------------------- observations from text


def read_line(text: str, dim: int, noise: float) -> Observation:
    """A coordinate or a line, such as y=0.2 or 2x-y=0.3, of points of `dim` coordinates (the first three have names).

    Raises:
        ValueError: the text is no such observation, or it is too precise.
    """
    names = COORDINATES[: min(dim, 3)]
    left, _, right = text.replace(" ", "").lower().partition("=")
    if left[:1] not in ("+", "-"):
        left = f"+{left}"
    row = torch.zeros(dim, dtype=torch.float64)
    term = re.compile(rf"([+-])(?:(\d+\.?\d*|\.\d+)\*?)?([{names}])")
    for sign, factor, name in term.findall(left):
        row[names.index(name)] += float(f"{sign}{factor or 1}")
    try:
        value = float(right)
    except ValueError:
        value = math.nan

    rest = term.sub("", left)
    if rest or not math.isfinite(value) or not bool(row.any()):
        raise ValueError(
            f"observe={text} is no observation of a point with the coordinates {', '.join(names)}:"
            " give one as in observe=y=0.2, or a line as in observe=2x-y=0.3"
        )
    precision = noise / float(row.norm())
    if precision < PRECISION_MIN:
        raise ValueError(
            f"observe={text} is all but infinitely precise, known to {precision:.1g} across its line: give smaller"
            " factors, or raise observe_noise"
        )
    return Observation(row[None], torch.tensor([value], dtype=torch.float64), noise)


# Which pixels are observed; x and y run from 0 to 1, y downwards.
MASKS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "left": lambda x, y: x < 0.5,
    "right": lambda x, y: x >= 0.5,
    "top": lambda x, y: y < 0.5,
    "bottom": lambda x, y: y >= 0.5,
    "centre": lambda x, y: (x - 0.5).abs().maximum((y - 0.5).abs()) < 0.25,
}


def read_mask(text: str, image: Tensor, noise: float) -> Observation:
    """mask:left, or another of MASKS: these pixels of `image` (C, H, W), to which noise is still to be added.

    Raises:
        ValueError: an unknown mask.
    """
    word, _, name = text.replace(" ", "").partition(":")
    if word != "mask" or name not in MASKS:
        known = ", ".join(f"mask:{mask}" for mask in MASKS)
        raise ValueError(f"observe={text} is no observation of an image: choose one of {known}")
    _, height, width = image.shape
    rows = (torch.arange(height) + 0.5) / height
    columns = (torch.arange(width) + 0.5) / width
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    observed = MASKS[name](x, y).expand(image.shape).flatten()
    matrix = torch.eye(observed.numel(), dtype=torch.float64)[observed]
    return Observation(matrix, image.double().flatten()[observed], noise)


# ---------------------------------------------------------------- the exact posterior


def check_possible(mixture: GaussianMixture, observation: Observation, text: str) -> None:
    """Raises ValueError where no component of the set comes near to the observation of one number."""
    expected, covariance = _expected_y(mixture, observation)
    distance = (observation.value - expected).abs()
    too_far = distance > DISTANCE_MAX * covariance.diagonal().sqrt()
    if bool(too_far.all(0).any()):
        low = float(expected.min())
        high = float(expected.max())
        raise ValueError(
            f"observe={text} contradicts the data set, in which {text.partition('=')[0]} lies around {low:.2g}"
            f" to {high:.2g}: observe a value there, or raise observe_noise"
        )


def draw_posterior(
    mixture: GaussianMixture, observation: Observation, count: int, generator: torch.Generator
) -> Tensor:
    """Exact draws of x_0 given y: (count, d), float64.

    A component is drawn by its weight, then a point x of it and an observation of x. The point is moved by the gain
    times the difference between y and that observation (Matheron's rule: Hoffman and Ribak 1991).
    """
    weights = _log_weights(mixture, observation).softmax(0)
    component = weights.multinomial(count, replacement=True, generator=generator)
    x_noise = torch.randn(count, mixture.dim, generator=generator, dtype=torch.float64)
    x = mixture.centres[component] + mixture.variance.sqrt() * x_noise
    y_noise = torch.randn(count, len(observation.value), generator=generator, dtype=torch.float64)
    y = observation.observe(x) + observation.noise * y_noise
    _, covariance = _expected_y(mixture, observation)
    gain = torch.linalg.solve(covariance, observation.matrix * mixture.variance)  # (m, d)
    return x + (observation.value - y) @ gain


def _expected_y(mixture: GaussianMixture, observation: Observation) -> tuple[Tensor, Tensor]:
    """The expected observation of each component, A c (M, m), and the covariance around it that they share (m, m)."""
    A = observation.matrix
    identity = torch.eye(len(observation.value), dtype=torch.float64)
    return mixture.centres @ A.T, (A * mixture.variance) @ A.T + observation.noise**2 * identity


def _log_weights(mixture: GaussianMixture, observation: Observation) -> Tensor:
    """log(weight) + log p(y | component): (M,)."""
    expected, covariance = _expected_y(mixture, observation)
    y_distribution = torch.distributions.MultivariateNormal(expected, covariance)
    return mixture.weights.log() + y_distribution.log_prob(observation.value)
