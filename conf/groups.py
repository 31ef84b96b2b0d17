"""What can be chosen by name, dataset=... and model=..., with the options of each choice."""

from dataclasses import dataclass
from typing import Any

from conf.choices import NUM_SAMPLES, meanings
from conf.option import option
from registry.process_rows import TARGETS


def noise(default: float, around: str = "the curve") -> Any:
    return option(default, f"standard deviation of the Gaussian noise around {around}", low=0)


@dataclass
class Embedded:
    """What every synthetic point set has; its name comes first, as in all groups."""

    name: str = option("", "which set")
    embed: int | None = option(
        None,
        "dimensions to place the set in, by a random orthogonal map that is the same for every seed; the noise then"
        " fills all of them",
        low=2,
        high=4096,
    )


@dataclass
class Moons(Embedded):
    name: str = option("moons", "two interleaved half circles", choices=("moons",))
    noise: float = noise(0.05)


@dataclass
class Circles(Embedded):
    name: str = option("circles", "one circle inside another", choices=("circles",))
    noise: float = noise(0.05)
    factor: float = option(0.5, "radius of the inner circle; the outer one has 1", above=0, below=1)


@dataclass
class Gaussians(Embedded):
    name: str = option("gaussians", "Gaussians of equal weight on a circle of radius 1", choices=("gaussians",))
    noise: float = option(0.1, "standard deviation of each Gaussian", low=0)
    modes: int = option(8, "number of Gaussians", low=1)


@dataclass
class Grid(Embedded):
    name: str = option("grid", "Gaussians of equal weight on a square grid from -1 to 1", choices=("grid",))
    noise: float = option(0.05, "standard deviation of each Gaussian", low=0)
    side: int = option(5, "Gaussians along each side", low=1, high=60)


@dataclass
class Checkerboard(Embedded):
    name: str = option("checkerboard", "the black squares of a board of 4 x 4", choices=("checkerboard",))
    noise: float = noise(0.03, "the squares")


@dataclass
class SwissRoll(Embedded):
    name: str = option("swiss_roll", "a rolled-up line", choices=("swiss_roll",))
    noise: float = noise(0.03)


@dataclass
class SwissRoll3D(Embedded):
    name: str = option("swiss_roll_3d", "a rolled-up sheet in three dimensions", choices=("swiss_roll_3d",))
    noise: float = noise(0.1, "the sheet; much less, and the exact density takes too long")


@dataclass
class SCurve(Embedded):
    name: str = option("s_curve", "a sheet in the shape of an S, in three dimensions", choices=("s_curve",))
    noise: float = noise(0.1, "the sheet; much less, and the exact density takes too long")


@dataclass
class Spirals(Embedded):
    name: str = option("spirals", "arms that wind outwards", choices=("spirals",))
    noise: float = noise(0.03)
    arms: int = option(2, "number of arms", low=1)


@dataclass
class Pinwheel(Embedded):
    name: str = option("pinwheel", "bent blades around a centre", choices=("pinwheel",))
    noise: float = noise(0.05)
    arms: int = option(5, "number of blades", low=1)


@dataclass
class Helix(Embedded):
    name: str = option("helix", "a helix in three dimensions", choices=("helix",))
    noise: float = noise(0.05)


@dataclass
class Text(Embedded):
    name: str = option("text", "the letters of a text", choices=("text",))
    text: str = option("HELLO", "the text, in Latin letters; the shorter, the finer it is drawn")
    noise: float = option(1.0, "standard deviation of the Gaussian noise, in pixels of the letters", low=0)


@dataclass
class Picture(Embedded):
    name: str = option("picture", "the dark pixels of a picture, with their darkness as weight", choices=("picture",))
    path: str | None = option(None, "the picture; reduced to at most 4,000 dark pixels (also --data-path)")
    noise: float = option(1.0, "standard deviation of the Gaussian noise, in pixels of the reduced picture", low=0)


