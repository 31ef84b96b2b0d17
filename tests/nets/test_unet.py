"""The UNet and its blocks: shapes, what they depend on, what they refuse."""

import pytest
import torch
from torch import nn

from nets.unet import BottleNeck, DownSamplingBlock, ResidualBlock, Stage, UNet, UpSamplingBlock, group_norm
from viz.network_parts import inputs, stirred

COND = 12
T = 50


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def tiny(dims=(1, 8, 8), labels=0, *, fresh=False, **options):
    """A small UNet; unless fresh, none of its layers are zero, as after a training."""
    net = UNet(dims, T, labels, **{"channels": (8, 16), "blocks": 1, "patch": 1, "heads": 2, **options})
    return net if fresh else stirred(net)


def steps(count):
    return torch.arange(count) * 7 % T


# ---------------------------------------------------------------- groups


@pytest.mark.parametrize(("channels", "groups"), [(48, 8), (32, 8), (16, 8), (12, 6), (8, 4), (20, 5), (9, 3), (2, 1)])
def test_groups_divide_the_channels_and_hold_two_or_more(channels, groups):
    norm = group_norm(channels)
    assert norm.num_groups == groups and norm.num_channels == channels


@pytest.mark.parametrize("channels", [11, 13, 7, 3])
def test_channels_that_make_no_groups_are_refused(channels):
    with pytest.raises(ValueError, match=rf"{channels} channels cannot be divided into groups.*multiple of 8"):
        group_norm(channels)


# ---------------------------------------------------------------- blocks


