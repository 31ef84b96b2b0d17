"""A checkpoint is whole or absent, and every damage to it is named."""

import os
import signal
import time

import pytest
import torch

from pipeline import Pipeline
from runtime import checkpoint_file
from runtime.atomic_file import atomic_file


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "last.pt"
    checkpoint_file.save(path, {"step": 3, "net": {"w": torch.arange(5000.0)}})
    return path


def test_a_checkpoint_holds_what_was_saved(saved):
    state = checkpoint_file.load(saved)
    assert state["step"] == 3 and torch.equal(state["net"]["w"], torch.arange(5000.0))


def test_a_checkpoint_is_found_in_its_folder(saved):
    assert checkpoint_file.load(saved.parent)["step"] == 3


def test_saving_leaves_one_file(saved):
    assert list(saved.parent.iterdir()) == [saved]


def damage(path, kind):
    content = bytearray(path.read_bytes())
    if kind == "truncated":
        del content[len(content) // 2 :]
    elif kind == "empty":
        content.clear()
    elif kind == "text":
        content[:] = b"hello"
    else:  # one bit, in the middle of the weights
        content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("kind", ["truncated", "empty", "text", "flipped"])
def test_damage_is_found_and_named(saved, kind):
    damage(saved, kind)
    with pytest.raises(ValueError, match=r"last\.pt is damaged"):
        checkpoint_file.load(saved)


def test_other_files_of_torch_are_no_checkpoints(tmp_path):
    torch.save({"w": torch.ones(3)}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="no checkpoint of this version"):
        checkpoint_file.load(tmp_path / "a.pt")


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "run"),)

    torch.save({"format": checkpoint_file.FORMAT, "x": Evil()}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="damaged"):
        checkpoint_file.load(tmp_path / "a.pt")
    assert not (tmp_path / "run").exists()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pt"):
        checkpoint_file.load(tmp_path / "none.pt")


def test_a_folder_without_checkpoints_has_no_newest_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint yet"):
        checkpoint_file.load_newest(tmp_path)


def test_the_newest_checkpoint_that_can_be_read_is_taken_and_others_are_named(tmp_path, capsys):
    paths = [tmp_path / name / "last.pt" for name in ("outputs/train/a", "runs/b", "outputs/train/c")]
    for i, path in enumerate(paths):
        path.parent.mkdir(parents=True)
        checkpoint_file.save(path, {"step": i})
        os.utime(path, (i, i))
    damage(paths[2], "truncated")
    os.utime(paths[2], (9, 9))
    assert checkpoint_file.load_newest(tmp_path)[0] == paths[1]
    assert "passed over" in capsys.readouterr().out


CRASH_POINTS = ("write", "fsync", "replace", "fsync_folder")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="crash points are tried in forked children")
@pytest.mark.parametrize("point", CRASH_POINTS)
def test_a_kill_at_any_moment_leaves_the_old_state_or_the_new(saved, point, monkeypatch):
    def killed(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(10)

    child = os.fork()
    if child == 0:
        calls = iter(range(9))
        if point == "write":
            torch.save = lambda state, file: (file.write(b"half"), file.flush(), killed())
        elif point == "replace":
            os.replace = killed
        else:
            fsync = os.fsync
            os.fsync = lambda fd: killed() if (next(calls) == 1) == (point == "fsync_folder") else fsync(fd)
        checkpoint_file.save(saved, {"step": 4})
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert checkpoint_file.load(saved)["step"] == (4 if point == "fsync_folder" else 3)


def test_an_unwritable_folder_leaves_nothing(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        checkpoint_file.save(tmp_path / "nowhere" / "last.pt", {})
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(params=["test_001.pth", "best.pt"])
def named(request, tmp_path):
    """A checkpoint of another name than last.pt, beside a file that is none."""
    run = tmp_path / "runs" / "first"
    run.mkdir(parents=True)
    checkpoint_file.save(run / request.param, {"step": 5})
    (run / "notes.txt").write_text("no checkpoint")
    return run / request.param


def test_a_checkpoint_of_any_name_is_found_in_its_folder(named):
    assert checkpoint_file.load(named.parent)["step"] == 5


def test_a_checkpoint_of_any_name_is_found_as_the_newest(named, tmp_path):
    assert checkpoint_file.load_newest(tmp_path)[0] == named


@pytest.mark.parametrize("name", ["a/b.pt", "last", "last.zip", ".pt", ".hidden.pt", "../last.pt"])
def test_names_that_nobody_would_find_are_refused(name):
    with pytest.raises(ValueError, match="ckpt_save_name must be a file name"):
        checkpoint_file.check_name(name)


def test_a_file_whose_writing_fails_stays_as_it_was(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_file(path) as file:
        file.write(b"half of the n")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [*tmp_path.iterdir()] == [path]


def test_a_file_that_is_written_takes_the_place_of_the_old_one(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text("old")
    with atomic_file(path) as file:
        file.write(b"new")
    assert path.read_text() == "new"
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("normaliser", [torch.ones(3), [torch.ones(2)], "mean"])
def test_a_normaliser_that_is_no_dictionary_is_refused(normaliser, tmp_path):
    checkpoint_file.save(tmp_path / "last.pt", {"normaliser": normaliser, "classes": []})
    with pytest.raises(ValueError, match="its normaliser is not of tensors"):
        Pipeline.load(tmp_path, "cpu")
