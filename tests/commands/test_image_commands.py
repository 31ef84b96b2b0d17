"""The commands on images, as a person types them: real subprocesses, real files."""

import json

import numpy as np
import pytest
import torch
from conftest import NO_EVALUATION, ROOT, SMALL, command, not_blank, python
from PIL import Image

from dataset import make_sets
from pipeline import Pipeline
from runtime import checkpoint_file
from samplers import last
from samplers.options import SamplingOptions
from tests.viz.test_recordings import column
from viz.image_grids import arranged, pixels

DIGITS = "dataset=digits model=unet_small model.channels=[16,32] model.blocks=1 num_samples=400 threads=1"
SHORT = f"{DIGITS} {NO_EVALUATION} batch_size=16 num_timesteps=100 max_steps=60"  # 20 or so steps an epoch


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """A folder with a short class-conditional training, of which grids were saved, and what it said."""
    folder = tmp_path_factory.mktemp("digits")
    done = command(f"train.py {SHORT} task_name=runs/a viz_save=true viz_interval=15 viz_live=true viz_num=3", folder)
    assert done.returncode == 0, done.stderr
    (folder / "train.txt").write_text(done.stdout)
    return folder


@pytest.fixture(scope="session")
def unconditional(digits):
    """The run folder of a training of two steps, without labels and without grids."""
    done = command(f"train.py {SHORT} task_name=plain conditional=false max_steps=2", digits)
    assert done.returncode == 0, done.stderr
    assert not (digits / "plain" / "viz").exists()
    return digits / "plain"


@pytest.fixture(scope="session")
def sampled(digits):
    """The run folder of `python inference.py` on it, and what it said."""
    done = command("inference.py num_samples=25 threads=1 hydra.run.dir=sampled", digits)
    assert done.returncode == 0, done.stderr
    return digits / "sampled", done.stdout


# ---------------------------------------------------------------- inference


def test_inpainting_keeps_what_was_observed_and_invents_the_rest(tmp_path):
    words = "model.channels=[8,8] num_timesteps=10 max_steps=2 task_name=a"
    assert (done := command(f"train.py {DIGITS} {NO_EVALUATION} {words}", tmp_path)).returncode == 0, done.stderr
    observed = "observe=mask:left observe_method=repaint observe_noise=0.02 observe_image=3 hydra.run.dir=b"
    assert (done := command(f"inference.py checkpoint=a {observed}", tmp_path)).returncode == 0, done.stderr
    samples, unseen = np.load(tmp_path / "b/samples.npy"), make_sets("digits", 400, 0)[1]
    wrong = np.abs(samples - unseen[3:11][0].numpy()[:, None])
    assert samples.shape == (8, 10, 1, 8, 8) and wrong[..., :4].max() < 10 * 0.02 and wrong[..., 4:].mean() > 0.2
    assert not_blank(tmp_path / "b/inpainting.png")


def test_inference_leaves_samples_labels_and_pictures(sampled):
    folder, said = sampled
    names = {path.name for path in folder.iterdir()}
    assert names == {".hydra", "samples.npy", "labels.npy", "samples.png", "reverse.gif", "reverse.rrd"}
    samples, labels = np.load(folder / "samples.npy"), np.load(folder / "labels.npy")
    assert samples.shape == (25, 1, 8, 8) and samples.dtype == np.float32
    assert np.abs(samples).max() <= 1 and samples.std() > 0.1
    assert labels.tolist() == [i % 10 for i in range(25)]
    assert not_blank(folder / "samples.png") and "rerun sampled/reverse.rrd" in said


def test_the_film_goes_from_noise_to_the_samples(sampled):
    with Image.open(sampled[0] / "reverse.gif") as film:
        assert 10 < film.n_frames <= 26 and max(film.size) < 700
        rough = []
        for i in range(film.n_frames):
            film.seek(i)
            grey = np.asarray(film.convert("L")).astype(int)[-200:-20, 40:-60]
            rough.append(np.abs(np.diff(grey, axis=0)).mean())
        assert film.info["duration"] == 2000
    assert rough[0] > 1.1 * rough[-1]  # noise jumps from pixel to pixel
    assert (sampled[0] / "reverse.gif").stat().st_size < 1_000_000


def test_the_recording_holds_what_was_sampled(sampled):
    folder, _ = sampled
    samples, labels = np.load(folder / "samples.npy"), np.load(folder / "labels.npy")
    grid = arranged(25, labels, [str(i) for i in range(10)])
    shape = [n * 9 + 1 for n in grid.cells.shape]
    for entity in ("/reverse/x_t", "/reverse/x_0"):
        steps, buffers = column(folder / "reverse.rrd", entity, "Image:buffer")
        assert steps[0] == 0 and steps[-1] == 100
        whole = np.array(buffers[-1][0], np.uint8).reshape(shape)
        for (row, col), i in np.ndenumerate(grid.cells):
            if i >= 0:
                tile = whole[1 + 9 * row : 9 + 9 * row, 1 + 9 * col : 9 + 9 * col]
                assert np.array_equal(tile, pixels(samples[i])[..., 0])
    t, _ = column(folder / "reverse.rrd", "/reverse/x_t", "Image:buffer", "t")
    assert t.tolist() == (100 - steps[::-1]).tolist()


