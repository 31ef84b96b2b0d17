"""What has been observed of a point or an image, y = A x_0 + noise, and what the exact distribution makes of it.

Of a Gaussian mixture the posterior is a mixture again: every component is conditioned (one gain serves them all, as
they share their covariance), and those that explain y better weigh more. Its covariance is not diagonal where the
observation mixes coordinates, so it is no `GaussianMixture`; draws and density are exact all the same.
"""

import math
import re
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from points.mixture import GaussianMixture

COORDINATES = "xyz"
FARTHEST = 6.0  # standard deviations: an observation farther than that from all components contradicts the set
FINEST = 1e-4  # of an observation's noise, as a distance from its line


class Observation(NamedTuple):
    """y = A x + noise of standard deviation `noise` in each part; x is flattened to d numbers.

    matrix: A (m, d); value: y (m,), or (B, m) where each of B rows has seen something else.
    """

    matrix: Tensor
    value: Tensor
    noise: float

    def of(self, x: Tensor) -> Tensor:
        """A x: (B, *dims) -> (B, m)."""
        return x.flatten(1) @ self.matrix.to(x).T

    def back(self, v: Tensor, like: Tensor) -> Tensor:
        """A^T v, in the shape of `like`: (B, m) -> (B, *dims)."""
        return (v @ self.matrix.to(v)).reshape(like.shape)

    def log_likelihood(self, x: Tensor, spread: float = 0.0) -> Tensor:
        """log N(y; A x, noise^2 + spread A A^T): how well each x (B, *dims), known to so much, explains y. (B,)"""
        A = self.matrix.to(x)
        covariance = self.noise**2 * torch.eye(len(A)).to(x) + spread * A @ A.T
        return torch.distributions.MultivariateNormal(self.of(x), covariance).log_prob(self.value.to(x))

    def scaled(self, shift: Tensor, scale: Tensor) -> "Observation":
        """The same observation of (x - shift) / scale, such as normalised data. shift, scale: (*dims)."""
        shift, scale = shift.double().flatten(), scale.double().flatten()
        return Observation(self.matrix * scale, self.value - self.matrix @ shift, self.noise)


# ---------------------------------------------------------------- in words


def read_line(text: str, dim: int, noise: float) -> Observation:
    """A coordinate or a line, such as y=0.2 or 2x-y=0.3, of points of `dim` coordinates (the first three have names).

    Raises:
        ValueError: it is none.
    """
    names = COORDINATES[: min(dim, 3)]
    left, _, right = text.replace(" ", "").lower().partition("=")
    left, row = left if left[:1] in ("+", "-") else f"+{left}", torch.zeros(dim, dtype=torch.float64)
    term = re.compile(rf"([+-])(?:(\d+\.?\d*|\.\d+)\*?)?([{names}])")
    for sign, factor, name in term.findall(left):
        row[names.index(name)] += float(f"{sign}{factor or 1}")
    try:
        value = float(right)
    except ValueError:
        value = math.nan
    if term.sub("", left) or not math.isfinite(value) or not bool(row.any()):
        raise ValueError(
            f"observe={text} is no observation of a point with the coordinates {', '.join(names)}:"
            " give one as in observe=y=0.2, or a line as in observe=2x-y=0.3"
        )
    if (precision := noise / float(row.norm())) < FINEST:
        raise ValueError(
            f"observe={text} is all but infinitely precise, known to {precision:.1g} across its line: give smaller"
            " factors, or raise observe_noise"
        )
    return Observation(row[None], torch.tensor([value], dtype=torch.float64), noise)


MASKS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {  # what is observed; x and y run from 0 to 1, y downwards
    "left": lambda x, y: x < 0.5,
    "right": lambda x, y: x >= 0.5,
    "top": lambda x, y: y < 0.5,
    "bottom": lambda x, y: y >= 0.5,
    "centre": lambda x, y: (x - 0.5).abs().maximum((y - 0.5).abs()) < 0.25,
}


def read_mask(text: str, image: Tensor, noise: float) -> Observation:
    """mask:left, or another of MASKS: these pixels of `image` (C, H, W), to which noise is still to be added.

    Raises:
        ValueError: it is none.
    """
    word, _, name = text.replace(" ", "").partition(":")
    if word != "mask" or name not in MASKS:
        known = ", ".join(f"mask:{mask}" for mask in MASKS)
        raise ValueError(f"observe={text} is no observation of an image: choose one of {known}")
    _, height, width = image.shape
    y, x = torch.meshgrid((torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij")
    seen = MASKS[name](x, y).expand(image.shape).flatten()
    return Observation(torch.eye(seen.numel(), dtype=torch.float64)[seen], image.double().flatten()[seen], noise)


# ---------------------------------------------------------------- the exact posterior


def check_possible(mixture: GaussianMixture, seen: Observation, text: str) -> None:
    """Raises ValueError where no component of the set comes near to the observation of one number."""
    expected, spread = _expected(mixture, seen)
    if bool(((seen.value - expected).abs() > FARTHEST * spread.diagonal().sqrt()).all(0).any()):
        low, high = float(expected.min()), float(expected.max())
        raise ValueError(
            f"observe={text} contradicts the data set, in which {text.partition('=')[0]} lies around {low:.2g}"
            f" to {high:.2g}: observe a value there, or raise observe_noise"
        )


def draw_posterior(mixture: GaussianMixture, seen: Observation, count: int, generator: torch.Generator) -> Tensor:
    """Exact draws of x_0 given y: (count, d), float64.

    A component by its weight, a point of it and what would have been observed there, moved by the gain times how far
    that is off (Matheron's rule: Hoffman and Ribak 1991).
    """
    part = _log_weights(mixture, seen).softmax(0).multinomial(count, replacement=True, generator=generator)
    noise = torch.randn(count, mixture.dim, generator=generator, dtype=torch.float64)
    x = mixture.centres[part] + mixture.variance.sqrt() * noise
    y = seen.of(x) + seen.noise * torch.randn(count, len(seen.value), generator=generator, dtype=torch.float64)
    gain = torch.linalg.solve(_expected(mixture, seen)[1], seen.matrix * mixture.variance)  # (m, d)
    return x + (seen.value - y) @ gain


def _expected(mixture: GaussianMixture, seen: Observation) -> tuple[Tensor, Tensor]:
    """What each component leads one to observe: A c (M, m), and the covariance around it that they share (m, m)."""
    A, identity = seen.matrix, torch.eye(len(seen.value), dtype=torch.float64)
    return mixture.centres @ A.T, (A * mixture.variance) @ A.T + seen.noise**2 * identity


def _log_weights(mixture: GaussianMixture, seen: Observation) -> Tensor:
    """log(weight) + log p(y | component): (M,)."""
    expected, covariance = _expected(mixture, seen)
    of_y = torch.distributions.MultivariateNormal(expected, covariance)
    return mixture.weights.log() + of_y.log_prob(seen.value)
