"""The decoded images of a folder are kept in one file, and never believed when the folder or that file has changed."""

import multiprocessing
import os
import resource
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import QUIET, ROOT
from PIL import Image

from images.sets import MNISTDataset, make_images

SIDE = 600  # three grey images of it are just more than cache.SMALLEST


def aged(path, seconds):
    """Last written that long ago: what was written a moment ago may change again within one tick of the file system."""
    when = 1_700_000_000 - seconds
    os.utime(path, (when, when))


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Three images of random columns, in two classes, and a user's cache folder of their own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "mine"))
    rng = np.random.default_rng(0)
    for i, name in enumerate(["0/a.png", "0/b.png", "1/a.png"]):
        path = tmp_path / "data" / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(path, rng.integers(256, size=SIDE), i)
    return tmp_path / "data" / "tree"


def draw(path, columns, age):
    Image.fromarray(np.tile(columns.astype(np.uint8), (SIDE, 1))).save(path)
    aged(path, age)


def kept(tree):
    return tree.parent / ".moonwalk" / f"{tree.name}.npy"


def columns(data):
    return data.pixels[:, 0, 0].tolist()


def decoded(tree):
    """What the files hold, read by another hand."""
    return [np.asarray(Image.open(path))[0].tolist() for path in sorted(tree.glob("*/*.png"))]


def swap_unnoticed(path):
    """Other pixels in a file of the same size and time: only who opens it can know."""
    size, when = path.stat().st_size, path.stat().st_mtime_ns
    Image.new("L", (SIDE, SIDE), 7).save(path)
    path.write_bytes(path.read_bytes().ljust(size, b"\0"))
    os.utime(path, ns=(when, when))
    assert path.stat().st_size == size


def test_the_second_start_opens_no_image(tree, capsys):
    first = MNISTDataset(tree)
    assert columns(first) == decoded(tree)
    assert f"kept the decoded images in {kept(tree)}" in capsys.readouterr().out
    swap_unnoticed(tree / "0" / "b.png")
    again = MNISTDataset(tree)
    assert torch.equal(again.pixels, first.pixels)
    assert torch.equal(again.labels, first.labels)
    assert capsys.readouterr().out == ""
    again.pixels.zero_()  # a page of its own: the file stays as it was
    assert torch.equal(MNISTDataset(tree).pixels, first.pixels)
    assert os.listdir(kept(tree).parent) == ["tree.npy"]


@pytest.mark.parametrize("how", ["size", "time", "name", "gone", "more"])
def test_a_changed_folder_is_read_again(tree, how):
    before = columns(MNISTDataset(tree))
    if how == "size":
        draw(tree / "0" / "b.png", np.full(SIDE, 9), age=1)  # as old as it was
    elif how == "time":
        swap_unnoticed(tree / "0" / "b.png")
        aged(tree / "0" / "b.png", 50)
    elif how == "name":
        (tree / "0" / "b.png").rename(tree / "1" / "b.png")
    elif how == "gone":
        (tree / "0" / "b.png").unlink()
    else:
        draw(tree / "0" / "c.png", np.full(SIDE, 9), age=50)
    changed = MNISTDataset(tree)
    assert columns(changed) == decoded(tree)
    assert how == "name" or columns(changed) != before
    assert changed.labels.bincount().tolist() == [len(list((tree / name).iterdir())) for name in "01"]
    assert columns(MNISTDataset(tree)) == decoded(tree)


def test_images_written_a_moment_ago_are_not_kept(tree):
    (tree / "1" / "a.png").touch()
    assert columns(MNISTDataset(tree)) == decoded(tree)
    assert not kept(tree).exists()


def test_small_sets_are_not_worth_a_file(tree):
    (tree / "0" / "b.png").unlink()
    MNISTDataset(tree)
    assert not kept(tree).parent.exists()


def test_a_part_of_the_folder_comes_out_of_the_whole(tree):
    fresh = make_images("images", n_samples=2, seed=1, root=tree)
    assert not kept(tree).exists()  # only a whole folder is kept
    MNISTDataset(tree)
    for path in tree.glob("*/*.png"):
        swap_unnoticed(path)
    again = make_images("images", n_samples=2, seed=1, root=tree)
    assert torch.equal(again.pixels, fresh.pixels)
    assert torch.equal(again.labels, fresh.labels)


