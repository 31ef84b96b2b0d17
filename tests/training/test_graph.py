"""What a GPU needs of an optimizer step: fixed shapes, no waiting for a value, numbers that come in as tensors.

A CUDA graph repeats kernels with their addresses. A Tape does the same on a CPU with torch's operations: what a step
had looked up in Python (a learning rate, a shape, a new tensor) is in it for good.
"""

from functools import partial

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dataset import Normaliser, make_dataset, make_sets
from images.sets import digits
from loader import batches, held_on, make_loader
from loss.objective import training_loss
from model import build_model
from pipeline import Pipeline
from runtime.randomness import generator
from schedule import LinearNoiseScheduler
from training import cuda_graph
from training.learner import Learner, take_moments
from training.noise import Noise, draw
from training.optimizers import Muon, make_optimizers

CPU, T = torch.device("cpu"), 50
WAITING = ("_local_scalar_dense", "item", "nonzero", "masked_select", "_unique2", "is_nonzero", "equal")
NO_GPU = "no GPU here: written for one, and not tried"


class Tape(TorchDispatchMode):
    """All operations that run under it, with the memory that they read and write; `replay` runs them again there."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out

    @torch.no_grad()
    def replay(self):
        for func, args, kwargs, out in self.calls:
            for old, new in zip(tree_leaves(out), tree_leaves(func(*args, **kwargs))):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def on_tape(run, own):
    """Like cuda_graph.on_gpu, which records without computing: what the recording computed is taken back."""
    with Tape() as tape:
        output = run(*own)
    return tape.replay, output


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
    normaliser, scheduler = Normaliser.of(data), LinearNoiseScheduler(T)
    dims = tuple(normaliser.mean.shape)
    net = build_model(kind, dims, T, len(data.classes), **options).to(device)
    config = {"t_power": 1.6, "label_dropout": 0.3, "model": {"prediction": "v"}}
    learner = Learner.of(net, optimizers(net, "muon", lr=0.0, weight_decay=0.01), None, references=references)
    pipeline = Pipeline(learner.average.module, scheduler, normaliser, config, data.classes)
    loss_of = partial(training_loss, net, scheduler, target="v", null_label=len(data.classes))
    return data, pipeline, learner, loss_of


def train(steps, data, pipeline, learner, loss_of, together=None):
    """Batches of 64, a learning rate that changes at each step."""
    noise = Noise(pipeline, 0, 64, together)
    for step, batch in zip(range(steps), batches(make_loader(data, batch_size=64, seed=0))):
        learner.learn(loss_of, noise.added(step, *batch), 8e-3 / (1 + step))
    return learner


# ---------------------------------------------------------------- the step as a graph


def test_replayed_steps_train_as_steps_do_and_are_recorded_once():
    plain = train(24, *small("mlp"))
    data, pipeline, learner, loss_of = small("mlp")
    recordings = []

    def record(run, own):
        """A real graph computes nothing while it is recorded: take back what the tape's recording did."""
        tensors = [*learner.net.parameters(), *learner.average.parameters()]
        tensors += [v for o in learner.optimizers for state in o.state.values() for v in state.values()]
        before = [x.detach().clone() for x in tensors]
        replay, output = on_tape(run, own)
        with torch.no_grad():
            for x, old in zip(tensors, before, strict=True):
                x.copy_(old)
        recordings.append(len(own[0]))
        return replay, output

    learner.replay_steps(loss_of, record)
    train(24, data, pipeline, learner, loss_of)
    assert recordings == [64]  # of 200 rows: a batch in four holds the end of an epoch and the beginning of the next
    for mine, theirs in ((learner.net, plain.net), (learner.average, plain.average)):
        for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(torch.stack(learner.losses), torch.stack(plain.losses), rtol=1e-4, atol=1e-6)
    assert int(learner.average.n_averaged) == 24


def test_a_step_without_numbers_of_its_own_waits_for_nothing():
    data, pipeline, learner, loss_of = small("mlp")
    noise, stream = Noise(pipeline, 0, 64), batches(make_loader(data, batch_size=64, seed=0))
    for step, batch in zip(range(2), stream):
        with NoWaiting(CPU):
            means, _ = learner.step(loss_of, noise.added(step, *batch), torch.tensor(1e-3), torch.tensor(0.5))
    with pytest.raises(AssertionError, match="in an optimizer step"), NoWaiting(CPU):
        means[0].item()


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
    numbers = torch.full((), 1e-3, device=meta), torch.full((), 0.5, device=meta)
    for x_0, label in (rows, [x.to(meta) for x in rows]):
        noise.added(0, x_0[:1], label[:1])  # the normaliser follows the data, once
        learner.step(loss_of, noise.added(0, x_0, label), *numbers)
        with NoWaiting(meta):
            batch = noise.added(1, x_0, label)
            learner.step(loss_of, batch, *numbers)
        assert {x.device.type for x in batch} == {"meta"}
    assert all(weight.is_meta for weight in learner.average.parameters())


