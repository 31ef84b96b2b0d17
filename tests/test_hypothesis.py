"""Public functions take arrays of every kind: they give the right answer, or refuse in our own words."""

import linecache
import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
import rerun as rr
import torch
from conftest import ROOT, gaussian
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dataset import Normaliser, PointSet, create_moon_dataset, make_dataset, read_points
from diffusion import DiffusionModel, exact_denoiser
from images.image_files import read_samples
from images.sets import ImageSet
from loader import batches, make_loader
from loss.objective import loss_weights, training_loss
from metrics.distances import METRICS, sliced_wasserstein, wasserstein2
from model import build_model
from points.mixture import GaussianMixture
from registry.process_rows import LOSS_WEIGHTS, SCHEDULES
from rerun_viz import log_forward_diffusion, log_reverse_diffusion
from runtime import checkpoint_file
from runtime import device as devices
from runtime.randomness import generator, integer_seed
from samplers import SAMPLERS, last, sample
from samplers.options import SamplingOptions
from schedule import VariancePreserving, evenly_spaced, make_scheduler
from viz import image_grids, stills
from viz.colours import NOISE_STOPS, noise_colours

settings.register_profile("ci", derandomize=True, deadline=None, max_examples=40, database=None,
                          suppress_health_check=list(HealthCheck))  # fmt: skip
settings.load_profile("ci")
REFUSED = object()


def answered(f, *given, **options):
    """What f returns, or REFUSED where a `raise` of ours says that it takes no such thing."""
    try:
        return f(*given, **options)
    except (ValueError, TypeError, FileNotFoundError) as error:
        frame = error.__traceback__
        while frame.tb_next:
            frame = frame.tb_next
        file = frame.tb_frame.f_code.co_filename
        if Path(file).is_relative_to(ROOT) and linecache.getline(file, frame.tb_lineno).strip().startswith("raise "):
            assert str(error) and "\n" not in str(error)
            return REFUSED
        raise


# ---------------------------------------------------------------- arrays

KINDS = ["f2", "<f4", ">f4", "<f8", ">f8", "i1", "u1", "<i2", ">i2", "<u2", ">u4", "<i8", ">i8", "<u8", "?"]
JUNK = [None, "text", b"bytes", 3, 3.5, [], [[]], [[1, 2], [3]], {}, object(), np.array(["a", "b"]), 1j,
        np.array([[1 + 1j, 2]]), np.array([["2026-01-01", "2026-01-02"]], "M8[D]"), np.zeros((2, 2), [("a", "f8")]),
        np.array([[None, 1]]), np.ma.masked_less(np.eye(2), 1), torch.zeros(2, 2, dtype=torch.complex64)]  # fmt: skip
junk = st.sampled_from(JUNK)


@st.composite
def arrays(draw, d=2, most=6, kinds=KINDS, wild=True, least=0):
    """Arrays (n, d) of any type, byte order and transitions; `wild`: huge, NaN and infinite floats, too."""
    kind, n = np.dtype(draw(st.sampled_from(kinds))), draw(st.integers(least, most))
    size = {2: 60000.0, 4: 1e38}.get(kind.itemsize, 1e300) if wild else 100.0
    if kind.kind == "f":
        width = {2: 16, 4: 32}.get(kind.itemsize, 64)
        size = float(np.float16(size) if width == 16 else np.float32(size) if width == 32 else size)
        values = st.floats(-size, size, width=width) | (st.sampled_from([math.nan, math.inf]) if wild else st.just(0.5))
    elif kind.kind == "b":
        values = st.booleans()
    else:
        info = np.iinfo(kind)
        values = st.integers(*((int(info.min), int(info.max)) if wild else (max(-100, int(info.min)), 100)))
    x = draw(hnp.arrays(kind, (n, d), elements=values))
    layout = draw(st.integers(0, 5))
    if layout == 1:
        return np.asfortranarray(x)
    if layout == 2:
        return x[::-1, ::-1]
    if layout == 3:
        return np.repeat(np.repeat(x, 2, 0), 2, 1)[::2, ::2]
    if layout == 4:
        x.setflags(write=False)
    return x


