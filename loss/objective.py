"""The training objective: loss, stable target, distribution of the steps, weight of each step.

For one row, the loss is the weighted squared error of the network's output (Ho et al. 2020, arXiv
2006.11239, eq. 14, generalised to other prediction targets and weights):

    loss = weights[t] * mean over dims of (net(x_t, t) - target)^2,    x_t = alpha x_0 + sigma eps

The default network for points predicts v. The default weight turns its squared error into that of
eps, so the loss is still L_simple (see `loss_weights`).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion import Network, Prediction, prediction_target
from registry import implementation
from registry.plugins import called
from registry.process_rows import LOSS_WEIGHTS
from schedule import NoiseScheduler

DEFAULT_REFERENCES = 512  # rows of a reference batch
MIN_REFERENCE_BATCHES = 20  # smaller data sets get no stable target by default
MIN_SNR_CAP = 5  # gamma of Hang et al. 2023
FASTEST_ATTENTION_WIDTH = 16  # scaled_dot_product_attention on CPUs is fastest for its multiples


class Loss(NamedTuple):
    """Two weighted squared errors of the network's output, each a mean over dims of shape (B,).

    ordinary: the error against the noise that was drawn. It is comparable with the Bayes floor.
    stable: the error against the stable target, which the network learns from. Without reference
        batches the network learns from the drawn noise, and both errors are the same tensor.
    """

    ordinary: Tensor
    stable: Tensor


class References(NamedTuple):
    """The reference batch of one group of consecutive rows of a batch.

    rows: the number of rows in the group.
    x_0: clean data of shape (R, *dims).
    label: labels of shape (R,), or None for unconditional data.
    """

    rows: int
    x_0: Tensor
    label: Tensor | None = None


# ---------------------------------------------------------------- the loss


def training_loss(
    net: Network,
    scheduler: NoiseScheduler,
    x_0: Tensor,
    t: Tensor,
    eps: Tensor,
    label: Tensor | None = None,
    references: Sequence[References] = (),
    *,
    target: str = "eps",
    weights: Tensor | None = None,
    null_label: int = -1,
) -> Loss:
    """Return the loss of each row.

    With target="eps" and weights=loss_weights(scheduler, "eps", "eps"), which are 1, its mean is
    L_simple (Ho et al. 2020, eq. 14).

    Args:
        net: maps (x_t, t, label) to an output of x_t's shape.
        scheduler: gives alpha and sigma of each step.
        x_0, eps: clean data and noise, both of shape (B, *dims).
        t: the step of each row, of shape (B,).
        label: the label of each row, of shape (B,), or None.
        references: the reference batches of these rows, in the order of the rows (see
            `stable_target`). An empty sequence switches the stable target off.
        target: what the network predicts, a key of registry.process_rows.TARGETS.
        weights: the weight of each step, of shape (T,) (see `loss_weights`). None: 1 at every step.
        null_label: the entry of `label` that means "no label".

    Raises:
        ValueError: the output of the network has another shape than x_t.
    """
    alpha, sigma = scheduler.alpha_sigma(t, x_0)
    x_t = scheduler.add_noise(x_0, t, eps)
    output = net(x_t, t, label)
    if output.shape != x_t.shape:  # another shape might be broadcast, and be learnt
        shapes = f"shape {tuple(output.shape)} for x_t of shape {tuple(x_t.shape)}"
        raise ValueError(f"the network gives an output of {shapes}: both must be the same")
    target_value = prediction_target(target).value
    row_weights = 1
    if weights is not None:
        weights = weights.to(x_0)  # its dtype and its device
        row_weights = weights[t]

    ordinary = _squared_error(output, target_value(x_0, eps, alpha, sigma)) * row_weights
    if not references:
        return Loss(ordinary, ordinary)

    expected = stable_target(x_t, alpha, sigma, label, references, null_label)
    stable_value = target_value(expected.x_0, expected.eps, alpha, sigma)
    stable = _squared_error(output, stable_value) * row_weights
    return Loss(ordinary.detach(), stable)


def _squared_error(output: Tensor, target: Tensor) -> Tensor:
    """Return the squared error of each row, averaged over its dims: (B,)."""
    return (output - target).square().flatten(1).mean(1)


# ---------------------------------------------------------------- the stable target


@torch.no_grad()
def stable_target(
    x_t: Tensor,
    alpha: Tensor,
    sigma: Tensor,
    label: Tensor | None,
    references: Sequence[References],
    null_label: int = -1,
) -> Prediction:
    """Return E[eps | x_t] and E[x_0 | x_t] as if the data were the reference batch of each row.

    Each reference x_0^i has the posterior weight w_i (Xu, Tong and Jaakkola 2023, arXiv 2302.00670,
    eq. 7):

        E[x_0 | x_t] = sum_i w_i x_0^i,    w_i = softmax_i(log N(x_t; alpha x_0^i, sigma^2 I))
        E[eps | x_t] = (x_t - alpha E[x_0 | x_t]) / sigma

    The reference batch contains the row's own x_0. So this is the expectation of the drawn x_0,
    given x_t and the reference batch, when it is unknown which reference x_t came from. On average
    over batches the target is unchanged, and its variance is a fraction of that of the drawn noise.

    Args:
        x_t: noisy data of shape (B, *dims).
        alpha, sigma: of shape (B, 1, ..., 1), as `NoiseScheduler.alpha_sigma` returns them.
        label: labels of shape (B,), or None. A row with a label uses the references of that label
            only. A row with the null label uses all references.
        references: reference batches whose `rows` add up to B.
        null_label: the entry of `label` that means "no label".
    """
    row_counts = [each.rows for each in references]
    queries = _posterior_queries(x_t, alpha, sigma).split(row_counts)
    labels = _split_labels(label, row_counts)

    means = []
    for reference, query, row_labels in zip(references, queries, labels):
        keys = _posterior_keys(reference.x_0)
        allowed = _allowed_pairs(row_labels, reference.label, null_label)
        key_means = attention(query, keys, allowed)
        means.append(key_means[:, :-1])  # drop the last column, the mean of -|x_0|^2

    x_0 = torch.cat(means).view_as(x_t)
    return Prediction((x_t - alpha * x_0) / sigma, x_0)


# The logarithm of the posterior weight is a scalar product of a query and a key:
#     log N(x_t; alpha x_0, sigma^2 I)
#         = <alpha / sigma^2 x_t, x_0> + alpha^2 / (2 sigma^2) (-|x_0|^2) + constant.
# The constant does not depend on x_0 and cancels in the softmax. So the stable target is attention
# of noisy data to clean data.


def _posterior_queries(x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """Return the queries (alpha / sigma^2 x_t, alpha^2 / (2 sigma^2)) of shape (B, D + 1)."""
    x = x_t.flatten(1)
    a = alpha.flatten(1)
    s = sigma.flatten(1)
    return torch.cat([a / s.square() * x, (a / s).square() / 2], 1)


def _posterior_keys(x_0: Tensor) -> Tensor:
    """Return the keys (x_0, -|x_0|^2) of a reference batch, of shape (R, D + 1)."""
    x = x_0.flatten(1)
    return torch.cat([x, -x.square().sum(1, keepdim=True)], 1)


def _allowed_pairs(
    row_labels: Tensor | None,
    reference_labels: Tensor | None,
    null_label: int,
) -> Tensor | None:
    """Return which references each row may use, of shape (B, R). None: all of them."""
    if row_labels is None:
        return None
    same_label = row_labels[:, None] == reference_labels
    without_label = row_labels[:, None] == null_label
    return same_label | without_label


def attention(queries: Tensor, keys: Tensor, allowed: Tensor | None = None) -> Tensor:
    """Return softmax(queries @ keys.T) @ keys, restricted to the `allowed` pairs (B, R).

    Shapes (B, K) and (R, K) give (B, K). This call of torch writes no matrix (B, R) to memory.
    """
    width = keys.shape[1]
    padding = (0, -width % FASTEST_ATTENTION_WIDTH)
    padded_queries = F.pad(queries, padding)[None, None]  # dimensions of batch and head
    padded_keys = F.pad(keys, padding)[None, None]
    values = padded_keys
    means = F.scaled_dot_product_attention(padded_queries, padded_keys, values, allowed, scale=1)
    return means[0, 0, :, :width]


# ---------------------------------------------------------------- reference batches


def reference_batches(x_0: Tensor, label: Tensor | None, size: int) -> list[References]:
    """Cut a batch into groups of `size` rows; each group is its own reference batch.

    A size of 0 means no references.
    """
    if not size:
        return []
    groups = x_0.split(size)
    labels = _split_labels(label, [len(group) for group in groups])
    return [References(len(rows), rows, row_labels) for rows, row_labels in zip(groups, labels)]


def references_of_rows(references: Sequence[References], begin: int, end: int) -> list[References]:
    """Return the references of the rows begin .. end - 1, given those of a whole batch."""
    kept = []
    start = 0
    for each in references:
        stop = start + each.rows
        count = min(end, stop) - max(begin, start)
        if count > 0:
            kept.append(each._replace(rows=count))
        start = stop
    return kept


def reference_batch_size(rows: int, size: int | None) -> int:
    """Return the size of the reference batches for a data set of `rows` rows.

    A given `size` takes precedence. By default small data sets have no reference batches.
    There a batch is a large part of the data, and the stable target lets the network memorise each
    x_0 (measured on 500 points: docs/tried.md).
    """
    if size is not None:
        return size
    if rows < MIN_REFERENCE_BATCHES * DEFAULT_REFERENCES:
        return 0
    return DEFAULT_REFERENCES


def _split_labels(label: Tensor | None, row_counts: list[int]) -> Sequence[Tensor | None]:
    """Cut labels (B,) into groups of the given sizes. Without labels each group has None."""
    if label is None:
        return [None] * len(row_counts)
    return label.split(row_counts)


# ---------------------------------------------------------------- the distribution of the steps


def draw_steps(num_timesteps: int, rows: int, power: float, generator: torch.Generator) -> Tensor:
    """Draw one step t = floor(T u^power) for each row, of shape (rows,), by stratified sampling.

    Each of as many equal bins as there are rows gives one u (see `one_in_each_bin`). With power 1
    all steps are equally likely. A larger power draws small t more often.
    """
    within = torch.rand(rows, generator=generator)
    return steps_at(one_in_each_bin(within), num_timesteps, power)


def one_in_each_bin(within: Tensor) -> Tensor:
    """Return the number of each bin from its position there, both of shape (..., B) and in [0, 1).

    The bins are B equal parts of [0, 1] (Kingma et al. 2021, arXiv 2107.00630, appendix I.1).
    """
    count = within.shape[-1]
    bins = torch.arange(count, device=within.device)
    return (bins + within) / count


def steps_at(u: Tensor, num_timesteps: int, power: float) -> Tensor:
    """Return the step t = floor(T u^power) for each u in [0, 1), in the shape of u."""
    return (u**power * num_timesteps).long().clamp(max=num_timesteps - 1)


def step_weights(num_timesteps: int, power: float) -> Tensor:
    """Return the importance weight 1 / (T P(t)) of each step, of shape (T,) in float64.

    P(t) is the probability of t in `draw_steps`. With these weights the expected loss is that of
    uniform steps.
    """
    edges = torch.linspace(0, 1, num_timesteps + 1, dtype=torch.float64) ** (1 / power)
    return 1 / (num_timesteps * edges.diff())


# ---------------------------------------------------------------- the weight of each step


def weight_name(scheduler: NoiseScheduler, weight: str | None) -> str:
    """Return the name of the weight. None is "eps" where possible, and otherwise "target".

    Where the last step is pure noise, "eps" would give that step the weight 0.
    """
    if weight:
        return weight
    return "target" if scheduler.alpha[-1] == 0 else "eps"


def loss_weights(scheduler: NoiseScheduler, target: str, weight: str | None) -> Tensor:
    """Return the weight of the network's squared error at each step, of shape (T,) in float64.

    Given x_t, an error of one quantity implies errors of the others, in the ratio that
    `Target.error` gives. So a weight can turn the squared error of the predicted `target` into
    that of another quantity.

    Args:
        target: what the network predicts, a key of registry.process_rows.TARGETS.
        weight: a key of registry.process_rows.LOSS_WEIGHTS, or None (see `weight_name`). "eps" is
            the weight of Ho et al. 2020, eq. 14; "v" that of Salimans and Ho 2022, arXiv
            2202.00512, appendix D.
    """
    alpha = scheduler.alpha
    sigma = scheduler.sigma
    name = weight_name(scheduler, weight)
    row = LOSS_WEIGHTS[name]
    factor_of = implementation(row)
    factor = torch.as_tensor(factor_of(scheduler), dtype=torch.float64)
    if factor.shape != alpha.shape or not bool(factor.isfinite().all()):
        raise ValueError(f"{called('loss weight', name)} did not return {len(alpha)} finite numbers, one for each step")
    if row.quantity is None:
        return factor
    quantity_error = prediction_target(row.quantity).error_factor(alpha, sigma)
    target_error = prediction_target(target).error_factor(alpha, sigma)
    return factor * (quantity_error / target_error).square()


def uniform_factor(scheduler: NoiseScheduler) -> Tensor:
    """Return 1 at each step: (T,)."""
    return torch.ones_like(scheduler.alpha)


def min_snr_factor(scheduler: NoiseScheduler) -> Tensor:
    """Return min(SNR, 5) at each step, (T,), for the error of x_0.

    Hang et al. 2023 (arXiv 2303.09556, section 3.4).
    """
    return (scheduler.alpha / scheduler.sigma).square().clamp(max=MIN_SNR_CAP)


def logit_normal_factor(scheduler: NoiseScheduler) -> Tensor:
    """Return the mean density of a logit-normal t in each of T equal bins of [0, 1], (T,).

    Esser et al. 2024 (arXiv 2403.03206, eq. 19) draw t from this density, for the error of the
    velocity. Here t stays uniform and the loss has this weight, of mean 1.
    """
    T = len(scheduler.alpha)
    edges = torch.linspace(0, 1, T + 1, dtype=torch.float64)
    return T * torch.special.ndtr(edges.logit()).diff()
