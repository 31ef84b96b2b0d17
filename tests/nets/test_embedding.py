"""The time embedding, sinusoidal and learned, and the null label."""

import math

import pytest
import torch

from nets.embedding import TimeEmbedding, frequencies, label_or_null, time_embedding


def test_time_embedding_of_integers_is_float32():
    e = time_embedding(torch.tensor([0, 1, 10]), 8)
    assert e.shape == (3, 8)
    assert e.dtype == torch.float32


def test_time_embedding_is_sin_then_cos():
    e = time_embedding(torch.tensor([0, 1, 10]), 8)
    assert e[0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    torch.testing.assert_close(e[2, :4], torch.sin(10 * torch.tensor([1.0, 0.1, 0.01, 0.001])))
    torch.testing.assert_close(e[2, 4:], torch.cos(10 * torch.tensor([1.0, 0.1, 0.01, 0.001])))


@pytest.mark.parametrize(("shape", "dim"), [((), 8), ((5,), 2), ((3, 4), 320)])
def test_time_embedding_has_the_shape_of_t_and_one_more(shape, dim):
    assert time_embedding(torch.full(shape, 7), dim).shape == (*shape, dim)


@pytest.mark.parametrize(("shape", "dim"), [((), 8), ((5,), 2), ((3, 4), 320)])
def test_squares_of_sin_and_cos_of_the_time_embedding_sum_to_1(shape, dim):
    e = time_embedding(torch.full(shape, 7), dim)
    torch.testing.assert_close(e.square().unflatten(-1, (2, -1)).sum(-2), torch.ones(*shape, dim // 2))


def test_all_thousand_steps_are_distinguishable():
    e = time_embedding(torch.arange(1000), 48)
    assert float((torch.cdist(e, e) + 9 * torch.eye(1000)).min()) > 0.1


def test_frequencies_fall_geometrically_from_one():
    f = frequencies(320)
    assert f.shape == (160,)
    assert float(f[0]) == 1
    assert float(f[80]) == pytest.approx(0.01, rel=1e-5)
    torch.testing.assert_close(f[1:] / f[:-1], torch.full((159,), 10_000 ** (-1 / 160)))


def test_the_longest_period_can_be_chosen():
    e = time_embedding(torch.tensor(3), 4, max_period=100)
    assert e.tolist() == pytest.approx([math.sin(3), math.sin(0.3), math.cos(3), math.cos(0.3)], rel=1e-6)


@pytest.mark.parametrize("dim", [0, 1, 3, -2])
def test_time_embedding_needs_an_even_dimension(dim):
    with pytest.raises(ValueError, match="even"):
        time_embedding(torch.tensor([0]), dim)


@pytest.mark.parametrize("dim", [0, 1, 3, -2])
def test_learned_time_embedding_needs_an_even_dimension(dim):
    with pytest.raises(ValueError, match="even"):
        TimeEmbedding(dim, 16)


# ---------------------------------------------------------------- learned


every_shape = pytest.mark.parametrize("shape", [(), (1,), (5,)])


@every_shape
def test_learned_embedding_is_a_network_of_the_sinusoidal_one(shape):
    module = TimeEmbedding(8, 12, num_timesteps=50)
    out = module(torch.full(shape, 20))
    assert out.shape == (*shape, 12)
    torch.testing.assert_close(out, module.layers(time_embedding(torch.full(shape, 20), 8)))


@every_shape
def test_learned_embeddings_of_two_steps_differ(shape):
    module = TimeEmbedding(8, 12, num_timesteps=50)
    assert not torch.allclose(module(torch.full(shape, 20)), module(torch.full(shape, 21)))


def test_the_first_and_the_last_step_are_accepted():
    assert TimeEmbedding(8, 12, num_timesteps=50)(torch.tensor([0, 49])).shape == (2, 12)


@pytest.mark.parametrize("t", [-1, 50, [0, 50], [3, -1]])
def test_steps_out_of_range_are_refused(t):
    module = TimeEmbedding(8, 12, num_timesteps=50)
    with pytest.raises(ValueError, match=r"0\.\.49"):
        module(torch.tensor(t))


def test_fractional_steps_are_refused():
    with pytest.raises(ValueError, match=r"integer step, got torch\.float32"):
        TimeEmbedding(8, 12)(torch.tensor([0.5]))


def test_time_embedding_is_on_the_device_of_t():
    assert time_embedding(torch.zeros(2, dtype=torch.long, device="meta"), 8).device.type == "meta"


def test_learned_embedding_has_the_dtype_of_its_module():
    assert TimeEmbedding(8, 12).to(torch.float64)(torch.tensor([3])).dtype == torch.float64


def test_learned_embedding_is_on_the_device_of_its_module():
    module = TimeEmbedding(8, 12).to(torch.float64).to("meta")
    assert module(torch.zeros(3, dtype=torch.long, device="meta")).device.type == "meta"


def test_the_table_of_embeddings_is_not_saved():
    names = set(TimeEmbedding(8, 12).state_dict())
    assert names == {"layers.0.weight", "layers.0.bias", "layers.2.weight", "layers.2.bias"}


# ---------------------------------------------------------------- labels


@pytest.mark.parametrize("num_labels", [10, 0])
def test_no_label_is_the_null_label(num_labels):
    like = torch.zeros(4, dtype=torch.long)
    assert label_or_null(None, num_labels, like).tolist() == [num_labels] * 4


def test_given_labels_are_kept():
    labels = torch.tensor([0, 1, 2, 3])
    assert label_or_null(labels, 10, torch.zeros(4, dtype=torch.long)) is labels


def test_labels_for_a_network_without_labels_are_refused():
    with pytest.raises(ValueError, match="trained without"):
        label_or_null(torch.tensor([1]), 0, torch.tensor([0]))
