"""Guidance and autoguidance, for cases whose right result is known."""

import math

import pytest
import torch
from conftest import gaussian

from dataset import Normaliser, make_dataset
from diffusion import Prediction, denoiser
from model import build_model
from pipeline import Pipeline
from registry.sampler_rows import SAMPLING
from runtime.randomness import generator
from samplers import last
from samplers.guidance import classifier_free, draw_claimed, exact_guided_denoiser, guided
from samplers.multistep import dpmpp_2m
from samplers.options import SamplingOptions
from samplers.spacing import spaced_timesteps
from schedule import CosineNoiseScheduler, FlowNoiseScheduler, LinearNoiseScheduler

SCHEDULER = LinearNoiseScheduler(1000)
PARTS = make_dataset("moons", 100, 0, noise=0.05).parts  # the exact distribution of each moon


# ---------------------------------------------------------------- classifier-free guidance


def with_or_without(x_t, t, label=None):
    """A denoiser whose predictions with and without a label differ."""
    eps = 0.3 * x_t if label is None else x_t + label[:, None]
    return Prediction(eps, 2 - eps)


@pytest.mark.parametrize("w", [0.0, 0.5, 1.0, 3.0])
def test_guidance_moves_away_from_the_prediction_without_a_label(w):
    x_t, t, label = torch.randn(4, 2), torch.tensor(3), torch.arange(4)
    conditional, unconditional = with_or_without(x_t, t, label), with_or_without(x_t, t)
    guided_prediction = classifier_free(with_or_without, w)(x_t, t, label)
    for ours, c, u in zip(guided_prediction, conditional, unconditional):
        torch.testing.assert_close(ours, (1 + w) * c - w * u)


def test_guidance_0_is_the_conditional_prediction_bitwise():
    x_t, t, label = torch.randn(4, 2), torch.tensor(3), torch.arange(4)
    for ours, conditional in zip(classifier_free(with_or_without, 0.0)(x_t, t, label), with_or_without(x_t, t, label)):
        assert torch.equal(ours, conditional)


def test_guided_noise_and_data_still_make_x_t():
    # x_t = alpha x_0 + sigma eps holds for both predictions, and so for every affine combination of them.
    t, x_t = torch.tensor(400), torch.randn(5, 2, dtype=torch.float64)
    network = lambda x_t, t, label: x_t.tanh() if label is None else x_t.sin()  # noqa: E731
    eps, x_0 = classifier_free(denoiser(network, SCHEDULER, "v"), 2.5)(x_t, t, torch.zeros(5))
    torch.testing.assert_close(SCHEDULER.add_noise(x_0, t, eps), x_t, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("w", "labelled", "calls"), [(0.0, True, 1), (2.0, False, 1), (2.0, True, 2)])
def test_guidance_evaluates_the_network_no_more_often_than_it_must(w, labelled, calls):
    asked = []

    def denoise(x_t, t, label=None):
        asked.append(label)
        return with_or_without(x_t, t, label)

    classifier_free(denoise, w)(torch.randn(4, 2), torch.tensor(3), torch.arange(4) if labelled else None)
    assert len(asked) == calls


def test_guidance_without_a_label_is_the_unconditional_prediction():
    x_t, t = torch.randn(4, 2), torch.tensor(3)
    assert torch.equal(classifier_free(with_or_without, 2.0)(x_t, t, None).eps, with_or_without(x_t, t).eps)


@pytest.mark.parametrize(("w", "labelled"), [(0.0, True), (-1.0, False)])
def test_guidance_0_is_the_conditional_and_minus_1_the_unconditional_exact_denoiser_bitwise(w, labelled):
    exact = exact_guided_denoiser(PARTS, SCHEDULER)
    x_t, t, label = torch.randn(50, 2), torch.tensor(400), torch.arange(50) % 2
    expected = exact(x_t, t, label) if labelled else exact(x_t, t)
    for ours, theirs in zip(classifier_free(exact, w)(x_t, t, label), expected):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(("t", "inside"), [(10, False), (300, True), (990, False)])
def test_only_steps_whose_noise_lies_within_the_interval_are_guided(t, inside):
    noise = float(SCHEDULER.sigma[t] / SCHEDULER.alpha[t])
    assert (0.5 <= noise <= 2) == inside
    strong, weak = (lambda x_t, t, label=None, k=k: Prediction(k * x_t, k * x_t) for k in (1.0, 3.0))
    x_t = torch.ones(3, 2)
    found = guided(strong, weak, 2.0, SCHEDULER, (0.5, 2.0))(x_t, torch.tensor(t))
    assert torch.equal(found.eps, (-3 if inside else 1) * x_t)


@pytest.mark.parametrize("high", [2.0, math.inf])
def test_pure_noise_lies_in_an_interval_only_if_that_has_no_upper_end(high):
    flow = FlowNoiseScheduler(10)
    assert float(flow.alpha[9]) == 0
    strong, weak = (lambda x_t, t, label=None, k=k: Prediction(k * x_t, k * x_t) for k in (1.0, 3.0))
    x_t = torch.ones(3, 2)
    found = guided(strong, weak, 2.0, flow, (0.5, high))(x_t, torch.tensor(9))
    assert torch.equal(found.eps, (-3 if high == math.inf else 1) * x_t)


def test_samples_of_the_exact_denoiser_lie_on_the_moon_that_is_asked_for():
    exact, label = exact_guided_denoiser(PARTS, SCHEDULER), torch.arange(2000) % 2
    x_T, timesteps = torch.randn(2000, 2, generator=generator(0, "test")), spaced_timesteps(SCHEDULER, 50)
    x = last(dpmpp_2m(lambda x, t, _=None: exact(x, t, label), SCHEDULER, x_T, timesteps=timesteps))
    log_p = torch.stack([part.log_density(x) for part in PARTS])
    assert float((log_p.argmax(0) == label).double().mean()) >= 0.995


