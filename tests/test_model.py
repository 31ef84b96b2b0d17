"""Networks: shapes, one t against many, and that they learn."""

from dataclasses import asdict

import pytest
import torch

from conf.groups import GROUPS
from dataset import Normaliser, create_moon_dataset
from diffusion import denoiser
from loss.objective import loss_weights, training_loss
from model import build_model
from registry.network_rows import NETWORKS
from registry.process_rows import TARGETS
from schedule import LinearNoiseScheduler

UNET = {"channels": (8, 16), "patch": 1, "blocks": 1, "heads": 2}
# Options that differ from the defaults. A new network needs no entry.
OWN_OPTIONS = {"mlp": {"hidden": 32, "layers": 2, "frequencies": 2}, "linear": {}, "unet": UNET, "unet_small": UNET}


def options_of(name):
    """Its own options; for any other network the defaults of its dataclass in conf/groups.py."""
    if name in OWN_OPTIONS:
        return OWN_OPTIONS[name]
    defaults = asdict(GROUPS["model"][name]())
    return {option: value for option, value in defaults.items() if option not in ("name", "prediction")}


# data of each network's kind
DIMS = {name: [(1, 8, 8), (3, 4, 8)] if "unet" in name else [(2,), (3,)] for name in NETWORKS}


EACH_NETWORK = pytest.mark.parametrize(("name", "dims"), [(name, dims) for name in NETWORKS for dims in DIMS[name]])


def stirred_network(name, dims, labels):
    """A network in which no weight is zero, as after a training."""
    net = build_model(name, dims, 50, labels, **options_of(name))
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return net


@EACH_NETWORK
@pytest.mark.parametrize("labels", [0, 3])
def test_one_t_for_all_equals_the_same_t_for_each(name, dims, labels):
    net, x = stirred_network(name, dims, labels), torch.randn(6, *dims)
    out = net(x, torch.tensor(20))
    assert out.shape == x.shape
    torch.testing.assert_close(out, net(x, torch.full((6,), 20)), rtol=1e-4, atol=1e-4)


@EACH_NETWORK
@pytest.mark.parametrize("labels", [0, 3])
def test_a_network_answers_differently_at_different_t(name, dims, labels):
    net, x = stirred_network(name, dims, labels), torch.randn(6, *dims)
    assert not torch.allclose(net(x, torch.tensor(20)), net(x, torch.tensor(3)))


@EACH_NETWORK
def test_a_network_answers_differently_with_labels(name, dims):
    net, x = stirred_network(name, dims, 3), torch.randn(6, *dims)
    assert not torch.allclose(net(x, torch.tensor(20)), net(x, torch.tensor(20), torch.arange(6) % 3))


def test_layers_do_not_share_weights():
    net = build_model("mlp", (2,), 10, **OWN_OPTIONS["mlp"])
    assert net.layers[0].weight is not net.layers[1].weight


@pytest.mark.parametrize(
    ("name", "dims", "options", "words"),
    [
        ("mpl", (2,), {}, "choose one of"),
        ("mlp", (1, 8, 8), {}, "model=mlp is not for images.*use model=unet"),
        ("linear", (1, 8, 8), {}, "not for images"),
        ("unet", (2,), {}, "model=unet is not for points.*use model=mlp"),
        ("unet_small", (3,), {}, "not for points"),
        ("mlp", (2,), {"width": 3}, "options"),
    ],
)
def test_impossible_networks_are_refused(name, dims, options, words):
    with pytest.raises(ValueError, match=words):
        build_model(name, dims, 10, **options)


# ---------------------------------------------------------------- short trainings


def learnt(name, steps, x, scheduler, lr, target="v", weight="eps"):
    """The denoiser that a network becomes in so many steps of Adam on batches of 512 rows of x."""
    torch.manual_seed(0)
    net = build_model(name, (2,), scheduler.num_timesteps, **options_of(name))
    weights, optimizer = loss_weights(scheduler, target, weight), torch.optim.Adam(net.parameters(), lr)
    for _ in range(steps):
        x_0 = x[torch.randint(len(x), (512,))]
        t, eps = torch.randint(scheduler.num_timesteps, (512,)), torch.randn(512, 2)
        loss = training_loss(net, scheduler, x_0, t, eps, target=target, weights=weights).ordinary.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return denoiser(net, scheduler, target)


@torch.no_grad()
def mean_loss(denoise, x, scheduler):
    """The mean error of epsilon over all of x and all steps."""
    g = torch.Generator().manual_seed(1)
    t, eps = torch.arange(len(x)) % scheduler.num_timesteps, torch.randn(x.shape, generator=g)
    return float((denoise(scheduler.add_noise(x, t, eps), t).eps - eps).square().mean())


SCHEDULER = LinearNoiseScheduler(50)


@pytest.fixture(scope="module")
def moons():
    """10,000 normalised points (10000, 2)."""
    x = torch.from_numpy(create_moon_dataset(10_000))
    return Normaliser.fit(x).normalise(x)


@pytest.fixture(scope="module")
def linear_floor(moons):
    """The mean error of the best linear denoiser, in closed form.

    It is eps = sigma * C_t^-1 x_t, where C_t is the covariance of x_t, whose mean is 0.
    """
    covariance = torch.cov(moons.T)

    def best_linear(x_t, t, label=None):
        alpha, sigma = SCHEDULER.alpha_sigma(t, x_t)
        c_t = alpha[:, :, None] ** 2 * covariance + sigma[:, :, None] ** 2 * torch.eye(2)
        return sigma * torch.linalg.solve(c_t, x_t)

    return mean_loss(denoiser(best_linear, SCHEDULER, "eps"), moons, SCHEDULER)


def test_always_answering_0_makes_an_error_of_1(moons):
    silent = denoiser(lambda x_t, t, label: 0 * x_t, SCHEDULER, "eps")
    assert mean_loss(silent, moons, SCHEDULER) == pytest.approx(1, abs=0.05)


def test_a_linear_network_becomes_the_best_linear_denoiser(moons, linear_floor):
    linear = mean_loss(learnt("linear", 600, moons, SCHEDULER, 3e-3), moons, SCHEDULER)
    assert linear == pytest.approx(linear_floor, rel=0.02)


def test_a_short_training_beats_the_best_linear_denoiser(moons, linear_floor):
    mlp = mean_loss(learnt("mlp", 400, moons, SCHEDULER, 3e-3), moons, SCHEDULER)
    assert mlp < 0.9 * linear_floor


@pytest.mark.parametrize("weight", ["target", "eps"])
@pytest.mark.parametrize("target", TARGETS)
def test_a_short_training_learns_whatever_the_target_and_the_weight(target, weight, moons):
    # 1 untrained, 0.26 the best linear denoiser; 0.23 .. 0.30 seen, most for x0, whose eps errs most near t = 0
    denoise = learnt("mlp", 400, moons, SCHEDULER, 3e-3, target, weight)
    assert mean_loss(denoise, moons, SCHEDULER) < 0.35