def noise_block(noise):
    noise.drawn_on = CPU
    noise.drawn(0, 64)
    return noise.numbers


def test_muon_takes_its_learning_rate_as_a_number_or_as_a_tensor():
    g = torch.Generator().manual_seed(0)
    start, grad = torch.randn(6, 4, 3, 3, generator=g), torch.randn(6, 4, 3, 3, generator=g)
    weights = []
    for lr in (0.02, torch.tensor(0.02)):
        weight = torch.nn.Parameter(start.to(memory_format=torch.channels_last, copy=True))
        weight.grad = grad.clone()
        optimizer = Muon([weight], lr=0.5)
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
        weights.append(weight.detach())
    torch.testing.assert_close(*weights)
    assert float((weights[0] - start).abs().max()) > 1e-3


def test_a_checkpoint_of_another_device_changes_no_option_of_the_optimizers():
    *_, learner, _ = small("mlp")
    saved = [optimizer.state_dict() for optimizer in learner.optimizers]
    saved[0]["param_groups"][0] |= {"capturable": True, "lr": torch.tensor(0.5)}  # as of a GPU
    take_moments(learner.optimizers, saved, "a run")
    group = learner.optimizers[0].param_groups[0]
    assert (group["capturable"], group["lr"], group["weight_decay"]) == (False, 0.0, 0.01)


def test_a_graph_is_refused_where_there_is_no_gpu():
    cuda_graph.check(False, CPU)
    with pytest.raises(ValueError, match=r"cuda_graph=true needs a GPU .*: leave it out"):
        cuda_graph.check(True, CPU)


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
    drawn = draw((8, 64), (2,), generator(3, "noise", 1))
    assert all(torch.equal(mine, theirs[5]) for mine, theirs in zip(block[13], drawn))
    eps = torch.stack([each.eps for each in block]).flatten(1)
    assert len(eps.unique(dim=0)) == 20
    assert not torch.equal(Noise(pipeline, 4, 64, together=8).drawn(0, 64).eps, block[0].eps)
    # 2 560 normal numbers, 1 280 even ones: mean and variance within 4.5 standard errors
    assert abs(float(eps.mean())) < 4.5 / 2560**0.5 and abs(float(eps.var()) - 1) < 4.5 * (2 / 2560) ** 0.5
    within = torch.stack([each.within for each in block])
    assert abs(float(within.mean()) - 0.5) < 4.5 / (12 * 1280) ** 0.5


def test_blocks_are_no_larger_than_memory_bears():
    _, pipeline, *_ = small("unet_small")
    assert Noise(pipeline, 0, 64).together == 1  # on a CPU each step draws its own


@pytest.mark.parametrize("make", [lambda: make_sets("moons", 300, 0, noise=0.05)[0], digits], ids=["points", "images"])
def test_data_kept_on_a_device_give_the_same_batches(make):
    data = make()
    room = len(data) * sum(x.nbytes for x in data[torch.tensor([0])])
    held = held_on(data, CPU, room)
    assert held is not data and held_on(data, CPU, room - 1) is data and held_on(data, CPU, 0) is data
    streams = [batches(make_loader(each, batch_size=64, seed=0), 3) for each in (data, held)]
    for _, *pairs in zip(range(12), *streams):
        for mine, theirs in zip(*pairs, strict=True):
            assert torch.equal(mine, theirs)


# ---------------------------------------------------------------- on a GPU, where there is one


@pytest.mark.skipif(not torch.cuda.is_available(), reason=NO_GPU)
@pytest.mark.parametrize("kind", ["mlp", "unet_small"])
@pytest.mark.parametrize("replayed", [False, True])
def test_on_a_gpu_no_step_waits_and_graphs_train_as_steps_do(kind, replayed):
    gpu = torch.device("cuda")
    data, pipeline, learner, loss_of = small(kind, gpu)
    plain = train(40, *small(kind, gpu))
    if replayed:
        learner.replay_steps(loss_of)
    noise, stream = Noise(pipeline, 0, 64), batches(make_loader(data, batch_size=64, seed=0, device=gpu))
    try:
        for step in range(40):
            batch = next(stream)  # once an epoch its order is copied
            torch.cuda.set_sync_debug_mode("error" if 16 < step < 40 else "default")
            learner.learn(loss_of, noise.added(step, *batch), 8e-3 / (1 + step))
            torch.cuda.set_sync_debug_mode("default")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for a, b in zip(learner.average.parameters(), plain.average.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-3)
