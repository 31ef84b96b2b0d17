"""The examples of docs/plugins.md, in this process and in commands, and errors of files that a user includes."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, SMALL, command, gaussian, started, succeeded, untrained

from conf.groups import MLP, Moons, added_member
from conf.include import run_file
from conf.option import check
from dataset import make_dataset, make_sets
from diffusion import exact_denoiser, prediction_target
from loss.moments import Moment
from loss.objective import loss_weights, training_loss
from metrics.distances import evaluate_points, exact_draws
from model import build_model
from pipeline import check_network
from registry import plugins, register_metric, register_network, register_points, register_sampler, register_schedule
from registry.data_rows import POINT_SETS
from registry.network_rows import NETWORKS
from samplers import last, sample
from samplers.observation import Observation
from samplers.options import SamplingOptions
from samplers.posterior import sample_given
from samplers.spacing import spaced_timesteps
from samplers.steps import State
from schedule import CLEAN, CosineNoiseScheduler, LinearNoiseScheduler, make_scheduler
from training.callbacks import added_callbacks
from viz.pages.explorable.page_contents import check_can_be_shared, contents

PAGE = (ROOT / "docs" / "plugins.md").read_text()
EXAMPLES = dict(re.findall(r"^## (.*?)\n.*?```python\n(.*?)```", PAGE[PAGE.index("## A sampler") :], re.M | re.S))
ALL = "\n\n".join(EXAMPLES.values())
MAX_LINES = 15


@pytest.fixture
def example(tmp_path, monkeypatch, own_rows):
    """A function that includes the example below a heading of the page."""
    monkeypatch.chdir(tmp_path)

    def include(heading: str) -> None:
        Path("my_ideas.py").write_text(EXAMPLES[heading])
        run_file("my_ideas.py")

    return include


# ---------------------------------------------------------------- the examples, in this process


def test_the_page_has_one_short_example_for_each_kind():
    kinds = {re.search(r"register_(\w+)\(", code)[1] for code in EXAMPLES.values()}
    functions = {name.removeprefix("register_") for name in vars(plugins) if name.startswith("register_")}
    assert kinds == functions
    for heading, code in EXAMPLES.items():
        assert len([line for line in code.splitlines() if line.strip()]) <= MAX_LINES, heading


def test_the_sampler_is_ddim_at_the_steps_of_karras(example):
    """Both are exact for eps and x_0 that are constant between two steps."""
    example("A sampler")
    pipeline = untrained(Moons(), MLP(hidden=8, layers=1))
    options = SamplingOptions("euler_sigma", 10)
    made = pipeline.states(50, options)
    known = pipeline.states(50, SamplingOptions("ddim", 10, "karras"))
    for one, other in zip(made, known, strict=True):
        assert one.t == other.t
        torch.testing.assert_close(one.x_t, other.x_t, atol=1e-4, rtol=1e-4)


def test_the_spacing_is_even_in_the_root_of_t(example):
    example("A spacing of steps")
    steps = spaced_timesteps(LinearNoiseScheduler(1000), 10, "quadratic")
    assert steps[0] == 999
    np.testing.assert_allclose(np.sqrt(np.array(steps) + 1), np.sqrt(1000) * np.arange(10, 0, -1) / 10, atol=0.2)


def test_the_angle_of_the_schedule_grows_evenly(example):
    example("A schedule")
    scheduler = make_scheduler("even_angle", 9)
    torch.testing.assert_close(
        torch.atan2(scheduler.sigma, scheduler.alpha), torch.arange(1, 10).double() * torch.pi / 20
    )


def test_the_target_determines_what_it_was_made_from(example):
    example("A prediction target")
    target = prediction_target("to_data")
    x_0, eps = torch.randn(2, 5, 2).double()
    alpha, sigma = torch.rand(2, 5, 1).double() + 0.1
    prediction = target.prediction(target.value(x_0, eps, alpha, sigma), alpha * x_0 + sigma * eps, alpha, sigma)
    torch.testing.assert_close(prediction.x_0, x_0)
    torch.testing.assert_close(prediction.eps, eps)


def test_the_loss_weight_is_that_of_the_paper(example):
    example("A loss weight")
    scheduler = CosineNoiseScheduler(20)
    snr = (scheduler.alpha / scheduler.sigma) ** 2
    torch.testing.assert_close(loss_weights(scheduler, "x0", "truncated_snr"), snr.clamp(min=1))
    torch.testing.assert_close(loss_weights(scheduler, "eps", "truncated_snr"), snr.clamp(min=1) / snr)


def test_the_network_has_the_option_of_its_class(example):
    example("A network")
    options = added_member("tiny", NETWORKS)(width=5)
    check(options)
    net = build_model("tiny", (2,), 50, width=options.width)
    x = torch.randn(3, 2)
    assert net(x, torch.tensor(7)).shape == (3, 2) and net.layers[0].out_features == 5
    torch.testing.assert_close(net(x, torch.tensor([7, 7, 7])), net(x, torch.tensor(7)))
    with pytest.raises(ValueError, match=r"^model=tiny does not take these options: "):
        build_model("tiny", (2,), 50, depth=3)
    with pytest.raises(ValueError, match=r"^model=tiny is not for images"):
        build_model("tiny", (1, 8, 8), 50)


def test_the_points_have_their_exact_distribution(example):
    example("Points with an exact distribution")
    data = make_dataset("cross", 4000, 0, noise=0.05, length=2.0)
    assert data.labels is None and data.mixture.centres.shape == (122, 2)
    off = np.abs(data.points).min(1)
    assert off.std() < 0.05 and np.abs(data.points).max() < 2.3
    assert make_dataset("cross", 10, 0, embed=5, **added_member_options("cross")).points.shape == (10, 5)


def added_member_options(name: str) -> dict:
    options = vars(added_member(name, POINT_SETS)())
    return {key: value for key, value in options.items() if key not in ("name", "embed")}


def test_points_without_an_exact_distribution_lie_on_the_attractor(example):
    example("Points without an exact distribution")
    data, unseen = make_sets("henon", 500, 0, **added_member_options("henon"))
    assert data.mixture is None and data.points.shape == (500, 2) and len(unseen) == 20_000
    assert np.abs(data.points[:, 1]).max() < 0.4
    assert data.inexact_reason == "point set henon of my_ideas.py has none"
    assert not np.array_equal(data.points, unseen.points[:500])


def test_the_metric_has_a_row_with_its_floor(example):
    example("A metric")
    draw = exact_draws(gaussian([0.0, 0.0], 1.0), 0)
    rows = {row.name: row for row in evaluate_points(draw(400, 99) + 3, draw)}
    assert rows["mean gap"].value == pytest.approx(3 * 2**0.5, abs=0.3)
    assert rows["mean gap"].floor < 0.2 and rows["mean gap"].n == 400


def test_the_posterior_sampler_is_exact_for_the_data_that_it_assumes(example):
    """Prior N(0, 0.25), observed x = 1 with noise 0.5: the posterior is N(0.5, 0.125)."""
    example("A posterior sampler")
    scheduler = CosineNoiseScheduler(200)
    denoise = exact_denoiser(gaussian([0.0, 0.0], 0.25), scheduler)
    observation = Observation(torch.tensor([[1.0, 0.0]]), torch.tensor([1.0]), 0.5)
    g = torch.Generator().manual_seed(0)
    x_T = torch.randn(4000, 2, generator=g)
    x = last(sample_given(denoise, scheduler, x_T, observation, method="half", generator=g))
    torch.testing.assert_close(x.mean(0), torch.tensor([0.5, 0.0]), atol=0.03, rtol=0)
    torch.testing.assert_close(x.var(0), torch.tensor([0.125, 0.25]), atol=0.03, rtol=0)


def test_a_page_to_share_leaves_added_samplers_out_and_refuses_added_networks(example):
    example("A sampler")
    pipeline = untrained(Moons(), MLP(hidden=8, layers=1))
    names = contents(pipeline, pipeline.resolve(), [], {})["samplers"]
    assert "euler_sigma" not in names and "ddim" in names
    Path("my_ideas_2.py").write_text(EXAMPLES["A network"])
    run_file("my_ideas_2.py")
    pipeline.config["model"]["name"] = "tiny"
    with pytest.raises(ValueError, match=r"and not the network tiny of my_ideas_2.py$"):
        check_can_be_shared(pipeline)


# ---------------------------------------------------------------- faults of what was added


def faulty(x_T, timesteps, fault):
    """The states of a sampler with one fault."""
    for t in timesteps:
        if (fault, t) == ("NaN", timesteps[2]):
            yield State(t, x_T, x_T * torch.nan)
        elif (fault, t) == ("infinity", timesteps[0]):
            yield State(t, x_T / 0, x_T)
        elif (fault, t) == ("shape", timesteps[1]):
            yield State(t, x_T, x_T[:, :1])
        elif (fault, t) == ("number", timesteps[1]):
            yield State(t, 3.0, x_T)
        elif (fault, t) == ("tensor", timesteps[1]):
            yield x_T
        elif fault == "step" and t == timesteps[1]:
            yield State(t + 1, x_T, x_T)
        elif fault != "none":
            yield State(t, x_T, x_T)
    if fault not in ("none", "short"):
        yield State(CLEAN, x_T, x_T)
    if fault == "long":
        yield State(CLEAN, x_T, x_T)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("none", "yielded no state of t = 49"),
        ("short", "yielded no state of t = CLEAN, its last"),
        ("long", "yielded another state after that of t = CLEAN"),
        ("NaN", "yielded NaN or infinity in x_0 at t = 24"),
        ("infinity", "yielded NaN or infinity in x_t at t = 49"),
        ("shape", "yielded x_0 of shape (3, 1) at t = 37, and x_T has shape (3, 2)"),
        ("number", "yielded x_t of float at t = 37, and x_T has shape (3, 2)"),
        ("tensor", "yielded Tensor instead of State(t, x_t, x_0)"),
        ("step", "yielded a state of t = 38 where that of t = 37 belongs"),
    ],
)
def test_a_faulty_sampler_is_named_in_one_sentence(fault, sentence, own_rows):
    register_sampler(
        "mine", lambda denoise, scheduler, x_T, *, timesteps, generator: faulty(x_T, timesteps, fault), evaluations=5
    )
    states = sample(None, LinearNoiseScheduler(50), torch.ones(3, 2), SamplingOptions("mine"))
    with pytest.raises(ValueError) as error:
        last(states)
    assert str(error.value).startswith("sampler mine of ") and str(error.value).endswith(f"test_plugins.py {sentence}")


def test_a_sampler_that_returns_nothing_is_named(own_rows):
    register_sampler("mine", lambda *arguments, **options: None)
    with pytest.raises(ValueError, match=r"returned NoneType instead of yielding states$"):
        last(sample(None, LinearNoiseScheduler(50), torch.ones(3, 2), SamplingOptions("mine")))


def test_an_added_sampler_runs_without_gradients(own_rows):
    weight = torch.ones(2, requires_grad=True)

    def mine(denoise, scheduler, x_T, *, timesteps, generator):
        for t in [*timesteps, CLEAN]:
            yield State(t, x_T * weight, x_T)

    register_sampler("mine", mine, evaluations=3)
    assert not last(sample(None, LinearNoiseScheduler(50), torch.ones(3, 2), SamplingOptions("mine"))).requires_grad


@pytest.mark.parametrize(
    ("register", "fn", "use", "sentence"),
    [
        (register_schedule, lambda T: None, lambda: make_scheduler("mine", 5), "returned no NoiseScheduler of 5 steps"),
        (
            register_schedule,
            lambda T: LinearNoiseScheduler(4),
            lambda: make_scheduler("mine", 5),
            "returned no NoiseScheduler of 5 steps",
        ),
        (
            register_network,
            lambda dims, steps, labels: 3,
            lambda: build_model("mine", (2,), 5),
            "returned int and no torch.nn.Module",
        ),
        (register_points, lambda: 3, lambda: make_dataset("mine", 5, 0), "returned no GaussianMixtures"),
    ],
)
def test_what_is_not_what_was_asked_for_is_named(register, fn, use, sentence, own_rows):
    register("mine", fn)
    with pytest.raises(ValueError, match=rf"mine of .*test_plugins.py {sentence}$"):
        use()


@pytest.mark.parametrize(("value", "sentence"), [("a", "returned str instead of a number"), (np.nan, "returned nan")])
def test_a_metric_that_gives_no_number_is_named(value, sentence, own_rows):
    register_metric("mine", lambda a, b: value)
    draw = exact_draws(gaussian([0.0, 0.0], 1.0), 0)
    with pytest.raises(ValueError, match=rf"^metric mine of .*test_plugins.py {sentence}$"):
        evaluate_points(draw(100, 99), draw)


@pytest.mark.parametrize(
    ("points", "sentence"),
    [
        (np.zeros((4, 2)), r"returned points of shape \(4, 2\), and not \(5, d\)"),
        (np.zeros(5), r"returned points of shape \(5,\), and not \(5, d\)"),
        (np.full((5, 2), np.nan), "returned points with NaN or infinity"),
    ],
)
def test_points_that_cannot_be_used_are_named(points, sentence, own_rows):
    register_points("mine", lambda num_samples, seed: points, is_exact=False)
    with pytest.raises(ValueError, match=rf"^point set mine of .*test_plugins.py {sentence}$"):
        make_dataset("mine", 5, 0)


def test_added_points_may_have_labels(own_rows):
    def two(num_samples, seed):
        labels = np.arange(num_samples) % 2
        return np.stack([labels, labels], 1), labels

    register_points("mine", two, is_exact=False)
    data = make_dataset("mine", 6, 0)
    assert data.classes == ["0", "1"] and data.labels.tolist() == [0, 1, 0, 1, 0, 1]


def test_errors_of_added_functions_are_raised_as_they_are(own_rows):
    """They are no sentence about options or a damaged checkpoint."""

    def broken(dims, num_timesteps, num_labels):
        return {}["width"]

    register_network("mine", broken)
    pipeline = untrained(Moons(), MLP(hidden=8, layers=1))
    config = {**pipeline.config, "model": {"name": "mine", "prediction": "v"}}
    state = {"config": config, "classes": [], "normaliser": vars(pipeline.normaliser), "ema": {}}
    with pytest.raises(KeyError, match=r"^'width'$"):
        check_network(state, "last.pt")

    register_points("mine", lambda noise=0.1: len(noise))
    register_points("drawn", lambda num_samples, seed: len(seed), is_exact=False)
    for name in ("mine", "drawn"):
        with pytest.raises(TypeError, match="has no len"):
            make_dataset(name, 5, 0)


def test_a_network_whose_output_has_another_shape_is_refused():
    x = torch.randn(6, 2)
    t = torch.zeros(6, dtype=torch.long)
    with pytest.raises(ValueError, match=r"output of shape \(6, 1\) for x_t of shape \(6, 2\)"):
        training_loss(lambda x_t, t, label: x_t[:, :1], LinearNoiseScheduler(10), x, t, torch.randn_like(x))


def test_a_callback_without_its_methods_is_named(own_rows):
    plugins.register_callback("mine", lambda state, folder: 3)
    with pytest.raises(ValueError, match=r"^callback mine of .*test_plugins.py has no methods after"):
        added_callbacks(None, Path())


def test_moments_are_what_the_page_says():
    assert {"done", "last"} <= set(Moment._fields)


# ---------------------------------------------------------------- commands


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with all examples in one file, and runs/mine, which was trained with most of them."""
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "my_ideas.py").write_text(ALL)
    (folder / "bad.py").write_text(BAD)
    for name in ("euler_sigma", "ddim"):
        path = folder / "presets" / "experiment" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# @package _global_\nsampler: {name}\nsampling_steps: 5\n")
    line = (
        "train.py --include my_ideas.py dataset=cross dataset.noise=0.2 model=tiny model.width=16 schedule=even_angle"
        " model.prediction=to_data loss_weight=truncated_snr num_samples=2000 batch_size=256 num_timesteps=50"
        " max_steps=20 eval_samples=0 task_name=runs/mine"
    )
    succeeded(line, folder)
    return folder


