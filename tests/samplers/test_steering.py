"""Guidance and posterior sampling, where what is right is known in closed form."""

import numpy as np
import pytest
import torch
from conftest import NO_EVALUATION, SMALL, command, not_blank

from conf import choices
from conf.config import Inference
from dataset import Normaliser, make_dataset
from diffusion import Prediction, denoiser, exact_denoiser
from inference import check_steering
from metrics.conditioning import inpaint
from model import build_model
from pipeline import Pipeline
from points.mixture import GaussianMixture
from runtime import checkpoint_file
from runtime.randomness import generator
from samplers import last
from samplers.guidance import classifier_free, draw_claimed, exact_guided_denoiser, guided
from samplers.multistep import dpmpp
from samplers.observation import MASKS, _log_weights, check_possible, draw_posterior, read_line, read_mask
from samplers.options import SamplingOptions
from samplers.posterior import FARTHEST, METHODS, dps, given, mmps, pigdm, r_squared, repaint, sample_given
from samplers.spacing import spaced_timesteps
from schedule import CosineNoiseScheduler, FlowNoiseScheduler, LinearNoiseScheduler

SCHEDULER = LinearNoiseScheduler(1000)
MOONS = make_dataset("moons", 100, 0, noise=0.05)


# ---------------------------------------------------------------- guidance


def with_or_without(x_t, t, label=None):
    """A denoiser whose answers with and without a label differ."""
    eps = 0.3 * x_t if label is None else x_t + label[:, None]
    return Prediction(eps, 2 - eps)


@pytest.mark.parametrize("w", [0.0, 0.5, 1.0, 3.0])
def test_guidance_steps_away_from_the_answer_without_a_label(w):
    x_t, t, label = torch.randn(4, 2), torch.tensor(3), torch.arange(4)
    conditional, unconditional = with_or_without(x_t, t, label), with_or_without(x_t, t)
    steered = classifier_free(with_or_without, w)(x_t, t, label)
    for ours, c, u in zip(steered, conditional, unconditional):
        torch.testing.assert_close(ours, (1 + w) * c - w * u)
        assert w != 0 or torch.equal(ours, c)


def test_guided_noise_and_data_still_make_x_t():
    # x_t = alpha x_0 + sigma eps holds for both answers, and so for what is steered from them
    t, x_t = torch.tensor(400), torch.randn(5, 2, dtype=torch.float64)
    network = lambda x_t, t, label: x_t.tanh() if label is None else x_t.sin()  # noqa: E731
    eps, x_0 = classifier_free(denoiser(network, SCHEDULER, "v"), 2.5)(x_t, t, torch.zeros(5))
    torch.testing.assert_close(SCHEDULER.add_noise(x_0, t, eps), x_t, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("w", "labelled", "calls"), [(0.0, True, 1), (2.0, False, 1), (2.0, True, 2)])
def test_guidance_asks_the_network_no_more_often_than_it_must(w, labelled, calls):
    x_t, asked = torch.randn(4, 2), []

    def denoise(x_t, t, label=None):
        asked.append(label)
        return with_or_without(x_t, t, label)

    out = classifier_free(denoise, w)(x_t, torch.tensor(3), torch.arange(4) if labelled else None)
    assert len(asked) == calls
    assert labelled or torch.equal(out.eps, with_or_without(x_t, torch.tensor(3)).eps)


def test_guidance_0_is_the_conditional_and_minus_1_the_unconditional_denoiser_bitwise():
    exact = exact_guided_denoiser(MOONS.parts, SCHEDULER)
    x_t, t, label = torch.randn(50, 2), torch.tensor(400), torch.arange(50) % 2
    for w, expected in ((0.0, exact(x_t, t, label)), (-1.0, exact(x_t, t))):
        for ours, theirs in zip(classifier_free(exact, w)(x_t, t, label), expected):
            assert torch.equal(ours, theirs)