def finite(*given):
    return all(np.isfinite(np.asarray(x, np.float64)).all() for x in given)


any_array = arrays() | arrays(3) | arrays(1) | junk
tame = arrays(wild=False, least=1)


# ---------------------------------------------------------------- dataset, loader


@given(st.integers(-3, 60), st.sampled_from([0.0, 1e-300, 1e-9, 1e-3, 0.05, 3, 1e9, -1.0, math.nan, math.inf]))
def test_moons_are_finite_points_or_refused(n, noise):
    points = answered(create_moon_dataset, n, noise)
    assert (points is REFUSED) == (n < 1 or not 0 <= noise < math.inf)
    if points is not REFUSED:
        assert points.shape == (n, 2)
        assert np.isfinite(points).all()


@given(any_array)
def test_a_normaliser_gives_mean_0_and_spread_1_or_0(x):
    with tempfile.TemporaryDirectory() as folder:
        try:
            np.save(Path(folder, "x.npy"), x, allow_pickle=False)
        except (ValueError, AttributeError, NotImplementedError, TypeError, RuntimeError):  # objects
            assume(False)
        data = answered(read_points, str(Path(folder, "x.npy")), None, 0)
    if data is REFUSED:
        array = np.asarray(x)
        ordinary = array.dtype.kind in "biuf" and array.ndim == 2 and min(len(array), *array.shape[1:], 2) == 2
        assert not ordinary or not finite(x) or np.abs(np.asarray(x, np.float64)).max() > 1e99
        return
    z = Normaliser.fit_dataset(data).normalise(data[:][0]).double()
    spread = np.ptp(data.points.astype(np.float64), 0)
    scale = np.abs(data.points.astype(np.float64)).max(0)
    for i in np.flatnonzero((spread > 1e-3 * scale) & (spread > 1e-150)):
        assert abs(float(z[:, i].mean())) < 1e-3
        assert float(z[:, i].std(correction=0)) == pytest.approx(1, abs=1e-3)
    assert bool((z[:, np.flatnonzero(spread == 0)] == 0).all())


@given(any_array)
def test_a_point_set_gives_its_rows_or_is_refused(x):
    data = answered(PointSet, x)
    if data is not REFUSED:
        assert np.array_equal(data[:][0].numpy(), np.asarray(x), equal_nan=True)


@given(st.integers(1, 20), st.integers(-2, 25), st.integers(0, 30))
def test_batches_hold_each_row_once_an_epoch(n, size, start):
    data = PointSet(np.arange(2 * n, dtype=np.float32).reshape(n, 2))
    loader = answered(make_loader, data, batch_size=size, seed=0)
    assert (loader is REFUSED) == (size < 1)
    if loader is not REFUSED:
        size = min(size, n)
        stream = batches(loader, start * n)  # the first batch after start * size epochs
        rows = torch.cat([next(stream)[0] for _ in range(n)])
        assert sorted(rows[:, 0].tolist()) == sorted(size * list(range(0, 2 * n, 2)))


# ---------------------------------------------------------------- schedule, diffusion


@given(st.sampled_from([*SCHEDULES, "other"]), st.integers(-2, 300),
       *[st.none() | st.floats(allow_nan=True) | st.floats(1e-14, 1)] * 2, st.booleans())  # fmt: skip
def test_a_schedule_falls_from_signal_to_noise_or_is_refused(name, T, start, end, zero_snr):
    scheduler = answered(make_scheduler, name, T, start, end, zero_snr)
    if scheduler is not REFUSED:
        a, s = scheduler.alpha, scheduler.sigma
        total = a + s if name == "flow" else a**2 + s**2
        torch.testing.assert_close(total, torch.ones(T, dtype=torch.float64))
        signal = a[:-1] if zero_snr or name == "flow" else a
        assert bool((a.diff() < 0).all() and (s > 0).all() and (signal > 0).all())
        assert len(signal) == T or a[-1] == 0
        assert bool((signal.float() ** -2).isfinite().all() and (s.float() ** -1).isfinite().all())
        assert all(bool(loss_weights(scheduler, "v", w).isfinite().all()) for w in LOSS_WEIGHTS)


