"""Every mistake that a person can make is answered in one line, with exit code 1, and leaves nothing behind."""

import json
import shutil
import subprocess

import numpy as np
import pytest
import torch
from conftest import ROOT, python, started, without_torch

from conf.messages import EXPECTED, as_expected, sentence

# A command answers these before it imports torch, which takes seconds.
EARLY = [
    ("train.py epochs=3", "unknown option epochs (did you mean num_epochs?)"),
    ("train.py learning_rate=3", "unknown option learning_rate (did you mean lr?)"),
    ("inference.py steps=3", "unknown option steps (did you mean sampling_steps?)"),
    ("evaluate.py judge_samples=3", "did you mean num_samples?"),
    ("main.py batch_size=3", "unknown option batch_size: it belongs to train.py"),
    ("train.py --model.width 3", "unknown option model.width"),
    ("main.py dataset.arms=3", "unknown option dataset.arms: it belongs to dataset=spirals"),
    ("train.py --data-path x", "unknown option dataset.root: it belongs to dataset=mnist and dataset=images"),
    ("train.py dataset=file --data-path nowhere.npy", "cannot use nowhere.npy"),
    ("train.py dataset=null", "dataset= needs one of moons, circles"),
    ("train.py ~dataset", "~dataset: an option cannot be taken away"),
    ("train.py +foo=1", "unknown option foo"),
    ("train.py foo", "foo: write options as name=value or --name value"),
    ("train.py seed=1,2,3", "seed=1,2,3 holds several values: write -m seed=1,2,3 for one run after the other"),
    ("train.py lr=choice(1,2)", "lr=choice(1,2) holds several values: write -m lr=choice(1,2)"),
    ("train.py --lr 1e-3 8e-3", "--lr takes one value: write -m lr=1e-3,8e-3 for one run after the other"),
    ("compare.py --samplers ddim heun", "or samplers=[ddim,heun] for a list"),
    ("train.py --hlep", "unknown option hlep (did you mean --help?)"),
    ("train.py --mutlirun", "unknown option mutlirun (did you mean --multirun?)"),
    ("train.py --config-dir nowhere", "there is no folder"),
    ("train.py -cn=mine", "-cn: the options are those of conf/config.py: write a preset"),
    ("train.py experiment=flwo", "experiment=flwo is unknown (did you mean flow?); choose one of flow, mnist_hour"),
    ("inference.py experiment=flow", "conf/experiment/flow.yaml, line 3: 'schedule' is no option of inference.py: it"),
    ("train.py resume=full experiment=flow", "resume= goes on with the options of its training: leave out experiment="),
    ("train.py like=nowhere", "there is no checkpoint at nowhere"),
    ("train.py like=full", "there is no checkpoint at full/last.pt"),
    ("train.py resume=nowhere", "there is no checkpoint at nowhere"),
    ("train.py resume=latest", "no checkpoint yet"),
    ("train.py lr.x=3", "unknown option lr.x: lr has no parts"),
    ("train.py --lr max_steps=3", "--lr: lr is not a switch but takes a value, as in lr=VALUE"),
    ("inference.py --no-checkpoint", "--no-checkpoint: checkpoint is not a switch"),
    ("inference.py sampler=rk4", "sampler must be one of ddpm, ddim, dpmpp_2m, "),
    ("main.py --track-samples.y=7", "unknown option track_samples.y"),
    ("main.py --train-ddpm-model --lr -1", "lr must be above 0"),
    ("train.py lr=fast", "lr needs a number; got fast; `python train.py --help all`"),
    ("train.py lr=-1", "lr must be above 0; got -1.0"),
    ("train.py lr=nan", "lr must be above 0"),
    ("train.py num_samples=1e3", "num_samples needs a whole number; got 1000.0"),
    ("train.py model=unit", "model=unit is unknown (did you mean unet?); choose one of"),
    ("train.py dataset=spiral", "dataset=spiral is unknown (did you mean spirals?); choose one of"),
    ("train.py dataset=my.csv", "is unknown (for a file: dataset=file dataset.path=my.csv); choose one of"),
    ("inference.py sampler=adam", "got 'adam' (did you mean adams?)"),
    ("train.py noise=0.1", "unknown option noise (did you mean dataset.noise?)"),
    ("train.py --dataset", "--dataset needs one of moons, circles"),
    ("train.py dataset=true", "dataset=true is no name: it needs one of moons, circles"),
    ("train.py --model", "--model needs one of mlp, linear"),
    ("train.py num_samples=100_000_000_000_000", "num_samples=100000000000000 needs at least 4,000,000 GB of memory"),
    ("train.py eval_samples=100_000_000_000_000", "eval_samples=100000000000000 needs at least 4,000,000 GB of memory"),
    ("evaluate.py checkpoint=full samples=three.npy", "without a checkpoint: leave out checkpoint, or samples"),
    ("evaluate.py sampler=ddim guidance=1 samples=three.npy", "leave out sampler and guidance, or samples"),
    ("train.py dataset=file dataset.path=labelled.csv dataset.label=knd", "its columns are x, y, kind"),
    (
        "train.py dataset=file dataset.path=labelled.csv",
        "the column kind holds text, such as 'a' and 'b': leave it out with dataset.columns",
    ),
    ("train.py task_name={full}", "already holds a run"),
    ("train.py resume={file}", "damaged or no checkpoint"),
    ("main.py --viewer cinema", "viewer must be one of auto, window, web, file"),
    ("main.py track_samples=[a]", "track_samples"),
    ("inference.py", "no checkpoint yet"),
    ("inference.py checkpoint=nowhere.pt", "no checkpoint at nowhere.pt"),
    ("inference.py checkpoint={file}", "damaged or no checkpoint"),
    ("inference.py num_samples=0", "num_samples must be at least 1"),
    ("inference.py sampling_steps=0", "sampling_steps must be at least 1"),
    ("inference.py observe=y=0.2 observe_noise=0", "observe_noise must be above 0"),
    ("inference.py observe=y=0.2 observe_noise=1e300", "observe_noise must be above 0 and at most 1e+100"),
    ("evaluate.py", "no checkpoint yet"),
    ("compare.py", "no checkpoint yet"),
    ("compare.py samplers=[ddim,rk4]", "each of samplers must be one of ddpm, ddim, dpmpp_2m, "),
    ("compare.py evaluations=[0]", "each of evaluations must be at least 1; got 0"),
    ("compare.py evaluations=5", "evaluations takes a list: write its values in brackets"),
    ("compare.py samplers=ddim", "samplers takes a list: write its values in brackets"),
    ("compare.py evaluations=null", "evaluations needs a value, and null is none"),
    ("train.py dataset=text dataset.text=???", "dataset.text=??? cannot be given: Hydra takes ??? for a missing"),
    ("compare.py sampling_steps=5", "unknown option sampling_steps"),
    ("evaluate.py samples=nowhere.npy", "nowhere.npy"),
    ("evaluate.py samples=full", "samples=full is a folder: name a file, or evaluate a run by checkpoint=full"),
    ("train.py dataset=file", "dataset.path=FILE"),
    ("train.py dataset=mnist model=unet", "scripts/prepare_mnist.py"),
    ("train.py dataset=images model=unet", "needs dataset.root=DIR"),
    ("train.py num_timesteps=1000000", "num_timesteps must be at least 2 and at most 100,000; got 1000000"),
    ("train.py dataset=file dataset.path=empty.csv", "empty.csv is not a table of numbers: it is empty"),
    ("train.py dataset=file dataset.path=names.csv", "names.csv is not a table of numbers: it has a row of names and"),
    ("loss/plot.py nowhere", "no loss to plot at nowhere"),
    ("train.py -m seed=1,2 epochs=3", "unknown option epochs (did you mean num_epochs?)"),
    ("train.py resume=labelled.csv", "labelled.csv is damaged or no checkpoint at all"),
    ("train.py resume=full", "there is no checkpoint at full/last.pt"),
    ("main.py dataset=picture dataset.path=nowhere.png", "cannot use nowhere.png: No such file or directory"),
    ("scripts/animate.py nowhere.npz", "there is no nowhere.npz; save_trajectory=true makes one"),
    ("scripts/gallery.py nowhere", "there is no checkpoint at nowhere"),
    ("scripts/reflow.py nowhere", "there is no checkpoint at nowhere"),
    ("scripts/search.py search lrr=1e-3..1e-2", "unknown option lrr (did you mean lr?)"),
    ("scripts/share.py checkpoint=nowhere", "there is no checkpoint at nowhere"),
    ("scripts/visualize_components.py --checkpoint nowhere", "there is no checkpoint at nowhere"),
    ("loss/report.py nowhere", "there is no folder nowhere; it is one that holds runs"),
]

