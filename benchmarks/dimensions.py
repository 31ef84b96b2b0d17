"""What a network should predict when the data fill few of many dimensions.

Run as `python -m benchmarks.dimensions` in the root of the repository; it takes about 4 minutes of
one core and makes dimensions.png and a table.

Two moons are placed in D = 2 .. 512 dimensions by a random orthogonal map (dataset.embed) and
learnt with eps, v and x0 as the target and the same loss, the error of v. The noise fills all D
dimensions, the data only two: a network of width 96 can pass on x_0, but not 512 numbers of noise.
After Li and He 2025 (arXiv 2511.13720); here the exact answer is known too, and with it the Bayes
floor.
"""

import argparse
from functools import partial

import torch
from matplotlib.figure import Figure
from torch import Tensor

from dataset import Normaliser, make_dataset
from diffusion import Denoiser, denoiser
from loss.objective import draw_steps, loss_weights, training_loss
from metrics.bayes import excess, make_probes
from model import build_model
from runtime.progress import progress_bar
from runtime.randomness import generator
from schedule import CosineNoiseScheduler, NoiseScheduler
from train import learning_rate
from training.learner import Learner
from training.optimizers import make_optimizers
from viz import stills

DIMENSIONS = (2, 8, 32, 128, 512)
TARGETS = ("eps", "v", "x0")
NETWORK = {"hidden": 96, "layers": 4, "frequencies": 3}
NUM_TIMESTEPS = 1000
NUM_POINTS = 20_000
NOISE = 0.03  # of the moons in two dimensions, as a share of the data
BATCH_SIZE = 512
LR = 4e-3
WARMUP_STEPS = 30
# Steps with a smaller alpha or sigma do not count in the figure, and the weights of the loss are
# cut off there, as in the paper.
MIN_ALPHA_SIGMA = 0.05
PROBE_STEPS = 20  # steps t at which the error is measured
PROBE_POINTS = 200  # noisy points at each of them


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--dimensions",
        type=int,
        nargs="+",
        default=DIMENSIONS,
        help="numbers of dimensions D; default: 2 8 32 128 512",
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=1500,
        help="optimizer steps of each training; default: %(default)s",
    )
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "--out",
        default="outputs/dimensions.png",
        help="the picture; default: %(default)s",
    )
    args = parser.parse_args()

    torch.set_num_threads(1)
    errors = {target: [] for target in TARGETS}
    print("excess error of v in units of its Bayes floor")
    print(f"{'D':>5}" + "".join(f"{target:>10}" for target in TARGETS))
    for dim in args.dimensions:
        for target in TARGETS:
            errors[target].append(relative_excess(dim, target, args.steps, args.seed))
        print(f"{dim:5}" + "".join(f"{errors[target][-1]:10.1e}" for target in TARGETS), flush=True)
    print(stills.save(picture(list(args.dimensions), errors), args.out))


def relative_excess(dim: int, target: str, steps: int, seed: int) -> float:
    """The error of v above its Bayes floor, divided by the floor.

    The network predicts `target` in `dim` dimensions. Error and floor are means over probes of the
    steps t. An error of v is an error of eps divided by alpha, and so is its floor.
    """
    # The noise is the same share of the data for every D, because it fills all dimensions.
    noise = NOISE * (2 / dim) ** 0.5
    data = make_dataset("moons", NUM_POINTS, seed, embed=dim, noise=noise)
    assert data.mixture is not None
    normaliser = Normaliser.fit_dataset(data)
    scheduler = CosineNoiseScheduler(NUM_TIMESTEPS)
    points = normaliser.normalise(data[:][0])
    denoise = trained_denoiser(points, scheduler, target, steps, seed)

    exact = normaliser.normalise_mixture(data.mixture)
    probes = make_probes(
        exact,
        scheduler,
        num_steps=PROBE_STEPS,
        num_points=PROBE_POINTS,
        seed=seed,
    )
    alpha = scheduler.alpha[probes.timesteps]
    sigma = scheduler.sigma[probes.timesteps]
    counts = torch.minimum(alpha, sigma) > MIN_ALPHA_SIGMA
    weights = (alpha**-2).where(counts, 0)  # turn squared errors of eps into those of v
    excess_of_eps = excess(denoise, probes, torch.device("cpu"))
    return float((excess_of_eps * weights).mean() / (probes.floor * weights).mean())


def trained_denoiser(
    x: Tensor,
    scheduler: NoiseScheduler,
    target: str,
    steps: int,
    seed: int,
) -> Denoiser:
    """A network trained on points x (N, D), with optimizer, targets and averaging of train.py."""
    torch.manual_seed(seed)
    net = build_model(
        "mlp",
        dims=x.shape[1:],
        num_timesteps=scheduler.num_timesteps,
        **NETWORK,
    )
    optimizers = make_optimizers(net, "muon", lr=LR, weight_decay=0.01)
    learner = Learner(net, optimizers, None, references=BATCH_SIZE)
    weights = loss_weights(scheduler, target, "v").float().clamp(max=MIN_ALPHA_SIGMA**-2)
    loss_of = partial(training_loss, net, scheduler, target=target, weights=weights)

    dim = x.shape[1]
    for step in progress_bar(range(steps), f"D = {dim}, {target}", steps):
        g = generator(seed, "dimensions", step)
        rows = torch.randint(len(x), (BATCH_SIZE,), generator=g)
        t = draw_steps(scheduler.num_timesteps, BATCH_SIZE, 1.0, g)
        eps = torch.randn(BATCH_SIZE, dim, generator=g)
        lr = learning_rate(step, steps, WARMUP_STEPS, LR)
        learner.learn(loss_of, (x[rows], t, eps, None), lr)
    return denoiser(learner.average.module.eval(), scheduler, target)


def picture(dimensions: list[int], errors: dict[str, list[float]]) -> Figure:
    figure = Figure(figsize=(6, 4), layout="constrained")
    ax = figure.subplots()
    for target, found in errors.items():
        ax.plot(dimensions, found, marker="o", label=f"the network predicts {target}")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("D, dimensions around two moons")
    ax.set_ylabel("excess error / Bayes floor")
    ax.set_title("Noise fills D dimensions, data only two of them")
    ax.set_xticks(dimensions, [str(dim) for dim in dimensions])
    ax.minorticks_off()
    ax.grid(alpha=0.3)
    ax.legend(frameon=False)
    return figure


if __name__ == "__main__":
    main()
