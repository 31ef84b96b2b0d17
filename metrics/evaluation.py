"""The judgement of a trained model: how far its samples, and of points its epsilon and density, are from the truth."""

from dataclasses import dataclass, field
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from dataset import IMAGE_DATASETS, DataSet, PointSet, make_sets, read_points
from diffusion import exact_denoiser
from images.files import read_samples
from metrics.bayes import Probes, bayes_floor, excess, make_probes
from metrics.distances import CLEARLY, Draw, MetricResult, exact_draws, measure, rows_of
from metrics.image_metrics import evaluate_images
from metrics.likelihood import kl_from_exact
from mixture import GaussianMixture
from runtime.progress import progress_bar
from runtime.randomness import generator
from runtime.trained import Trained
from sampler import last, visited

PROBE_STEPS, PROBE_POINTS = 50, 400
KL_STEPS, KL_POINTS, KL_POINTS_EXACT = 400, 2000, 300
GOOD_EXCESS = 0.01  # of the Bayes floor: below it, samples are hard to tell from real ones


@dataclass
class Evaluation:
    """The table, the samples judged (data units) and the labels asked for; with a known law also probes and excess.

    sampling: how a model was sampled (see Trained.sampling); empty where the samples came from a file.
    """

    rows: list[MetricResult]
    samples: NDArray
    labels: NDArray | None = None
    probes: Probes | None = None
    excess: NDArray | None = None
    sampling: dict[str, Any] = field(default_factory=dict)


def evaluate_model(
    trained: Trained,
    train: DataSet,
    unseen: DataSet,
    device: torch.device,
    *,
    num_samples: int,
    seed: int,
    sampler: str | None = None,
    sampling_steps: int | None = None,
    eta: float = 0.0,
    guidance: float | None = None,
) -> Evaluation:
    """Sample from the model and hold everything that can be known about it against its floor.

    Args:
        train: what it has learnt from; the judge of images learns from it too.
        unseen: gives the law of points. Without one (points from a file, images) it holds real ones to compare with,
            and neither the density nor the best epsilon is known.
        sampler, sampling_steps, eta, guidance: see Trained.sample; but points take dpm by default.
    """
    labels = _as_frequent(unseen, num_samples, seed) if trained.classes else None
    settings = trained.sampling(sampler or (None if trained.of_images else "dpmpp_2m"), sampling_steps, guidance)
    states = trained.sample(num_samples, seed, device, labels=labels, eta=eta, **settings)
    total = len(visited(trained.scheduler, settings["sampler"], settings["sampling_steps"]))
    samples = trained.data_units(last(progress_bar(states, "sampling", total)))
    if trained.of_images:
        rows = evaluate_images(samples, labels, train, unseen, seed=seed, device=device)
        return Evaluation(rows, samples.numpy(), labels, sampling=settings)
    rows = measure(samples.numpy(), real_draws(unseen, seed), unseen.mixture)
    if unseen.mixture is None:
        return Evaluation(rows, samples.numpy(), labels, sampling=settings)
    mixture = unseen.mixture.scaled(trained.normaliser.mean, trained.normaliser.std)
    probes = make_probes(mixture, trained.scheduler, num_steps=PROBE_STEPS, num_points=PROBE_POINTS, seed=seed)
    over = excess(trained.denoise(), probes, device)
    rows += [
        _excess_result(float(over.mean()), bayes_floor(mixture, trained.scheduler)),
        _kl_result(trained, mixture, seed),
    ]
    return Evaluation(rows, samples.numpy(), labels, probes, over.numpy(), settings)


def evaluate_file(path: str, dataset: dict[str, Any], num_samples: int | None, seed: int) -> tuple[Evaluation, DataSet]:
    """Judge a file: points against those of the data set of that name, or images (N, C, H, W) in [-1, 1], .npy.

    Returns the unseen real ones as well. Raises ValueError, FileNotFoundError: a file or a data set of no use.
    """
    images = dataset["name"] in IMAGE_DATASETS
    most = num_samples or default_eval_samples(images)
    train, unseen = make_sets(n_samples=None if images else most, seed=seed, **dataset)
    if images:
        samples = read_samples(path)[:most]
        return Evaluation(evaluate_images(torch.from_numpy(samples), None, train, unseen, seed=seed), samples), unseen
    points = read_points(path, n_samples=most, seed=seed).points
    return Evaluation(measure(points, real_draws(unseen, seed), unseen.mixture), points), unseen


def default_eval_samples(images: bool) -> int:
    """How many samples are judged where nobody says."""
    return 2000 if images else 10_000


def _as_frequent(data: DataSet, count: int, seed: int) -> Tensor:
    """Labels (count,) as frequent as in the data."""
    labels = torch.as_tensor(data.labels)
    return labels[torch.randint(len(labels), (count,), generator=generator(seed, "labels"))]


def real_draws(data: PointSet, seed: int) -> Draw:
    """Fresh draws of the law where it is known; else random rows of the held-out points."""
    return rows_of(data.points, seed) if data.mixture is None else exact_draws(data.mixture, seed)


def _excess_result(over: float, floor: float) -> MetricResult:
    """The whole error beside the Bayes floor; their difference is measured by itself, without the noise of either."""
    share = over / floor
    return MetricResult(
        "error of epsilon", floor + over, floor, floor, floor,
        n=PROBE_STEPS * PROBE_POINTS, passed=share <= GOOD_EXCESS, verdict=f"{share:.2%} above the Bayes floor",
    )  # fmt: skip


def _kl_result(trained: Trained, mixture: GaussianMixture, seed: int) -> MetricResult:
    scheduler, g = trained.scheduler, generator(seed, "kl")
    timesteps = scheduler.timesteps(min(KL_STEPS, scheduler.num_timesteps))
    x = mixture.noised(*scheduler.alpha_sigma_at(0)).sample(KL_POINTS, g)
    value, error = kl_from_exact(trained.denoise(), scheduler, mixture, x, timesteps)
    floor, _ = kl_from_exact(exact_denoiser(mixture, scheduler), scheduler, mixture, x[:KL_POINTS_EXACT], timesteps)
    passed = value - floor <= CLEARLY * error
    verdict = f"indistinguishable at n = {KL_POINTS:,}" if passed else f"{value:.3f} nats from the law"
    return MetricResult("KL from the law", value, floor, floor - 1.645 * error, floor + 1.645 * error,
                  n=KL_POINTS, passed=passed, verdict=verdict, unit="nats")  # fmt: skip
