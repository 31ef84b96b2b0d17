"""What each optimizer step adds to its batch: steps t, noise, dropped labels. All a function of (seed, step)."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from loss.objective import steps_at
from pipeline import Pipeline
from runtime.randomness import generator
from training.shards import Batch

TOGETHER = 256  # steps whose numbers are drawn in one call on a GPU, where a call takes as long as its start
MOST = 2**26  # numbers drawn in one call


class Drawn(NamedTuple):
    """Random numbers of an optimizer step: where each row's t lies in its bin (B,), noise (B, *dims), and what decides
    whether a label is dropped (B,). The first and the last are even in 0..1."""

    within: Tensor
    eps: Tensor
    drop: Tensor


def draw(lead: tuple[int, ...], dims: tuple[int, ...], g: torch.Generator) -> Drawn:
    """`lead` is (B,), or (steps, B) for several steps at once. Without labels, too: `drop` takes 5 us of 10 ms."""
    at = {"generator": g, "device": g.device}
    return Drawn(torch.rand(lead, **at), torch.randn(lead + dims, **at), torch.rand(lead, **at))


class Noise:
    """The noise of a training, on the network's device.

    On a CPU each step draws its own numbers. On a GPU (**not tried on one**) steps 0 .. 255 take theirs from the first
    block, which is a function of (seed, 0), and so on; a batch of fewer rows takes the first ones.

    together: steps in a block; default: 1 on a CPU, else TOGETHER, or as many as are MOST numbers.
    """

    def __init__(self, pipeline: Pipeline, seed: int, batch_size: int, together: int | None = None) -> None:
        self.pipeline, self.seed, self.batch_size = pipeline, seed, batch_size
        self.normaliser, self.block, on_gpu = pipeline.normaliser, -1, pipeline.device.type == "cuda"
        self.drawn_on = pipeline.device if on_gpu else torch.device("cpu")
        most = max(1, min(TOGETHER, MOST // (batch_size * math.prod(pipeline.dims))))
        self.together = together or (most if on_gpu else 1)

    def added(self, step: int, x_0: Tensor, label: Tensor | None = None) -> Batch:
        """(x_0, t, eps, label) of that step: the batch x_0 (B, *dims) normalised, some of the labels (B,) dropped."""
        pipeline, drawn = self.pipeline, Drawn(*(x.to(self.pipeline.device) for x in self.drawn(step, len(x_0))))
        t = steps_at(drawn.within, pipeline.scheduler.num_timesteps, pipeline.config["t_power"])
        if pipeline.classes and label is not None:  # without its label an image teaches the unconditional epsilon
            label = label.to(pipeline.device, non_blocking=True)
            label = label.masked_fill(drawn.drop < pipeline.config["label_dropout"], len(pipeline.classes))
        else:
            label = None
        if x_0.device != self.normaliser.mean.device:  # once: where the data lie, there they are normalised
            self.normaliser = self.normaliser.on(x_0.device)
        return self.normaliser.normalise(x_0).to(pipeline.device, non_blocking=True), t, drawn.eps, label

    def drawn(self, step: int, rows: int) -> Drawn:
        """The numbers of a step whose batch has so many rows."""
        if self.together == 1:
            return draw((rows,), self.pipeline.dims, generator(self.seed, "noise", step, self.drawn_on))
        block, i = divmod(step, self.together)
        if block != self.block:
            g = generator(self.seed, "noise", block, self.drawn_on)
            self.numbers, self.block = draw((self.together, self.batch_size), self.pipeline.dims, g), block
        return Drawn(*(x[i, :rows] for x in self.numbers))
