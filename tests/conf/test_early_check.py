"""Mistakes that can be known without torch are answered before a command imports it: test_mistakes.py tries lines."""

import os
import pty

import numpy as np
import pytest
from conftest import ROOT

from conf import early_check, folders, memory
from conf.config import COMMANDS, Evaluate, Inference, Train
from conf.entry import announce_start
from conf.flags import command_line
from conf.groups import GROUPS, MLP, MNIST, File, Images, Moons, Picture
from conf.script_parsers import PROGRAMS, check_arguments
from dataset import make_dataset
from images.image_files import list_images
from images.sets import make_images
from points import point_files
from runtime import checkpoint_file


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_answers_help_without_torch(program, capsys):
    with pytest.raises(SystemExit) as end:
        check_arguments(program, ["--help"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("usage: ")


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_has_the_parser_that_is_checked_early(program):
    folder = {"plot": "loss", "report": "loss", "board": "benchmarks"}.get(program, "scripts")
    assert f"script_parsers.{program}().parse_args()" in (ROOT / folder / f"{program}.py").read_text()


def checked_early(name, line, continues=False):
    early_check.check_early(name, command_line(line.split()), continues)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_right_line_passes(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "last.pt").touch()
    checked_early(name, "seed=3")
    checked_early(name, "-m seed=range(3)")


@pytest.mark.parametrize("line", ["--cfg job lr=-1", "--hydra-help", "--version"])
def test_what_hydra_is_asked_for_is_left_to_it(line):
    checked_early("train", line)


def test_a_sweep_leaves_wrong_values_to_its_runs():
    checked_early("train", "-m lr=1e-3,-1")
    checked_early("train", "-m lr=-1 seed=1,2")


def test_a_training_that_goes_on_may_have_a_full_folder(tmp_path):
    (tmp_path / "loss.csv").touch()
    checked_early("train", f"task_name={tmp_path}", continues=True)
    with pytest.raises(ValueError, match="already holds a run"):
        checked_early("train", f"task_name={tmp_path}")


# ---------------------------------------------------------------- the sentences of upper layers


def refusal(work, *arguments, **options):
    with pytest.raises((ValueError, OSError)) as error:
        work(*arguments, **options)
    return str(error.value)


def test_a_missing_checkpoint_is_refused_in_the_same_words_as_later(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert folders.CHECKPOINT_FOLDERS == checkpoint_file.OUTPUT_FOLDERS
    assert folders.CHECKPOINT_ENDINGS == checkpoint_file.EXTENSIONS
    assert refusal(early_check.check_checkpoint, None) == refusal(checkpoint_file.load_newest)
    assert refusal(early_check.check_checkpoint, "no.pt") == refusal(checkpoint_file.load, "no.pt")


@pytest.mark.parametrize("name", ["text.pt", "empty"])
def test_what_is_no_checkpoint_is_refused_in_the_same_words_as_later(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.pt").write_text("no archive")
    (tmp_path / "empty").mkdir()
    assert folders.DEFAULT_NAME == checkpoint_file.DEFAULT_NAME
    assert folders.LATEST == checkpoint_file.LATEST
    assert refusal(early_check.check_checkpoint, name) == refusal(checkpoint_file.load, name)


TABLES = ["x,y,kind\n1,2,a\n3,4,b", "# of 2026\n\nx; y; kind\n1;2;a", "1 2 a\n3 4 b", '"x, y",z,u\n1,2,3']
MANY_COLUMNS = ",".join(f"c{i}" for i in range(10)) + "\n" + ",".join(["1"] * 10)


@pytest.mark.parametrize("table", [*TABLES, MANY_COLUMNS])
def test_a_missing_column_of_labels_is_refused_in_the_same_words_as_later(table, tmp_path):
    path = str(tmp_path / "points.csv")
    (tmp_path / "points.csv").write_text(table)
    for label in ("knd", "17", "-11"):
        refused = refusal(early_check.check_columns, path, label, [])
        assert refused == refusal(point_files.read_table, path, label)
    early_check.check_columns(path, "2", [])
    early_check.check_columns(path, "-1", ["0"])
    with pytest.raises(ValueError, match=r"no column 'knd' for dataset\.columns"):
        early_check.check_columns(path, None, ["knd"])


def test_a_file_that_cannot_be_read_as_a_table_is_left_to_its_reader(tmp_path):
    (tmp_path / "empty.csv").touch()
    early_check.check_columns(str(tmp_path / "empty.csv"), "kind", [])


def test_more_samples_than_memory_holds_are_refused(monkeypatch):
    monkeypatch.setattr(memory, "physical_memory", lambda: 16 * 10**9)
    allowed = Train(dataset=Moons(), model=MLP(), num_samples=400_000_000)
    memory.check_memory(allowed)
    asked = "num_samples=500000000 needs at least 20 GB of memory, and this machine has 16 GB"
    assert refusal(memory.check_memory, Train(dataset=Moons(), model=MLP(), num_samples=500_000_000)) == asked
    assert refusal(memory.check_memory, Inference(num_samples=500_000_000)) == asked
    # A file holds what it holds: the number is only a limit.
    memory.check_memory(Train(dataset=File(path="x.csv"), model=MLP(), num_samples=500_000_000))


def test_without_a_known_size_of_memory_nothing_is_refused(monkeypatch):
    monkeypatch.setattr(memory, "physical_memory", lambda: None)
    memory.check_memory(Inference(num_samples=10**15))


@pytest.mark.parametrize("name", ["last.pt", "test_001.pth", ".last.pt.7", "last.pt.txt"])
def test_the_same_files_count_as_checkpoints_as_later(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "first").mkdir(parents=True)
    (tmp_path / "runs" / "first" / name).touch()
    try:
        found = bool(checkpoint_file.find_checkpoints())
    except FileNotFoundError:
        found = False
    if found:
        early_check.check_checkpoint(None)
    else:
        assert "no checkpoint yet" in refusal(early_check.check_checkpoint, None)


def test_a_missing_folder_of_images_is_refused_in_the_same_words_as_later():
    assert refusal(early_check.check_image_folder, "no") == refusal(list_images, "no")


@pytest.mark.parametrize("name", early_check.MISSING_OPTION)
def test_a_missing_option_is_refused_in_the_same_words_as_later(name):
    make = make_images if name == "images" else make_dataset
    own = {"images": {}, "file": {"path": None}, "picture": {"path": None, "noise": 1.0}}[name]
    later = refusal(make, name=name, n_samples=10, seed=0, **own)
    options = Train(dataset=GROUPS["dataset"][name](), model=MLP())
    assert refusal(early_check.check_files, options, False) == later


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (Train(dataset=File(path="no.npy")), "No such file or directory: 'no.npy'"),
        (Train(dataset=Picture(path="no.png")), "No such file or directory: 'no.png'"),
        (Train(dataset=MNIST()), "there is no folder data/MNIST/mnist_images"),
        (Train(dataset=Images(root=".", test_root="no")), "there is no folder no:"),
        (Train(dataset=MNIST(), resume="no"), "there is no checkpoint at no"),
        (Inference(checkpoint="no"), "there is no checkpoint at no"),
        (Evaluate(dataset=Moons(), samples="no.npy"), "No such file or directory: 'no.npy'"),
        (Evaluate(dataset=File(path="no.npy"), samples="points.npy"), "No such file or directory: 'no.npy'"),
        (Evaluate(dataset=Moons()), "no checkpoint yet"),
    ],
)
def test_a_missing_file_is_named(options, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("points.npy", np.zeros((200, 2)))
    assert words in refusal(early_check.check_files, options, False)


def test_a_command_says_on_a_terminal_alone_that_it_starts(tmp_path):
    terminal, inside = pty.openpty()
    with os.fdopen(inside, "w") as stream:
        announce_start(stream)
    assert os.read(terminal, 100) == b"starting ...\r\n"
    os.close(terminal)
    with (tmp_path / "file").open("w") as stream:
        announce_start(stream)
    assert (tmp_path / "file").read_text() == ""
