"""The commands as a person types them: real subprocesses, real files, and nothing but what a person would do."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import NO_EVALUATION, ROOT, SMALL, command, not_blank, python, started
from PIL import Image

from conf.config import COMMANDS
from loss.runs import runs_of_sweep
from runtime import checkpoint_file


def test_training_leaves_a_whole_run(workplace, run):
    names = {path.name for path in run.iterdir()}
    pictures = {"loss.png", "samples.png", "timesteps.png", "field.png"}
    assert pictures | {"last.pt", "loss.csv", "excess.csv", "metrics.json", ".hydra"} <= names
    assert checkpoint_file.load(run)["step"] == 300
    losses = np.genfromtxt(run / "loss.csv", delimiter=",", names=True)
    assert losses["step"].tolist() == list(range(10, 301, 10))
    assert losses["loss"][-5:].mean() < 0.92 * losses["loss"][0]
    assert all(not_blank(run / picture) for picture in pictures)
    said = (workplace / "train.txt").read_text()
    assert "training summary" in said and str(run.relative_to(workplace)) in said
    assert "start-up check" in said and "verdict" in said
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["steps"] == 300 and 0.4 < metrics["figures"]["classifier accuracy"]["value"] < 1
    over = np.genfromtxt(run / "excess.csv", delimiter=",", names=True)
    assert over["step"][-1] == 300 and over["excess"][-1] < 0.5 * over["excess"][0]


def test_the_same_seed_gives_the_same_weights_and_samples(workplace, run, tmp_path):
    again = started(f"train.py {SMALL} {NO_EVALUATION} max_steps=300 --task-name runs/again", tmp_path)
    assert again.returncode == 0, again.stderr
    one, two = checkpoint_file.load(run)["ema"], checkpoint_file.load(tmp_path / "runs/again")["ema"]
    assert all(torch.equal(one[k], two[k]) for k in one)
    samples = []
    for i, place in enumerate((run, tmp_path / "runs/again")):
        done = started(f"inference.py checkpoint={place} num_samples=100 --no-rerun hydra.run.dir=out{i}", tmp_path)
        assert done.returncode == 0, done.stderr
        samples.append(np.load(tmp_path / f"out{i}" / "samples.npy"))
    assert np.array_equal(*samples)


def test_a_resumed_training_ends_as_an_uninterrupted_one(run, tmp_path):
    line = f"train.py {SMALL} {NO_EVALUATION} max_steps=300 checkpoint_every=150"
    code = (  # a training that ends right after its checkpoint at step 150
        "from runtime import checkpoint_file; import runpy, sys; save = checkpoint_file.save\n"
        "def stop(path, state):\n    save(path, state); sys.exit(7)\n"
        f"checkpoint_file.save = stop; sys.argv = {[*line.split(), 'task_name=half']}\n"
        f"runpy.run_path({str(ROOT / 'train.py')!r}, run_name='__main__')"
    )
    assert python(code, tmp_path).returncode == 7
    assert checkpoint_file.load(tmp_path / "half")["step"] == 150
    done = command("train.py resume=half", tmp_path)
    assert done.returncode == 0, done.stderr
    one, two = checkpoint_file.load(run)["ema"], checkpoint_file.load(tmp_path / "half")["ema"]
    assert all(torch.equal(one[k], two[k]) for k in one)
    other = command("train.py resume=half lr=1e-3", tmp_path)
    assert other.returncode == 1 and "was trained with lr=0.012, not lr=0.001" in other.stderr


def test_inference_takes_the_newest_run(workplace):
    done = command("inference.py --num-samples 200 viz_steps=20", workplace)
    assert done.returncode == 0, done.stderr
    (folder,) = (workplace / "outputs" / "inference").iterdir()
    samples = np.load(folder / "samples.npy")
    assert samples.shape == (200, 2) and samples.dtype == np.float32
    assert np.abs(samples.mean(0) - [0.5, 0.25]).max() < 0.3  # data units, not normalised ones
    assert not_blank(folder / "samples.png")
    assert f"rerun {(folder / 'reverse.rrd').relative_to(workplace)}" in done.stdout


def test_evaluate_judges_a_checkpoint(workplace, run):
    done = started(f"evaluate.py checkpoint={run} num_samples=500 hydra.run.dir=judged", workplace)
    assert done.returncode == 0, done.stderr
    result = json.loads((workplace / "judged" / "metrics.json").read_text())
    assert result["sampler"] == "dpmpp_2m_sde"  # what points are judged with by default
    figures = result["figures"]
    assert set(figures) == {
        "classifier accuracy", "energy distance", "neighbours", "memorised", "masses", "cells", "negative log-density",
        "strays", "sliced Wasserstein-1", "Wasserstein-2", "error of epsilon", "KL(exact || model)",
    }  # fmt: skip
    for name in figures:
        assert name in done.stdout
    assert {p.name for p in (workplace / "judged").glob("*.png")} == {"samples.png", "timesteps.png", "field.png"}


@pytest.mark.parametrize(
    "line",
    [
        "num_samples=60 save_plots=true rerun=false num_timesteps=20",
        "--num-samples 60 --save-plots --no-rerun --num-timesteps=20",
    ],
)
def test_main_in_both_spellings(line, tmp_path):
    done = command(f"main.py {line}", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "60 points" in done.stdout
    pictures = sorted((tmp_path / "outputs").iterdir())
    assert [p.name for p in pictures] == ["forward.png", "schedule.png", "statistics.png"]
    assert all(not_blank(picture) for picture in pictures)


def test_main_compares_schedules(tmp_path):
    done = started("main.py --compare-schedules --no-rerun num_samples=50", tmp_path)
    assert done.returncode == 0, done.stderr
    assert not_blank(tmp_path / "outputs/schedules.png")


def test_main_says_when_x_T_is_not_noise(tmp_path):
    done = command("main.py --beta-start 0.0001 --beta-end 0.02 --no-rerun", tmp_path)
    assert done.returncode == 0 and "60%" in done.stdout


def test_loss_plot_of_several_runs(workplace, run, tmp_path):
    done = command(f"loss/plot.py {run} {run} --out {tmp_path / 'two.png'}", workplace)
    assert done.returncode == 0, done.stderr
    assert not_blank(tmp_path / "two.png")
    assert command("loss/plot.py", workplace).stdout.strip().endswith("loss.png")


@pytest.mark.parametrize(("script", "picture"), [("dataset.py", "outputs/dataset.png"), ("diffusion.py", None),
                                                 ("rerun_viz.py", "outputs/rerun_viz.rrd")])  # fmt: skip
def test_modules_show_themselves(script, picture, tmp_path):
    done = command(script, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout and (picture is None or (tmp_path / picture).stat().st_size > 1000)


def test_a_sweep_runs_every_job_although_one_fails(tmp_path):
    done = command(f"train.py {SMALL} {NO_EVALUATION} max_steps=2 -m lr=1e-3,-1,2e-3", tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert len(list(tmp_path.rglob("last.pt"))) == 2
    (joint,) = tmp_path.rglob("losses.png")
    assert not_blank(joint) and list(runs_of_sweep(joint.parent)) == ["lr=0.001", "lr=0.002"]
    failed = f"{joint.parent.relative_to(tmp_path)}/1"
    said = done.stderr.strip().splitlines()
    assert said[-2:] == [
        f"{failed} failed: lr must be above 0; got -1.0",
        f"1 of the sweep's runs failed: {failed} (lr must be above 0; got -1.0)",
    ]


def test_a_damaged_checkpoint_is_refused(run, tmp_path):
    content = (run / "last.pt").read_bytes()
    (tmp_path / "short.pt").write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.pt").touch()
    for name in ("short.pt", "empty.pt"):
        done = command(f"inference.py checkpoint={name}", tmp_path)
        assert done.returncode == 1 and f"{name} is damaged" in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_help_answers_without_torch(name, tmp_path):
    code = (
        f"import runpy, sys; sys.argv = ['{name}.py', '--help']\n"
        f"try: runpy.run_path({str(ROOT / f'{name}.py')!r}, run_name='__main__')\n"
        "finally: assert 'torch' not in sys.modules"
    )
    done = started(["-c", code], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "--option value" in done.stdout and "seed=0" in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="a pipe of POSIX")
def test_help_that_nobody_reads_to_its_end_is_no_error():
    """As in `python train.py --help | head`: here the reader is gone before the first word."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "train.py", "--help"], cwd=ROOT, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert done.stderr == b""


