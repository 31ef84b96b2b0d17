"""A trained model, taken out of its checkpoint: network, scheduler and normaliser, ready to make samples."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import checkpoint
from dataset import Normaliser
from diffusion import denoiser
from model import build_model
from randomness import generator
from sampler import Denoiser, State, in_chunks, sample
from schedule import NoiseScheduler, make_scheduler

ROWS = 1250  # rows per pass through a network for points: what it computes then stays in the cache


@dataclass
class Trained:
    """What sampling needs. `config` is the plain dictionary that the model was trained with."""

    net: nn.Module
    scheduler: NoiseScheduler
    normaliser: Normaliser
    config: dict[str, Any]

    @property
    def dims(self) -> tuple[int, ...]:
        return tuple(self.normaliser.mean.shape)

    def denoise(self) -> Denoiser:
        """eps = denoise(x_t, t), in the normalised units that the network was trained in."""
        return in_chunks(denoiser(self.net, self.scheduler, self.config["model"]["prediction"]), ROWS)

    def sample(
        self,
        num_samples: int,
        seed: int,
        device: torch.device,
        *,
        sampler: str = "ddpm",
        sampling_steps: int | None = None,
        eta: float = 0.0,
    ) -> Iterator[State]:
        """A reverse process from fresh noise (sampler.sample), state by state, in normalised units."""
        g = generator(seed, "sampling", device=device)
        x_T = torch.randn(num_samples, *self.dims, generator=g, device=device)
        options = {"sampler": sampler, "sampling_steps": sampling_steps, "eta": eta}
        return sample(self.denoise(), self.scheduler, x_T, generator=g, **options)

    def data_units(self, x: Tensor) -> Tensor:
        """Samples as the data was given: float32 on the CPU."""
        return self.normaliser.denormalise(x).float().cpu()


def build(config: dict[str, Any], dims: tuple[int, ...]) -> tuple[nn.Module, NoiseScheduler]:
    """The untrained network and the scheduler that a training configuration asks for."""
    scheduler = make_scheduler(**{k: config[k] for k in ("schedule", "num_timesteps", "beta_start", "beta_end")})
    options = {k: v for k, v in config["model"].items() if k != "prediction"}
    return build_model(dims=dims, num_timesteps=scheduler.num_timesteps, **options), scheduler


def load(path: str | Path, device: torch.device) -> Trained:
    """The averaged (EMA) network of a checkpoint.

    Raises:
        FileNotFoundError, ValueError: see checkpoint.load; also where weights and configuration do not fit.
    """
    state = checkpoint.load(path)
    try:
        normaliser = Normaliser(**state["normaliser"])
        net, scheduler = build(state["config"], tuple(normaliser.mean.shape))
        average = AveragedModel(net)
        average.load_state_dict(state["ema"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"the checkpoint {path} does not fit its own configuration: {error}") from error
    return Trained(average.module.to(device).eval(), scheduler, normaliser, state["config"])