def test_outside_of_the_interval_nothing_is_guided():
    strong, weak = (lambda x_t, t, label=None, k=k: Prediction(k * x_t, k * x_t) for k in (1.0, 3.0))
    steered, x_t = guided(strong, weak, 2.0, SCHEDULER, (0.5, 2.0)), torch.ones(3, 2)
    noise = SCHEDULER.sigma / SCHEDULER.alpha
    for t in (10, 300, 990):
        inside = 0.5 <= float(noise[t]) <= 2
        assert torch.equal(steered(x_t, torch.tensor(t)).eps, (-3 if inside else 1) * x_t)


def test_the_exact_denoiser_lies_on_the_moon_that_is_asked_for():
    exact, label = exact_guided_denoiser(MOONS.parts, SCHEDULER), torch.arange(2000) % 2
    x_T, timesteps = torch.randn(2000, 2, generator=generator(0, "test")), spaced_timesteps(SCHEDULER, 50)
    x = last(dpmpp(lambda x, t, _=None: exact(x, t, label), SCHEDULER, x_T, timesteps=timesteps))
    log_p = torch.stack([part.log_density(x) for part in MOONS.parts])
    assert float((log_p.argmax(0) == label).double().mean()) >= 0.995


def test_what_guidance_claims_is_drawn_as_its_density_says():
    parts = [GaussianMixture(torch.tensor([[c]]), 1.0) for c in (-1.0, 1.0)]
    grid = torch.linspace(-8, 8, 20001, dtype=torch.float64)[:, None]
    for w in (0.0, 1.0, 4.0):
        log_p = torch.stack([part.log_density(grid) for part in parts])
        density = ((1 + w) * log_p[1] - w * log_p.logsumexp(0)).softmax(0)
        mean = float((density * grid[:, 0]).sum())
        spread = float((density * (grid[:, 0] - mean).square()).sum().sqrt())
        x = draw_claimed(parts, 1, w, 20_000, generator(0, "test"))
        assert abs(float(x.mean()) - mean) < 4 * spread / 20_000**0.5  # 1 in 16 000
        assert float(x.std()) == pytest.approx(spread, rel=0.03)


# ---------------------------------------------------------------- observations


def test_lines_in_words():
    assert read_line("2x-y=0.3", 2, 0.1).matrix.tolist() == [[2, -1]]
    assert read_line("-x + .5*z = -1", 3, 0.1).matrix.tolist() == [[-1, 0, 0.5]]
    for wrong in (
        "q=1",
        "z=1",
        "y",
        "y=",
        "y=b",
        "=1",
        "x-x=1",
        "mask:left",
        "y=nan",
        "x*y=1",
        "x2=1",
        "z+x=1",
        "1e-9x=1",
    ):
        with pytest.raises(ValueError, match="is no observation of a point"):
            read_line(wrong, 2, 0.1)
    for wrong in ("1000000x=0.2", f"{'9' * 40}x=0.2"):
        with pytest.raises(ValueError, match=r"all but infinitely precise.* raise observe_noise"):
            read_line(wrong, 2, 0.05)
    with pytest.raises(ValueError, match="contradicts"):
        check_possible(MOONS.mixture, read_line("y=50", 2, 0.05), "y=50")
    check_possible(MOONS.mixture, read_line("y=0.2", 2, 0.05), "y=0.2")


def test_masks_observe_their_pixels():
    assert MASKS.keys() == set(choices.MASKS) and METHODS.keys() == choices.METHODS.keys()
    image = torch.arange(16.0).reshape(1, 4, 4)
    assert read_mask("mask:left", image, 0.1).value.tolist() == [0, 1, 4, 5, 8, 9, 12, 13]
    assert read_mask("mask:bottom", image, 0.1).value.tolist() == [*range(8, 16)]
    assert read_mask("mask:centre", image, 0.1).value.tolist() == [5, 6, 9, 10]
    with pytest.raises(ValueError, match="choose one of mask:left"):
        read_mask("y=1", image, 0.1)


