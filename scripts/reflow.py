"""Straighten a trained flow: `python scripts/reflow.py` learns from the pairs (noise, sample) of the newest run.

Rectified flow (Liu, Gong and Liu 2023, arXiv 2209.03003, algorithm 1, once more on its own pairs): paths of the first
flow bend, because each x_t could have come from many pairs. Trained on pairs that its own paths join, the second one
hardly has to, and a few of Euler's steps do. The first is a run of `python train.py schedule=flow`; the second is saved
as a checkpoint beside it, in RUN/reflow, for `python inference.py checkpoint=RUN/reflow sampling_steps=2` and others.
"""

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

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, Python only knows scripts/
# isort: split
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

ROWS, EVALUATIONS = 2000, (1, 2, 4, 8)  # samples compared, and evaluations of the network that they may cost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", help="a run of schedule=flow, or its checkpoint (default: the newest run)")
    parser.add_argument("--pairs", type=int, default=20_000, help="pairs of noise and sample (default: 20000)")
    parser.add_argument("--steps", type=int, default=2000, help="optimizer steps (default: 2000)")
    parser.add_argument("--lr", type=float, default=4e-3, help="peak learning rate (default: 4e-3)")
    parser.add_argument("--seed", type=int, default=0, help="of pairs and order (default: 0)")
    o = parser.parse_args()
    torch.set_num_threads(1)
    path, state = checkpoint_file.asked_or_newest(o.run)
    flow = pipeline_from_checkpoint(state, path, torch.device("cpu"))
    if flow.config["schedule"] != "flow":
        sys.exit(f"error: {path} is a run of schedule={flow.config['schedule']}; give one of schedule=flow")
    x_T, x_0, labels = pairs(flow, o.pairs, o.seed)
    straight = rectified(flow, x_T, x_0, labels, o.steps, o.lr, o.seed)
    folder = checkpoint_file.folder_of(path) / "reflow"
    save(state, path, straight, folder)
    report(flow, straight, o.seed)
    print(f"saved in {folder}: python inference.py checkpoint={folder} sampling_steps=2")


def pairs(flow: Pipeline, count: int, seed: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """Noise x_T and the samples x_0 that the flow carries it to, (count, *dims) each, and the labels asked for."""
    labels = flow.labels(None, count)
    states = flow.states(count, SamplingOptions("adams", 50), labels=labels, seed=seed)
    states = [state.x_t for state in progress_bar(states, "pairs", 51)]
    return states[0], states[-1], labels


def rectified(
    flow: Pipeline, x_T: Tensor, x_0: Tensor, labels: Tensor | None, steps: int, lr: float, seed: int
) -> AveragedModel:
    """The flow's network, trained further with x_T as the noise of x_0; averaged, as every network that samples."""
    learner = Learner(net := copy.deepcopy(flow.net), make_optimizers(net, "muon", lr=lr, weight_decay=0.01), None)
    loss_of = partial(training_loss, net.train(), flow.scheduler, target=flow.config["model"]["prediction"])
    data = TensorDataset(torch.stack([x_0, x_T], 1), *([] if labels is None else [labels]))
    stream = batches(make_loader(data, batch_size=1024, seed=seed))
    for step, (pair, label) in zip(progress_bar(range(steps), "training", steps), stream):
        t = torch.randint(flow.scheduler.num_timesteps, (len(pair),), generator=generator(seed, "reflow", step))
        batch = pair[:, 0], t, pair[:, 1], label
        learner.learn(loss_of, batch, learning_rate(step, steps, steps // 50, lr))
    learner.average.eval()
    return learner.average


def save(state: dict[str, Any], path: Path, average: AveragedModel, folder: Path) -> None:
    """A checkpoint that samples as any other; it cannot be resumed, as it has no optimizer."""
    kept = {name: state[name] for name in ("classes", "normaliser", "data", "step", "total", "moment")}
    config = {**state["config"], "reflow": str(path)}
    folder.mkdir(exist_ok=True)
    checkpoint_file.save(folder / "last.pt", {**kept, "config": config, "ema": average.state_dict()})


# ---------------------------------------------------------------- what it brought


def report(flow: Pipeline, average: AveragedModel, seed: int) -> None:
    """Straightness and few-step samples of both flows and, where the distribution is known, of the exact one."""
    data, _ = make_sets(n_samples=flow.config["num_samples"], seed=flow.config["seed"], **flow.config["dataset"])
    second = Pipeline(average.module, flow.scheduler, flow.normaliser, flow.config, flow.classes)
    labels, mixture = flow.labels(None, ROWS), None if flow.classes else getattr(data, "mixture", None)
    flows: dict[str, Denoiser] = {
        name: partial(of.denoiser(), label=labels) for name, of in (("first flow", flow), ("reflow", second))
    }
    if mixture:
        mixture = flow.normaliser.distribution(mixture)
        flows["exact flow"] = exact_denoiser(mixture, flow.scheduler)
    x_T = torch.randn(ROWS, *flow.normaliser.mean.shape, generator=generator(seed, "test noise"))
    columns = "".join(f"{n:>10}" for n in EVALUATIONS) if mixture else ""
    print(f"{'':12}straightness{columns}" + "   <- evaluations: sliced Wasserstein-1" * bool(mixture))
    for name, denoise in flows.items():
        row = f"{name:12}{straightness(denoise, flow.scheduler, x_T):12.4f}"
        print(row + "".join(f"{d:10.4f}" for d in distances(denoise, flow, x_T, mixture, seed)))
    if mixture:
        floors = compute_floors(METRICS[0], exact_draws(mixture, seed), ROWS)
        print(f"{'floor':12}{'':12}{floors.mean():10.4f}  (between real points, {ROWS:,} each)")


def distances(
    denoise: Denoiser, flow: Pipeline, x_T: Tensor, mixture: GaussianMixture | None, seed: int
) -> list[float]:
    """Sliced Wasserstein-1 of few-step samples to real points, in normalised units, for each of EVALUATIONS."""
    if mixture is None:
        return []
    real = mixture.sample(ROWS, generator(seed, "test points")).float().numpy()
    steps = [spaced_timesteps(flow.scheduler, n, "trailing") for n in EVALUATIONS]
    return [sliced_wasserstein(last(ddim(denoise, flow.scheduler, x_T, timesteps=t)).numpy(), real) for t in steps]


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
