"""Grids of images: the places of tiles, stills, films, recordings, and the grids during a training."""

import io
import sys
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from conftest import column
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from rerun.chunk import RrdReader
from tqdm import tqdm

from dataset import Normaliser
from pipeline import Pipeline, build
from rerun_viz import log_scene
from training import denoising_grids
from viz import films, image_grids
from viz.colours import GROUND
from viz.image_grids import arranged, pixels, scaled, tiled
from viz.recording.image_panel import GAP_SHARE
from viz.scene import HELD_S, Loss, Process, Scene
from viz.viewer import recording

STEPS = np.array([50, 20, 5, 0])


@pytest.fixture
def process():
    """Four states of 12 grey images of 8x8 pixels, from noise to one grey for each image."""
    rng = np.random.default_rng(0)
    clean = np.broadcast_to(np.linspace(-1, 1, 12)[:, None, None, None], (12, 1, 8, 8))
    share = (STEPS / 50)[:, None, None, None, None]
    return Process("reverse", ((1 - share) * clean + share * rng.normal(size=(4, 12, 1, 8, 8))).astype("f"), STEPS)


# The number of images, the number of classes (0: no labels), and the rows and columns of the grid.
SHAPES = [
    (100, 0, (10, 10)),
    (64, 0, (8, 8)),
    (100, 10, (10, 10)),
    (100, 1, (10, 10)),
    (100, 2, (10, 10)),
    (1, 0, (1, 1)),
    (7, 3, (3, 3)),
    (30, 26, (26, 2)),
]
every_shape = pytest.mark.parametrize(("count", "classes", "shape"), SHAPES)


def grid_of(count, classes):
    """The grid of so many images whose labels take turns, and the labels."""
    labels = np.arange(count) % classes if classes else None
    return arranged(count, labels, [f"class {i}" for i in range(classes)]), labels


@every_shape
def test_a_grid_has_the_shape_that_suits_its_images(count, classes, shape):
    grid, _ = grid_of(count, classes)
    assert grid.cells.shape == shape


@every_shape
def test_every_image_has_one_cell(count, classes, shape):
    grid, _ = grid_of(count, classes)
    assert sorted(grid.cells[grid.cells >= 0].tolist()) == list(range(count))


@pytest.mark.parametrize(("count", "classes"), [(count, classes) for count, classes, _ in SHAPES if classes])
def test_every_row_of_a_grid_has_one_label(count, classes):
    grid, labels = grid_of(count, classes)
    for row, name in zip(grid.cells, grid.names):
        assert {f"class {labels[i]}" for i in row if i >= 0} == {name}


@pytest.mark.parametrize("count", [count for count, classes, _ in SHAPES if not classes])
def test_rows_of_images_without_labels_have_no_names(count):
    grid, _ = grid_of(count, 0)
    assert grid.names == []


# ---------------------------------------------------------------- pixels and tiles


def test_values_from_minus_1_to_1_become_bytes_and_values_beyond_are_clipped():
    assert pixels(np.array([[-1.0, 0.0], [1.0, 7.0]])[None]).tolist() == [[[0], [128]], [[255], [255]]]


@pytest.mark.parametrize("channels", [2, 3, 7])
def test_images_of_several_channels_are_shown_with_three(channels):
    assert pixels(np.zeros((5, channels, 4, 6))).shape == (5, 4, 6, 3)


def test_every_byte_comes_back_from_the_value_that_an_image_set_gives_it():
    byte = np.arange(256).reshape(1, 16, 16)
    assert np.array_equal(pixels(byte / 127.5 - 1)[..., 0], byte[0])


@pytest.mark.parametrize(("images", "words"), [(np.full((1, 4, 4), np.nan), "NaN"), (np.zeros((4, 4)), "C, H, W")])
def test_an_array_that_is_no_image_is_refused(images, words):
    with pytest.raises(ValueError, match=words):
        pixels(images)


def test_small_tiles_are_enlarged_without_blur():
    tiles = np.arange(2 * 8 * 8, dtype=np.uint8).reshape(2, 8, 8, 1)
    large = scaled(tiles, 44)
    assert large.shape == (2, 40, 40, 1)
    assert np.array_equal(large[:, ::5, ::5], tiles)
    assert np.array_equal(large[:, 4::5, 4::5], tiles)


