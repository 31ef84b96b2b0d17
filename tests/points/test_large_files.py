"""Files of points larger than memory, and the order in which so many rows are learnt from."""

import hashlib
import subprocess
import sys
from functools import partial
from itertools import islice

import numpy as np
import pytest
import torch
from conftest import QUIET, ROOT

import loader
from dataset import LargeSet, Normaliser, make_dataset, make_sets
from images.sets import ImageSet, digits, shuffled, split_fifth
from points import large
from runtime.randomness import generator
from training.checksum import checksum

PEAK = (  # a small process between: the peak of a forked one begins at that of the process it was forked from
    "import resource, subprocess, sys; subprocess.run([sys.executable, *sys.argv[1:]], check=True);"
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
)


def sparse(path, rows, every=1000):
    """A file of moons of which only every so many-th thousand rows take room on the disk: the others are 0."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (rows, 2)})
        begin = file.tell()
        file.truncate(begin + 16 * rows)
        for first in range(0, rows, 1000 * every):
            file.seek(begin + 16 * first)
            file.write(make_dataset("moons", 1000, first, noise=0.05).points.astype(np.float64).tobytes())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="files with holes, and memory in kB")
def test_a_training_on_ten_gigabytes_takes_little_memory(tmp_path):
    sparse(tmp_path / "big.npy", 625_000_000, every=5000)
    words = ["dataset=file", "dataset.path=big.npy", "num_samples=null", "max_steps=50", "eval_samples=0"]
    line = [sys.executable, "-c", PEAK, str(ROOT / "train.py"), *words]
    done = subprocess.run(line, cwd=tmp_path, env=QUIET, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "500,000,000 points, read where they lie; of 20,000, spread evenly" in done.stdout
    assert int(done.stdout.split()[-1]) < 1_000_000, "kB"


@pytest.fixture
def rows(tmp_path, monkeypatch):
    """A file of 103 rows (i, -i) that counts as large."""
    monkeypatch.setattr(large, "SIZE", 1)
    np.save(tmp_path / "rows.npy", np.arange(103.0)[:, None] * [1, -1])
    return tmp_path / "rows.npy"


def test_every_fifth_row_is_held_out(rows):
    train, unseen = make_sets("file", None, 0, path=str(rows))
    assert isinstance(train, LargeSet) and len(train) == 83
    learnt, other = train[:][0][:, 0], np.sort(unseen.points[:, 0])
    assert learnt.tolist() == [i for i in range(103) if i % 5 != 4] and other.tolist() == [*range(4, 103, 5)]
    assert sorted(train.points[:, 0]) == learnt.tolist()  # so few that all are looked at
    assert train[torch.tensor([4, 3])][0].tolist() == [[5, -5], [3, -3]]
    torch.testing.assert_close(Normaliser.of(train).mean, learnt.mean() * torch.tensor([1.0, -1.0]).double())


def test_some_rows_of_a_large_file_are_read_alone(rows):
    some = make_dataset("file", 20, 0, path=str(rows))
    assert len(some) == 20 and not isinstance(some, LargeSet)
    assert len(set(some.points[:, 0])) == 20 and (some.points[:, 0] == -some.points[:, 1]).all()


def test_the_sample_misses_no_part_of_a_file():
    chosen = large.spread(10**10 + 7, 1000, generator(0, "spread")).sort().values
    parts = torch.arange(1001) * (10**10 + 7) // 1000
    assert ((chosen >= parts[:-1]) & (chosen < parts[1:])).all()
    assert large.spread(5, 5, generator(0, "spread")).sort().values.tolist() == [0, 1, 2, 3, 4]


def test_the_checksum_of_a_large_file_knows_its_size_and_its_numbers(rows):
    before = checksum(make_sets("file", None, 0, path=str(rows))[0])
    assert before == checksum(make_sets("file", None, 0, path=str(rows))[0])
    held = np.load(rows)
    np.save(rows, held + 1e-9)
    assert checksum(make_sets("file", None, 0, path=str(rows))[0]) != before
    np.save(rows, np.concatenate([held, held[:2]]))
    assert checksum(make_sets("file", None, 0, path=str(rows))[0]) != before


def test_what_cannot_be_read_where_it_lies_is_refused(rows):
    sets = partial(make_sets, "file", None, 0, path=str(rows))
    with pytest.raises(ValueError, match=r"leave out dataset\.label"):
        sets(label="0")
    held = np.load(rows)
    for wrong, sentence in [
        (held.astype(np.int64), "holds int64"),
        (np.asfortranarray(held), "holds float64, column by column"),
        (held.astype(">f8"), "holds >f8"),
        (np.where(held == 8, np.nan, held), "NaN"),
        (held * 1e200, "larger units"),
        (held[:, :1], "shape"),
    ]:
        np.save(rows, wrong)
        with pytest.raises(ValueError, match=sentence):
            sets()


def test_a_file_that_was_cut_off_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((1000, 2)))
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(whole[:-8])
    with pytest.raises(ValueError, match="shorter than its header says"):
        make_sets("file", 100, 0, path=str(tmp_path / "a.npy"))


# ---------------------------------------------------------------- images that are mapped from a file


def test_shuffling_and_splitting_images_copies_no_pixel():
    whole = digits()
    train, unseen = split_fifth(shuffled(whole, 0))
    assert {part.held.data_ptr() for part in (whole, train, unseen)} == {whole.held.data_ptr()}
    assert len(train) + len(unseen) == len(whole) and len(train.pixels) == len(train)
    assert torch.equal(train[:5][0], train.pixels[:5] / 127.5 - 1) and torch.equal(train[7][0], train[5:8][0][2])


def test_the_checksum_of_images_does_not_depend_on_where_they_lie():
    train = split_fifth(shuffled(digits(), 0))[0]
    assert checksum(train) == checksum(ImageSet(train.pixels, train.labels, train.classes))
    digest = hashlib.blake2b(f"uint8 {tuple(train.pixels.shape)}".encode(), digest_size=16)  # as it has always been
    digest.update(train.pixels.numpy().tobytes() + train.labels.numpy().tobytes())
    assert checksum(train) == digest.hexdigest()


# ---------------------------------------------------------------- the order of many rows


def order_of(epoch, seed=0):
    """1003 row numbers as that epoch has them, in batches of 17 rows: 59 of them are an epoch."""
    sampler = loader.ShuffledBatches(1003, 17, seed)
    sampler.start = 59 * epoch
    return torch.cat([*islice(sampler, 59)])


class Counted:
    """103 rows, the numbers themselves, that remember which were read."""

    def __init__(self):
        self.read = []

    def __len__(self):
        return 103

    def __getitem__(self, i):
        self.read += i.tolist()
        return (i[:, None],)


@pytest.mark.parametrize("start", [0, 1, 10, 11, 28])
def test_a_training_that_goes_on_reads_no_row_of_what_is_done(start):
    first, later = (Counted(), Counted())
    whole = loader.batches(loader.make_loader(first, batch_size=10, seed=0))
    rest = loader.batches(loader.make_loader(later, batch_size=10, seed=0), start)
    for batch, _ in islice(whole, start, 40):
        assert torch.equal(next(rest)[0], batch)
    assert len(first.read) > 300 and later.read == first.read[-len(later.read) :]
    assert len(later.read) == 10 * (40 - start)


def test_few_rows_are_shuffled_by_one_permutation():
    assert torch.equal(order_of(3), torch.randperm(1003, generator=generator(0, "order", 3)))


def test_many_rows_are_shuffled_by_blocks(monkeypatch):
    monkeypatch.setattr(loader, "MOST", 1000)
    monkeypatch.setattr(loader, "BLOCK", 16)
    monkeypatch.setattr(loader, "TOGETHER", 8)
    order = order_of(3)
    assert order.sort().values.tolist() == [*range(1003)]
    assert torch.equal(order, order_of(3)) and not torch.equal(order, order_of(4))
    assert not torch.equal(order, order_of(3, seed=1))
    assert len(set((order[:112] // 16).tolist())) == 8  # eight blocks, of which one may be the short last
    assert (order[:112].diff() == 1).sum() < 20  # and within them row by row
