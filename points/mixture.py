"""The exact distribution of a point set: a Gaussian mixture, which stays one under everything that diffusion does.

Clean data, data after t + 1 forward steps, data given a noisy point: each is again a `GaussianMixture`, so density,
score, posterior and fresh samples come from one class. Synthetic sets give theirs as curves by quadrature (`curve`);
for a finite set without noise, `GaussianMixture(points)`, the ideal denoiser memorises the points.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from runtime.arrays import floats, joined

PANEL, NODES, MOST_PANELS = 36, 78, 55  # of a curve: standard deviations a panel, nodes in each, panels at most
FINEST_EXACT = NODES * MOST_PANELS  # centres of a curve; with more, a mixture is for drawing from only
FINEST = 3000  # panels of those
FINEST_SIDE = 700  # nodes along each side of a surface at most; the square of it is for drawing from only
COARSER, COARSEST = 1.5, 0.3  # a sheet is known with ever more noise, up to where its bends need the nodes
CHUNK = 1 << 19  # point-centre pairs held at once: 4 MiB in float64, which stay in the CPU's cache


class GaussianMixture:
    """A mixture of Gaussians around `centres` (M, d) with one diagonal covariance `variance` (d,), in float64.

    Args:
        centres: (M, d).
        variance: a number or (d,); 0 for points without noise, which have a density only once noised.
        weights: (M,), positive, summing to 1; equal by default.
        noisier: the same shape with more noise, of which fewer centres draw as good a picture.
    """

    def __init__(
        self,
        centres: Tensor,
        variance: Tensor | float = 0.0,
        weights: Tensor | None = None,
        noisier: "GaussianMixture | None" = None,
    ) -> None:
        self.centres, variances = floats(centres, "centres").double(), floats(variance, "variance").double()
        if self.centres.ndim != 2 or 0 in self.centres.shape:
            raise ValueError(f"centres must have shape (M, d), not {tuple(self.centres.shape)}")
        m, d = self.centres.shape
        if variances.shape not in ((), (1,), (d,)) or bool((variances < 0).any()):
            raise ValueError(f"variance must be a number or {d} numbers, none below 0")
        self.variance, self.noisier = variances.expand(d), noisier
        self.weights = torch.full((m,), 1 / m, dtype=torch.float64)
        if weights is not None:
            self.weights = floats(weights, "weights").double()
            if self.weights.shape != (m,) or bool((self.weights < 0).any()) or abs(self.weights.sum() - 1) > 1e-6:
                raise ValueError(f"weights must be {m} numbers, none below 0, that sum to 1")

    def __eq__(self, other: object) -> bool:
        """Equal are mixtures of the same numbers."""
        return isinstance(other, GaussianMixture) and self._numbers == other._numbers

    def __hash__(self) -> int:
        return hash(self._numbers)

    @property
    def _numbers(self) -> tuple[object, ...]:
        return *(x.numpy().tobytes() for x in (self.centres, self.variance, self.weights)), self.noisier

    @property
    def dim(self) -> int:
        return self.centres.shape[1]

    @property
    def has_density(self) -> bool:
        """False for points without noise: only once noised do they have one."""
        return bool((self.variance > 0).all())

    # ------------------------------------------------------------ mixtures made from this one

    def noised(self, alpha: Tensor | float, sigma: Tensor | float) -> "GaussianMixture":
        """The distribution of x_t = alpha * x_0 + sigma * eps, both from the scheduler (Ho et al. 2020, eq. 4).

        Of a shape that is known with more noise, it has no more centres than that noise asks for.
        """
        return self._thinned(float(alpha), float(sigma))._noised(float(alpha), float(sigma))

    def scaled(self, shift: Tensor, scale: Tensor) -> "GaussianMixture":
        """The distribution of (x - shift) / scale, such as normalised data. shift, scale: (d,)."""
        shift, scale = shift.double(), scale.double()
        noisier = self.noisier and self.noisier.scaled(shift, scale)
        return GaussianMixture((self.centres - shift) / scale, self.variance / scale**2, self.weights, noisier)

    def posterior(self, x_t: Tensor, alpha: Tensor | float, sigma: Tensor | float) -> "GaussianMixture":
        """The distribution of x_0 given one noisy point x_t (d,) = alpha * x_0 + sigma * eps, by Bayes' rule."""
        alpha, sigma = float(alpha), float(sigma)
        noised = self._noised(alpha, sigma)  # all centres: given x_t, x_0 has less noise than x_t
        gain = alpha * self.variance / noised.variance  # of a Gaussian observed under Gaussian noise
        centres = self.centres + gain * (x_t.double() - noised.centres)
        weights = noised._log_terms(x_t.double()[None])[0].softmax(0)
        return GaussianMixture(centres, self.variance * sigma**2 / noised.variance, weights)

    # ------------------------------------------------------------ functions of points

    def log_density(self, x: Tensor) -> Tensor:
        """log p(x): (B, d) -> (B,), in nats, float64."""
        constant = -0.5 * (self.dim * math.log(2 * math.pi) + self._positive_variance().log().sum())
        return self._by_chunk(x, lambda part, terms: terms.logsumexp(1) + constant)

    def score(self, x: Tensor) -> Tensor:
        """The gradient of log p at x: (B, d) -> (B, d), float64."""
        variance = self._positive_variance()
        return self._by_chunk(x, lambda part, terms: (terms.softmax(1) @ self.centres - part) / variance)

    def denoise(self, x_t: Tensor, alpha: Tensor | float, sigma: Tensor | float) -> tuple[Tensor, Tensor]:
        """The best possible predictions of noise and data, E[eps | x_t] and E[x_0 | x_t], in x_t's dtype: (B, d) each.

        No denoiser has a smaller squared error. E[eps | x_t] is -sigma times the score of x_t (Tweedie's formula:
        Efron 2011; Ho et al. 2020, section 3.2); E[x_0 | x_t] is computed from the centres, not from that.
        """
        x_t, thinned = self._points(x_t), self._thinned(float(alpha), float(sigma))
        noised = thinned._noised(float(alpha), float(sigma))
        centre = noised._by_chunk(x_t, lambda part, terms: terms.softmax(1) @ thinned.centres)  # E[centre | x_t]
        minus_score = (x_t.double() - float(alpha) * centre) / noised.variance
        x_0 = centre + float(alpha) * self.variance * minus_score
        return (float(sigma) * minus_score).to(x_t), x_0.to(x_t)

    def eps(self, x_t: Tensor, alpha: Tensor | float, sigma: Tensor | float) -> Tensor:
        """E[eps | x_t] alone."""
        return self.denoise(x_t, alpha, sigma)[0]

    def eps_variance(self, x_t: Tensor, alpha: Tensor | float, sigma: Tensor | float) -> Tensor:
        """Var(eps | x_t), averaged over dims: (B, d) -> (B,). Even the best prediction has this squared error.

        1 + sigma^2 times the second derivative of log p, written out for a mixture.
        """
        noised, sigma = self.noised(alpha, sigma), float(sigma)
        c, v = noised.centres, noised.variance

        def spread(part: Tensor, terms: Tensor) -> Tensor:
            w = terms.softmax(1)
            return w @ c.square() - (w @ c).square()

        return (1 - sigma**2 / v + (sigma / v) ** 2 * noised._by_chunk(x_t, spread)).mean(1)

    def likeliest_centre(self, x: Tensor) -> Tensor:
        """Which centre each of x (B, d) most probably came from: (B,)."""
        self._positive_variance()
        return self._by_chunk(x, lambda part, terms: terms.argmax(1))

    # ------------------------------------------------------------ samples

    def sample_centres(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Which centre each of x (B, d) came from, drawn from its posterior: (B,). Of the mixture's own draws, centre
        and point are then distributed as `sample_parts` makes them."""

        def drawn(part: Tensor, terms: Tensor) -> Tensor:
            return terms.softmax(1).multinomial(1, generator=generator)[:, 0]

        self._positive_variance()
        return self._by_chunk(x, drawn)

    def sample(self, num_samples: int, generator: torch.Generator) -> Tensor:
        """Independent draws (num_samples, d), float64."""
        return self.sample_parts(num_samples, generator)[0]

    def sample_parts(self, num_samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Independent draws, and which centre each came from: (num_samples,)."""
        part = torch.multinomial(self.weights, num_samples, replacement=True, generator=generator)
        noise = torch.randn(num_samples, self.dim, generator=generator, dtype=torch.float64)
        return self.centres[part] + self.variance.sqrt() * noise, part

    def sample_evenly(self, num_samples: int, seed: int) -> Tensor:
        """Points (num_samples, d) spread more evenly than independent draws: for averages, not as samples.

        A scrambled Sobol sequence (Owen 1998); best where num_samples is a power of 2.
        """
        u = torch.quasirandom.SobolEngine(self.dim + 1, scramble=True, seed=seed).draw(num_samples, dtype=torch.float64)
        part = torch.searchsorted(self.weights.cumsum(0), u[:, 0].contiguous()).clamp(max=len(self.weights) - 1)
        return self.centres[part] + self.variance.sqrt() * torch.special.ndtri(u[:, 1:].clamp(1e-9, 1 - 1e-9))

    # ------------------------------------------------------------ inside

    def _noised(self, alpha: float, sigma: float) -> "GaussianMixture":
        return GaussianMixture(alpha * self.centres, alpha**2 * self.variance + sigma**2, self.weights)

    def _thinned(self, alpha: float, sigma: float) -> "GaussianMixture":
        """This distribution by no more centres than x_t = alpha * x_0 + sigma * eps needs."""
        shape, variance = self, alpha**2 * self.variance + sigma**2
        while shape.noisier is not None and bool((alpha**2 * shape.noisier.variance <= variance).all()):
            shape = shape.noisier
        return self if shape is self else GaussianMixture(shape.centres, self.variance, shape.weights)

    def _positive_variance(self) -> Tensor:
        if not self.has_density:
            raise ValueError("points without noise have no density: ask for it after some forward steps")
        return self.variance

    def _points(self, x: Tensor) -> Tensor:
        x = floats(x, "x")
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ValueError(f"points must have shape (B, {self.dim}), not {tuple(x.shape)}")
        return x

    def _log_terms(self, x: Tensor) -> Tensor:
        """log(weight * exp(-|x - centre|^2 / 2 variance)), up to a constant: (B, d) -> (B, M).

        The square is multiplied out, so that a matrix product does the work; in float64 nothing is lost by that.
        """
        scale = self.variance.rsqrt()
        x, c = x * scale, self.centres * scale
        offset = self.weights.log() - 0.5 * c.square().sum(1)
        return torch.addmm(offset, x, c.T).sub_(0.5 * x.square().sum(1, keepdim=True))

    def _by_chunk(self, x: Tensor, f: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """f(points, their log terms) for all x, a few rows at a time to bound the memory."""
        points, rows = self._points(x).double(), max(1, CHUNK // len(self.centres))
        (found,) = joined(((f(part, self._log_terms(part)),) for part in points.split(rows)), len(points))
        return found


def curve(
    path: Callable[[np.ndarray], np.ndarray], start: float, end: float, noise: float, length: float
) -> GaussianMixture:
    """A curve, uniform in its parameter from `start` to `end`, with Gaussian noise around it.

    Args:
        path: parameters (M,) -> points (M, d); smooth.
        noise: standard deviation.
        length: of the curve, or its largest |path'| times the parameter's range: panels are even in the parameter.

    With noise so small that more than FINEST_EXACT nodes are needed, densities take too long: draw from it only.

    Gauss-Legendre nodes in long panels: per standard deviation these are 2.2 nodes, and many in one panel are worth far
    more than as many in short ones. Against 20 times as many nodes, log p is wrong by less than 1e-9 nats within 8
    standard deviations of the curve and 1e-5 within 32. Beyond that the error grows, to 0.1 nats at 150 standard
    deviations, where log p itself is -10 000.
    """
    panels = math.ceil(min(length / (PANEL * noise), FINEST)) if noise > 0 else MOST_PANELS
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    parameter = start + (end - start) * (np.arange(panels)[:, None] + (nodes + 1) / 2).reshape(-1) / panels
    return GaussianMixture(
        torch.from_numpy(path(parameter)), noise**2, torch.from_numpy(np.tile(weights / 2, panels) / panels)
    )


def surface(
    sheet: Callable[[np.ndarray, np.ndarray], np.ndarray], noise: float, lengths: tuple[float, float]
) -> GaussianMixture:
    """A surface, uniform in its two parameters from 0 to 1, with Gaussian noise around it; otherwise as `curve`.

    Args:
        sheet: parameters (M,) and (M,) -> points (M, d); smooth.
        lengths: the largest lengths of its derivatives in either parameter.

    Gauss-Legendre nodes in both, fewer than a curve's: 1.4 per standard deviation and 6 more. Of the sets with their
    default noise, against 6 times as many nodes, log p is wrong by less than 2e-6 nats within 4 standard deviations of
    the surface, 1e-4 within 8 and 2e-3 within 16. As their number falls with the square of the noise, the mixture also
    knows the same surface with COARSER times its noise, and so on: with that, it takes fewer where noise is added.
    """
    rules = []
    for length in lengths:
        count = math.ceil(min(1.4 * length / noise + 6, FINEST_SIDE)) if noise > 0 else FINEST_SIDE
        nodes, weights = np.polynomial.legendre.leggauss(count)
        rules.append(((nodes + 1) / 2, weights / 2))
    (u, across), (v, along) = rules
    points = torch.from_numpy(sheet(np.repeat(u, len(v)), np.tile(v, len(u))))
    dense = max(len(u), len(v)) < FINEST_SIDE and noise < COARSEST
    noisier = surface(sheet, COARSER * noise, lengths) if dense else None
    return GaussianMixture(points, noise**2, torch.from_numpy(np.outer(across, along).reshape(-1)), noisier)


def mixed(mixtures: list[GaussianMixture]) -> GaussianMixture:
    """A mixture of these in equal shares; all have the same variance."""
    weights = torch.cat([mixture.weights for mixture in mixtures]) / len(mixtures)
    noisier = [mixture.noisier for mixture in mixtures if mixture.noisier]
    return GaussianMixture(
        torch.cat([mixture.centres for mixture in mixtures]),
        mixtures[0].variance,
        weights,
        mixed(noisier) if len(noisier) == len(mixtures) else None,
    )