BAD = """
from registry import register_network, register_sampler


@register_sampler("bad")
def bad(denoise, scheduler, x_T, *, timesteps, generator):
    raise ValueError("a mistake of mine")
    yield


@register_network("bad")
def network(dims, num_timesteps, num_labels):
    return {}["width"]
"""


def test_a_training_with_everything_that_was_added(folder):
    rows = (folder / "runs/mine/weights.csv").read_text().split()
    assert [row.split(",")[0] for row in rows] == ["10", "20"]


def test_a_checkpoint_asks_for_the_file_in_one_sentence(folder):
    sentence = "was trained with the schedule 'even_angle' of my_ideas.py: add include=my_ideas.py\n"
    for line in ("inference.py checkpoint=runs/mine", "train.py resume=runs/mine", "train.py like=runs/mine"):
        done = command(line, folder)
        assert done.returncode == 1 and done.stderr.endswith(sentence) and done.stderr.count("\n") == 1, done.stderr


def test_samples_of_an_added_sampler_and_of_an_added_network(folder):
    line = "inference.py include=my_ideas.py checkpoint=runs/mine sampler=euler_sigma num_samples=50 rerun=false"
    succeeded(f"{line} hydra.run.dir=sampled", folder)
    assert np.load(folder / "sampled/samples.npy").shape == (50, 2)


