"""The commands on images, as a person types them: real processes and real files."""

import json

import numpy as np
import pytest
import torch
from conftest import NO_EVALUATION, ROOT, SMALL, column, command, not_blank, python, succeeded
from PIL import Image

from dataset import make_sets
from pipeline import Pipeline
from runtime import checkpoint_file
from samplers import last
from samplers.options import SamplingOptions
from viz.image_grids import arranged, pixels

DIGITS = "dataset=digits model=unet_small model.channels=[16,32] model.blocks=1 num_samples=400 threads=1"
SHORT = f"{DIGITS} {NO_EVALUATION} batch_size=16 num_timesteps=100 max_steps=60"
STEPS_PER_EPOCH = 20  # 320 images to learn from, 16 a step


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """A folder with the short class-conditional training runs/a, which saved grids, and with what it printed."""
    folder = tmp_path_factory.mktemp("digits")
    printed = succeeded(
        f"train.py {SHORT} task_name=runs/a viz_save=true viz_interval=15 viz_live=true viz_num=3", folder
    )
    (folder / "train.txt").write_text(printed)
    return folder


@pytest.fixture(scope="session")
def unconditional(digits):
    """The run folder of a training of two steps, without labels and without grids."""
    succeeded(f"train.py {SHORT} task_name=plain conditional=false max_steps=2", digits)
    return digits / "plain"


@pytest.fixture(scope="session")
def sampled(digits):
    """The folder that `python inference.py` left of the training in `digits`, and what it printed."""
    printed = succeeded("inference.py num_samples=25 threads=1 hydra.run.dir=sampled", digits)
    return digits / "sampled", printed


# ---------------------------------------------------------------- inference


@pytest.fixture(scope="module")
def inpainted(tmp_path_factory):
    """The folder of 10 fillings of 8 digits each, whose left half is observed; and the digits (8, 1, 8, 8)."""
    folder = tmp_path_factory.mktemp("inpainted")
    words = "model.channels=[8,8] num_timesteps=10 max_steps=2 task_name=a"
    succeeded(f"train.py {DIGITS} {NO_EVALUATION} {words}", folder)
    observed = "observe=mask:left observe_method=repaint observe_noise=0.02 observe_image=3 hydra.run.dir=b"
    succeeded(f"inference.py checkpoint=a {observed}", folder)
    unseen = make_sets("digits", 400, 0)[1]
    return folder / "b", unseen[3:11][0].numpy()


@pytest.mark.slow
def test_inpainting_draws_ten_samples_of_each_of_eight_images(inpainted):
    assert np.load(inpainted[0] / "samples.npy").shape == (8, 10, 1, 8, 8)


@pytest.mark.slow
def test_inpainting_keeps_what_was_observed(inpainted):
    folder, images = inpainted
    difference = np.abs(np.load(folder / "samples.npy") - images[:, None])
    assert difference[..., :4].max() < 10 * 0.02


@pytest.mark.slow
def test_inpainting_invents_the_rest(inpainted):
    folder, images = inpainted
    difference = np.abs(np.load(folder / "samples.npy") - images[:, None])
    assert difference[..., 4:].mean() > 0.2


@pytest.mark.slow
def test_inpainting_leaves_a_picture(inpainted):
    assert not_blank(inpainted[0] / "inpainting.png")


def test_inference_leaves_samples_labels_and_pictures(sampled):
    names = {path.name for path in sampled[0].iterdir()}
    assert names == {".hydra", "samples.npy", "labels.npy", "samples.png", "reverse.gif", "reverse.rrd"}


def test_samples_are_images_within_their_range(sampled):
    samples = np.load(sampled[0] / "samples.npy")
    assert samples.shape == (25, 1, 8, 8) and samples.dtype == np.float32
    assert np.abs(samples).max() <= 1 and samples.std() > 0.1


def test_labels_are_as_frequent_as_in_the_data_by_default(sampled):
    counts = np.bincount(np.load(sampled[0] / "labels.npy"), minlength=10)
    assert sorted(set(counts.tolist())) == [2, 3]  # 25 samples of ten digits that are nearly equally frequent


