"""Point sets, normaliser, batches, randomness."""

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from conf.choices import default_epochs
from dataset import Normaliser, create_moon_dataset, make_dataset
from loader import batches, epochs_in_steps, make_loader, steps_in_epochs
from runtime.randomness import generator, integer_seed


def test_moons_lie_on_their_half_circles():
    points = create_moon_dataset(2000, noise=0.0)
    upper = np.hypot(points[:, 0], points[:, 1])
    lower = np.hypot(points[:, 0] - 1, points[:, 1] - 0.5)
    assert np.minimum(abs(upper - 1), abs(lower - 1)).max() < 1e-6


def test_moons_are_of_float32():
    assert create_moon_dataset(20).dtype == np.float32


def test_one_seed_gives_the_same_moons():
    assert np.array_equal(create_moon_dataset(50, seed=1), create_moon_dataset(50, seed=1))


def test_two_seeds_give_different_moons():
    assert not np.array_equal(create_moon_dataset(50, seed=1), create_moon_dataset(50, seed=2))


@pytest.mark.parametrize(("name", "n"), [("moon", 10), ("moons", 0)])
def test_impossible_datasets_are_refused(name, n):
    with pytest.raises(ValueError, match=r"choose one of moons|at least 1"):
        make_dataset(name, n, 0, noise=0.05)


# ---------------------------------------------------------------- the normaliser


@pytest.fixture
def table():
    """Rows (1000, 3) whose columns have different means and spreads; the last is constant."""
    return torch.randn(1000, 3) * torch.tensor([2.0, 0.1, 0.0]) + torch.tensor([5.0, -1.0, 7.0])


def test_normalised_columns_have_mean_0(table):
    z = Normaliser.fit(table).normalise(table)
    torch.testing.assert_close(z.mean(0), torch.zeros(3), atol=1e-5, rtol=0)


def test_normalised_columns_have_spread_1_or_0_where_they_are_constant(table):
    z = Normaliser.fit(table).normalise(table)
    torch.testing.assert_close(z.std(0, correction=0), torch.tensor([1.0, 1.0, 0.0]), atol=1e-5, rtol=0)


def test_what_was_normalised_comes_back(table):
    normaliser = Normaliser.fit(table)
    torch.testing.assert_close(normaliser.denormalise(normaliser.normalise(table)), table)


# ---------------------------------------------------------------- batches


@pytest.fixture
def four_epochs():
    """The batches of four epochs over ten rows, each of which is its own label, four rows a batch."""
    data = TensorDataset(torch.arange(10.0)[:, None], torch.arange(10))
    stream = batches(make_loader(data, batch_size=4, seed=0))
    return [next(stream) for _ in range(steps_in_epochs(4, 10, 4))]


def test_all_batches_are_of_one_size(four_epochs):
    assert [len(rows) for rows, _ in four_epochs] == [4] * 10


def test_every_row_comes_with_its_label(four_epochs):
    assert all(torch.equal(rows[:, 0].long(), label) for rows, label in four_epochs)


def test_every_epoch_holds_every_row_once(four_epochs):
    epochs = torch.cat([label for _, label in four_epochs]).view(4, 10).tolist()
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)


def test_every_epoch_has_its_own_order(four_epochs):
    epochs = torch.cat([label for _, label in four_epochs]).view(4, 10).tolist()
    assert len({*map(tuple, epochs)}) == 4


def test_a_batch_larger_than_the_data_is_all_of_them():
    stream = batches(make_loader(TensorDataset(torch.arange(3.0)[:, None]), batch_size=4, seed=0))
    for _ in range(3):
        assert sorted(next(stream)[0][:, 0].tolist()) == [0, 1, 2]


def test_an_epoch_of_a_batch_larger_than_the_data_is_one_step():
    assert steps_in_epochs(7, 3, 4) == 7


@pytest.mark.parametrize("epochs", [1, 2, 7])
@pytest.mark.parametrize("sizes", [(10, 4), (10, 3), (10, 10), (3, 4), (1, 1)])
def test_the_steps_of_so_many_epochs_end_them(sizes, epochs):
    steps = steps_in_epochs(epochs, *sizes)
    assert epochs_in_steps(steps, *sizes) == epochs
    assert epochs_in_steps(steps - 1, *sizes) == epochs - 1


EACH_LENGTH = pytest.mark.parametrize(
    ("dataset", "learnt"), [("moons", 800_000), ("file", 1_200_000), ("spirals", 3_600_000)]
)


@EACH_LENGTH
@pytest.mark.parametrize("share", [100, 50, 10, 2])
def test_by_default_many_points_are_learnt_as_often_in_all(dataset, learnt, share):
    rows = learnt // share
    assert default_epochs(rows, dataset) * rows == learnt


@pytest.mark.parametrize(("dataset", "most"), [("moons", 100), ("file", 400), ("spirals", 100)])
def test_by_default_few_points_are_learnt_so_many_times_and_very_many_once(dataset, most):
    assert default_epochs(500, dataset) == default_epochs(2, dataset) == most
    assert default_epochs(10**9, dataset) == 1


@pytest.mark.parametrize("start", [1, 3, 5])
def test_a_stream_can_begin_anywhere(start):
    def stream(start):
        return batches(make_loader(TensorDataset(torch.arange(10.0)[:, None]), batch_size=4, seed=3), start)

    whole = stream(0)
    rows = [next(whole)[0] for _ in range(9)]
    assert torch.equal(next(stream(start))[0], rows[start])


# ---------------------------------------------------------------- randomness


def test_each_seed_purpose_and_index_has_its_own_randomness():
    assert len({integer_seed(s, p, i) for s in range(3) for p in ("noise", "order") for i in range(100)}) == 600


def test_the_same_seed_purpose_and_index_give_the_same_numbers():
    draws = [torch.randn(3, generator=generator(1, "noise", 7)) for _ in range(2)]
    assert torch.equal(*draws)


@pytest.mark.parametrize("shape", [(0, 2), (0,), ()])
def test_a_normaliser_cannot_be_fitted_to_nothing(shape):
    with pytest.raises(ValueError, match="a normaliser needs data of shape"):
        Normaliser.fit(torch.ones(shape))