@given(junk | hnp.arrays(np.float64, st.integers(0, 5), elements=st.floats()))
def test_betas_of_any_kind_make_a_schedule_or_are_refused(betas):
    scheduler = answered(VariancePreserving, betas)
    if scheduler is not REFUSED:
        torch.testing.assert_close(scheduler.alphas_cumprod, torch.tensor(np.cumprod(1 - np.asarray(betas, float))))


MODEL = DiffusionModel(10)
steps = (
    st.integers(-2, 12) | arrays(1, 3, ["i1", "u1", ">i4", "<u2", "f4", "?"], wild=False).map(lambda t: t[:, 0]) | junk
)


@given(any_array, steps, st.none() | any_array)
def test_the_forward_process_is_equation_4(x, t, noise):
    found = answered(MODEL.forward_diffusion, x, t, noise)
    if found is not REFUSED:
        x_t, eps = (np.asarray(part, np.float64) for part in found)
        at = np.asarray(t, np.int64)
        assert finite(x, eps)
        assert at.min(initial=0) >= 0 and at.max(initial=0) < 10
        a, s = (
            c.numpy()[at].reshape(-1, *[1] * (np.ndim(x) - 1)) for c in (MODEL.scheduler.alpha, MODEL.scheduler.sigma)
        )
        whole = np.asarray(x, np.float64)
        with np.errstate(over="ignore"):
            expected = a * whole + s * eps
        rough = 2e-3 if np.asarray(found[0]).dtype == np.float16 else 1e-5
        np.testing.assert_allclose(
            x_t, expected, rtol=rough, atol=rough * (np.abs(whole).max(initial=1) + np.abs(eps).max(initial=1))
        )


@given(any_array)
def test_a_trajectory_begins_near_its_data_and_is_finite(x):
    found = answered(MODEL.add_noise_trajectory, x)
    if found is not REFUSED:
        assert found.shape == (10, *np.shape(x))
        assert np.isfinite(np.asarray(found, np.float64)).all()


# ---------------------------------------------------------------- mixture, sampler


@given(any_array, st.sampled_from([0.0, 0.3, -1.0, math.nan]) | junk, any_array)
def test_a_mixture_of_one_gaussian_has_its_closed_form(centres, variance, x):
    mixture = answered(GaussianMixture, centres, variance)
    if mixture is REFUSED:
        return
    density = answered(mixture.log_density, x)
    assert answered(mixture.denoise, x, 0.6, 0.8) is not REFUSED or density is REFUSED
    if density is not REFUSED and len(mixture.centres) == 1 and np.abs(np.asarray(x, float)).max(initial=0) < 1e6:
        gap = ((np.asarray(x, float) - mixture.centres.numpy()) ** 2).sum(1)
        size = 1 + float(mixture.centres.abs().max()) ** 2 + np.abs(np.asarray(x, float)).max(initial=0) ** 2
        assume(size < 1e12)
        v = float(mixture.variance[0])
        expected = -gap / (2 * v) - math.log(2 * math.pi * v) * mixture.dim / 2
        np.testing.assert_allclose(density, expected, rtol=1e-9, atol=1e-13 * size / v + 1e-9)


@given(arrays(2, wild=False, least=1), tame)
def test_the_best_denoiser_takes_any_array(centres, x):
    mixture = GaussianMixture(centres, 0.5)
    for state in (x, np.ascontiguousarray(x, np.float64)):
        eps, x_0 = mixture.denoise(state, 0.6, 0.8)
        rebuilt = 0.6 * x_0.double() + 0.8 * eps.double()
        np.testing.assert_allclose(
            rebuilt, np.asarray(x, float), rtol=5e-3, atol=0.5 if eps.dtype == torch.float16 else 1e-3
        )


start = st.just(torch.randn(4, 2, generator=torch.Generator().manual_seed(0)))


@given(st.sampled_from([*SAMPLERS, "dpm", "other"]), st.none() | st.integers(-1, 14), any_array | start,
       st.sampled_from([0.0, 0.5, 1.0, -0.5, 2.0, math.nan]))  # fmt: skip
