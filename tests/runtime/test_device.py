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


@pytest.mark.parametrize("images", [False, True])
def test_fp32_is_never_bf16(units, images):
    assert devices.mixed_precision("fp32", CPU, images) is False


def test_bf16_is_taken_on_a_cpu_with_units_and_refused_without(units):
    if units:
        assert devices.mixed_precision("bf16", CPU, True) is True
        return
    with pytest.raises(ValueError, match=r"precision=bf16: this cpu has no units .* use fp32"):
        devices.mixed_precision("bf16", CPU, True)


@pytest.fixture
def unet():
    return stirred(UNet((1, 8, 8), 10, 3, channels=(8, 16), patch=1, blocks=1, heads=2))


IMAGES = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
STEPS, LABELS = torch.tensor([1, 5]), torch.tensor([0, 2])


def test_in_bf16_the_layers_of_a_network_answer_in_bf16_and_only_there(unet):
    kinds = []
    unet.stem.register_forward_hook(lambda module, given, out: kinds.append(out.dtype))
    devices.in_bf16(unet)(IMAGES, STEPS, LABELS)
    unet(IMAGES, STEPS, LABELS)
    assert kinds == [torch.bfloat16, torch.float32]


def test_in_bf16_a_network_as_a_whole_answers_in_float32(unet):
    assert devices.in_bf16(unet)(IMAGES, STEPS, LABELS).dtype == torch.float32


def test_in_bf16_a_network_takes_one_t_for_all_images_and_no_label(unet):
    assert devices.in_bf16(unet)(IMAGES, torch.tensor(3)).dtype == torch.float32


def test_in_bf16_the_weights_stay_in_float32(unet):
    devices.in_bf16(unet)(IMAGES, STEPS, LABELS)
    assert all(p.dtype == torch.float32 for p in unet.parameters())


def test_in_bf16_a_network_answers_almost_as_in_fp32(unet):
    out, full = devices.in_bf16(unet)(IMAGES, STEPS, LABELS), unet(IMAGES, STEPS, LABELS)
    assert 0 < float((out - full).detach().abs().max()) < 0.1 * float(full.detach().abs().max())


@pytest.fixture(params=["mlp", "linear"])
def point_network(request):
    """A network for points with random weights."""
    options = {"hidden": 32, "layers": 2, "frequencies": 3} if request.param == "mlp" else {}
    net = build_model(request.param, (2,), 10, **options)
    for weight in net.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return net


EACH_T = pytest.mark.parametrize("t", [torch.tensor(3), torch.arange(50) % 10], ids=["one t", "one t a row"])


@EACH_T
def test_in_bf16_a_network_for_points_answers_alike_with_and_without_gradients(t, point_network):
    x, run = torch.randn(50, 2), devices.in_bf16(point_network)
    learning = run(x, t).detach()
    with torch.no_grad():
        sampling = run(x, t)
    assert learning.dtype == torch.float32 and torch.equal(learning, sampling)


@EACH_T
def test_in_bf16_a_network_for_points_answers_almost_as_in_fp32(t, point_network):
    x = torch.randn(50, 2)
    full, rounded = point_network(x, t).detach(), devices.in_bf16(point_network)(x, t).detach()
    assert 0 < float((rounded - full).abs().max()) < 0.1 * float(full.abs().max())


def test_the_cpu_is_there():
    assert devices.choose("cpu") == CPU


@pytest.mark.parametrize("name", ["cuda:77", "quantum"])
def test_a_device_that_is_not_there_is_named(name):
    with pytest.raises(ValueError, match=f"device={name} cannot be used here; try device=cpu"):
        devices.choose(name)


@pytest.mark.parametrize("threads", [0, 1_000_000])
def test_more_threads_than_the_machine_can_start_are_refused_and_none(threads):
    with pytest.raises(ValueError, match=r"threads must lie in 1\.\."):
        devices.use_threads(threads, images=False)


@pytest.mark.parametrize("mixed", [False, True])
def test_to_sample_on_a_cpu_the_channels_come_last_in_fp32_alone(mixed):
    net, one = UNet((1, 8, 8), 10, channels=(8, 8), blocks=1, heads=2), torch.ones(1, 8, 8)
    pipeline = Pipeline(net, CosineNoiseScheduler(10), Normaliser(0 * one, one), {}, mixed=mixed).ready(CPU)
    weight = next(w for w in pipeline.net.parameters() if w.ndim == 4 and w.shape[1] > 1 and w.shape[2] > 1)
    assert weight.is_contiguous(memory_format=torch.channels_last) is not mixed
