"""What a network should predict when data fill few of many dimensions: `python benchmarks/dimensions.py`.

Two moons, placed in D = 2 .. 512 dimensions by a random orthogonal map (dataset.embed), learnt with eps, v and x0 as
the target and the same loss, the error of v. The noise fills all D dimensions, the data only two: a network of width 96
can pass on x_0, but not 512 numbers of noise. After Li and He 2025 (arXiv 2511.13720), with what they could not have:
the exact answer, and with it the Bayes floor of the error. About 4 minutes of one core; dimensions.png and a table.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, Python only knows scripts/
# isort: split
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

DIMENSIONS, TARGETS = (2, 8, 32, 128, 512), ("eps", "v", "x0")
NETWORK = {"hidden": 96, "layers": 4, "frequencies": 3}
NOISE, POINTS, BATCH = 0.03, 20_000, 512
SEEN = 0.05  # alpha and sigma below are left out of the figure, and weights of the loss cut off there, as theirs are


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dimensions", type=int, nargs="+", default=DIMENSIONS, help="D (default: 2 8 32 128 512)")
    parser.add_argument("--steps", type=int, default=1500, help="optimizer steps of each training (default: 1500)")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--out", default="outputs/dimensions.png", help="the picture (default: outputs/dimensions.png)")
    o = parser.parse_args()
    torch.set_num_threads(1)
    errors = {target: [] for target in TARGETS}
    print(f"excess error of v in units of its Bayes floor\n{'D':>5}" + "".join(f"{target:>10}" for target in TARGETS))
    for dim in o.dimensions:
        for target in TARGETS:
            errors[target].append(excess_of(dim, target, o.steps, o.seed))
        print(f"{dim:5}" + "".join(f"{errors[target][-1]:10.3f}" for target in TARGETS), flush=True)
    print(stills.save(picture(list(o.dimensions), errors), o.out))


def excess_of(dim: int, target: str, steps: int, seed: int) -> float:
    """The error of v above its Bayes floor, in units of that, of a network that predicts `target` in `dim` dimensions.

    Both are means over probes of the steps t; an error of v is one of eps over alpha, and so is the floor.
    """
    noise = NOISE * (2 / dim) ** 0.5  # in each coordinate, as a share of the data there: the same for every D
    data, scheduler = make_dataset("moons", POINTS, seed, embed=dim, noise=noise), CosineNoiseScheduler(1000)
    assert data.mixture is not None
    normaliser = Normaliser.of(data)
    denoise = pipeline(normaliser.normalise(data[:][0]), scheduler, target, steps, seed)
    exact = normaliser.distribution(data.mixture)
    probes = make_probes(exact, scheduler, num_steps=20, num_points=200, seed=seed)
    alpha, sigma = scheduler.alpha[probes.timesteps], scheduler.sigma[probes.timesteps]
    of_v = (alpha**-2).where(torch.minimum(alpha, sigma) > SEEN, 0)
    over = excess(denoise, probes, torch.device("cpu"))
    return float((over * of_v).mean() / (probes.floor * of_v).mean())


def pipeline(x: Tensor, scheduler: NoiseScheduler, target: str, steps: int, seed: int) -> Denoiser:
    """A network trained on points x (N, D), as train.py trains: the same optimizer, stable target and averaging."""
    torch.manual_seed(seed)
    net = build_model("mlp", dims=x.shape[1:], num_timesteps=scheduler.num_timesteps, **NETWORK)
    learner = Learner(net, make_optimizers(net, "muon", lr=4e-3, weight_decay=0.01), None, references=BATCH)
    weights = loss_weights(scheduler, target, "v").float().clamp(max=SEEN**-2)
    loss_of = partial(training_loss, net, scheduler, target=target, weights=weights)
    for step in progress_bar(range(steps), f"D = {x.shape[1]}, {target}", steps):
        g = generator(seed, "dimensions", step)
        rows = torch.randint(len(x), (BATCH,), generator=g)
        t, eps = draw_steps(scheduler.num_timesteps, BATCH, 1.0, g), torch.randn(BATCH, x.shape[1], generator=g)
        learner.learn(loss_of, (x[rows], t, eps, None), learning_rate(step, steps, 30, 4e-3))
    return denoiser(learner.average.module.eval(), scheduler, target)


def picture(dimensions: list[int], errors: dict[str, list[float]]) -> Figure:
    figure = Figure(figsize=(6, 4), layout="constrained")
    ax = figure.subplots()
    for target, found in errors.items():
        ax.plot(dimensions, found, marker="o", label=f"the network predicts {target}")
    ax.set(xscale="log", yscale="log", xlabel="D, dimensions around two moons", ylabel="excess error / Bayes floor")
    ax.set(title="Noise fills D dimensions, data only two of them")
    ax.set_xticks(dimensions, map(str, dimensions))
    ax.minorticks_off()
    ax.grid(alpha=0.3)
    ax.legend(frameon=False)
    return figure


if __name__ == "__main__":
    main()