@pytest.mark.parametrize("text", ["y=0.2", "2x-y=0.3"])
def test_exact_draws_are_those_of_brute_force_and_of_their_density(text):
    seen = read_line(text, 2, 0.1)
    x = draw_posterior(MOONS.mixture, seen, 20_000, generator(0, "test"))
    many = MOONS.mixture.sample(400_000, generator(1, "test"))
    w = seen.log_likelihood(many).softmax(0)
    error = 4 * (1 / 20_000 + float(w.square().sum())) ** 0.5  # of a mean, in standard deviations: 1 in 16 000
    for f in (lambda x: x[:, 0], lambda x: x[:, 1], lambda x: x.prod(1), lambda x: x[:, 0].square()):
        mean = float((w * f(many)).sum())
        spread = float((w * (f(many) - mean).square()).sum().sqrt())
        assert abs(float(f(x).mean()) - mean) < error * spread
    side = torch.linspace(-2, 3.2, 521, dtype=torch.float64)
    grid = torch.cartesian_prod(side, side)
    evidence = (MOONS.mixture.log_density(grid) + seen.log_likelihood(grid)).exp().sum() * 0.01**2  # p(y)
    assert float(evidence) == pytest.approx(float(_log_weights(MOONS.mixture, seen).exp().sum()), rel=1e-3)


# ---------------------------------------------------------------- posterior samplers

MEAN, VARIANCE = torch.tensor([[0.3, -0.2]]), torch.tensor([1.0, 0.25])


@pytest.mark.parametrize("variance", [torch.ones(2), VARIANCE], ids=["standard", "other"])
@pytest.mark.parametrize("t", [50, 500, 900])
def test_of_one_gaussian_every_method_has_the_score_that_it_should(variance, t):
    """J = alpha variance / p with p = alpha^2 variance + sigma^2; the true covariance is sigma^2 variance / p."""
    one, seen = GaussianMixture(MEAN, variance), read_line("x-2y=0.5", 2, 0.1)
    alpha, sigma = SCHEDULER.alpha_sigma_at(t)
    exact, x_t = exact_denoiser(one, SCHEDULER), torch.randn(20, 2, dtype=torch.float64)
    A, noised = seen.matrix, alpha**2 * variance.double() + sigma**2
    eps, x_0 = exact(x_t, torch.tensor(t))
    for believed, V in ((dps, 0 * noised), (pigdm, r_squared(alpha, sigma) + 0 * noised),
                        (mmps, sigma**2 * variance / noised)):  # fmt: skip
        weight = (seen.value - x_0 @ A.T) / (seen.noise**2 + (A * V) @ A.T)
        score = alpha * variance / noised * (weight @ A)
        score = score * (FARTHEST * 2**0.5 / sigma / score.norm(dim=1, keepdim=True)).clamp(max=1)
        ours = given(exact, SCHEDULER, seen, believed)(x_t, torch.tensor(t))
        torch.testing.assert_close(ours.eps, eps - sigma * score)
        torch.testing.assert_close(ours.x_0, x_0 + sigma**2 / alpha * score)


def test_of_an_axis_mmps_is_the_denoiser_of_the_exact_posterior_and_so_is_pigdm_of_standard_data():
    x_t, t = torch.randn(20, 2, dtype=torch.float64), torch.tensor(400)
    for variance, methods in ((torch.ones(2), (mmps, pigdm)), (VARIANCE, (mmps,))):
        variance, noise = variance.double(), 0.1
        gain = variance[1] / (variance[1] + noise**2)
        centre = MEAN.double() + torch.tensor([[0, gain * (0.7 - MEAN[0, 1])]])
        posterior = GaussianMixture(centre, torch.stack([variance[0], variance[1] * (1 - gain)]))
        expected = exact_denoiser(posterior, SCHEDULER)(x_t, t)
        exact = exact_denoiser(GaussianMixture(MEAN, variance), SCHEDULER)
        for believed in methods:
            ours = given(exact, SCHEDULER, read_line("y=0.7", 2, noise), believed)(x_t, t)
            torch.testing.assert_close(ours.x_0, expected.x_0)
            torch.testing.assert_close(ours.eps, expected.eps)