# These need torch, or what is read with it.
LATE = [
    ("train.py schedule=flow model.prediction=eps", "model.prediction=eps cannot work where no signal is left"),
    ("train.py zero_snr=true model.prediction=eps", "take model.prediction=v, x0 or velocity"),
    ("train.py schedule=flow beta_end=0.1", "schedule=flow has its own noise"),
    ("train.py device=cuda:77", "device=cuda:77 cannot be used here"),
    ("train.py task_name={file}/x", "not a directory"),
    ("train.py task_name={full} -m seed=1,2", "already holds something; choose another name"),
    ("main.py --beta-start 0.5 --beta-end 0.1", "beta_start <= beta_end"),
    ("main.py track_samples=[500] --viewer file", "track_samples must lie in 0..499"),
    ("evaluate.py samples={file}", "file is not a table of numbers: it has a row of names and no points"),
    ("evaluate.py samples=nan.npy", "NaN"),
    ("evaluate.py samples=three.npy", "shape (N, 2)"),
    ("evaluate.py samples=few.npy", "at least 20 samples"),
    ("train.py dataset=digits", "model=mlp is not for images, which this data set holds: use model=unet"),
    ("train.py dataset=digits model=unet_small model.channels=[8,8,8,8,8]", "both sides must be divisible by 16"),
    ("train.py ckpt_save_name=a/b.pt", "ckpt_save_name must be a file name"),
    ("train.py dataset=file dataset.path=three.npy conditional=true", "conditional=true needs labels"),
    ("evaluate.py samples=three.npy dataset=digits", "shape (N, C, H, W)"),
    ("main.py schedule=cosine beta_end=0.1", "belong to schedule=linear"),
    ("train.py beta_start=0.5 beta_end=0.9", "too large for 1000 steps: after"),
    ("train.py threads=1000000", "threads must lie in 1.."),
    ("train.py dataset=file dataset.path=text.npy", "text.npy must be an array of real numbers"),
    ("train.py dataset=file dataset.path=complex.npy", "complex.npy must be an array of real numbers"),
    ("train.py dataset=file dataset.path=equal.npy eval_samples=0", "all points to learn from are the same"),
    ("train.py dataset=file dataset.path=two.npy eval_samples=0", "2 points are too few"),
    ("loss/plot.py", "no run yet"),
]


