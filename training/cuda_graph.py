"""An optimizer step as a CUDA graph: recorded once, then replayed without Python. **Not yet tried on a GPU.**

A graph is a list of kernels with the addresses that they read and write. So whatever changes from step to step comes in
through tensors that stay where they are, numbers such as the learning rate included, and no step may wait to read a
value. tests/test_graph.py holds the steps to both, on a CPU, by a list of operations that is replayed like a graph.
"""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from runtime import distributed

Run: TypeAlias = Callable[..., Tensor]
Record: TypeAlias = Callable[[Run, tuple[Tensor | None, ...]], tuple[Callable[[], None], Tensor]]
WARM_UP = 3  # calls before the recording, in which libraries settle and optimizers make their state


def check(asked: bool, device: torch.device) -> None:
    """Raises ValueError where graphs are asked for that cannot be had."""
    if asked and (device.type != "cuda" or distributed.world() > 1):
        raise ValueError("cuda_graph=true needs a GPU of NVIDIA or AMD, and a single process: leave it out")


class Replayed:
    """A function of tensors (or None), always of the same shapes, that changes others: recorded once, then replayed.

    record: (run, arguments that stay where they are) -> (replay, what it returns, which stays there too).
    """

    def __init__(self, run: Run, record: Record) -> None:
        self.run, self.record, self.calls = run, record, 0
        self.recorded: tuple[tuple[Tensor | None, ...], Callable[[], None], Tensor] | None = None

    def __call__(self, *given: Tensor | None) -> Tensor:
        self.calls += 1
        if self.calls <= WARM_UP:
            return aside(self.run, given)
        if self.recorded is None:
            own = tuple(None if x is None else x.clone() for x in given)
            self.recorded = own, *self.record(self.run, own)
        own, replay, output = self.recorded
        for mine, new in zip(own, given):
            if mine is not None and new is not None:
                mine.copy_(new)
        replay()
        return output.clone()


def aside(run: Run, given: tuple[Tensor | None, ...]) -> Tensor:
    """The function as it is, on a GPU on a stream of its own, as warm-ups must be."""
    if not any(x.is_cuda for x in given if x is not None):
        return run(*given)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        output = run(*given)
    torch.cuda.current_stream().wait_stream(stream)
    return output


def on_gpu(run: Run, own: tuple[Tensor | None, ...]) -> tuple[Callable[[], None], Tensor]:
    """Records without computing: the first replay is the first time."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = run(*own)
    return graph.replay, output
