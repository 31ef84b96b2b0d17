"""Point sets, normaliser, batches, randomness."""

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from conf.choices import default_epochs
from dataset import Normaliser, create_moon_dataset, make_dataset
from loader import batches, epochs_of, make_loader, steps_of
from runtime.randomness import generator, integer_seed


def test_moons_lie_on_their_half_circles():
    points = create_moon_dataset(2000, noise=0.0)
    upper = np.hypot(points[:, 0], points[:, 1])
    lower = np.hypot(points[:, 0] - 1, points[:, 1] - 0.5)
    assert points.dtype == np.float32
    assert np.minimum(abs(upper - 1), abs(lower - 1)).max() < 1e-6


def test_moons_are_a_function_of_the_seed():
    assert np.array_equal(create_moon_dataset(50, seed=1), create_moon_dataset(50, seed=1))
    assert not np.array_equal(create_moon_dataset(50, seed=1), create_moon_dataset(50, seed=2))


@pytest.mark.parametrize(("name", "n"), [("moon", 10), ("moons", 0)])
def test_impossible_datasets_are_refused(name, n):
    with pytest.raises(ValueError, match=r"choose one of moons|at least 1"):
        make_dataset(name, n, 0, noise=0.05)


def test_normaliser_there_and_back():
    x = torch.randn(1000, 3) * torch.tensor([2.0, 0.1, 0.0]) + torch.tensor([5.0, -1.0, 7.0])
    normaliser = Normaliser.fit(x)
    z = normaliser.normalise(x)
    torch.testing.assert_close(z.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.std(0, correction=0), torch.tensor([1.0, 1.0, 0.0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(normaliser.denormalise(z), x)


def test_every_epoch_holds_every_row_once_with_its_label_and_all_batches_are_of_one_size():
    x = torch.arange(10.0)[:, None]
    stream = batches(make_loader(TensorDataset(x, torch.arange(10)), batch_size=4, seed=0))
    rows = [next(stream) for _ in range(steps_of(4, 10, 4))]
    assert [len(b) for b, _ in rows] == [4] * 10
    assert all(torch.equal(b[:, 0].long(), label) for b, label in rows)
    epochs = torch.cat([label for _, label in rows]).view(4, 10).tolist()
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({*map(tuple, epochs)}) == 4


def test_a_batch_larger_than_the_data_is_all_of_them():
    stream = batches(make_loader(TensorDataset(torch.arange(3.0)[:, None]), batch_size=4, seed=0))
    for _ in range(3):
        assert sorted(next(stream)[0][:, 0].tolist()) == [0, 1, 2]
    assert steps_of(7, 3, 4) == 7


@pytest.mark.parametrize("sizes", [(10, 4), (10, 3), (10, 10), (3, 4), (1, 1)])
def test_the_steps_of_so_many_epochs_end_them(sizes):
    for epochs in (1, 2, 7):
        steps = steps_of(epochs, *sizes)
        assert epochs_of(steps, *sizes) == epochs and epochs_of(steps - 1, *sizes) == epochs - 1


@pytest.mark.parametrize("dataset, learnt", [("moons", 2_000_000), ("file", 2_000_000), ("spirals", 6_400_000)])
def test_by_default_many_points_are_learnt_as_often_in_all_and_few_not_endlessly(dataset, learnt):
    for rows in (learnt // 100, learnt // 50, 200_000, learnt // 2):
        assert default_epochs(rows, dataset) * rows == learnt
    assert default_epochs(500, dataset) == default_epochs(2, dataset) == 100
    assert default_epochs(10**9, dataset) == 1


def test_a_stream_can_begin_anywhere():
    def stream(start):
        return batches(make_loader(TensorDataset(torch.arange(10.0)[:, None]), batch_size=4, seed=3), start)

    whole = stream(0)
    rows = [next(whole)[0] for _ in range(9)]
    for start in (1, 3, 5):
        assert torch.equal(next(stream(start))[0], rows[start])


def test_each_seed_purpose_and_index_has_its_own_randomness():
    seeds = {integer_seed(s, p, i) for s in range(3) for p in ("noise", "order") for i in range(100)}
    assert len(seeds) == 600
    draws = [torch.randn(3, generator=generator(1, "noise", 7)) for _ in range(2)]
    assert torch.equal(*draws)
