"""A trained model that can be loaded and sampled: `Pipeline.load(path).sample(1000)`.

A pipeline holds the network, the scheduler and the normaliser of a checkpoint, and the names of its labels.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.optim.swa_utils import AveragedModel

from dataset import IMAGE_DATASETS, DataSet, Normaliser, make_sets
from diffusion import Denoiser, Prediction, check_target, clamped_denoiser, denoiser, in_chunks
from model import build_model
from points.table_writer import write_table
from points.tables import Columns
from registry.plugins import is_of_plugin, missing_row
from registry.sampler_rows import SAMPLING, Kind, SamplingDefaults
from runtime import checkpoint_file
from runtime import device as devices
from runtime.arrays import floats
from runtime.diffusers_folder import NO_DATA
from runtime.randomness import generator
from samplers import State, last, sample, sampler_row
from samplers.guidance import checked_interval, classifier_free, guided
from samplers.options import SamplingOptions
from schedule import NoiseScheduler, make_scheduler

# Rows in one pass through a network: what it computes then stays in the CPU's cache.
POINTS_PER_PASS = 2500
IMAGES_PER_PASS = 100
PIXELS_PER_PASS = 2**19  # of larger images; 8 of 256 x 256 pixels
MAX_NAMED = 12  # labels that a line names

Labels = Sequence[int | str] | int | str | Tensor | None


@dataclass
class Pipeline:
    """A trained model.

    config: the plain dictionary that the model was trained with. classes: the names of the labels that samples can be
    asked for; empty for an unconditional model. mixed: the network runs in bf16. early: the network early in its
    training, where that was kept (early_ema). columns: the names of the coordinates, for points from a file.
    label_counts: how many of the training data have each label; [] where that is not known.
    """

    net: nn.Module
    scheduler: NoiseScheduler
    normaliser: Normaliser
    config: dict[str, Any]
    classes: list[str] = field(default_factory=list)
    mixed: bool = False
    early: nn.Module | None = None
    columns: Columns | None = None
    label_counts: list[int] = field(default_factory=list)
    _data_sets: tuple[DataSet, DataSet] | None = field(default=None, init=False, repr=False)

    @classmethod
    def load(cls, path: str | Path, device: str = "auto", precision: str = "auto") -> "Pipeline":
        """The model in a checkpoint or a run folder, with averaged (EMA) weights, ready to be sampled.

        Args:
            path: a checkpoint, a run folder, or "latest": the newest below outputs/ and runs/.
            device: "auto" (a GPU where there is one), "cpu", "cuda" ...
            precision: "auto", "fp32" or "bf16".

        Raises:
            FileNotFoundError: nothing there.
            ValueError: no checkpoint of moonwalk, a damaged one, or a device that cannot be used.
        """
        if path == checkpoint_file.LATEST:
            path, state = checkpoint_file.load_newest()
        else:
            state = checkpoint_file.load(path)
        return pipeline_from_checkpoint(state, path, devices.choose(device), precision)

    # ------------------------------------------------------------ what it is

    @property
    def dims(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return tuple(self.normaliser.mean.shape)

    @property
    def of_images(self) -> bool:
        return len(self.dims) == 3

    @property
    def kind(self) -> Kind:
        return "images" if self.of_images else "points"

    @property
    def has_null_label(self) -> bool:
        """Whether the network has also learnt to predict without a label, as guidance requires."""
        return bool(self.classes) and self.config.get("label_dropout") != 0

    @property
    def device(self) -> torch.device:
        return next(self.net.parameters()).device

    @property
    def num_parameters(self) -> int:
        return sum(weight.numel() for weight in self.net.parameters())

    @property
    def knows_data(self) -> bool:
        """Whether the options say which data the model was trained on; those of a diffusers folder do not."""
        return self.config["dataset"]["name"] != NO_DATA

    def take_data(self, dataset: dict[str, Any]) -> None:
        """Compare with the image set of these options, if the model does not know its own data."""
        if not self.knows_data and dataset["name"] in IMAGE_DATASETS:
            self.config["dataset"] = dataset
            train, _ = self.data_sets()
            _check_data_fit(train, self.dims, self.classes)

    def data_sets(self) -> tuple[DataSet, DataSet]:
        """The data that the model was trained on and the held-out data, made from its options, once.

        Raises:
            ValueError, OSError: as `dataset.make_sets`; ValueError also where the data are not known.
        """
        if not self.knows_data:
            raise ValueError(
                "this folder of diffusers does not say which data the model was trained on, and no figure can be"
                " computed without real images: give them by dataset=images dataset.root=DIR or dataset=mnist"
            )
        if self._data_sets is None:
            options = self.config["dataset"]
            if options.get("path"):  # a checkpoint of others may name any file
                print(f"data: {options['path']}")
            self._data_sets = make_sets(n_samples=self.config["num_samples"], seed=self.config["seed"], **options)
        return self._data_sets

    # ------------------------------------------------------------ samples

    def sample(
        self, num_samples: int, options: SamplingOptions | None = None, *, labels: Labels = None, seed: int = 0
    ) -> Tensor:
        """Samples (num_samples, *dims) in the units of the data, on the CPU.

        Args:
            options: how they are drawn; default: as `inference.py` does.
            labels: names of labels, which are taken in turn; "all": all of them in turn; or the index of each sample's
                label (num_samples,). Default: labels of a conditional model as often as they occur in the data.

        Raises:
            ValueError: labels or options that this model or the sampler does not have.
        """
        return self.data_units(last(self.states(num_samples, options, labels=labels, seed=seed)))

    def states(
        self, num_samples: int, options: SamplingOptions | None = None, *, labels: Labels = None, seed: int = 0
    ) -> Iterator[State]:
        """The states of the reverse process from fresh noise, in normalised units. Arguments and errors as `sample`."""
        options = self.resolve(options)
        denoise = self.denoiser(options)
        if not isinstance(labels, Tensor):
            labels = self.labels(labels, num_samples)
        if labels is not None:
            denoise = partial(denoise, label=labels.to(self.device))
        x_T, g = self.start(num_samples, seed)
        return sample(denoise, self.scheduler, x_T, options, generator=g)

    def start(self, num_samples: int, seed: int) -> tuple[Tensor, torch.Generator]:
        """The noise x_T (num_samples, *dims) that `states` starts from, and the generator of its fresh noise."""
        g = generator(seed, "sampling", device=self.device)
        x_T = torch.randn(num_samples, *self.dims, generator=g, device=self.device)
        return x_T, g

    def data_units(self, x: Tensor) -> Tensor:
        """Normalised samples in the units and the dtype of the data, on the CPU."""
        return self.normaliser.denormalise(x).cpu()

    def save_table(self, path: Path, samples: NDArray, labels: NDArray | None = None) -> Path:
        """Write samples (N, d) as a .csv file with the columns of the file that was learnt; return its path.

        labels: (N,), indices into `classes`; None: no column of labels.

        Raises:
            OSError: the file cannot be written.
        """
        columns = self.columns or Columns()
        option = self.config["dataset"].get("label")
        write_table(path, samples, columns, labels, self.classes, option)
        return path

    def labels(self, asked: Sequence[int | str] | int | str | None, count: int) -> Tensor | None:
        """The label index of each of `count` samples, (count,).

        None asks for labels as often as they occur in the data; where that is not known, for all labels in equal
        shares, as "all" does. Names are taken in turn. An unconditional model has no labels, and returns None.

        Raises:
            ValueError: a label that the model has not learnt, or any of an unconditional model.
        """
        if asked is None and not self.classes:
            return None
        if not self.classes:
            raise ValueError("labels were asked of an unconditional model; train one with conditional=true")
        if asked is None and any(self.label_counts):
            return labels_by_share(self.label_counts, count)

        if asked is None or asked == "all":
            names = self.classes
        elif isinstance(asked, int | str):
            names = [asked]
        else:
            names = asked
        wanted = [self.classes.index(str(name)) for name in names if str(name) in self.classes]
        if not wanted or len(wanted) < len(names):
            known = ", ".join(self.classes if len(self.classes) <= 12 else [*self.classes[:10], "..."])
            raise ValueError(
                f"labels must be all, or some of {known}, such as [{','.join(self.classes[:2])}]; got {asked}"
            )
        repeats = -(-count // len(wanted))
        return torch.tensor(wanted).repeat(repeats)[:count]

    def describe_labels(self, asked: Labels, labels: Tensor) -> str:
        """How many of the labels (N,) are of each name, and why, in words. asked: as in `labels`."""
        counts = labels.bincount(minlength=len(self.classes)).tolist()
        found = []
        for name, count in zip(self.classes, counts):
            if count or asked is None:
                found.append(f"{name} {count:,}")
        shown = ", ".join(found[:MAX_NAMED])
        if len(found) > MAX_NAMED:
            shown += f", ... ({len(found)} labels)"
        if asked is not None:
            return shown
        if any(self.label_counts):
            return f"{shown}; as often as in the data (labels=all: equally often)"
        return f"{shown}; equally often, because this checkpoint does not say how often they occur in the data"

    def resolve(
        self, options: SamplingOptions | None = None, defaults: SamplingDefaults | None = None
    ) -> SamplingOptions:
        """The options with a sampler, a number of evaluations and a guidance in place of None.

        defaults: default: those of the kind of data, registry.sampler_rows.SAMPLING.

        Raises:
            ValueError: an unknown sampler.
        """
        options = options or SamplingOptions()
        defaults = defaults or SAMPLING[self.kind]

        sampler = options.sampler
        if sampler is None:  # noise would leave the straight paths of reflow
            sampler = "ddim" if "reflow" in self.config else defaults.sampler

        steps = options.sampling_steps
        own_steps = sampler_row(sampler).evaluations
        if steps is None and own_steps is not None:
            steps = min(defaults.sampling_steps or own_steps, self.scheduler.num_timesteps)

        guidance = options.guidance
        interval = options.guidance_interval
        if guidance is None:
            guidance = defaults.guidance if self.has_null_label and not options.autoguidance else 0.0
            interval = interval or (defaults.guidance_interval if guidance else None)
        return replace(options, sampler=sampler, sampling_steps=steps, guidance=guidance, guidance_interval=interval)

    # ------------------------------------------------------------ denoisers

    def denoiser(self, options: SamplingOptions | None = None) -> Denoiser:
        """The network as a denoiser, in normalised units, with the guidance of the options. Default: no guidance.

        Its t may be an int, too, one step for all rows.

        Raises:
            ValueError: guidance that this model cannot have.
        """
        options = options or SamplingOptions()
        guidance = options.guidance or 0.0
        self._check_guidance(options)

        interval = checked_interval(options.guidance_interval)
        denoise = classifier_free(self._network_denoiser(self.net), guidance, self.scheduler, interval)
        if self.early:
            early = self._network_denoiser(self.early)
            denoise = guided(denoise, early, options.autoguidance, self.scheduler, interval)
        if not self.of_images:
            return in_chunks(denoise, POINTS_PER_PASS)
        limit = self.config.get("clip_sample", 1.0)  # None: a model of diffusers that is sampled without clamping
        if limit is not None:
            denoise = clamped_denoiser(denoise, self.scheduler, limit)
        pixels = self.dims[1] * self.dims[2]
        return in_chunks(denoise, max(1, min(IMAGES_PER_PASS, PIXELS_PER_PASS // pixels)))

    def denoiser_for_label(self, number: int | None) -> Denoiser:
        """The network as a denoiser under one label for all rows, given by its number; None: without a label."""
        denoise = self.denoiser()

        def denoise_labelled(x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Prediction:
            if number is not None:
                label = torch.full(x_t.shape[:1], number, device=x_t.device)
            return denoise(x_t, t, label)

        return denoise_labelled

    def _network_denoiser(self, net: nn.Module) -> Denoiser:
        run = devices.in_bf16(net) if self.mixed else net
        return denoiser(run, self.scheduler, self.config["model"]["prediction"])

    def _check_guidance(self, options: SamplingOptions) -> None:
        """Raises ValueError for guidance that this model cannot have, in a sentence that says what would help."""
        if options.guidance and not self.classes:
            raise ValueError("guidance needs labels, and this model is unconditional; train one with conditional=true")
        if options.guidance and not self.has_null_label:
            raise ValueError(
                "guidance needs predictions without a label, and this model has learnt none (label_dropout=0):"
                " leave out guidance"
            )
        if options.autoguidance and not self.early:
            raise ValueError("autoguidance needs an early snapshot of the model; train one with early_ema=0.1")
        if options.guidance and options.autoguidance:
            raise ValueError("guidance and autoguidance are alternatives: set one of them to 0")
        if options.guidance_interval is not None and not options.guidance and not options.autoguidance:
            raise ValueError("guidance_interval says where to guide: give guidance or autoguidance as well")

    def ready(self, device: torch.device) -> "Pipeline":
        """The same pipeline on the device, for sampling only."""
        channels_last = self.of_images and not (self.mixed and device.type == "cpu")
        for net in (self.net, self.early):
            if net is not None:
                devices.place(net, device, channels_last).eval()
        return self


def labels_by_share(counts: Sequence[int], total: int) -> Tensor:
    """Labels (total,) in the proportions of `counts`, one for each label.

    Shares are rounded by the largest remainders. Each label is spread evenly over the rows, so that any first rows have
    about the same proportions, and equal counts take turns.
    """
    shares = torch.tensor(counts, dtype=torch.float64)
    shares = total * shares / shares.sum()
    sizes = shares.floor().long()
    missing = total - int(sizes.sum())
    by_remainder = (sizes - shares).argsort(stable=True)
    sizes[by_remainder[:missing]] += 1

    labels = torch.arange(len(counts)).repeat_interleave(sizes)
    first = (sizes.cumsum(0) - sizes)[labels]
    number = torch.arange(total) - first
    place = (number + 0.5) / sizes[labels]
    return labels[place.argsort(stable=True)]


# ---------------------------------------------------------------- out of a configuration or a checkpoint


def scheduler_from_config(config: Mapping[str, Any]) -> NoiseScheduler:
    """The process of a training configuration.

    Raises:
        ValueError: no such process, or one on which its prediction target cannot work.
    """
    options = {name: config[name] for name in ("schedule", "num_timesteps", "beta_start", "beta_end")}
    # older checkpoints have no zero_snr, and only models of diffusers have betas or a shift
    added = {name: config[name] for name in ("zero_snr", "betas", "flow_shift") if name in config}
    scheduler = make_scheduler(**options, **added)
    model = dict(config["model"])  # raises where a damaged checkpoint holds something else
    check_target(scheduler, model["prediction"])
    return scheduler


def build(config: dict[str, Any], dims: tuple[int, ...], num_labels: int = 0) -> tuple[nn.Module, NoiseScheduler]:
    """The untrained network and the scheduler that a training configuration asks for. Raises ValueError as above."""
    scheduler = scheduler_from_config(config)
    return _network(config, dims, num_labels, scheduler.num_timesteps), scheduler


def _network(config: Mapping[str, Any], dims: tuple[int, ...], num_labels: int, num_timesteps: int) -> nn.Module:
    options = {name: value for name, value in config["model"].items() if name != "prediction"}
    return build_model(dims=dims, num_timesteps=num_timesteps, num_labels=num_labels, **options)


def pipeline_from_checkpoint(
    state: Mapping[str, Any], path: str | Path, device: torch.device, precision: str = "auto"
) -> Pipeline:
    """The model with averaged (EMA) weights out of `state`, which the checkpoint at `path` holds.

    Raises:
        ValueError: weights and configuration do not fit.
    """
    normaliser, classes = check_network(state, path)
    net, scheduler = build(state["config"], tuple(normaliser.mean.shape), len(classes))
    average = AveragedModel(net)
    load_weights(average, state["ema"], path)
    columns, label_counts = _checked_columns(state, classes, path)
    early = None
    if "early" in state:
        average_early = AveragedModel(net)
        load_weights(average_early, state["early"], path)
        early = average_early.module
    mixed = devices.mixed_precision(precision, device, images=normaliser.mean.ndim == 3)
    pipeline = Pipeline(
        average.module, scheduler, normaliser, state["config"], classes, mixed, early, columns, label_counts
    )
    return pipeline.ready(device)


def check_network(state: Mapping[str, Any], path: str | Path) -> tuple[Normaliser, list[str]]:
    """Check that the network of a checkpoint has the shapes of its weights, before it takes any memory.

    Returns:
        The normaliser, and the names of the labels.

    Raises:
        ValueError: weights and configuration do not fit.
    """
    config = state.get("config")
    missing = missing_row(config) if isinstance(config, Mapping) else None
    if missing:
        raise ValueError(f"the checkpoint {path} was trained with {missing}")
    try:
        normaliser = _checked_normaliser(state["normaliser"])
        classes = _checked_names(state["classes"])
        config = state["config"]
        missing = {"seed", "num_samples", "dataset"} - config.keys()
        if missing:
            raise KeyError(*sorted(missing))
        scheduler = scheduler_from_config(config)
        weights = state["ema"]
        with torch.device("meta"), _at_most_parameters(2 * len(weights)):
            dims = tuple(normaliser.mean.shape)
            planned = AveragedModel(_network(config, dims, len(classes), scheduler.num_timesteps))
        denoiser(planned, scheduler, config["model"]["prediction"])  # raises for an unknown target
    except ImportError as error:  # of an optional package
        raise ValueError(f"{path} cannot be used: {error}") from error
    except Exception as error:  # parts of any wrong type and value fail in as many ways
        if is_of_plugin(error):
            raise
        why = f"it has no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"the checkpoint {path} does not fit its own configuration: {why}") from error
    _check_weights(planned, weights, path)
    return normaliser, classes


def _check_data_fit(data: DataSet, dims: tuple[int, ...], classes: list[str]) -> None:
    """Raises ValueError where images that the user has named cannot be those that a model was trained on."""
    shape = getattr(data, "dims", None)
    if shape != dims:
        raise ValueError(
            f"the model makes images of shape {dims}, and those of dataset= have {shape}: set dataset.size"
        )
    if classes and len(classes) != len(data.classes):
        raise ValueError(f"the model has {len(classes)} labels, and the images of dataset= have {len(data.classes)}")


@contextmanager
def _at_most_parameters(limit: int) -> Iterator[None]:
    """Raises ValueError as soon as networks that are made in the body have more tensors of weights than `limit`."""
    count = 0

    def count_one(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal count
        count += 1
        if count > limit:
            raise ValueError(f"its network needs more than {limit} tensors of weights, which is more than it holds")

    hook = register_module_parameter_registration_hook(count_one)
    try:
        yield
    finally:
        hook.remove()


def load_weights(net: nn.Module, weights: Mapping[str, Tensor], path: str | Path) -> None:
    """Load the weights out of the checkpoint at `path` into `net`.

    Raises:
        ValueError: the weights of another network; the sentence names the first that differs.
    """
    _check_weights(net, weights, path)
    net.load_state_dict(weights)


def _check_weights(net: nn.Module, weights: Mapping[str, Tensor], path: str | Path) -> None:
    """Raises ValueError where `weights` do not have the names, shapes and types of those of `net`."""
    if not isinstance(weights, Mapping) or not all(isinstance(w, Tensor) for w in weights.values()):
        raise ValueError(f"the checkpoint {path} holds no weights where they should be")

    own_shapes = {name: tuple(w.shape) for name, w in net.state_dict().items()}
    their_shapes = {name: tuple(w.shape) for name, w in weights.items()}
    for name in [*own_shapes, *their_shapes]:
        if own_shapes.get(name) != their_shapes.get(name):
            have = _shape_text(their_shapes, name)
            want = _shape_text(own_shapes, name)
            raise ValueError(f"the checkpoint {path} holds another network: {name} is {have}, and here {want}")

    for name, w in net.state_dict().items():
        if weights[name].dtype != w.dtype or not bool(weights[name].isfinite().all()):
            raise ValueError(f"the checkpoint {path} holds {name} as {weights[name].dtype} or with NaN or infinity")


def _shape_text(shapes: Mapping[str, tuple[int, ...]], name: str) -> str:
    return f"of shape {shapes[name]}" if name in shapes else "absent"


def _checked_normaliser(parts: Mapping[str, Tensor]) -> Normaliser:
    """Raises ValueError where mean and std are not those of points or images."""
    mean = parts["mean"] if isinstance(parts, Mapping) else None
    std = parts["std"] if isinstance(parts, Mapping) else None
    if not isinstance(mean, Tensor) or not isinstance(std, Tensor):
        raise ValueError("its normaliser is not of tensors")
    mean = floats(mean, "mean")
    std = floats(std, "std")
    if mean.shape != std.shape or mean.ndim not in (1, 3) or not mean.numel() or not bool((std > 0).all()):
        raise ValueError(f"its normaliser has shapes {tuple(mean.shape)} and {tuple(std.shape)}, or std not above 0")
    return Normaliser(mean, std)


def _checked_columns(
    state: Mapping[str, Any], classes: list[str], path: str | Path
) -> tuple[Columns | None, list[int]]:
    """The columns of the table that was learnt and how many rows each label had; older checkpoints have neither.

    Raises:
        ValueError: they are damaged.
    """
    try:
        columns = Columns.from_plain(state["columns"]) if state.get("columns") else None
        return columns, _checked_counts(state.get("label_counts", []), classes)
    except ValueError as error:
        raise ValueError(f"the checkpoint {path} does not fit its own configuration: {error}") from error


def _checked_counts(counts: list[int], classes: list[str]) -> list[int]:
    """Raises ValueError where the numbers of rows are not one for each label. Older checkpoints have none."""
    if not isinstance(counts, list) or not all(isinstance(count, int) and count >= 0 for count in counts):
        raise ValueError("its numbers of labels are not a list of numbers")
    if counts and len(counts) != len(classes):
        raise ValueError(f"it has {len(classes)} labels, and numbers of {len(counts)}")
    return counts


def _checked_names(classes: list[str]) -> list[str]:
    """Raises ValueError where the classes are not a list of names."""
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError("its classes are not a list of names")
    return classes
