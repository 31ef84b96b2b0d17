"""What a page needs to run a trained model, as plain data for JSON.

These are the weights, the schedule, the exact distribution and the samplers. Arrays are written in
base64, little-endian. Weights are float16, or int8 with a scale for each row.
"""

import base64
import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline import Pipeline
from points.mixture import GaussianMixture
from points.tables import coordinate_names
from registry.network_rows import NETWORKS
from registry.plugins import called, is_added
from registry.sampler_rows import SAMPLERS
from samplers.covariance import DIFFERENCE
from samplers.heun import CHURN
from samplers.multistep import DRAW_RANGE
from samplers.options import SamplingOptions
from samplers.spacing import NOISE_MAX, NOISE_MIN, clock
from viz.colours import CLASSES, NOISE_STOPS, TRACKED, hex_colour

LARGEST_INT8 = 127
SMALLEST_ROW = 1e-12  # a row whose weights are all 0 gets this as its largest weight


def check_can_be_shared(pipeline: Pipeline) -> None:
    """Check that a page can draw the data of a model.

    Raises:
        ValueError: it cannot.
    """
    network = pipeline.config["model"]["name"]
    target = pipeline.config["model"]["prediction"]
    for kind, name in (("network", network), ("target", target)):
        if is_added(kind, name):
            raise ValueError(f"a page runs what moonwalk itself holds, and not the {called(kind, name)}")
    if network not in NETWORKS:
        raise ValueError("a page runs the networks of moonwalk, and that of this folder is of diffusers")
    channels = pipeline.dims[0]
    if pipeline.of_images and channels not in (1, 3):
        raise ValueError(
            f"a page draws grey or coloured images; those of this run have {channels} channels",
        )
    if not pipeline.of_images and pipeline.dims != (2,):
        instead = "draws them in samples.png"
        if pipeline.dims == (3,):
            instead = "records them in space"
        raise ValueError(
            f"a page draws points of the plane, and those of this run have {channels} coordinates:"
            f" python inference.py checkpoint=RUN {instead}"
        )


def contents(
    pipeline: Pipeline,
    options: SamplingOptions,
    parts: list[GaussianMixture],
    weights: Mapping[str, Any],
) -> dict[str, Any]:
    """Return all that the page's script reads as DATA.

    Args:
        pipeline: the model.
        options: how the page samples at first, see Pipeline.resolve.
        parts: in data units, the exact distribution of each label's data, or one distribution of
            all data; none where it is unknown.
        weights: see packed_weights.
    """
    scheduler = pipeline.scheduler
    normaliser = pipeline.normaliser
    network = dict(pipeline.config["model"])
    target = network.pop("prediction")
    network |= {"dims": pipeline.dims, "num_labels": len(pipeline.classes)}
    return {
        "target": target,
        "net": network,
        "weights": dict(weights),
        "alpha": _base64(scheduler.alpha, "<f8"),
        "sigma": _base64(scheduler.sigma, "<f8"),
        "clock": _base64(torch.from_numpy(clock(scheduler.alpha_bar)), "<f4"),
        "mean": [] if pipeline.of_images else normaliser.mean.tolist(),
        "std": [] if pipeline.of_images else normaliser.std.tolist(),
        "axes": coordinate_names(pipeline.columns, pipeline.dims[0]) if pipeline.columns else [],
        "parts": [_mixture(normaliser.normalise_mixture(part)) for part in parts],
        "classes": pipeline.classes,
        "samplers": {name: _sampler(name) for name in SAMPLERS if not is_added("sampler", name)},
        "churn": CHURN,
        "nearby": DIFFERENCE,
        "near_the_end": DRAW_RANGE,
        "least_noise": NOISE_MIN,
        "most_noise": NOISE_MAX,
        "sampling": {
            "sampler": options.sampler,
            "sampling_steps": options.sampling_steps,
            "guidance": options.guidance,
            "guidance_interval": options.guidance_interval,
        },
        "colours": {
            "noise": NOISE_STOPS.tolist(),
            "tracked": hex_colour(TRACKED),
            "classes": list(CLASSES),
        },
    }


def _mixture(part: GaussianMixture) -> dict[str, Any]:
    """Return a mixture in normalised units.

    Its centres are (M, 2), its variance (2,), and its weights (M,) are shares of the largest.
    """
    weights = part.weights / part.weights.max()
    return {
        "centres": _base64(part.centres, "<f4"),
        "variance": part.variance.tolist(),
        "weights": _base64(weights, "<f2"),
    }


def _sampler(name: str) -> dict[str, Any]:
    """Return which steps a sampler takes, see registry.sampler_rows.SamplerRow."""
    row = SAMPLERS[name]
    return {"spacing": row.spacing, "a_step": row.evaluations_per_step, "noisy": row.noisy}


# ---------------------------------------------------------------- weights


def packed_weights(pipeline: Pipeline, bits: int) -> dict[str, Any]:
    """Return the network's weights by name.

    Args:
        pipeline: the model.
        bits: of each weight, 16 or 8; vectors keep 16 bits.
    """
    state = pipeline.net.state_dict()
    return {name: _packed(weight, bits) for name, weight in state.items()}


def _packed(weight: Tensor, bits: int) -> dict[str, Any]:
    """Return a weight as float16, or as int8 with a scale for each row."""
    shape = list(weight.shape)
    if bits == 16 or weight.ndim < 2:
        return {"shape": shape, "half": _base64(weight, "<f2")}
    rows = weight.flatten(1)
    largest = rows.abs().amax(1, keepdim=True).clamp(min=SMALLEST_ROW)
    scale = largest / LARGEST_INT8
    return {
        "shape": shape,
        "int8": _base64((rows / scale).round(), "i1"),
        "scale": _base64(scale, "<f4"),
    }


def rounded(pipeline: Pipeline, weights: Mapping[str, Any]) -> Pipeline:
    """Return the model as the page runs it, with the weights that `packed_weights` has rounded."""
    net = copy.deepcopy(pipeline.net)
    net.load_state_dict({name: _unpacked(part) for name, part in weights.items()})
    return replace(pipeline, net=net)


def _unpacked(part: Mapping[str, Any]) -> Tensor:
    """Return the weight that `_packed` has rounded."""
    shape = part["shape"]
    if "half" in part:
        return _numbers(part["half"], "<f2").reshape(shape)
    rows = _numbers(part["int8"], "i1").reshape(shape[0], -1)
    scale = _numbers(part["scale"], "<f4")[:, None]
    return (rows * scale).reshape(shape)


def _numbers(text: str, kind: str) -> Tensor:
    """Return the numbers (K,) in a text of base64 whose numpy type is `kind`."""
    return torch.from_numpy(np.frombuffer(base64.b64decode(text), kind).astype(np.float32))


def _base64(values: Tensor, kind: str) -> str:
    """Return numbers as base64, converted to the numpy type `kind`."""
    return base64.b64encode(values.cpu().numpy().astype(kind).tobytes()).decode()
