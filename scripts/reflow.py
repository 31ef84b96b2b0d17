"""Straighten a trained flow: `python scripts/reflow.py [RUN]` trains on pairs of noise and sample.

Rectified flow (Liu, Gong and Liu 2023, arXiv 2209.03003, algorithm 1, applied to its own pairs).
The paths of the first flow bend, because each x_t can come from many pairs of noise and data. The
second flow learns from the pairs that the first one's paths join. Its paths are nearly straight, so
a few steps of Euler's method follow them.

The first flow is a run of `python train.py schedule=flow`. The second is saved as a checkpoint in
RUN/reflow, for commands such as `python inference.py checkpoint=RUN/reflow sampling_steps=2`.
"""

if __name__ == "__main__":
    import repository  # noqa: F401  (first, so that Python finds the other folders)

import argparse
import copy
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import TensorDataset

from dataset import make_sets
from diffusion import Denoiser, exact_denoiser
from loader import batches, make_loader
from loss.objective import training_loss
from metrics.distances import METRICS, compute_floors, exact_draws, sliced_wasserstein
from metrics.straightness import straightness
from pipeline import Pipeline, pipeline_from_checkpoint
from points.mixture import GaussianMixture
from runtime import checkpoint_file
from runtime.progress import progress_bar
from runtime.randomness import generator
from samplers import last
from samplers.ancestral import ddim
from samplers.options import SamplingOptions
from samplers.spacing import spaced_timesteps
from train import learning_rate
from training.learner import Learner
from training.optimizers import make_optimizers

PAIR_STEPS = 50  # sampling steps that make a pair
BATCH_SIZE = 1024
WEIGHT_DECAY = 0.01
STEPS_PER_WARMUP_STEP = 50

COMPARED_SAMPLES = 2000
EVALUATIONS = (1, 2, 4, 8)  # numbers of network evaluations at which samples are compared
SLICED_WASSERSTEIN = METRICS[0]
# Parts of a checkpoint that sampling needs. Without an optimizer it cannot be resumed.
KEPT_PARTS = ("classes", "normaliser", "data", "step", "total", "moment")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "run",
        nargs="?",
        help="a run of schedule=flow, or its checkpoint; default: the newest run",
    )
    parser.add_argument(
        "--pairs",
        type=int,
        default=20_000,
        help="pairs of noise and sample; default: %(default)s",
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=2000,
        help="optimizer steps; default: %(default)s",
    )
    parser.add_argument(
        "--lr",
        type=float,
        default=4e-3,
        help="peak learning rate; default: %(default)s",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="seed of the pairs and of their order; default: %(default)s",
    )
    args = parser.parse_args()

    torch.set_num_threads(1)
    path, state = checkpoint_file.load_or_newest(args.run)
    flow = pipeline_from_checkpoint(state, path, torch.device("cpu"))
    schedule = flow.config["schedule"]
    if schedule != "flow":
        sys.exit(f"error: {path} is a run of schedule={schedule}; give one of schedule=flow")

    x_T, x_0, labels = make_pairs(flow, args.pairs, args.seed)
    average = train_on_pairs(flow, x_T, x_0, labels, args.steps, args.lr, args.seed)
    folder = checkpoint_file.run_folder_path(path) / "reflow"
    save(state, path, average, folder)
    report(flow, average, args.seed)
    print(f"saved in {folder}: python inference.py checkpoint={folder} sampling_steps=2")


