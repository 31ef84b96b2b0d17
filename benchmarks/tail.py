"""Measure the tail of trained models by more samples than an evaluation draws.

Run as `python -m benchmarks.tail RUN...` in the root of the repository. It needs runs on points whose
exact distribution is known, without labels. Each line names a run, its strays in 10,000 samples (1
is expected) and the gap of the log-density in nats (0 is expected), with their standard errors.
"""

import argparse

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from dataset import PointSet, make_sets
from metrics.significance import HALF_BAND, STRAY_SHARE, Evidence, negative_log_density, strays
from pipeline import Pipeline
from runtime.progress import steady_bar

NUM_SAMPLES = 120_000
SAMPLES_AT_A_TIME = 20_000
FIRST_SEED = 100  # none that trainings use
FEW_ROWS = 1000  # of the data, of which only the exact distribution is needed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", help="run folders of points")
    args = parser.parse_args()

    bar = steady_bar(total=len(args.runs) * NUM_SAMPLES, desc="sampling", unit="sample")
    for run in args.runs:
        print(line(run, bar), flush=True)
    bar.close()


def line(run: str, bar: tqdm) -> str:
    """What is measured of a run, in one line."""
    pipeline = Pipeline.load(run)
    data, _ = make_sets(n_samples=FEW_ROWS, seed=0, **pipeline.config["dataset"])
    if not isinstance(data, PointSet) or data.mixture is None:
        raise SystemExit(f"{run}: the exact distribution of its data is unknown")
    samples = many_samples(pipeline, bar)
    evidence = Evidence(samples=samples, real=data.points, mixture=data.mixture, parts=1)

    share = float(strays(evidence).value)
    share_error = (STRAY_SHARE / len(samples)) ** 0.5
    density = negative_log_density(evidence)
    gap = float(density.value) - float(density.floor)
    gap_error = (float(density.high) - float(density.floor)) / HALF_BAND
    return (
        f"{run}: {share * 1e4:.2f} +- {share_error * 1e4:.2f} strays in 10,000, gap {gap:+.4f} +- {gap_error:.4f} nats"
    )


def many_samples(pipeline: Pipeline, bar: tqdm) -> NDArray:
    """NUM_SAMPLES samples of a pipeline, drawn as inference.py draws them."""
    drawn = []
    for i in range(NUM_SAMPLES // SAMPLES_AT_A_TIME):
        drawn.append(pipeline.sample(SAMPLES_AT_A_TIME, seed=FIRST_SEED + i).numpy())
        bar.update(SAMPLES_AT_A_TIME)
    return np.concatenate(drawn)


if __name__ == "__main__":
    main()
