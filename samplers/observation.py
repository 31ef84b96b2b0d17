"""Observations y = A x_0 + noise of a point or an image, and the exact posterior given one.

The posterior of a Gaussian mixture is a mixture again. Every component is conditioned (one gain serves them all, as
they share their covariance), and components that explain y better get more weight. Its covariance is not diagonal where
the observation mixes coordinates, so it is no `GaussianMixture`. Draws and density are exact all the same.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from points.mixture import GaussianMixture

MAX_LISTED = 20  # coordinates that an error names
DISTANCE_MAX = 6.0  # standard deviations: an observation farther than that from all components contradicts the set
PLAIN_NAME = re.compile(r"[^\W\d]\w*")
TERM_START = re.compile(r"\s*([+-]?)\s*")
FACTOR = re.compile(r"(\d+\.?\d*|\.\d+)\s*\*?\s*")
NAME_END = re.compile(r"\s*([+-]|$)")
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


def read_line(text: str, names: Sequence[str], noise: float, std: Tensor | None = None) -> Observation:
    """A coordinate or a line, such as y=0.2 or 2x-y=0.3, of points whose coordinates have these names (d).

    A name with spaces or signs in it may stand in quotes. x1, x2 ... are the coordinates by their positions.

    Args:
        noise: the standard deviation of the noise.
        std: that of each coordinate (d,); the precision is then judged in units of it.

    Raises:
        ValueError: the text is no such observation, or it is too precise.
    """
    row, value = read_terms(text, names)
    scaled_row = row if std is None else row * std.double()
    precision = noise / float(scaled_row.norm())
    if precision < PRECISION_MIN:
        raise ValueError(
            f"observe={text} is all but infinitely precise, known to {precision:.1g} across its line: give smaller"
            " factors, or raise observe_noise"
        )
    return Observation(row[None], torch.tensor([value], dtype=torch.float64), noise)


def read_terms(text: str, names: Sequence[str]) -> tuple[Tensor, float]:
    """The factors (d,) of the coordinates with these names, and the observed value, as `read_line` reads them.

    Raises:
        ValueError: the text is no observation of these coordinates.
    """
    left, _, right = text.rpartition("=")
    row = torch.zeros(len(names), dtype=torch.float64)
    for sign, factor, index in _terms(left, names):
        row[index] += float(f"{sign}{factor or 1}")
    try:
        value = float(right)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or not bool(row.any()):
        raise ValueError(f"observe={text} is no observation of a point with the {_advice(names)}")
    return row, value


def _advice(names: Sequence[str]) -> str:
    """The names of the coordinates, and how to observe them."""
    quoted = [name if PLAIN_NAME.fullmatch(name) else f'"{name}"' for name in names]
    shown = ", ".join(quoted[:MAX_LISTED])
    if len(quoted) > MAX_LISTED:
        shown += f", ... ({len(quoted)} in all)"
    first = quoted[0]
    last = quoted[min(1, len(quoted) - 1)]
    return (
        f"coordinates {shown}: give one as in observe={last}=0.2, or a line as in observe=2*{first}-{last}=0.3;"
        " x1 is the first of them"
    )


def _terms(left: str, names: Sequence[str]) -> list[tuple[str, str, int]]:
    """The sign, the factor and the number of the coordinate of each term; [] where the text is no sum of them."""
    terms = []
    position = 0
    while left[position:].strip():
        start = TERM_START.match(left, position)
        assert start is not None  # it matches everything
        sign = start[1] or ("" if terms else "+")
        factor = FACTOR.match(left, start.end())
        found = _name_at(left, start.end(), names)
        if found is None and factor is not None:
            found = _name_at(left, factor.end(), names)
        elif found is not None:
            factor = None
        if not sign or found is None:
            return []
        index, position = found
        terms.append((sign, factor[1] if factor else "", index))
    return terms


def _name_at(text: str, start: int, names: Sequence[str]) -> tuple[int, int] | None:
    """The number of the coordinate whose name stands there, and where it ends; None where none does.

    A name ends before a sign or at the end. So a name may begin with a digit, or hold signs. The longest name counts.
    """
    lower_names = [name.lower() for name in names]
    best = None
    candidates = [(name, i) for i, name in enumerate(names)]
    candidates += [(name, i) for i, name in enumerate(lower_names) if lower_names.count(name) == 1]
    candidates += [(f"x{i + 1}", i) for i in range(len(names)) if f"x{i + 1}" not in lower_names]
    if len(names) > 3 and set(lower_names).isdisjoint("xyz"):
        candidates += [(name, i) for i, name in enumerate("xyz")]

    for own_name, i in candidates:
        for name in (own_name, f'"{own_name}"', f"'{own_name}'"):
            is_there = text.startswith(name, start) or text[start:].lower().startswith(name)
            end = start + len(name)
            if own_name and is_there and NAME_END.match(text, end) and (best is None or end > best[1]):
                best = (i, end)
    return best


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


def whitened_posterior(mixture: GaussianMixture, observation: Observation) -> tuple[GaussianMixture, Tensor]:
    """The exact distribution of W x given y, for x of the mixture, and W (d, d).

    W makes the covariance that all components share the identity. So this posterior is a `GaussianMixture`, too.
    """
    A = observation.matrix
    expected, covariance = _expected_y(mixture, observation)
    gain = torch.linalg.solve(covariance, A * mixture.variance)  # (m, d)
    centres = mixture.centres + (observation.value - expected) @ gain
    remaining = torch.diag(mixture.variance) - (A * mixture.variance).T @ gain
    W = torch.linalg.inv(torch.linalg.cholesky(remaining))
    weights = _log_weights(mixture, observation).softmax(0)
    return GaussianMixture(centres @ W.T, 1.0, weights), W


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
