"""Options: the choices are those of the registries, help comes before everything heavy, and old command lines work."""

import ast
import dataclasses
import inspect
import os
import re
import resource
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, started, succeeded
from PIL import Image

import dataset
import model
import schedule
from conf import choices
from conf.config import COMMANDS, Evaluate, Inference, Train
from conf.groups import CHOICE_DEFAULTS, GROUPS, MLP, Text
from conf.help import COMMON_OPTIONS, full_help, help_text, sections, short_help
from conf.option import check
from conf.resumed import ADDED, fixed_options, resumed_options
from conf.startup import spin_briefly
from loss import objective
from registry import implementation
from registry.data_rows import POINT_SETS, SETS_OF_FILES
from registry.network_rows import NETWORKS
from registry.process_rows import LOSS_WEIGHTS, TARGETS
from registry.sampler_rows import SAMPLING
from runtime import checkpoint_file


def names(options) -> set[str]:
    return {f.name for f in dataclasses.fields(options)}


# ---------------------------------------------------------------- choices


def test_data_sets_are_those_of_the_registries_and_files():
    assert GROUPS["dataset"].keys() == {*POINT_SETS, *SETS_OF_FILES}
    assert {"file", *dataset.IMAGE_DATASETS} == {*SETS_OF_FILES}


def test_networks_are_those_of_the_registry():
    assert GROUPS["model"].keys() == NETWORKS.keys()


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("weight", LOSS_WEIGHTS)
def test_every_weight_of_the_loss_is_known(target, weight):
    weights = objective.loss_weights(schedule.LinearNoiseScheduler(10), target, weight)
    assert weights.shape == (10,) and bool((weights > 0).all())


@pytest.mark.parametrize("name", GROUPS["model"])
def test_a_network_is_for_points_or_for_images(name):
    images = name.startswith("unet")
    model.check_model_takes(name, images=images)
    with pytest.raises(ValueError, match="is not for"):
        model.check_model_takes(name, images=not images)


@pytest.mark.parametrize("choice", GROUPS["model"])
def test_a_network_takes_exactly_its_options(choice):
    taken = inspect.signature(implementation(NETWORKS[choice])).parameters.values()
    options = names(GROUPS["model"][choice]) - {"name", "prediction"}
    assert options == {p.name for p in taken if p.kind is p.KEYWORD_ONLY}


@pytest.mark.parametrize("choice", POINT_SETS)
def test_a_point_set_takes_exactly_its_options(choice):
    assert names(GROUPS["dataset"][choice]) - {"name", "embed"} == {
        *inspect.signature(implementation(POINT_SETS[choice])).parameters
    }


@pytest.mark.parametrize("name", CHOICE_DEFAULTS)
def test_a_choice_changes_defaults_of_options_that_exist_to_values_that_are_allowed(name):
    assert CHOICE_DEFAULTS[name].keys() <= names(Train)
    check(Train(**CHOICE_DEFAULTS[name]))


# ---------------------------------------------------------------- checks


def test_an_alias_becomes_the_sampler_that_it_stands_for():
    options = Inference(sampler="dpm")
    check(options)
    assert options.sampler == "dpmpp_2m"


def test_an_unknown_sampler_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"sampler must be one of ddpm, ddim, .*; got 'pdm'"):
        check(Inference(sampler="pdm"))


def test_a_resumed_training_may_change_what_does_not_change_the_training():
    assert names(Train) - fixed_options() == {
        "resume", "like", "task_name", "device", "threads", "precision", "checkpoint_every", "eval_samples",
        "ckpt_save_name", "record", "viewer", "logger", "viz_save", "viz_live", "viz_interval", "viz_num", "viz_t",
        "figures", "style", "include",
    }  # fmt: skip


# The options that a training keeps for life, in the first version of moonwalk.
FIRST_VERSION = {
    "batch_size", "beta_end", "beta_start", "conditional", "dataset", "early_ema", "ema_decay", "label_dropout",
    "loss_weight", "lr", "max_steps", "model", "num_epochs", "num_samples", "num_timesteps", "optimizer",
    "references", "schedule", "seed", "t_power", "warmup_steps", "weight_decay", "zero_snr",
}  # fmt: skip


def test_a_run_of_an_older_version_lacks_no_option_but_those_with_a_value_for_it():
    """An option of later versions needs a value in ADDED. Otherwise no older run can be resumed."""
    assert fixed_options() - FIRST_VERSION == ADDED.keys()


# ---------------------------------------------------------------- help


