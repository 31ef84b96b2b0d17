"""Diffusers' course network and ours, trained for the same CPU time on the same images and measured alike.

`python benchmarks/against_diffusers.py --root data/MNIST/mnist_images --seconds 1200`; diffusers comes with
requirements/dev.txt.

Theirs is the class-conditional example of Hugging Face's diffusion course (unit 2, with the network of unit 1):
UNet2DModel of channels (32, 64, 64) with attention at the lower two resolutions, the label as 4 more channels of the
input, 1000 steps of squaredcos_cap_v2, mean squared error of eps, Adam at a constant 1e-3, batches of 128. In its
favour it gets our DDIM of 25 steps and our even draws of t; guidance it was not trained for. Ours: model=unet as it is.
"""

import argparse
import sys
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, Python only knows scripts/
# isort: split
from conf.config import Train
from conf.groups import MNIST, PRESETS, UNet
from dataset import Normaliser, make_sets
from images.sets import ImageSet
from loader import batches, make_loader
from loss.objective import loss_weights, training_loss
from metrics.evaluation import evaluate_model
from metrics.table import table
from pipeline import Pipeline, build
from runtime.randomness import integer_seed
from samplers.options import SamplingOptions
from schedule import make_scheduler
from train import learning_rate
from training.learner import Learner
from training.noise import Noise
from training.optimizers import make_optimizers

LABEL_CHANNELS = 4
OURS: dict[str, Any] = asdict(Train(dataset=MNIST(), model=UNet(), **PRESETS["unet"]))
THEIRS: dict[str, Any] = {
    **OURS, "batch_size": 128, "lr": 1e-3, "label_dropout": 0.0, "loss_weight": "eps", "model": {"prediction": "eps"}
}  # fmt: skip


class CourseNetwork(nn.Module):
    """The course's ClassConditionedUnet for MNIST: x_t (B, 1, 28, 28), t, label (B,) -> (B, 1, 28, 28)."""

    def __init__(self, num_labels: int) -> None:
        super().__init__()
        self.label = nn.Embedding(num_labels, LABEL_CHANNELS)
        self.net = UNet2DModel(
            sample_size=28, in_channels=1 + LABEL_CHANNELS, out_channels=1, layers_per_block=2,
            block_out_channels=(32, 64, 64),
            down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        )  # fmt: skip

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor) -> Tensor:
        label = self.label(label)[:, :, None, None].expand(-1, -1, *x_t.shape[2:])
        return self.net(torch.cat([x_t, label], 1), t).sample


def theirs(data: ImageSet) -> tuple[Pipeline, Learner]:
    net = CourseNetwork(data.num_labels)
    learner = Learner(net, [torch.optim.Adam(net.parameters())], ema_decay=0.0)  # no average
    scheduler = make_scheduler("cosine", 1000, None, None)
    return Pipeline(learner.average.module, scheduler, Normaliser.of(data), THEIRS, data.classes), learner


def ours(data: ImageSet) -> tuple[Pipeline, Learner]:
    net, scheduler = build(OURS, data.dims, data.num_labels)
    optimizers = make_optimizers(net, OURS["optimizer"], lr=OURS["lr"], weight_decay=OURS["weight_decay"])
    learner = Learner(net, optimizers, OURS["ema_decay"])
    return Pipeline(learner.average.module, scheduler, Normaliser.of(data), OURS, data.classes), learner


def fit(pipeline: Pipeline, learner: Learner, data: ImageSet, seconds: float, seed: int) -> tuple[int, float]:
    """Train for so many seconds of CPU; returns the optimizer steps and the seconds they took."""
    o, scheduler = pipeline.config, pipeline.scheduler
    weights = loss_weights(scheduler, o["model"]["prediction"], o["loss_weight"]).float()
    loss_of = partial(training_loss, learner.net, scheduler, target=o["model"]["prediction"], weights=weights)
    noise, begin, step, used = Noise(pipeline, seed, o["batch_size"]), time.process_time(), 0, 0.0
    for step, batch in enumerate(batches(make_loader(data, batch_size=o["batch_size"], seed=seed))):
        used = time.process_time() - begin
        if used >= seconds:
            break
        # Our learning rate falls with the share of the time that is gone, here in thousandths.
        lr = o["lr"] if o is THEIRS else learning_rate(int(1000 * used / seconds), 1000, 20, o["lr"])
        learner.learn(loss_of, noise.added(step, *batch), lr)
    return step, used


def main() -> None:
    parser = argparse.ArgumentParser(description="Diffusers' course network against ours, at equal CPU time.")
    parser.add_argument("--root", default=OURS["dataset"]["root"], help="MNIST as prepare_mnist.py lays it out")
    parser.add_argument("--seconds", type=float, default=1200, help="of CPU, for each training; default: %(default)g")
    parser.add_argument("--samples", type=int, default=2000, help="to evaluate; default: %(default)d")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--which", choices=("both", "theirs", "ours"), default="both")
    o = parser.parse_args()
    data, unseen = make_sets("mnist", n_samples=None, seed=0, root=o.root)
    assert isinstance(data, ImageSet)
    for name, make in {"theirs": theirs, "ours": ours}.items():
        if o.which in ("both", name):
            torch.manual_seed(integer_seed(o.seed, "weights"))
            pipeline, learner = make(data)
            steps, used = fit(pipeline, learner, data, o.seconds, o.seed)
            images = steps * pipeline.config["batch_size"]
            size = pipeline.num_parameters
            print(f"{name}: {size:,} parameters, {steps:,} steps, {images:,} images in {used:.0f} s of CPU", flush=True)
            options = SamplingOptions("ddim", 25, guidance=None if name == "ours" else 0.0)
            pipeline.ready(torch.device("cpu"))
            found = evaluate_model(pipeline, data, unseen, num_samples=o.samples, seed=o.seed, options=options)
            print(table(found.rows, "about"), flush=True)


if __name__ == "__main__":
    main()