@pytest.mark.parametrize("method", ["mmps", "repaint", "tds", "sir"])
def test_samples_of_a_gaussian_have_the_posterior_s_mean_and_spread(method):
    one, seen, g = GaussianMixture(torch.zeros(1, 2), 1.0), read_line("x+y=1", 2, 0.2), generator(0, "test")
    x_T = torch.randn(2000, 2, generator=g)
    exact = exact_denoiser(one, SCHEDULER)
    if method == "repaint":
        states = repaint(exact, SCHEDULER, x_T, seen, timesteps=spaced_timesteps(SCHEDULER, 30, "even"), generator=g)
    else:
        states = sample_given(exact, SCHEDULER, x_T, seen, method=method, generator=g)
    x = last(states)
    along, across = (x[:, 0] + x[:, 1]) / 2**0.5, (x[:, 0] - x[:, 1]) / 2**0.5
    if method != "repaint":  # which takes the observation for the truth, as if the data were uniform
        gain = 2 / (2 + 0.2**2)
        assert float(along.mean()) == pytest.approx(gain / 2**0.5, abs=0.02)
        assert float(along.std()) == pytest.approx((1 - gain) ** 0.5, rel=0.2)  # a hundred ancestral steps make it thin
    assert float(along.mean()) == pytest.approx(0.7, abs=0.03)
    assert float(across.mean()) == pytest.approx(0, abs=0.1) and float(across.std()) == pytest.approx(1, rel=0.25)


@pytest.mark.parametrize("method", METHODS)
def test_on_a_flow_the_error_of_a_network_throws_no_sample_away(method):
    """A denoiser that moves with x_t where it should not, as networks do: 1 / alpha, a thousand times, is its error."""
    flow, seen, g = FlowNoiseScheduler(1000), read_line("x+y=1", 2, 0.1), generator(0, "test")
    exact = exact_denoiser(GaussianMixture(torch.zeros(1, 2), 1.0), flow)

    def network(x_t, t, label=None):
        alpha, sigma = flow.alpha_sigma_at(int(t))
        x_0 = exact(x_t, t).x_0 + 0.03 * sigma * (3 * x_t).sin()
        return Prediction((x_t - alpha * x_0) / sigma, x_0)

    x_T = torch.randn(100, 2, generator=g)
    states = [state.x_t for state in sample_given(network, flow, x_T, seen, method=method, generator=g)]
    assert all(float(x.abs().max()) < 10 for x in states)
    x = states[-1]
    along, across = (x[:, 0] + x[:, 1]) / 2**0.5, (x[:, 0] - x[:, 1]) / 2**0.5
    assert float(along.mean()) == pytest.approx(0.7, abs=0.1) and float(along.std()) < 0.25
    assert 0.5 < float(across.std()) < 1.5


@pytest.mark.parametrize("believed", [dps, pigdm, mmps])
def test_rows_that_have_seen_different_things_are_each_steered_by_their_own(believed):
    exact, x_t, t = exact_denoiser(MOONS.mixture, SCHEDULER), torch.randn(3, 2, dtype=torch.float64), torch.tensor(300)
    seen = [read_line(f"y={value}", 2, 0.1) for value in (0.1, 0.4, -0.3)]
    together = given(exact, SCHEDULER, seen[0]._replace(value=torch.stack([one.value for one in seen])), believed)(
        x_t, t
    )
    for i, one in enumerate(seen):
        torch.testing.assert_close(together.x_0[i], given(exact, SCHEDULER, one, believed)(x_t, t).x_0[i])


# ---------------------------------------------------------------- the early snapshot, and commands


@pytest.fixture(scope="module")
def early(tmp_path_factory):
    """A conditional model with an early snapshot."""
    folder = tmp_path_factory.mktemp("early")
    line = f"train.py {SMALL} {NO_EVALUATION} conditional=true early_ema=0.5"
    for words in ("max_steps=60 task_name=whole", "max_steps=60 task_name=part"):
        assert (done := command(f"{line} {words}", folder)).returncode == 0, done.stderr
    return folder


