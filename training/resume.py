"""A training goes on from its checkpoint: everything as it was, after a check that it can."""

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from dataset import DataSet
from loss.moments import Moment
from pipeline import load_weights
from training.checksum import checksum
from training.learner import Learner


def restore(
    learner: Learner,
    checkpoint: Mapping[str, Any],
    data: DataSet,
    total: int,
    config: Mapping[str, Any],
    run: object,
) -> Moment:
    """Give the learner the state in the checkpoint of `run`; return how far that training had come.

    Args:
        total: optimizer steps of the whole training.
        config: its options.

    Raises:
        ValueError: the checkpoint lacks a part or is of another network; the data are others; or
            the training was to be longer than `total`.
    """
    try:
        moment = _checked_moment(checkpoint, run)
        _check_continues(checkpoint, data, total, config, run)
        load_weights(learner.net, checkpoint["net"], str(run))
        load_weights(learner.average, checkpoint["ema"], str(run))
        load_optimizers(learner.optimizers, checkpoint["optimizers"], run)
        learner.early = checkpoint.get("early")
        losses = checkpoint["losses"].reshape(-1, 2)
        learner.losses[:] = losses.to(next(learner.net.parameters()).device).unbind()
    except KeyError as error:
        raise ValueError(f"{_cannot(run)}: it lacks {error}") from error
    except (TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"{_cannot(run)}: a part of it is damaged ({error})") from error
    return moment


def _cannot(run: object) -> str:
    return f"the checkpoint of {run} cannot be resumed"


def _checked_moment(checkpoint: Mapping[str, Any], run: object) -> Moment:
    """Raises TypeError or ValueError where the checkpoint holds no moment of a training."""
    total = operator.index(checkpoint["total"])
    moment = Moment(**checkpoint["moment"])
    seconds = moment.seconds + moment.cpu_seconds
    if not 0 < operator.index(moment.done) <= total or not seconds >= 0:  # NaN, too
        raise ValueError(f"{_cannot(run)}: it is of step {moment.done} of {total}")
    return moment


def _check_continues(
    checkpoint: Mapping[str, Any], data: DataSet, total: int, config: Mapping[str, Any], run: object
) -> None:
    if checkpoint["data"] != checksum(data):
        raise ValueError(f"the data are not those that {run} was trained with")
    planned = checkpoint["total"]
    if total < planned:
        before = _length_text(planned, checkpoint["config"])
        after = _length_text(total, config)
        raise ValueError(f"{run} was to be trained for {before}: that may grow, not fall to {after}")
    if total > planned:
        print(f"{run}: {total:,} steps instead of {planned:,}; the learning rate now follows the longer curve")


def _length_text(steps: int, config: Mapping[str, Any]) -> str:
    """'118 steps (num_epochs=98)', or '118 steps' where the options give the number of steps."""
    if config.get("max_steps") is not None:
        return f"{steps:,} steps"
    return f"{steps:,} steps (num_epochs={config.get('num_epochs')})"


def load_optimizers(
    optimizers: Sequence[torch.optim.Optimizer],
    states: Sequence[dict[str, Any]],
    run: object,
) -> None:
    """Load the state of each optimizer, but keep its own options, which may depend on the device.

    Raises:
        ValueError: the states are those of other optimizers or of another network.
    """
    try:
        for optimizer, state in zip(optimizers, states, strict=True):
            _load_optimizer(optimizer, state)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{_cannot(run)}: its optimizers are others ({error})") from error


def _load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    own_groups = [dict(group) for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, own in zip(optimizer.param_groups, own_groups):
        del own["params"]
        group.update(own)

    for weight, loaded in optimizer.state.items():
        for tensor in loaded.values():
            if tensor.shape not in ((), weight.shape):
                raise ValueError("of another shape")