@pytest.mark.parametrize("name", COMMANDS)
def test_help_lists_every_option_once_with_its_meaning(name):
    text, groups = full_help(name), GROUPS.keys() & names(COMMANDS[name])
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
        "machine", "plugins",
    ]  # fmt: skip
    assert [f.name for f in sections(Evaluate)["options"]] == ["samples", "dataset"]


@pytest.mark.parametrize("name", choices.NUM_SAMPLES)
def test_help_says_how_many_samples_are_drawn(name):
    counts = choices.NUM_SAMPLES[name]
    words = " ".join(full_help(name).split())
    assert f"{counts['points']} for points, {counts['images']} for images" in words


@pytest.mark.parametrize("name", [name for name in choices.NUM_SAMPLES if name != "compare"])
def test_help_says_how_samples_are_drawn(name):
    points, images = SAMPLING.values()
    words = " ".join(full_help(name).split())
    assert f"{points.guidance} for points, {images.guidance} for images" in words
    assert points.sampler == images.sampler and f"default: {points.sampler} " in words
    assert f"for images {images.sampling_steps}" in words and "50 for dpmpp_2m_sde," in words


def test_help_says_how_long_a_training_lasts():
    words = " ".join(full_help("train").split())
    lengths = "3.6 million points are learnt from in all, 0.8 million of moons, 1.2 million of file"
    lengths += ", but at most 100 passes, 400 of a file"
    assert f"{lengths} [at" in words
    assert lengths in " ".join(help_text("train").split())


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["--help", "all"]])
@pytest.mark.parametrize("name", COMMANDS)
def test_help_needs_neither_hydra_nor_torch(name, words, tmp_path):
    code = (
        f"import runpy, sys; sys.argv = ['{name}.py', 'seed=1', *{words!r}]\n"
        f"try: runpy.run_path({str(ROOT / f'{name}.py')!r}, run_name='__main__')\n"
        "finally: assert not {'torch', 'hydra', 'omegaconf', 'numpy'} & {*sys.modules}"
    )
    done = started(["-c", code], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (full_help(name) if "all" in words else short_help(name)) + "\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_on_a_screen(name):
    lines = short_help(name).splitlines()
    assert len(lines) <= 45
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize("name", COMMANDS)
def test_help_names_the_common_options_first_and_every_option_by_group(name):
    options, groups = re.split(r"\n\nAll options by group.*\n\n", short_help(name))
    assert re.findall(r"^  (\w+)=", options, re.MULTILINE) == [*COMMON_OPTIONS[name]]
    assert names(COMMANDS[name]) >= {*COMMON_OPTIONS[name]}
    assert len(COMMON_OPTIONS[name]) == 12
    groups = groups.partition("\n\n")[0]
    titles = re.findall(r"^  (\S+(?: \S+)*)  ", groups, re.MULTILINE)
    assert titles == [*sections(COMMANDS[name])]
    listed = re.findall(r"\w+", groups)
    assert {*listed} - set(" ".join(titles).split()) <= names(COMMANDS[name]) <= {*listed}


def test_help_of_a_training_begins_with_the_five_basics():
    listed = re.findall(r"^  (\w+)=", short_help("train"), re.MULTILINE)
    assert listed[:5] == ["dataset", "model", "num_epochs", "seed", "task_name"]


@pytest.mark.parametrize(
    ("line", "blocks"),
    [
        ("dataset=spirals --help", ["dataset=spirals"]),
        ("--help --dataset spirals --seed 3", ["dataset=spirals"]),
        ("model=unet dataset=mnist -h", ["model=unet", "dataset=mnist"]),
        ("seed=3 --help", []),
    ],
)
def test_help_adds_the_options_of_the_data_set_and_network_in_the_line(line, blocks):
    text = help_text("train", line.split())
    assert text.startswith(short_help("train"))
    shown = {block.splitlines()[0].split(":")[0]: block for block in text[len(short_help("train")) :].split("\n\n")[1:]}
    assert [*shown] == blocks
    for block in shown.values():
        assert block in full_help("train")


def test_help_of_a_group_is_that_part_of_help_all():
    assert help_text("train", ["--help", "run", "folder"]) in full_help("train")
    assert help_text("train", ["--help", "run", "folder"]).splitlines()[0] == "run folder"
    with pytest.raises(ValueError, match=r"^--help fun: choose all, experiment or one of data, network, "):
        help_text("train", ["--help", "fun"])


def test_help_of_an_unknown_data_set_names_those_there_are(tmp_path):
    done = started("train.py dataset=spiral --help", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("dataset=spiral is unknown (did you mean spirals?); choose one of moons, circles, ")
    assert done.stderr.count("\n") == 1


def test_help_is_quick(tmp_path):
    """Against the imports that it cannot do without. With Hydra it would take 15 times as long, with torch 100 times.

    CPU seconds are compared, and the least of several: what else the machine does only adds.
    """

    def seconds(*words):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *words], cwd=tmp_path, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    needed = "import dataclasses, pathlib, textwrap, typing"
    pairs = [(seconds(str(ROOT / "train.py"), "--help"), seconds("-c", needed)) for _ in range(3)]
    measured = min(help for help, _ in pairs) / min(imports for _, imports in pairs)
    print(f"--help / its imports = {measured:.2f}")
    assert measured < 5


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_imports_conf_entry_before_anything_that_takes_time(name):
    imports = [node for node in ast.parse((ROOT / f"{name}.py").read_text()).body
               if isinstance(node, ast.Import | ast.ImportFrom)]  # fmt: skip
    assert isinstance(imports[0], ast.ImportFrom) and imports[0].module == "conf.entry"


# ---------------------------------------------------------------- the environment

EACH_ENVIRONMENT = pytest.mark.parametrize(
    ("own", "then"),
    [
        ({}, {"GOMP_SPINCOUNT": "1000"}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
    ],
)


@EACH_ENVIRONMENT
def test_threads_spin_briefly_unless_the_user_says_otherwise(own, then):
    environment = {**own}
    spin_briefly(environment)
    assert environment == then


@EACH_ENVIRONMENT
def test_a_command_says_how_long_threads_spin_before_it_imports_torch(own, then):
    environment = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    code = "import conf.entry, os, sys; assert 'torch' not in sys.modules; print(dict(os.environ))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment | own, capture_output=True, text=True)
    seen = ast.literal_eval(done.stdout)
    assert {k: seen[k] for k in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY") if k in seen} == then


# ---------------------------------------------------------------- the command line of an older guide


OLDER = (
    "--data-path digits --batch-size 128 --num-epochs 40 --lr 1e-4 --viz-save --viz-live"
    " --viz-interval 200 --viz-num 8 --viz-t -1 --ckpt-save-name test_001.pth max_steps=2 eval_samples=0"
)


@pytest.fixture(scope="module")
def older(tmp_path_factory):
    """A folder of digits, with runs/mnist_ddpm as the older guide trains it; and what that printed."""
    folder = tmp_path_factory.mktemp("older")
    g = np.random.default_rng(0)
    for label in "01":
        (folder / "digits" / label).mkdir(parents=True)
        for i in range(8):
            image = Image.fromarray(g.integers(0, 255, (28, 28), dtype=np.uint8))
            image.save(folder / "digits" / label / f"{i}.png")
    printed = succeeded(f"main.py --train-ddpm-model --task-name runs/mnist_ddpm {OLDER}", folder)
    return folder, printed


@pytest.mark.slow
def test_main_says_where_training_lives(older):
    assert older[1].splitlines()[0].startswith("--train-ddpm-model: training lives in train.py")


@pytest.mark.slow
def test_a_training_by_the_older_guide_has_its_film(older):
    assert (older[0] / "runs/mnist_ddpm/viz/progress.gif").exists()


@pytest.mark.slow
def test_a_training_by_the_older_guide_is_that_of_train(older):
    succeeded(f"train.py dataset=mnist model=unet --task-name runs/other {OLDER}", older[0])
    one, two = (checkpoint_file.load(older[0] / "runs" / name / "test_001.pth") for name in ("mnist_ddpm", "other"))
    assert one["step"] == 2 and {**one["config"], "task_name": "runs/other"} == two["config"]
    assert all((one["ema"][k] == two["ema"][k]).all() for k in one["ema"])


def test_the_help_of_main_names_the_option_of_the_older_guide():
    assert "--train-ddpm-model" in full_help("main")


@pytest.mark.parametrize(
    "text", ["${oc.env:SECRET}", "\\${oc.env:SECRET}", "\\\\${x}", "${", "a\\", "b$x_$", "${a", "\\d"]
)
def test_texts_of_a_checkpoint_are_taken_as_they_are(text, monkeypatch, tmp_path):
    monkeypatch.setenv("SECRET", "of the environment")
    begun = dataclasses.asdict(Train(dataset=Text(text=text), model=MLP(), ema_decay=0.5))
    assert resumed_options(Train(), set(), begun, tmp_path).dataset.text == text