def test_the_snapshot_is_the_average_of_that_step_and_guides(early):
    state = checkpoint_file.load(early / "whole")
    assert int(state["early"]["n_averaged"]) == 30 and int(state["ema"]["n_averaged"]) == 60
    pipeline = Pipeline.load(early / "whole", "cpu")
    assert pipeline.early is not None
    for w, guess in ((0.0, pipeline.net), (-1.0, pipeline.early)):
        x_t, t, label = torch.randn(9, 2), torch.tensor(20), torch.arange(9) % 2
        expected = denoiser(guess, pipeline.scheduler, "v")(x_t, t, label)
        assert torch.equal(pipeline.denoiser(SamplingOptions(autoguidance=w))(x_t, t, label).eps, expected.eps)


@pytest.mark.parametrize("method", ["dps", "pigdm", "mmps", "repaint", "tds"])
def test_every_method_fills_in_images_each_by_what_was_seen_of_it(method):
    config = {"num_samples": 100, "seed": 0, "dataset": {"name": "digits"}, "model": {"prediction": "x0"}}
    net = torch.nn.Linear(1, 1)
    net.forward = lambda x, t, label=None: 0 * x  # whatever x_t is, the guess is grey
    one = torch.ones(1, 8, 8)
    pipeline = Pipeline(net, CosineNoiseScheduler(20), Normaliser(0 * one, one), config)
    found = inpaint(pipeline, "mask:left", 0.1, method, 0, 0)
    assert found.samples.shape == (8, 10, 1, 8, 8) and np.isfinite(found.samples).all()
    seen = found.observed[:, None] & np.ones_like(found.samples, bool)
    if method == "repaint":  # the only one that needs no answer of the network
        assert np.abs(found.samples - found.images[:, None])[seen].mean() < 0.15


def test_images_are_guided_away_from_the_snapshot_and_from_no_label_within_the_interval_only():
    def untrained(seed):
        torch.manual_seed(seed)
        net = build_model("unet_small", (1, 8, 8), 100, 3, channels=[8, 8], blocks=1, heads=1)
        for weight in net.parameters():  # some of which begin at 0
            torch.nn.init.normal_(weight, std=0.3)
        return net.eval()

    config, one = {"model": {"prediction": "v"}}, torch.ones(1, 8, 8)
    options = {"net": untrained(0), "early": untrained(1), "classes": ["a", "b", "c"], "config": config}
    pipeline = Pipeline(scheduler=CosineNoiseScheduler(100), normaliser=Normaliser(0 * one, one), **options)
    x_t, label = torch.randn(6, 1, 8, 8), torch.arange(6) % 3
    for t, within in ((5, False), (60, True), (97, False)):  # sigma / alpha 0.1, 1.4, 20
        t, w, where = torch.tensor(t), 0.7, [0.5, 5]
        strong, no_label, early = (
            denoiser(net, pipeline.scheduler, "v")(x_t, t, of).x_0
            for net, of in ((pipeline.net, label), (pipeline.net, None), (pipeline.early, label))
        )
        for weak, how in ((no_label, {"guidance": w}), (early, {"autoguidance": w})):
            expected = (1 + w) * strong - w * weak if within else strong
            guess = pipeline.denoiser(SamplingOptions(guidance_interval=where))(x_t, t, label)
            torch.testing.assert_close(guess.x_0, expected.clamp(-1, 1))
            torch.testing.assert_close(pipeline.scheduler.add_noise(guess.x_0, t, guess.eps), x_t, rtol=0, atol=1e-4)
        assert not torch.allclose(strong, no_label, atol=1e-3) and not torch.allclose(strong, early, atol=1e-3)


