"""The network of diffusers' course against ours, at equal CPU time, on the same images.

Run as `python -m benchmarks.against_diffusers --root data/MNIST/mnist_images --seconds 1200` in the
root of the repository. requirements/dev.txt installs diffusers.

Their network is the class-conditional example of Hugging Face's diffusion course (unit 2, with the
network of unit 1): UNet2DModel with channels (32, 64, 64) and attention at the lower two
resolutions. The label is 4 more channels of the input. The course uses 1000 steps of
squaredcos_cap_v2, the mean squared error of eps, Adam at a constant 1e-3, and batches of 128. In
its favour it also gets our DDIM with 25 steps and our uniform draws of t. It gets no guidance, for
which it was not trained. Our network is model=unet with its defaults.
"""

import argparse
import time
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from torch import Tensor, nn

from conf.config import Train
from conf.groups import CHOICE_DEFAULTS, MNIST, UNet
from dataset import Normaliser, make_sets
from images.sets import ImageSet
from loader import batches, make_loader
from loss.objective import loss_weights, training_loss
from metrics.evaluation import evaluate_model
from metrics.table import format_table
from pipeline import Pipeline, build
from runtime.randomness import integer_seed
from samplers.options import SamplingOptions
from schedule import NoiseScheduler, make_scheduler
from train import learning_rate
from training.learner import Learner
from training.noise import Noise
from training.optimizers import make_optimizers

LABEL_CHANNELS = 4  # of the input
OURS: dict[str, Any] = asdict(Train(dataset=MNIST(), model=UNet(), **CHOICE_DEFAULTS["unet"]))
THEIRS: dict[str, Any] = {
    **OURS,
    "batch_size": 128,
    "lr": 1e-3,
    "label_dropout": 0.0,
    "loss_weight": "eps",
    "model": {"prediction": "eps"},
}
# Our learning rate follows the share of the time that has passed, in this many steps.
SCHEDULE_STEPS = 1000
WARMUP_STEPS = 20  # of them
SAMPLER = "ddim"
SAMPLING_STEPS = 25


class CourseNetwork(nn.Module):
    """The course's ClassConditionedUnet for MNIST.

    x_t (B, 1, 28, 28), t and label (B,) give (B, 1, 28, 28).
    """

    def __init__(self, num_labels: int) -> None:
        super().__init__()
        self.label = nn.Embedding(num_labels, LABEL_CHANNELS)
        self.net = UNet2DModel(
            sample_size=28,
            in_channels=1 + LABEL_CHANNELS,
            out_channels=1,
            layers_per_block=2,
            block_out_channels=(32, 64, 64),
            down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        )

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor) -> Tensor:
        height, width = x_t.shape[2:]
        maps = self.label(label)[:, :, None, None].expand(-1, -1, height, width)
        return self.net(torch.cat([x_t, maps], 1), t).sample


def theirs(data: ImageSet) -> tuple[Pipeline, Learner]:
    net = CourseNetwork(data.num_labels)
    no_average = 0.0
    learner = Learner(net, [torch.optim.Adam(net.parameters())], ema_decay=no_average)
    scheduler = make_scheduler("cosine", 1000, None, None)
    return _pipeline(learner, scheduler, THEIRS, data), learner


def ours(data: ImageSet) -> tuple[Pipeline, Learner]:
    net, scheduler = build(OURS, data.dims, data.num_labels)
    optimizers = make_optimizers(
        net,
        OURS["optimizer"],
        lr=OURS["lr"],
        weight_decay=OURS["weight_decay"],
    )
    learner = Learner(net, optimizers, OURS["ema_decay"])
    return _pipeline(learner, scheduler, OURS, data), learner


def _pipeline(
    learner: Learner,
    scheduler: NoiseScheduler,
    config: dict[str, Any],
    data: ImageSet,
) -> Pipeline:
    net = learner.average.module
    return Pipeline(net, scheduler, Normaliser.fit_dataset(data), config, data.classes)


def fit(
    pipeline: Pipeline,
    learner: Learner,
    data: ImageSet,
    seconds: float,
    seed: int,
) -> tuple[int, float]:
    """Train for that many seconds of CPU; returns the optimizer steps and the seconds they took."""
    options = pipeline.config
    scheduler = pipeline.scheduler
    target = options["model"]["prediction"]
    weights = loss_weights(scheduler, target, options["loss_weight"]).float()
    loss_of = partial(training_loss, learner.net, scheduler, target=target, weights=weights)
    noise = Noise(pipeline, seed, options["batch_size"])
    loader = make_loader(data, batch_size=options["batch_size"], seed=seed)

    begin = time.process_time()
    step = 0
    used = 0.0
    for step, batch in enumerate(batches(loader)):
        used = time.process_time() - begin
        if used >= seconds:
            break
        lr = options["lr"]
        if options is not THEIRS:
            position = int(SCHEDULE_STEPS * used / seconds)
            lr = learning_rate(position, SCHEDULE_STEPS, WARMUP_STEPS, lr)
        learner.learn(loss_of, noise.added(step, *batch), lr)
    return step, used


def compare(name: str, data: ImageSet, unseen: ImageSet, args: argparse.Namespace) -> None:
    """Train one of the two networks, evaluate it and print its table."""
    torch.manual_seed(integer_seed(args.seed, "weights"))
    make = theirs if name == "theirs" else ours
    pipeline, learner = make(data)
    steps, used = fit(pipeline, learner, data, args.seconds, args.seed)
    images = steps * pipeline.config["batch_size"]
    print(
        f"{name}: {pipeline.num_parameters:,} parameters, {steps:,} steps, {images:,} images in {used:.0f} s of CPU",
        flush=True,
    )

    guidance = None if name == "ours" else 0.0
    options = SamplingOptions(SAMPLER, SAMPLING_STEPS, guidance=guidance)
    pipeline.ready(torch.device("cpu"))
    evaluation = evaluate_model(
        pipeline,
        data,
        unseen,
        num_samples=args.samples,
        seed=args.seed,
        options=options,
    )
    print(format_table(evaluation.rows, "about"), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Diffusers' course network against ours, at equal CPU time.")
    parser.add_argument(
        "--root",
        default=OURS["dataset"]["root"],
        help="MNIST in the folders that prepare_mnist.py makes",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=1200,
        help="seconds of CPU for each training; default: %(default)g",
    )
    parser.add_argument(
        "--samples",
        type=int,
        default=2000,
        help="samples to evaluate; default: %(default)d",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--which", choices=("both", "theirs", "ours"), default="both")
    args = parser.parse_args()

    data, unseen = make_sets("mnist", n_samples=None, seed=0, root=args.root)
    assert isinstance(data, ImageSet)
    assert isinstance(unseen, ImageSet)
    for name in ("theirs", "ours"):
        if args.which in ("both", name):
            compare(name, data, unseen, args)


if __name__ == "__main__":
    main()
