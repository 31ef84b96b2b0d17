"""Recordings read back from the file: every number is the trajectory's own."""

import os
import statistics
import subprocess
import sys
import time

import numpy as np
import pytest
import rerun as rr
import torch
from conftest import NO_EVALUATION, SMALL, command, python, started
from rerun.chunk import RrdReader

from dataset import Normaliser, make_dataset
from diffusion import exact_denoiser, forward_states
from metrics.bayes import bayes_floor
from model import build_model
from pipeline import Pipeline
from rerun_viz import log_forward_diffusion, log_reverse_diffusion, log_scene
from runtime.randomness import generator
from samplers import State
from samplers.options import SamplingOptions
from schedule import make_scheduler, t_of
from viz import replay
from viz import scene as scenes
from viz.colours import noise_colours
from viz.recording.prediction_panel import LEAST_SIGNAL
from viz.scene import Loss, Process, Scene
from viz.viewer import recording


def column(path, entity, component, clock="step"):
    """(step, values per row) of one component, in order of time."""
    steps, values = [], []
    for chunk in RrdReader(path).stream().filter(content=entity, is_static=False, components=component):
        batch = chunk.to_record_batch()
        if clock not in batch.schema.names:
            continue
        steps += batch.column(clock).to_numpy().tolist()  # of a clock in seconds: nanoseconds
        values += batch.column(component).to_pylist()
    order = np.argsort(steps)
    return np.array(steps)[order], [np.array(values[i]) for i in order]


@pytest.fixture
def forward(tmp_path):
    rng = np.random.default_rng(0)
    data, trajectory = rng.normal(size=(40, 2)).astype("f"), rng.normal(size=(7, 40, 2)).astype("f")
    with recording("test", tmp_path / "a.rrd", "file") as rec:
        log_forward_diffusion(data, trajectory, [0, 5], rec=rec)
    return tmp_path / "a.rrd", np.concatenate([data[None], trajectory])


def test_positions_are_bit_identical(forward):
    path, states = forward
    steps, positions = column(path, "/forward/points", "Points2D:positions")
    assert steps.tolist() == list(range(8))
    assert np.array_equal(np.stack(positions).astype("f"), states)
    _, tracked = column(path, "/forward/tracked", "Points2D:positions")
    assert np.array_equal(np.stack(tracked).astype("f"), states[:, [0, 5]])


def test_colours_go_from_green_to_red(forward):
    _, colours = column(forward[0], "/forward/points", "Points2D:colors")
    rgb = [[c >> 24 & 255, c >> 16 & 255, c >> 8 & 255] for (c,) in colours]
    assert np.array_equal(rgb, noise_colours(np.arange(8) / 7))  # no schedule is known: the share of the way
    assert rgb[0][1] > 2 * rgb[0][0] and rgb[-1][0] > 2 * rgb[-1][1]


