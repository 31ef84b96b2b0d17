"""Stills: what each panel holds, and that the bands hold as many dots as they say."""

import numpy as np
import pytest
import torch
from conftest import command

from dataset import make_dataset
from metrics.forward import measured_statistics, theoretical_statistics
from metrics.scene import LEAST_SEEN, MOST_SEEN, clock, evenly_on
from schedule import make_scheduler
from viz import learning


def curve(floor, steps=30):
    step = np.arange(1.0, steps + 1)
    excess = {"step": step, "excess": 0.1 / step, "floor": np.full(steps, floor)}
    return {"step": step, "loss": floor + 1 / step}, excess


def test_loss_and_excess_stand_apart_and_every_thing_has_one_name():
    runs, excesses = zip(*(curve(0.2), curve(0.2)))
    figure = learning.losses(dict(zip("ab", runs)), dict(zip("ab", excesses)))
    loss, excess = figure.axes  # two panels, and no axis on the other side
    assert loss.get_position().y0 >= excess.get_position().y1
    assert [text.get_text() for text in loss.get_legend().get_texts()] == [
        "a", "b", "Bayes floor: no network can do better",
    ]  # fmt: skip
    assert "0.2000" in loss.get_title()
    for line, e in zip(excess.get_lines(), excesses):
        assert np.array_equal(line.get_ydata(), e["excess"])


def test_without_an_exact_distribution_there_is_one_panel():
    (loss,) = learning.losses({"a": curve(0.2)[0]}).axes
    assert len(loss.get_legend().get_texts()) == 1


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
    """300 draws of the noise of the same data at each of three steps. P(fewer than 90 % or more than 99 %) < 1e-4."""
    scheduler, data, t = make_scheduler("linear", 50), make_dataset("moons", 200, 0, noise=0.05), [4, 15, 30]
    theory = theoretical_statistics(data.points, data.mixture, scheduler, t, seed=0)
    rng, x_0 = np.random.default_rng(1), torch.from_numpy(data.points)
    for i, step in enumerate(t):
        eps = torch.from_numpy(rng.normal(size=(300, *x_0.shape)).astype("f"))
        states = scheduler.add_noise(x_0.expand(300, -1, -1), torch.tensor(step), eps).numpy()
        found = measured_statistics(data.points, states)[key]
        if key == "kl":  # its estimate is biased: where its dots lie, the picture shows; how far they scatter, the band
            inside = np.abs(found - found.mean()) <= 1.96 * theory["kl_sd"][i]
        else:
            inside = np.abs(found - theory[key][i]) <= 1.96 * theory[f"{key}_sd"][i]
        least = 0.8 if key == "kl" else 0.9  # its standard deviation is itself measured, on 25 draws
        assert least <= inside.mean() <= 0.99, (step, inside.mean())


def test_the_clock_is_even_where_there_is_something_to_see():
    scheduler = make_scheduler("linear", 1000)
    alpha_bar = np.concatenate([[1.0], scheduler.alphas_cumprod.numpy()])
    hands = clock(alpha_bar)
    assert (np.diff(hands) < 0).all()
    log_snr = scheduler.log_snr.numpy()
    seen = (log_snr >= LEAST_SEEN) & (log_snr <= MOST_SEEN)
    assert np.allclose(np.diff(hands[1:])[seen[1:] & seen[:-1]], np.diff(log_snr)[seen[1:] & seen[:-1]])
    cosine = clock(np.concatenate([[1.0], make_scheduler("cosine", 1000).alphas_cumprod.numpy()]))
    assert np.ptp(cosine) < 1.2 * np.ptp(hands)  # its log-SNR falls by three times as much, in noise that looks alike
    chosen = evenly_on(hands, 6)
    assert chosen[0] == 0 and chosen[-1] == 1000 and np.abs(np.diff(hands[chosen]) - np.ptp(hands) / -5).max() < 0.3
    assert evenly_on(hands, 5000) == list(range(1001))
    assert evenly_on(-hands[::-1], 2) == [0, 1000]
