"""The decoded images of a folder are kept in a file, which is not used if the folder or the file has changed."""

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from conftest import QUIET, ROOT
from PIL import Image

from images import cache, decoding
from images.decoding import Reading
from images.sets import MNISTDataset, make_images

SIDE = 600  # Three grey images of this side have just more bytes than cache.MIN_CACHED_BYTES.


SETTLING_SECONDS = 0.02  # several ticks of the clock of a file system


def settle():
    """Wait until the files are so old that they cannot change again within a tick of the file system's clock."""
    time.sleep(1.5 * SETTLING_SECONDS)


def aged(path, seconds):
    """Let a file be last written so many seconds before a common time."""
    when = 1_700_000_000 - seconds
    os.utime(path, (when, when))


@pytest.fixture(autouse=True)
def keep_the_size(monkeypatch):
    """Let images of SIDE pixels keep their size."""
    monkeypatch.setattr(decoding, "LARGE_SIDE", SIDE)


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A folder with three images of random columns in two classes. The user's cache folder is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "mine"))
    monkeypatch.setattr(cache, "SETTLING_SECONDS", SETTLING_SECONDS)
    rng = np.random.default_rng(0)
    for i, name in enumerate(["0/a.png", "0/b.png", "1/a.png"]):
        path = tmp_path / "data" / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(path, rng.integers(256, size=SIDE), i)
    settle()
    return tmp_path / "data" / "tree"


def draw(path, columns, age):
    Image.fromarray(np.tile(columns.astype(np.uint8), (SIDE, 1))).save(path)
    aged(path, age)


def kept(tree):
    return tree.parent / ".moonwalk" / f"{tree.name}.npy"


def columns(data):
    return data.pixels[:, 0, 0].tolist()


def decoded(tree):
    """The columns of the files, read with Pillow."""
    return [np.asarray(Image.open(path))[0].tolist() for path in sorted(tree.glob("*/*.png"))]


OPENED = []  # the paths of all files that Python opens
sys.addaudithook(lambda event, args: OPENED.append(str(args[0])) if event == "open" else None)


def opened_images(work):
    """The image files that are opened while some work is done."""
    before = len(OPENED)
    work()
    return [path for path in OPENED[before:] if path.endswith(".png")]


def swap_in_place(path):
    """Write other pixels into a file and keep its size and time."""
    size, when = path.stat().st_size, path.stat().st_mtime_ns
    Image.new("L", (SIDE, SIDE), 7).save(path)
    path.write_bytes(path.read_bytes().ljust(size, b"\0"))
    os.utime(path, ns=(when, when))
    assert path.stat().st_size == size


def test_the_first_reading_decodes_every_image(tree):
    assert columns(MNISTDataset(tree)) == decoded(tree)


def test_the_first_reading_says_where_it_keeps_the_images(tree, capsys):
    MNISTDataset(tree)
    assert f"kept the decoded images in {kept(tree)}" in capsys.readouterr().out


def test_the_second_reading_opens_no_image(tree):
    # The first reading opens each image twice: for its size, and for its pixels.
    assert len(opened_images(lambda: MNISTDataset(tree))) == 6
    assert opened_images(lambda: MNISTDataset(tree)) == []


def test_the_second_reading_has_the_pixels_and_labels_of_the_first(tree):
    first, again = MNISTDataset(tree), MNISTDataset(tree)
    assert torch.equal(again.pixels, first.pixels)
    assert torch.equal(again.labels, first.labels)


def test_the_second_reading_prints_nothing(tree, capsys):
    MNISTDataset(tree)
    capsys.readouterr()
    MNISTDataset(tree)
    assert capsys.readouterr().out == ""


def test_changed_pixels_do_not_change_the_file(tree):
    first = MNISTDataset(tree)
    MNISTDataset(tree).pixels.zero_()
    assert torch.equal(MNISTDataset(tree).pixels, first.pixels)


def test_the_file_is_the_only_one_in_its_folder(tree):
    MNISTDataset(tree)
    MNISTDataset(tree)
    assert os.listdir(kept(tree).parent) == ["tree.npy"]


def change(tree, how):
    """Change a folder of images: the size, the time, the name or the content of an image, or how many there are."""
    if how == "size":
        draw(tree / "0" / "b.png", np.full(SIDE, 9), age=1)  # as old as before
    elif how == "time":
        swap_in_place(tree / "0" / "b.png")
        aged(tree / "0" / "b.png", 50)
    elif how == "content":
        swap_in_place(tree / "0" / "b.png")
    elif how == "swapped":
        exchange(tree / "0" / "a.png", tree / "1" / "a.png")
    elif how == "link":
        point_elsewhere(tree)
    elif how == "name":
        (tree / "0" / "b.png").rename(tree / "1" / "b.png")
    elif how == "gone":
        (tree / "0" / "b.png").unlink()
    else:
        draw(tree / "0" / "c.png", np.full(SIDE, 9), age=50)
    settle()


