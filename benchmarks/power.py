"""How often the tests of points fail perfect samples and catch faulty ones: `python benchmarks/power.py`.

1000 tables of perfect samples and 200 of each fault at n = 10 000 take about 25 minutes of one core. Against faults the
two slowest tests (classifier, energy distance) are left out, which can only make the power smaller.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, Python only knows scripts/
# isort: split
from dataset import make_dataset
from metrics.significance import Evidence, levels
from points.mixture import GaussianMixture
from runtime.randomness import generator, integer_seed

SLOW = ("classifier accuracy", "energy distance")
Generator = torch.Generator


def moons(noise: float = 0.05) -> GaussianMixture:
    """The exact distribution of two moons."""
    mixture = make_dataset("moons", 1, 0, noise=noise).mixture
    assert mixture is not None
    return mixture


MOONS, WIDE = moons(), moons(0.055)
UPPER = len(MOONS.centres) // 2  # the centres before this one are the upper moon's

# ---------------------------------------------------------------- samples (n, 2), perfect and faulty


def real(n: int, g: Generator) -> torch.Tensor:
    return MOONS.sample(n, g)


def wide(n: int, g: Generator) -> torch.Tensor:
    """Noise 0.055 instead of 0.05."""
    return WIDE.sample(n, g)


def of_moons(upper: int, lower: int, g: Generator) -> torch.Tensor:
    """So many points of either moon."""
    x, part = MOONS.sample_parts(4 * (upper + lower), g)
    return torch.cat([x[part < UPPER][:upper], x[part >= UPPER][:lower]])


def uneven(n: int, g: Generator) -> torch.Tensor:
    """48 % of the points on the upper moon, 52 % on the lower: exactly so."""
    return of_moons(round(0.48 * n), n - round(0.48 * n), g)


def uneven_by_chance(n: int, g: Generator) -> torch.Tensor:
    """Each point on the upper moon with probability 0.48: no test of level 1 % sees it more often than in 92 %."""
    upper = int((torch.rand(n, generator=g) < 0.48).sum())
    return of_moons(upper, n - upper, g)


def gap(n: int, g: Generator) -> torch.Tensor:
    """5 % of the upper moon's length, somewhere along it, holds no points."""
    start = 0.95 * float(torch.rand((), generator=g)) * np.pi
    x, part = MOONS.sample_parts(2 * n, g)
    angle = torch.atan2(MOONS.centres[part, 1], MOONS.centres[part, 0])
    missing = (part < UPPER) & (angle >= start) & (angle < start + 0.05 * np.pi)
    return x[~missing][:n]


def astray(n: int, g: Generator) -> torch.Tensor:
    """0.3 % of the points uniform in the box around the moons, the space between them included."""
    x, low, high = MOONS.sample(n, g), MOONS.centres.min(0).values, MOONS.centres.max(0).values
    count = round(0.003 * n)
    x[:count] = low + (high - low) * torch.rand(count, 2, generator=g, dtype=torch.float64)
    return x


def memorised(n: int, g: Generator) -> torch.Tensor:
    """200 real points, repeated."""
    return MOONS.sample(200, g)[torch.randint(200, (n,), generator=g)]


FAULTS = [wide, uneven, uneven_by_chance, gap, astray, memorised]

# ---------------------------------------------------------------- tables


def failures(
    make: Callable[[int, Generator], torch.Tensor], n: int, seed: int, skip: tuple[str, ...] = ()
) -> list[str]:
    """Names of the tests that samples fail, beside fresh real points and a fresh training set."""

    def array(x: torch.Tensor) -> NDArray:
        return x.float().numpy()

    samples = array(make(n, generator(seed, "power samples")))
    others = array(real(n, generator(seed, "power real"))), make_dataset("moons", 2 * n, seed, noise=0.05).points
    e = Evidence(samples, others[0], MOONS, 2, others[1], integer_seed(seed, "power tests") % 2**31)
    return [test.name for test, level in levels(e) if test.name not in skip and float(test.compute(e).p) <= level]


def rate(make: Callable[[int, Generator], torch.Tensor], draws: int, n: int, skip: tuple[str, ...] = ()) -> float:
    """The share of tables with a failure; printed with the tests that failed."""
    clock, found = time.process_time(), [failures(make, n, seed, skip) for seed in range(draws)]
    share = np.mean([bool(names) for names in found])
    by_test = ", ".join(
        f"{name} {count}" for name, count in Counter(name for names in found for name in names).most_common()
    )
    seconds = time.process_time() - clock
    print(f"{make.__name__:<18} {share:.1%} of {draws} tables fail: {by_test or 'none'} ({seconds:.0f} s)", flush=True)
    return float(share)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=int, default=1000, help="of perfect samples")
    parser.add_argument("--faults", type=int, default=200, help="tables of each fault")
    parser.add_argument("--n", type=int, default=10_000, help="samples in a table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for fault in FAULTS if options.faults else []:
        rate(fault, options.faults, options.n, SLOW)
    if options.tables:
        rate(real, options.tables, options.n)