@pytest.mark.slow
def test_a_training_with_a_file_goes_on_in_several_ways(folder):
    line = "max_steps=25 include=my_ideas.py eval_samples=0"
    succeeded(f"train.py like=runs/mine {line} task_name=runs/like", folder)
    succeeded(f"train.py resume=runs/like {line} max_steps=30", folder)
    export = "scripts/export.py runs/like --out exported"
    done = command(export, folder)
    assert done.returncode == 1 and done.stderr.endswith(": add include=my_ideas.py\n")
    succeeded(f"{export} --include my_ideas.py", folder)
    succeeded("inference.py include=my_ideas.py checkpoint=exported num_samples=20 rerun=false", folder)


@pytest.mark.slow
def test_compare_has_a_row_of_an_added_sampler_and_a_column_of_an_added_metric(folder):
    line = "compare.py include=my_ideas.py checkpoint=runs/mine samplers=[euler_sigma,ddim] evaluations=[5]"
    printed = succeeded(f"{line} num_samples=200 rerun=false hydra.run.dir=compared", folder)
    assert re.search(r"^  euler_sigma +5 +5 ", printed, re.M) and "mean gap: mean gap" in printed
    trials = json.loads((folder / "compared/compare.json").read_text())["trials"]
    assert {trial["sampler"] for trial in trials} == {"euler_sigma", "ddim"} and "mean gap" in trials[0]


