"""Stills: what each panel holds, and that the bands hold as many dots as they say."""

import numpy as np
import pytest
import torch
from conftest import command
from matplotlib.image import imread

from dataset import make_dataset
from metrics.forward import measured_statistics, theoretical_statistics
from samplers.options import SamplingOptions
from samplers.spacing import LOG_SNR_MAX, LOG_SNR_MIN, clock, evenly_on
from schedule import make_scheduler
from viz import image_grids, learning, stills, style


def curve(floor, steps=30):
    step = np.arange(1.0, steps + 1)
    excess = {"step": step, "excess": 0.1 / step, "floor": np.full(steps, floor)}
    return {"step": step, "loss": floor + 1 / step}, excess


def test_loss_and_excess_stand_apart_and_every_thing_has_one_name():
    runs, excesses = zip(*(curve(0.2), curve(0.2)))
    figure = learning.losses(dict(zip("ab", runs)), dict(zip("ab", excesses)))
    loss, excess = figure.axes  # two panels, and no axis on the other side
    assert loss.get_position().y0 >= excess.get_position().y1
    assert [text.get_text() for text in loss.figure.legends[0].get_texts()] == [
        "a", "b", "Bayes floor: no network can do better",
    ]  # fmt: skip
    assert "0.2000" in loss.get_title()
    for line, e in zip(excess.get_lines(), excesses):
        assert np.array_equal(line.get_ydata(), e["excess"])


def test_without_an_exact_distribution_there_is_one_panel():
    (loss,) = learning.losses({"a": curve(0.2)[0]}).axes
    assert len(loss.figure.legends[0].get_texts()) == 1


