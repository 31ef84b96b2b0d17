"""Options: the choices are those of the registries, help comes before everything heavy, and old command lines work."""

import ast
import dataclasses
import inspect
import os
import re
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import ROOT, command, started
from PIL import Image

import dataset
import diffusion
import model
import samplers as sampler
import schedule
from conf import choices
from conf.config import COMMANDS, Evaluate, Inference, Train
from conf.first import spin_briefly
from conf.groups import GROUPS, PRESETS
from conf.help import help_text, sections
from conf.option import check, fixed_options
from loss import objective
from runtime import checkpoint_file
from samplers import spacing


def names(options) -> set[str]:
    return {f.name for f in dataclasses.fields(options)}


# ---------------------------------------------------------------- choices


def test_choices_are_those_of_the_registries():
    assert choices.SCHEDULES.keys() == schedule.SCHEDULES.keys()
    assert choices.TARGETS.keys() == diffusion.TARGETS.keys()
    assert {name: row.steps for name, row in choices.SAMPLERS.items()} == {
        name: row.evaluations for name, row in sampler.SAMPLERS.items()
    }
    assert choices.SAMPLER_ALIASES == sampler.ALIASES
    assert choices.VARIANCES.keys() == set(sampler.VARIANCES) and choices.SPACINGS.keys() == spacing.SPACINGS.keys()
    assert GROUPS["dataset"].keys() == {*dataset.DATASETS, "file", *dataset.IMAGE_DATASETS}
    assert GROUPS["model"].keys() == model.MODELS.keys()


@pytest.mark.parametrize("target", choices.TARGETS)
@pytest.mark.parametrize("weight", choices.LOSS_WEIGHTS)
def test_every_weight_of_the_loss_is_known(target, weight):
    weights = objective.loss_weights(schedule.LinearNoiseScheduler(10), target, weight)
    assert weights.shape == (10,) and bool((weights > 0).all())


@pytest.mark.parametrize("name", GROUPS["model"])
def test_a_network_is_for_points_or_for_images(name):
    images = name.startswith("unet")
    model.check_takes(name, images=images)
    with pytest.raises(ValueError, match="is not for"):
        model.check_takes(name, images=not images)


@pytest.mark.parametrize("choice", GROUPS["model"])
def test_a_network_takes_exactly_its_options(choice):
    taken = inspect.signature(model.MODELS[choice]).parameters.values()
    options = names(GROUPS["model"][choice]) - {"name", "prediction"}
    assert options == {p.name for p in taken if p.kind is p.KEYWORD_ONLY}


@pytest.mark.parametrize("choice", dataset.DATASETS)
def test_a_point_set_takes_exactly_its_options(choice):
    assert names(GROUPS["dataset"][choice]) - {"name", "embed"} == {
        *inspect.signature(dataset.DATASETS[choice]).parameters
    }


def test_presets_set_options_that_exist_to_values_that_are_allowed():
    for preset in PRESETS.values():
        assert preset.keys() <= names(Train)
        check(Train(**preset))


# ---------------------------------------------------------------- checks


def test_an_alias_becomes_the_sampler_that_it_stands_for():
    options = Inference(sampler="dpm")
    check(options)
    assert options.sampler == "dpmpp_2m"
    with pytest.raises(ValueError, match=r"sampler must be one of ddpm, ddim, .*; got 'pdm'"):
        check(Inference(sampler="pdm"))


def test_a_resumed_training_may_change_what_does_not_change_the_training():
    assert names(Train) - fixed_options(Train) == {
        "resume", "task_name", "device", "threads", "precision", "checkpoint_every", "eval_samples", "ckpt_save_name",
        "record", "viewer", "logger", "viz_save", "viz_live", "viz_interval", "viz_num", "viz_t", "figures", "style",
    }  # fmt: skip


# ---------------------------------------------------------------- help


@pytest.mark.parametrize("name", COMMANDS)
def test_help_lists_every_option_once_with_its_meaning(name):
    text, groups = help_text(name), GROUPS.keys() & names(COMMANDS[name])
    listed = re.findall(r"^  ([a-z_]+)=", text, re.MULTILINE)
    assert sorted(listed) == sorted(names(COMMANDS[name]))
    words = " ".join(text.split())
    assert all(" ".join(f.metadata["help"].split()) in words for f in dataclasses.fields(COMMANDS[name]))
    blocks = dict(re.findall(r"^(\w+=\w+): .*\n((?:  .*\n)*)", text, re.MULTILINE))
    assert blocks.keys() == {f"{group}={choice}" for group in groups for choice in GROUPS[group]}
    for block, lines in blocks.items():
        group, choice = block.split("=")
        options = sorted(names(GROUPS[group][choice]) - {"name"})
        assert sorted(re.findall(rf"^  {group}\.(\w+)=", lines, re.MULTILINE)) == options
    assert max(map(len, text.splitlines())) <= 120


