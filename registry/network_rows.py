"""Networks."""

from typing import Any, NamedTuple

from registry.own_options import OwnOption


class NetworkRow(NamedTuple):
    """A network.

    code: its class, as "module:name". for_images: it takes images (C, H, W), and otherwise points (d,).
    own_options: those of a network that was added by a user; the others have a dataclass in conf/groups.py.
    """

    code: Any
    help: str
    for_images: bool = False
    own_options: tuple[OwnOption, ...] = ()


NETWORKS = {
    "mlp": NetworkRow("model:MLP", "residual multilayer perceptron, for points"),
    "linear": NetworkRow("model:LinearModel", "one affine map per step t, for points: the best linear denoiser"),
    "unet": NetworkRow("nets.unet:UNet", "UNet with attention, for images of 28x28 pixels and more", for_images=True),
    "unet_small": NetworkRow(
        "nets.unet:UNet", "a small UNet, for images of 8x8 pixels; it trains in a minute", for_images=True
    ),
}
# Networks of other people, which can be sampled and not trained: model= does not name them.
ADOPTED = {
    "diffusers_unet": NetworkRow("nets.diffusers_unet:DiffusersUNet", "UNet2DModel of diffusers", for_images=True)
}