def test_the_newest_checkpoint_is_read_once(workplace):
    """A training may replace it in between: what is sampled and what is said of it would be of two moments."""
    code = f"""
import runpy, sys
read = []
sys.addaudithook(lambda event, what: read.append(what[0]) if event == "open" and str(what[0]).endswith(".pt") else None)
for line in ("inference observe=mask:left", "evaluate sampler=ddim variance=exact"):  # refused after it has been read
    name, *words = line.split()
    sys.argv = [f"{ROOT}/{{name}}.py", *words]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except (SystemExit, ValueError) as end:
        assert "is for images" in str(end) or "belongs to sampler=ddpm" in str(end), end
    assert len(read) == 1, read
    read.clear()
"""
    done = python(code, workplace)
    assert done.returncode == 0, done.stderr


def test_a_sweep_of_flow_lines_leaves_them_wide_and_square_and_all_on_one_picture(workplace):
    done = command(
        "inference.py -m flow=true animation=none num_samples=30 sampling_steps=5,10 hydra.sweep.dir=flow", workplace
    )
    assert done.returncode == 0, done.stderr
    runs = runs_of_sweep(workplace / "flow", "flow.png")
    assert list(runs) == ["sampling_steps=5", "sampling_steps=10"]
    for name, size in {"flow.png": (1920, 1080), "flow_square.png": (1080, 1080)}.items():
        with Image.open(runs["sampling_steps=5"].folder / name) as picture:
            assert picture.size == size
        assert not_blank(runs["sampling_steps=5"].folder / name)
    with Image.open(workplace / "flow" / "sweep.png") as sheet:
        assert sheet.size == (1200, 2 * (36 + 675))


def test_a_sweep_of_the_forward_process_names_its_runs_by_their_options(tmp_path):
    line = "main.py -m schedule=linear,cosine num_samples=50 save_plots=true rerun=false hydra.sweep.dir=sweep"
    done = command(line, tmp_path)
    assert done.returncode == 0, done.stderr
    runs = runs_of_sweep(tmp_path / "sweep", "forward.png")
    assert len(runs) == 2 and "schedule=cosine" in min(runs) and "schedule=linear" in max(runs)
    assert not_blank(tmp_path / "sweep" / "sweep.png")
