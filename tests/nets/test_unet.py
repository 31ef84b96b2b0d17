"""The UNet and its blocks: shapes, dependence on inputs, and refused options."""

import pytest
import torch
from torch import nn

from nets.unet import BottleNeck, DownSamplingBlock, ResidualBlock, Stage, UNet, UpSamplingBlock, group_norm
from viz.network_parts import inputs, stirred

COND = 12
T = 50


def tiny(dims=(1, 8, 8), labels=0, *, fresh=False, **options):
    """A small UNet. Unless it is fresh, no layer is zero, as after a training."""
    net = UNet(dims, T, labels, **{"channels": (8, 16), "blocks": 1, "patch": 1, "heads": 2, **options})
    return net if fresh else stirred(net)


def steps(count):
    return torch.arange(count) * 7 % T


# ---------------------------------------------------------------- groups


@pytest.mark.parametrize(("channels", "groups"), [(48, 8), (32, 8), (16, 8), (12, 6), (8, 4), (20, 5), (9, 3), (2, 1)])
def test_groups_divide_the_channels_and_hold_two_or_more(channels, groups):
    norm = group_norm(channels)
    assert norm.num_groups == groups
    assert norm.num_channels == channels


@pytest.mark.parametrize("channels", [11, 13, 7, 3])
def test_channels_that_make_no_groups_are_refused(channels):
    with pytest.raises(ValueError, match=rf"{channels} channels cannot be divided into groups.*multiple of 8"):
        group_norm(channels)


# ---------------------------------------------------------------- blocks


def every_block(test):
    """Parametrise a test by the options of a block and the size (height, width) of its input."""
    combinations = [(1, True, None), (2, False, None), (2, True, 6)]
    test = pytest.mark.parametrize(("blocks", "attention", "context_dim"), combinations)(test)
    return pytest.mark.parametrize("size", [(8, 8), (4, 6)])(test)


def inputs_of_blocks(size):
    """Feature maps (3, 8, height, width), a condition (3, COND) and five tokens of context (3, 5, 6)."""
    return torch.randn(3, 8, *size), torch.randn(3, COND), torch.randn(3, 5, 6)


