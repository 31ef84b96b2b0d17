"""compare.py: the exact flow map, orders of convergence, equal noise and honest counts, the command and its files."""

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
import torch
from conftest import command, not_blank
from rerun.chunk import RrdReader

from conf.config import Compare, Train
from conf.groups import MLP, Digits, File, Moons, UNetSmall
from conf.option import check
from dataset import IMAGE_DATASETS, Normaliser, make_dataset, make_sets
from diffusion import exact_denoiser
from metrics import image_features, two_sample
from metrics.evaluation import as_frequent
from metrics.flow_map import exact_flow, flow_map, slope
from metrics.sampler_comparison import EXACT, NETWORK, TRACKED, compare, save_numbers, table
from pipeline import Pipeline, build
from points.mixture import GaussianMixture
from runtime.randomness import generator
from samplers import SAMPLERS, last, sample
from samplers.options import SamplingOptions
from schedule import CLEAN, CosineNoiseScheduler, LinearNoiseScheduler, NoiseScheduler
from tests.viz.test_recordings import column
from viz import comparison_pictures as pictures
from viz.recording.comparison_recording import _image_scene, log_comparison
from viz.viewer import recording

SMOOTH = GaussianMixture(torch.tensor([[-0.9, 0.3], [0.7, 0.8], [0.4, -1.0], [-0.3, -0.6]]), 0.4**2)
X_T = torch.randn(64, 2, generator=generator(0, "x_T"), dtype=torch.float64)


# ---------------------------------------------------------------- the exact flow, and how fast samplers approach it


