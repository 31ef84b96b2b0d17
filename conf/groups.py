"""The data sets and networks that dataset=...

and model=... choose by name, with the options of each.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, make_dataclass
from typing import Any

import conf.include  # noqa: F401  (runs the files that add sets and networks; a process of a sweep comes here first)
from conf.choices import NUM_SAMPLES, meanings
from conf.option import did_you_mean, option
from registry import Row
from registry.data_rows import POINT_SETS, PointsRow
from registry.network_rows import NETWORKS, NetworkRow
from registry.own_options import OwnOption
from registry.plugins import is_added
from registry.process_rows import TARGETS


def named(name: str, rows: Mapping[str, Row]) -> Any:
    """The option `name` of a choice, whose meaning its row says."""
    return option(name, rows[name].help, choices=(name,))


def noise_option(default: float, around: str = "the curve") -> Any:
    return option(default, f"standard deviation of the Gaussian noise around {around}", low=0)


@dataclass
class Embedded:
    """The options of every synthetic point set. The name comes first, as in all groups."""

    name: str = option("", "name of the set")
    embed: int | None = option(
        None,
        "number of dimensions in which to embed the set by a random orthogonal map, the same for"
        " every seed; the noise then fills all dimensions",
        low=2,
        high=4096,
    )


@dataclass
class Moons(Embedded):
    name: str = named("moons", POINT_SETS)
    noise: float = noise_option(0.05)


@dataclass
class Circles(Embedded):
    name: str = named("circles", POINT_SETS)
    noise: float = noise_option(0.05)
    factor: float = option(0.5, "radius of the inner circle; the outer one has 1", above=0, below=1)


@dataclass
class Gaussians(Embedded):
    name: str = named("gaussians", POINT_SETS)
    noise: float = option(0.1, "standard deviation of each Gaussian", low=0)
    modes: int = option(8, "number of Gaussians", low=1)


@dataclass
class Grid(Embedded):
    name: str = named("grid", POINT_SETS)
    noise: float = option(0.05, "standard deviation of each Gaussian", low=0)
    side: int = option(5, "Gaussians along each side", low=1, high=60)


@dataclass
class Checkerboard(Embedded):
    name: str = named("checkerboard", POINT_SETS)
    noise: float = noise_option(0.03, "the squares")


@dataclass
class SwissRoll(Embedded):
    name: str = named("swiss_roll", POINT_SETS)
    noise: float = noise_option(0.03)


@dataclass
class SwissRoll3D(Embedded):
    name: str = named("swiss_roll_3d", POINT_SETS)
    noise: float = noise_option(
        0.1,
        "the sheet; with much less noise the exact density takes too long",
    )


@dataclass
class SCurve(Embedded):
    name: str = named("s_curve", POINT_SETS)
    noise: float = noise_option(
        0.1,
        "the sheet; with much less noise the exact density takes too long",
    )


@dataclass
class Spirals(Embedded):
    name: str = named("spirals", POINT_SETS)
    noise: float = noise_option(0.03)
    arms: int = option(2, "number of arms", low=1)


@dataclass
class Pinwheel(Embedded):
    name: str = named("pinwheel", POINT_SETS)
    noise: float = noise_option(0.05)
    arms: int = option(5, "number of blades", low=1)


@dataclass
class Helix(Embedded):
    name: str = named("helix", POINT_SETS)
    noise: float = noise_option(0.05)


@dataclass
class Text(Embedded):
    name: str = named("text", POINT_SETS)
    text: str = option("HELLO", "the text; a shorter text is drawn more finely")
    font: str | None = option(
        None,
        "font of the text: a file, or an installed family that fontconfig finds, such as 'Noto Sans'; default:"
        " DejaVu Sans, which comes with matplotlib",
    )
    noise: float = option(
        1.0,
        "standard deviation of the Gaussian noise, in pixels of the letters",
        low=0,
    )


@dataclass
class Picture(Embedded):
    name: str = named("picture", POINT_SETS)
    path: str | None = option(
        None,
        "file of the picture, which is reduced to at most 4,000 dark pixels (also --data-path)",
    )
    noise: float = option(
        1.0,
        "standard deviation of the Gaussian noise, in pixels of the reduced picture",
        low=0,
    )


@dataclass
class File:
    name: str = option(
        "file",
        "your own points, whose exact distribution is unknown",
        choices=("file",),
    )
    path: str | None = option(
        None,
        "a table, one point per row: .csv and other text, also packed (.gz, .zip), .npy, .npz, .parquet or .xlsx"
        " (also --data-path); a large .npy file stays on the disk, and with num_samples=null all of its rows are used",
    )
    label: str | None = option(
        None, "column that holds the labels, by its name or its index from 0; default: no labels"
    )
    columns: list[str] | None = option(
        None,
        "columns to learn, by name or index, such as [carat,price]; default: all but the label and row numbers",
    )
    missing: str = option(
        "error",
        "rows that lack a value; error: they are refused, drop: they are left out",
        choices=("error", "drop"),
    )


@dataclass
class Digits:
    name: str = option(
        "digits",
        "the 1,797 digits of scikit-learn, 8x8 pixels, no download",
        choices=("digits",),
    )


@dataclass
class Emoji:
    name: str = option(
        "emoji",
        "the glyphs of an installed emoji font (Debian: fonts-noto-color-emoji), in colour, 32x32 pixels",
        choices=("emoji",),
    )


@dataclass
class Images:
    name: str = option(
        "images",
        "your own images, in one folder per class",
        choices=("images",),
    )
    root: str | None = option(None, "folder of the images (also --data-path)")
    size: int | None = option(
        None,
        "side in pixels to which all images are resized and cropped; default: their own size if all have one of at"
        " most 256x256 pixels, otherwise 32",
        low=1,
        high=1024,
    )
    test_root: str | None = option(
        None,
        "folder of held-out images for the evaluation; default: <root>_test if there is one,"
        " otherwise a fifth of all images is held out",
    )
    on_bad_image: str = option(
        "skip",
        "what to do with a damaged image; skip: skip it with a warning, error: stop",
        choices=("skip", "error"),
    )


@dataclass
class MNIST(Images):
    name: str = option(
        "mnist",
        "handwritten digits, 28x28 pixels, in the folders that scripts/prepare_mnist.py makes",
        choices=("mnist",),
    )
    root: str | None = option("data/MNIST/mnist_images", "folder of the images (also --data-path)")


def prediction_option() -> Any:
    return option("v", f"what the network predicts; {meanings(TARGETS)}", choices=TARGETS)


@dataclass
class MLP:
    name: str = named("mlp", NETWORKS)
    hidden: int = option(96, "width of the layers", low=1)
    layers: int = option(4, "number of residual layers", low=1)
    frequencies: int = option(
        3,
        "Fourier features of the input, sin and cos of x times 1, 2, 4, ...; the number of these factors",
        low=0,
    )
    prediction: str = prediction_option()


@dataclass
class Linear:
    name: str = named("linear", NETWORKS)
    prediction: str = prediction_option()


@dataclass
class UNet:
    name: str = named("unet", NETWORKS)
    channels: list[int] = option(
        [48, 96],
        "channels at each resolution; each resolution is half the one before",
    )
    blocks: int = option(2, "residual blocks at each resolution", low=1)
    patch: int = option(
        2,
        "side, in pixels, of the patches that the network treats as one pixel; larger patches are faster",
        low=1,
    )
    heads: int = option(4, "attention heads", low=1)
    attention_size: int = option(
        8,
        "largest side, in pixels, of the feature maps with attention",
        low=0,
    )
    conditioning: str = option(
        "embedding",
        "how labels enter; embedding: added to the time embedding, cross_attention: as tokens to"
        " which the pixels attend",
        choices=("embedding", "cross_attention"),
    )
    prediction: str = prediction_option()


@dataclass
class UNetSmall(UNet):
    name: str = named("unet_small", NETWORKS)
    channels: list[int] = option(
        [32, 64],
        "channels at each resolution; each resolution is half the one before",
    )
    blocks: int = option(1, "residual blocks at each resolution", low=1)
    patch: int = option(
        1,
        "side, in pixels, of the patches that the network treats as one pixel; larger patches are faster",
        low=1,
    )


DATASETS = (
    Moons,
    Circles,
    Gaussians,
    Grid,
    Checkerboard,
    SwissRoll,
    SwissRoll3D,
    SCurve,
    Spirals,
    Pinwheel,
    Helix,
    Text,
    Picture,
    File,
    Digits,
    MNIST,
    Emoji,
    Images,
)
MODELS = (MLP, Linear, UNet, UNetSmall)


# ---------------------------------------------------------------- choices that a user has added (registry/plugins.py)


def added_member(name: str, rows: Mapping[str, PointsRow | NetworkRow]) -> type:
    """The dataclass of a point set or a network, whose options are those of its function."""
    row = rows[name]
    own = [_field(each) for each in row.own_options]
    bases: tuple[type, ...] = ()
    if isinstance(row, NetworkRow):
        own.append(("prediction", str, prediction_option()))
    elif row.is_exact:
        bases = (Embedded,)
    member = make_dataclass(f"Added_{name}", [("name", str, named(name, rows)), *own], bases=bases)
    member.__module__ = __name__
    globals()[member.__name__] = member  # where the processes of a sweep look for it
    return member


def _field(own: OwnOption) -> tuple[str, Any, Any]:
    return own.name, own.type, option(own.default, f"parameter {own.name}")


ADDED_SETS = tuple(added_member(name, POINT_SETS) for name in POINT_SETS if is_added("point set", name))
ADDED_NETWORKS = tuple(added_member(name, NETWORKS) for name in NETWORKS if is_added("network", name))


# ---------------------------------------------------------------- by name


def by_name(members: tuple[type, ...]) -> dict[str, type]:
    """The dataclasses of a group by the default of their option `name`."""
    return {str(fields(member)[0].default): member for member in members}


# Of tables of points.
FILE_ENDINGS = (".csv", ".tsv", ".txt", ".dat", ".gz", ".zip", ".npy", ".npz", ".parquet", ".xlsx")

GROUPS: dict[str, dict[str, type]] = {
    "dataset": by_name((*DATASETS, *ADDED_SETS)),
    "model": by_name((*MODELS, *ADDED_NETWORKS)),
}


def unknown_choice(group: str, choice: str) -> str:
    """The sentence for a data set or a network that does not exist, such as dataset=spiral."""
    known = ", ".join(GROUPS[group])
    hint = did_you_mean(choice, GROUPS[group])
    if group == "dataset" and ("/" in choice or choice.endswith(FILE_ENDINGS)):
        hint = f" (for a file: dataset=file dataset.path={choice})"
    return f"{group}={choice} is unknown{hint}; choose one of {known}"


# Changes of the training's defaults by a network or a data set. The data set takes precedence over
# the network, and an option that the user gives takes precedence over both.
FOR_IMAGES = {
    "schedule": "cosine",
    "conditional": True,
    "loss_weight": "target",
    "num_samples": None,
    "batch_size": 32,
    "lr": 1.5e-3,
    "warmup_steps": 200,
    "references": 0,
    "t_power": 1.0,
    "eval_samples": NUM_SAMPLES["evaluate"]["images"],
}
CHOICE_DEFAULTS: dict[str, dict[str, Any]] = {
    "emoji": {"num_epochs": 75},  # for a thousand images, hardly two of which are alike
    "unet": {**FOR_IMAGES, "num_epochs": 6},
    "unet_small": {**FOR_IMAGES, "num_epochs": 25, "eval_samples": 500},
}
for name, row in NETWORKS.items():
    if row.for_images and name not in CHOICE_DEFAULTS:
        CHOICE_DEFAULTS[name] = FOR_IMAGES