@pytest.mark.slow
def test_an_evaluation_has_a_row_of_an_added_metric(folder):
    printed = succeeded("evaluate.py include=my_ideas.py checkpoint=runs/mine num_samples=200", folder)
    assert re.search(r"^  mean gap +\d", printed, re.M)


@pytest.mark.slow
def test_a_sweep_by_presets_has_an_added_sampler(folder):
    """The processes of joblib know the file by the environment."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    line = (
        "inference.py -m include=my_ideas.py --config-dir presets experiment=euler_sigma,ddim checkpoint=runs/mine"
        " num_samples=50 rerun=false hydra/launcher=joblib hydra.sweep.dir=swept"
    )
    succeeded(line, folder, run=started)
    one, other = (np.load(folder / f"swept/{i}/samples.npy") for i in range(2))
    assert one.shape == other.shape == (50, 2) and not np.array_equal(one, other)


@pytest.mark.parametrize(
    ("line", "last_line", "frame"),
    [
        ("inference.py checkpoint=runs/mine sampler=bad num_samples=20", "ValueError: a mistake of mine", "in bad"),
        (f"train.py model=bad {SMALL} model.hidden=8", "", ""),
        ("train.py model=bad max_steps=2 eval_samples=0 task_name=runs/bad", "KeyError: 'width'", "in network"),
    ],
)
def test_an_error_of_the_file_shows_its_traceback_from_the_line_in_the_file(line, last_line, frame, folder):
    done = command(f"{line} include=[my_ideas.py,bad.py]", folder)
    assert done.returncode == 1
    if not frame:  # an option that the network does not have
        assert "unknown option model.hidden" in done.stderr and "Traceback" not in done.stderr
        return
    lines = [text for text in done.stderr.splitlines() if not text.startswith("sampling")]
    assert lines[0] == "Traceback (most recent call last):" and lines[-1] == last_line
    assert lines[1].startswith(f'  File "{folder / "bad.py"}"') and lines[1].endswith(frame)
    assert not (folder / "runs/bad").exists()