@pytest.mark.parametrize("scheduler", [LinearNoiseScheduler(1000), CosineNoiseScheduler(100)])
def test_the_exact_flow_keeps_each_points_place_in_a_gaussian(scheduler):
    mean, variance = torch.tensor([0.8, -0.3], dtype=torch.float64), 0.25
    gaussian, last_t = GaussianMixture(mean[None], variance), scheduler.num_timesteps - 1

    def moments(t):
        alpha, sigma = scheduler.alpha_sigma_at(t)
        return alpha * mean, math.sqrt(alpha**2 * variance + sigma**2)

    steps = [last_t, last_t // 2, 0, CLEAN]
    centre_T, spread_T = moments(last_t)
    for t, x in zip(steps, exact_flow(gaussian.denoise, scheduler, X_T, steps)):
        centre, spread = moments(t)
        torch.testing.assert_close(x, centre + spread * (X_T - centre_T) / spread_T, rtol=1e-8, atol=1e-8)


def even_in_log_snr(T=1921, reach=2.0):
    """A process whose steps are exactly even in log-SNR for 41, 81 and 161 of them: no rounding blurs the order."""
    log_snr = torch.linspace(reach, -reach, T, dtype=torch.float64)
    return NoiseScheduler(torch.sigmoid(2 * log_snr).sqrt(), torch.sigmoid(-2 * log_snr).sqrt())


@pytest.mark.parametrize(
    ("sampler", "order"),
    [
        ("ddim", 1), ("dpmpp_2m", 2), ("heun", 2), ("unipc", 3), ("adams", 3),
        ("dpmpp_3m", 2),  # as its authors published it: see dpmpp
    ],
)  # fmt: skip
def test_orders_of_convergence_with_the_exact_denoiser(sampler, order):
    # to the state at t = 0, before the guess of x_0 that ends most samplers; slopes of 1.01 to 3.13 were measured
    scheduler, (transitions, errors) = even_in_log_snr(), ((40, 80, 160), [])
    truth = exact_flow(SMOOTH.denoise, scheduler, X_T, [0])[0]
    denoise = exact_denoiser(SMOOTH, scheduler)
    for n in transitions:
        evaluations = SAMPLERS[sampler].evaluations_per_step * n + 1
        options = SamplingOptions(sampler, evaluations, "log_snr")
        state = list(sample(denoise, scheduler, X_T, options))[-2]
        assert state.t == 0
        errors.append(float((state.x_t - truth).square().mean().sqrt()))
    assert slope(transitions, errors) == pytest.approx(order, abs=0.2), errors


def test_the_flow_map_has_the_orders_at_its_end_and_finds_nothing_wrong_with_an_exact_network():
    scheduler, denoise = LinearNoiseScheduler(20_000), exact_denoiser(SMOOTH, LinearNoiseScheduler(20_000))
    pair, quiet = {"exact": denoise, "network": denoise}, [name for name, row in SAMPLERS.items() if not row.noisy]
    found = flow_map(SMOOTH.denoise, scheduler, pair, {"exact": X_T, "network": X_T}, quiet)
    assert found.errors["exact"] == found.errors["network"]
    assert found.errors.keys() == {"exact", "network"} and found.evaluations["heun"][1:3] == [6, 10]
    for name, order in {"ddim": 1, "dpmpp_2m": 2, "heun": 2}.items():
        assert found.slopes[name] == pytest.approx(order, abs=0.4)
    assert min(found.errors["exact"]["unipc"]) == pytest.approx(found.last_step, rel=0.2)  # it ends on that guess
    assert min(found.errors["exact"]["adams"]) < found.last_step / 3  # and adams carries on beyond it


def test_a_slope_is_a_power_of_the_count():
    n = [5, 10, 20, 40, 80]
    assert slope(n, [7 * k**-2.5 for k in n]) == pytest.approx(2.5)
    assert slope(n, [max(k**-2.0, 1e-3) for k in n], above=2e-3) != slope(n, [max(k**-2.0, 1e-3) for k in n])
    assert math.isnan(slope(n, [1e-4] * 5, above=1e-3))


# ---------------------------------------------------------------- comparisons, with networks that have learnt nothing


def untrained(dataset, model, **options):
    """A model that has learnt nothing, with 50 steps."""
    config = asdict(Train(dataset=dataset, model=model, num_timesteps=50, num_samples=2000, **options))
    data, _ = make_sets(n_samples=2000, seed=0, **config["dataset"])
    classes = list(data.classes) if config["conditional"] or config["dataset"]["name"] in IMAGE_DATASETS else []
    torch.manual_seed(0)
    normaliser = Normaliser.of(data)
    net, scheduler = build(config, tuple(normaliser.mean.shape), len(classes))
    return Pipeline(net, scheduler, normaliser, config, classes).ready(torch.device("cpu"))


@pytest.fixture(scope="module")
def moons():
    model = untrained(Moons(), MLP(hidden=8, layers=1))
    return model, compare(model, ["ddim", "heun", "ddpm"], [10, 5, 5], 200, 3, SamplingOptions(guidance=0.0))


def test_every_sampler_begins_at_the_same_noise_and_the_networks_samples_are_its_own(moons):
    model, found = moons
    assert found.denoisers == [NETWORK, EXACT] and found.asked == [5, 10] and len(found.trials) == 2 * 3 * 2
    starts = [trial.path[0].x_t for trial in found.trials]
    assert all(torch.equal(x, starts[0]) for x in starts) and len(starts[0]) == TRACKED
    alone = model.data_units(
        last(model.states(200, SamplingOptions(sampler="ddim", sampling_steps=5, guidance=0.0), seed=3))
    ).numpy()
    assert np.array_equal(found.of(NETWORK, "ddim", 5).samples, alone)
    assert {(t.asked, t.evaluations) for t in found.trials if t.sampler == "heun"} == {(5, 4), (10, 10)}


def test_figures_tell_the_network_from_the_sampler(moons):
    _, found = moons
    network, exact = (found.of(d, "ddpm", 10).figures for d in (NETWORK, EXACT))
    assert [*network] == [*found.floors] and all(network[name] > exact[name] for name in network)
    two = [found.of(EXACT, "ddim", n) for n in (5, 10)]
    assert two[1].figures["sliced Wasserstein-1"] < two[0].figures["sliced Wasserstein-1"]
    ends = found.exact_path[-1].x_t
    assert found.exact_path[-1].t == CLEAN and torch.equal(found.exact_path[0].x_t.float(), two[0].path[0].x_t)
    off = [float((trial.path[-1].x_t - ends).norm(dim=1).mean()) for trial in two]
    assert off[1] < off[0] < float((found.of(NETWORK, "ddim", 10).path[-1].x_t - ends).norm(dim=1).mean())


def test_the_table_marks_what_lies_within_its_floor_and_the_file_holds_the_same(moons, tmp_path):
    _, found = moons
    lines = table(found).splitlines()
    rows = [line for line in lines if line.split()[:1] in (["ddim"], ["heun"], ["ddpm"])]
    assert len(rows) == 6 and all(len(row.split()) == 3 + 8 for row in rows)
    save_numbers(tmp_path / "compare.json", found, seed=3)
    saved = json.loads((tmp_path / "compare.json").read_text())
    assert saved["seed"] == 3 and saved["flow_map"]["evaluations"]["heun"][:3] == [4, 6, 10]
    for row, trial in zip(saved["trials"], found.trials, strict=True):
        assert row["sampler"] == trial.sampler and row["evaluations"] == trial.evaluations
        assert row["classifier accuracy"] == trial.figures["classifier accuracy"]
    cells = " ".join(rows)
    for trial in found.trials:
        value, floor = trial.figures["energy distance"], found.floors["energy distance"]
        assert (f"{value:.4f}*" in cells) == (value <= floor.high)


def test_labelled_points_are_denoised_exactly_under_their_labels():
    model = untrained(Moons(), MLP(hidden=8, layers=1), conditional=True)
    found = compare(model, ["dpmpp_2m"], [30], 300, 0, SamplingOptions(guidance=0.0))
    real = make_dataset("moons", 2000, 0, noise=0.05)
    samples = found.of(EXACT, "dpmpp_2m", 30).samples
    nearest = np.linalg.norm(samples[:, None] - real.points[None], axis=-1).argmin(1)
    _, unseen = make_sets(n_samples=2000, seed=0, **model.config["dataset"])
    assert (real.labels[nearest] == as_frequent(unseen, 300, 0).numpy()).mean() > 0.99


def test_points_of_ones_own_have_no_exact_denoiser_and_no_density(tmp_path):
    np.save(tmp_path / "mine.npy", make_dataset("helix", 2000, 0, noise=0.05).points)
    found = compare(
        untrained(File(path=str(tmp_path / "mine.npy")), MLP(hidden=8, layers=1)),
        ["adams"],
        [3],
        200,
        0,
        SamplingOptions(guidance=0.0),
    )
    assert found.denoisers == [NETWORK] and found.flow is None and not found.exact_path
    assert [*found.floors] == ["sliced Wasserstein-1", "energy distance", "classifier accuracy"]
    assert "exact" not in table(found) and pictures.sheet(found).subfigs
    with recording("test", tmp_path / "a.rrd", "file") as rec:
        log_comparison(rec, found)
    _, now = column(tmp_path / "a.rrd", "/network/adams/now", "Points3D:positions")
    assert np.array_equal(now[-1], found.trials[0].path[-1].x_t.numpy())


def test_images_are_compared_by_their_features(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(image_features, "FEWEST_IMAGES", 600)  # a classifier that need not be good
    options = {"schedule": "cosine", "conditional": True}
    model = untrained(Digits(), UNetSmall(channels=[8, 8], heads=2, blocks=1), **options)
    found = compare(
        model, ["ddim", "heun"], [3, 4], 60, 0, SamplingOptions(guidance=0.35, guidance_interval=(0.5, 5.0))
    )
    assert [*found.floors] == ["Frechet distance"] and found.denoisers == [NETWORK] and found.flow is None
    assert all(trial.figures["Frechet distance"] > found.floors["Frechet distance"].high for trial in found.trials)
    pictures.sheet(found).savefig(tmp_path / "sheet.png")
    assert not_blank(tmp_path / "sheet.png")
    with recording("test", tmp_path / "a.rrd", "file") as rec:
        log_comparison(rec, found)
    steps, _ = column(tmp_path / "a.rrd", "/reverse/x_t", "Image:buffer")
    visited = {50 - state.step for trial in found.trials if trial.asked == 4 for state in trial.path}
    assert steps.tolist() == sorted(visited)
    scene = _image_scene(found, 4)
    for i, name in enumerate(("ddim", "heun")):  # a row each, which shows every state at its own step
        rows = slice(i * TRACKED, (i + 1) * TRACKED)
        for state in found.of(NETWORK, name, 4).path:
            at = scene.processes[0].steps.tolist().index(state.step)
            assert np.array_equal(scene.processes[0].states[at, rows], state.x_t.numpy())


@pytest.mark.parametrize(
    ("samplers", "evaluations", "words"),
    [
        (["ddim"], [5, 51], r"evaluations must lie in 1\.\.50, for this model has T = 50; got 51"),
        (["heun"], [0], r"evaluations must lie in 1\.\.50"),
        ([], [5], "name at least one sampler"),
        (None, [], "and one number of evaluations"),
        (["rk4"], [5], "sampler 'rk4' is unknown"),
    ],
)
def test_what_cannot_be_compared_is_refused_at_once(moons, samplers, evaluations, words):
    with pytest.raises(ValueError, match=words):
        compare(moons[0], samplers, evaluations, 200, 0, SamplingOptions(guidance=0.0))


def test_the_energy_distance_alone_is_that_of_the_test():
    a, b = np.random.default_rng(0).normal(size=(2, 300, 2)) + np.array([[[0.0]], [[0.3]]])
    assert two_sample.energy_distance(a, b) == pytest.approx(float(two_sample.energy(a, b, 0).value), rel=1e-6)
    assert two_sample.energy_distance(a, a) == pytest.approx(0, abs=1e-3)


# ---------------------------------------------------------------- the command


def test_each_of_a_list_is_held_against_the_choices():
    options = Compare(samplers=["dpm", "ddim"])
    check(options)
    assert options.samplers == ["dpmpp_2m", "ddim"]
    with pytest.raises(ValueError, match=r"each of samplers must be one of ddpm, ddim, .*; got 'rk4'"):
        check(Compare(samplers=["ddim", "rk4"]))
    with pytest.raises(ValueError, match="each of evaluations must be at least 1; got 0"):
        check(Compare(evaluations=[5, 0]))


def test_the_command_leaves_table_pictures_and_recording(run, workplace):
    line = f"compare.py checkpoint={run} samplers=[ddim,adams] --evaluations [5] num_samples=200 hydra.run.dir=compared"
    done = command(line, workplace)
    assert done.returncode == 0, done.stderr
    folder = workplace / "compared"
    names = {path.name for path in folder.iterdir()}
    assert names == {".hydra", "compare.json", "compare.png", "flow_map.png", "compare.rrd"}
    assert not_blank(folder / "compare.png") and not_blank(folder / "flow_map.png")
    assert "with the network" in done.stdout and "exact flow map" in done.stdout and "rerun compared/" in done.stdout
    saved = json.loads((folder / "compare.json").read_text())
    assert [(t["sampler"], t["denoiser"]) for t in saved["trials"]] == [
        ("ddim", NETWORK), ("ddim", EXACT), ("adams", NETWORK), ("adams", EXACT),
    ]  # fmt: skip
    entities = {chunk.entity_path for chunk in RrdReader(folder / "compare.rrd").stream()}
    assert {f"/{p}/{name}/way" for p in ("network", "exact") for name in ("ddim", "adams", "exact_flow")} <= entities
    steps, _ = column(folder / "compare.rrd", "/network/ddim/now", "Points2D:positions")
    assert len(steps) == 6 and steps[0] == 0 and steps[-1] == 50
