"""What a network learns to make small: the training loss, the stable target, which steps are drawn, how each counts."""

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion import Network, Prediction, prediction_target
from schedule import NoiseScheduler

REFERENCES = 512  # where nobody says how many


class Loss(NamedTuple):
    """Squared errors of the network's output, averaged over dims and weighted: (B,) each.

    ordinary: against the noise that was drawn, comparable with the Bayes floor. stable: against what the network
    learns from, its expectation over a reference batch (the same where there is none).
    """

    ordinary: Tensor
    stable: Tensor


class References(NamedTuple):
    """The reference batch of the next `rows` rows: x_0 (R, *dims) and, where they have some, labels (R,)."""

    rows: int
    x_0: Tensor
    label: Tensor | None = None


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
    """The loss of each row, times weights[t] (see loss_weights). With target and weight "eps" it is L_simple (eq. 14).

    references: of these rows, in their order (see stable_target); empty: none.
    null_label: what stands in `label` for none.
    """
    x_t, alpha_sigma = scheduler.add_noise(x_0, t, eps), scheduler.alpha_sigma(t, x_0)
    output, of = net(x_t, t, label), prediction_target(target).of
    weight = 1 if weights is None else weights.to(x_0)[t]
    ordinary = (output - of(x_0, eps, *alpha_sigma)).square().flatten(1).mean(1) * weight
    if not references:
        return Loss(ordinary, ordinary)
    expected = stable_target(x_t, *alpha_sigma, label, references, null_label)
    stable = (output - of(expected.x_0, expected.eps, *alpha_sigma)).square().flatten(1).mean(1) * weight
    return Loss(ordinary.detach(), stable)


@torch.no_grad()
def stable_target(
    x_t: Tensor,
    alpha: Tensor,
    sigma: Tensor,
    label: Tensor | None,
    references: Sequence[References],
    null_label: int = -1,
) -> Prediction:
    """E[eps | x_t] and E[x_0 | x_t] if data were the references of each row only (Xu, Tong and Jaakkola 2023, arXiv
    2302.00670, eq. 7). The row's own x_0 is one of them.

    Given which rows these are and x_t, but not which of them x_t came from, this is the expectation of what was drawn:
    on average over batches the target stays the same, with a fraction of its variance. Rows with a label refer to those
    of the same label, others to all. It is attention: of noisy points to clean ones.
    """
    x, a, s = (v.flatten(1) for v in (x_t, alpha, sigma))
    queries, means = torch.cat([a / s.square() * x, (a / s).square() / 2], 1), []  # (B, D + 1)
    counts = [each.rows for each in references]
    labels = [None] * len(counts) if label is None else label.split(counts)
    for (_, x_0, theirs), query, own in zip(references, queries.split(counts), labels):
        data = x_0.flatten(1)
        keys = torch.cat([data, -data.square().sum(1, keepdim=True)], 1)  # query @ key: log N(x_t; a x_0, s^2) + const
        allowed = None if own is None else (own[:, None] == theirs) | (own[:, None] == null_label)
        means.append(attention(query, keys, allowed)[:, :-1])
    mean = torch.cat(means).view_as(x_t)
    return Prediction((x_t - alpha * mean) / sigma, mean)


def attention(queries: Tensor, keys: Tensor, allowed: Tensor | None = None) -> Tensor:
    """softmax(queries @ keys.T) @ keys over the `allowed` pairs (B, R): (B, K) and (R, K) give (B, K).

    In this call of torch no matrix (B, R) passes through memory; on CPUs it is fastest for multiples of 16 columns.
    """
    width = keys.shape[1]
    queries, keys = (F.pad(x, (0, -width % 16))[None, None] for x in (queries, keys))
    return F.scaled_dot_product_attention(queries, keys, keys, allowed, scale=1)[0, 0, :, :width]


def reference_batches(x_0: Tensor, label: Tensor | None, size: int) -> list[References]:
    """Of a whole batch, `size` rows at a time serve each other; 0: none do."""
    if not size:
        return []
    labels = [None] * -(-len(x_0) // size) if label is None else label.split(size)
    return [References(len(rows), rows, of) for rows, of in zip(x_0.split(size), labels)]


def overlapping(references: Sequence[References], begin: int, end: int) -> list[References]:
    """The references of the rows begin .. end - 1 of a batch, out of those of all its rows."""
    ends = accumulate(each.rows for each in references)
    counts = [min(end, last) - max(begin, last - each.rows) for each, last in zip(references, ends)]
    return [each._replace(rows=count) for each, count in zip(references, counts) if count > 0]


def references_for(rows: int, asked: int | None) -> int:
    """How many references a training on so many rows has; by default none for few rows, of which they would be a large
    part: their expectation then knows each x_0 by heart (500 points: docs/tried.md)."""
    return (REFERENCES if rows >= 20 * REFERENCES else 0) if asked is None else asked


def draw_steps(num_timesteps: int, rows: int, power: float, generator: torch.Generator) -> Tensor:
    """A step t for each row, t = T u^power (rows,), where each of as many equal bins of 0..1 gives one u (Kingma et al.
    2021, arXiv 2107.00630, appendix I.1). power 1: every step as often as any other; more: small t more often."""
    return steps_at(torch.rand(rows, generator=generator), num_timesteps, power)


def steps_at(within: Tensor, num_timesteps: int, power: float) -> Tensor:
    """The same, given where in its bin each u lies: (rows,) in 0..1."""
    rows = len(within)
    u = (torch.arange(rows, device=within.device) + within) / rows
    return (u**power * num_timesteps).long().clamp(max=num_timesteps - 1)


def step_weights(num_timesteps: int, power: float) -> Tensor:
    """How much rarer `draw_steps` gives each step than even draws do, (T,): with these weights the loss is theirs."""
    ends = torch.linspace(0, 1, num_timesteps + 1, dtype=torch.float64) ** (1 / power)
    return 1 / (num_timesteps * ends.diff())


def weight_of(scheduler: NoiseScheduler, weight: str | None) -> str:
    """The weight by name; None: "eps", or "target" where a step of nothing but noise would count nothing in that."""
    return weight or ("target" if scheduler.alpha[-1] == 0 else "eps")


def loss_weights(scheduler: NoiseScheduler, target: str, weight: str | None) -> Tensor:
    """What the squared error of the network's output counts at each step, (T,) float64; weight: see `weight_of`.

    "target": 1, so that the error of what the network predicts counts evenly. Else the error of another quantity is
    made of it: "eps" that of eps (Ho et al. 2020, eq. 14), "v" that of v (Salimans and Ho 2022, appendix D), "min_snr"
    that of x_0 times min(SNR, 5) (Hang et al. 2023, arXiv 2303.09556, section 3.4), "logit_normal" that of the velocity
    times how often t is drawn where its logit is N(0, 1) (Esser et al. 2024, arXiv 2403.03206, eq. 19; a weight of mean
    1 with t drawn evenly, rather than rarer draws).
    """
    alpha, sigma, weight = scheduler.alpha, scheduler.sigma, weight_of(scheduler, weight)
    if weight == "target":
        return torch.ones_like(alpha)
    of, factor = weight, torch.ones_like(alpha)
    if weight == "min_snr":
        of, factor = "x0", (alpha / sigma).square().clamp(max=5)
    if weight == "logit_normal":
        edges = torch.linspace(0, 1, len(alpha) + 1, dtype=torch.float64)
        of, factor = "velocity", len(alpha) * torch.special.ndtr(edges.logit()).diff()
    return factor * (prediction_target(of).error(alpha, sigma) / prediction_target(target).error(alpha, sigma)).square()
