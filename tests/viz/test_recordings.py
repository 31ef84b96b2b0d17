"""Recordings, read back from their files: every number is that of the trajectory."""

import os
import re
import statistics
import subprocess
import sys
import time

import numpy as np
import pytest
import rerun as rr
import torch
from conftest import NO_EVALUATION, SMALL, column, command, python, started
from rerun.chunk import RrdReader
from rerun.components import InterpolationMode

from dataset import Normaliser, make_dataset
from diffusion import exact_denoiser, forward_states
from metrics.bayes import bayes_floor
from model import build_model
from pipeline import Pipeline
from rerun_viz import log_forward_diffusion, log_reverse_diffusion, log_scene
from runtime.randomness import generator
from samplers import State
from samplers.options import SamplingOptions
from schedule import make_scheduler, t_from_step
from viz import replay
from viz import scene as scenes
from viz.colours import noise_colours
from viz.recording.prediction_panel import MIN_SIGNAL
from viz.scene import Loss, Process, Scene
from viz.viewer import recording


def entities(path):
    """The paths of all entities of a recording."""
    return {str(chunk.entity_path) for chunk in RrdReader(path).stream()}


def rgb_of(path, entity):
    """The colour (3,) of the points of an entity at each step."""
    _, colours = column(path, entity, "Points2D:colors")
    return [[c >> 24 & 255, c >> 16 & 255, c >> 8 & 255] for (c,) in colours]


# ---------------------------------------------------------------- arrays of a user


@pytest.fixture(scope="module")
def forward(tmp_path_factory):
    """The recording of a forward process with 40 points and 8 states, two of which are tracked, and the states."""
    rng = np.random.default_rng(0)
    data, trajectory = rng.normal(size=(40, 2)).astype("f"), rng.normal(size=(7, 40, 2)).astype("f")
    path = tmp_path_factory.mktemp("forward") / "a.rrd"
    with recording("test", path, "file") as rec:
        log_forward_diffusion(data, trajectory, [0, 5], rec=rec)
    return path, np.concatenate([data[None], trajectory])


def test_positions_of_a_recording_are_those_of_the_trajectory_bitwise(forward):
    path, states = forward
    steps, positions = column(path, "/forward/points", "Points2D:positions")
    assert steps.tolist() == list(range(8))
    assert np.array_equal(np.stack(positions).astype("f"), states)


def test_positions_of_tracked_points_are_those_of_the_trajectory_bitwise(forward):
    path, states = forward
    _, tracked = column(path, "/forward/tracked", "Points2D:positions")
    assert np.array_equal(np.stack(tracked).astype("f"), states[:, [0, 5]])


def test_without_a_schedule_colours_change_evenly_over_the_states(forward):
    assert np.array_equal(rgb_of(forward[0], "/forward/points"), noise_colours(np.arange(8) / 7))


def test_colours_change_from_green_to_red(forward):
    rgb = rgb_of(forward[0], "/forward/points")
    assert rgb[0][1] > 2 * rgb[0][0]
    assert rgb[-1][0] > 2 * rgb[-1][1]


