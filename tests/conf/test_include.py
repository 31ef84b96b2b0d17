"""include=FILE: what names a file, what runs it, and what is refused in one sentence."""

import pickle
import sys
from pathlib import Path

import pytest
from conftest import ROOT, started, without_torch

from conf.early_check import check_early
from conf.flags import command_line
from conf.groups import added_member
from conf.include import included_files, run_file
from conf.option import check
from images.sets import IMAGE_DATASETS
from metrics import image_metrics
from metrics.distances import METRICS
from metrics.significance import TESTS
from registry import plugins, register_network, register_points
from registry.data_rows import POINT_SETS, SETS_OF_FILES
from registry.network_rows import NETWORKS
from registry.own_options import OwnOption, own_options
from registry.plugins import missing_row
from registry.sampler_rows import SAMPLERS

SAMPLER = """from registry import register_sampler


@register_sampler("mine")
def mine(*arguments, **options):
    yield
"""
SIZES = [1, 2]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch, own_rows):
    """The working directory of the test."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(text: str | bytes, capsys) -> str:
    """What the program says at its end when a file with this text is included."""
    content = text if isinstance(text, bytes) else text.encode()
    Path("bad.py").write_bytes(content)
    with pytest.raises(SystemExit) as end:
        run_file("bad.py")
    return capsys.readouterr().err + ("" if end.value.code == 1 else str(end.value.code))


# ---------------------------------------------------------------- which files


@pytest.mark.parametrize(
    ("line", "files", "others"),
    [
        ("lr=1", None, "lr=1"),
        ("include=a.py lr=1", ["a.py"], "lr=1"),
        ("+include=a.py", ["a.py"], ""),
        ("--include a.py --lr 1", ["a.py"], "--lr 1"),
        ("--include=a.py -m", ["a.py"], "-m"),
        ("include=[a.py,b/c.py]", ["a.py", "b/c.py"], ""),
        ("include=a.py,b.py", ["a.py", "b.py"], ""),
        ("include=['a b.py']", ["a b.py"], ""),
        ("include=a.py include=b.py", ["b.py"], ""),
        ("include=null", [], ""),
        ("include=[]", [], ""),
        ("--include", None, "--include"),
        ("included=a.py", None, "included=a.py"),
    ],
)
def test_the_files_of_a_command_line(line, files, others):
    words = line.split(" ") if "'" not in line else [line]
    assert included_files(words) == (files, others.split())


@pytest.mark.parametrize(
    "line", ["include=a.py", "--include a.py", "--include=a.py", "include=[a.py]", "+include=a.py"]
)
def test_hydra_reads_the_same_files(line):
    assert command_line(line.split()).overrides == ["include=[a.py]"]


def test_a_file_is_run_once_and_its_classes_can_be_pickled():
    Path("mine.py").write_text(
        "import dataclasses\nfrom helper import NUMBER\n\n\n@dataclasses.dataclass\nclass Kept:\n    x: int = NUMBER\n"
        f"\n\n{SAMPLER}"
    )
    Path("helper.py").write_text("NUMBER = 7\n")
    run_file("mine.py")
    run_file("./mine.py")
    kept = sys.modules["include_mine"].Kept()
    assert pickle.loads(pickle.dumps(kept)) == kept and kept.x == 7
    assert SAMPLERS["mine"].code.__name__ == "mine"
    del sys.modules["helper"]


def test_help_knows_what_a_file_adds(folder):
    Path("mine.py").write_text(SAMPLER)
    for line in ("inference.py include=mine.py --help", "inference.py --help --include mine.py"):
        done = started(line, folder)
        assert done.returncode == 0 and "adams, mine]" in " ".join(done.stdout.split()), done.stderr
    assert "mine]" not in started("inference.py --help", folder).stdout


def test_a_script_takes_include_beside_its_own_arguments(folder):
    Path("mine.py").write_text("print('included')\n")
    done = started("scripts/share.py include=mine.py --help", folder)
    assert done.returncode == 0 and done.stdout.startswith("included\nusage: scripts/share.py")
    done = started("loss/plot.py --include mine.py nothing", folder)
    assert (done.stdout, done.stderr) == ("included\n", "error: there is no loss to plot at nothing\n")
    done = started("benchmarks/board.py include=mine.py sampler=none", folder)
    assert (done.stdout, done.stderr[:32]) == ("included\n", "error: sampler 'none' is unknown")


def test_the_environment_names_files_where_the_command_line_does_not(folder):
    for name in ("a", "b"):
        Path(f"{name}.py").write_text(f"print('{name} is included')\n")
    code = "import conf.config, os; print(conf.config.Train().include)"
    found = started(["-c", code], folder, MOONWALK_INCLUDE=str(folder / "a.py"))
    assert found.stdout == "a is included\n['a.py']\n", found.stderr
    found = started("train.py include=b.py --help", folder, MOONWALK_INCLUDE=str(folder / "a.py"))
    assert found.stdout.startswith("b is included\n") and "a is included" not in found.stdout
    found = started(["-c", "import benchmarks"], folder, MOONWALK_INCLUDE=str(folder / "a.py"))
    assert found.stdout == "a is included\n"


# ---------------------------------------------------------------- bad files


@pytest.mark.parametrize(
    "line", ["train.py include=none.py", "train.py --include none.py --help", "loss/plot.py --include none.py"]
)
def test_a_file_that_does_not_exist(line, folder):
    done = started(line, folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "include=none.py cannot be read: No such file or directory\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x = 1\ndef f(:\n", "include=bad.py, line 2: it is no Python: "),
        (b"x = '\xff'\n", "include=bad.py, line 1: it is no Python: "),
        (b"x = 1\0\n", "include=bad.py"),
        ("PK\x03\x04", "include=bad.py"),
    ],
)
def test_a_file_that_is_no_python(text, sentence, capsys):
    said = refusal(text, capsys)
    assert said.startswith(sentence) and "it is no Python" in said and "\n" not in said


def test_a_folder_is_no_file(capsys):
    Path("bad.py").mkdir()
    with pytest.raises(SystemExit, match=r"^include=bad.py is a folder: name a Python file$"):
        run_file("bad.py")


def test_an_error_in_the_file_keeps_its_traceback_from_the_line_in_the_file(folder, capsys):
    said = refusal("import json\n\njson.loads('{')\n", capsys)
    assert said.startswith("Traceback (most recent call last):\n")
    assert said.splitlines()[1] == f'  File "{folder / "bad.py"}", line 3, in <module>'
    assert said.splitlines()[2] == "    json.loads('{')" and "conf/include.py" not in said


TAKEN = {
    "sampler": ("register_sampler", "ddim"),
    "sampler alias": ("register_sampler", "euler"),
    "spacing": ("register_spacing", "karras"),
    "schedule": ("register_schedule", "cosine"),
    "schedule alias": ("register_schedule", "quadratic"),
    "target": ("register_target", "v"),
    "loss weight": ("register_loss_weight", "min_snr"),
    "network": ("register_network", "mlp"),
    "network of others": ("register_network", "diffusers_unet"),
    "point set": ("register_points", "moons"),
    "image set": ("register_points", "mnist"),
    "metric": ("register_metric", "Wasserstein-2"),
    "posterior sampler": ("register_posterior", "dps"),
}


@pytest.mark.parametrize("kind", TAKEN)
def test_a_name_that_is_taken_is_refused_with_file_and_line(kind, capsys):
    function, name = TAKEN[kind]
    said = refusal(f"import registry\n\nregistry.{function}('{name}', lambda: 0)\n", capsys)
    assert said.startswith("bad.py, line 3: there is already a ") and said.endswith(f" {name}: choose another name")


def test_a_name_is_taken_by_another_file_too(capsys):
    Path("mine.py").write_text(SAMPLER)
    run_file("mine.py")
    assert refusal(SAMPLER, capsys) == "bad.py, line 4: there is already a sampler mine: choose another name"


def test_the_cell_of_a_notebook_may_be_run_again(capsys):
    for number in (1, 2):
        cell = f"from registry import register_sampler\nregister_sampler('mine', lambda *x, **y: {number})"
        exec(cell, {"__name__": "__main__"})
    assert SAMPLERS["mine"].code() == 2
    assert "already a sampler mine" in refusal(SAMPLER, capsys)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        ("register_sampler('a b', print)", "'a b' is no name for a sampler: use letters, digits and _"),
        ("register_sampler(print)", 'a sampler needs its name in parentheses, such as ("mine"), and not a builtin_'),
        ("@register_points\ndef mine(): ...", 'a point set needs its name in parentheses, such as ("mine"), and not a'),
        ("register_sampler('', print)", "'' is no name for a sampler: use letters, digits and _"),
        (
            "register_sampler('a', print, spacing='fun')",
            "the sampler a wants an unknown spacing fun: choose one of even, ",
        ),
        (
            "register_sampler('a', lambda denoise, scheduler, x_T, timesteps: 0)",
            "the sampler a cannot be added: its function must take (denoise, scheduler, x_T, *, timesteps, generator)",
        ),
        ("register_sampler('a', 3)", "the sampler a cannot be added: its function must take (denoise, "),
        (
            "register_posterior('a', lambda denoise, scheduler, x_T, *, timesteps, generator: 0)",
            "the posterior sampler a cannot be added: its function must take (denoise, scheduler, x_T, observation, ",
        ),
        ("register_sampler('a', print, evaluations='25')", "the sampler a has evaluations='25': it must be a whole "),
        ("register_posterior('a', print, steps=0)", "the posterior sampler a has steps=0: it must be a whole number "),
        ("register_metric('a', print, most=1.5)", "the metric a has most=1.5: it must be a whole number above 0"),
        ("register_posterior('a', print, sampler='fun')", "the posterior sampler a wants an unknown sampler fun: "),
        ("register_loss_weight('a', print, quantity='fun')", "the loss weight a is of an unknown target fun: "),
        ("register_points('a', lambda n: 0)", "the point set a cannot be added: its option n needs a default that is "),
        (
            "register_points('a', lambda n={}: 0)",
            "the point set a cannot be added: its option n needs a default that is ",
        ),
        (
            "register_points('a', lambda seed=0: 0)",
            "the point set a cannot be added: its option seed needs another name",
        ),
    ],
)
def test_what_cannot_be_added_is_refused_with_file_and_line(call, sentence, capsys):
    assert refusal(f"from registry import *\n{call}\n", capsys).startswith(f"bad.py, line 2: {sentence}")


def test_a_preset_cannot_include(folder):
    path = Path("presets", "experiment", "x.yaml")
    path.parent.mkdir(parents=True)
    path.write_text("# @package _global_\ninclude: [mine.py]\n")
    with pytest.raises(ValueError, match=r"x.yaml, line 2: include cannot be set by a preset: type it$"):
        check_early("train", command_line(["--config-dir", "presets", "experiment=x"]), False)


def test_an_option_of_a_file_that_is_not_included_is_refused_before_torch(folder):
    Path("mine.py").write_text(SAMPLER)
    done = without_torch("inference.py include=mine.py sampler=yours", folder)
    assert done.returncode == 1 and "sampler must be one of ddpm" in done.stderr and "mine" in done.stderr


# ---------------------------------------------------------------- options of added sets and networks


def test_the_options_of_a_function_are_its_parameters_with_defaults():
    def function(
        dims, width=64, *rest, rate: float = 1, text="a", on=True, sizes=SIZES, most: int | None = None, **more
    ):
        pass

    assert own_options(function, given=1) == (
        OwnOption("width", int, 64),
        OwnOption("rate", float, 1),
        OwnOption("text", str, "a"),
        OwnOption("on", bool, True),
        OwnOption("sizes", list[int], SIZES),
        OwnOption("most", int | None, None),
    )


def test_an_added_set_has_the_options_of_its_function_and_embed():
    register_points("mine", lambda noise=0.1: None)
    register_network("mine", lambda dims, steps, labels, width=64: None)
    dataset = added_member("mine", POINT_SETS)
    assert vars(dataset()) == {"name": "mine", "embed": None, "noise": 0.1}
    network = added_member("mine", NETWORKS)
    assert vars(network()) == {"name": "mine", "width": 64, "prediction": "v"}
    check(network(width=3))


# ---------------------------------------------------------------- what a checkpoint lacks


CONFIG = {
    "include": ["my.py"], "schedule": "linear", "loss_weight": None, "model": {"name": "mlp", "prediction": "v"},
    "dataset": {"name": "moons"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({}, None),
        ({"schedule": "mine"}, "the schedule 'mine' of my.py: add include=my.py"),
        ({"loss_weight": "mine"}, "the loss weight 'mine' of my.py: add include=my.py"),
        ({"model": {"name": "mine", "prediction": "v"}}, "the network 'mine' of my.py: add include=my.py"),
        ({"model": {"name": "mlp", "prediction": "mine"}}, "the target 'mine' of my.py: add include=my.py"),
        (
            {"dataset": {"name": "mine"}, "include": ["a.py", "b.py"]},
            "the point set 'mine' of a.py or b.py: add include=[a.py,b.py]",
        ),
        ({"dataset": {"name": "mnist"}}, None),
        ({"schedule": "mine", "include": []}, None),
        ({"schedule": "mine", "include": "my.py"}, None),
        ({"schedule": "mine", "include": [3]}, None),
        ({"schedule": 3, "model": None}, None),
        ({"schedule": "mine", "include": ["\x1b[2J"]}, "the schedule 'mine' of '\\x1b[2J': add include='\\x1b[2J'"),
    ],
)  # fmt: skip
def test_a_checkpoint_names_the_file_that_is_missing(change, sentence):
    assert missing_row({**CONFIG, **change}) == sentence


# ---------------------------------------------------------------- names


def test_names_of_data_sets_and_figures_that_cannot_be_taken_are_all_there_are():
    assert set(SETS_OF_FILES) == {"file", *IMAGE_DATASETS}
    figures = {metric.name for metric in METRICS} | {test.name for test in TESTS} | {"memorised", "log-density gap"}
    figures |= {"error of epsilon", "KL(exact || model)", "Frechet distance", *image_metrics.SHARES}
    assert set(plugins.FIGURES) == figures


def test_the_functions_that_add_rows_are_all_exported():
    import registry

    functions = {name for name in vars(plugins) if name.startswith("register_")}
    assert functions <= set(registry.__all__) and len(functions) == len(plugins.TABLES)


def test_no_row_of_ours_counts_as_added():
    assert not plugins.ADDED and (ROOT / "registry/plugins.py").exists()