def test_a_picture_of_two_runs_is_nobodys_own(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        rows = "".join(f"{step},{1 / step},0.1,1,0.1\n" for step in range(1, 9))
        (tmp_path / name / "loss.csv").write_text(f"step,loss,lr,seconds,stable_loss\n{rows}")
    (tmp_path / "a" / "loss.png").write_text("its own")
    done = command("loss/plot.py a b", tmp_path)
    assert done.returncode == 0 and done.stdout.strip() == "outputs/losses.png", done.stderr
    assert (tmp_path / "a" / "loss.png").read_text() == "its own"
    assert (tmp_path / "outputs" / "losses.png").stat().st_size > 10_000


@pytest.mark.parametrize("key", ["mean", "variance", "snr", "kl"])
def test_bands_hold_95_of_100_dots(key):
    """Many draws of the noise of the same data at each of three steps; P(below 90 % or above 99.7 %) < 1e-3."""
    draws = 100 if key == "kl" else 300
    scheduler, data, t = make_scheduler("linear", 50), make_dataset("moons", 200, 0, noise=0.05), [4, 15, 30]
    theory = theoretical_statistics(data.points, data.mixture, scheduler, t, seed=0)
    rng, x_0 = np.random.default_rng(1), torch.from_numpy(data.points)
    for i, step in enumerate(t):
        eps = torch.from_numpy(rng.normal(size=(draws, *x_0.shape)).astype("f"))
        states = scheduler.add_noise(x_0.expand(draws, -1, -1), torch.tensor(step), eps).numpy()
        found = measured_statistics(data.points, states)[key]
        if key == "kl":  # its estimate is biased: where its dots lie, the picture shows; how far they scatter, the band
            inside = np.abs(found - found.mean()) <= 1.96 * theory["kl_sd"][i]
        else:
            inside = np.abs(found - theory[key][i]) <= 1.96 * theory[f"{key}_sd"][i]
        least = 0.8 if key == "kl" else 0.9  # its standard deviation is itself measured, on 25 draws
        assert least <= inside.mean() <= 0.997, (step, inside.mean())


def test_the_clock_is_even_where_there_is_something_to_see():
    scheduler = make_scheduler("linear", 1000)
    alpha_bar = np.concatenate([[1.0], scheduler.alphas_cumprod.numpy()])
    hands = clock(alpha_bar)
    assert (np.diff(hands) < 0).all()
    log_snr = scheduler.log_snr.numpy()
    seen = (log_snr >= LOG_SNR_MIN) & (log_snr <= LOG_SNR_MAX)
    assert np.allclose(np.diff(hands[1:])[seen[1:] & seen[:-1]], np.diff(log_snr)[seen[1:] & seen[:-1]])
    cosine = clock(np.concatenate([[1.0], make_scheduler("cosine", 1000).alphas_cumprod.numpy()]))
    assert np.ptp(cosine) < 1.2 * np.ptp(hands)  # its log-SNR falls by three times as much, in noise that looks alike
    chosen = evenly_on(hands, 6)
    assert chosen[0] == 0 and chosen[-1] == 1000 and np.abs(np.diff(hands[chosen]) - np.ptp(hands) / -5).max() < 0.3
    assert evenly_on(hands, 5000) == list(range(1001))
    assert evenly_on(-hands[::-1], 2) == [0, 1000]


def test_every_format_is_written_and_the_first_is_named(tmp_path):
    style.use("light")
    sheet = stills.scatter(np.random.default_rng(0).normal(size=(5000, 2)), "a title that can be searched")
    assert stills.save(sheet, tmp_path / "a.png", ["svg", "pdf", "png"]) == tmp_path / "a.svg"
    assert {path.name for path in tmp_path.iterdir()} == {"a.svg", "a.pdf", "a.png"}
    svg = (tmp_path / "a.svg").read_text()
    assert "a title that can be searched" in svg and len(svg) < 200_000  # letters stay; 5000 points are pixels
    assert (tmp_path / "a.pdf").read_bytes()[:4] == b"%PDF"


@pytest.mark.parametrize(("name", "ground"), [("light", 1.0), ("dark", 0.07)])
def test_the_style_is_the_ground_of_every_picture(name, ground, tmp_path):
    style.use(name)
    try:
        e = {**curve(0.2)[1], "floor": np.full(30, 0.2)}
        field = {"x": np.linspace(-2, 2, 9), "y": np.linspace(-2, 2, 9), "step": 3, "sigma": 0.5}
        xy = np.stack(np.meshgrid(field["x"], field["y"]), -1)
        field |= {"log_density": -(xy**2).sum(-1) / 2, "network": -1.1 * xy, "exact": -xy}
        sheets = [
            learning.losses({"a": curve(0.2)[0]}, {"a": e}),
            learning.score_fields([field]),
            stills.samples(xy.reshape(-1, 2), xy.reshape(-1, 2), np.arange(81) % 2, np.arange(81) % 2, ["a", "b"]),
            image_grids.beside_real(np.zeros((4, 1, 8, 8)), np.zeros((4, 1, 8, 8))),
        ]
        for i, sheet in enumerate(sheets):
            corner = imread(stills.save(sheet, tmp_path / f"{i}.png"))[:3, :3, :3]
            assert corner.mean() == pytest.approx(ground, abs=0.02), i
            contrast = imread(tmp_path / f"{i}.png")[..., :3].mean(-1)
            assert np.abs(contrast - ground).max() > 0.6  # letters can be read
    finally:
        style.use("light")


def test_formats_and_style_as_a_person_asks_for_them(tmp_path):
    line = "main.py --save-plots --no-rerun num_samples=60 num_timesteps=20 figures=png,pdf style=dark"
    done = command(line, tmp_path)
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (tmp_path / "outputs").iterdir()}
    assert names == {f"{name}.{kind}" for name in ("forward", "schedule", "statistics") for kind in ("png", "pdf")}
    assert imread(tmp_path / "outputs/forward.png")[:3, :3, :3].mean() < 0.1
    done = command("main.py figures=gif", tmp_path)
    assert done.returncode == 1 and "figures must be one of png, pdf, svg" in done.stderr


def test_pictures_of_a_conditional_model_say_labels_and_guidance():
    style.use("light")
    points, labels = np.random.default_rng(0).normal(size=(60, 2)), np.arange(60) % 2
    sheet = stills.samples(points, points, labels, None, ["cat", "dog"], "guidance 2")
    generated, real = sheet.axes
    assert "guidance 2" in generated.get_title() and "guidance" not in real.get_title()
    assert [text.get_text() for text in sheet.legends[0].get_texts()] == ["label cat", "label dog"]
    drawn = generated.collections[0].get_facecolor()
    assert len(np.unique(drawn[labels == 0], axis=0)) == len(np.unique(drawn[labels == 1], axis=0)) == 1
    assert not np.array_equal(drawn[0], drawn[1]) and len(np.unique(real.collections[0].get_facecolor(), axis=0)) == 1
    assert SamplingOptions("ddim", guidance=0.5).guidance_text == "guidance 0.5"
    assert (
        SamplingOptions(autoguidance=2.0, guidance_interval=[0.2, 3]).guidance_text
        == "autoguidance 2 at noise 0.2 .. 3"
    )
    assert SamplingOptions(guidance_interval=[0.2, 3]).guidance_text == SamplingOptions().guidance_text == ""
