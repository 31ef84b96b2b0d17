"""What a GPU needs of an optimizer step: everything on one device, and no waiting for a value."""

from functools import partial

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dataset import Normaliser, make_dataset, make_sets
from images.sets import digits
from loader import batches, copied_to, make_loader
from loss.objective import training_loss
from model import build_model
from pipeline import Pipeline
from runtime.randomness import generator
from schedule import LinearNoiseScheduler
from training.learner import Learner
from training.noise import EvenNumbers, Noise
from training.optimizers import Muon, make_optimizers
from training.resume import load_optimizers

CPU, T = torch.device("cpu"), 50
WAITING = ("_local_scalar_dense", "item", "nonzero", "masked_select", "_unique2", "is_nonzero", "equal")
NO_GPU = "no GPU here: written for one, and not tried"


class NoWaiting(TorchDispatchMode):
    """Refuses what waits for a device: to read a value there, or for a copy to or from it."""

    def __init__(self, device):
        super().__init__()
        self.device = device

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name, out = func.overloadpacket.__name__, func(*args, **(kwargs or {}))
        moved = name in ("_to_copy", "copy_") and args[int(name == "copy_")].device != out.device
        reads = name in WAITING and args[0].device == self.device
        if reads or (moved and not (kwargs or {}).get("non_blocking")):
            raise AssertionError(f"{func} in an optimizer step")
        return out


def small(kind, device=CPU, references=24, optimizers=make_optimizers):
    """(trained, learner, loss_of) of points with labels, or of digits."""
    torch.manual_seed(0)
    options = {"hidden": 16, "layers": 3, "frequencies": 2}
    if kind == "unet_small":
        options = {"channels": [8, 16], "blocks": 1, "patch": 1, "heads": 2}
    data = digits() if kind == "unet_small" else make_dataset("moons", 200, 0, noise=0.05)
    normaliser, scheduler = Normaliser.fit_dataset(data), LinearNoiseScheduler(T)
    dims = tuple(normaliser.mean.shape)
    net = build_model(kind, dims, T, len(data.classes), **options).to(device)
    config = {"t_power": 1.6, "label_dropout": 0.3, "batches": "even", "model": {"prediction": "v"}}
    learner = Learner(net, optimizers(net, "muon", lr=0.0, weight_decay=0.01), None, references=references)
    pipeline = Pipeline(learner.average.module, scheduler, normaliser, config, data.classes)
    loss_of = partial(training_loss, net, scheduler, target="v", null_label=len(data.classes))
    return data, pipeline, learner, loss_of


# ---------------------------------------------------------------- one device, and no waiting


def test_a_step_waits_for_nothing(monkeypatch):
    data, pipeline, learner, loss_of = small("mlp")
    noise, stream = Noise(pipeline, 0, 64), batches(make_loader(data, batch_size=64, seed=0))
    monkeypatch.setattr(learner, "advance_ema", lambda: None)  # its counter lies on the CPU, wherever the weights are
    for step, batch in zip(range(2), stream):
        with NoWaiting(CPU):
            learner.learn(loss_of, noise.added(step, *batch), 1e-3)
    with pytest.raises(AssertionError, match="in an optimizer step"), NoWaiting(CPU):
        learner.losses[0][0].item()


@pytest.mark.parametrize("kind", ["mlp", "unet_small"])
def test_all_of_a_step_lies_on_the_device(kind):
    # "meta" has no numbers: whoever asks it for one, or mixes in what lies elsewhere, is refused, as on a GPU.
    def only_muon(net, *_, lr, weight_decay):
        return [Muon([w for w in net.parameters() if w.ndim > 1], lr)]  # torch has AdamW for real devices only

    meta = torch.device("meta")
    data, pipeline, learner, loss_of = small(kind, meta, optimizers=only_muon)
    noise, rows = Noise(pipeline, 0, 64, together=4), data[torch.arange(64)]
    noise.drawn_on = meta
    noise.numbers, noise.block = tuple(x.to(meta) for x in noise_block(noise)), 0
    for x_0, label in (rows, [x.to(meta) for x in rows]):
        noise.added(0, x_0[:1], label[:1])  # the normaliser follows the data, once
        learner.learn(loss_of, noise.added(0, x_0, label), 1e-3)
        with NoWaiting(meta):
            batch = noise.added(1, x_0, label)
            learner.learn(loss_of, batch, 1e-3)
        assert {x.device.type for x in batch} == {"meta"}
    assert all(weight.is_meta for weight in learner.average.parameters())


def noise_block(noise):
    noise.drawn_on = CPU
    noise.drawn(0, 64)
    return noise.numbers