def test_a_sampler_ends_at_the_mean_of_a_point_or_refuses(name, count, x_T, eta):
    mixture = gaussian([0.5, -1.0], 0.0)
    g = torch.Generator().manual_seed(0)
    denoise = exact_denoiser(mixture, MODEL.scheduler)
    found = answered(
        lambda: last(
            sample(
                denoise, MODEL.scheduler, x_T, SamplingOptions(sampler=name, sampling_steps=count, eta=eta), generator=g
            )
        )
    )
    if found is not REFUSED:
        assert found.dtype.is_floating_point
        size = float(torch.as_tensor(np.array(x_T, np.float64)).abs().max()) if len(found) else 0.0
        rough = 5e-3 if found.dtype == torch.float16 else 1e-3
        if name == "adams":  # which ends beyond its last guess, where only a smooth velocity leads it right
            return
        torch.testing.assert_close(
            found.double(), mixture.centres.expand(len(found), 2), atol=rough * (1 + size), rtol=0
        )


# ---------------------------------------------------------------- model


@given(st.sampled_from(["mlp", "linear"]), st.integers(1, 3), st.integers(1, 4), st.integers(0, 2))
def test_networks_of_points_take_one_t_or_one_for_each_row(name, d, n, labels):
    options = {"hidden": 4, "layers": 1, "frequencies": 1} if name == "mlp" else {}
    net = build_model(name, (d,), 10, labels, **options)
    x, t = torch.randn(n, d), torch.full((n,), 3)
    torch.testing.assert_close(net(x, t, None), net(x, torch.tensor(3), None))
    loss = training_loss(net, MODEL.scheduler, x, t, torch.zeros(n, d)).ordinary
    assert loss.shape == (n,)
    assert bool((loss >= 0).all())


# ---------------------------------------------------------------- metrics


@given(any_array, any_array)
@pytest.mark.parametrize("metric", [sliced_wasserstein, wasserstein2])
def test_a_distance_is_symmetric_and_0_to_itself(metric, a, b):
    found = answered(metric, a, b)
    if found is not REFUSED:
        assert finite(a, b)
        assert 0 <= found < math.inf
        assert found == pytest.approx(metric(b, a), rel=1e-6)
        scale = np.abs(np.asarray(a, float)).max(initial=0)
        assert metric(a, a) <= 1e-6 * scale + 1e-300
        assert metric in [m.compute for m in METRICS]


@given(tame, st.sampled_from([1.0, -4.0, 1e6]))
def test_a_shift_is_as_long_as_wasserstein_2_says(x, shift):
    x = np.asarray(x, float)
    assert wasserstein2(x, x + [shift, 0]) == pytest.approx(abs(shift), rel=1e-6)


# ---------------------------------------------------------------- images


@given(
    junk
    | hnp.arrays(
        st.sampled_from(["u1", "f4", "i8", ">i2"]), st.sampled_from([(2, 1, 3, 3), (0, 1, 3, 3), (2, 3), (1, 2, 2, 0)])
    )
)
def test_an_image_set_gives_its_pixels_or_is_refused(pixels):
    data = answered(
        ImageSet, torch.from_numpy(pixels) if getattr(pixels, "dtype", "") in ("u1", "f4", "i8") else pixels
    )
    if data is not REFUSED:
        np.testing.assert_allclose(data[:][0], pixels / 127.5 - 1, atol=1e-6)


images = hnp.arrays(
    st.sampled_from(["f2", "<f4", ">f4", "f8", "i1", "?"]), hnp.array_shapes(min_dims=1, max_dims=5, max_side=4)
)


@given(images | junk)
@pytest.mark.filterwarnings("ignore:overflow")
def test_pixels_are_bytes_of_what_lies_in_minus_1_to_1(x):
    found = answered(image_grids.pixels, x)
    if found is not REFUSED:
        shown = np.moveaxis(np.asarray(x, float)[..., :3, :, :], -3, -1)
        expected = (shown.clip(-1, 1) + 1) * 127.5
        assert (np.abs(found[..., : shown.shape[-1]] - expected) <= 0.6).all()