@pytest.mark.parametrize(("blocks", "attention", "context_dim"), [(1, True, None), (2, False, None), (2, True, 6)])
@pytest.mark.parametrize("size", [(8, 8), (4, 6)])
def test_shapes_of_the_blocks(blocks, attention, context_dim, size):
    options = {"blocks": blocks, "attention": attention, "context_dim": context_dim, "heads": 2}
    h, w = size
    x, cond, context = torch.randn(3, 8, h, w), torch.randn(3, COND), torch.randn(3, 5, 6)
    half, skip = DownSamplingBlock(8, 16, COND, **options)(x, cond, context)
    assert half.shape == (3, 16, h // 2, w // 2)
    assert skip.shape == x.shape
    assert BottleNeck(16, COND, **options)(half, cond, context).shape == half.shape
    assert UpSamplingBlock(16, 8, COND, **options)(half, skip, cond, context).shape == x.shape


@pytest.mark.parametrize(("blocks", "attention", "context_dim"), [(1, True, None), (2, False, 6), (3, True, 6)])
def test_a_stage_holds_what_was_asked_for(blocks, attention, context_dim):
    stage = Stage(8, 16, COND, blocks=blocks, attention=attention, context_dim=context_dim)
    held = [len(stage.residual), len(stage.attention), len(stage.cross)]
    assert held == [blocks, blocks * attention, blocks * (attention and context_dim is not None)]
    assert len({id(p) for p in stage.parameters()}) == len(list(stage.parameters()))
    assert stage.residual[0].conv_1.in_channels == 8 and stage.residual[-1].conv_2.out_channels == 16


def test_a_fresh_residual_branch_adds_nothing():
    x, cond = torch.randn(2, 8, 4, 4), torch.randn(2, COND)
    assert torch.equal(BottleNeck(8, COND, heads=2)(x, cond), x)
    assert not torch.allclose(stirred(BottleNeck(8, COND, heads=2))(x, cond), x)


@pytest.mark.parametrize("channels", [2, 8, 16, 32])
def test_a_residual_block_depends_on_the_condition(channels):
    # with one channel to a group, normalising would remove what the condition adds
    block, x = stirred(ResidualBlock(channels, channels, COND)), torch.randn(1, channels, 4, 4)
    one, other = block(x, torch.randn(1, COND)), block(x, torch.randn(1, COND))
    assert float((one - other).detach().std()) > 0.01


@pytest.mark.parametrize(("size", "use"), [((7, 7), "8x8"), ((6, 5), "6x6"), ((1, 4), "2x4")])
def test_an_odd_map_is_refused_and_the_next_even_one_named(size, use):
    block = DownSamplingBlock(8, 16, COND, heads=2)
    with pytest.raises(ValueError, match=rf"{size[0]}x{size[1]} cannot be halved: make both sides even, {use}"):
        block(torch.randn(1, 8, *size), torch.randn(1, COND))


def test_the_upsampling_block_uses_its_skip():
    block, cond = stirred(UpSamplingBlock(16, 8, COND, heads=2)), torch.randn(1, COND)
    x, skip = torch.randn(1, 16, 4, 4), torch.randn(1, 8, 8, 8)
    assert not torch.allclose(block(x, skip, cond), block(x, 0 * skip, cond))
    assert not torch.allclose(block(x, skip, cond), block(0 * x, skip, cond))


# ---------------------------------------------------------------- the whole


@pytest.mark.parametrize(
    ("dims", "options"),
    [
        ((1, 28, 28), {}),
        ((3, 32, 32), {}),
        ((1, 8, 8), {"patch": 1, "channels": (32, 64)}),
        ((3, 16, 8), {"patch": 1, "channels": (8, 16, 24), "heads": 2}),
        ((1, 6, 10), {"patch": 2, "channels": (8,), "heads": 2, "attention_size": 0}),
    ],
)
def test_the_output_has_the_shape_of_the_input(dims, options):
    net, x = UNet(dims, T, **options), torch.randn(2, *dims)
    out = net(x, steps(2))
    assert out.shape == x.shape and out.dtype == x.dtype
    assert bool((out == 0).all())  # the best output before any training
    assert float(stirred(net)(x, steps(2)).detach().std()) > 0.01


@pytest.mark.parametrize(("labels", "conditioning"), [(0, "embedding"), (3, "embedding"), (3, "cross_attention")])
def test_one_t_for_all_equals_the_same_t_for_each(labels, conditioning):
    net, x = tiny(labels=labels, conditioning=conditioning), torch.randn(4, 1, 8, 8)
    label = torch.tensor([0, 1, 2, 3]) if labels else None
    out = net(x, torch.tensor(20), label)
    torch.testing.assert_close(out, net(x, torch.full((4,), 20), label))
    assert not torch.isclose(out, net(x, torch.tensor(3), label)).flatten(1).all(1).any()


@pytest.mark.parametrize("conditioning", ["embedding", "cross_attention"])
def test_no_label_is_the_null_label(conditioning):
    net, x = tiny(labels=3, conditioning=conditioning), torch.randn(2, 1, 8, 8)
    without = net(x, steps(2))
    assert torch.equal(without, net(x, steps(2), torch.full((2,), 3)))
    for label in range(3):
        assert not torch.allclose(without, net(x, steps(2), torch.full((2,), label)))


@pytest.mark.parametrize("conditioning", ["embedding", "cross_attention"])
def test_after_a_few_steps_every_parameter_learns_and_labels_matter(conditioning):
    net = tiny((1, 8, 8), 3, fresh=True, conditioning=conditioning)
    x, t, label = torch.randn(8, 1, 8, 8), steps(8), torch.arange(8) % 4
    target = torch.randn(4, 1, 8, 8)[label]  # each label has its own
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(4):
        optimizer.zero_grad()
        (net(x, t, label) - target).square().mean().backward()
        optimizer.step()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []
    one, other = (net(x[:1], t[:1], torch.tensor([label])) for label in (0, 1))
    assert not torch.allclose(one, other)


@pytest.mark.parametrize("conditioning", ["embedding", "cross_attention"])
def test_the_samples_of_a_batch_are_independent(conditioning):
    net = tiny(labels=3, conditioning=conditioning).train()
    x, label = torch.randn(3, 1, 8, 8), torch.tensor([0, 1, 2])
    alone = net(x[1:2], steps(3)[1:2], label[1:2])
    torch.testing.assert_close(net(x, steps(3), label)[1:2], alone, rtol=1e-4, atol=1e-5)
    assert not [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def test_attention_is_only_at_small_maps():
    net = tiny(attention_size=4)
    held = [len(b.stage.attention) for b in (*net.down, net.bottleneck, *net.up)]
    assert held == [0, 1, 0]


def test_cross_attention_attends_to_label_and_time():
    net, x = tiny(labels=3, conditioning="cross_attention"), torch.randn(1, 1, 8, 8)
    attention = net.bottleneck.stage.cross[-1].attention

    def given(t, label):
        return inputs(net, {"cross": attention}, x, torch.tensor([t]), torch.tensor([label]))["cross"]

    (_, context), (_, later), (_, other) = given(10, 0), given(40, 0), given(10, 1)
    assert context.shape == (1, 5, 16)
    tokens = [[torch.equal(context[:, i], changed[:, i]) for i in range(5)] for changed in (later, other)]
    assert tokens == [[True] * 4 + [False], [False] * 4 + [True]]  # four of the label, one of the time
    one, another = (attention(*given(10, label), return_weights=True)[1] for label in (0, 1))
    assert one.shape == (1, 2, 16, 5)
    assert not torch.allclose(one, another)
    assert float(one.detach().std(2).min()) > 0  # pixels differ in where they look


def test_an_unconditional_network_refuses_labels():
    with pytest.raises(ValueError, match="trained without"):
        tiny()(torch.randn(2, 1, 8, 8), steps(2), torch.tensor([0, 1]))


@pytest.mark.parametrize(
    ("dims", "options", "words"),
    [
        ((1, 28, 28), {"patch": 2, "channels": (8, 16, 24, 32)}, r"28x28 .* divisible by 16; use 32x32"),
        ((1, 30, 28), {"patch": 2, "channels": (8, 16)}, r"30x28 .* divisible by 4; use 32x28"),
        ((1, 9, 9), {"channels": (8,), "patch": 2}, r"divisible by 2; use 10x10"),
        ((1, 8, 8), {"channels": (8, 15)}, "15 channels cannot be divided among 2 attention heads"),
        ((1, 8, 8), {"channels": (22, 44), "heads": 3}, "22 channels cannot be divided among 3"),
        ((1, 8, 8), {"channels": (8, 26), "attention_size": 0}, None),
        ((1, 8, 8), {"channels": (8, 13), "attention_size": 0}, "13 channels cannot be divided into groups"),
        ((1, 8, 8), {"channels": (9, 16), "attention_size": 0}, None),
        ((1, 8, 8), {"channels": ()}, "channels must be a list of numbers above 0"),
        ((1, 8, 8), {"channels": (8, 0)}, "channels must be a list of numbers above 0"),
        ((1, 8, 8), {"conditioning": "crossattention"}, "conditioning must be one of embedding, cross_attention"),
        ((1, 8, 8), {"conditioning": "cross_attention", "attention_size": 3}, "raise attention_size to 4 or more"),
    ],
)
def test_impossible_networks_are_refused(dims, options, words):
    if words is None:
        assert tiny(dims, 3, **options)(torch.randn(1, *dims), steps(1)).shape == (1, *dims)
        return
    with pytest.raises(ValueError, match=words) as caught:
        tiny(dims, 3, **options)
    assert "\n" not in str(caught.value)
