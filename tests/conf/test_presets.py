"""Presets, like=RUN and Hydra's own flags: what they set, which value wins, and what is refused in one sentence."""

import os
import re
import shlex
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, command, started
from hydra._internal.utils import get_args_parser
from omegaconf import OmegaConf

from conf import flags
from conf.config import COMMANDS, Train
from conf.early_check import check_early
from conf.flags import command_line
from conf.groups import CHOICE_DEFAULTS, MLP, Moons, Spirals, Text
from conf.help import help_text
from conf.messages import EXPECTED, sentence
from conf.presets import HEADER, comment, preset_paths, presets_of
from conf.store import checked, composed
from runtime import checkpoint_file

OWN = ["flow", "mnist_hour", "mnist_quick", "own_csv", "points_quick"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The working directory of the test."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, text: str, header: str = f"{HEADER}\n# a comment\n") -> Path:
    """presets/experiment/NAME.yaml; the text begins in its third line."""
    path = Path("presets", "experiment", f"{name}.yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(header + text)
    return path


def options(line: str, name: str = "train"):
    """The options of a command line, as a run has them."""
    return checked(composed(name, command_line(shlex.split(line)).overrides))


def refusal(line: str, name: str = "train") -> str:
    """The sentence with which a command line is refused before torch is imported."""
    with pytest.raises(EXPECTED) as error:
        check_early(name, command_line(shlex.split(line)), False)
    text = sentence(name, error.value)
    assert "\n" not in text
    return text


def saved(config: object, path: str = "runs/a/last.pt") -> str:
    """A checkpoint with these options; the folder of its run."""
    Path(path).parent.mkdir(parents=True)
    checkpoint_file.save(path, {"config": config, "net": {"weight": torch.zeros(3)}})
    return str(Path(path).parent)


# ---------------------------------------------------------------- our own presets


def test_there_are_five_presets_with_a_comment_each():
    assert [*preset_paths()] == OWN
    assert all(presets_of("train").values())


@pytest.mark.parametrize("name", OWN)
def test_a_preset_of_ours_sets_what_its_file_says_and_can_be_used(name):
    np.savetxt("my.csv", np.arange(20).reshape(10, 2), delimiter=",")
    line = f"experiment={name}" + (" --data-path my.csv" if name == "own_csv" else "")
    content = OmegaConf.load(ROOT / "conf" / "experiment" / f"{name}.yaml")
    content.pop("defaults", None)
    cfg = composed("train", command_line(line.split()).overrides)
    assert OmegaConf.merge(cfg, content) == cfg
    assert options(line) != options("dataset=moons")


def test_the_data_path_of_the_table_preset_may_have_any_name():
    np.savetxt("points.data", np.arange(20).reshape(10, 2))
    for line in ("experiment=own_csv --data-path points.data", "--data-path points.data experiment=own_csv"):
        assert options(line).dataset.path == "points.data"


def test_without_a_file_the_table_preset_asks_for_one():
    assert refusal("experiment=own_csv").startswith("dataset=file needs dataset.path=FILE")


def test_the_preset_that_the_page_shows_can_be_used_by_the_lines_of_the_page():
    page = (ROOT / "docs" / "presets.md").read_text()
    (content,) = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    write("wide", content, header="")
    lines = re.findall(r"^python train.py (.*presets.* experiment=.*wide.*)$", page, re.MULTILINE)
    assert len(lines) == 3
    for line in lines:
        found = options(line)
        assert (found.dataset.name, found.dataset.arms, found.lr) == ("spirals", 3, 4e-3)
    assert "wide                    a wider network" in help_text(
        "train", ["--config-dir", "presets", "--help", "experiment"]
    )


# ---------------------------------------------------------------- which value wins


def test_what_is_typed_wins_over_a_preset_and_a_preset_over_the_defaults_of_its_network():
    write(
        "small", "defaults:\n  - override /model: unet_small\n  - override /dataset: digits\nlr: 0.5\nbatch_size: 7\n"
    )
    found = options("-cd presets batch_size=9 experiment=small")
    assert (found.lr, found.batch_size, found.dataset.name) == (0.5, 9, "digits")
    assert found.num_epochs == CHOICE_DEFAULTS["unet_small"]["num_epochs"]


@pytest.mark.parametrize("added", ["-cd presets", "--config-dir=presets", "hydra.searchpath=[file://presets]"])
@pytest.mark.parametrize("word", ["experiment=x", "+experiment=x", "--experiment x"])
def test_a_preset_is_found_in_every_folder_that_hydra_searches(added, word):
    write("x", "lr: 0.5\n")
    assert options(f"{added} {word}").lr == 0.5
    assert "\n  x                       a comment" in help_text("train", [*added.split(), "--help"])


def test_folders_may_be_added_in_both_ways_and_have_odd_names(tmp_path):
    write("x", "lr: 0.5\n")
    odd = tmp_path / "it's, [odd] (1)"
    (odd / "experiment").mkdir(parents=True)
    (odd / "experiment" / "y.yaml").write_text(f"{HEADER}\nseed: 3\n")
    line = command_line(["hydra.searchpath=[file://presets]", "--config-dir", str(odd), "experiment=[x,y]"])
    found = checked(composed("train", line.overrides))
    assert (found.lr, found.seed) == (0.5, 3)


def test_presets_combine_and_may_build_on_each_other():
    write("x", "lr: 0.5\nseed: 1\n")
    write("y", "defaults:\n  - x\n  - _self_\nseed: 2\n")
    write("z", "t_power: 2\n")
    found = options("-cd presets experiment=[y,z]")
    assert (found.lr, found.seed, found.t_power) == (0.5, 2, 2)


def test_null_is_no_preset():
    assert options("experiment=null") == options("")


@pytest.mark.parametrize("preset", ["mnist_quick", "flow"])
def test_a_length_in_epochs_that_is_typed_replaces_the_steps_of_a_preset(preset):
    found = options(f"experiment={preset} num_epochs=3")
    assert (found.num_epochs, found.max_steps) == (3, None)
    assert options(f"experiment={preset} num_epochs=3 max_steps=4").max_steps == 4


def test_a_preset_with_options_of_another_command_works_there():
    write("film", "sampler: ddim\nsampling_steps: 7\n")
    assert options("-cd presets experiment=film", "inference").sampling_steps == 7
    assert "film" in presets_of("inference", ["presets"])
    assert "film" not in presets_of("train", ["presets"])


# ---------------------------------------------------------------- mistakes

MISTAKES = {
    "lrr: 3": "line 3: 'lrr' is no option of train.py (did you mean lr?)",
    "seed: 1\nlr: fast": "line 4: lr needs a number; got fast",
    "seed: 1\n\nlr: -1": "line 5: lr must be above 0; got -1.0",
    "num_epochs: 1.5": "line 3: num_epochs needs a whole number; got 1.5",
    "seed: null": "line 3: seed needs a value, and null is none",
    "schedule: cosin": "line 3: schedule must be one of linear, scaled_linear, cosine, sigmoid, flow; got 'cosin'",
    "lr: ???": "line 3: lr: Structured config of type `Train` has missing mandatory value: lr",
    "sampler: ddim": "line 3: 'sampler' is no option of train.py: it belongs to inference.py and evaluate.py",
    "lr: [1\nseed: 3": "line 4: it is no YAML (expected ',' or ']', but got ':')",
    "lr: 1\nlr: 2": "line 4: it is no YAML (found duplicate key lr)",
    "---\nlr: 1\n---\nlr: 2": "line 5: it is no YAML (but found another document)",
    "lr: 1\x01": "it is no YAML (unacceptable character",
    "a: &a [*a]": "it is no YAML (",
    "- lr": "line 1: it is no list of options",
    "words": "line 1: it is no list of options",
    "dataset: mnist": "line 3: choose it by '- override /dataset: mnist' below 'defaults:'",
    "dataset.noise: 1": "line 3: write 'noise:' below 'dataset:', not dataset.noise",
    "dataset:\n  noise: 1\n  arms: 3": "line 5: 'dataset.arms' is no option of train.py: it belongs to dataset=spirals",
    "dataset:\n  noise: -1": "line 4: dataset.noise must be at least 0; got -1.0",
    "dataset:\n  name: spirals": "line 4: 'dataset.name' is no option of train.py",
    "defaults: moons": "line 3: defaults is a list, one '- ...' a line",
    "defaults:\n  - override /dataset: spiral": "line 4: dataset=spiral is unknown (did you mean spirals?)",
    "defaults:\n  - /dataset: spirals": "line 4: the defaults of a preset are 'override /dataset: NAME'",
    "defaults:\n  - override /hydra/launcher: joblib": "line 4: the defaults of a preset are 'override /dataset: NAME'",
    "defaults:\n  - x": "it is among its own defaults",
    "true: 3": "'True' is no option of train.py",
    "like: runs/a": "line 3: like cannot be set by a preset: type it",
    "resume: latest": "line 3: resume cannot be set by a preset: type it",
    "_target_: os.system": "line 3: '_target_' is no option of train.py",
    "model:\n  _target_: os.system": "line 4: 'model._target_' is no option of train.py",
    "hydra:\n  launcher:\n    _target_: os.system": "line 3: hydra cannot be set by a preset: type it",
    "lr: !!python/object/apply:os.mkdir [made]": "line 3: it is no YAML (could not determine a constructor",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_in_a_preset_is_named_with_its_file_and_line(text):
    path = write("x", f"{text}\n")
    for line in ("-cd presets experiment=x", "-cd presets -m experiment=flow,x"):
        found = refusal(line)
        assert found.startswith(str(path))
        assert MISTAKES[text] in found
    assert not Path("made").exists()


def test_a_file_without_the_line_for_hydra_says_which():
    path = write("x", "lr: 1\n", header="")
    assert refusal("-cd presets experiment=x").startswith(f"{path}, line 1: write {HEADER} there")


def test_files_that_cannot_be_read_are_named():
    write("x", "").write_bytes(b"\xff\xfe")
    Path("presets/experiment/y.yaml").mkdir()
    Path("presets/experiment/z.yaml").symlink_to("nowhere")
    assert refusal("-cd presets experiment=x") == "presets/experiment/x.yaml is no text in UTF-8"
    assert refusal("-cd presets experiment=y").endswith("experiment/y.yaml: Is a directory")
    assert refusal("-cd presets experiment=z").endswith("experiment/z.yaml: No such file or directory")
    assert help_text("train", ["--help", "--config-dir", "presets"]).count("cannot be read") == 3


def test_presets_that_contradict_each_other_are_both_named_unless_the_option_is_typed():
    write("x", "lr: 1e-3\nseed: 1\n")
    write("y", "seed: 1\n\nlr: 2e-3\n")
    expected = (
        "presets/experiment/x.yaml, line 3 sets lr=0.001, and presets/experiment/y.yaml, line 5 sets lr=0.002:"
        " leave out one of the presets, or type lr=VALUE"
    )
    assert refusal("-cd presets experiment=[x,y]") == expected
    assert refusal("-cd presets -m experiment=flow,[x,y]") == expected
    check_early("train", command_line(["-cd", "presets", "experiment=[x,y]", "lr=3"]), False)
    assert options("-cd presets experiment=[x,y] lr=3").lr == 3


def test_presets_that_choose_different_data_contradict_each_other():
    write("x", "defaults:\n  - override /dataset: spirals\n")
    write("y", "defaults:\n  - override /dataset: circles\n")
    assert "sets dataset=spirals, and presets/experiment/y.yaml, line 4 sets dataset=circles" in refusal(
        "-cd presets experiment=[x,y]"
    )
    assert options("-cd presets experiment=[x,y] dataset=helix").dataset.name == "helix"


def test_an_unknown_preset_is_answered_with_those_there_are():
    write("x", "")
    expected = f"experiment=flwo is unknown (did you mean flow?); choose one of {', '.join(OWN)}, x, or write"
    assert refusal("-cd presets experiment=flwo").startswith(expected)
    assert "(did you mean flow?)" in refusal("experiment=conf/experiment/flow.yaml")


def test_a_preset_for_another_data_set_than_the_typed_one_says_so():
    found = refusal("experiment=mnist_hour dataset=moons model=mlp")
    assert found.startswith("conf/experiment/mnist_hour.yaml, line 7: 'model.channels' is no option of train.py: it")


@pytest.mark.parametrize("name", ["train.yaml", "dataset/moons.yaml", "hydra/launcher/basic.yaml"])
def test_an_added_folder_replaces_no_options(name):
    path = Path("presets", name)
    path.parent.mkdir(parents=True)
    path.write_text("hydra:\n  callbacks:\n    x:\n      _target_: os.mkdir\n      path: made\n")
    assert "would replace options of moonwalk: presets lie in presets/experiment" in refusal(
        "hydra.searchpath=[file://presets]"
    )


def test_an_added_folder_has_no_preset_of_our_name():
    write("flow", "lr: 1\n")
    assert refusal("hydra.searchpath=[file://presets] experiment=flow").endswith(
        "presets/experiment/flow.yaml has the name of a preset of moonwalk: rename it"
    )


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("-cd nowhere", "there is no folder"),
        ("hydra.searchpath=file://presets", "hydra.searchpath takes a list: write hydra.searchpath=[file://DIR]"),
        ("hydra.searchpath=[pkg://os]", "write file://DIR, not pkg://os"),
        ("experiment=", "experiment= needs the name of a preset"),
        ("--experiment", "--experiment needs the name of a preset"),
        ("experiment=flow,own_csv", "write -m experiment=flow,own_csv for one run after the other"),
        ("-c jop", "-c needs one of job, hydra, all; got jop (did you mean job?)"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_sentence(line, words):
    assert words in refusal(line)


def test_the_comment_of_a_preset_is_its_first_line_that_is_not_for_hydra():
    assert comment(f"{HEADER}\n\n#  what it is\n# more\nlr: 1") == "what it is"
    assert comment(f"# what it is\n{HEADER}\nlr: 1") == "what it is"
    assert comment(f"{HEADER}\nlr: 1\n# late") == ""


def test_interpolations_are_those_of_hydra(monkeypatch):
    write("x", "seed: 4\nnum_epochs: ${seed}\ntask_name: runs/${oc.env:MOON}\n")
    monkeypatch.setenv("MOON", "full")
    found = options("-cd presets experiment=x")
    assert (found.num_epochs, found.task_name) == (4, "runs/full")
    monkeypatch.delenv("MOON")
    assert "Environment variable 'MOON' not found" in refusal("-cd presets experiment=x")


# ---------------------------------------------------------------- like=RUN

OF_RUN = Train(
    dataset=Spirals(arms=3), model=MLP(hidden=32), lr=5e-3, seed=7, max_steps=20, eval_samples=0,
    task_name="runs/a", device="cpu", figures=["pdf"], ckpt_save_name="old.pt", shards=1,
)  # fmt: skip
NOT_TAKEN = {"task_name": None, "device": "auto", "figures": ["png"], "ckpt_save_name": "last.pt", "like": "runs/a"}


def test_a_new_training_has_the_options_of_the_run_but_not_its_place():
    saved(asdict(OF_RUN))
    assert asdict(options("like=runs/a")) == {**asdict(OF_RUN), **NOT_TAKEN}
    assert options("like=runs/a/last.pt").lr == options("like=latest").lr == 5e-3


def test_what_is_typed_wins_over_a_preset_and_a_preset_over_the_other_run():
    saved(asdict(OF_RUN))
    write("x", "lr: 1\nseed: 1\ndataset:\n  arms: 4\n")
    found = options("-cd presets experiment=x like=runs/a lr=2")
    assert (found.lr, found.seed, found.dataset.arms, found.model.hidden) == (2, 1, 4, 32)
    check_early("train", command_line(["-cd", "presets", "experiment=x", "like=runs/a", "lr=2"]), False)


def test_another_data_set_or_network_has_its_own_options():
    saved(asdict(OF_RUN))
    assert options("like=runs/a dataset=moons").dataset == Moons()
    found = options("like=runs/a dataset=digits model=unet_small")
    assert (found.schedule, found.seed) == (CHOICE_DEFAULTS["unet_small"]["schedule"], 7)


def test_the_network_of_the_run_does_not_bring_its_defaults_again():
    saved(asdict(options("dataset=digits model=unet_small lr=0.5 batch_size=7")))
    found = options("like=runs/a")
    assert (found.lr, found.batch_size, found.schedule) == (0.5, 7, "cosine")


@pytest.mark.parametrize("line", ["num_epochs=3", "-cd presets experiment=x"])
def test_a_length_in_epochs_replaces_the_steps_of_the_run(line):
    saved(asdict(OF_RUN))
    write("x", "num_epochs: 3\n")
    found = options(f"{line} like=runs/a")
    assert (found.num_epochs, found.max_steps) == (3, None)
    assert options("like=runs/a").max_steps == 20


def test_texts_of_the_run_are_taken_as_they_are(monkeypatch):
    monkeypatch.setenv("SECRET", "1")
    for text in ("${oc.env:SECRET}", r"\${oc.env:SECRET}", "${", "???x", "a,b"):
        run = saved(
            asdict(Train(dataset=Text(text=text), model=MLP())), f"runs/{len(list(Path().rglob('*.pt')))}/last.pt"
        )
        assert options(f"like={run}").dataset.text == text


def test_removed_options_of_older_versions_are_left_out_and_unknown_ones_refused():
    saved({**asdict(OF_RUN), "cuda_graph": True})
    assert options("like=runs/a").lr == 5e-3
    saved({**asdict(OF_RUN), "moons": 3}, "runs/b/last.pt")
    assert refusal("like=runs/b").startswith(
        "like=runs/b cannot be used: the checkpoint runs/b/last.pt holds options that are not those of this version"
    )
    saved({"lr": 3}, "runs/c/last.pt")
    assert "runs/c/last.pt lacks batch_size, " in refusal("like=runs/c")
    saved(None, "runs/d/last.pt")
    assert refusal("like=runs/d").endswith("runs/d/last.pt lacks its options")


def test_a_checkpoint_that_names_code_runs_none_of_it():
    class Harmful:
        def __reduce__(self):
            return os.mkdir, ("made",)

    Path("runs/a").mkdir(parents=True)
    torch.save({"config": Harmful()}, "runs/a/last.pt")
    assert "holds posix.mkdir, which is no plain tensor" in refusal("like=runs/a")
    assert not Path("made").exists()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("like=nowhere", "there is no checkpoint at nowhere"),
        ("like=latest", "no checkpoint yet below outputs or runs"),
        ("like=text.pt", "the checkpoint text.pt is damaged or no checkpoint at all"),
        ("like=empty", "there is no checkpoint at empty/last.pt"),
        ("-m like=a,b", "a sweep begins with the options of one run: name one"),
    ],
)
def test_a_run_that_cannot_be_used_is_refused(line, words):
    Path("text.pt").write_text("text")
    Path("empty").mkdir()
    assert words in refusal(line)


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "train"])
def test_other_commands_have_no_such_option(name):
    Path("outputs").mkdir()
    assert refusal("like=nowhere", name).startswith("unknown option like: it belongs to train.py")


