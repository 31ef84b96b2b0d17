"""The optimizers of a training: Muon for the weights between hidden layers, AdamW for all else."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from model import hidden_matrices

STEP = 0.5  # root mean square of what Muon adds to an entry, in units of the learning rate: near what AdamW adds
ITERATIONS = 3  # of Newton and Schulz; five made the excess loss no smaller
QUINTIC = 3.4445, -4.7750, 2.0315  # Jordan et al.: pulls all singular values into about 0.7 .. 1.2


class Muon(torch.optim.Optimizer):
    """Momentum, made orthogonal (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon): for matrices, and for
    convolutions, taken as matrices (out, in * k * k).

    In the weights' own precision: torch.optim.Muon multiplies in bfloat16, which many CPUs only emulate.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.9) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for weight in group["params"]:
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                momentum = state["momentum"].lerp_(weight.grad, 1 - group["momentum"])
                nesterov = weight.grad.lerp(momentum, group["momentum"]).flatten(1)
                size = group["lr"] * STEP * math.sqrt(max(nesterov.shape))
                weight.add_(orthogonal(nesterov).view_as(weight), alpha=-size)


def orthogonal(matrix: Tensor) -> Tensor:
    """About the nearest matrix with orthonormal rows or columns, by Newton-Schulz iteration: (n, m) -> (n, m)."""
    a, b, c = QUINTIC
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(ITERATIONS):  # x <- a x + (b x x^T + c (x x^T)^2) x
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def make_optimizers(net: nn.Module, name: str, *, lr: float, weight_decay: float) -> list[torch.optim.Optimizer]:
    """name "adamw": AdamW alone; "muon": Muon too, where the network has hidden matrices."""
    hidden = hidden_matrices(net) if name == "muon" else []
    taken = {id(weight) for weight in hidden}
    others = [weight for weight in net.parameters() if id(weight) not in taken]
    adamw = torch.optim.AdamW(others, lr, weight_decay=weight_decay, fused=True)
    return [adamw, Muon(hidden, lr)] if hidden else [adamw]