def prepare(folder):
    """Files that the lines speak of."""
    (folder / "file").write_text("hello")
    (folder / "full").mkdir()
    (folder / "full" / "loss.csv").write_text("step")
    np.save(folder / "nan.npy", np.full((200, 2), np.nan))
    np.save(folder / "three.npy", np.zeros((200, 3)))
    np.save(folder / "text.npy", np.full((200, 2), "a"))
    np.save(folder / "complex.npy", np.full((200, 2), 1j))
    (folder / "empty.csv").touch()
    (folder / "names.csv").write_text("a,b\n")
    (folder / "labelled.csv").write_text("x,y,kind\n1,2,a\n3,4,b\n5,7,a\n")
    np.save(folder / "equal.npy", np.ones((200, 2)))
    np.save(folder / "two.npy", np.eye(2))
    np.save(folder / "few.npy", np.zeros((10, 2)))


CODE = """
import json, os, shutil, sys
from tests.campaigns import fuzz
from loss import plot
answers = []
for i, line in enumerate(LINES):
    script, *words = line.split()
    here = shutil.copytree("prepared", str(i))
    with open(f"{i}.txt", "w+") as said:
        child = os.fork()
        if child == 0:
            fuzz.child([script.removesuffix(".py"), *words], here, said.fileno())
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        answers.append((code, said.read() if not said.seek(0) else ""))
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder that holds a folder with the files that the lines speak of, and the names of these."""
    folder = tmp_path_factory.mktemp("mistakes")
    (folder / "prepared").mkdir()
    prepare(folder / "prepared")
    return folder, files_in(folder / "prepared")