def exchange(first, second):
    """Swap two files of the same time, which `mv` does with labels that were wrong."""
    for path in (first, second):
        aged(path, 0)
    aside = first.with_name("aside")
    first.rename(aside)
    second.rename(first)
    aside.rename(second)


def point_elsewhere(tree):
    """Let a class folder be a link to a folder with an image of the same name, size and time."""
    store = tree.parent / "store"
    store.mkdir()
    path = store / "a.png"
    path.write_bytes((tree / "1" / "a.png").read_bytes())
    aged(path, 2)
    swap_in_place(path)
    (tree / "1").rename(tree.parent / "before")
    (tree / "1").symlink_to(store)


every_change = pytest.mark.parametrize(
    "how",
    ["size", "time", "name", "content", "swapped", "link", "gone", "more"],
)


@every_change
def test_a_changed_folder_is_read_again(tree, how):
    before = columns(MNISTDataset(tree))
    change(tree, how)
    changed = columns(MNISTDataset(tree))
    assert changed == decoded(tree)
    assert how == "name" or changed != before


@every_change
def test_a_changed_folder_has_its_new_labels(tree, how):
    MNISTDataset(tree)
    change(tree, how)
    expected = [len(list((tree / name).glob("*.png"))) for name in "01"]
    assert MNISTDataset(tree).labels.bincount().tolist() == expected


@every_change
def test_the_third_reading_of_a_changed_folder_is_right(tree, how):
    MNISTDataset(tree)
    change(tree, how)
    MNISTDataset(tree)
    assert columns(MNISTDataset(tree)) == decoded(tree)


@pytest.mark.parametrize("when", ["now", "before"])
def test_images_written_a_moment_ago_are_not_kept(tree, when, monkeypatch):
    monkeypatch.setattr(cache, "SETTLING_SECONDS", 2.0)
    (tree / "1" / "a.png").touch()
    if when == "before":
        aged(tree / "1" / "a.png", 0)
    assert columns(MNISTDataset(tree)) == decoded(tree)
    assert not kept(tree).exists()


def test_images_that_change_while_they_are_read_are_not_kept(tree, monkeypatch):
    def read_images(*args):
        found = real(*args)
        draw(tree / "0" / "a.png", np.full(SIDE, 5), age=0)
        return found

    real = cache.read_images
    monkeypatch.setattr(cache, "read_images", read_images)
    MNISTDataset(tree)
    assert not kept(tree).exists()


def test_small_sets_are_not_kept(tree):
    (tree / "0" / "b.png").unlink()
    MNISTDataset(tree)
    assert not kept(tree).parent.exists()


def test_a_part_of_a_folder_is_not_kept(tree):
    make_images("images", n_samples=2, seed=1, root=tree)
    assert not kept(tree).exists()


def test_a_part_of_a_folder_is_read_from_the_file_of_the_whole(tree):
    fresh = make_images("images", n_samples=2, seed=1, root=tree)
    MNISTDataset(tree)
    again = []
    assert opened_images(lambda: again.append(make_images("images", n_samples=2, seed=1, root=tree))) == []
    assert torch.equal(again[0].pixels, fresh.pixels)
    assert torch.equal(again[0].labels, fresh.labels)


@pytest.fixture
def damaged_tree(tree):
    """A folder of four images, one of which is damaged."""
    draw(tree / "0" / "c.png", np.arange(SIDE) % 256, age=60)
    (tree / "0" / "b.png").write_bytes(b"<html>404</html>")
    aged(tree / "0" / "b.png", 5)
    settle()
    return tree


def test_a_folder_with_a_damaged_image_is_kept(damaged_tree):
    MNISTDataset(damaged_tree)
    assert kept(damaged_tree).exists()


def test_every_reading_names_the_damaged_image(damaged_tree, capsys):
    MNISTDataset(damaged_tree)
    first = capsys.readouterr().out.splitlines()[0]
    MNISTDataset(damaged_tree)
    again = capsys.readouterr().out.splitlines()
    assert again == [first] == [f"skipped 1 damaged images: {damaged_tree}/0/b.png"]


def test_every_reading_leaves_out_the_damaged_image(damaged_tree):
    first, again = MNISTDataset(damaged_tree), MNISTDataset(damaged_tree)
    assert torch.equal(again.pixels, first.pixels)
    assert again.labels.tolist() == first.labels.tolist() == [0, 0, 1]


