"""A training's tables, figures and pictures where teams look, read back."""

import importlib.util
import io
import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import GAUSSIANS, NO_EVALUATION, QUIET, ROOT, SMALL, succeeded
from PIL import Image

from loss.log import ExcessLog, LossLog, read_excess, read_losses
from loss.moments import Moment
from training.loggers import Follower, board, check

CONFIG = {"lr": 0.008, "dataset": {"name": "moons"}}


def train(folder, logger, start=0, steps=30):
    """Write what a training writes, with the follower beside it, as training.callbacks has it."""
    folder.mkdir(exist_ok=True)
    losses, excesses = LossLog(folder, start), ExcessLog(folder, [25, 75], 0.22, start)
    follower = Follower(folder, board(logger, folder, CONFIG, start), start)
    for done in range(start + 1, start + steps + 1):
        moment = Moment(done, 1 / done if done % 10 == 0 else None, 0.1, done / 2, stable_loss=0.5 / done)
        losses.after(moment)
        if done in (1, 2, 20):
            excesses.add(done, [1 / done, 3 / done])
        follower.after(moment)
    for each in (losses, excesses, follower):
        each.close()
    Image.fromarray(np.full((4, 6, 3), (10, 200, 30), np.uint8)).save(folder / "samples.png")
    figures = {"neighbours": {"value": 0.51, "floor": 0.5}}
    facts = {"steps": start + steps, "loss": 0.25, "cpu_seconds": 3.0, "figures": figures}
    (folder / "metrics.json").write_text(json.dumps(facts))
    follower.end()


def needs(package):
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"needs {package}")


def read_events(run, **options):
    """What TensorBoard reads of a run."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"), **options)
    events.Reload()
    return events


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    """A run of 30 steps and 20 more after it was resumed, and its events."""
    run = tmp_path_factory.mktemp("resumed") / "run"
    train(run, "tensorboard")
    train(run, "tensorboard", start=30, steps=20)
    return run, read_events(run)


@needs("tensorboard")
@pytest.mark.parametrize("name", ["loss", "lr", "seconds", "stable_loss"])
def test_tensorboard_holds_the_columns_of_the_losses(name, resumed):
    run, events = resumed
    losses = read_losses(run)
    assert_scalars(events.Scalars(name), losses["step"], losses[name])


@needs("tensorboard")
@pytest.mark.parametrize("name", ["excess", "floor"])
def test_tensorboard_holds_the_columns_of_the_excess(name, resumed):
    run, events = resumed
    excess = read_excess(run)
    assert_scalars(events.Scalars(name), excess["step"], excess[name])


@needs("tensorboard")
@pytest.mark.parametrize(("i", "t"), [(0, 25), (1, 75)])
def test_tensorboard_holds_the_excess_of_each_measured_step(i, t, resumed):
    run, events = resumed
    excess = read_excess(run)
    assert_scalars(events.Scalars(f"excess by step/t{t}"), excess["step"], excess["by_t"][:, i])


def assert_scalars(seen, steps, values):
    assert [each.step for each in seen] == steps.tolist()
    np.testing.assert_allclose([each.value for each in seen], values, rtol=1e-6)


@needs("tensorboard")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("figures/neighbours", 0.51),
        ("figures/neighbours (floor)", 0.5),
        ("final loss", 0.25),
        ("cpu_seconds", 3.0),
    ],
)
def test_tensorboard_holds_the_figures_of_the_end(name, value, resumed):
    newest = resumed[1].Scalars(name)[-1]
    assert (newest.step, pytest.approx(newest.value)) == (50, value)


@needs("tensorboard")
def test_tensorboard_shows_the_pictures_of_the_end(resumed):
    picture = resumed[1].Images("pictures/samples")[-1]
    assert (picture.step, picture.width, picture.height) == (50, 6, 4)


@needs("tensorboard")
def test_tensorboard_holds_the_options(resumed):
    assert "dataset" in str(resumed[1].Tensors("options/text_summary")[0].tensor_proto)


@pytest.mark.slow  # the next test has the command on images
@needs("tensorboard")
def test_a_training_logs_to_tensorboard(tmp_path):
    succeeded(f"train.py {GAUSSIANS} {SMALL} {NO_EVALUATION} max_steps=20 task_name=run logger=tensorboard", tmp_path)
    events = read_events(tmp_path / "run")
    assert [each.step for each in events.Scalars("loss")] == [10, 20]
    assert len(events.Scalars("excess")) > 5
    assert events.Tags()["images"] == ["pictures/loss"]


@needs("tensorboard")
def test_tensorboard_shows_the_grids_while_images_are_learnt(tmp_path):
    words = "dataset=digits model=unet_small model.channels=[8,8] num_samples=64 batch_size=16 threads=1 max_steps=8"
    words += " num_timesteps=20 schedule=cosine references=0 viz_save=true viz_interval=3 viz_num=4 task_name=run"
    succeeded(f"train.py {words} {NO_EVALUATION} logger=tensorboard", tmp_path)
    seen = read_events(tmp_path / "run", size_guidance={"images": 0}).Images("pictures/progress")
    names = {3: "ep1_it3", 4: "ep1_end", 6: "ep2_it6", 7: "ep2_end", 8: "ep3_end"}  # 51 images: 3.2 batches an epoch
    assert [each.step for each in seen] == [*names]
    for each in seen:
        with Image.open(tmp_path / f"run/viz/denoise_progress_{names[each.step]}.png") as kept:
            shown = Image.open(io.BytesIO(each.encoded_image_string))
            assert (np.asarray(shown) == np.asarray(kept.convert("RGB"))).all()


@needs("trackio")
def test_trackio_holds_what_the_files_hold(tmp_path):
    code = """
import sys; sys.path[:0] = sys.argv[1:]
from pathlib import Path
import test_loggers
test_loggers.train(Path("run"), "trackio")
from trackio import SQLiteStorage
(name,) = SQLiteStorage.get_runs("moonwalk")
rows = SQLiteStorage.get_logs("moonwalk", name)
losses = {row["step"]: row["loss"] for row in rows if "loss" in row}
assert losses == {10: 0.1, 20: 0.05, 30: 0.0333333}, losses
assert {row["step"]: row["excess"] for row in rows if "excess" in row} == {1: 2, 2: 1, 20: 0.1}
assert [row["figures/neighbours"] for row in rows if "figures/neighbours" in row] == [0.51]
assert any("pictures/samples" in row for row in rows)
"""
    line = [sys.executable, "-c", code, str(ROOT), str(ROOT / "tests"), str(ROOT / "tests/training")]
    environment = {**QUIET, "TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr


@needs("wandb")
def test_wandb_holds_what_the_files_hold(tmp_path, monkeypatch):
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    train(tmp_path / "run", "wandb")
    wandb.teardown()  # its own process has written all by then
    (folder,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    assert len(list(folder.rglob("*.png"))) == 1
    (held,) = folder.glob("*.wandb")
    content = held.read_bytes()
    assert all(name in content for name in (b"stable_loss", b"figures/neighbours", b"excess by step/t75"))


def test_a_missing_package_is_named():
    with pytest.raises(ValueError, match="pip install no_such_board"):
        check("no_such_board")


def test_no_logger_needs_no_package():
    check(None)
