"""Files of points that are larger than memory, images mapped from a file, and the order of so many rows."""

import hashlib
import os
import subprocess
import sys
import time
import warnings
from itertools import islice

import numpy as np
import pytest
import torch
from conftest import QUIET, ROOT, begun

import loader
from dataset import LargeSet, Normaliser, make_dataset, make_sets
from images.sets import ImageSet, digits, shuffled, split_fifth
from points import large
from runtime.randomness import generator
from training.checksum import checksum

# Runs a command and prints its peak memory. The peak of a forked process begins at that of its parent, so the parent
# must be small.
PEAK = (
    "import resource, subprocess, sys; subprocess.run([sys.executable, *sys.argv[1:]], check=True);"
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
)


def sparse(path, rows, every=1000):
    """Write a file of moons in which one of `every` thousand rows takes space on the disk; all other rows are 0."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (rows, 2)})
        begin = file.tell()
        file.truncate(begin + 16 * rows)
        for first in range(0, rows, 1000 * every):
            file.seek(begin + 16 * first)
            file.write(make_dataset("moons", 1000, first, noise=0.05).points.astype(np.float64).tobytes())


@pytest.mark.slow  # a real training in a new interpreter
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="files with holes, and memory in kB")
def test_a_training_on_ten_gigabytes_takes_less_than_one_of_memory(tmp_path):
    sparse(tmp_path / "big.npy", 625_000_000, every=5000)
    words = ["dataset=file", "dataset.path=big.npy", "num_samples=null", "max_steps=50", "eval_samples=0"]
    line = [sys.executable, "-c", PEAK, str(ROOT / "train.py"), *words]
    done = subprocess.run(line, cwd=tmp_path, env=QUIET, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "500,000,000 points, read where they lie; of 20,000, spread evenly" in done.stdout
    assert int(done.stdout.split()[-1]) < 1_000_000, "kB"


@pytest.fixture
def rows(tmp_path, monkeypatch):
    """A file of 103 rows (i, -i) that is treated as a large one."""
    monkeypatch.setattr(large, "LARGE_FILE_BYTES", 1)
    np.save(tmp_path / "rows.npy", np.arange(103.0)[:, None] * [1, -1])
    return tmp_path / "rows.npy"


LEARNT = [i for i in range(103) if i % 5 != 4]


def sets_of(rows, **options):
    """The training set and the held-out set of a file."""
    return make_sets("file", None, 0, path=str(rows), **options)


def test_every_fifth_row_of_a_large_file_is_held_out(rows):
    train, unseen = sets_of(rows)
    assert isinstance(train, LargeSet)
    assert len(train) == 83
    assert train[:][0][:, 0].tolist() == LEARNT
    assert np.sort(unseen.points[:, 0]).tolist() == [*range(4, 103, 5)]


def test_the_sample_of_a_small_enough_file_is_all_of_it(rows):
    train, _ = sets_of(rows)
    assert sorted(train.points[:, 0]) == LEARNT


def test_rows_of_a_large_file_are_read_by_their_numbers(rows):
    train, _ = sets_of(rows)
    assert train[torch.tensor([4, 3])][0].tolist() == [[5, -5], [3, -3]]


def test_the_normaliser_of_a_large_file_has_the_mean_of_its_rows(rows):
    train, _ = sets_of(rows)
    mean = train[:][0][:, 0].mean()
    torch.testing.assert_close(Normaliser.fit_dataset(train).mean, mean * torch.tensor([1.0, -1.0]).double())


def test_some_rows_of_a_large_file_are_read_alone(rows):
    some = make_dataset("file", 20, 0, path=str(rows))
    assert len(some) == 20
    assert not isinstance(some, LargeSet)
    assert len(set(some.points[:, 0])) == 20
    assert (some.points[:, 0] == -some.points[:, 1]).all()


def test_the_sample_misses_no_part_of_a_file():
    chosen = large.stratified_rows(10**10 + 7, 1000, generator(0, "spread")).sort().values
    parts = torch.arange(1001) * (10**10 + 7) // 1000
    assert ((chosen >= parts[:-1]) & (chosen < parts[1:])).all()


def test_the_sample_of_as_many_rows_as_there_are_has_each_row_once():
    assert large.stratified_rows(5, 5, generator(0, "spread")).sort().values.tolist() == [0, 1, 2, 3, 4]


def test_the_checksum_of_an_unchanged_large_file_stays(rows):
    assert checksum(sets_of(rows)[0]) == checksum(sets_of(rows)[0])


def test_the_checksum_of_a_large_file_depends_on_its_numbers(rows):
    before = checksum(sets_of(rows)[0])
    np.save(rows, np.load(rows) + 1e-9)
    assert checksum(sets_of(rows)[0]) != before


def test_the_checksum_of_a_large_file_depends_on_its_size(rows):
    before = checksum(sets_of(rows)[0])
    held = np.load(rows)
    np.save(rows, np.concatenate([held, held[:2]]))
    assert checksum(sets_of(rows)[0]) != before


def test_labels_of_a_large_file_are_refused(rows):
    with pytest.raises(ValueError, match=r"leave out dataset\.label"):
        sets_of(rows, label="0")


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda held: held.astype(np.int64), "holds int64"),
        (np.asfortranarray, "holds float64, column by column"),
        (lambda held: held.astype(">f8"), "holds >f8"),
        (lambda held: np.where(held == 8, np.nan, held), "NaN"),
        (lambda held: held * 1e200, "larger units"),
        (lambda held: held[:, :1], "shape"),
    ],
    ids=["integers", "by column", "other byte order", "NaN", "too large", "one column"],
)
def test_large_files_that_cannot_be_used_without_a_copy_are_refused(rows, wrong, sentence):
    np.save(rows, wrong(np.load(rows)))
    with pytest.raises(ValueError, match=sentence):
        sets_of(rows)


def test_single_rows_and_no_rows_of_a_large_file_are_read(rows):
    train, _ = sets_of(rows)
    assert train[4][0].tolist() == [5, -5]
    assert train[3:3][0].shape == (0, 2)


def test_rows_of_a_large_file_come_in_the_order_that_was_asked_for(tmp_path, monkeypatch):
    """Some rows are neighbours, some are far from each other, some come twice."""
    monkeypatch.setattr(large, "LARGE_FILE_BYTES", 1)
    monkeypatch.setattr(large, "ROWS_PER_READ", 700)
    held = np.random.default_rng(0).random((200_000, 3), dtype=np.float32)
    np.save(tmp_path / "rows.npy", held)
    file = large.open_large_file(str(tmp_path / "rows.npy"))
    near = torch.randint(1000, (2000,), generator=generator(0, "near"))
    far = torch.randint(200_000, (2000,), generator=generator(0, "far"))
    chosen = torch.cat([near, far, near[:500]])[torch.randperm(4500, generator=generator(0, "order"))]
    assert (file.read(chosen) == held[chosen.numpy()]).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_reading_a_large_file_warns_of_nothing(rows, dtype):
    np.save(rows, np.load(rows).astype(dtype))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sets_of(rows)


@pytest.mark.parametrize(
    ("value", "dtype", "sentence"),
    [
        (np.nan, np.float32, r"rows\.npy holds NaN in row 51, column 1 \(both count from 0\): remove the row"),
        (-np.inf, np.float64, r"holds -infinity in row 51, column 1"),
        (1e30, np.float32, r"holds 1e\+30 in row 51, column 1 .*larger units, or save them as float64"),
        (-1e200, np.float64, r"holds -1e\+200 in row 51, column 1 .*larger units$"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_when_it_is_read(rows, value, dtype, sentence):
    held = np.load(rows).astype(dtype)
    np.save(rows, held)
    train, _ = sets_of(rows)
    times = rows.stat()
    held[51, 1] = value
    changed = held[51].tobytes()
    with rows.open("r+b") as file:
        file.seek(128 + 51 * len(changed))
        file.write(changed)
    os.utime(rows, ns=(times.st_atime_ns, times.st_mtime_ns))  # as if it had been there from the beginning
    assert len(train[torch.arange(40)][0]) == 40
    with pytest.raises(large.UnusableRowError, match=sentence):
        train[torch.tensor([3, 41, 5])]


def test_a_file_that_becomes_shorter_is_named_when_it_is_read(rows):
    train, _ = sets_of(rows)
    os.truncate(rows, 128 + 16 * 50)
    with pytest.raises(large.UnusableRowError, match="has become shorter while it was read: copy it again"):
        train[torch.arange(83)]


def test_a_file_that_is_written_to_is_named_when_it_is_read(rows):
    """Its rows would be a mixture of old and new ones, although all of them are right."""
    train, _ = sets_of(rows)
    assert len(train[torch.arange(40)][0]) == 40
    later = rows.stat().st_mtime_ns + 10**9
    with rows.open("r+b") as file:
        file.seek(128 + 16 * 70)
        file.write(np.zeros(2).tobytes())
    os.utime(rows, ns=(later, later))  # whatever the resolution of the file system's clock
    with pytest.raises(large.UnusableRowError, match="was written to while it was read"):
        train[torch.arange(40)]


def test_a_file_that_is_replaced_by_another_is_read_on(rows, tmp_path):
    """The open file is still the old one."""
    train, _ = sets_of(rows)
    before = train[torch.arange(83)][0]
    np.save(tmp_path / "new.npy", np.zeros((5, 2)))
    os.replace(tmp_path / "new.npy", rows)
    assert torch.equal(train[torch.arange(83)][0], before)


TRAINING = """
import runpy, sys
from points import large
large.LARGE_FILE_BYTES = 1
words = "dataset=file dataset.path=big.npy num_samples=null batch_size=500 num_timesteps=8 checkpoint_every=10"
model = "model.hidden=8 model.layers=1 eval_samples=0 references=8 hydra.run.dir=run"
sys.argv = ["train.py", *words.split(), *model.split(), *sys.argv[1:]]
runpy.run_path("ROOT/train.py", run_name="__main__")
""".replace("ROOT", str(ROOT))


@pytest.fixture
def big(tmp_path):
    """A file of 200,000 points, of which a training looks at an eighth before it begins."""
    np.save(tmp_path / "big.npy", make_dataset("moons", 200_000, 0, noise=0.05).points)
    return tmp_path / "big.npy"


def test_a_training_that_comes_to_an_unusable_row_names_it_and_the_last_checkpoint(big):
    rows = np.load(big)
    rows[100_001, 1] = np.nan
    np.save(big, rows)
    training = begun(["-c", TRAINING, "max_steps=400"], big.parent)
    _, errors = training.communicate()
    assert training.returncode == 1
    (sentence,) = errors.strip().splitlines()
    assert "big.npy holds NaN in row 100001, column 1" in sentence
    assert "the last checkpoint, of step " in sentence


def test_a_training_that_diverges_at_an_extreme_row_names_it(big):
    rows = np.load(big).astype(np.float64)
    rows[100_001, 1] = 1e90
    np.save(big, rows)
    training = begun(["-c", TRAINING, "max_steps=400"], big.parent)
    _, errors = training.communicate()
    assert training.returncode == 1
    (sentence,) = errors.strip().splitlines()
    place = "1e+90 in row 100001, column 1 of big.npy (both count from 0); "
    assert "the training diverged: the loss is " in sentence
    assert f"look at the data, which hold extreme values: {place}" in sentence


def test_a_training_whose_file_becomes_shorter_ends_in_a_sentence(big):
    training = begun(["-c", TRAINING, "max_steps=1000000"], big.parent)
    end = time.monotonic() + 100
    while not (big.parent / "run" / "last.pt").exists():
        assert training.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    os.truncate(big, 500_000)
    _, errors = training.communicate()
    assert training.returncode == 1
    (sentence,) = errors.strip().splitlines()
    assert "big.npy has become shorter while it was read" in sentence
    assert "the last checkpoint, of step " in sentence


def test_a_file_that_was_cut_off_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((1000, 2)))
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(whole[:-8])
    with pytest.raises(ValueError, match="shorter than its header says"):
        make_sets("file", 100, 0, path=str(tmp_path / "a.npy"))


# ---------------------------------------------------------------- images that are mapped from a file


@pytest.fixture(scope="module")
def split_digits():
    """All digits, and the training set and the held-out set that they are split into after shuffling."""
    whole = digits()
    return whole, *split_fifth(shuffled(whole, 0))


def test_shuffling_and_splitting_images_copies_no_pixel(split_digits):
    whole, train, unseen = split_digits
    assert {part.held.data_ptr() for part in (whole, train, unseen)} == {whole.held.data_ptr()}


def test_splitting_images_loses_none(split_digits):
    whole, train, unseen = split_digits
    assert len(train) + len(unseen) == len(whole)
    assert len(train.pixels) == len(train)


def test_rows_of_split_images_are_their_pixels(split_digits):
    _, train, _ = split_digits
    assert torch.equal(train[:5][0], train.pixels[:5] / 127.5 - 1)
    assert torch.equal(train[7][0], train[5:8][0][2])


def test_the_checksum_of_images_does_not_depend_on_where_they_are_stored(split_digits):
    _, train, _ = split_digits
    assert checksum(train) == checksum(ImageSet(train.pixels, train.labels, train.classes))


def test_the_checksum_of_images_is_that_of_earlier_versions(split_digits):
    _, train, _ = split_digits
    digest = hashlib.blake2b(f"uint8 {tuple(train.pixels.shape)}".encode(), digest_size=16)
    digest.update(train.pixels.numpy().tobytes() + train.labels.numpy().tobytes())
    assert checksum(train) == digest.hexdigest()


# ---------------------------------------------------------------- the order of many rows


def order_of(epoch, seed=0):
    """The 1003 row numbers of an epoch in its order: 59 batches of 17 rows."""
    sampler = loader.ShuffledBatches(1003, 17, seed)
    sampler.start = 59 * epoch
    return torch.cat([*islice(sampler, 59)])


class RecordingRows:
    """103 rows whose values are their numbers, and the list of the numbers that were read."""

    def __init__(self):
        self.read = []

    def __len__(self):
        return 103

    def __getitem__(self, i):
        self.read += i.tolist()
        return (i[:, None],)


def batches_until_the_40th(start):
    """The batches of a new training and of one that starts at a later batch, with the numbers that each has read."""
    new, resumed = RecordingRows(), RecordingRows()
    whole = loader.batches(loader.make_loader(new, batch_size=10, seed=0))
    rest = loader.batches(loader.make_loader(resumed, batch_size=10, seed=0), start)
    pairs = [(batch, next(rest)[0]) for batch, _ in islice(whole, start, 40)]
    return pairs, new.read, resumed.read


every_start = pytest.mark.parametrize("start", [0, 1, 10, 11, 28])


@every_start
def test_a_resumed_training_has_the_batches_of_an_uninterrupted_one(start):
    pairs, _, _ = batches_until_the_40th(start)
    for batch, resumed_batch in pairs:
        assert torch.equal(resumed_batch, batch)


@every_start
def test_a_resumed_training_reads_no_row_of_the_batches_before(start):
    _, read, resumed_read = batches_until_the_40th(start)
    assert len(read) > 300
    assert resumed_read == read[-len(resumed_read) :]
    assert len(resumed_read) == 10 * (40 - start)


def test_few_rows_are_shuffled_by_one_permutation():
    assert torch.equal(order_of(3), torch.randperm(1003, generator=generator(0, "order", 3)))


@pytest.fixture
def small_blocks(monkeypatch):
    """Let 1003 rows be so many that they are shuffled by blocks of 16 rows, 8 blocks at a time."""
    monkeypatch.setattr(loader, "MAX_PERMUTATION_ROWS", 1000)
    monkeypatch.setattr(loader, "BLOCK_ROWS", 16)
    monkeypatch.setattr(loader, "BLOCKS_TOGETHER", 8)


def test_an_order_by_blocks_has_every_row_once(small_blocks):
    assert order_of(3).sort().values.tolist() == [*range(1003)]


def test_an_order_by_blocks_is_a_function_of_epoch_and_seed(small_blocks):
    order = order_of(3)
    assert torch.equal(order, order_of(3))
    assert not torch.equal(order, order_of(4))
    assert not torch.equal(order, order_of(3, seed=1))


def test_rows_of_eight_blocks_come_together(small_blocks):
    # One of the eight blocks may be the short last one.
    assert len(set((order_of(3)[:112] // 16).tolist())) == 8


def test_the_rows_of_blocks_are_shuffled_one_by_one(small_blocks):
    assert (order_of(3)[:112].diff() == 1).sum() < 20
