"""What a page needs to run a trained model: weights, schedule, exact distribution, samplers. As plain data for JSON.

Arrays travel in base64, little-endian: weights as float16, or as int8 with a scale for each row, tables as they are.
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
from registry.sampler_rows import SAMPLERS
from samplers.covariance import DIFFERENCE
from samplers.heun import CHURN
from samplers.multistep import DRAW_RANGE
from samplers.options import SamplingOptions
from samplers.spacing import NOISE_MAX, NOISE_MIN, clock
from viz.colours import CLASSES, NOISE_STOPS, TRACKED, hex_colour


def check_can_be_shared(pipeline: Pipeline) -> None:
    """Raises ValueError for data that a page cannot draw."""
    if pipeline.of_images and pipeline.dims[0] not in (1, 3):
        raise ValueError(f"a page draws grey or coloured images; those of this run have {pipeline.dims[0]} channels")
    if not pipeline.of_images and pipeline.dims != (2,):
        raise ValueError(
            f"a page draws points of the plane, and those of this run have {pipeline.dims[0]} coordinates: watch them"
            " with python inference.py viewer=web"
        )


def contents(
    pipeline: Pipeline, options: SamplingOptions, parts: list[GaussianMixture], weights: Mapping[str, Any]
) -> dict[str, Any]:
    """All that the page's script reads as DATA.

    Args:
        options: how the page samples at first, as Pipeline.resolve returns them.
        parts: the exact distribution of each label's data, or of all in one, in data units; none where it is unknown.
        weights: see packed_weights.
    """
    mean, std = pipeline.normaliser.mean, pipeline.normaliser.std
    scheduler, model = pipeline.scheduler, dict(pipeline.config["model"])
    return {
        "target": model.pop("prediction"),
        "net": {**model, "dims": pipeline.dims, "num_labels": len(pipeline.classes)},
        "weights": dict(weights),
        "alpha": _base64(scheduler.alpha, "<f8"),
        "sigma": _base64(scheduler.sigma, "<f8"),
        "clock": _base64(torch.from_numpy(clock(scheduler.alpha_bar)), "<f4"),
        "mean": [] if pipeline.of_images else mean.tolist(),
        "std": [] if pipeline.of_images else std.tolist(),
        "parts": [_mixture(pipeline.normaliser.distribution(part)) for part in parts],
        "classes": pipeline.classes,
        "samplers": {name: _sampler(name) for name in SAMPLERS},
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
    """A mixture in normalised units: centres (M, 2), variance (2,), weights (M,) as shares of the largest."""
    centres, weights = _base64(part.centres, "<f4"), _base64(part.weights / part.weights.max(), "<f2")
    return {"centres": centres, "variance": part.variance.tolist(), "weights": weights}


def _sampler(name: str) -> dict[str, Any]:
    """Which steps a sampler takes: see registry.sampler_rows.SamplerRow."""
    row = SAMPLERS[name]
    return {"spacing": row.spacing, "a_step": row.evaluations_per_step, "noisy": row.noisy}


# ---------------------------------------------------------------- weights


def packed_weights(pipeline: Pipeline, bits: int) -> dict[str, Any]:
    """The network's weights by name, of 16 or 8 bits each; vectors keep 16."""
    return {name: _packed(weight, bits) for name, weight in pipeline.net.state_dict().items()}


def _packed(weight: Tensor, bits: int) -> dict[str, Any]:
    shape = list(weight.shape)
    if bits == 16 or weight.ndim < 2:
        return {"shape": shape, "half": _base64(weight, "<f2")}
    rows = weight.flatten(1)
    scale = rows.abs().amax(1, keepdim=True).clamp(min=1e-12) / 127  # the largest weight of each row becomes 127
    return {"shape": shape, "int8": _base64((rows / scale).round(), "i1"), "scale": _base64(scale, "<f4")}


def rounded(pipeline: Pipeline, weights: Mapping[str, Any]) -> Pipeline:
    """The model as the page runs it: with the weights that `packed_weights` has rounded."""
    net = copy.deepcopy(pipeline.net)
    net.load_state_dict({name: _unpacked(part) for name, part in weights.items()})
    return replace(pipeline, net=net)


def _unpacked(part: Mapping[str, Any]) -> Tensor:
    if "half" in part:
        return _numbers(part["half"], "<f2").reshape(part["shape"])
    rows = _numbers(part["int8"], "i1").reshape(part["shape"][0], -1)
    return (rows * _numbers(part["scale"], "<f4")[:, None]).reshape(part["shape"])


def _numbers(text: str, kind: str) -> Tensor:
    return torch.from_numpy(np.frombuffer(base64.b64decode(text), kind).astype(np.float32))


def _base64(values: Tensor, kind: str) -> str:
    return base64.b64encode(values.cpu().numpy().astype(kind).tobytes()).decode()