def test_the_picture_of_the_samples_shows_something(sampled):
    assert not_blank(sampled[0] / "samples.png")


def test_inference_prints_how_to_open_its_recording(sampled):
    assert "rerun sampled/reverse.rrd" in sampled[1]


def test_the_film_is_short_small_and_rests_at_its_end(sampled):
    path = sampled[0] / "reverse.gif"
    with Image.open(path) as film:
        assert 10 < film.n_frames <= 26 and max(film.size) < 700
        film.seek(film.n_frames - 1)
        assert film.info["duration"] == 2000
    assert path.stat().st_size < 1_000_000


def test_the_film_goes_from_noise_to_the_samples(sampled):
    roughness = []
    with Image.open(sampled[0] / "reverse.gif") as film:
        for i in range(film.n_frames):
            film.seek(i)
            grey = np.asarray(film.convert("L")).astype(int)[-200:-20, 40:-60]
            roughness.append(np.abs(np.diff(grey, axis=0)).mean())
    assert roughness[0] > 1.1 * roughness[-1]  # noise jumps from pixel to pixel


@pytest.mark.parametrize("entity", ["/reverse/x_t", "/reverse/x_0"])
def test_the_recording_ends_with_the_samples(entity, sampled):
    folder, _ = sampled
    samples = np.load(folder / "samples.npy")
    labels = np.load(folder / "labels.npy")
    grid = arranged(25, labels, [str(i) for i in range(10)])
    shape = [n * 9 + 1 for n in grid.cells.shape]  # tiles of 8 pixels, and gaps of 1
    steps, buffers = column(folder / "reverse.rrd", entity, "Image:buffer")
    assert steps[0] == 0 and steps[-1] == 100
    whole = np.array(buffers[-1][0], np.uint8).reshape(shape)
    for (row, col), i in np.ndenumerate(grid.cells):
        if i >= 0:
            tile = whole[1 + 9 * row : 9 + 9 * row, 1 + 9 * col : 9 + 9 * col]
            assert np.array_equal(tile, pixels(samples[i])[..., 0])


def test_the_clock_t_of_the_recording_runs_down_as_the_steps_run_up(sampled):
    recording = sampled[0] / "reverse.rrd"
    steps, _ = column(recording, "/reverse/x_0", "Image:buffer")
    t, _ = column(recording, "/reverse/x_t", "Image:buffer", "t")
    assert t.tolist() == (100 - steps[::-1]).tolist()


@pytest.fixture(scope="module")
def asked(digits):
    """The folder of 6 samples with chosen labels, sampler and guidance, without a film and a recording."""
    line = "inference.py checkpoint=runs/a num_samples=6 labels=[7,3] guidance=2 sampler=ddpm threads=1 rerun=false"
    succeeded(f"{line} animation=none hydra.run.dir=asked", digits)
    return digits / "asked"


def test_only_the_files_that_were_asked_for_are_made(asked):
    assert {path.name for path in asked.iterdir()} == {".hydra", "samples.npy", "labels.npy", "samples.png"}


def test_labels_are_those_that_were_asked_for(asked):
    assert np.load(asked / "labels.npy").tolist() == [7, 3] * 3


def test_sampler_and_guidance_are_those_that_were_asked_for(asked, digits):
    pipeline = Pipeline.load(digits / "runs/a", "cpu")
    labels = torch.tensor([7, 3] * 3)
    guided, unguided = (
        last(pipeline.states(6, SamplingOptions("ddpm", guidance=w), labels=labels, seed=0)).clamp(-1, 1).numpy()
        for w in (2, 0)
    )
    samples = np.load(asked / "samples.npy")
    assert np.array_equal(samples, guided)
    assert not np.array_equal(samples, unguided)