@every_block
def test_the_downsampling_block_halves_the_size_and_keeps_its_input_for_the_skip(blocks, attention, context_dim, size):
    options = {"blocks": blocks, "attention": attention, "context_dim": context_dim, "heads": 2}
    x, cond, context = inputs_of_blocks(size)
    half, skip = DownSamplingBlock(8, 16, COND, **options)(x, cond, context)
    assert half.shape == (3, 16, size[0] // 2, size[1] // 2)
    assert skip.shape == x.shape


@every_block
def test_the_bottleneck_keeps_the_shape(blocks, attention, context_dim, size):
    options = {"blocks": blocks, "attention": attention, "context_dim": context_dim, "heads": 2}
    x, cond, context = inputs_of_blocks(size)
    half, _ = DownSamplingBlock(8, 16, COND, **options)(x, cond, context)
    assert BottleNeck(16, COND, **options)(half, cond, context).shape == half.shape


@every_block
def test_the_upsampling_block_gives_back_the_shape_before_downsampling(blocks, attention, context_dim, size):
    options = {"blocks": blocks, "attention": attention, "context_dim": context_dim, "heads": 2}
    x, cond, context = inputs_of_blocks(size)
    half, skip = DownSamplingBlock(8, 16, COND, **options)(x, cond, context)
    assert UpSamplingBlock(16, 8, COND, **options)(half, skip, cond, context).shape == x.shape


every_stage = pytest.mark.parametrize(
    ("blocks", "attention", "context_dim"), [(1, True, None), (2, False, 6), (3, True, 6)]
)


@every_stage
def test_a_stage_holds_the_blocks_that_are_asked_for(blocks, attention, context_dim):
    stage = Stage(8, 16, COND, blocks=blocks, attention=attention, context_dim=context_dim)
    held = [len(stage.residual), len(stage.attention), len(stage.cross)]
    assert held == [blocks, blocks * attention, blocks * (attention and context_dim is not None)]


@every_stage
def test_the_blocks_of_a_stage_share_no_weights(blocks, attention, context_dim):
    stage = Stage(8, 16, COND, blocks=blocks, attention=attention, context_dim=context_dim)
    weights = [weight for _, weight in stage.named_parameters(remove_duplicate=False)]
    assert len({id(weight) for weight in weights}) == len(weights)


@every_stage
def test_a_stage_has_the_channels_that_are_asked_for(blocks, attention, context_dim):
    stage = Stage(8, 16, COND, blocks=blocks, attention=attention, context_dim=context_dim)
    assert stage.residual[0].conv_1.in_channels == 8
    assert stage.residual[-1].conv_2.out_channels == 16


def test_a_fresh_bottleneck_returns_its_input():
    x, cond = torch.randn(2, 8, 4, 4), torch.randn(2, COND)
    assert torch.equal(BottleNeck(8, COND, heads=2)(x, cond), x)


def test_a_bottleneck_without_zero_layers_changes_its_input():
    x, cond = torch.randn(2, 8, 4, 4), torch.randn(2, COND)
    assert not torch.allclose(stirred(BottleNeck(8, COND, heads=2))(x, cond), x)


@pytest.mark.parametrize("channels", [2, 8, 16, 32])
def test_a_residual_block_depends_on_the_condition(channels):
    # With one channel a group, normalisation would remove what the condition adds.
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


def test_the_upsampling_block_uses_its_input():
    block, cond = stirred(UpSamplingBlock(16, 8, COND, heads=2)), torch.randn(1, COND)
    x, skip = torch.randn(1, 16, 4, 4), torch.randn(1, 8, 8, 8)
    assert not torch.allclose(block(x, skip, cond), block(0 * x, skip, cond))


# ---------------------------------------------------------------- the whole network


every_network = pytest.mark.parametrize(
    ("dims", "options"),
    [
        ((1, 28, 28), {}),
        ((3, 32, 32), {}),
        ((1, 8, 8), {"patch": 1, "channels": (32, 64)}),
        ((3, 16, 8), {"patch": 1, "channels": (8, 16, 24), "heads": 2}),
        ((1, 6, 10), {"patch": 2, "channels": (8,), "heads": 2, "attention_size": 0}),
    ],
)


@every_network
def test_the_output_has_the_shape_and_dtype_of_the_input(dims, options):
    net, x = UNet(dims, T, **options), torch.randn(2, *dims)
    out = net(x, steps(2))
    assert out.shape == x.shape
    assert out.dtype == x.dtype


@every_network
def test_the_output_of_a_fresh_network_is_zero(dims, options):
    # This is the best output before any training.
    net, x = UNet(dims, T, **options), torch.randn(2, *dims)
    assert bool((net(x, steps(2)) == 0).all())


@every_network
def test_the_output_of_a_network_without_zero_layers_varies(dims, options):
    net, x = stirred(UNet(dims, T, **options)), torch.randn(2, *dims)
    assert float(net(x, steps(2)).detach().std()) > 0.01


every_conditioning = pytest.mark.parametrize("conditioning", ["embedding", "cross_attention"])
with_or_without_labels = pytest.mark.parametrize(
    ("labels", "conditioning"), [(0, "embedding"), (3, "embedding"), (3, "cross_attention")]
)


def network_and_inputs(labels, conditioning):
    """A network with or without labels, four images, and a label for each of them or None."""
    net, x = tiny(labels=labels, conditioning=conditioning), torch.randn(4, 1, 8, 8)
    return net, x, torch.tensor([0, 1, 2, 3]) if labels else None


@with_or_without_labels
def test_one_t_for_all_rows_equals_the_same_t_for_each_row(labels, conditioning):
    net, x, label = network_and_inputs(labels, conditioning)
    torch.testing.assert_close(net(x, torch.tensor(20), label), net(x, torch.full((4,), 20), label))


@with_or_without_labels
def test_the_output_depends_on_t(labels, conditioning):
    net, x, label = network_and_inputs(labels, conditioning)
    one, other = net(x, torch.tensor(20), label), net(x, torch.tensor(3), label)
    assert not torch.isclose(one, other).flatten(1).all(1).any()


@every_conditioning
def test_no_label_is_the_null_label(conditioning):
    net, x = tiny(labels=3, conditioning=conditioning), torch.randn(2, 1, 8, 8)
    assert torch.equal(net(x, steps(2)), net(x, steps(2), torch.full((2,), 3)))


@every_conditioning
@pytest.mark.parametrize("label", range(3))
def test_no_label_differs_from_every_label(conditioning, label):
    net, x = tiny(labels=3, conditioning=conditioning), torch.randn(2, 1, 8, 8)
    assert not torch.allclose(net(x, steps(2)), net(x, steps(2), torch.full((2,), label)))


def after_four_steps(conditioning):
    """A fresh network after four steps towards one image for each label, and its inputs x, t."""
    net = tiny((1, 8, 8), 3, fresh=True, conditioning=conditioning)
    x, t, label = torch.randn(8, 1, 8, 8), steps(8), torch.arange(8) % 4
    target = torch.randn(4, 1, 8, 8)[label]
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(4):
        optimizer.zero_grad()
        (net(x, t, label) - target).square().mean().backward()
        optimizer.step()
    return net, x, t


@every_conditioning
def test_after_a_few_steps_every_parameter_learns(conditioning):
    net, _, _ = after_four_steps(conditioning)
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


@every_conditioning
def test_after_a_few_steps_the_output_depends_on_the_label(conditioning):
    net, x, t = after_four_steps(conditioning)
    one, other = (net(x[:1], t[:1], torch.tensor([label])) for label in (0, 1))
    assert not torch.allclose(one, other)


@every_conditioning
def test_the_samples_of_a_batch_are_independent(conditioning):
    net = tiny(labels=3, conditioning=conditioning).train()
    x, label = torch.randn(3, 1, 8, 8), torch.tensor([0, 1, 2])
    alone = net(x[1:2], steps(3)[1:2], label[1:2])
    torch.testing.assert_close(net(x, steps(3), label)[1:2], alone, rtol=1e-4, atol=1e-5)


@every_conditioning
def test_there_is_no_batch_normalisation(conditioning):
    net = tiny(labels=3, conditioning=conditioning)
    assert not [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def test_attention_is_only_at_small_maps():
    net = tiny(attention_size=4)
    held = [len(b.stage.attention) for b in (*net.down, net.bottleneck, *net.up)]
    assert held == [0, 1, 0]


def cross_attention_and_its_inputs(t, label):
    """The last cross-attention of a UNet, with the pixels and the context that it sees at step t for a label.

    torch's global generator begins anew in every call, so that calls differ in t and label only.
    """
    torch.manual_seed(0)
    net, x = tiny(labels=3, conditioning="cross_attention"), torch.randn(1, 1, 8, 8)
    attention = net.bottleneck.stage.cross[-1].attention
    seen = inputs(net, {"cross": attention}, x, torch.tensor([t]), torch.tensor([label]))["cross"]
    return attention, *seen


@pytest.mark.parametrize(("t", "label", "same"), [(40, 0, [True] * 4 + [False]), (10, 1, [False] * 4 + [True])])
def test_the_context_of_cross_attention_is_four_tokens_of_the_label_and_one_of_the_time(t, label, same):
    _, _, context = cross_attention_and_its_inputs(10, 0)
    _, _, other = cross_attention_and_its_inputs(t, label)
    assert context.shape == (1, 5, 16)
    assert [torch.equal(context[:, i], other[:, i]) for i in range(5)] == same


def cross_attention_weights(label):
    attention, pixels, context = cross_attention_and_its_inputs(10, label)
    return attention(pixels, context, return_weights=True)[1]


def test_the_weights_of_cross_attention_depend_on_the_label():
    one, other = cross_attention_weights(0), cross_attention_weights(1)
    assert one.shape == (1, 2, 16, 5)
    assert not torch.allclose(one, other)


def test_the_weights_of_cross_attention_depend_on_the_pixel():
    assert float(cross_attention_weights(0).detach().std(2).min()) > 0


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
        ((1, 8, 8), {"channels": (8, 13), "attention_size": 0}, "13 channels cannot be divided into groups"),
        ((1, 8, 8), {"channels": ()}, "channels must be a list of numbers above 0"),
        ((1, 8, 8), {"channels": (8, 0)}, "channels must be a list of numbers above 0"),
        ((1, 8, 8), {"conditioning": "crossattention"}, "conditioning must be one of embedding, cross_attention"),
        ((1, 8, 8), {"conditioning": "cross_attention", "attention_size": 3}, "raise attention_size to 4 or more"),
    ],
)
def test_impossible_networks_are_refused_in_one_line(dims, options, words):
    with pytest.raises(ValueError, match=words) as caught:
        tiny(dims, 3, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("channels", [(8, 26), (9, 16)])
def test_channels_that_heads_do_not_divide_are_accepted_without_attention(channels):
    net = tiny((1, 8, 8), 3, channels=channels, attention_size=0)
    assert net(torch.randn(1, 1, 8, 8), steps(1)).shape == (1, 1, 8, 8)
