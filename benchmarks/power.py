"""How often the tests of points fail perfect samples, and how often they catch faulty ones.

Run as `python -m benchmarks.power` in the root of the repository. 1000 tables of perfect samples
and 200 of each fault, with n = 10 000, take about 25 minutes of one core. The tables of faulty
samples leave out the two slowest tests (classifier, energy distance), which can only make the power
smaller.
"""

import argparse
import time
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import torch

from dataset import make_dataset
from metrics.significance import Evidence, levels
from points.mixture import GaussianMixture
from runtime.randomness import generator, integer_seed

SLOW = ("classifier accuracy", "energy distance")  # the slowest tests
Generator = torch.Generator
Draw = Callable[[int, Generator], torch.Tensor]  # draw(n, generator): samples (n, 2)


def moons(noise: float = 0.05) -> GaussianMixture:
    """The exact distribution of two moons."""
    mixture = make_dataset("moons", 1, 0, noise=noise).mixture
    assert mixture is not None
    return mixture


MOONS = moons()
WIDE_MOONS = moons(0.055)
UPPER = len(MOONS.centres) // 2  # the centres before this index belong to the upper moon

UPPER_SHARE = 0.48  # of the points in the faults `uneven` and `uneven_by_chance`
GAP_LENGTH = 0.05  # of the upper moon's length, in the fault `gap`
STRAY_SHARE = 0.003  # of the points, in the fault `astray`
MEMORISED_POINTS = 200  # in the fault `memorised`

# ---------------------------------------------------------------- samples (n, 2), perfect and faulty


def real(n: int, g: Generator) -> torch.Tensor:
    """Perfect samples."""
    return MOONS.sample(n, g)


def wide(n: int, g: Generator) -> torch.Tensor:
    """Noise 0.055 instead of 0.05."""
    return WIDE_MOONS.sample(n, g)


def draw_from_moons(upper: int, lower: int, g: Generator) -> torch.Tensor:
    """That many points of the upper and of the lower moon."""
    x, part = MOONS.sample_parts(4 * (upper + lower), g)
    return torch.cat([x[part < UPPER][:upper], x[part >= UPPER][:lower]])


def uneven(n: int, g: Generator) -> torch.Tensor:
    """Exactly 48 % of the points on the upper moon, 52 % on the lower one."""
    upper = round(UPPER_SHARE * n)
    return draw_from_moons(upper, n - upper, g)


def uneven_by_chance(n: int, g: Generator) -> torch.Tensor:
    """Each point on the upper moon with probability 0.48.

    No test of level 1 % can catch this fault in more than 92 % of the tables.
    """
    upper = int((torch.rand(n, generator=g) < UPPER_SHARE).sum())
    return draw_from_moons(upper, n - upper, g)


def gap(n: int, g: Generator) -> torch.Tensor:
    """5 % of the upper moon's length, at a random place, holds no points."""
    start = (1 - GAP_LENGTH) * float(torch.rand((), generator=g)) * np.pi
    x, part = MOONS.sample_parts(2 * n, g)
    angle = torch.atan2(MOONS.centres[part, 1], MOONS.centres[part, 0])
    is_upper = part < UPPER
    missing = is_upper & (angle >= start) & (angle < start + GAP_LENGTH * np.pi)
    return x[~missing][:n]


def astray(n: int, g: Generator) -> torch.Tensor:
    """0.3 % of the points are uniform in the box around the moons."""
    x = MOONS.sample(n, g)
    low = MOONS.centres.min(0).values
    high = MOONS.centres.max(0).values
    count = round(STRAY_SHARE * n)
    x[:count] = low + (high - low) * torch.rand(count, 2, generator=g, dtype=torch.float64)
    return x


def memorised(n: int, g: Generator) -> torch.Tensor:
    """200 real points, repeated."""
    x = MOONS.sample(MEMORISED_POINTS, g)
    return x[torch.randint(MEMORISED_POINTS, (n,), generator=g)]


FAULTS: list[Draw] = [wide, uneven, uneven_by_chance, gap, astray, memorised]

# ---------------------------------------------------------------- tables


def failures(draw: Draw, n: int, seed: int, skip: Sequence[str] = ()) -> list[str]:
    """The names of the tests that n samples fail, beside fresh real points and a training set."""
    samples = draw(n, generator(seed, "power samples")).float().numpy()
    others = real(n, generator(seed, "power real")).float().numpy()
    train = make_dataset("moons", 2 * n, seed, noise=0.05).points
    test_seed = integer_seed(seed, "power tests") % 2**31
    evidence = Evidence(samples, others, MOONS, 2, train, test_seed)

    failed = []
    for test, level in levels(evidence):
        if test.name not in skip and float(test.compute(evidence).p) <= level:
            failed.append(test.name)
    return failed


def failure_rate(draw: Draw, tables: int, n: int, skip: Sequence[str] = ()) -> float:
    """The share of tables with a failed test; printed with the numbers of each test's failures."""
    begin = time.process_time()
    found = [failures(draw, n, seed, skip) for seed in range(tables)]
    share = float(np.mean([len(names) > 0 for names in found]))

    counts = Counter(name for names in found for name in names)
    by_test = ", ".join(f"{name} {count}" for name, count in counts.most_common()) or "none"
    seconds = time.process_time() - begin
    print(
        f"{draw.__name__:<18} {share:.1%} of {tables} tables fail: {by_test} ({seconds:.0f} s)",
        flush=True,
    )
    return share


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=int, default=1000, help="tables of perfect samples")
    parser.add_argument("--faults", type=int, default=200, help="tables of each fault")
    parser.add_argument("--n", type=int, default=10_000, help="samples in a table")
    args = parser.parse_args()

    torch.set_num_threads(1)
    if args.faults:
        for fault in FAULTS:
            failure_rate(fault, args.faults, args.n, SLOW)
    if args.tables:
        failure_rate(real, args.tables, args.n)


if __name__ == "__main__":
    main()