def test_help_is_in_sections():
    assert [*sections(Train)] == [
        "data", "network", "forward process", "training", "evaluation", "run folder", "recording", "pictures",
        "machine",
    ]  # fmt: skip
    assert [f.name for f in sections(Evaluate)["options"]] == ["samples", "dataset"]


def test_help_says_the_defaults_of_the_table():
    points, images = choices.SAMPLING.values()
    for name, counts in choices.NUM_SAMPLES.items():
        words = " ".join(help_text(name).split())
        assert f"{counts['points']} for points, {counts['images']} for images" in words
        if name == "compare":
            continue
        assert f"{points.guidance} for points, {images.guidance} for images" in words
        assert points.sampler == images.sampler and f"default: {points.sampler} " in words
        assert f"for images {images.sampling_steps}" in words and "50 for dpmpp_2m_sde," in words
    words = " ".join(help_text("train").split())
    lengths = "6.4 million points are learnt from in all, 2 million of moons, 2 million of file; but at most 100 [at"
    assert lengths in words


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize("name", COMMANDS)
def test_help_needs_neither_hydra_nor_torch(name, flag, tmp_path):
    code = (
        f"import runpy, sys; sys.argv = ['{name}.py', 'seed=1', {flag!r}]\n"
        f"try: runpy.run_path({str(ROOT / f'{name}.py')!r}, run_name='__main__')\n"
        "finally: assert not {'torch', 'hydra', 'omegaconf', 'numpy'} & {*sys.modules}"
    )
    done = started(["-c", code], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == help_text(name) + "\n"


def test_help_is_quick(tmp_path):
    """Against what it cannot do without; with Hydra it would be 15 times that, and with torch 100 times."""

    def seconds(*words):
        begin = time.perf_counter()
        subprocess.run([sys.executable, *words], cwd=tmp_path, check=True, capture_output=True)
        return time.perf_counter() - begin

    needed = "import dataclasses, pathlib, textwrap, typing"
    pairs = [(seconds(str(ROOT / "train.py"), "--help"), seconds("-c", needed)) for _ in range(5)]
    measured = min(help for help, _ in pairs) / min(imports for _, imports in pairs)
    print(f"--help / its imports = {measured:.2f}")
    assert measured < 5


def test_importing_a_command_answers_nothing(tmp_path):
    done = started(["-c", "import train; print('imported')", "--help"], tmp_path)
    assert (done.returncode, done.stdout) == (0, "imported\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_imports_conf_entry_before_anything_that_takes_time(name):
    imports = [node for node in ast.parse((ROOT / f"{name}.py").read_text()).body
               if isinstance(node, ast.Import | ast.ImportFrom)]  # fmt: skip
    assert isinstance(imports[0], ast.ImportFrom) and imports[0].module == "conf.entry"


# ---------------------------------------------------------------- the environment


@pytest.mark.parametrize(
    ("own", "then"),
    [
        ({}, {"GOMP_SPINCOUNT": "1000"}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
    ],
)
def test_threads_spin_briefly_unless_the_user_says_otherwise(own, then):
    environment = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    code = "import conf.entry, os, sys; assert 'torch' not in sys.modules; print(dict(os.environ))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment | own, capture_output=True, text=True)
    seen = ast.literal_eval(done.stdout)
    assert {k: seen[k] for k in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY") if k in seen} == then
    spin_briefly(own)
    assert own == then


# ---------------------------------------------------------------- the command line of an older guide


def test_main_trains_as_the_older_guide_says(tmp_path):
    g = np.random.default_rng(0)
    for label in "01":
        (tmp_path / "digits" / label).mkdir(parents=True)
        for i in range(8):
            image = Image.fromarray(g.integers(0, 255, (28, 28), dtype=np.uint8))
            image.save(tmp_path / "digits" / label / f"{i}.png")
    options = (
        "--task-name {} --data-path digits --batch-size 128 --num-epochs 40 --lr 1e-4 --viz-save --viz-live"
        " --viz-interval 200 --viz-num 8 --viz-t -1 --ckpt-save-name test_001.pth max_steps=2 eval_samples=0"
    )
    done = command(f"main.py --train-ddpm-model {options.format('runs/mnist_ddpm')}", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith("--train-ddpm-model: training lives in train.py")
    assert (tmp_path / "runs/mnist_ddpm/viz/progress.gif").exists()
    other = command(f"train.py dataset=mnist model=unet {options.format('runs/other')}", tmp_path)
    assert other.returncode == 0, other.stderr
    one, two = (checkpoint_file.load(tmp_path / "runs" / name / "test_001.pth") for name in ("mnist_ddpm", "other"))
    assert one["step"] == 2 and {**one["config"], "task_name": "runs/other"} == two["config"]
    assert all((one["ema"][k] == two["ema"][k]).all() for k in one["ema"])
    assert "--train-ddpm-model" in help_text("main")
