"""The optimizers: Muon for the weights between hidden layers, AdamW for all others."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from model import hidden_matrices

UPDATE_RMS = 0.5  # of Muon's update of an entry, in units of the learning rate; near that of AdamW
NEWTON_SCHULZ_STEPS = 3  # five made the excess loss no smaller
QUINTIC = (3.4445, -4.7750, 2.0315)  # Jordan et al.: moves singular values into about 0.7 .. 1.2


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal.

    Jordan et al. 2024, https://kellerjordan.github.io/posts/muon.

    It takes matrices, and convolutions, which are treated as matrices (out, in * k * k). It
    computes in the precision of the weights: torch.optim.Muon multiplies in bfloat16, which many
    CPUs only emulate.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.9) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for weight in group["params"]:
                self._update(weight, weight.grad, group["lr"], group["momentum"])

    def _update(self, weight: Tensor, gradient: Tensor, lr: float, decay: float) -> None:
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        momentum = state["momentum"].lerp_(gradient, 1 - decay)
        nesterov = gradient.lerp(momentum, decay).flatten(1)
        size = lr * UPDATE_RMS * math.sqrt(max(nesterov.shape))
        weight.add_(orthogonal(nesterov).view_as(weight), alpha=-size)


def orthogonal(matrix: Tensor) -> Tensor:
    """Approximately the nearest matrix with orthonormal rows or columns: (n, m) -> (n, m).

    One Newton-Schulz step is x <- a x + (b x x^T + c (x x^T)^2) x.
    """
    a, b, c = QUINTIC
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        square = x @ x.T
        polynomial = torch.addmm(square, square, square, beta=b, alpha=c)
        x = torch.addmm(x, polynomial, x, beta=a)
    return x.T if tall else x


def make_optimizers(net: nn.Module, name: str, *, lr: float, weight_decay: float) -> list[torch.optim.Optimizer]:
    """Make the optimizers of a network.

    Args:
        name: "adamw" for AdamW alone; "muon" for Muon as well, if the network has hidden matrices.
    """
    hidden = hidden_matrices(net) if name == "muon" else []
    hidden_ids = {id(weight) for weight in hidden}
    others = [weight for weight in net.parameters() if id(weight) not in hidden_ids]

    adamw = torch.optim.AdamW(others, lr, weight_decay=weight_decay, fused=True)
    if not hidden:
        return [adamw]
    return [adamw, Muon(hidden, lr)]
