"""What can be chosen by name, dataset=... and model=..., with the options of each choice."""

from dataclasses import dataclass, fields
from typing import Any

from conf.option import option


def noise(default: float) -> Any:
    return option(default, "standard deviation of the Gaussian noise around it", low=0)


@dataclass
class Moons:
    name: str = option("moons", "two interleaved half circles", choices=("moons",))
    noise: float = noise(0.05)


@dataclass
class Circles:
    name: str = option("circles", "a circle inside another", choices=("circles",))
    noise: float = noise(0.05)
    factor: float = option(0.5, "radius of the inner circle; the outer one has 1", above=0, below=1)


@dataclass
class Gaussians:
    name: str = option("gaussians", "equal Gaussians on a circle of radius 1", choices=("gaussians",))
    noise: float = noise(0.1)
    modes: int = option(8, "how many", low=1)


@dataclass
class SwissRoll:
    name: str = option("swiss_roll", "a rolled-up line", choices=("swiss_roll",))
    noise: float = noise(0.03)


@dataclass
class Spirals:
    name: str = option("spirals", "arms winding outwards", choices=("spirals",))
    noise: float = noise(0.03)
    arms: int = option(2, "how many", low=1)


@dataclass
class Helix:
    name: str = option("helix", "a screw line in three dimensions", choices=("helix",))
    noise: float = noise(0.05)


@dataclass
class File:
    name: str = option("file", "your own points; their law is unknown", choices=("file",))
    path: str | None = option(None, "an .npy file or a table of numbers, one point a row")


@dataclass
class Digits:
    name: str = option("digits", "scikit-learn's 1,797 digits of 8x8 pixels: no download", choices=("digits",))


@dataclass
class Images:
    name: str = option("images", "your own images, all of one size, in a folder for each class", choices=("images",))
    root: str | None = option(None, "their folder (also --data-path)")
    test_root: str | None = option(
        None, "unseen images to judge by; default: the folder beside it with _test at its name's end, or a fifth of all"
    )
    on_bad_image: str = option(
        "skip", "what a damaged image does: left out by name, or fatal", choices=("skip", "error")
    )


@dataclass
class MNIST(Images):
    name: str = option(
        "mnist", "handwritten digits, 28x28, as scripts/prepare_mnist.py lays them out", choices=("mnist",)
    )
    root: str | None = option("data/MNIST/mnist_images", "their folder (also --data-path)")


def prediction() -> Any:
    return option("v", "what the network's output means", choices=("eps", "v", "x0"))


@dataclass
class MLP:
    name: str = option("mlp", "residual multilayer perceptron for points", choices=("mlp",))
    hidden: int = option(112, "width", low=1)
    layers: int = option(3, "residual layers", low=1)
    frequencies: int = option(3, "the input also holds sin and cos of x times 1, 2, 4 ...: how many of them", low=0)
    prediction: str = prediction()


@dataclass
class Linear:
    name: str = option("linear", "one linear map per time step: the best linear denoiser", choices=("linear",))
    prediction: str = prediction()


@dataclass
class UNet:
    name: str = option("unet", "UNet with attention for images of 28x28 and more", choices=("unet",))
    channels: list[int] = option([48, 96], "of each resolution; one fewer than they are halvings")
    blocks: int = option(2, "residual blocks at each resolution", low=1)
    patch: int = option(2, "squares of so many pixels a side enter as one; more is quicker", low=1)
    heads: int = option(4, "of attention", low=1)
    attention_size: int = option(8, "attention at maps of at most so many pixels a side", low=0)
    conditioning: str = option(
        "embedding",
        "labels are added to the time embedding, or are tokens that the pixels look at",
        choices=("embedding", "cross_attention"),
    )
    prediction: str = prediction()


@dataclass
class UNetSmall(UNet):
    name: str = option("unet_small", "a UNet for 8x8 images: about a minute", choices=("unet_small",))
    channels: list[int] = option([32, 64], "of each resolution; one fewer than they are halvings")
    blocks: int = option(1, "residual blocks at each resolution", low=1)
    patch: int = option(1, "squares of so many pixels a side enter as one; more is quicker", low=1)


DATASETS = (Moons, Circles, Gaussians, SwissRoll, Spirals, Helix, File, Digits, MNIST, Images)
MODELS = (MLP, Linear, UNet, UNetSmall)
GROUPS = {
    group: {fields(m)[0].default: m for m in members}
    for group, members in {"dataset": DATASETS, "model": MODELS}.items()
}

# What a network changes in the training's defaults; an option that the user gives wins over it.
FOR_IMAGES = {
    "schedule": "cosine",
    "conditional": True,
    "loss_weight": "v",
    "num_samples": None,
    "batch_size": 32,
    "lr": 1.5e-3,
    "warmup_steps": 200,
    "eval_samples": 2000,
}
PRESETS: dict[str, dict[str, Any]] = {
    "unet": {**FOR_IMAGES, "num_epochs": 6},
    "unet_small": {**FOR_IMAGES, "num_epochs": 25, "eval_samples": 500},
}