def test_labels_and_sampler_are_as_asked_and_nothing_else_is_made(digits):
    line = "inference.py checkpoint=runs/a num_samples=6 labels=[7,3] guidance=2 sampler=ddpm threads=1 rerun=false"
    done = command(f"{line} animation=none hydra.run.dir=asked", digits)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (digits / "asked").iterdir()} == {
        ".hydra",
        "samples.npy",
        "labels.npy",
        "samples.png",
    }
    assert np.load(digits / "asked" / "labels.npy").tolist() == [7, 3] * 3
    samples, pipeline = np.load(digits / "asked" / "samples.npy"), Pipeline.load(digits / "runs/a", "cpu")
    options = {"labels": torch.tensor([7, 3] * 3), "sampler": "ddpm"}
    again, unguided = (
        last(pipeline.states(6, SamplingOptions(sampler="ddpm", guidance=w, **options), seed=0)).clamp(-1, 1).numpy()
        for w in (2, 0)
    )
    assert np.array_equal(samples, again) and not np.array_equal(samples, unguided)


def test_training_and_evaluate_judge_images_each_figure_beside_its_floor(tmp_path):
    options = DIGITS.replace("num_samples=400", "num_samples=700")  # a fifth of them must be enough to judge by
    done = command(f"train.py {options} max_steps=60 eval_samples=100 task_name=runs/a", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Frechet distance" in done.stdout and "label accuracy" in done.stdout
    done = command("evaluate.py num_samples=100 sampling_steps=8 threads=1 hydra.run.dir=judged", tmp_path)
    assert done.returncode == 0, done.stderr
    for folder in ("runs/a", "judged"):
        figures = json.loads((tmp_path / folder / "metrics.json").read_text())["figures"]
        assert list(figures) == ["Frechet distance", "recall", "precision", "memorised", "label accuracy"]
        distance = figures["Frechet distance"]
        assert distance["value"] > distance["floor"] > 0 and distance["n"] == 70  # half of the unseen images
        assert not_blank(tmp_path / folder / "samples.png")
    assert len([*(tmp_path / "outputs" / "classifiers").iterdir()]) == 1  # trained once


def test_an_unconditional_model_has_no_labels(unconditional):
    line = f"inference.py checkpoint={unconditional} num_samples=4 threads=1 sampling_steps=5 rerun=false"
    done = command(f"{line} hydra.run.dir=out", unconditional)
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (unconditional / "out").iterdir()}
    assert names == {".hydra", "samples.npy", "samples.png", "reverse.gif"}


def test_labels_of_points(tmp_path):
    done = command(f"train.py {SMALL} {NO_EVALUATION} conditional=true max_steps=150 task_name=run", tmp_path)
    assert done.returncode == 0, done.stderr
    line = "inference.py checkpoint=run labels=[0] guidance=1 num_samples=200 rerun=false hydra.run.dir=out"
    done = command(line, tmp_path)
    assert done.returncode == 0, done.stderr
    samples = np.load(tmp_path / "out" / "samples.npy")
    assert samples.shape == (200, 2) and np.load(tmp_path / "out" / "labels.npy").tolist() == [0] * 200
    assert samples[:, 1].mean() > 0.3  # the upper moon
    assert "reverse.gif" not in {path.name for path in (tmp_path / "out").iterdir()}


# ---------------------------------------------------------------- training


def test_grids_are_named_by_epoch_and_step_and_become_a_film(digits):
    folder = digits / "runs/a" / "viz"
    names = [path.name for path in folder.glob("*.png")]
    per_epoch = 20  # 320 images to learn from, 16 a step
    wanted = [f"denoise_progress_ep{-(-s // per_epoch)}_it{s}.png" for s in (15, 30, 45, 60)]
    wanted += [f"denoise_progress_ep{epoch}_end.png" for epoch in (1, 2, 3)]
    assert sorted(names) == sorted(wanted)
    assert all(not_blank(folder / name) for name in names)
    order = ["ep1_it15", "ep1_end", "ep2_it30", "ep2_end", "ep3_it45", "ep3_it60", "ep3_end"]
    stills = [np.asarray(Image.open(folder / f"denoise_progress_{name}.png")).astype(int) for name in order]
    with Image.open(folder / "progress.gif") as film:
        assert film.n_frames == 7
        for i in range(7):
            film.seek(i)
            frame = np.asarray(film.convert("RGB")).astype(int)
            assert np.argmin([np.abs(frame - still).mean() for still in stills]) == i
    said = (digits / "train.txt").read_text()
    assert sum("no window" in line for line in said.splitlines()) == 1 and "runs/a/viz/progress.gif" in said


