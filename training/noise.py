"""Steps t, noise and dropped labels of each optimizer step: all are a function of (seed, step)."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from loss.objective import steps_from_bins
from pipeline import Pipeline
from runtime.randomness import generator
from training.shards import Batch

STEPS_PER_BLOCK = 256  # steps drawn in one call on a GPU, where a call takes as long as its start
MAX_NUMBERS_PER_BLOCK = 2**26


class Drawn(NamedTuple):
    """The random numbers of an optimizer step for a batch of B rows.

    within: where each row's t lies in its bin, ~ Uniform(0, 1), (B,).
    eps: noise ~ N(0, I), (B, *dims).
    drop: decides whether a row's label is dropped, ~ Uniform(0, 1), (B,).
    """

    within: Tensor
    eps: Tensor
    drop: Tensor


def draw(lead: tuple[int, ...], dims: tuple[int, ...], g: torch.Generator) -> Drawn:
    """Draw for one step, lead = (B,), or for several steps at once, lead = (steps, B).

    `drop` is drawn also where there are no labels: that takes 5 us of a step of 10 ms.
    """
    within = torch.rand(lead, generator=g, device=g.device)
    eps = torch.randn(lead + dims, generator=g, device=g.device)
    drop = torch.rand(lead, generator=g, device=g.device)
    return Drawn(within, eps, drop)


class Noise:
    """Makes training batches: rows of the data with the random numbers of their step, on the
    network's device.

    On a CPU each step draws its own numbers. On a GPU (**not tried on one**) the steps 0 .. 255
    take theirs from the first block, which is a function of (seed, 0), and so on. A batch of fewer
    rows takes the first ones.

    together: the number of steps in a block. Default: 1 on a CPU; on a GPU STEPS_PER_BLOCK, or
        fewer where a block would hold more than MAX_NUMBERS_PER_BLOCK numbers.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        seed: int,
        batch_size: int,
        together: int | None = None,
    ) -> None:
        self.pipeline = pipeline
        self.seed = seed
        self.batch_size = batch_size
        self.normaliser = pipeline.normaliser
        self.block = -1  # the number of the block that `numbers` holds

        on_gpu = pipeline.device.type == "cuda"
        self.drawn_on = pipeline.device if on_gpu else torch.device("cpu")
        if together is None:
            numbers_per_step = batch_size * math.prod(pipeline.dims)
            steps_with_room = max(1, MAX_NUMBERS_PER_BLOCK // numbers_per_step)
            together = min(STEPS_PER_BLOCK, steps_with_room) if on_gpu else 1
        self.together = together

    def added(self, step: int, x_0: Tensor, label: Tensor | None = None) -> Batch:
        """The training batch (x_0, t, eps, label) of a step.

        Args:
            x_0: rows of the data (B, *dims); they are normalised here.
            label: (B,); some are dropped here.
        """
        device = self.pipeline.device
        drawn = Drawn(*(numbers.to(device) for numbers in self.drawn(step, len(x_0))))
        num_timesteps = self.pipeline.scheduler.num_timesteps
        t = steps_from_bins(drawn.within, num_timesteps, self.pipeline.config["t_power"])

        if x_0.device != self.normaliser.mean.device:  # in the first step of data that lie on a GPU
            self.normaliser = self.normaliser.to(x_0.device)
        x_0 = self.normaliser.normalise(x_0).to(device, non_blocking=True)
        return x_0, t, drawn.eps, self._with_dropped(label, drawn.drop)

    def _with_dropped(self, label: Tensor | None, drop: Tensor) -> Tensor | None:
        """The labels (B,), some of them replaced by the null label, which is the number of classes.

        Their rows train the unconditional eps.
        """
        if label is None or not self.pipeline.classes:
            return None
        label = label.to(self.pipeline.device, non_blocking=True)
        dropped = drop < self.pipeline.config["label_dropout"]
        return label.masked_fill(dropped, len(self.pipeline.classes))

    def drawn(self, step: int, rows: int) -> Drawn:
        """The numbers of a step whose batch has so many rows."""
        dims = self.pipeline.dims
        if self.together == 1:
            return draw((rows,), dims, generator(self.seed, "noise", step, self.drawn_on))

        block, i = divmod(step, self.together)
        if block != self.block:
            g = generator(self.seed, "noise", block, self.drawn_on)
            self.numbers = draw((self.together, self.batch_size), dims, g)
            self.block = block
        return Drawn(*(numbers[i, :rows] for numbers in self.numbers))