def files_in(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.suffix)


def assert_one_line(code, stderr, words):
    assert code == 1, stderr
    assert words.lower() in stderr.lower()
    assert len(stderr.strip().splitlines()) == 1, stderr


@pytest.mark.parametrize(("line", "words"), EARLY, ids=[line for line, _ in EARLY])
def test_a_mistake_is_answered_in_one_line_and_without_torch(line, words, prepared, tmp_path):
    folder, before = prepared
    here = shutil.copytree(folder / "prepared", tmp_path / "here")
    done = without_torch(line.format(file="file", full="full"), here)
    assert_one_line(done.returncode, done.stderr, words)
    assert files_in(here) == before


@pytest.fixture(scope="module")
def answers(prepared):
    """(exit code, stderr, files) of each line: forked from one process, which has imported every command."""
    folder, _ = prepared
    lines = [line.format(file="file", full="full") for line, _ in LATE]
    done = python(CODE.replace("LINES", repr(lines)), folder)
    assert done.returncode == 0, done.stderr
    return [(*answer, files_in(folder / str(i))) for i, answer in enumerate(json.loads(done.stdout))]


@pytest.mark.parametrize("i", range(len(LATE)), ids=[line for line, _ in LATE])
def test_a_mistake_that_needs_torch_is_answered_in_one_line(i, answers, prepared):
    code, stderr, left = answers[i]
    assert_one_line(code, stderr, LATE[i][1])
    assert left == prepared[1]


def test_a_real_process_answers_in_the_same_way(tmp_path):
    done = started("train.py epochs=3", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("unknown option epochs") and done.stderr.count("\n") == 1


def allocate_in_torch():
    torch.empty(10**15)


def allocate_in_numpy():
    np.ones(10**15)


@pytest.mark.parametrize("allocate", [allocate_in_torch, allocate_in_numpy])
def test_a_lack_of_memory_is_answered_in_one_line(allocate):
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        allocate()
    error = as_expected(caught.value)
    assert isinstance(error, EXPECTED)
    words = sentence("train", error)
    assert words.startswith("not enough memory (") and "\n" not in words
    assert words.endswith("): ask for fewer samples or rows, or smaller batches")


def test_any_other_error_of_torch_keeps_its_traceback():
    error = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    assert as_expected(error) is error and not isinstance(error, EXPECTED)


@pytest.mark.parametrize("script", ["train.py", "inference.py seed=1", "scripts/share.py", "loss/plot.py"])
def test_a_python_without_the_packages_says_how_to_get_them(script, tmp_path):
    """-S leaves out site-packages."""
    program, *words = script.split()
    done = started(["-S", str(ROOT / program), *words], tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "lacks hydra, numpy, torch: activate the environment first (source .venv/bin/activate)" in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize("folder", ["outputs", "lessons/outputs", "lessons/solutions/outputs"])
def test_git_ignores_what_programs_write(folder):
    done = subprocess.run(["git", "check-ignore", "-q", f"{folder}/lessons/1.png"], cwd=ROOT)
    assert done.returncode == 0