def test_muon_takes_weights_with_the_channels_last():
    g = torch.Generator().manual_seed(0)
    start, grad = torch.randn(6, 4, 3, 3, generator=g), torch.randn(6, 4, 3, 3, generator=g)
    weights = []
    for layout in (torch.contiguous_format, torch.channels_last):
        weight = torch.nn.Parameter(start.to(memory_format=layout, copy=True))
        weight.grad = grad.clone()
        optimizer = Muon([weight], lr=0.5)
        optimizer.param_groups[0]["lr"] = 0.02
        optimizer.step()
        weights.append(weight.detach())
    torch.testing.assert_close(*weights)
    assert float((weights[0] - start).abs().max()) > 1e-3


def test_a_checkpoint_of_another_device_changes_no_option_of_the_optimizers():
    *_, learner, _ = small("mlp")
    saved = [optimizer.state_dict() for optimizer in learner.optimizers]
    saved[0]["param_groups"][0] |= {
        "capturable": True,
        "lr": torch.tensor(0.5),
    }  # as an older version had them on a GPU
    load_optimizers(learner.optimizers, saved, "a run")
    group = learner.optimizers[0].param_groups[0]
    assert (group["capturable"], group["lr"], group["weight_decay"]) == (False, 0.0, 0.01)


# ---------------------------------------------------------------- noise in blocks, data that stay


def test_a_step_takes_its_slice_of_a_block_wherever_a_training_begins():
    _, pipeline, *_ = small("mlp")
    noise, rows = Noise(pipeline, 3, 64, together=8), [64, 8]
    block = [noise.drawn(step, 64) for step in range(20)]
    whole = Noise(pipeline, 3, 64, together=8)
    for step in (19, 3, 8, 7):  # in any order, as after a resumption
        for n in rows:
            for mine, theirs in zip(whole.drawn(step, n), block[step]):
                assert torch.equal(mine, theirs[:n])
    drawn = EvenNumbers(64, (2,), 3, CPU).draw(8, generator(3, "noise", 1))
    assert all(torch.equal(mine, theirs[5]) for mine, theirs in zip(block[13], drawn))
    eps = torch.stack([each.eps for each in block]).flatten(1)
    assert len(eps.unique(dim=0)) == 20
    assert not torch.equal(Noise(pipeline, 4, 64, together=8).drawn(0, 64).eps, block[0].eps)
    # Mean and variance of 2,560 normal and 1,280 uniform numbers lie within 4.5 standard errors of independent draws.
    assert abs(float(eps.mean())) < 4.5 / 2560**0.5 and abs(float(eps.var()) - 1) < 4.5 * (2 / 2560) ** 0.5
    u = torch.stack([each.u for each in block])
    assert abs(float(u.mean()) - 0.5) < 4.5 / (12 * 1280) ** 0.5


def test_blocks_are_no_larger_than_memory_bears():
    _, pipeline, *_ = small("unet_small")
    assert Noise(pipeline, 0, 64).together == 1  # on a CPU each step draws its own


@pytest.mark.parametrize("make", [lambda: make_sets("moons", 300, 0, noise=0.05)[0], digits], ids=["points", "images"])
def test_data_kept_on_a_device_give_the_same_batches(make):
    data = make()
    room = len(data) * sum(x.nbytes for x in data[torch.tensor([0])])
    held = copied_to(data, CPU, room)
    assert held is not data and copied_to(data, CPU, room - 1) is data and copied_to(data, CPU, 0) is data
    streams = [batches(make_loader(each, batch_size=64, seed=0), 3) for each in (data, held)]
    for _, *pairs in zip(range(12), *streams):
        for mine, theirs in zip(*pairs, strict=True):
            assert torch.equal(mine, theirs)


# ---------------------------------------------------------------- on a GPU, where there is one


@pytest.mark.skipif(not torch.cuda.is_available(), reason=NO_GPU)
@pytest.mark.parametrize("kind", ["mlp", "unet_small"])
def test_on_a_gpu_no_step_waits(kind):
    gpu = torch.device("cuda")
    data, pipeline, learner, loss_of = small(kind, gpu)
    noise, stream = Noise(pipeline, 0, 64), batches(make_loader(data, batch_size=64, seed=0, device=gpu))
    try:
        for step in range(40):
            batch = next(stream)  # once an epoch its order is copied
            torch.cuda.set_sync_debug_mode("error" if 16 < step < 40 else "default")
            learner.learn(loss_of, noise.added(step, *batch), 8e-3 / (1 + step))
            torch.cuda.set_sync_debug_mode("default")
    finally:
        torch.cuda.set_sync_debug_mode("default")