# ---------------------------------------------------------------- Hydra's flags

# For each flag of Hydra's manual: a line, and what its answer holds; or why it is refused.
ANSWERS = {
    "--help": ("--help", "mnist_hour"),
    "--hydra-help": ("--hydra-help", "Hydra (1.3"),
    "--version": ("--version", "Hydra 1.3"),
    "--cfg": ("--cfg job experiment=flow", "schedule: flow"),
    "--resolve": ("--cfg job --resolve --package dataset", "name: moons"),
    "--package": ("experiment=mnist_hour --cfg job --package model", "- 128"),
    "--info": ("--info searchpath --config-dir presets", "presets"),
}
REFUSED = {
    "--config-path": ("--config-path presets", "write a preset, and add its folder by --config-dir DIR"),
    "--config-name": ("--config-name mine", "write a preset, and add its folder by --config-dir DIR"),
    "--experimental-rerun": ("--experimental-rerun x.pickle", "a pickled job could run any code: write resume=RUN"),
}
# These begin a training, or need a shell: tests/commands/test_presets_in_use.py.
IN_USE = {"--run", "--multirun", "--config-dir", "--shell-completion"}


def test_every_flag_of_hydra_has_a_test():
    long = {action.option_strings[0] for action in get_args_parser()._actions if action.option_strings}
    assert long == {*ANSWERS, *REFUSED, *IN_USE}