def make_pairs(flow: Pipeline, count: int, seed: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """Noise x_T and the samples x_0 at the ends of its paths, (count, *dims) each, and the labels."""
    labels = flow.labels(None, count)
    states = flow.states(
        count, SamplingOptions(sampler="adams", sampling_steps=PAIR_STEPS, guidance=0.0), labels=labels, seed=seed
    )
    x_ts = [state.x_t for state in progress_bar(states, "pairs", PAIR_STEPS + 1)]
    return x_ts[0], x_ts[-1], labels


def train_on_pairs(
    flow: Pipeline,
    x_T: Tensor,
    x_0: Tensor,
    labels: Tensor | None,
    steps: int,
    lr: float,
    seed: int,
) -> AveragedModel:
    """The flow's network, trained further with x_T as the noise of x_0; returns its average."""
    net = copy.deepcopy(flow.net)
    optimizers = make_optimizers(net, "muon", lr=lr, weight_decay=WEIGHT_DECAY)
    learner = Learner(net, optimizers, None)
    target = flow.config["model"]["prediction"]
    loss_of = partial(training_loss, net.train(), flow.scheduler, target=target)

    pairs = torch.stack([x_0, x_T], 1)
    data = TensorDataset(pairs) if labels is None else TensorDataset(pairs, labels)
    stream = batches(make_loader(data, batch_size=BATCH_SIZE, seed=seed))
    warmup = steps // STEPS_PER_WARMUP_STEP
    for step, (pair, label) in zip(progress_bar(range(steps), "training", steps), stream):
        random = generator(seed, "reflow", step)
        t = torch.randint(flow.scheduler.num_timesteps, (len(pair),), generator=random)
        batch = (pair[:, 0], t, pair[:, 1], label)
        learner.learn(loss_of, batch, learning_rate(step, steps, warmup, lr))
    learner.average.eval()
    return learner.average


def save(state: dict[str, Any], path: Path, average: AveragedModel, folder: Path) -> None:
    """Save a checkpoint that can be sampled like any other, but not resumed."""
    kept = {name: state[name] for name in KEPT_PARTS}
    config = {**state["config"], "reflow": str(path)}
    folder.mkdir(exist_ok=True)
    new_state = {**kept, "config": config, "ema": average.state_dict()}
    checkpoint_file.save(folder / "last.pt", new_state)


# ---------------------------------------------------------------- comparison of the flows


def report(flow: Pipeline, average: AveragedModel, seed: int) -> None:
    """Print the straightness of both flows and how good their samples are with few steps.

    Where the distribution is known, a row for the exact flow and the floor of the distances follow.
    """
    sources = {"n_samples": flow.config["num_samples"], "seed": flow.config["seed"]}
    data, _ = make_sets(**sources, **flow.config["dataset"])
    mixture = None if flow.classes else getattr(data, "mixture", None)
    labels = flow.labels(None, COMPARED_SAMPLES)
    second = Pipeline(
        average.module,
        flow.scheduler,
        flow.normaliser,
        flow.config,
        flow.classes,
    )
    flows: dict[str, Denoiser] = {
        "first flow": partial(flow.denoiser(), label=labels),
        "reflow": partial(second.denoiser(), label=labels),
    }
    if mixture:
        mixture = flow.normaliser.distribution(mixture)
        flows["exact flow"] = exact_denoiser(mixture, flow.scheduler)

    columns = ""
    if mixture:
        columns = "".join(f"{count:>10}" for count in EVALUATIONS)
        columns += "   <- evaluations: sliced Wasserstein-1"
    print(f"{'':12}straightness{columns}")

    shape = flow.normaliser.mean.shape
    x_T = torch.randn(COMPARED_SAMPLES, *shape, generator=generator(seed, "test noise"))
    for name, denoise in flows.items():
        row = f"{name:12}{straightness(denoise, flow.scheduler, x_T):12.4f}"
        if mixture:
            found = distances(denoise, flow, x_T, mixture, seed)
            row += "".join(f"{distance:10.4f}" for distance in found)
        print(row)

    if mixture:
        draw = exact_draws(mixture, seed)
        floor = compute_floors(SLICED_WASSERSTEIN, draw, COMPARED_SAMPLES).mean()
        note = f"(between real points, {COMPARED_SAMPLES:,} each)"
        print(f"{'floor':12}{'':12}{floor:10.4f}  {note}")


def distances(
    denoise: Denoiser,
    flow: Pipeline,
    x_T: Tensor,
    mixture: GaussianMixture,
    seed: int,
) -> list[float]:
    """Sliced Wasserstein-1 distances of samples to real points, in normalised units.

    One distance for each number of evaluations in EVALUATIONS, with Euler's method.
    """
    real = mixture.sample(COMPARED_SAMPLES, generator(seed, "test points")).float().numpy()
    found = []
    for count in EVALUATIONS:
        timesteps = spaced_timesteps(flow.scheduler, count, "trailing")
        samples = last(ddim(denoise, flow.scheduler, x_T, timesteps=timesteps)).numpy()
        found.append(sliced_wasserstein(samples, real))
    return found


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