@dataclass
class File:
    name: str = option("file", "your own points, whose exact distribution is unknown", choices=("file",))
    path: str | None = option(
        None,
        "a .csv, .npy or .npz file or a table of numbers, one point per row (also --data-path); a large .npy file stays"
        " on the disk, and num_samples=null learns from all of its rows",
    )
    label: str | None = option(None, "name or index, from 0, of the column that holds the labels; default: no labels")


@dataclass
class Digits:
    name: str = option("digits", "the 1,797 digits of scikit-learn, 8x8 pixels, no download", choices=("digits",))


@dataclass
class Emoji:
    name: str = option(
        "emoji",
        "the glyphs of an installed emoji font (Debian: fonts-noto-color-emoji), in colour, 32x32",
        choices=("emoji",),
    )


@dataclass
class Images:
    name: str = option("images", "your own images, all of one size, one folder per class", choices=("images",))
    root: str | None = option(None, "folder of the images (also --data-path)")
    test_root: str | None = option(
        None, "held-out images for the evaluation; default: the folder <root>_test if there is one, else a fifth of all"
    )
    on_bad_image: str = option(
        "skip", "what to do with a damaged image: skip it with a warning, or stop", choices=("skip", "error")
    )


@dataclass
class MNIST(Images):
    name: str = option(
        "mnist", "handwritten digits, 28x28, as scripts/prepare_mnist.py lays them out", choices=("mnist",)
    )
    root: str | None = option("data/MNIST/mnist_images", "folder of the images (also --data-path)")


def prediction() -> Any:
    return option("v", f"what the network predicts; {meanings(TARGETS)}", choices=TARGETS)


@dataclass
class MLP:
    name: str = option("mlp", "residual multilayer perceptron, for points", choices=("mlp",))
    hidden: int = option(96, "width of the layers", low=1)
    layers: int = option(4, "number of residual layers", low=1)
    frequencies: int = option(3, "how many of sin and cos of x times 1, 2, 4 ... are added to the input", low=0)
    prediction: str = prediction()


@dataclass
class Linear:
    name: str = option("linear", "one affine map per step, for points: the best linear denoiser", choices=("linear",))
    prediction: str = prediction()


@dataclass
class UNet:
    name: str = option("unet", "UNet with attention, for images of 28x28 and more", choices=("unet",))
    channels: list[int] = option([48, 96], "channels at each resolution, which halves from one to the next")
    blocks: int = option(2, "residual blocks at each resolution", low=1)
    patch: int = option(2, "side in pixels of the squares that enter as one; a larger one is faster", low=1)
    heads: int = option(4, "attention heads", low=1)
    attention_size: int = option(8, "largest side in pixels of the maps with attention", low=0)
    conditioning: str = option(
        "embedding",
        "labels are added to the time embedding, or are tokens that the pixels attend to",
        choices=("embedding", "cross_attention"),
    )
    prediction: str = prediction()


@dataclass
class UNetSmall(UNet):
    name: str = option("unet_small", "a small UNet, for images of 8x8: trains in a minute", choices=("unet_small",))
    channels: list[int] = option([32, 64], "channels at each resolution, which halves from one to the next")
    blocks: int = option(1, "residual blocks at each resolution", low=1)
    patch: int = option(1, "side in pixels of the squares that enter as one; a larger one is faster", low=1)


DATASETS = (
    *(Moons, Circles, Gaussians, Grid, Checkerboard, SwissRoll, SwissRoll3D, SCurve, Spirals, Pinwheel, Helix),
    *(Text, Picture, File, Digits, MNIST, Emoji, Images),
)
MODELS = (MLP, Linear, UNet, UNetSmall)
GROUPS: dict[str, dict[str, type]] = {
    group: {str(m.name): m for m in members} for group, members in {"dataset": DATASETS, "model": MODELS}.items()
}

# What a network or a data set changes in the training's defaults; the data set wins over the network, and
# an option that the user gives over both.
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
PRESETS: dict[str, dict[str, Any]] = {
    "emoji": {"num_epochs": 75},  # a thousand pictures, hardly two alike
    "unet": {**FOR_IMAGES, "num_epochs": 6},
    "unet_small": {**FOR_IMAGES, "num_epochs": 25, "eval_samples": 500},
}