def test_the_values_of_flags_are_those_of_hydra():
    choices = {action.dest: action.choices for action in get_args_parser()._actions}
    assert tuple(choices["cfg"] or ()) == flags.CFG_VALUES
    assert tuple(choices["info"] or ()) == flags.INFO_VALUES


@pytest.mark.parametrize("flag", ANSWERS)
def test_a_flag_of_hydra_is_answered(flag, folder):
    write("x", "lr: 1\n")
    line, words = ANSWERS[flag]
    done = command(["train.py", *line.split()], folder)
    assert done.returncode == 0, done.stderr
    assert words in done.stdout
    assert [path.name for path in folder.iterdir()] == ["presets"]


@pytest.mark.parametrize("flag", REFUSED)
def test_a_flag_that_moonwalk_has_no_use_for_is_refused(flag, folder):
    line, words = REFUSED[flag]
    done = command(["train.py", *line.split()], folder)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{flag}: ")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("value", flags.INFO_VALUES)
def test_every_kind_of_info_is_printed(value, folder):
    done = command(["train.py", "-i", value, "experiment=flow"], folder)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) > 5


def test_a_wrong_preset_is_not_printed(folder):
    write("x", "lrr: 3\n")
    done = command("train.py -cd presets experiment=x --cfg job", folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"presets/experiment/x.yaml, {MISTAKES['lrr: 3']}\n"


@pytest.mark.parametrize("line", ["--package model", "--cfg", "--cfg=jop", "--resolve", "--cfg job -m", "--config-dir"])
def test_flags_that_cannot_stand_so_are_one_sentence(line, folder):
    done = command(["train.py", *line.split()], folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("line", ["--cfg job experiment=flow", "--info defaults", "--shell-completion install=bash"])
def test_what_hydra_answers_needs_no_torch(line, folder):
    code = (
        f"import runpy, sys; sys.argv = ['train.py', *{line.split()}]\n"
        f"try: runpy.run_path({str(ROOT / 'train.py')!r}, run_name='__main__')\n"
        "finally: assert 'torch' not in sys.modules"
    )
    done = started(["-c", code], folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout
