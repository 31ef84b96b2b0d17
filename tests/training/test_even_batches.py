"""Batches that are drawn evenly: they are unbiased, and more even than random ones."""

from functools import partial
from itertools import islice

import numpy as np
import pytest
import torch
from conftest import even_noise
from scipy import stats
from torch.func import functional_call, grad, vmap

from dataset import even_order_of, make_sets
from loader import EvenBatches, batches, make_loader
from loss.objective import reference_batches, stable_target, training_loss
from points.even_order import LEAF_ROWS, even_order
from runtime.randomness import generator
from schedule import LinearNoiseScheduler

BOUND = 5.0  # standard errors; of a thousand looks, one in 1,700 runs with other seeds would fail


# ---------------------------------------------------------------- the order


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("rows", [1, 2, LEAF_ROWS, 1000])
def test_the_order_holds_every_row_once(rows, labelled):
    g = np.random.default_rng(0)
    labels = g.integers(0, 3, rows) if labelled else None
    order = even_order(g.normal(size=(rows, 3)), labels)
    assert sorted(order) == list(range(rows))
    if labels is not None:
        assert (np.diff(labels[order]) >= 0).all()


def test_pieces_of_the_order_are_close_in_space():
    points = np.random.default_rng(0).uniform(size=(64 * LEAF_ROWS, 2))
    pieces = points[even_order(points)].reshape(64, LEAF_ROWS, 2)
    # A square of area 1 / 64 has a standard deviation of 1 / 8 / sqrt(12) along each side.
    spread = pieces.std(1).mean()
    assert spread < 1.3 / 8 / 12**0.5


def test_equal_points_have_an_order_too():
    assert sorted(even_order(np.zeros((500, 2)))) == list(range(500))


# ---------------------------------------------------------------- rows


@pytest.mark.parametrize(("rows", "size"), [(103, 20), (100, 20), (37, 36), (7, 20)])
def test_each_row_is_drawn_as_often_as_any_other(rows, size):
    sampler = EvenBatches(torch.randperm(rows, generator=torch.Generator().manual_seed(0)), size, seed=0)
    num_batches = 4000
    drawn = torch.cat([*islice(sampler, num_batches)]).bincount(minlength=rows).double()
    expected = num_batches * sampler.batch_size / rows
    # Each batch draws a row with a probability of about B / N, at most as irregularly as independent draws.
    assert float((drawn - expected).abs().max()) < BOUND * expected**0.5
    if rows % sampler.batch_size == 0:
        assert set(drawn.tolist()) == {expected}


def test_no_row_is_drawn_much_more_often_in_an_epoch():
    sampler = EvenBatches(torch.arange(1000), 96, seed=0)
    epoch = torch.cat([*islice(sampler, 11)])
    assert int(epoch.bincount().max()) <= 3