def test_large_tiles_are_reduced():
    assert scaled(np.zeros((3, 256, 200, 3), np.uint8), 44).shape == (3, 43, 34, 3)


@pytest.fixture(scope="module")
def four_cells():
    """Three tiles of 2x2 pixels with the values 1, 2, 3 in four cells, with gaps of one pixel and the value 9."""
    tiles = np.arange(1, 4, dtype=np.uint8)[:, None, None, None] * np.ones((3, 2, 2, 1), np.uint8)
    return tiled(tiles, np.array([[2, 0], [1, -1]]), 1, (9,))[..., 0]


def test_tiles_are_in_their_cells(four_cells):
    assert four_cells.shape == (7, 7)
    assert (four_cells[1:3, 1:3] == 3).all()
    assert (four_cells[1:3, 4:6] == 1).all()
    assert (four_cells[4:6, 1:3] == 2).all()


def test_empty_cells_and_gaps_have_the_colour_of_the_ground(four_cells):
    assert (four_cells[4:6, 4:6] == 9).all()
    assert (four_cells[0] == 9).all()
    assert (four_cells[:, 3] == 9).all()


# ---------------------------------------------------------------- stills


def drawn(figure, path):
    figure.savefig(path, dpi=image_grids.DPI)
    return np.asarray(Image.open(path).convert("RGB"))


