"""A look at everything before a training begins: what will be learned, on what, and whether something is off."""

import copy
import time

import torch
from torch import Tensor, nn

from dataset import Normaliser
from diffusion import denoiser, training_loss
from schedule import NoiseScheduler

FAR = 8.0  # standard deviations: a point beyond is an outlier that the others' scale suffers from


def startup_check(
    x: Tensor,
    normaliser: Normaliser,
    scheduler: NoiseScheduler,
    net: nn.Module,
    prediction: str,
    *,
    batch_size: int,
    total: int,
) -> None:
    """Print a few lines about a training of `total` steps on normalised points x (N, *dims), and what looks wrong."""
    device = next(net.parameters()).device
    seconds = total * _seconds_per_step(net, scheduler, prediction, x[:batch_size].to(device))
    data = normaliser.denormalise(x).flatten(1)
    threads = torch.get_num_threads()
    print("start-up check")
    print(f"  data      {len(x):,} points; mean {_list(data.mean(0))}, standard deviation {_list(data.std(0))}")
    print(f"            range {_list(data.min(0).values)} to {_list(data.max(0).values)}")
    left = float(scheduler.sqrt_alphas_cumprod[-1])
    print(f"  schedule  {scheduler.num_timesteps} steps; x_T keeps {left:.2%} of the signal's amplitude")
    print(
        f"  machine   {device}, {threads} thread{'s' * (threads > 1)}; about {_duration(seconds)} for {total:,} steps"
    )
    for warning in warnings(x, scheduler, batch_size):
        print(f"  warning: {warning}")


def warnings(x: Tensor, scheduler: NoiseScheduler, batch_size: int) -> list[str]:
    """What is off with normalised points x (N, *dims), each with what to change."""
    found = [scheduler.signal_warning()] if scheduler.signal_warning() else []
    constant = (x == 0).all(0).flatten().nonzero()[:, 0].tolist()
    if constant:
        found.append(f"coordinate {constant} never varies: leave it out")
    if (far := float(x.abs().max())) > FAR:
        found.append(f"a point lies {far:.0f} standard deviations out: remove outliers, they spoil the scale")
    if len(x) < batch_size:
        found.append(f"batch_size={batch_size} is larger than the {len(x)} points: every batch holds them all")
    repeated = 1 - len(x.flatten(1).unique(dim=0)) / len(x)
    if repeated > 0.01:
        found.append(f"{repeated:.0%} of the points are repetitions: the model will learn to repeat them")
    return found


def _seconds_per_step(net: nn.Module, scheduler: NoiseScheduler, prediction: str, x_0: Tensor) -> float:
    """Measured on a copy, so that the training itself is not touched."""
    net = copy.deepcopy(net)
    optimizer = torch.optim.AdamW(net.parameters(), fused=True)
    t, eps = torch.zeros(len(x_0), dtype=torch.long, device=x_0.device), torch.zeros_like(x_0)
    for i in range(6):
        if i == 2:  # warmed up
            begin = time.perf_counter()
        loss = training_loss(denoiser(net, scheduler, prediction), scheduler, x_0, t, eps).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return (time.perf_counter() - begin) / 4


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _list(values: Tensor) -> str:
    shown = ", ".join(f"{v:.2f}" for v in values[:4].tolist())
    return f"({shown}{', ...' if len(values) > 4 else ''})"
