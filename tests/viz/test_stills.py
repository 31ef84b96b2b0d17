"""Stills: the content of each panel, the coverage of bands, formats and styles."""

import functools

import numpy as np
import pytest
import torch
from conftest import command
from matplotlib.image import imread

from dataset import make_dataset
from main import forward_strip
from metrics.forward import measured_statistics, theoretical_statistics
from samplers.options import SamplingOptions
from samplers.spacing import LOG_SNR_MAX, LOG_SNR_MIN, clock, evenly_on
from schedule import make_scheduler
from viz import image_grids, learning, stills, style


def curve(floor, steps=30):
    step = np.arange(1.0, steps + 1)
    excess = {"step": step, "excess": 0.1 / step, "floor": np.full(steps, floor)}
    return {"step": step, "loss": floor + 1 / step}, excess


# ---------------------------------------------------------------- losses


EXCESS = curve(0.2)[1]


@pytest.fixture(scope="module")
def two_runs():
    """The panels of losses and of excesses of two runs."""
    losses = {"a": curve(0.2)[0], "b": curve(0.2)[0]}
    figure = learning.losses(losses, {"a": EXCESS, "b": EXCESS})
    loss, excess = figure.axes  # No panel has a second axis.
    return loss, excess


def test_the_panel_of_losses_is_above_that_of_excesses(two_runs):
    loss, excess = two_runs
    assert loss.get_position().y0 >= excess.get_position().y1


def test_every_run_and_the_floor_have_one_name_in_the_legend(two_runs):
    loss, _ = two_runs
    names = [text.get_text() for text in loss.figure.legends[0].get_texts()]
    assert names == ["a", "b", learning.LOSS_FLOOR_LABEL]


def test_the_title_of_losses_names_the_floor(two_runs):
    loss, _ = two_runs
    assert "0.2000" in loss.get_title()


def test_the_title_of_losses_says_what_thick_and_thin_lines_are_and_the_axis_its_scale(two_runs):
    loss, _ = two_runs
    assert "(thick: smoothed, thin: single batches)" in loss.get_title()
    assert loss.get_yscale() == "log" and "log scale" in loss.get_ylabel()


def test_the_lines_of_excesses_are_those_of_the_runs(two_runs):
    _, excess = two_runs
    for line in excess.get_lines()[:2]:
        assert np.array_equal(line.get_ydata(), EXCESS["excess"])


def test_the_floor_of_the_legend_looks_like_the_one_that_is_drawn(two_runs):
    loss, _ = two_runs
    (drawn,) = [line for line in loss.get_lines() if "floor" in line.get_label()]
    shown = loss.figure.legends[0].get_lines()[-1]
    assert shown._dash_pattern == drawn._dash_pattern
    assert shown.get_color() == drawn.get_color()


def test_floors_that_hardly_differ_share_a_line():
    losses = {"a": curve(0.2)[0], "b": curve(0.2)[0]}
    figure = learning.losses(losses, {"a": curve(0.2)[1], "b": curve(0.2004)[1]})
    assert len([line for line in figure.axes[0].get_lines() if "floor" in line.get_label()]) == 1


def test_runs_with_and_without_labels_have_each_their_floor_and_their_excesses():
    losses = {"a": curve(0.2)[0], "b": curve(0.15)[0]}
    figure = learning.losses(losses, {"a": curve(0.2)[1], "b": curve(0.15)[1]}, labelled=["b"])
    without, with_labels, *excesses = figure.axes
    assert "without labels, floor 0.2000" in without.get_title()
    assert "with labels, floor 0.1500" in with_labels.get_title()
    assert all(len(ax.get_lines()) == 1 for ax in excesses)


def test_the_title_of_samples_says_how_many_of_how_many_are_shown():
    figure = stills.samples(GRID.reshape(-1, 2), GRID.reshape(-1, 2), drawn=200)
    assert figure.axes[0].get_title() == "generated (81 of 200 shown)"