@pytest.mark.parametrize("w", [0.0, 1.0, 4.0])
def test_draws_of_the_distribution_that_guidance_claims_have_its_mean_and_spread(w):
    parts = [gaussian([c], 1.0) for c in (-1.0, 1.0)]
    grid = torch.linspace(-8, 8, 20001, dtype=torch.float64)[:, None]
    log_p = torch.stack([part.log_density(grid) for part in parts])
    density = ((1 + w) * log_p[1] - w * log_p.logsumexp(0)).softmax(0)
    mean = float((density * grid[:, 0]).sum())
    spread = float((density * (grid[:, 0] - mean).square()).sum().sqrt())
    x = draw_claimed(parts, 1, w, 20_000, generator(0, "test"))
    assert abs(float(x.mean()) - mean) < 4 * spread / 20_000**0.5  # exceeded by chance once in 16,000 runs
    assert float(x.std()) == pytest.approx(spread, rel=0.03)


# ---------------------------------------------------------------- images


@pytest.fixture(scope="module")
def image_pipeline():
    """A conditional pipeline of images with random weights, and other random weights as its early snapshot."""

    def random_network(seed):
        torch.manual_seed(seed)
        net = build_model("unet_small", (1, 8, 8), 100, 3, channels=[8, 8], blocks=1, heads=1)
        for weight in net.parameters():  # Some of them are initialised to 0.
            torch.nn.init.normal_(weight, std=0.3)
        return net.eval()

    return Pipeline(
        net=random_network(0),
        scheduler=CosineNoiseScheduler(100),
        normaliser=IMAGE_NORMALISER,
        config={"model": {"prediction": "v"}},
        classes=["a", "b", "c"],
        early=random_network(1),
    )


IMAGE_NORMALISER = Normaliser(torch.zeros(1, 8, 8), torch.ones(1, 8, 8))
LABEL = torch.arange(6) % 3
every_weak_denoiser = pytest.mark.parametrize("option", ["guidance", "autoguidance"])
# sigma / alpha is 0.1, 1.4 and 20 at these steps, and images are guided from 0.5 to 5.
every_step = pytest.mark.parametrize(("t", "within"), [(5, False), (60, True), (97, False)])


def strong_and_weak(pipeline, option, x_t, t):
    """The x_0 predictions that are not clipped: of the network, and of what guidance moves away from."""
    strong = denoiser(pipeline.net, pipeline.scheduler, "v")(x_t, t, LABEL).x_0
    if option == "guidance":
        weak = denoiser(pipeline.net, pipeline.scheduler, "v")(x_t, t, None).x_0
    else:
        weak = denoiser(pipeline.early, pipeline.scheduler, "v")(x_t, t, LABEL).x_0
    return strong, weak


@every_weak_denoiser
@every_step
def test_images_are_guided_within_the_interval_only(image_pipeline, option, t, within):
    x_t, t, w = torch.randn(6, 1, 8, 8), torch.tensor(t), 0.7
    strong, weak = strong_and_weak(image_pipeline, option, x_t, t)
    expected = (1 + w) * strong - w * weak if within else strong
    prediction = image_pipeline.denoiser(SamplingOptions(guidance_interval=[0.5, 5], **{option: w}))(x_t, t, LABEL)
    torch.testing.assert_close(prediction.x_0, expected.clamp(-1, 1))


@every_weak_denoiser
@every_step
def test_noise_and_image_of_a_guided_prediction_still_make_x_t(image_pipeline, option, t, within):
    x_t, t = torch.randn(6, 1, 8, 8), torch.tensor(t)
    prediction = image_pipeline.denoiser(SamplingOptions(guidance_interval=[0.5, 5], **{option: 0.7}))(x_t, t, LABEL)
    noised = image_pipeline.scheduler.add_noise(prediction.x_0, t, prediction.eps)
    torch.testing.assert_close(noised, x_t, rtol=0, atol=1e-4)


@every_weak_denoiser
@every_step
def test_the_weak_prediction_of_images_differs_from_the_strong_one(image_pipeline, option, t, within):
    strong, weak = strong_and_weak(image_pipeline, option, torch.randn(6, 1, 8, 8), torch.tensor(t))
    assert not torch.allclose(strong, weak, atol=1e-3)


def options_of_images(classes, **asked):
    """The guidance and its interval that a pipeline of images chooses by default, beside what is asked for."""
    config = {"model": {"prediction": "v"}}
    pipeline = Pipeline(torch.nn.Identity(), CosineNoiseScheduler(100), IMAGE_NORMALISER, config, classes)
    found = pipeline.resolve(SamplingOptions(**asked))
    return found.guidance, found.guidance_interval


def test_the_default_guidance_of_images_has_the_default_interval():
    defaults = SAMPLING["images"]
    assert options_of_images(["a", "b"]) == (defaults.guidance, defaults.guidance_interval) == (0.3, (0.5, 5.0))


@pytest.mark.parametrize(
    ("asked", "guidance", "interval"),
    [
        ({"guidance_interval": [1, 2]}, 0.3, [1, 2]),
        ({"guidance": 0.35}, 0.35, None),
        ({"guidance": 0.0}, 0.0, None),
        ({"autoguidance": 1.0}, 0.0, None),
    ],
)
def test_the_default_interval_comes_with_the_default_guidance_alone(asked, guidance, interval):
    assert options_of_images(["a", "b"], **asked) == (guidance, interval)


def test_an_unconditional_model_of_images_is_not_guided_by_default():
    assert options_of_images([]) == (0.0, None)
