"""Steps t, noise and dropped labels of each optimizer step: all are a function of (seed, step)."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from loss.objective import one_in_each_bin, steps_at
from pipeline import Pipeline
from runtime.randomness import generator, integer_seed
from training.shards import Batch

STEPS_PER_BLOCK = 256  # steps drawn in one call on a GPU, where a call takes as long as its start
MAX_NUMBERS_PER_BLOCK = 2**26
MAX_EVEN_DIMS = 64  # numbers of a row up to which its eps is drawn evenly
SMALLEST_UNIFORM = 1e-15  # its normal quantile is -7.9


class Drawn(NamedTuple):
    """The random numbers of an optimizer step for a batch of B rows.

    u: decides each row's t, ~ Uniform(0, 1), (B,).
    eps: noise ~ N(0, I), (B, *dims).
    drop: decides whether a row's label is dropped, ~ Uniform(0, 1), (B,).
    """

    u: Tensor
    eps: Tensor
    drop: Tensor


class EvenNumbers:
    """Random numbers (u, eps, drop) that cover their space evenly within each batch.

    A scrambled Sobol set of batch_size points is shifted at random at each step, modulo 1 (Cranley
    and Patterson 1976, doi 10.1137/0713071). Each shifted point is uniform in the unit cube, so
    each row's numbers have exactly the distribution of independent draws. eps follows by the
    quantile function of the normal distribution. Data of more than MAX_EVEN_DIMS numbers a row have
    independent eps, because a Sobol set of so few points is not even in so many dimensions.
    """

    def __init__(self, batch_size: int, dims: tuple[int, ...], seed: int, device: torch.device) -> None:
        self.dims = dims
        size = math.prod(dims)
        self.num_even = size if size <= MAX_EVEN_DIMS else 0
        sobol = torch.quasirandom.SobolEngine(2 + self.num_even, scramble=True, seed=integer_seed(seed, "even numbers"))
        self.base = sobol.draw(batch_size, dtype=torch.float64).to(device)

    def draw(self, steps: int, g: torch.Generator) -> Drawn:
        """The numbers of so many steps at once; each member has the leading dimensions (steps, B)."""
        shape = (steps, 1, self.base.shape[1])
        shift = torch.rand(shape, generator=g, device=self.base.device, dtype=torch.float64)
        return self.numbers_at(shift, g)

    def numbers_at(self, shift: Tensor, g: torch.Generator) -> Drawn:
        """The numbers at the points shifted by `shift`, of shape (steps, 1, 2 + even dimensions)."""
        uniform = (self.base + shift) % 1
        shape = (*uniform.shape[:2], *self.dims)
        if self.num_even:
            inner = uniform[..., 1:-1].clamp(SMALLEST_UNIFORM, 1 - SMALLEST_UNIFORM)
            eps = torch.special.ndtri(inner).float().view(shape)
        else:
            eps = torch.randn(shape, generator=g, device=self.base.device)
        return Drawn(uniform[..., 0], eps, uniform[..., -1])


class IndependentNumbers:
    """Random numbers of which eps and drop are independent draws; u has one value in each of
    batch_size equal bins.
    """

    def __init__(self, batch_size: int, dims: tuple[int, ...], device: torch.device) -> None:
        self.batch_size = batch_size
        self.dims = dims
        self.device = device

    def draw(self, steps: int, g: torch.Generator) -> Drawn:
        """The numbers of so many steps at once; each member has the leading dimensions (steps, B)."""
        shape = (steps, self.batch_size)
        within = torch.rand(shape, generator=g, device=self.device)
        eps = torch.randn((*shape, *self.dims), generator=g, device=self.device)
        drop = torch.rand(shape, generator=g, device=self.device)
        return Drawn(one_in_each_bin(within), eps, drop)


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

        dims = pipeline.dims
        if pipeline.config["batches"] == "even":
            self.numbers_of_steps = EvenNumbers(batch_size, dims, seed, self.drawn_on)
        else:
            self.numbers_of_steps = IndependentNumbers(batch_size, dims, self.drawn_on)

    def added(self, step: int, x_0: Tensor, label: Tensor | None = None) -> Batch:
        """The training batch (x_0, t, eps, label) of a step.

        Args:
            x_0: rows of the data (B, *dims); they are normalised here.
            label: (B,); some are dropped here.
        """
        device = self.pipeline.device
        drawn = Drawn(*(numbers.to(device) for numbers in self.drawn(step, len(x_0))))
        num_timesteps = self.pipeline.scheduler.num_timesteps
        t = steps_at(drawn.u, num_timesteps, self.pipeline.config["t_power"])

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
        block, i = divmod(step, self.together)
        if block != self.block:
            g = generator(self.seed, "noise", block, self.drawn_on)
            self.numbers = self.numbers_of_steps.draw(self.together, g)
            self.block = block
        return Drawn(*(numbers[i, :rows] for numbers in self.numbers))