def test_the_strip_shows_the_quarters_of_the_process_and_steps_even_in_log_snr():
    figure = forward_strip(make_scheduler("linear", 100), make_dataset("moons", 50, 0, noise=0.05).points, 0)
    titles = [ax.get_title().split(",")[0] for ax in figure.axes]
    assert titles[:5] == [f"step {step}" for step in (0, 25, 50, 75, 100)]
    assert [figure.axes[0].get_ylabel(), figure.axes[5].get_ylabel()] == ["even in t", "even in log-SNR"]


def test_no_frame_of_the_strip_cuts_a_point():
    figure = forward_strip(make_scheduler("linear", 100), make_dataset("moons", 50, 0, noise=0.05).points, 0)
    for ax in figure.axes:
        x, y = ax.collections[0].get_offsets().T
        assert ax.get_xlim()[0] < x.min() and x.max() < ax.get_xlim()[1]
        assert ax.get_ylim()[0] < y.min() and y.max() < ax.get_ylim()[1]


def test_without_an_exact_distribution_there_is_one_panel_with_one_name():
    (loss,) = learning.losses({"a": curve(0.2)[0]}).axes
    assert len(loss.figure.legends[0].get_texts()) == 1


def test_a_picture_of_two_runs_does_not_replace_that_of_one(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        rows = "".join(f"{step},{1 / step},0.1,1,0.1\n" for step in range(1, 9))
        (tmp_path / name / "loss.csv").write_text(f"step,loss,lr,seconds,stable_loss\n{rows}")
    (tmp_path / "a" / "loss.png").write_text("its own")
    done = command("loss/plot.py a b", tmp_path)
    assert done.returncode == 0 and done.stdout.strip() == "outputs/losses.png", done.stderr
    assert (tmp_path / "a" / "loss.png").read_text() == "its own"
    assert (tmp_path / "outputs" / "losses.png").stat().st_size > 10_000


# ---------------------------------------------------------------- statistics of the forward process

STEPS = [4, 15, 30]


@pytest.fixture(scope="module")
def theory():
    """The scheduler, 200 points of moons, and their theoretical statistics at three steps."""
    scheduler, data = make_scheduler("linear", 50), make_dataset("moons", 200, 0, noise=0.05)
    return scheduler, data, theoretical_statistics(data.points, data.mixture, scheduler, STEPS, seed=0)


@functools.cache
def drawn_noise(draws):
    """Standard normal numbers for so many draws of 200 points at each step (3, draws, 200, 2)."""
    return torch.from_numpy(np.random.default_rng(1).normal(size=(len(STEPS), draws, 200, 2)).astype("f"))


@pytest.mark.parametrize("key", ["mean", "variance", "snr", "kl"])
@pytest.mark.parametrize("i", range(len(STEPS)), ids=STEPS)
def test_the_band_of_a_statistic_holds_95_percent_of_its_dots(theory, key, i):
    """The dots are those of many draws of noise for the same data. P(below 90 % or above 99.7 %) < 1e-3."""
    scheduler, data, expected = theory
    draws = 100 if key == "kl" else 300
    x_0 = torch.from_numpy(data.points).expand(draws, -1, -1)
    states = scheduler.add_noise(x_0, torch.tensor(STEPS[i]), drawn_noise(draws)[i]).numpy()
    found = measured_statistics(data.points, states)[key]
    # The estimate of the KL is biased. Its band shows the scatter of the dots around their own mean, and the band's
    # width is itself measured, on 25 draws.
    centre = found.mean() if key == "kl" else expected[key][i]
    least = 0.8 if key == "kl" else 0.9
    inside = np.abs(found - centre) <= 1.96 * expected[f"{key}_sd"][i]
    assert least <= inside.mean() <= 0.997


# ---------------------------------------------------------------- the clock of a process


def clock_of(schedule):
    return clock(np.concatenate([[1.0], make_scheduler(schedule, 1000).alphas_cumprod.numpy()]))


LINEAR_CLOCK = clock_of("linear")


def test_the_clock_falls_at_every_step():
    assert (np.diff(LINEAR_CLOCK) < 0).all()


def test_the_clock_is_the_log_snr_where_there_is_something_to_see():
    log_snr = make_scheduler("linear", 1000).log_snr.numpy()
    seen = (log_snr >= LOG_SNR_MIN) & (log_snr <= LOG_SNR_MAX)
    both = seen[1:] & seen[:-1]
    assert np.allclose(np.diff(LINEAR_CLOCK[1:])[both], np.diff(log_snr)[both])


def test_the_clock_gives_little_time_to_noise_levels_that_look_alike():
    # The log-SNR of the cosine schedule falls by three times as much as that of the linear one.
    assert np.ptp(clock_of("cosine")) < 1.2 * np.ptp(LINEAR_CLOCK)


def test_steps_can_be_chosen_evenly_on_the_clock():
    chosen = evenly_on(LINEAR_CLOCK, 6)
    assert chosen[0] == 0
    assert chosen[-1] == 1000
    assert np.abs(np.diff(LINEAR_CLOCK[chosen]) - np.ptp(LINEAR_CLOCK) / -5).max() < 0.3


def test_of_more_steps_than_there_are_all_are_chosen():
    assert evenly_on(LINEAR_CLOCK, 5000) == list(range(1001))


def test_of_two_steps_the_first_and_the_last_are_chosen_on_a_rising_clock():
    assert evenly_on(-LINEAR_CLOCK[::-1], 2) == [0, 1000]


# ---------------------------------------------------------------- formats and styles


@pytest.fixture(scope="module")
def three_formats(tmp_path_factory):
    """The path that saving a picture of 5,000 points in three formats returns."""
    style.use("light")
    sheet = stills.scatter(np.random.default_rng(0).normal(size=(5000, 2)), "a title that can be searched")
    return stills.save(sheet, tmp_path_factory.mktemp("formats") / "a.png", ["svg", "pdf", "png"])


def test_the_first_format_is_returned(three_formats):
    assert three_formats.name == "a.svg"


def test_every_format_is_written(three_formats):
    assert {path.name for path in three_formats.parent.iterdir()} == {"a.svg", "a.pdf", "a.png"}


def test_letters_of_an_svg_are_text(three_formats):
    assert "a title that can be searched" in three_formats.read_text()


def test_points_of_an_svg_are_pixels(three_formats):
    assert len(three_formats.read_text()) < 200_000


def test_a_pdf_is_a_pdf(three_formats):
    assert three_formats.with_suffix(".pdf").read_bytes()[:4] == b"%PDF"


def losses_picture():
    return learning.losses({"a": curve(0.2)[0]}, {"a": EXCESS})


GRID = np.stack(np.meshgrid(np.linspace(-2, 2, 9), np.linspace(-2, 2, 9)), -1)


def score_fields_picture():
    field = {"x": np.linspace(-2, 2, 9), "y": np.linspace(-2, 2, 9), "step": 3, "sigma": 0.5}
    field |= {"log_density": -(GRID**2).sum(-1) / 2, "network": -1.1 * GRID, "exact": -GRID}
    return learning.score_fields([field])


def samples_picture():
    points, labels = GRID.reshape(-1, 2), np.arange(81) % 2
    return stills.samples(points, points, labels, labels, ["a", "b"])


def images_picture():
    return image_grids.beside_real(np.zeros((4, 1, 8, 8)), np.zeros((4, 1, 8, 8)))


@pytest.mark.parametrize(("name", "ground"), [("light", 1.0), ("dark", 0.07)])
@pytest.mark.parametrize("make", [losses_picture, score_fields_picture, samples_picture, images_picture])
def test_a_picture_has_the_ground_of_its_style_and_readable_letters(make, name, ground, tmp_path):
    style.use(name)
    try:
        picture = imread(stills.save(make(), tmp_path / "a.png"))[..., :3]
        assert picture[:3, :3].mean() == pytest.approx(ground, abs=0.02)
        assert np.abs(picture.mean(-1) - ground).max() > 0.6
    finally:
        style.use("light")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """The folder `outputs` of main.py with two formats and the dark style."""
    folder = tmp_path_factory.mktemp("stills")
    line = "main.py --save-plots --no-rerun num_samples=60 num_timesteps=20 figures=png,pdf style=dark"
    done = command(line, folder)
    assert done.returncode == 0, done.stderr
    return folder / "outputs"


@pytest.mark.slow
def test_the_command_writes_every_picture_in_every_format_asked_for(outputs):
    names = {path.name for path in outputs.iterdir()}
    assert names == {f"{name}.{kind}" for name in ("forward", "schedule", "statistics") for kind in ("png", "pdf")}


@pytest.mark.slow
def test_the_command_draws_in_the_style_asked_for(outputs):
    assert imread(outputs / "forward.png")[:3, :3, :3].mean() < 0.1


def test_an_unknown_format_is_refused(tmp_path):
    done = command("main.py figures=gif", tmp_path)
    assert done.returncode == 1
    assert "figures must be one of png, pdf, svg" in done.stderr


# ---------------------------------------------------------------- labels and guidance

LABELS = np.arange(60) % 2


@pytest.fixture(scope="module")
def guided_sheet():
    """Generated points with labels and guidance, beside real points without labels."""
    style.use("light")
    points = np.random.default_rng(0).normal(size=(60, 2))
    return stills.samples(points, points, LABELS, None, ["cat", "dog"], "guidance 2")


def test_the_title_of_generated_points_names_the_guidance(guided_sheet):
    generated, real = guided_sheet.axes
    assert "guidance 2" in generated.get_title()
    assert "guidance" not in real.get_title()


def test_the_legend_names_the_labels(guided_sheet):
    assert [text.get_text() for text in guided_sheet.legends[0].get_texts()] == ["label cat", "label dog"]


def test_points_of_each_label_have_a_colour_of_their_own(guided_sheet):
    generated, _ = guided_sheet.axes
    drawn = generated.collections[0].get_facecolor()
    assert len(np.unique(drawn[LABELS == 0], axis=0)) == len(np.unique(drawn[LABELS == 1], axis=0)) == 1
    assert not np.array_equal(drawn[0], drawn[1])


def test_points_without_labels_have_one_colour(guided_sheet):
    _, real = guided_sheet.axes
    assert len(np.unique(real.collections[0].get_facecolor(), axis=0)) == 1


@pytest.mark.parametrize(
    ("sampling", "words"),
    [
        ({"sampler": "ddim", "guidance": 0.5}, "guidance 0.5"),
        ({"autoguidance": 2.0, "guidance_interval": [0.2, 3]}, "autoguidance 2 at sigma/alpha 0.2 .. 3"),
        ({"guidance_interval": [0.2, 3]}, ""),
        ({}, ""),
    ],
)
def test_guidance_in_words(sampling, words):
    assert SamplingOptions(**sampling).guidance_text == words


@pytest.mark.parametrize("shape", [(3.0, 0.75), (4.0, 1.0), (0.5, 2.0), (1.0, 1.0), (0.2, 1.5)])
def test_points_fill_the_frame_of_samples(shape):
    """A line of text once had white above and below it, and wide margins at its sides."""
    points = np.random.default_rng(0).uniform(0, 1, (4000, 2)) * shape
    figure = stills.samples(points, points)
    figure.draw_without_rendering()
    inches = figure.get_size_inches()
    drawn = sum(ax.get_position().width * ax.get_position().height for ax in figure.axes)
    assert drawn > 0.5, "of the picture is within frames"
    assert inches.max() <= 9.1
    left, right = figure.axes[0].get_xlim()
    bottom, top = figure.axes[0].get_ylim()
    assert shape[0] * shape[1] / ((right - left) * (top - bottom)) > 0.45