def test_rerun_finds_no_fault_in_the_file(forward):
    program = os.path.join(os.path.dirname(sys.executable), "rerun")
    done = subprocess.run([program, "rrd", "verify", str(forward[0])], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_recording_leaves_one_file(forward):
    assert os.listdir(forward[0].parent) == ["a.rrd"]


def test_the_steps_of_a_reverse_process_count_from_its_noise(tmp_path):
    states = np.random.default_rng(0).normal(size=(4, 10, 3)).astype("f")
    with recording("test", tmp_path / "r.rrd", "file") as rec:
        log_reverse_diffusion(states, [30, 20, 10, 0], [], data=states[0], rec=rec)
    steps, positions = column(tmp_path / "r.rrd", "/reverse/points", "Points3D:positions")
    assert steps.tolist() == [0, 10, 20, 30]
    assert np.array_equal(np.stack(positions).astype("f"), states)


@pytest.mark.parametrize(
    ("data", "trajectory", "track", "words"),
    [
        (np.zeros((5, 2)), np.zeros((3, 4, 2)), [], "shape"),
        (np.zeros((5, 2)), np.full((3, 5, 2), np.nan), [], "NaN"),
        (np.zeros((5, 4)), np.zeros((3, 5, 4)), [], "2 or 3 coordinates"),
        (np.zeros((5, 2)), np.zeros((3, 5, 2)), [5], "0..4"),
        (np.zeros((5, 2)), np.zeros((3, 5, 2)), [-1], "0..4"),
        (np.full((5, 2), np.inf), np.zeros((3, 5, 2)), [], "infinity"),
        (np.zeros((0, 2)), np.zeros((3, 0, 2)), [], "no points"),
    ],
)
def test_bad_arrays_are_refused_and_leave_no_file(data, trajectory, track, words, tmp_path):
    with pytest.raises(ValueError, match=words), recording("test", tmp_path / "a.rrd", "file") as rec:
        log_forward_diffusion(data, trajectory, track, rec=rec)
    assert os.listdir(tmp_path) == []


@pytest.fixture(scope="module")
def readme(tmp_path_factory):
    """What the calls of the README print, and the folder in which they ran."""
    folder = tmp_path_factory.mktemp("readme")
    code = (
        "from dataset import create_moon_dataset; from diffusion import DiffusionModel\n"
        "from rerun_viz import init_rerun, log_forward_diffusion\n"
        "data = create_moon_dataset(n_samples=50); model = DiffusionModel(num_timesteps=10)\n"
        "trajectory = model.add_noise_trajectory(data)\n"
        "init_rerun('my_visualization')\n"
        "log_forward_diffusion(data, trajectory, track_samples=[0, 10, 20])\n"
    )
    done = python(code, folder)
    assert done.returncode == 0, done.stderr
    return done.stdout, folder


def test_the_calls_of_the_readme_say_how_to_open_the_recording(readme):
    printed, _ = readme
    assert "rerun outputs/my_visualization.rrd" in printed


def test_the_calls_of_the_readme_record_every_step(readme):
    _, folder = readme
    steps, _ = column(folder / "outputs/my_visualization.rrd", "/forward/points", "Points2D:positions")
    assert steps.tolist() == list(range(11))


def test_with_a_display_that_does_not_exist_the_recording_becomes_a_file(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("DISPLAY", ":97")
    with recording("test", tmp_path / "a.rrd", "window") as rec:
        rec.log("x", rr.Points2D([[0, 0]]))
    assert "rerun" in capfd.readouterr().out
    assert (tmp_path / "a.rrd").stat().st_size > 0


# ---------------------------------------------------------------- the whole scene

KEPT = [0, 1, 8, 15, 20]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The recording of a scene with everything in it, for the exact denoiser, and the scene."""
    scheduler, real = make_scheduler("linear", 20), make_dataset("moons", 60, 1, noise=0.05)
    x = torch.from_numpy(real.points)
    states = [State(t_from_step(n), x + n, x - 1) for n in reversed(KEPT)]
    tracked = np.array([0, 7])
    reverse, predictions, _ = replay.reverse(states, slice(None), tracked)
    processes = [replay.forward(scheduler, real.points, KEPT, 0), reverse]
    exact = exact_denoiser(real.mixture, scheduler)
    scene = Scene(
        processes,
        data=real.points,
        alpha_bar=scheduler.alpha_bar,
        fields=[replay.field(name, exact, KEPT, 2) for name in ("network", "exact")],
        predictions=(reverse.states[:, tracked], predictions),
        distance=replay.distance(processes, real.points, np.array([0.1, 0.2])),
        loss=Loss(np.array([10.0, 20.0]), np.array([0.5, 0.3]), 0.2),
        normalised=True,
    )
    path = tmp_path_factory.mktemp("scene") / "a.rrd"
    with recording("test", path, "file") as rec:
        log_scene(scene, [0, 7], rec=rec)
    return path, scene


every_side = pytest.mark.parametrize(("side", "i", "sign"), [("forward", 0, 1), ("reverse", 1, -1)])


@every_side
def test_on_the_clock_t_both_processes_are_at_equal_noise(whole, side, i, sign):
    path, scene = whole
    process = scene.processes[i]
    t, positions = column(path, f"/{side}/points", "Points2D:positions", "t")
    assert t.tolist() == KEPT
    assert np.array_equal(np.stack(positions).astype("f"), process.states[np.argsort(process.steps)])


def test_on_the_clock_step_the_reverse_process_begins_at_0(whole):
    steps, _ = column(whole[0], "/reverse/points", "Points2D:positions")
    assert steps.tolist() == [0, 5, 12, 19, 20]


def seconds_of(path, side):
    nanoseconds, _ = column(path, f"/{side}/points", "Points2D:positions", "time")
    return nanoseconds / 1e9


@every_side
def test_every_process_takes_ten_seconds(whole, side, i, sign):
    seconds = seconds_of(whole[0], side)
    assert seconds[0] == 0
    assert seconds[-1] == pytest.approx(10)


@every_side
def test_visible_steps_are_even_in_log_snr(whole, side, i, sign):
    # 1 and 8 forward steps lie between the ends of what can be seen. Their distance in time is that in log-SNR.
    path, scene = whole
    log_snr = make_scheduler("linear", 20).log_snr.numpy()
    at = dict(zip(KEPT[::sign], seconds_of(path, side)))
    pace = 10 / np.ptp(scenes.clock(scene.alpha_bar))
    assert at[8] - at[1] == pytest.approx(sign * pace * (log_snr[0] - log_snr[7]), rel=1e-6)


def test_the_last_picture_is_held_for_two_seconds(whole):
    times, texts = column(whole[0], "/now", "TextDocument:text", "time")
    assert times[-1] == 12e9
    assert texts[-1] == texts[-2]


@every_side
def test_with_a_schedule_the_colour_is_the_amount_of_noise(whole, side, i, sign):
    path, scene = whole
    expected = noise_colours(np.sqrt(1 - scene.alpha_bar[scene.processes[i].steps]))
    assert np.array_equal(rgb_of(path, f"/{side}/points"), expected)


@pytest.mark.parametrize("clock", ["step", "t"])
def test_the_floor_is_drawn_as_mean_and_band(whole, clock):
    times, values = column(whole[0], "/distance/floor", "Scalars:scalars", clock)
    assert times.tolist() == [0, 20]
    for row in values:
        assert row.tolist() == pytest.approx([0.15, 0.105, 0.195])  # mean, 5 % and 95 % of 0.1 and 0.2


def test_the_text_about_each_moment_says_what_the_held_curve_shows(whole):
    """Data and noise of the forward process, read at each text and from the curve of the schedule."""
    path, _ = whole
    times, texts = column(path, "/now", "TextDocument:text", "time")
    begun, signal = column(path, "/schedule/signal", "Scalars:scalars", "time")
    for moment, (text,) in zip(times, texts):
        shown = float(np.ravel(signal[np.searchsorted(begun, moment, "right") - 1])[0])
        said = float(re.search(r"\*\*forward\*\*.*?([\d.]+) data", text, re.DOTALL)[1])
        assert said == pytest.approx(shown, abs=0.005)


def test_curves_of_processes_hold_each_value_until_the_next(whole):
    path, _ = whole
    for entity in ("/schedule/signal", "/distance/forward"):
        chunks = RrdReader(path).stream().filter(content=entity, is_static=True)
        modes = [
            value
            for chunk in chunks
            for name, values in chunk.to_record_batch().to_pydict().items()
            if "interpolation" in name
            for value in values
        ]
        assert modes and modes[0] == [InterpolationMode.StepAfter.value]


@pytest.fixture(scope="module")
def arrows(whole):
    """The arrows to predictions of x_0: their steps t, origins and vectors."""
    t, vectors = column(whole[0], "/reverse/prediction", "Arrows2D:vectors", "t")
    _, origins = column(whole[0], "/reverse/prediction", "Arrows2D:origins", "t")
    return t, origins, vectors


def test_arrows_lead_from_points_to_their_predictions_of_x_0(whole, arrows):
    _, scene = whole
    where, predictions = (array[::-1] for array in scene.predictions)
    for i, (n, origin, vector) in enumerate(zip(*arrows)):
        if scene.alpha_bar[n] >= MIN_SIGNAL:
            assert np.allclose(origin, where[i])
            assert np.allclose(origin + vector, predictions[i], atol=1e-5)


def test_without_a_signal_there_are_no_arrows(whole, arrows):
    _, scene = whole
    t, _, vectors = arrows
    for n, vector in zip(t, vectors):
        if scene.alpha_bar[n] < MIN_SIGNAL:
            assert len(vector) == 0


def test_there_are_arrows_for_tracked_points_at_the_end_and_none_at_the_beginning(arrows):
    _, _, vectors = arrows
    assert len(vectors[0]) == 2
    assert len(vectors[-1]) == 0


@pytest.fixture(scope="module")
def score_arrows(whole):
    """The arrows of the exact score: their steps t and vectors."""
    return column(whole[0], "/score/exact", "Arrows2D:vectors", "t")


def test_the_score_field_has_arrows_at_every_noisy_step(score_arrows):
    t, _ = score_arrows
    assert t.tolist() == KEPT[1:]


def test_arrows_of_the_score_field_have_the_direction_of_the_score(whole, score_arrows):
    _, scene = whole
    mixture, origins = make_dataset("moons", 1, 0, noise=0.05).mixture, torch.from_numpy(scene.fields[0].origins)
    scheduler = make_scheduler("linear", 20)
    for n, vectors in zip(*score_arrows):
        score = mixture.noised(*scheduler.alpha_sigma_at(n - 1)).score(origins).numpy()
        cosine = (vectors * score).sum(-1) / np.linalg.norm(vectors, axis=-1) / np.linalg.norm(score, axis=-1)
        assert cosine.min() > 0.999


def test_arrows_of_the_score_field_do_not_reach_beyond_the_next_origin(score_arrows):
    _, all_vectors = score_arrows
    for vectors in all_vectors:
        assert np.linalg.norm(vectors, axis=-1).max() <= 2 * replay.FIELD_RANGE / (replay.ARROWS_PER_SIDE[2] - 1)


def readout(path, clock):
    """The text about each moment on a clock."""
    found = {}
    for chunk in RrdReader(path).stream().filter(content="/now", is_static=False):
        batch = chunk.to_record_batch()
        if clock in batch.schema.names:
            texts = batch.column("TextDocument:text").to_pylist()
            found |= dict(zip(batch.column(clock).to_pylist(), [text[0] for text in texts]))
    return found


@pytest.mark.parametrize(("clock", "moments"), [("step", [0, 1, 5, 8, 12, 15, 19, 20, 24]), ("t", [*KEPT, 24])])
def test_the_text_about_a_moment_is_on_both_clocks(whole, clock, moments):
    assert sorted(readout(whole[0], clock)) == moments


@pytest.mark.parametrize("clock", ["step", "t"])
def test_the_text_about_a_moment_names_the_clock(whole, clock):
    assert f"{clock} 0 of 20" in readout(whole[0], clock)[0]


@pytest.mark.parametrize("clock", ["step", "t"])
def test_the_text_about_the_last_moment_is_held(whole, clock):
    found = readout(whole[0], clock)
    assert found[20] == found[24]


@pytest.mark.parametrize(("clock", "named"), [("step", True), ("t", False)])
def test_the_text_names_forward_steps_on_the_clock_step_only(whole, clock, named):
    assert ("20 forward steps" in readout(whole[0], clock)[0]) == named


@pytest.fixture(scope="module")
def in_space(tmp_path_factory):
    """The recording of ten points in three dimensions, and their states."""
    states = np.random.default_rng(0).normal(size=(4, 10, 3)).astype("f")
    path = tmp_path_factory.mktemp("space") / "r.rrd"
    with recording("test", path, "file") as rec:
        log_forward_diffusion(states[0], states[1:], [0], rec=rec)
    return path, states


def test_positions_in_three_dimensions_are_those_of_the_trajectory(in_space):
    path, states = in_space
    _, positions = column(path, "/forward/points", "Points3D:positions")
    assert np.array_equal(np.stack(positions).astype("f"), states)


def test_a_recording_in_three_dimensions_has_the_data_and_no_paths(in_space):
    names = entities(in_space[0])
    assert "/forward/data" in names
    assert not any("paths" in name for name in names)


def test_a_recording_without_tracked_points_has_no_entity_for_them(tmp_path):
    with recording("test", tmp_path / "r.rrd", "file") as rec:
        log_forward_diffusion(np.zeros((5, 2)), np.zeros((3, 5, 2)), [], rec=rec)
    names = entities(tmp_path / "r.rrd")
    assert "/forward/points" in names
    assert "/forward/tracked" not in names


# ---------------------------------------------------------------- the forward process over several steps at a time


@pytest.fixture(scope="module")
def thinned_chain():
    """200,000 chains from x_0 = 2: the states after 0, 10 and 25 steps, and alpha_bar."""
    scheduler = make_scheduler("linear", 50)
    x_0 = torch.full((200_000, 1), 2.0, dtype=torch.float64)
    states = forward_states(scheduler, x_0, [0, 10, 25], generator(0, "test"))
    return dict(zip([0, 10, 25], states)), scheduler.alpha_bar


def test_a_thinned_chain_begins_at_the_data(thinned_chain):
    states, _ = thinned_chain
    assert torch.equal(states[0], torch.full((200_000, 1), 2.0, dtype=torch.float64))


@pytest.mark.parametrize("k", [10, 25])
def test_a_thinned_chain_has_the_moments_of_eq_4(thinned_chain, k):
    states, alpha_bar = thinned_chain
    assert float(states[k].mean()) == pytest.approx(2 * alpha_bar[k] ** 0.5, abs=0.01)
    assert float(states[k].var()) == pytest.approx(1 - alpha_bar[k], rel=0.02)


def test_a_thinned_chain_has_the_covariance_of_the_whole_chain(thinned_chain):
    # The later state has the share sqrt(alpha_bar_25 / alpha_bar_10) of the earlier one.
    states, alpha_bar = thinned_chain
    x_10, x_25 = states[10], states[25]
    covariance = float(((x_10 - x_10.mean()) * (x_25 - x_25.mean())).mean())
    assert covariance == pytest.approx((alpha_bar[25] / alpha_bar[10]) ** 0.5 * (1 - alpha_bar[10]), rel=0.03)


# ---------------------------------------------------------------- conditional points

NORMALISER = Normaliser(torch.tensor([1.0, -1.0]), torch.tensor([2.0, 4.0]))


def conditional(dataset, **config):
    """An untrained conditional pipeline of points with labels, and 400 real points."""
    torch.manual_seed(0)
    config = {"dataset": dataset, "loss_weight": "eps", "label_dropout": 0.25, "model": {"prediction": "eps"}, **config}
    net = build_model("mlp", (2,), num_timesteps=50, num_labels=2, hidden=8, layers=1, frequencies=1)
    real = make_dataset(n_samples=400, seed=0, **dataset)
    return Pipeline(net.eval(), make_scheduler("linear", 50), NORMALISER, config, real.classes), real


TWO_GAUSSIANS = {"name": "gaussians", "modes": 2, "noise": 0.3}


@pytest.fixture(scope="module")
def floors():
    """For two labels with a Gaussian each: the floor of the conditional loss, and those with and without a label.

    For a Gaussian of variance v, E[Var(eps | x_t)] = alpha^2 v / (alpha^2 v + sigma^2).
    """
    pipeline, real = conditional(TWO_GAUSSIANS)
    scheduler = pipeline.scheduler
    assert [len(part.centres) for part in real.parts] == [1, 1]
    v = torch.full((2,), 0.3**2, dtype=torch.float64) / NORMALISER.std.square()
    signal = scheduler.alpha.square()[:, None] * v
    with_label = float((signal / (signal + scheduler.sigma.square()[:, None])).mean())
    without_label = bayes_floor(real.mixture.scaled(NORMALISER.mean, NORMALISER.std), scheduler)
    return replay.loss_floor(pipeline, real), with_label, without_label


def test_the_floor_of_a_conditional_loss_is_the_mean_over_rows_with_and_without_labels(floors):
    found, with_label, without_label = floors
    assert found == pytest.approx(0.75 * with_label + 0.25 * without_label, rel=1e-3)


def test_the_floor_with_a_label_is_below_that_without(floors):
    _, with_label, without_label = floors
    assert with_label < 0.95 * without_label


def test_a_loss_with_another_weight_than_eps_has_no_floor():
    _, real = conditional(TWO_GAUSSIANS)
    assert replay.loss_floor(conditional({"name": "moons", "noise": 0.1}, loss_weight="v")[0], real) is None


def test_the_default_weight_of_the_loss_has_the_floor_of_eps():
    # train.py saves None if no weight is asked for.
    pipeline, real = conditional(TWO_GAUSSIANS, loss_weight=None)
    assert replay.loss_floor(pipeline, real) == replay.loss_floor(conditional(TWO_GAUSSIANS)[0], real) is not None


LOWER_MOON = 1


def test_real_points_of_a_label_are_those_of_its_part():
    real, other = replay.real_sets({"name": "moons", "noise": 0.01}, 300, 0, np.array([LOWER_MOON]))
    assert len(real) == len(other) == 300
    assert set(real.labels) == {LOWER_MOON}
    assert max(real.points[:, 1].max(), other[:, 1].max()) < 0.6


def test_real_points_without_a_chosen_label_have_every_label():
    both, _ = replay.real_sets({"name": "moons", "noise": 0.01}, 300, 0)
    assert len(both) == 300
    assert set(both.labels) == {0, 1}


LABELS = np.arange(40) % 2


@pytest.fixture(scope="module")
def guided(tmp_path_factory):
    """The recording of guided conditional samples, its scene, the pipeline and real points."""
    folder = tmp_path_factory.mktemp("guided")
    pipeline, real = conditional({"name": "moons", "noise": 0.1})
    states = np.random.default_rng(0).normal(size=(3, 40, 2)).astype("f")
    process = Process("reverse", states, np.array([50, 20, 0]))
    sampling = SamplingOptions(guidance=1.0, guidance_interval=(0.2, 2.0))
    options = {"labels": LABELS, "tracked": np.arange(4), "seed": 0, "options": sampling}
    scene = replay.reverse_scene(pipeline, process, states[:, :4], folder, **options)
    with recording("test", folder / "a.rrd", "file") as rec:
        log_scene(scene, range(4), rec=rec)
    return folder / "a.rrd", scene, pipeline, real


def test_a_guided_scene_names_its_guidance(guided):
    _, scene, _, _ = guided
    assert scene.guidance_text == "guidance 1 at sigma/alpha 0.2 .. 2"


def test_a_conditional_scene_has_score_fields_for_each_label(guided):
    _, scene, _, _ = guided
    assert [(f.name, f.label) for f in scene.fields] == [(n, k) for k in (0, 1) for n in ("network", "exact")]


@pytest.mark.parametrize("label", [0, 1])
def test_points_of_each_label_have_an_entity_of_their_own(guided, label):
    path, scene, _, _ = guided
    _, positions = column(path, f"/reverse/points/{label}", "Points2D:positions")
    assert np.array_equal(np.stack(positions).astype("f"), scene.processes[-1].states[:, label == LABELS])


def test_outside_of_the_guidance_interval_the_exact_score_is_that_of_the_label_alone(guided):
    # At t = 49 there is too much noise to guide.
    path, scene, pipeline, real = guided
    t, vectors = column(path, "/score/exact/1", "Arrows2D:vectors", "t")
    part = real.parts[1].scaled(NORMALISER.mean, NORMALISER.std)
    score = part.noised(*pipeline.scheduler.alpha_sigma_at(49)).score(torch.from_numpy(scene.fields[3].origins))
    cosine = (np.stack(vectors)[-1] * score.numpy()).sum(-1)
    assert t[-1] == 50
    assert (cosine > 0).all()


@pytest.mark.parametrize("words", ["Score for label 0", "Reverse: noise to data, guidance 1"])
def test_the_panels_of_a_guided_recording_name_label_and_guidance(guided, words):
    assert words in str(names_in_layout(guided[0]))


def names_in_layout(path):
    """All names in the layout of a recording."""
    found = []
    reader = RrdReader(path)
    for store in reader.blueprints():
        for chunk in reader.stream(store=store):
            batch = chunk.to_record_batch()
            found += [str(batch.column(name).to_pylist()) for name in batch.schema.names if "display_name" in name]
    return found


# ---------------------------------------------------------------- what it costs


def write_raw(states, path):
    """Write the points alone, with rerun's own call for columns, in pieces of 2 MiB."""
    with recording("raw", path, "file") as rec:
        rows = max(1, (2 << 20) // states[0].nbytes)
        for first in range(0, len(states), rows):
            part = states[first : first + rows]
            columns = rr.Points2D.columns(positions=part.reshape(-1, 2)).partition([states.shape[1]] * len(part))
            index = rr.TimeColumn("step", sequence=np.arange(first, first + len(part)))
            rec.send_columns("points", indexes=[index], columns=columns)


def write_scene(states, path):
    with recording("scene", path, "file") as rec:
        log_scene(Scene([Process("forward", states, np.arange(len(states)))]), range(6), rec=rec)


def seconds(write, states, path):
    began = time.process_time()
    write(states, path)
    return time.process_time() - began


@pytest.fixture(scope="module")
def cost_of_many_points(tmp_path_factory):
    """Median seconds of CPU for the raw points and for a scene, and the bytes of the scene's file and of the states."""
    folder = tmp_path_factory.mktemp("cost")
    states = np.random.default_rng(0).normal(size=(101, 100_000, 2)).astype("f")
    raw, ours = [], []
    for _ in range(3):  # The two take turns, so that the machine's load affects both.
        raw.append(seconds(write_raw, states, folder / "raw.rrd"))
        ours.append(seconds(write_scene, states, folder / "ours.rrd"))
    print(f"raw {raw}, ours {ours}, ratio {statistics.median(ours) / statistics.median(raw):.2f}")
    return statistics.median(raw), statistics.median(ours), (folder / "ours.rrd").stat().st_size, states.nbytes


def test_the_file_of_many_points_is_little_larger_than_their_bytes(cost_of_many_points):
    _, _, size, states_size = cost_of_many_points
    assert size <= 1.3 * states_size


def test_recording_many_points_takes_at_most_twice_the_time_of_rerun_alone(cost_of_many_points):
    raw, ours, _, _ = cost_of_many_points
    assert ours <= 2 * raw + 0.1


def test_recording_many_points_takes_less_than_two_seconds(cost_of_many_points):
    _, ours, _, _ = cost_of_many_points
    assert ours < 2


@pytest.mark.slow  # two new interpreters with up to 300 states of 50,000 points
def test_memory_does_not_grow_with_the_number_of_steps(tmp_path):
    code = (
        "import resource, numpy as np; from viz.scene import Process, Scene\n"
        "from rerun_viz import log_scene; from viz.viewer import recording\n"
        "states = np.random.default_rng(0).random((STEPS, 50_000, 2), 'f')\n"
        "def record():\n"
        "    with recording('test', 'a.rrd', 'file') as rec:\n"
        "        log_scene(Scene([Process('forward', states, np.arange(len(states)))]), rec=rec)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "record(); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    said = [started(["-c", code.replace("STEPS", str(steps))], tmp_path).stdout for steps in (50, 300)]
    grown = [int(each.splitlines()[-1]) / 1024 for each in said]
    print(f"MiB beyond the trajectory: {grown}")
    assert grown[1] < grown[0] + 30  # The trajectory itself has grown by 95 MiB.


def test_the_file_of_a_default_scene_is_small(tmp_path):
    states = np.random.default_rng(0).normal(size=(101, 2000, 2)).astype("f")
    write_scene(states, tmp_path / "a.rrd")
    assert (tmp_path / "a.rrd").stat().st_size <= 1.3 * states.nbytes


# ---------------------------------------------------------------- a training


@pytest.fixture(scope="module")
def recorded_training(tmp_path_factory):
    """What a recorded training prints, and its run folder. Its options are those of the fixture `run`."""
    folder = tmp_path_factory.mktemp("training")
    line = f"train.py {SMALL} {NO_EVALUATION} max_steps=300 checkpoint_every=100 record=true task_name=seen"
    done = command(line, folder)
    assert done.returncode == 0, done.stderr
    return done.stdout, folder / "seen"


@pytest.mark.slow
def test_a_recorded_training_says_how_to_open_the_recording(recorded_training):
    printed, _ = recorded_training
    assert "rerun seen/training.rrd" in printed


@pytest.mark.slow
def test_a_recorded_training_has_the_weights_of_an_unrecorded_one(recorded_training, run):
    _, folder = recorded_training
    ours, theirs = (torch.load(each / "last.pt", weights_only=True)["ema"] for each in (folder, run))
    assert all(torch.equal(theirs[key], ours[key]) for key in theirs)


@pytest.fixture(scope="module")
def samples_of_training(recorded_training):
    """The steps of a training at which samples are recorded, and the samples."""
    _, folder = recorded_training
    return column(folder / "training.rrd", "/training/samples", "Points2D:positions", "train_step")


def test_samples_of_a_training_are_recorded_from_its_first_to_its_last_step(samples_of_training):
    steps, _ = samples_of_training
    assert steps[0] == 0
    assert steps[1] == 1
    assert steps[-1] == 300
    assert len(steps) > 20


def test_samples_of_a_training_have_the_same_noise(samples_of_training):
    # Therefore late samples resemble each other point by point.
    _, clouds = samples_of_training
    first, last_but_one = (np.linalg.norm(cloud - clouds[-1], axis=1).mean() for cloud in (clouds[0], clouds[-2]))
    assert last_but_one < 0.5 * first


@pytest.mark.slow
def test_the_recorded_distance_falls_during_a_training(recorded_training):
    _, folder = recorded_training
    _, values = column(folder / "training.rrd", "/distance/samples", "Scalars:scalars", "train_step")
    assert values[-1][0] < 0.6 * values[0][0]


@pytest.mark.slow
def test_the_loss_is_recorded_up_to_the_last_step(recorded_training):
    _, folder = recorded_training
    steps, _ = column(folder / "training.rrd", "/loss/training", "Scalars:scalars", "train_step")
    assert 300 in steps