def test_the_file_is_sound(forward):
    done = subprocess.run(
        [os.path.join(os.path.dirname(sys.executable), "rerun"), "rrd", "verify", str(forward[0])],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert os.listdir(forward[0].parent) == ["a.rrd"]


def test_reverse_runs_on_two_clocks(tmp_path):
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
def test_bad_input_is_named_and_leaves_no_file(data, trajectory, track, words, tmp_path):
    with pytest.raises(ValueError, match=words), recording("test", tmp_path / "a.rrd", "file") as rec:
        log_forward_diffusion(data, trajectory, track, rec=rec)
    assert os.listdir(tmp_path) == []


def test_the_calls_of_the_readme(tmp_path):
    code = (
        "from dataset import create_moon_dataset; from diffusion import DiffusionModel\n"
        "from rerun_viz import init_rerun, log_forward_diffusion\n"
        "data = create_moon_dataset(n_samples=50); model = DiffusionModel(num_timesteps=10)\n"
        "trajectory = model.add_noise_trajectory(data)\n"
        "init_rerun('my_visualization')\n"
        "log_forward_diffusion(data, trajectory, track_samples=[0, 10, 20])\n"
    )
    done = python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "rerun outputs/my_visualization.rrd" in done.stdout
    steps, _ = column(tmp_path / "outputs/my_visualization.rrd", "/forward/points", "Points2D:positions")
    assert steps.tolist() == list(range(11))


def test_a_display_that_points_nowhere_loses_nothing(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("DISPLAY", ":97")
    with recording("test", tmp_path / "a.rrd", "window") as rec:
        rec.log("x", rr.Points2D([[0, 0]]))
    assert "rerun" in capfd.readouterr().out
    assert (tmp_path / "a.rrd").stat().st_size > 0


# ---------------------------------------------------------------- the whole scene

KEPT = [0, 1, 8, 15, 20]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A scene with everything in it, for the exact denoiser, and its recording."""
    scheduler, real = make_scheduler("linear", 20), make_dataset("moons", 60, 1, noise=0.05)
    x = torch.from_numpy(real.points)
    states, tracked = [State(t_of(n), x + n, x - 1) for n in reversed(KEPT)], np.array([0, 7])
    reverse, guesses, _ = replay.reverse(states, slice(None), tracked)
    processes, exact = (
        [replay.forward(scheduler, real.points, KEPT, 0), reverse],
        exact_denoiser(real.mixture, scheduler),
    )
    scene = Scene(
        processes,
        data=real.points,
        alpha_bar=scheduler.alpha_bar,
        fields=[replay.field(name, exact, KEPT, 2) for name in ("network", "exact")],
        guesses=(reverse.states[:, tracked], guesses),
        distance=replay.distance(processes, real.points, np.array([0.1, 0.2])),
        loss=Loss(np.array([10.0, 20.0]), np.array([0.5, 0.3]), 0.2),
        normalised=True,
    )
    path = tmp_path_factory.mktemp("scene") / "a.rrd"
    with recording("test", path, "file") as rec:
        log_scene(scene, [0, 7], rec=rec)
    return path, scene


def test_both_sides_stand_at_equal_noise_on_the_clock_t(whole):
    path, scene = whole
    for side, process in zip(("forward", "reverse"), scene.processes):
        t, positions = column(path, f"/{side}/points", "Points2D:positions", "t")
        order = np.argsort(process.steps)
        assert t.tolist() == KEPT
        assert np.array_equal(np.stack(positions).astype("f"), process.states[order])
    steps, _ = column(path, "/reverse/points", "Points2D:positions")
    assert steps.tolist() == [0, 5, 12, 19, 20]


def test_every_process_takes_ten_seconds_evenly_in_log_snr(whole):
    path, scene = whole
    log_snr = make_scheduler("linear", 20).log_snr.numpy()
    for side, sign in (("forward", 1), ("reverse", -1)):
        seconds, _ = column(path, f"/{side}/points", "Points2D:positions", "time")
        seconds = seconds / 1e9
        assert seconds[0] == 0 and seconds[-1] == pytest.approx(10)
        at = dict(zip(KEPT[::sign], seconds))
        # 1 and 8 forward steps lie between the ends of what can be seen: as far apart as their log-SNR
        pace = 10 / np.ptp(scenes.clock(scene.alpha_bar))
        assert at[8] - at[1] == pytest.approx(sign * pace * (log_snr[0] - log_snr[7]), rel=1e-6)
    times, texts = column(path, "/now", "TextDocument:text", "time")
    assert times[-1] == 12e9  # the last picture is held
    assert texts[-1] == texts[-2]


def test_colour_is_the_noise_and_not_the_share_of_the_way(whole):
    path, scene = whole
    for side, process in zip(("forward", "reverse"), scene.processes):
        _, colours = column(path, f"/{side}/points", "Points2D:colors")
        rgb = [[c >> 24 & 255, c >> 16 & 255, c >> 8 & 255] for (c,) in colours]
        assert np.array_equal(rgb, noise_colours(np.sqrt(1 - scene.alpha_bar[process.steps])))


def test_the_floor_is_drawn_as_mean_and_band(whole):
    path, _ = whole
    for clock_name, ends in (("step", [0, 20]), ("t", [0, 20])):
        steps, values = column(path, "/distance/floor", "Scalars:scalars", clock_name)
        assert steps.tolist() == ends
        for row in values:
            assert row.tolist() == pytest.approx([0.15, 0.105, 0.195])  # of 0.1 and 0.2: mean, 5 % and 95 %


def test_guesses_lead_to_x_0_and_are_blank_without_signal(whole):
    path, scene = whole
    t, vectors = column(path, "/reverse/guess", "Arrows2D:vectors", "t")
    _, origins = column(path, "/reverse/guess", "Arrows2D:origins", "t")
    where, guess = (array[::-1] for array in scene.guesses)
    for i, n in enumerate(t):
        if scene.alpha_bar[n] < LEAST_SIGNAL:
            assert len(vectors[i]) == 0
        else:
            assert np.allclose(origins[i] + vectors[i], guess[i], atol=1e-5) and np.allclose(origins[i], where[i])
    assert len(vectors[-1]) == 0 and len(vectors[0]) == 2


def test_the_score_field_points_uphill(whole):
    path, scene = whole
    mixture, field = make_dataset("moons", 1, 0, noise=0.05).mixture, scene.fields[0]
    scheduler = make_scheduler("linear", 20)
    t, vectors = column(path, "/score/exact", "Arrows2D:vectors", "t")
    assert t.tolist() == KEPT[1:]
    for i, n in enumerate(t):
        score = mixture.noised(*scheduler.alpha_sigma_at(n - 1)).score(torch.from_numpy(field.origins)).numpy()
        cosine = (vectors[i] * score).sum(-1) / np.linalg.norm(vectors[i], axis=-1) / np.linalg.norm(score, axis=-1)
        assert cosine.min() > 0.999
        assert np.linalg.norm(vectors[i], axis=-1).max() <= 2 * replay.REACH / (replay.PER_SIDE[2] - 1)


def test_the_readout_runs_on_both_clocks_and_holds_the_last_picture(whole):
    for clock, moments in (("step", [0, 1, 5, 8, 12, 15, 19, 20, 24]), ("t", [*KEPT, 24])):
        found = {}
        for chunk in RrdReader(whole[0]).stream().filter(content="/now", is_static=False):
            batch = chunk.to_record_batch()
            if clock in batch.schema.names:
                texts = batch.column("TextDocument:text").to_pylist()
                found |= dict(zip(batch.column(clock).to_pylist(), [text[0] for text in texts]))
        assert sorted(found) == moments
        assert f"{clock} 0 of 20" in found[0] and found[20] == found[24]
        assert ("20 forward steps" in found[0]) == (clock == "step")


def test_three_dimensions_get_a_scene_of_three(tmp_path):
    states = np.random.default_rng(0).normal(size=(4, 10, 3)).astype("f")
    with recording("test", tmp_path / "r.rrd", "file") as rec:
        log_forward_diffusion(states[0], states[1:], [0], rec=rec)
    _, positions = column(tmp_path / "r.rrd", "/forward/points", "Points3D:positions")
    assert np.array_equal(np.stack(positions).astype("f"), states)
    entities = {str(chunk.entity_path) for chunk in RrdReader(tmp_path / "r.rrd").stream()}
    assert "/forward/data" in entities and not any("paths" in name for name in entities)


def test_no_tracked_samples_leave_no_trace(tmp_path):
    with recording("test", tmp_path / "r.rrd", "file") as rec:
        log_forward_diffusion(np.zeros((5, 2)), np.zeros((3, 5, 2)), [], rec=rec)
    entities = {str(chunk.entity_path) for chunk in RrdReader(tmp_path / "r.rrd").stream()}
    assert "/forward/points" in entities and "/forward/tracked" not in entities


def test_strides_over_several_steps_are_the_same_chain():
    """Mean and covariance over time of the thinned chain against eq. 4: the share of x_0 and of the earlier state."""
    scheduler, n = make_scheduler("linear", 50), 200_000
    x_0 = torch.full((n, 1), 2.0, dtype=torch.float64)
    clean, x_10, x_25 = forward_states(scheduler, x_0, [0, 10, 25], generator(0, "test"))
    left = scheduler.alpha_bar
    assert torch.equal(clean, x_0)
    for x, k in ((x_10, 10), (x_25, 25)):
        assert float(x.mean()) == pytest.approx(2 * left[k] ** 0.5, abs=0.01)
        assert float(x.var()) == pytest.approx(1 - left[k], rel=0.02)
    covariance = float(((x_10 - x_10.mean()) * (x_25 - x_25.mean())).mean())
    assert covariance == pytest.approx((left[25] / left[10]) ** 0.5 * (1 - left[10]), rel=0.03)


# ---------------------------------------------------------------- conditional points

NORMALISER = Normaliser(torch.tensor([1.0, -1.0]), torch.tensor([2.0, 4.0]))


def conditional(dataset, **config):
    """A conditional model that knows nothing, of points with labels."""
    torch.manual_seed(0)
    config = {"dataset": dataset, "loss_weight": "eps", "label_dropout": 0.25, "model": {"prediction": "eps"}, **config}
    net, real = build_model("mlp", (2,), num_timesteps=50, num_labels=2, hidden=8, layers=1, frequencies=1), None
    real = make_dataset(n_samples=400, seed=0, **dataset)
    return Pipeline(net.eval(), make_scheduler("linear", 50), NORMALISER, config, real.classes), real


def test_the_floor_of_a_conditional_loss_is_that_of_its_labels():
    """One Gaussian a label, of variance v: E[Var(eps | x_t)] = alpha^2 v / (alpha^2 v + sigma^2), in closed form."""
    pipeline, real = conditional({"name": "gaussians", "modes": 2, "noise": 0.3})
    scheduler = pipeline.scheduler
    of_label = np.zeros(2)
    for k, part in enumerate(real.parts):
        assert len(part.centres) == 1
        v = torch.full((2,), 0.3**2, dtype=torch.float64) / NORMALISER.std.square()
        signal = scheduler.alpha.square()[:, None] * v
        of_label[k] = float((signal / (signal + scheduler.sigma.square()[:, None])).mean())
    whole = bayes_floor(real.mixture.scaled(NORMALISER.mean, NORMALISER.std), scheduler)
    assert replay.loss_floor(pipeline, real) == pytest.approx(0.75 * of_label.mean() + 0.25 * whole, rel=1e-3)
    assert of_label.mean() < 0.95 * whole  # what was drawn before: bars below 0
    assert replay.loss_floor(conditional({"name": "moons", "noise": 0.1}, loss_weight="v")[0], real) is None


def test_the_default_weight_of_the_loss_has_its_floor():
    dataset = {"name": "gaussians", "modes": 2, "noise": 0.3}
    pipeline, real = conditional(dataset, loss_weight=None)  # as train.py saves it where nobody names one
    assert replay.loss_floor(pipeline, real) == replay.loss_floor(conditional(dataset)[0], real) is not None


def test_real_points_are_those_of_the_labels_asked_for():
    real, other = replay.real_sets({"name": "moons", "noise": 0.01}, 300, 0, np.array([1]))
    assert len(real) == len(other) == 300 and set(real.labels) == {1}
    assert max(real.points[:, 1].max(), other[:, 1].max()) < 0.6  # the lower moon
    both, _ = replay.real_sets({"name": "moons", "noise": 0.01}, 300, 0)
    assert len(both) == 300 and set(both.labels) == {0, 1}


def test_labels_and_guidance_are_in_the_recording(tmp_path):
    pipeline, real = conditional({"name": "moons", "noise": 0.1})
    labels, rng = np.arange(40) % 2, np.random.default_rng(0)
    states = rng.normal(size=(3, 40, 2)).astype("f")
    scene = replay.reverse_scene(
        pipeline, Process("reverse", states, np.array([50, 20, 0])), states[:, :4], tmp_path,
        labels=labels, tracked=np.arange(4), seed=0,
        options=SamplingOptions(guidance=1.0, guidance_interval=(0.2, 2.0)),
    )  # fmt: skip
    assert scene.steered == "guidance 1 at noise 0.2 .. 2"
    assert [(f.name, f.label) for f in scene.fields] == [(n, k) for k in (0, 1) for n in ("network", "exact")]
    path = tmp_path / "a.rrd"
    with recording("test", path, "file") as rec:
        log_scene(scene, range(4), rec=rec)
    for k in (0, 1):
        _, positions = column(path, f"/reverse/points/{k}", "Points2D:positions")
        assert np.array_equal(np.stack(positions).astype("f"), states[:, labels == k])
        t, vectors = column(path, f"/score/exact/{k}", "Arrows2D:vectors", "t")
        part = real.parts[k].scaled(NORMALISER.mean, NORMALISER.std)
        if k == 1:  # without noise enough to guide at t = 49: the exact score of that label alone
            eps = -part.noised(*pipeline.scheduler.alpha_sigma_at(49)).score(torch.from_numpy(scene.fields[3].origins))
            cosine = (np.stack(vectors)[-1] * -eps.numpy()).sum(-1)
            assert t[-1] == 50 and (cosine > 0).all()
    texts = str(rrb_names(path))
    assert "Score for label 0" in texts and "Reverse: noise to data, guidance 1" in texts


def rrb_names(path):
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
    """The points alone, as rerun's own column call of 2 MiB pieces."""
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


def test_many_points_cost_little_more_than_their_bytes(tmp_path):
    states = np.random.default_rng(0).normal(size=(101, 100_000, 2)).astype("f")
    raw, ours = [], []
    for _ in range(3):  # in turns: the machine's load falls on both
        raw.append(seconds(write_raw, states, tmp_path / "raw.rrd"))
        ours.append(seconds(write_scene, states, tmp_path / "ours.rrd"))
    print(f"raw {raw}, ours {ours}, ratio {statistics.median(ours) / statistics.median(raw):.2f}")
    assert (tmp_path / "ours.rrd").stat().st_size <= 1.3 * states.nbytes
    assert statistics.median(ours) <= 2 * statistics.median(raw) + 0.1
    assert statistics.median(ours) < 2


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
    assert grown[1] < grown[0] + 30  # the trajectory itself has grown by 95 MiB


def test_the_default_scene_stays_small(tmp_path):
    states = np.random.default_rng(0).normal(size=(101, 2000, 2)).astype("f")
    write_scene(states, tmp_path / "a.rrd")
    assert (tmp_path / "a.rrd").stat().st_size <= 1.3 * states.nbytes


# ---------------------------------------------------------------- training


def test_a_training_is_recorded_without_changing_it(run, tmp_path):
    done = command(
        f"train.py {SMALL} {NO_EVALUATION} max_steps=300 checkpoint_every=100 record=true task_name=seen", tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "rerun seen/training.rrd" in done.stdout
    weights = [torch.load(folder / "last.pt", weights_only=True)["ema"] for folder in (run, tmp_path / "seen")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])

    path = tmp_path / "seen" / "training.rrd"
    steps, clouds = column(path, "/training/samples", "Points2D:positions", "train_step")
    assert steps[0] == 0 and steps[1] == 1 and steps[-1] == 300 and len(steps) > 20
    distance = [value[0] for value in column(path, "/distance/samples", "Scalars:scalars", "train_step")[1]]
    assert distance[-1] < 0.6 * distance[0]
    far = [np.linalg.norm(np.asarray(c) - np.asarray(clouds[-1]), axis=1).mean() for c in (clouds[0], clouds[-2])]
    assert far[1] < 0.5 * far[0]  # the same noise: late pictures resemble each other point by point
    assert 300 in column(path, "/loss/training", "Scalars:scalars", "train_step")[0]