def test_a_damaged_image_stays_damaged(tree, capsys):
    draw(tree / "0" / "c.png", np.arange(SIDE) % 256, age=60)
    (tree / "0" / "b.png").write_bytes(b"<html>404</html>")
    aged(tree / "0" / "b.png", 5)
    first, told = MNISTDataset(tree), capsys.readouterr().out.splitlines()[0]
    assert kept(tree).exists()
    again = MNISTDataset(tree)
    assert capsys.readouterr().out.splitlines() == [told] == [f"skipped 1 damaged images: {tree}/0/b.png"]
    assert torch.equal(again.pixels, first.pixels)
    assert again.labels.tolist() == first.labels.tolist() == [0, 0, 1]
    for n_samples in range(1, 5):  # parts with and without it
        part = make_images("images", n_samples=n_samples, seed=0, root=tree)
        assert {tuple(row) for row in columns(part)} <= {tuple(row) for row in columns(first)}
    with pytest.raises(ValueError, match=r"0/b\.png is damaged"):
        MNISTDataset(tree, on_bad_image="error")


# ---------------------------------------------------------------- what can happen to the file


def test_no_damage_to_the_file_gives_wrong_pixels(tree):
    truth = MNISTDataset(tree).pixels
    whole, rng = kept(tree).read_bytes(), np.random.default_rng(0)
    for i in range(200):
        damaged = bytearray(whole)
        if i % 4 == 0:
            del damaged[rng.integers(len(whole)) :]
        elif i % 4 == 1:
            del damaged[rng.integers(300) :]
        else:  # one flipped bit: anywhere, or in the header
            damaged[rng.integers(len(whole) if i % 4 == 2 else 300)] ^= 1 << rng.integers(8)
        kept(tree).write_bytes(damaged)
        assert torch.equal(MNISTDataset(tree).pixels, truth), i


def test_the_file_of_another_folder_is_not_believed(tree, tmp_path):
    MNISTDataset(tree)
    other = tmp_path / "data" / "other"
    for path in tree.glob("*/*.png"):
        (other / path.parent.name).mkdir(parents=True, exist_ok=True)
        draw(other / path.relative_to(tree), np.full(SIDE, 3), age=70)
    kept(other).write_bytes(kept(tree).read_bytes())
    assert columns(MNISTDataset(other)) == decoded(other)


def test_beside_a_folder_that_cannot_be_written_the_users_cache_serves(tree, tmp_path):
    kept(tree).parent.touch()  # a file where the folder should be: refused to root as well
    first = MNISTDataset(tree)
    assert len(list((tmp_path / "mine" / "moonwalk").iterdir())) == 1
    swap_unnoticed(tree / "0" / "b.png")
    assert torch.equal(MNISTDataset(tree).pixels, first.pixels)


def test_a_full_disk_only_costs_the_file(tree, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SIDE * SIDE, hard))  # writing stops in the middle of the pixels
    try:
        assert columns(MNISTDataset(tree)) == decoded(tree)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not [
        path for folder in (kept(tree).parent, tmp_path / "mine") for path in folder.rglob("*") if path.is_file()
    ]


def _read_many_times(tree, truth):
    for _ in range(15):
        kept(tree).unlink(missing_ok=True)
        if columns(MNISTDataset(tree)) != truth:
            os._exit(1)


def test_processes_at_once_do_not_disturb_each_other(tree):
    truth, fork = decoded(tree), multiprocessing.get_context("fork")
    others = [fork.Process(target=_read_many_times, args=(tree, truth)) for _ in range(3)]
    for other in others:
        other.start()
    for other in others:
        other.join()
    assert [other.exitcode for other in others] == [0, 0, 0]
    assert columns(MNISTDataset(tree)) == truth
    assert os.listdir(kept(tree).parent) == ["tree.npy"]


LARGE_SET = """
import resource, sys
import torch
from images import cache
from images.sets import MNISTDataset, shuffled
from training.checksum import checksum
cache.LARGE = 2**20
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
data = shuffled(MNISTDataset(sys.argv[1]), 0)
assert data.held.numel() == 60 * 3 * 1024**2
green = [round(1000 * float(data[torch.tensor([i])][0][0, 1, 0, 0])) * i for i in range(60)]
print(checksum(data), sum(green), round(peak() - before))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks in kB, and pages that are given back")
def test_a_large_set_stays_on_the_disk_while_it_is_decoded_checked_and_read(tmp_path):
    """180 MB of pixels: the peak of memory grows by a fraction of them, and all starts see the same images."""
    for i in range(6):
        path = tmp_path / f"tree/{i % 2}/{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (1024, 1024), (40 * i, 255 - 30 * i, 7)).save(path, compress_level=1)
        aged(path, i)
        for copy in range(9):
            os.link(path, path.with_name(f"{i}_{copy}.png"))
    line = [sys.executable, "-c", LARGE_SET, str(tmp_path / "tree")]
    starts = []
    for _ in range(2):
        done = subprocess.run(line, env={**QUIET, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        starts.append(done.stdout.split()[-3:])
        assert int(starts[-1][-1]) < 120, "MB, of 180"
    assert starts[0][:2] == starts[1][:2] and "kept the decoded" not in done.stdout
