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

import copy
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import TensorDataset

from conf import script_parsers
from conf.messages import last_words
from diffusion import Denoiser, exact_denoiser
from loader import batches, make_loader
from loss.objective import training_loss
from metrics.distances import exact_draws, sliced_wasserstein
from metrics.significance import Evidence, run_tests
from metrics.straightness import straightness
from pipeline import Pipeline, pipeline_from_checkpoint
from points.mixture import GaussianMixture
from registry.data_rows import POINT_SETS
from runtime import checkpoint_file
from runtime.progress import progress_bar
from runtime.randomness import generator
from samplers import last
from samplers.ancestral import ddim
from samplers.options import SamplingOptions
from samplers.spacing import spaced_timesteps
from schedule import NoiseScheduler
from train import learning_rate
from training.learner import Learner
from training.optimizers import make_optimizers

PAIR_STEPS = 50  # sampling steps that make a pair
BATCH_SIZE = 1024
WEIGHT_DECAY = 0.01
STEPS_PER_WARMUP_STEP = 50

COMPARED_SAMPLES = 10_000
STRAIGHTNESS_PATHS = 2000
EVALUATIONS = (1, 2, 4, 8)  # numbers of network evaluations at which samples are compared
# Parts of a checkpoint that sampling needs. Without an optimizer it cannot be resumed.
KEPT_PARTS = ("classes", "label_counts", "columns", "normaliser", "data", "step", "total", "moment")


def main() -> None:
    args = script_parsers.reflow().parse_args()

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
    kept = {name: state[name] for name in KEPT_PARTS if name in state}
    config = {**state["config"], "reflow": str(path)}
    folder.mkdir(exist_ok=True)
    new_state = {**kept, "config": config, "ema": average.state_dict()}
    checkpoint_file.save(folder / "last.pt", new_state)


# ---------------------------------------------------------------- comparison of the flows


def report(flow: Pipeline, average: AveragedModel, seed: int) -> None:
    """Print how straight the paths of both flows are, and how good their samples are with few steps.

    Where the distribution is known, the exact flow follows. The samples are those of Euler's method
    at each number of EVALUATIONS. Each row holds the strays, the log-density and the verdict of
    `evaluate.py` beside the distance, because a small distance alone does not show strays.
    """
    labels = flow.labels(None, STRAIGHTNESS_PATHS)
    second = Pipeline(average.module, flow.scheduler, flow.normaliser, flow.config, flow.classes)
    flows: dict[str, Denoiser] = {
        "first flow": partial(flow.denoiser(), label=labels),
        "reflow": partial(second.denoiser(), label=labels),
    }
    shape = flow.normaliser.mean.shape
    x_T = torch.randn(COMPARED_SAMPLES, *shape, generator=generator(seed, "test noise"))
    mixture = known_distribution(flow)
    if mixture:
        flows["exact flow"] = exact_denoiser(mixture, flow.scheduler)

    print("straightness: mean squared bend of the paths; 0 where all are straight")
    for name, denoise in flows.items():
        print(f"  {name:<12}{straightness(denoise, flow.scheduler, x_T[:STRAIGHTNESS_PATHS]):8.4f}")
    if mixture and mixture.has_density:
        print_table(flows, flow.scheduler, x_T, mixture, seed)


def known_distribution(flow: Pipeline) -> GaussianMixture | None:
    """The distribution that a flow without labels learns, in normalised units; None where it is not known."""
    if flow.classes or flow.config["dataset"]["name"] not in POINT_SETS:
        return None
    data, _ = flow.data_sets()
    mixture = getattr(data, "mixture", None)
    return flow.normaliser.normalise_mixture(mixture) if mixture else None


def print_table(
    flows: Mapping[str, Denoiser],
    scheduler: NoiseScheduler,
    x_T: Tensor,
    mixture: GaussianMixture,
    seed: int,
) -> None:
    """Print a row for each flow and number of evaluations, below a row of real points."""
    draw = exact_draws(mixture, seed)
    real = draw(COMPARED_SAMPLES, 0)
    rows = {"real points": draw(COMPARED_SAMPLES, 1)}
    for name, denoise in flows.items():
        for count in EVALUATIONS:
            timesteps = spaced_timesteps(scheduler, count, "trailing")
            rows[f"{name:<12}{count:>12}"] = last(ddim(denoise, scheduler, x_T, timesteps=timesteps)).numpy()

    print(f"{COMPARED_SAMPLES:,} samples by Euler's method")
    print(f"  {'':12}{'evaluations':>12}{'sliced W1':>11}{'strays':>8}{'nats':>8}   verdict")
    for name, samples in progress_bar(rows.items(), "tests", len(rows)):
        distance = sliced_wasserstein(samples, real)
        results = {row.name: row for row in run_tests(Evidence(samples, real, mixture, seed=seed))}
        strays = COMPARED_SAMPLES * results["strays"].value
        density = results["negative log-density"]
        failed = [row.name for row in results.values() if not row.passed]
        verdict = f"distinguishable by {len(failed)} of {len(results)} tests" if failed else "indistinguishable"
        print(f"  {name:<24}{distance:11.4f}{strays:8.0f}{density.value - density.floor:+8.3f}   {verdict}")
    print("  sliced W1: distance from real points; strays: points farther off than all but 1 in 10,000 real ones;")
    print("  nats: mean negative log-density above that of real points")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(last_words(error))