def test_an_unconditional_model_has_no_labels(unconditional):
    line = f"inference.py checkpoint={unconditional} num_samples=4 threads=1 sampling_steps=5 rerun=false"
    succeeded(f"{line} hydra.run.dir=out", unconditional)
    names = {path.name for path in (unconditional / "out").iterdir()}
    assert names == {".hydra", "samples.npy", "samples.png", "reverse.gif"}


@pytest.fixture(scope="module")
def upper_moon(tmp_path_factory):
    """The folder of 200 points of label 0, from a short training on moons with labels."""
    folder = tmp_path_factory.mktemp("upper_moon")
    succeeded(f"train.py {SMALL} {NO_EVALUATION} conditional=true max_steps=150 task_name=run", folder)
    words = "labels=[0] guidance=1 num_samples=200 rerun=false"
    succeeded(f"inference.py checkpoint=run {words} hydra.run.dir=out", folder)
    return folder / "out"


@pytest.mark.slow
def test_points_have_labels_as_images_have(upper_moon):
    assert np.load(upper_moon / "samples.npy").shape == (200, 2)
    assert np.load(upper_moon / "labels.npy").tolist() == [0] * 200


@pytest.mark.slow
def test_points_of_label_0_lie_on_the_upper_moon(upper_moon):
    assert np.load(upper_moon / "samples.npy")[:, 1].mean() > 0.3


@pytest.mark.slow
def test_points_have_no_film_by_default(upper_moon):
    assert "reverse.gif" not in {path.name for path in upper_moon.iterdir()}


