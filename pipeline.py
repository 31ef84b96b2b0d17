"""A trained model, taken out of its checkpoint: network, scheduler and normaliser, ready to make samples."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from dataset import Normaliser
from diffusion import Denoiser, Prediction, check_target, denoiser, in_chunks, within_range
from model import build_model
from runtime import checkpoint_file
from runtime import device as devices
from runtime.arrays import floats
from runtime.randomness import generator
from samplers import State, sample, sampler_of
from samplers.guidance import checked_interval, classifier_free, guided
from schedule import NoiseScheduler, make_scheduler

# rows per pass through a network: what it computes then stays in the cache
ROWS, IMAGE_ROWS = 2500, 100


@dataclass
class Pipeline:
    """What sampling needs.

    config: the plain dictionary that the model was trained with. classes: names of the labels that samples can be
    asked for; none of an unconditional model. mixed: the network runs in bf16. early: the network as it was early in
    the training, where that was kept (early_ema).
    """

    net: nn.Module
    scheduler: NoiseScheduler
    normaliser: Normaliser
    config: dict[str, Any]
    classes: list[str] = field(default_factory=list)
    mixed: bool = False
    early: nn.Module | None = None

    @property
    def dims(self) -> tuple[int, ...]:
        return tuple(self.normaliser.mean.shape)

    @property
    def of_images(self) -> bool:
        return len(self.dims) == 3

    @property
    def kind(self) -> Literal["points", "images"]:
        return "images" if self.of_images else "points"

    @property
    def device(self) -> torch.device:
        return next(self.net.parameters()).device

    @property
    def num_parameters(self) -> int:
        return sum(weight.numel() for weight in self.net.parameters())

    def denoise(
        self,
        guidance: float = 0.0,
        guidance_interval: Sequence[float] | None = None,
        autoguidance: float = 0.0,
    ) -> Denoiser:
        """The network as a denoiser, in the normalised units that it was trained in; guided if asked (see `sample`).

        Raises:
            ValueError: guidance that this model cannot have.
        """
        self._check_guidance(guidance, guidance_interval, autoguidance)
        of, where = self._denoiser, (self.scheduler, checked_interval(guidance_interval))
        denoise = classifier_free(of(self.net), guidance, *where)
        if self.early:
            denoise = guided(denoise, of(self.early), autoguidance, *where)
        if not self.of_images:
            return in_chunks(denoise, ROWS)
        return in_chunks(within_range(denoise, self.scheduler), IMAGE_ROWS)

    def _denoiser(self, net: nn.Module) -> Denoiser:
        run = devices.in_bf16(net) if self.mixed else net
        return denoiser(run, self.scheduler, self.config["model"]["prediction"])

    def _check_guidance(self, guidance: float, interval: Sequence[float] | None, autoguidance: float) -> None:
        """Raises ValueError for guidance that this model cannot have, in a sentence that says what would."""
        if guidance and not self.classes:
            raise ValueError("guidance needs labels, and this model is unconditional; train one with conditional=true")
        if autoguidance and not self.early:
            raise ValueError("autoguidance needs an early snapshot of the model; train one with early_ema=0.1")
        if guidance and autoguidance:
            raise ValueError("guidance and autoguidance are alternatives: set one of them to 0")
        if interval is not None and not guidance and not autoguidance:
            raise ValueError("guidance_interval says where to guide: give guidance or autoguidance as well")

    def denoise_as(self, condition: int | None) -> Denoiser:
        """The same under one condition for all rows; None: unconditional."""
        denoise = self.denoise()

        def conditioned(x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
            if condition is not None:
                label = torch.full(x_t.shape[:1], condition, device=x_t.device)
            return denoise(x_t, t, label)

        return conditioned

    def sampling(
        self,
        defaults: Mapping[str, Any],
        *,
        sampler: str | None = None,
        sampling_steps: int | None = None,
        eta: float = 0.0,
        guidance: float | None = None,
        spacing: str | None = None,
        variance: str | None = None,
        guidance_interval: Sequence[float] | None = None,
        autoguidance: float = 0.0,
    ) -> dict[str, Any]:
        """The options of `sample`, those of `defaults` (a row of conf.choices.SAMPLING) in place of None."""
        own_sampler = "ddim" if "reflow" in self.config else defaults["sampler"]  # noise would leave the straight paths
        sampler = sampler or str(own_sampler)
        evaluations = sampler_of(sampler).evaluations
        if sampling_steps is None and evaluations:
            sampling_steps = min(defaults["sampling_steps"] or evaluations, self.scheduler.num_timesteps)
        if guidance is None:
            guidance = defaults["guidance"] if self.classes and not autoguidance else 0.0
            guidance_interval = guidance_interval or (defaults.get("guidance_interval") if guidance else None)
        own = {"sampler": sampler, "sampling_steps": sampling_steps, "eta": eta, "guidance": guidance}
        own |= {"guidance_interval": guidance_interval, "autoguidance": autoguidance}
        return own | {name: value for name, value in (("spacing", spacing), ("variance", variance)) if value}

    def labels(self, asked: list[int | str] | int | str | None, count: int) -> Tensor | None:
        """Which class each of `count` samples shall be, (count,): those asked for by name, in turn; None, "all": all.

        None for an unconditional model.

        Raises:
            ValueError: a label that the model has not learnt, or any of an unconditional model.
        """
        if asked is None and not self.classes:
            return None
        if not self.classes:
            raise ValueError("labels were asked of an unconditional model; train one with conditional=true")
        names = self.classes if asked in (None, "all") else asked if isinstance(asked, list) else [asked]
        wanted = [self.classes.index(str(name)) for name in names if str(name) in self.classes]
        if not wanted or len(wanted) < len(names):
            known = ", ".join(self.classes if len(self.classes) <= 12 else [*self.classes[:10], "..."])
            raise ValueError(
                f"labels must be all, or some of {known}, such as [{','.join(self.classes[:2])}]; got {asked}"
            )
        return torch.tensor(wanted).repeat(-(-count // len(wanted)))[:count]

    def sample(
        self,
        num_samples: int,
        seed: int,
        *,
        labels: Tensor | None = None,
        sampler: str = "ddpm",
        sampling_steps: int | None = None,
        eta: float = 0.0,
        guidance: float = 0.0,
        spacing: str | None = None,
        variance: str | None = None,
        guidance_interval: Sequence[float] | None = None,
        autoguidance: float = 0.0,
    ) -> Iterator[State]:
        """A reverse process from fresh noise (sampler.sample), state by state, in normalised units.

        Args:
            labels: the condition of each sample (num_samples,).
            guidance, autoguidance: weights w (samplers.guidance.guided), away from the network without the label, or
                from its early snapshot; at noise within guidance_interval, [low, high] of sigma / alpha.

        Raises:
            ValueError: see sampler.sample; guidance that this model cannot have.
        """
        denoise = self.denoise(guidance, guidance_interval, autoguidance)
        if labels is not None:
            denoise = partial(denoise, label=labels.to(self.device))
        x_T, g = self.start(num_samples, seed)
        options = {"sampler": sampler, "sampling_steps": sampling_steps, "eta": eta}
        options |= {"spacing": spacing, "variance": variance}
        return sample(denoise, self.scheduler, x_T, generator=g, **options)

    def start(self, num_samples: int, seed: int) -> tuple[Tensor, torch.Generator]:
        """The noise x_T (num_samples, *dims) that `sample` starts from, and the generator that it goes on with."""
        g = generator(seed, "sampling", device=self.device)
        return torch.randn(num_samples, *self.dims, generator=g, device=self.device), g

    def data_units(self, x: Tensor) -> Tensor:
        """Samples as the data was given, in its type, on the CPU."""
        return self.normaliser.denormalise(x).cpu()

    def ready(self, device: torch.device) -> "Pipeline":
        """On the device, for sampling only."""
        channels_last = self.of_images and not (self.mixed and device.type == "cpu")
        for net in filter(None, (self.net, self.early)):
            devices.place(net, device, channels_last).eval()
        return self


def process_of(config: Mapping[str, Any]) -> NoiseScheduler:
    """The process of a training configuration. Raises ValueError where there is none, or none for its target."""
    options = {k: config[k] for k in ("schedule", "num_timesteps", "beta_start", "beta_end")}
    scheduler = make_scheduler(**options, zero_snr=config.get("zero_snr", False))  # older checkpoints have none
    check_target(scheduler, config["model"]["prediction"])
    return scheduler


def build(config: dict[str, Any], dims: tuple[int, ...], num_labels: int = 0) -> tuple[nn.Module, NoiseScheduler]:
    """The untrained network and the scheduler that a training configuration asks for."""
    scheduler = process_of(config)
    options = {k: v for k, v in config["model"].items() if k != "prediction"}
    return build_model(dims=dims, num_timesteps=scheduler.num_timesteps, num_labels=num_labels, **options), scheduler


def load(path: str | Path, device: torch.device, precision: str = "auto") -> Pipeline:
    """The averaged (EMA) network of a checkpoint. Raises as checkpoint_file.load and of_state do."""
    return of_state(checkpoint_file.load(path), path, device, precision)


def of_state(state: Mapping[str, Any], path: str | Path, device: torch.device, precision: str = "auto") -> Pipeline:
    """The averaged (EMA) network in what the checkpoint at `path` holds.

    Raises:
        ValueError: weights and configuration do not fit.
    """
    try:
        normaliser, classes = _normaliser(state["normaliser"]), _names(state["classes"])
        if missing := {"seed", "num_samples", "dataset"} - state["config"].keys():
            raise KeyError(*sorted(missing))
        net, scheduler = build(state["config"], tuple(normaliser.mean.shape), len(classes))
        average, weights = AveragedModel(net), state["ema"]
        denoiser(net, scheduler, state["config"]["model"]["prediction"])  # raises where there is no such target
    except Exception as error:  # parts of any wrong type and value fail in as many ways
        why = f"it has no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"the checkpoint {path} does not fit its own configuration: {why}") from error
    take_weights(average, weights, path)
    mixed, early = devices.mixed_precision(precision, device, images=normaliser.mean.ndim == 3), None
    if "early" in state:
        early = AveragedModel(net)
        take_weights(early, state["early"], path)
        early = early.module
    return Pipeline(average.module, scheduler, normaliser, state["config"], classes, mixed, early).ready(device)


def take_weights(net: nn.Module, weights: dict[str, Tensor], path: str | Path) -> None:
    """Load the weights out of the checkpoint at `path` into `net`.

    Raises:
        ValueError: they are those of another network; the sentence names the first that differs.
    """
    if not isinstance(weights, Mapping) or not all(isinstance(w, Tensor) for w in weights.values()):
        raise ValueError(f"the checkpoint {path} holds no weights where they should be")
    own = {name: tuple(w.shape) for name, w in net.state_dict().items()}
    theirs = {name: tuple(w.shape) for name, w in weights.items()}
    for name in [*own, *theirs]:
        if own.get(name) != theirs.get(name):
            have, want = (f"of shape {w[name]}" if name in w else "absent" for w in (theirs, own))
            raise ValueError(f"the checkpoint {path} holds another network: {name} is {have}, and here {want}")
    for name, w in net.state_dict().items():
        if weights[name].dtype != w.dtype or not bool(weights[name].isfinite().all()):
            raise ValueError(f"the checkpoint {path} holds {name} as {weights[name].dtype} or with NaN or infinity")
    net.load_state_dict(weights)


def _normaliser(parts: Mapping[str, Tensor]) -> Normaliser:
    """Raises ValueError where mean and std are not those of points or images."""
    mean, std = (parts["mean"], parts["std"]) if isinstance(parts, Mapping) else (None, None)
    if not isinstance(mean, Tensor) or not isinstance(std, Tensor):
        raise ValueError("its normaliser is not of tensors")
    mean, std = floats(mean, "mean"), floats(std, "std")
    if mean.shape != std.shape or mean.ndim not in (1, 3) or not mean.numel() or not bool((std > 0).all()):
        raise ValueError(f"its normaliser has shapes {tuple(mean.shape)} and {tuple(std.shape)}, or std not above 0")
    return Normaliser(mean, std)


def _names(classes: list[str]) -> list[str]:
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError("its classes are not a list of names")
    return classes