@given(images | junk)
def test_files_of_samples_come_back_or_are_refused(x):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.npy")
        try:
            np.save(path, x, allow_pickle=False)
        except (ValueError, AttributeError, NotImplementedError, TypeError, RuntimeError):
            path.write_bytes(b"\x93NUMPY")
        found = answered(read_samples, path)
    if found is not REFUSED:
        assert found.dtype == np.float32
        assert np.array_equal(found, np.asarray(x).astype(np.float32), equal_nan=True)


# ---------------------------------------------------------------- runtime


@given(st.integers(0, 2**63), st.text(max_size=5), st.integers(0, 2**40))
def test_randomness_is_a_function_of_seed_purpose_and_index(seed, purpose, index):
    assert 0 <= integer_seed(seed, purpose, index) < 2**63
    assert torch.equal(*[torch.rand(2, generator=generator(seed, purpose, index)) for _ in range(2)])


@given(st.text(max_size=8) | st.sampled_from(["cuda:99", "meta", "cpu:0", "cpu", "-1", ""]))
def test_a_device_is_there_or_is_refused(name):
    device = answered(devices.choose, name)
    assert device is REFUSED or float(torch.ones(2, device=device).sum()) == 2


leaf = st.none() | st.booleans() | st.integers() | st.floats(-1e300, 1e300) | st.text(max_size=5)
plain = st.recursive(leaf, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=4), x, max_size=3))


@given(st.dictionaries(st.text(max_size=5).filter(lambda k: k != "format"), plain, max_size=4))
def test_checkpoints_come_back_as_they_were(state):
    with tempfile.TemporaryDirectory() as folder:
        checkpoint_file.save(Path(folder, "x.pt"), state)
        assert checkpoint_file.load(Path(folder, "x.pt")) == {"format": checkpoint_file.FORMAT, **state}


@given(st.binary(max_size=60))
def test_bytes_are_no_checkpoint(content):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "x.pt").write_bytes(content)
        assert answered(checkpoint_file.load, Path(folder, "x.pt")) is REFUSED


# ---------------------------------------------------------------- pictures and recordings


@given(any_array | st.floats())
def test_colours_run_from_green_to_red(share):
    found = answered(noise_colours, share)
    if found is not REFUSED:
        share = np.asarray(share, float)
        assert found.shape == (*share.shape, 3)
        assert (found[share <= 0] == NOISE_STOPS[0]).all()
        assert (found[share >= 1] == NOISE_STOPS[-1]).all()


@given(st.integers(-50, 50), st.integers(-50, 50), st.integers(1, 30))
def test_evenly_has_both_ends_and_no_repetition(first, last, count):
    found = evenly_spaced(first, last, count)
    assert len(found) == len(set(found)) == min(count, abs(last - first) + 1)
    assert found[0] == first and (count == 1 or found[-1] == last)


@settings(max_examples=10)
@given(arrays(kinds=["f4", ">f8", "i1"], wild=False, least=1))
def test_a_scatter_shows_every_point(x):
    (dots,) = stills.scatter(x, "").axes[0].collections
    np.testing.assert_allclose(dots.get_offsets(), np.asarray(x, float))


@settings(max_examples=25)
@given(any_array, st.integers(0, 3), st.lists(st.integers(-2, 7), max_size=3) | junk)
def test_a_recording_takes_finite_points_and_rows_that_exist(x, count, tracked):
    trajectory = answered(np.stack, [x] * count) if count and isinstance(x, np.ndarray) else x
    rec = rr.RecordingStream("test")
    rec.memory_recording()
    for record in (
        lambda: log_forward_diffusion(x, trajectory, tracked, rec=rec),
        lambda: log_reverse_diffusion(trajectory, list(range(count))[::-1], tracked, rec=rec),
    ):
        if answered(record) is not REFUSED:
            assert finite(x)
            assert np.ndim(x) == 2 and np.shape(x)[1] in (2, 3) and len(x)


def test_make_dataset_refuses_unknown_options():
    assert answered(make_dataset, "moons", 10, 0, arms=3) is REFUSED
