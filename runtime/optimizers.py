"""The optimizers of a training: Muon for the weights between hidden layers, AdamW for all else."""

import inspect
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
            for weights in of_one_shape(group["params"]):
                self._step(weights, group["lr"], group["momentum"])

    def _step(self, weights: list[Tensor], lr: float | Tensor, share: float) -> None:
        """One of K weights of one shape: their products in one call take less time than in K small ones."""
        for weight in weights:
            if not self.state[weight]:
                self.state[weight]["momentum"] = torch.zeros_like(weight)
        gradients: list[Any] = [weight.grad for weight in weights]
        momenta = [self.state[weight]["momentum"] for weight in weights]
        torch._foreach_lerp_(momenta, gradients, 1 - share)  # pyright: ignore[reportPrivateImportUsage]
        nesterov = torch.stack(torch._foreach_lerp(gradients, momenta, share)).flatten(2)  # pyright: ignore[reportPrivateImportUsage]
        size = lr * STEP * math.sqrt(max(nesterov.shape[1:]))
        updates = (size * orthogonal(nesterov)).view(-1, *weights[0].shape)
        torch._foreach_sub_(weights, updates.unbind())  # pyright: ignore[reportPrivateImportUsage]


def of_one_shape(weights: Iterable[Tensor]) -> list[list[Tensor]]:
    """The weights in groups of equal shape."""
    groups: dict[torch.Size, list[Tensor]] = {}
    for weight in weights:
        groups.setdefault(weight.shape, []).append(weight)
    return [*groups.values()]


def orthogonal(matrices: Tensor) -> Tensor:
    """About the nearest matrices with orthonormal rows or columns, by Newton-Schulz iteration: (K, n, m) like those."""
    a, b, c = QUINTIC
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):  # x <- a x + (b x x^T + c (x x^T)^2) x
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


# torch's optimizers import its compiler, which takes a second, only to tell it to leave some of their methods alone. So
# these count as told (torch._compile._disable_dynamo), and `step` is taken out of the decorator that says so.
for name in ("add_param_group", "state_dict", "load_state_dict", "zero_grad"):
    method = inspect.unwrap(getattr(torch.optim.Optimizer, name))
    setattr(method, "__dynamo_disable", method)


class AdamW(torch.optim.AdamW):
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


def make_optimizers(net: nn.Module, name: str, *, lr: float, weight_decay: float) -> list[torch.optim.Optimizer]:
    """name "adamw": AdamW alone; "muon": Muon too, where the network has hidden matrices."""
    hidden = hidden_matrices(net) if name == "muon" else []
    taken = {id(weight) for weight in hidden}
    others = [weight for weight in net.parameters() if id(weight) not in taken]
    on_gpu = others[0].is_cuda
    adamw = AdamW(others, lr, weight_decay=weight_decay, fused=True, capturable=on_gpu)
    return [adamw, Muon(hidden, lr)] if hidden else [adamw]