def tiles_of_sheet(picture):
    """The part of a sheet that holds tiles: the ground colour encloses it."""
    rows, columns = np.nonzero((picture == GROUND).all(-1))
    return picture[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


@pytest.mark.parametrize(
    ("labels", "classes"), [(np.arange(12) % 3, ["cat", "dog", "horse"]), (None, [])], ids=["labels", "no labels"]
)
def test_a_sheet_shows_every_pixel_as_it_is(process, labels, classes, tmp_path):
    images = process.states[-1]
    sheet = drawn(image_grids.samples(images, labels, classes), tmp_path / "a.png")
    expected = image_grids.grid_picture(images, arranged(12, labels, classes))
    assert np.array_equal(tiles_of_sheet(sheet), expected)


@pytest.mark.parametrize(
    "title", ["short", "a title that is much wider than the one little tile below it\nand a second line"]
)
def test_a_title_fits_into_its_picture(title, tmp_path):
    sheet = drawn(image_grids.table(np.zeros((1, 1, 1, 8, 8)), title, ["row"], ["column"]), tmp_path / "a.png")
    for edge in (sheet[:, -4:], sheet[:4], sheet[:, :2]):
        assert (edge > 250).all()


@pytest.mark.parametrize(
    "name", ["dpmpp_2m_sde\nFD 111  100  99.9", "Supplemental Symbols and Pictographs", "WWWWWW", "iii"]
)
@pytest.mark.parametrize(
    "title", ["short", "images of the same noise by every sampler; FD: Frechet distance (real: 110)"]
)
def test_no_word_of_a_sheet_is_cut_off(name, title):
    figure = image_grids.table(np.zeros((2, 3, 1, 8, 8)), title, [name, "b"], ["one", "two", "three"])
    renderer = FigureCanvasAgg(figure).get_renderer()
    for text in figure.axes[0].texts + figure.texts:
        box = text.get_window_extent(renderer)
        assert box.x0 >= 5 and box.x1 <= figure.bbox.x1, text
        assert box.y0 >= 0 and box.y1 <= figure.bbox.y1, text


LONG_TITLE = "reverse: noise to images of the label at the left, guidance 0.35, and so on and on and on\nsecond"


def test_a_long_title_is_broken_into_lines():
    sheet = image_grids.Sheet(np.zeros((400, 400, 3), np.uint8), LONG_TITLE)
    lines = sheet.title.get_text().split("\n")
    assert " ".join(lines) == LONG_TITLE.replace("\n", " ")
    assert lines[-1] == "second"
    assert len(lines) == 3


def test_a_sheet_with_a_long_title_is_little_wider_than_its_tiles():
    sheet = image_grids.Sheet(np.zeros((400, 400, 3), np.uint8), LONG_TITLE)
    assert sheet.figure.bbox.width < 1.3 * 400


# ---------------------------------------------------------------- films


@pytest.fixture
def film(process, tmp_path):
    """A film of images with two labels."""
    scene = Scene([process], labels=np.arange(12) % 2, classes=["a", "b"])
    with Image.open(films.animate(scene, tmp_path / "a.gif")) as film:
        yield film


def test_a_film_of_images_shows_the_states_in_order(process, film):
    assert film.n_frames == 4
    grid = arranged(12, np.arange(12) % 2, ["a", "b"])
    for i, state in enumerate(process.states):
        film.seek(i)
        expected = image_grids.grid_picture(state, grid, 60).astype(int)
        shown = tiles_of_film(np.asarray(film.convert("RGB")).astype(int), expected.shape)
        # The palette has few colours, and some of them are for letters and ground.
        assert np.abs(shown - expected).mean() < 6


def tiles_of_film(picture, shape):
    """The tiles: 14 pixels from the lower edge, and as far from the left edge as the names are long."""
    left = 14 + max(image_grids._width(name, image_grids.NAME) for name in "ab")
    return picture[-14 - shape[0] : -14, left : left + shape[1]]


def test_a_film_of_images_holds_its_last_picture(film):
    film.seek(3)
    film.convert("RGB")
    assert film.info["duration"] == 1000 * HELD_S


@pytest.fixture(scope="module")
def film_of_noise(tmp_path_factory):
    """A film of 60 states of 100 images with 28x28 pixels, which are hard to compress."""
    noise = np.random.default_rng(0).normal(size=(60, 100, 1, 28, 28)).astype("f")
    path = tmp_path_factory.mktemp("noise") / "a.gif"
    return films.animate(Scene([Process("forward", noise, np.arange(60))]), path)


def test_a_film_of_many_large_images_is_a_small_file(film_of_noise):
    assert film_of_noise.stat().st_size < 3_000_000


def test_a_film_of_many_large_images_leaves_out_states_and_pixels(film_of_noise):
    with Image.open(film_of_noise) as film:
        assert 40 < film.n_frames <= 51
        assert max(film.size) < 700


# ---------------------------------------------------------------- recordings


@pytest.fixture(params=[1, 3], ids=["grey", "colour"])
def recorded(request, process, tmp_path):
    """A recording of grey or coloured images in three classes, and what it was made from."""
    states = np.repeat(process.states, request.param, 2)
    scene = Scene(
        [Process("reverse", states, STEPS)],
        alpha_bar=np.linspace(1, 0, 51),
        predictions=(states, -states),
        loss=Loss(np.array([10.0, 20.0]), np.array([0.5, 0.3]), None),
        labels=np.arange(12) % 3,
        classes=["cat", "dog", "horse"],
    )
    path = tmp_path / "a.rrd"
    with recording("test", path, "file") as rec:
        log_scene(scene, rec=rec)
    return path, scene


# Each clock, its times, and the states in the order of these times.
every_clock = pytest.mark.parametrize(
    ("clock", "times", "order"), [("step", [0, 30, 45, 50], [0, 1, 2, 3]), ("t", [0, 5, 20, 50], [3, 2, 1, 0])]
)


@every_clock
@pytest.mark.parametrize(("entity", "part"), [("/reverse/x_t", 0), ("/reverse/x_0", 1)])
def test_a_recording_has_the_grids_of_states_and_predictions_on_both_clocks(
    recorded, clock, times, order, entity, part
):
    path, scene = recorded
    images = scene.predictions[part]
    grid = arranged(12, scene.labels, scene.classes)
    gap = round(GAP_SHARE * 8)
    found, buffers = column(path, entity, "Image:buffer", clock)
    assert found.tolist() == times
    for i, (buffer,) in zip(order, buffers, strict=True):
        height, width = (n * (8 + gap) + gap for n in grid.cells.shape)
        picture = np.array(buffer, np.uint8).reshape(height, width, images.shape[2])
        assert np.array_equal(picture[gap : gap + 8, gap : gap + 8], pixels(images[i, grid.cells[0, 0]]))
        assert np.array_equal(picture[-gap - 8 : -gap, -gap - 8 : -gap], pixels(images[i, grid.cells[-1, -1]]))


def test_a_recording_of_images_has_the_amount_of_noise(recorded):
    path, _ = recorded
    steps, noise = column(path, "/schedule/noise", "Scalars:scalars")
    assert steps.tolist() == [0, 30, 45, 50]
    assert noise[0][0] == 1
    assert noise[-1][0] == 0


def test_a_recording_of_images_has_loss_texts_and_names(recorded):
    path, _ = recorded
    entities = {str(chunk.entity_path) for chunk in RrdReader(path).stream()}
    assert {"/loss", "/about", "/now", "/reverse/x_t/names"} <= entities


# ---------------------------------------------------------------- grids during a training


def test_without_a_display_there_is_no_window_and_one_line_says_so(capsys, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert denoising_grids.window() is None
    said = capsys.readouterr().out
    assert len(said.splitlines()) == 1
    assert "viz_save=true" in said


def test_without_a_display_nothing_is_advised_that_was_given(capsys, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    assert denoising_grids.window(saved=True) is None
    assert "viz_save=true" not in capsys.readouterr().out


def test_a_line_about_the_window_does_not_stand_on_the_line_of_a_bar(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stdout", screen)
    with tqdm(total=3, file=screen, desc="training"):
        denoising_grids.window()
    (line,) = (line for line in screen.getvalue().split("\n") if "viz_live" in line)
    assert line.split("\r")[-1].startswith("viz_live")


@pytest.fixture
def window(monkeypatch):
    """A window without a display that shows a grid of value 10 and then one of 20, with the calls that opened it."""
    opened = []
    monkeypatch.setattr(plt, "get_backend", lambda: "TkAgg")
    monkeypatch.setattr(plt, "show", lambda block: opened.append(block))
    show = denoising_grids.window()
    for grey in (10, 20):
        show(np.full((40, 60, 3), grey, np.uint8))
    figure = plt.gcf()
    yield show, figure, opened
    plt.close(figure)


def test_a_window_shows_the_newest_grid(window):
    _, figure, _ = window
    assert figure.axes[0].images[0].get_array().max() == 20


def test_a_window_is_opened_once_and_does_not_wait(window):
    _, _, opened = window
    assert opened == [False]


def test_a_closed_window_shows_no_more_grids(window):
    show, figure, _ = window
    plt.close(figure)
    show(np.zeros((40, 60, 3), np.uint8))
    assert figure.axes[0].images[0].get_array().max() == 20


@pytest.fixture
def in_training():
    """A pipeline of images whose network is being trained."""
    config = {
        "schedule": "cosine",
        "num_timesteps": 20,
        "beta_start": None,
        "beta_end": None,
        "model": {
            "name": "unet_small",
            "channels": [8, 8],
            "blocks": 1,
            "patch": 1,
            "heads": 1,
            "attention_size": 0,
            "conditioning": "embedding",
            "prediction": "v",
        },
    }
    net, scheduler = build(config, (1, 8, 8), 3)
    normaliser = Normaliser(torch.zeros(1, 8, 8), torch.ones(1, 8, 8))
    return Pipeline(net.train(), scheduler, normaliser, config, ["a"] * 3)


def denoised_grids(pipeline):
    x_T = torch.randn(4, 1, 8, 8, generator=torch.Generator())
    return denoising_grids.denoised(pipeline, x_T, torch.zeros(4, dtype=torch.int64), [19, 7, 0])


def test_grids_show_the_steps_that_are_asked_for(in_training):
    assert [state.step for state in denoised_grids(in_training)] == [20, 8, 1, 0]


def test_grids_end_on_values_of_images(in_training):
    assert float(denoised_grids(in_training)[-1].x_t.abs().max()) <= 1 + 1e-5


def test_grids_leave_the_network_in_training(in_training):
    denoised_grids(in_training)
    assert in_training.net.training


def test_grids_leave_the_global_generator_alone(in_training):
    before = torch.get_rng_state()
    denoised_grids(in_training)
    assert torch.equal(before, torch.get_rng_state())


def test_grids_leave_the_weights_and_gradients_alone(in_training):
    before = {k: v.clone() for k, v in in_training.net.state_dict().items()}
    denoised_grids(in_training)
    assert all(torch.equal(before[k], v) for k, v in in_training.net.state_dict().items())
    assert all(p.grad is None for p in in_training.net.parameters())