def test_the_first_rows_never_change(digits):
    stills = [np.asarray(Image.open(p)).astype(int) for p in sorted((digits / "runs/a" / "viz").glob("*.png"))]
    height = 2 * 59  # real images and their noised states, below the title
    top = next(i for i, row in enumerate(stills[0]) if (row == (58, 82, 130)).all(-1).sum() > 100)
    for still in stills[1:]:
        assert np.array_equal(still[top : top + height, 160:], stills[0][top : top + height, 160:])
        assert not np.array_equal(still[top + height :], stills[0][top + height :])


def test_grids_leave_the_training_as_it_is_to_the_last_bit(digits):
    done = command(f"train.py {SHORT} task_name=unseen", digits)
    assert done.returncode == 0, done.stderr
    one, two = checkpoint_file.load(digits / "runs/a"), checkpoint_file.load(digits / "unseen")
    for key in ("net", "ema"):
        assert all(torch.equal(one[key][k], two[key][k]) for k in one[key])


# ---------------------------------------------------------------- the forward process


def test_main_shows_images_turning_into_noise(tmp_path):
    line = "main.py dataset=digits num_samples=20 num_timesteps=30 viz_steps=4 save_plots=true compare_schedules=true"
    done = command(f"{line} animation=gif", tmp_path)
    assert done.returncode == 0, done.stderr
    outputs = tmp_path / "outputs" / "images"  # a folder of their own: pictures of points stay
    names = {"forward.png", "schedule.png", "schedules.png", "forward.gif", "forward.rrd"}
    assert {path.name for path in outputs.iterdir()} == names and "20 images of digits" in done.stdout
    assert all(not_blank(outputs / name) for name in names if name.endswith("png"))
    steps, buffers = column(outputs / "forward.rrd", "/forward/x_t", "Image:buffer")
    assert steps[0] == 0 and steps[-1] == 30 and len(steps) == 4
    first = np.array(buffers[0][0], np.uint8)
    levels = set(np.rint(np.arange(17) * 255 / 16).astype(int)) | {13}  # of scikit-learn's digits, and of the gaps
    assert set(first.tolist()) <= levels


def test_images_shows_itself(tmp_path):
    done = command("-m images.sets", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "outputs/images.png" in done.stdout and not_blank(tmp_path / "outputs" / "images.png")


# ---------------------------------------------------------------- mistakes


MISTAKES = [
    ("inference.py checkpoint={digits} labels=[10]", "labels must be all, or some of 0, 1, 2"),
    ("inference.py checkpoint={digits} labels=nonsense", "got nonsense"),
    ("inference.py checkpoint={digits} labels=[]", "labels must be all, or some of"),
    ("inference.py checkpoint={digits} track_samples=[1]", "track_samples and save_trajectory belong to points"),
    ("inference.py checkpoint={digits} save_trajectory=true", "belong to points"),
    ("inference.py checkpoint={digits} sampling_steps=101", "must lie in 1..100"),
    ("inference.py checkpoint={digits} viz_steps=1", "viz_steps must be at least 2"),
    ("inference.py checkpoint={digits} guidance=-2", "guidance must be at least -1"),
    ("inference.py checkpoint={unconditional} labels=[0]", "labels were asked of an unconditional model"),
    ("inference.py checkpoint={unconditional} labels=all", "labels were asked of an unconditional model"),
    ("inference.py checkpoint={unconditional} guidance=1", "guidance needs labels"),
    (
        "inference.py checkpoint={unconditional} observe=mask:left observe_method=sir",
        "observe_method=sir is for points",
    ),
    ("inference.py checkpoint={unconditional} observe=mask:left observe_image=999", "observe_image must lie in 0.."),
    ("inference.py checkpoint={unconditional} observe=y=0.2", "choose one of mask:left"),
    ("train.py viz_save=true", "record=true"),
    ("train.py viz_live=true", "record=true"),
    ("train.py dataset=digits model=unet_small viz_save=true viz_t=1000", "lie in 0..999; got 1000"),
    ("main.py dataset=digits track_samples=[1]", "belong to points"),
    ("main.py dataset=images dataset.root=nowhere", "there is no folder nowhere"),
    ("inference.py checkpoint={digits} observe=mask:left num_samples=7", "draws 10 samples of each image"),
]


def test_mistakes_are_answered_in_one_line(digits, unconditional, tmp_path):
    lines = [line.format(digits=digits / "runs/a", unconditional=unconditional) for line, _ in MISTAKES]
    code = (  # all in one process: each command alone would spend seconds on importing torch
        "import os, runpy, sys\n"
        f"for line in {lines!r}:\n"
        "    os.environ.pop('HYDRA_FULL_ERROR', None)\n"
        f"    sys.argv = [{str(ROOT)!r} + '/' + line.split()[0], *line.split()[1:]]\n"
        "    try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "    except SystemExit as end: print('answer:', end.code)\n"
    )
    done = python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    answers = [line for line in done.stdout.splitlines() if line.startswith("answer:")]
    assert len(answers) == len(lines)
    for answer, (_, words) in zip(answers, MISTAKES):
        assert words in answer
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