# ---------------------------------------------------------------- evaluation


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a training with evaluation, runs/a, and what it printed."""
    folder = tmp_path_factory.mktemp("judged")
    options = DIGITS.replace("num_samples=400", "num_samples=700")  # a fifth of them must be enough to judge by
    return folder, succeeded(f"train.py {options} max_steps=20 eval_samples=100 task_name=runs/a", folder)


@pytest.fixture(scope="module")
def judged(trained):
    """That folder, in which `evaluate.py` has left the folder judged."""
    folder, _ = trained
    succeeded("evaluate.py num_samples=100 sampling_steps=8 threads=1 hydra.run.dir=judged", folder)
    return folder


def check_figures_and_picture(folder):
    """The figures of images stand beside their floors, and a picture shows the samples."""
    figures = json.loads((folder / "metrics.json").read_text())["figures"]
    assert list(figures) == ["Frechet distance", "recall", "precision", "memorised", "label accuracy"]
    distance = figures["Frechet distance"]
    assert distance["value"] > distance["floor"] > 0
    assert distance["n"] == 70  # half of the unseen images
    assert not_blank(folder / "samples.png")


def test_a_training_on_images_prints_their_figures(trained):
    assert "Frechet distance" in trained[1] and "label accuracy" in trained[1]


def test_a_training_on_images_leaves_their_figures_and_a_picture(trained):
    check_figures_and_picture(trained[0] / "runs/a")


@pytest.mark.slow
def test_an_evaluation_of_images_leaves_their_figures_and_a_picture(judged):
    check_figures_and_picture(judged / "judged")


@pytest.mark.slow
def test_the_feature_classifier_is_trained_once(judged):
    assert len([*(judged / "outputs" / "classifiers").iterdir()]) == 1


# ---------------------------------------------------------------- grids of a training


def test_grids_are_named_by_epoch_and_step(digits):
    wanted = [f"denoise_progress_ep{-(-step // STEPS_PER_EPOCH)}_it{step}.png" for step in (15, 30, 45, 60)]
    wanted += [f"denoise_progress_ep{epoch}_end.png" for epoch in (1, 2, 3)]
    assert sorted(path.name for path in (digits / "runs/a/viz").glob("*.png")) == sorted(wanted)


def test_grids_show_something(digits):
    assert all(not_blank(path) for path in (digits / "runs/a/viz").glob("*.png"))


def test_grids_become_a_film_in_the_order_of_the_training(digits):
    folder = digits / "runs/a/viz"
    order = ["ep1_it15", "ep1_end", "ep2_it30", "ep2_end", "ep3_it45", "ep3_it60", "ep3_end"]
    stills = [np.asarray(Image.open(folder / f"denoise_progress_{name}.png")).astype(int) for name in order]
    with Image.open(folder / "progress.gif") as film:
        assert film.n_frames == 7
        for i in range(7):
            film.seek(i)
            frame = np.asarray(film.convert("RGB")).astype(int)
            assert np.argmin([np.abs(frame - still).mean() for still in stills]) == i


def test_a_training_says_once_that_there_is_no_window(digits):
    printed = (digits / "train.txt").read_text()
    assert sum("no window" in line for line in printed.splitlines()) == 1


def test_a_training_prints_where_its_film_is(digits):
    assert "runs/a/viz/progress.gif" in (digits / "train.txt").read_text()


def test_the_first_rows_of_a_grid_never_change_and_the_others_do(digits):
    stills = [np.asarray(Image.open(p)).astype(int) for p in sorted((digits / "runs/a/viz").glob("*.png"))]
    height = 2 * 59  # real images and their noised states, below the title
    top = next(i for i, row in enumerate(stills[0]) if (row == (58, 82, 130)).all(-1).sum() > 100)
    for still in stills[1:]:
        assert np.array_equal(still[top : top + height, 160:], stills[0][top : top + height, 160:])
        assert not np.array_equal(still[top + height :], stills[0][top + height :])


def test_a_training_leaves_no_grids_unless_asked(unconditional):
    assert not (unconditional / "viz").exists()


@pytest.mark.slow
def test_grids_leave_the_training_as_it_is_to_the_last_bit(digits):
    succeeded(f"train.py {SHORT} task_name=unseen", digits)
    one = checkpoint_file.load(digits / "runs/a")
    two = checkpoint_file.load(digits / "unseen")
    for key in ("net", "ema"):
        assert all(torch.equal(one[key][k], two[key][k]) for k in one[key])


# ---------------------------------------------------------------- the forward process


@pytest.fixture(scope="module")
def forward(tmp_path_factory):
    """The folder that `main.py` left of images, which is one of their own, and what it printed."""
    folder = tmp_path_factory.mktemp("forward")
    line = "main.py dataset=digits num_samples=20 num_timesteps=30 viz_steps=4 save_plots=true compare_schedules=true"
    printed = succeeded(f"{line} animation=gif", folder)
    return folder / "outputs" / "images", printed


def test_main_leaves_pictures_a_film_and_a_recording_of_images(forward):
    names = {"forward.png", "schedule.png", "schedules.png", "forward.gif", "forward.rrd"}
    assert {path.name for path in forward[0].iterdir()} == names


def test_main_says_how_many_images_it_shows(forward):
    assert "20 images of digits" in forward[1]


def test_the_pictures_of_images_show_something(forward):
    assert all(not_blank(path) for path in forward[0].glob("*.png"))


def test_the_recording_of_the_forward_process_begins_with_the_digits_themselves(forward):
    steps, buffers = column(forward[0] / "forward.rrd", "/forward/x_t", "Image:buffer")
    assert steps[0] == 0 and steps[-1] == 30 and len(steps) == 4
    levels = set(np.rint(np.arange(17) * 255 / 16).astype(int)) | {13}  # of scikit-learn's digits, and of the gaps
    assert set(np.array(buffers[0][0], np.uint8).tolist()) <= levels


def test_image_sets_show_themselves(tmp_path):
    assert "outputs/images.png" in succeeded("-m images.sets", tmp_path)
    assert not_blank(tmp_path / "outputs" / "images.png")


# ---------------------------------------------------------------- mistakes


MISTAKES = [
    ("inference.py checkpoint={digits} labels=[10]", "labels must be all, or some of 0, 1, 2"),
    ("inference.py checkpoint={digits} labels=nonsense", "got nonsense"),
    ("inference.py checkpoint={digits} track_samples=[1]", "track_samples and save_trajectory belong to points"),
    ("inference.py checkpoint={digits} sampling_steps=101", "must lie in 1..100"),
    ("inference.py checkpoint={digits} viz_steps=1", "viz_steps must be at least 2"),
    ("inference.py checkpoint={digits} guidance=-2", "guidance must be at least -1"),
    ("inference.py checkpoint={unconditional} labels=[0]", "labels were asked of an unconditional model"),
    ("inference.py checkpoint={unconditional} guidance=1", "guidance needs labels"),
    (
        "inference.py checkpoint={unconditional} observe=mask:left observe_method=sir",
        "observe_method=sir is for points",
    ),
    ("inference.py checkpoint={unconditional} observe=mask:left observe_image=999", "observe_image must lie in 0.."),
    ("inference.py checkpoint={unconditional} observe=y=0.2", "choose one of mask:left"),
    ("train.py viz_save=true", "record=true"),
    ("train.py dataset=digits model=unet_small viz_save=true viz_t=1000", "lie in 0..999; got 1000"),
    ("main.py dataset=digits track_samples=[1]", "belong to points"),
    ("inference.py checkpoint={digits} observe=mask:left num_samples=7", "draws 10 samples of each image"),
]


@pytest.fixture(scope="module")
def answers(digits, unconditional, tmp_path_factory):
    """What each of these lines ends with, and the files that all of them left."""
    folder = tmp_path_factory.mktemp("mistakes")
    lines = [line.format(digits=digits / "runs/a", unconditional=unconditional) for line, _ in MISTAKES]
    code = (  # all in one process: each command alone would spend seconds on importing torch
        "import os, runpy, sys\n"
        f"for line in {lines!r}:\n"
        "    os.environ.pop('HYDRA_FULL_ERROR', None)\n"
        f"    sys.argv = [{str(ROOT)!r} + '/' + line.split()[0], *line.split()[1:]]\n"
        "    try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "    except SystemExit as end: print('answer:', end.code)\n"
    )
    done = python(code, folder)
    assert done.returncode == 0, done.stderr
    answers = [line for line in done.stdout.splitlines() if line.startswith("answer:")]
    assert len(answers) == len(lines)
    return answers, [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("i", range(len(MISTAKES)), ids=[line for line, _ in MISTAKES])
def test_a_mistake_is_answered_in_one_line(i, answers):
    assert MISTAKES[i][1] in answers[0][i]


def test_mistakes_leave_no_file(answers):
    assert answers[1] == []


# ---------------------------------------------------------------- a small folder of one's own


@pytest.fixture(scope="module")
def few_images(tmp_path_factory):
    """A folder with 30 pictures, and what the training run on them by a short line printed."""
    folder = tmp_path_factory.mktemp("few")
    rng = np.random.default_rng(0)
    for name in ("dark", "light"):
        (folder / "own" / name).mkdir(parents=True)
        for i in range(15):
            pixels_of_one = rng.integers(0, 255, (8, 8), np.uint8)
            Image.fromarray(pixels_of_one).save(folder / "own" / name / f"{i}.png")
    words = "model=unet_small model.channels=[8,8] num_timesteps=10 max_steps=2 threads=1 task_name=run"
    printed = succeeded(f"train.py --data-path own dataset=images {words}", folder)
    return folder, printed


def test_a_folder_too_small_for_an_evaluation_is_learnt_without_one(few_images):
    _, printed = few_images
    assert "there will be no evaluation: it needs 100 held-out images, and there are 6" in printed


@pytest.mark.slow
def test_an_evaluation_refuses_images_that_were_changed_since_the_training(few_images):
    folder, _ = few_images
    Image.fromarray(np.full((8, 8), 7, np.uint8)).save(folder / "own" / "dark" / "0.png")
    sampled_all_the_same = succeeded("inference.py checkpoint=run num_samples=4 rerun=false animation=none", folder)
    done = command("evaluate.py checkpoint=run", folder)
    assert done.returncode == 1
    assert "own has changed since the training" in done.stderr
    assert "samples.npy" in sampled_all_the_same