@pytest.mark.parametrize("group", [0, 16, 64])
def test_each_group_has_one_row_of_each_stratum(group):
    sampler = EvenBatches(torch.arange(64 * 10), 64, seed=0, group=group)
    for rows in islice(sampler, 25):
        assert sorted((rows // 10).tolist()) == list(range(64))
        for part in rows.split(group or 64):
            assert sorted((part * len(part) // 640).tolist()) == list(range(len(part)))


def test_groups_that_do_not_divide_a_batch_are_left_out():
    sampler = EvenBatches(torch.arange(1000), 50, seed=0, group=16)
    assert sampler.group == 50


def test_the_rows_of_a_batch_are_in_random_order():
    """Each stratum is at each place of its group equally often, so that noise is paired at random."""
    sampler = EvenBatches(torch.arange(8), 8, seed=0, group=4)
    table = torch.zeros(8, 8)
    num_batches = 4000
    for rows in islice(sampler, num_batches):
        table[torch.arange(8), rows] += 1
    deviation = (num_batches / 8 * (1 - 1 / 8)) ** 0.5
    assert float((table - num_batches / 8).abs().max()) < BOUND * deviation


def test_every_batch_has_as_many_of_each_label_as_the_data():
    data, _ = make_sets("spirals", 3000, 0, noise=0.03, arms=3)
    assert data.labels is not None
    share = np.bincount(data.labels) / len(data)
    sampler = EvenBatches(even_order_of(data), 100, seed=0)
    for rows in islice(sampler, 50):
        counts = np.bincount(data.labels[rows.numpy()], minlength=3)
        assert np.abs(counts - 100 * share).max() < 2


@pytest.mark.parametrize("start", [1, 4, 5, 12])
def test_even_batches_can_begin_anywhere(start):
    data, _ = make_sets("moons", 90, 0, noise=0.05)
    make = partial(make_loader, data, batch_size=20, seed=3, order=even_order_of(data), group=10)
    whole = [x for x, *_ in islice(batches(make()), 14)]
    rest = [x for x, *_ in islice(batches(make(), start), 2)]
    assert torch.equal(rest[0], whole[start])
    assert torch.equal(rest[1], whole[start + 1])


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize("dims", [(2,), (70,), (1, 4, 4)])
def test_each_row_has_numbers_of_the_right_distribution(dims):
    """Over many steps the numbers of any one row are independent draws (Kolmogorov and Smirnov)."""
    noise = even_noise(dims, batch_size=16)
    steps = [noise.drawn(step, 16) for step in range(500)]
    for row in (0, 7):
        eps = torch.stack([each.eps[row].flatten()[:3] for each in steps])
        u = torch.stack([each.u[row] for each in steps])
        drop = torch.stack([each.drop[row] for each in steps])
        tests = [stats.kstest(u, "uniform"), stats.kstest(drop, "uniform")]
        tests += [stats.kstest(column, "norm") for column in eps.T]
        # Of the 30 tests here, one would fail by chance in 1 of 3,000 runs.
        assert all(test.pvalue > 1e-5 for test in tests)
        together = torch.cat([eps, torch.special.ndtri(torch.stack([u, drop], 1))], 1).double()
        correlations = torch.corrcoef(together.T) - torch.eye(together.shape[1])
        assert float(correlations.abs().max()) < BOUND / len(steps) ** 0.5


@pytest.mark.parametrize(("dims", "even"), [((2,), True), ((64,), True), ((65,), False)])
def test_the_noise_of_a_batch_is_even_where_it_has_few_dimensions(dims, even):
    noise = even_noise(dims, batch_size=256)
    means = torch.stack([noise.drawn(step, 256).eps[:, 0].mean() for step in range(100)])
    ratio = float(means.std()) * 256**0.5  # 1 for independent draws
    assert ratio < 0.2 if even else ratio > 0.7


def test_steps_are_even_in_every_batch():
    noise = even_noise((2,), batch_size=256)
    for step in range(20):
        u = noise.drawn(step, 256).u.sort().values
        assert float((u - (torch.arange(256) + 0.5) / 256).abs().max()) < 2 / 256


def test_no_number_is_infinite():
    noise = even_noise((2,), batch_size=4)
    noise.numbers_of_steps.base = torch.zeros_like(noise.numbers_of_steps.base)
    noise.numbers_of_steps.base[1] = 1 - 2**-53
    g = torch.Generator()
    shifted = noise.numbers_of_steps.numbers_at(
        torch.zeros(1, 1, noise.numbers_of_steps.base.shape[1], dtype=torch.float64), g
    )
    assert bool(torch.isfinite(shifted.eps).all())


def test_shuffled_batches_have_the_numbers_of_earlier_versions():
    """So a run that began with them goes on with the same bits."""
    noise = even_noise((2,), 64, batches="shuffled")
    drawn = noise.drawn(5, 64)
    g = generator(0, "noise", 5)
    within, eps, drop = torch.rand(64, generator=g), torch.randn(64, 2, generator=g), torch.rand(64, generator=g)
    assert torch.equal(drawn.u, (torch.arange(64) + within) / 64)
    assert torch.equal(drawn.eps, eps)
    assert torch.equal(drawn.drop, drop)


# ---------------------------------------------------------------- gradients


@pytest.mark.parametrize("references", [0, 16])
def test_the_mean_gradient_is_that_of_plain_batches(references):
    """The gradient of the loss, in float64: equal means, and a smaller variance."""
    data, _ = make_sets("moons", 203, 0, noise=0.05)
    plain = gradients(data, references, even=False)
    even = gradients(data, references, even=True)
    error = (plain.var(0) / len(plain) + even.var(0) / len(even)).sqrt()
    assert float(((plain.mean(0) - even.mean(0)) / error).abs().max()) < BOUND
    assert float(even.var(0).sum()) < 0.5 * float(plain.var(0).sum())


def test_the_stable_target_of_even_groups_is_unbiased():
    """The expected x_0 of the stable target, over many groups, is E[x_0 | x_t] of the whole data.

    It is tested by E[(target - x_0) f(x_t)] = 0 for several functions f of x_t, which must hold for
    any unbiased target. The rows come in even groups.
    """
    scheduler = LinearNoiseScheduler(100)
    data, _ = make_sets("moons", 203, 0, noise=0.05)
    means = []
    for x_0, t, eps in training_batches(data, 16, even=True, count=3000):
        alpha, sigma = scheduler.alpha_sigma(t, x_0)
        x_t = alpha * x_0 + sigma * eps
        target = stable_target(x_t, alpha, sigma, None, reference_batches(x_0, None, 16)).x_0
        tests = torch.cat([torch.ones_like(x_t), x_t, x_t.square(), torch.cos(3 * x_t)], 1)
        means.append(((target - x_0)[:, :, None] * tests[:, None, :]).mean(0).flatten())
    means = torch.stack(means)
    error = means.std(0) / len(means) ** 0.5
    assert float((means.mean(0) / error).abs().max()) < BOUND


def training_batches(data, size, *, even, count):
    """(x_0, t, eps) in float64: even ones, or of independent draws."""
    x = torch.from_numpy(data.points).double()
    g = torch.Generator().manual_seed(5)
    noise = even_noise((2,), batch_size=32)
    sampler = iter(EvenBatches(even_order_of(data), 32, seed=1, group=size))
    for step in range(count):
        if even:
            drawn = noise.drawn(step, 32)
            yield x[next(sampler)], (drawn.u * 100).long(), drawn.eps.double()
        else:
            rows = torch.randint(len(x), (32,), generator=g)
            eps = torch.randn(32, 2, generator=g, dtype=torch.float64)
            yield x[rows], torch.randint(100, (32,), generator=g), eps


def gradients(data, references, *, even):
    """The gradients of a small network over 2,000 batches: (2000, number of weights)."""
    scheduler = LinearNoiseScheduler(100)
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)).double()
    weights = dict(net.named_parameters())

    def loss(weights, x_0, t, eps):
        def network(x_t, t, label):
            return functional_call(net, weights, (torch.cat([x_t, t[:, None] / 100], 1),))

        groups = reference_batches(x_0, None, references)
        return training_loss(network, scheduler, x_0, t, eps, references=groups).stable.mean()

    found = [*training_batches(data, references, even=even, count=2000)]
    x_0, t, eps = (torch.stack(part) for part in zip(*found))
    each = vmap(grad(loss), in_dims=(None, 0, 0, 0))(weights, x_0, t, eps)
    return torch.cat([part.detach().flatten(1) for part in each.values()], 1)
