"""The UNet2DModel of diffusers, as one of moonwalk's networks. diffusers is optional, and takes seconds to import."""

from collections.abc import Mapping
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from schedule import flow_sigmas

INSTALL = "pip install -r requirements/diffusers.txt"


class DiffusersUNet(nn.Module):
    """UNet2DModel for images: x_t (B, C, H, W), t (B,) or () -> (B, C, H, W).

    It is told the time in the units of diffusers: t, and in a flow the noise level sigma times T.

    Args:
        dims: (C, H, W).
        num_timesteps: T.
        num_labels: number of labels; 0 for an unconditional network. There is no null label.
        options: the arguments of UNet2DModel, by name. Names that it does not have are left out, as in diffusers.
        flow_shift: of a flow, see schedule.FlowNoiseScheduler; None: the process has betas.

    Raises:
        ImportError: diffusers is not installed.
        ValueError: it does not take these options, or images of this size.
    """

    times: Tensor

    def __init__(
        self,
        dims: tuple[int, ...],
        num_timesteps: int,
        num_labels: int = 0,
        *,
        options: Mapping[str, Any],
        flow_shift: float | None = None,
    ) -> None:
        super().__init__()
        self.num_labels = num_labels
        times = torch.arange(num_timesteps)
        if flow_shift is not None:
            times = (flow_sigmas(num_timesteps, flow_shift) * num_timesteps).float()
        self.register_buffer("times", times, persistent=False)
        self.unet = _unet(options)
        self._check_shape(dims)

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """Return the output (B, C, H, W); label (B,), and None for an unconditional network.

        Raises:
            ValueError: a network with labels is asked without one, or the other way round.
        """
        if self.num_labels and label is None:
            raise ValueError(
                "this model of diffusers has learnt its labels only, and predicts nothing without a label:"
                " leave out what needs an unconditional prediction, such as guidance and observe"
            )
        if label is not None and not self.num_labels:
            raise ValueError("labels were given to a network that was trained without them")
        return self.unet(x_t, self.times[t], label, return_dict=False)[0]

    def _check_shape(self, dims: tuple[int, ...]) -> None:
        """Run the network once, without memory and values, on one image.

        Raises:
            ValueError: it cannot take images of this size, such as an odd number of pixels that it would halve.
        """
        if next(self.unet.parameters()).device.type != "meta":
            return
        label = torch.zeros(1, dtype=torch.long) if self.num_labels else None
        try:
            with torch.no_grad():
                self.unet(torch.zeros(1, *dims), torch.zeros(1), label)
        except RuntimeError as error:
            raise ValueError(f"its UNet2DModel cannot take images of shape {dims}: {error}") from error


def _unet(options: Mapping[str, Any]) -> nn.Module:
    """An untrained UNet2DModel. Raises as DiffusersUNet."""
    try:
        from diffusers.models.unets.unet_2d import UNet2DModel
    except (ImportError, RuntimeError) as error:  # diffusers makes a RuntimeError of a package that it lacks
        raise ImportError(f"a model of diffusers needs the package diffusers: {INSTALL}") from error
    if options.get("time_embedding_type", "positional") != "positional":
        raise ValueError("time_embedding_type must be positional: the others belong to processes without steps t")
    known = signature(UNet2DModel).parameters
    return UNet2DModel(**{name: value for name, value in options.items() if name in known})
