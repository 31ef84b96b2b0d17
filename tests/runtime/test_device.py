"""Which device, how many threads, which numbers."""

import pytest
import torch

from dataset import Normaliser
from model import build_model
from nets.unet import UNet
from pipeline import Pipeline
from runtime import device as devices
from schedule import CosineNoiseScheduler
from viz.network_parts import stirred

CPU = torch.device("cpu")


@pytest.fixture(params=[False, True], ids=["no units", "units"])
def units(request, monkeypatch):
    """A CPU without, then with units for bf16."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: request.param)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return request.param


@pytest.mark.parametrize("images", [False, True])
def test_auto_takes_bf16_for_images_where_there_are_units(units, images):
    assert devices.mixed_precision("auto", CPU, images) is (units and images)
    assert devices.mixed_precision("fp32", CPU, images) is False


def test_bf16_on_a_cpu_without_units_is_refused(units):
    if units:
        assert devices.mixed_precision("bf16", CPU, True) is True
        return
    with pytest.raises(ValueError, match=r"precision=bf16: this cpu has no units .* use fp32"):
        devices.mixed_precision("bf16", CPU, True)


def test_in_bf16_the_network_answers_in_its_own_numbers():
    torch.manual_seed(0)
    net = stirred(UNet((1, 8, 8), 10, 3, channels=(8, 16), patch=1, blocks=1, heads=2))
    x, t, label = torch.randn(2, 1, 8, 8), torch.tensor([1, 5]), torch.tensor([0, 2])
    kinds = []
    net.stem.register_forward_hook(lambda module, given, out: kinds.append(out.dtype))
    out, full = devices.in_bf16(net)(x, t, label), net(x, t, label)
    assert out.dtype == torch.float32
    assert kinds == [torch.bfloat16, torch.float32]  # and yet it ran in bf16, and only where it was asked to
    assert all(p.dtype == torch.float32 for p in net.parameters())
    assert 0 < float((out - full).detach().abs().max()) < 0.1 * float(full.detach().abs().max())
    assert devices.in_bf16(net)(x, torch.tensor(3)).dtype == torch.float32  # no label, one t for all


@pytest.mark.parametrize("model", ["mlp", "linear"])
def test_in_bf16_a_network_for_points_answers_alike_with_and_without_gradients(model):
    options = {"hidden": 32, "layers": 2, "frequencies": 3} if model == "mlp" else {}
    torch.manual_seed(0)
    net = build_model(model, (2,), 10, **options)
    for weight in net.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    x, run = torch.randn(50, 2), devices.in_bf16(net)
    for t in (torch.tensor(3), torch.arange(50) % 10):
        full, learning = net(x, t).detach(), run(x, t).detach()
        with torch.no_grad():
            sampling = run(x, t)
        assert learning.dtype == torch.float32 and torch.equal(learning, sampling)
        assert 0 < float((learning - full).abs().max()) < 0.1 * float(full.abs().max())


def test_a_device_that_is_not_there_is_named():
    assert devices.choose("cpu") == CPU
    for name in ("cuda:77", "quantum"):
        with pytest.raises(ValueError, match=f"device={name} cannot be used here; try device=cpu"):
            devices.choose(name)


def test_more_threads_than_the_machine_can_start_are_refused():
    for threads in (0, 1_000_000):
        with pytest.raises(ValueError, match=r"threads must lie in 1\.\."):
            devices.use_threads(threads, images=False)


@pytest.mark.parametrize("mixed", [False, True])
def test_to_sample_on_a_cpu_the_channels_come_last_in_fp32_alone(mixed):
    net, one = UNet((1, 8, 8), 10, channels=(8, 8), blocks=1, heads=2), torch.ones(1, 8, 8)
    pipeline = Pipeline(net, CosineNoiseScheduler(10), Normaliser(0 * one, one), {}, mixed=mixed).ready(CPU)
    weight = next(w for w in pipeline.net.parameters() if w.ndim == 4 and w.shape[1] > 1 and w.shape[2] > 1)
    assert weight.is_contiguous(memory_format=torch.channels_last) is not mixed
