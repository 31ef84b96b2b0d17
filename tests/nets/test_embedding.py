"""The time embedding, sinusoidal and learned, and the null label."""

import math

import pytest
import torch

from nets.embedding import TimeEmbedding, frequencies, label_or_null, time_embedding


def test_time_embedding_is_sin_then_cos():
    e = time_embedding(torch.tensor([0, 1, 10]), 8)
    assert e.shape == (3, 8) and e.dtype == torch.float32
    assert e[0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    torch.testing.assert_close(e[2, :4], torch.sin(10 * torch.tensor([1.0, 0.1, 0.01, 0.001])))
    torch.testing.assert_close(e[2, 4:], torch.cos(10 * torch.tensor([1.0, 0.1, 0.01, 0.001])))


@pytest.mark.parametrize(("shape", "dim"), [((), 8), ((5,), 2), ((3, 4), 320)])
def test_time_embedding_has_the_shape_of_t_and_one_more(shape, dim):
    e = time_embedding(torch.full(shape, 7), dim)
    assert e.shape == (*shape, dim)
    torch.testing.assert_close(e.square().unflatten(-1, (2, -1)).sum(-2), torch.ones(*shape, dim // 2))


def test_all_thousand_steps_are_distinguishable():
    e = time_embedding(torch.arange(1000), 48)
    assert float((torch.cdist(e, e) + 9 * torch.eye(1000)).min()) > 0.1


def test_frequencies_fall_geometrically_from_one():
    f = frequencies(320)
    assert f.shape == (160,) and float(f[0]) == 1
    assert float(f[80]) == pytest.approx(0.01, rel=1e-5)
    torch.testing.assert_close(f[1:] / f[:-1], torch.full((159,), 10_000 ** (-1 / 160)))


def test_another_longest_period():
    e = time_embedding(torch.tensor(3), 4, max_period=100)
    assert e.tolist() == pytest.approx([math.sin(3), math.sin(0.3), math.cos(3), math.cos(0.3)], rel=1e-6)


@pytest.mark.parametrize("dim", [0, 1, 3, -2])
def test_time_embedding_needs_an_even_dimension(dim):
    with pytest.raises(ValueError, match="even"):
        time_embedding(torch.tensor([0]), dim)
    with pytest.raises(ValueError, match="even"):
        TimeEmbedding(dim, 16)


# ---------------------------------------------------------------- learned


@pytest.mark.parametrize("shape", [(), (1,), (5,)])
def test_learned_embedding_of_one_step_or_many(shape):
    torch.manual_seed(0)
    module = TimeEmbedding(8, 12, num_timesteps=50)
    out = module(torch.full(shape, 20))
    assert out.shape == (*shape, 12)
    torch.testing.assert_close(out, module.layers(time_embedding(torch.full(shape, 20), 8)))
    assert not torch.allclose(out, module(torch.full(shape, 21)))


@pytest.mark.parametrize("t", [-1, 50, [0, 50], [3, -1]])
def test_steps_out_of_range_are_refused(t):
    module = TimeEmbedding(8, 12, num_timesteps=50)
    assert module(torch.tensor([0, 49])).shape == (2, 12)
    with pytest.raises(ValueError, match=r"0\.\.49"):
        module(torch.tensor(t))


def test_fractional_steps_are_refused():
    with pytest.raises(ValueError, match=r"integer step, got torch\.float32"):
        TimeEmbedding(8, 12)(torch.tensor([0.5]))


def test_device_and_number_type_are_those_of_the_module():
    assert time_embedding(torch.zeros(2, dtype=torch.long, device="meta"), 8).device.type == "meta"
    module = TimeEmbedding(8, 12).to(torch.float64)
    assert module(torch.tensor([3])).dtype == torch.float64
    assert module.to("meta")(torch.zeros(3, dtype=torch.long, device="meta")).device.type == "meta"


def test_the_table_is_not_saved():
    names = set(TimeEmbedding(8, 12).state_dict())
    assert names == {"layers.0.weight", "layers.0.bias", "layers.2.weight", "layers.2.bias"}


# ---------------------------------------------------------------- labels


def test_no_label_is_the_null_label():
    like, labels = torch.zeros(4, dtype=torch.long), torch.tensor([0, 1, 2, 3])
    assert label_or_null(None, 10, like).tolist() == [10] * 4
    assert label_or_null(None, 0, like).tolist() == [0] * 4
    assert label_or_null(labels, 10, like) is labels


def test_labels_for_a_network_without_are_refused():
    with pytest.raises(ValueError, match="trained without"):
        label_or_null(torch.tensor([1]), 0, torch.tensor([0]))
