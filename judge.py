"""The judgement of a trained model of points: how far its samples, its epsilon and its density are from the truth."""

from dataclasses import dataclass

import torch
from numpy.typing import NDArray

from bayes import Probes, bayes_floor, excess, make_probes
from dataset import PointSet
from diffusion import exact_denoiser
from law import Law
from likelihood import kl_from_law
from metrics import CLEARLY, Draw, Judged, from_law, from_points, judge
from progress import shown
from randomness import generator
from sampler import last
from trained import Trained

PROBE_STEPS, PROBE_POINTS = 50, 400
KL_STEPS, KL_POINTS, KL_POINTS_EXACT = 400, 2000, 300
GOOD_EXCESS = 0.01  # of the Bayes floor: below it, samples are hard to tell from real ones


@dataclass
class Judgement:
    """The table, the samples judged (data units) and, where the law is known, probes and the excess at each."""

    rows: list[Judged]
    samples: NDArray
    probes: Probes | None = None
    excess: NDArray | None = None


def judge_model(
    trained: Trained,
    data: PointSet,
    device: torch.device,
    *,
    num_samples: int,
    seed: int,
    sampler: str = "dpm",
    sampling_steps: int | None = None,
    eta: float = 0.0,
) -> Judgement:
    """Sample from the model and hold everything that can be known about it against its floor.

    `data` gives the law; without one (points from a file) its points are the held-out real ones, and neither the
    density nor the best epsilon is known.
    """
    states = trained.sample(num_samples, seed, device, sampler=sampler, sampling_steps=sampling_steps, eta=eta)
    samples = trained.data_units(last(shown(states, "sampling"))).numpy()
    rows = judge(samples, real_draws(data, seed), data.law)
    if data.law is None:
        return Judgement(rows, samples)
    law = data.law.scaled(trained.normaliser.mean, trained.normaliser.std)
    probes = make_probes(law, trained.scheduler, num_steps=PROBE_STEPS, num_points=PROBE_POINTS, seed=seed)
    over = excess(trained.denoise(), probes, device)
    rows += [_judged_excess(float(over.mean()), bayes_floor(law, trained.scheduler)), _judged_kl(trained, law, seed)]
    return Judgement(rows, samples, probes, over.numpy())


def real_draws(data: PointSet, seed: int) -> Draw:
    """Fresh draws of the law where it is known; else random rows of the held-out points."""
    return from_points(data.points, seed) if data.law is None else from_law(data.law, seed)


def _judged_excess(over: float, floor: float) -> Judged:
    """The whole error beside the Bayes floor; their difference is measured by itself, without the noise of either."""
    share = over / floor
    return Judged(
        "error of epsilon", floor + over, floor, floor, floor,
        n=PROBE_STEPS * PROBE_POINTS, passed=share <= GOOD_EXCESS, verdict=f"{share:.2%} above the Bayes floor",
    )  # fmt: skip


def _judged_kl(trained: Trained, law: Law, seed: int) -> Judged:
    scheduler, g = trained.scheduler, generator(seed, "kl")
    timesteps = scheduler.timesteps(min(KL_STEPS, scheduler.num_timesteps))
    x = law.noised(*scheduler.alpha_sigma_at(0)).sample(KL_POINTS, g)
    value, error = kl_from_law(trained.denoise(), scheduler, law, x, timesteps)
    floor, _ = kl_from_law(exact_denoiser(law, scheduler), scheduler, law, x[:KL_POINTS_EXACT], timesteps)
    passed = value - floor <= CLEARLY * error
    verdict = f"indistinguishable at n = {KL_POINTS:,}" if passed else f"{value:.3f} nats from the law"
    return Judged("KL from the law", value, floor, floor - 1.645 * error, floor + 1.645 * error,
                  n=KL_POINTS, passed=passed, verdict=verdict, unit="nats")  # fmt: skip