@pytest.mark.parametrize("n_samples", range(1, 5))
def test_a_part_of_a_folder_has_no_damaged_image(damaged_tree, n_samples):
    whole = MNISTDataset(damaged_tree)
    part = make_images("images", n_samples=n_samples, seed=0, root=damaged_tree)
    assert {tuple(row) for row in columns(part)} <= {tuple(row) for row in columns(whole)}


def test_a_damaged_image_in_a_kept_folder_can_still_be_an_error(damaged_tree):
    MNISTDataset(damaged_tree)
    with pytest.raises(ValueError, match=r"0/b\.png is damaged"):
        MNISTDataset(damaged_tree, on_bad_image="error")


# ---------------------------------------------------------------- what can happen to the file


def cut_anywhere(content, rng):
    del content[rng.integers(len(content)) :]


def cut_in_the_header(content, rng):
    del content[rng.integers(300) :]


def flip_a_bit_anywhere(content, rng):
    content[rng.integers(len(content))] ^= 1 << rng.integers(8)


def flip_a_bit_in_the_header(content, rng):
    content[rng.integers(300)] ^= 1 << rng.integers(8)


@pytest.mark.parametrize("damage", [cut_anywhere, cut_in_the_header, flip_a_bit_anywhere, flip_a_bit_in_the_header])
@pytest.mark.parametrize("times", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_no_damage_to_the_file_gives_wrong_pixels(tree, damage, times):
    truth = MNISTDataset(tree).pixels
    whole = kept(tree).read_bytes()
    rng = np.random.default_rng(0)
    for i in range(times):
        damaged = bytearray(whole)
        damage(damaged, rng)
        kept(tree).write_bytes(damaged)
        assert torch.equal(MNISTDataset(tree).pixels, truth), i


def test_the_file_of_another_folder_is_not_used(tree, tmp_path):
    MNISTDataset(tree)
    other = tmp_path / "data" / "other"
    for path in tree.glob("*/*.png"):
        (other / path.parent.name).mkdir(parents=True, exist_ok=True)
        draw(other / path.relative_to(tree), np.full(SIDE, 3), age=70)
    settle()
    kept(other).write_bytes(kept(tree).read_bytes())
    assert columns(MNISTDataset(other)) == decoded(other)


def test_images_in_a_folder_that_cannot_be_written_are_kept_in_the_cache_of_the_user(tree, tmp_path):
    kept(tree).parent.touch()  # A file instead of the folder is an obstacle for root too.
    MNISTDataset(tree)
    assert len(list((tmp_path / "mine" / "moonwalk").iterdir())) == 1
    assert opened_images(lambda: MNISTDataset(tree)) == []


@pytest.fixture
def full_disk():
    """Let writing stop in the middle of the pixels."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SIDE * SIDE, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_images_are_read_although_the_disk_is_full(tree, full_disk):
    assert columns(MNISTDataset(tree)) == decoded(tree)


def test_a_full_disk_leaves_no_part_of_a_file(tree, tmp_path, full_disk):
    MNISTDataset(tree)
    folders = (kept(tree).parent, tmp_path / "mine")
    assert not [path for folder in folders for path in folder.rglob("*") if path.is_file()]


def _read_many_times(tree, truth):
    for _ in range(15):
        kept(tree).unlink(missing_ok=True)
        if columns(MNISTDataset(tree)) != truth:
            os._exit(1)


@pytest.fixture
def exit_codes_of_three_readers(tree):
    """The exit codes of three processes that read the same folder again and again, each without the file."""
    truth = decoded(tree)
    fork = multiprocessing.get_context("fork")
    readers = [fork.Process(target=_read_many_times, args=(tree, truth)) for _ in range(3)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    return [reader.exitcode for reader in readers]


def test_processes_at_the_same_time_read_the_right_pixels(exit_codes_of_three_readers):
    assert exit_codes_of_three_readers == [0, 0, 0]


def test_processes_at_the_same_time_leave_one_sound_file(exit_codes_of_three_readers, tree):
    assert columns(MNISTDataset(tree)) == decoded(tree)
    assert os.listdir(kept(tree).parent) == ["tree.npy"]


# ---------------------------------------------------------------- a process that is killed while it writes


def _stop_before_the_end(tree):
    cache._checksum = lambda *_: time.sleep(600)  # it comes after all pixels
    MNISTDataset(tree)


def unfinished(tree):
    return list(kept(tree).parent.glob(".tree.npy.*"))


@pytest.fixture
def writer(tree):
    """A process that has written all pixels and not yet renamed the file."""
    process = multiprocessing.get_context("fork").Process(target=_stop_before_the_end, args=(tree,))
    process.start()
    end = time.monotonic() + 60
    while not any(path.stat().st_size >= cache.MIN_CACHED_BYTES for path in unfinished(tree)):
        assert time.monotonic() < end
        time.sleep(0.01)
    yield process
    process.kill()
    process.join()


def test_what_a_killed_process_was_writing_is_removed(tree, writer):
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    assert len(unfinished(tree)) == 1
    assert columns(MNISTDataset(tree)) == decoded(tree)
    assert os.listdir(kept(tree).parent) == ["tree.npy"]


def test_what_a_killed_process_was_writing_is_removed_although_nothing_is_written(tree, writer):
    MNISTDataset(tree)
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    assert opened_images(lambda: MNISTDataset(tree)) == []
    assert os.listdir(kept(tree).parent) == ["tree.npy"]


def test_what_a_living_process_is_writing_stays(tree, writer):
    MNISTDataset(tree)
    MNISTDataset(tree)
    assert len(unfinished(tree)) == 1


# ---------------------------------------------------------------- large sets

LARGE_SET = """
import resource, sys
import torch
from images import cache, decoding
from images.sets import MNISTDataset, shuffled
from training.checksum import checksum
cache.LARGE_BYTES = 2**20
cache.SETTLING_SECONDS = 0.02
decoding.LARGE_SIDE = 1024
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
data = shuffled(MNISTDataset(sys.argv[1]), 0)
assert data.held.numel() == 60 * 3 * 1024**2
green = [round(1000 * float(data[torch.tensor([i])][0][0, 1, 0, 0])) * i for i in range(60)]
print(checksum(data), sum(green), round(peak() - before))
"""


@pytest.fixture(scope="module")
def two_starts(tmp_path_factory):
    """What two processes print that read 180 MB of pixels: a checksum, a sum of pixels, and the growth in MB."""
    folder = tmp_path_factory.mktemp("large")
    for i in range(6):
        path = folder / f"tree/{i % 2}/{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (1024, 1024), (40 * i, 255 - 30 * i, 7)).save(path, compress_level=1)
        aged(path, i)
        for copy in range(9):
            os.link(path, path.with_name(f"{i}_{copy}.png"))
    line = [sys.executable, "-c", LARGE_SET, str(folder / "tree")]
    printed = []
    for _ in range(2):
        done = subprocess.run(line, env={**QUIET, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout)
    return printed


def on_linux(test):
    """Mark a test of two new interpreters that read 180 MB of pixels."""
    linux = sys.platform.startswith("linux")
    test = pytest.mark.skipif(not linux, reason="peaks in kB, and pages that are given back")(test)
    return pytest.mark.slow(test)


@on_linux
@pytest.mark.parametrize("start", [0, 1])
def test_a_large_set_stays_on_the_disk_while_it_is_decoded_checked_and_read(two_starts, start):
    assert int(two_starts[start].split()[-1]) < 120, "MB, of 180"


@on_linux
def test_every_start_sees_the_same_images_of_a_large_set(two_starts):
    first, second = (printed.split()[-3:-1] for printed in two_starts)
    assert first == second


@on_linux
def test_the_second_start_does_not_decode_a_large_set_again(two_starts):
    assert "kept the decoded" not in two_starts[1]


# ---------------------------------------------------------------- how the images were read


SMALLER = 592  # pixels: three such images are still kept


def test_the_second_reading_says_again_how_images_are_read(tree, capsys):
    line = f"images of {SIDE}x{SIDE} pixels are resized and cropped to {SMALLER}x{SMALLER}\n"
    first = MNISTDataset(tree, size=SMALLER)
    assert line in capsys.readouterr().out
    again = MNISTDataset(tree, size=SMALLER)
    assert capsys.readouterr().out == line
    assert again.reading == first.reading
    assert torch.equal(again.pixels, first.pixels)


def test_images_kept_in_another_size_are_read_again(tree):
    MNISTDataset(tree, size=SMALLER)
    assert columns(MNISTDataset(tree)) == decoded(tree)
    assert MNISTDataset(tree, size=SMALLER).dims == (1, SMALLER, SMALLER)


def test_held_out_images_kept_at_another_scale_are_read_again(tree):
    first = MNISTDataset(tree, like=Reading(side=SMALLER))
    assert first.dims == (1, SMALLER, SMALLER)
    assert MNISTDataset(tree, like=Reading()).dims == (1, SIDE, SIDE)