def test_the_default_interval_comes_with_the_default_guidance_alone():
    config, one = {"model": {"prediction": "v"}}, torch.ones(1, 8, 8)
    given = {"net": torch.nn.Identity(), "scheduler": CosineNoiseScheduler(100), "normaliser": Normaliser(0 * one, one)}
    model, defaults = Pipeline(config=config, classes=["a", "b"], **given), choices.SAMPLING["images"]._asdict()

    def chosen(model, **asked):
        found = model.sampling(defaults, **asked)
        return found["guidance"], found["guidance_interval"]

    assert chosen(model) == (defaults["guidance"], defaults["guidance_interval"]) == (0.3, (0.5, 5.0))
    assert chosen(model, guidance_interval=[1, 2]) == (0.3, [1, 2])
    assert chosen(model, guidance=0.35) == (0.35, None)
    assert chosen(model, guidance=0.0) == chosen(model, autoguidance=1.0) == (0.0, None)
    assert chosen(Pipeline(config=config, **given)) == (0.0, None)


def test_a_resumed_training_keeps_the_snapshot(early):
    before = checkpoint_file.load(early / "part")
    done = command(f"train.py resume=part max_steps=70 {NO_EVALUATION}", early)
    assert done.returncode == 0, done.stderr
    after = checkpoint_file.load(early / "part")
    assert after["step"] == 70
    assert all(torch.equal(before["early"][name], after["early"][name]) for name in before["early"])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("observe=y=50", "contradicts the data set"),
        ("observe=mask:left", "is for images"),
        ("observe=", "observe= is no observation of a point"),
        ("guidance_interval=[2,1] guidance=1", "two numbers that rise from 0; got [2,1]"),
    ],
)
def test_a_mistake_is_answered_in_one_line(early, words, sentence):
    done = command(f"inference.py checkpoint=whole {words}", early)
    assert done.returncode == 1 and sentence in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_guidance_that_makes_no_sense_is_refused(early):
    model = Pipeline.load(early / "whole", "cpu")
    with pytest.raises(ValueError, match="give guidance or autoguidance as well"):
        model.states(5, SamplingOptions(sampler="ddpm", guidance=0.0, guidance_interval=[1, 2]), seed=0)
    with pytest.raises(ValueError, match="are alternatives"):
        model.states(5, SamplingOptions(sampler="ddpm", guidance=1.0, autoguidance=1.0), seed=0)


def test_without_a_snapshot_there_is_no_autoguidance(run):
    with pytest.raises(ValueError, match="needs an early snapshot"):
        Pipeline.load(run, "cpu").states(5, SamplingOptions(sampler="ddpm", autoguidance=1.0), seed=0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"observe": "y=0.2", "guidance_sheet": True}, "are two things"),
        ({"observe": "y=0.2", "variance": "exact", "labels": 0}, "leave out labels and variance"),
        ({"observe": "y=0.2", "guidance_interval": [0.1, 1.0]}, "leave out guidance_interval"),
        ({"guidance_sheet": True, "animation": "gif"}, "leave out animation"),
        ({"observe_noise": 0.3}, "observe_noise belongs to observe"),
    ],
)
def test_options_that_steering_would_ignore_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        check_steering(Inference(**options))


def test_options_that_steering_takes_are_taken():
    check_steering(Inference(guidance_sheet=True, guidance_interval=[0.1, 1.0], rerun=False, num_samples=3, seed=4))
    check_steering(Inference(observe="y=0.2", observe_method="tds", observe_noise=0.3, threads=2, checkpoint="runs/a"))
    check_steering(Inference(guidance_interval=[0.1, 1.0], variance="exact", labels=0))


@pytest.mark.parametrize(
    ("words", "picture", "said"),
    [
        ("observe=y=0.2", "posterior.png", "sliced Wasserstein-1 to the exact posterior"),
        ("guidance_sheet=true", "guidance.png", "what guidance w claims to sample"),
    ],
)
def test_a_picture_and_a_table_beside_the_truth(early, words, picture, said):
    done = command(f"inference.py checkpoint=whole num_samples=60 {words} hydra.run.dir=steered", early)
    assert done.returncode == 0 and said in done.stdout, done.stderr
    assert not_blank(early / "steered" / picture)
