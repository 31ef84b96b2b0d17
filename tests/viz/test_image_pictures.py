"""Pictures of images: every tile stands where it should, films run in order, recordings hold what was drawn."""

import warnings

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from rerun.chunk import RrdReader

from rerun_viz import log_scene
from tests.viz.test_recordings import column
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
    """4 states of 12 grey images of 8x8, from noise to a tile of one grey each."""
    rng = np.random.default_rng(0)
    clean = np.broadcast_to(np.linspace(-1, 1, 12)[:, None, None, None], (12, 1, 8, 8))
    share = (STEPS / 50)[:, None, None, None, None]
    return Process("reverse", ((1 - share) * clean + share * rng.normal(size=(4, 12, 1, 8, 8))).astype("f"), STEPS)


@pytest.mark.parametrize(
    ("count", "labels", "shape"),
    [(100, 0, (10, 10)), (64, 0, (8, 8)), (100, 10, (10, 10)), (100, 1, (10, 10)), (100, 2, (10, 10)), (1, 0, (1, 1)),
     (7, 3, (3, 3)), (30, 26, (26, 2))],
)  # fmt: skip
def test_every_image_has_one_cell_and_every_row_one_label(count, labels, shape):
    of = np.arange(count) % labels if labels else None
    grid = arranged(count, of, [f"class {i}" for i in range(labels)])
    assert grid.cells.shape == shape
    assert sorted(grid.cells[grid.cells >= 0].tolist()) == list(range(count))
    if not labels:
        assert grid.names == []
        return
    for row, name in zip(grid.cells, grid.names):
        assert {f"class {of[i]}" for i in row if i >= 0} == {name}


def test_pixels_are_the_images_bytes():
    grey = pixels(np.array([[-1.0, 0.0], [1.0, 7.0]])[None])
    assert grey.tolist() == [[[0], [128]], [[255], [255]]]
    assert pixels(np.zeros((5, 3, 4, 6))).shape == (5, 4, 6, 3)
    assert pixels(np.zeros((5, 2, 4, 6))).shape == pixels(np.zeros((5, 7, 4, 6))).shape == (5, 4, 6, 3)
    byte = np.arange(256).reshape(1, 16, 16)
    assert np.array_equal(pixels(byte / 127.5 - 1)[..., 0], byte[0])  # what images.sets makes of bytes comes back


@pytest.mark.parametrize(("images", "words"), [(np.full((1, 4, 4), np.nan), "NaN"), (np.zeros((4, 4)), "C, H, W")])
def test_what_is_no_image_is_refused(images, words):
    with pytest.raises(ValueError, match=words):
        pixels(images)


def test_tiles_become_larger_without_blur_or_smaller():
    tiles = np.arange(2 * 8 * 8, dtype=np.uint8).reshape(2, 8, 8, 1)
    large = scaled(tiles, 44)
    assert large.shape == (2, 40, 40, 1) and np.array_equal(large[:, ::5, ::5], tiles)
    assert np.array_equal(large[:, 4::5, 4::5], tiles)
    assert scaled(np.zeros((3, 256, 200, 3), np.uint8), 44).shape == (3, 43, 34, 3)


def test_tiles_stand_in_their_cells():
    tiles = np.arange(1, 4, dtype=np.uint8)[:, None, None, None] * np.ones((3, 2, 2, 1), np.uint8)
    whole = tiled(tiles, np.array([[2, 0], [1, -1]]), 1, (9,))[..., 0]
    assert whole.shape == (7, 7)
    assert (whole[1:3, 1:3] == 3).all() and (whole[1:3, 4:6] == 1).all() and (whole[4:6, 1:3] == 2).all()
    assert (whole[4:6, 4:6] == 9).all() and (whole[0] == 9).all() and (whole[:, 3] == 9).all()


# ---------------------------------------------------------------- stills


def drawn(figure, path):
    figure.savefig(path, dpi=image_grids.DPI)
    return np.asarray(Image.open(path).convert("RGB"))


def box(picture):
    """The part of a sheet that holds tiles: what the ground colour encloses."""
    rows, columns = np.nonzero((picture == GROUND).all(-1))
    return picture[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def test_a_sheet_shows_every_pixel_as_it_is(process, tmp_path):
    images = process.states[-1]
    sheet = drawn(image_grids.samples(images, np.arange(12) % 3, ["cat", "dog", "horse"]), tmp_path / "a.png")
    grid = arranged(12, np.arange(12) % 3, ["cat", "dog", "horse"])
    assert np.array_equal(box(sheet), image_grids.grid_picture(images, grid))
    before = box(drawn(image_grids.samples(images, None, []), tmp_path / "b.png"))
    assert np.array_equal(before, image_grids.grid_picture(images, arranged(12)))


@pytest.mark.parametrize(
    "title", ["short", "a title that is much wider than the one little tile below it\nand a second line"]
)
def test_a_title_fits_into_its_picture(title, tmp_path):
    sheet = drawn(image_grids.table(np.zeros((1, 1, 1, 8, 8)), title, ["row"], ["column"]), tmp_path / "a.png")
    assert (sheet[:, -4:] > 250).all() and (sheet[:4] > 250).all() and (sheet[:, :2] > 250).all()


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
        assert box.x0 >= 5 and box.x1 <= figure.bbox.x1 and box.y0 >= 0 and box.y1 <= figure.bbox.y1, text


def test_a_long_title_is_broken_rather_than_half_of_the_sheet_left_empty():
    title = "reverse: noise to images of the label at the left, guidance 0.35, and so on and on and on\nsecond"
    sheet = image_grids.Sheet(np.zeros((400, 400, 3), np.uint8), title)
    lines = sheet.title.get_text().split("\n")
    assert " ".join(lines) == title.replace("\n", " ") and lines[-1] == "second" and len(lines) == 3
    assert sheet.figure.bbox.width < 1.3 * 400


# ---------------------------------------------------------------- films


def test_a_film_shows_the_states_in_order_and_holds_the_last(process, tmp_path):
    labels = np.arange(12) % 2
    scene = Scene([process], labels=labels, classes=["a", "b"])
    with Image.open(films.animate(scene, tmp_path / "a.gif")) as film:
        assert film.n_frames == 4
        for i, state in enumerate(process.states):
            film.seek(i)
            grid = arranged(12, labels, ["a", "b"])
            wanted = image_grids.grid_picture(state, grid, 60).astype(int)
            # a palette of few colours, some of them for letters and ground
            assert np.abs(box_of(np.asarray(film.convert("RGB")).astype(int), wanted.shape) - wanted).mean() < 6
        assert film.info["duration"] == 1000 * HELD_S


def box_of(picture, shape):
    """The tiles, at the lower edge: 14 pixels from it, and as far from the left as the names are long."""
    left = 14 + max(image_grids._width(name, image_grids.NAME) for name in "ab")
    return picture[-14 - shape[0] : -14, left : left + shape[1]]


def test_films_of_many_large_images_stay_small(tmp_path):
    noise = np.random.default_rng(0).normal(size=(60, 100, 1, 28, 28)).astype("f")
    path = films.animate(Scene([Process("forward", noise, np.arange(60))]), tmp_path / "a.gif")
    assert path.stat().st_size < 3_000_000
    with Image.open(path) as film:
        assert 40 < film.n_frames <= 51 and max(film.size) < 700


# ---------------------------------------------------------------- recordings


@pytest.mark.parametrize("channels", [1, 3])
def test_a_recording_holds_the_grids_on_both_clocks(process, channels, tmp_path):
    states = np.repeat(process.states, channels, 2)
    guesses, labels, classes = -states, np.arange(12) % 3, ["cat", "dog", "horse"]
    grid = arranged(12, labels, classes)
    scene = Scene(
        [Process("reverse", states, STEPS)],
        alpha_bar=np.linspace(1, 0, 51),
        guesses=(states, guesses),
        loss=Loss(np.array([10.0, 20.0]), np.array([0.5, 0.3]), None),
        labels=labels,
        classes=classes,
    )
    path = tmp_path / "a.rrd"
    with recording("test", path, "file") as rec:
        log_scene(scene, rec=rec)
    gap = round(GAP_SHARE * 8)
    for entity, images in (("/reverse/x_t", states), ("/reverse/x_0", guesses)):
        for clock, order in (("step", [0, 1, 2, 3]), ("t", [3, 2, 1, 0])):
            steps, buffers = column(path, entity, "Image:buffer", clock)
            assert steps.tolist() == sorted([0, 30, 45, 50] if clock == "step" else STEPS)
            for i, (buffer,) in zip(order, buffers):
                height, width = (n * (8 + gap) + gap for n in grid.cells.shape)
                picture = np.array(buffer, np.uint8).reshape(height, width, channels)
                assert np.array_equal(picture[gap : gap + 8, gap : gap + 8], pixels(images[i, grid.cells[0, 0]]))
                assert np.array_equal(picture[-gap - 8 : -gap, -gap - 8 : -gap], pixels(images[i, grid.cells[-1, -1]]))
    steps, noise = column(path, "/schedule/noise", "Scalars:scalars")
    assert steps.tolist() == [0, 30, 45, 50] and noise[0][0] == 1 and noise[-1][0] == 0
    entities = {str(chunk.entity_path) for chunk in RrdReader(path).stream()}
    assert {"/loss", "/about", "/now", "/reverse/x_t/names"} <= entities


# ---------------------------------------------------------------- training grids


def test_without_a_display_one_line_says_so(capsys, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert denoising_grids.window() is None
    said = capsys.readouterr().out
    assert len(said.splitlines()) == 1 and "viz_save=true" in said


def test_a_window_shows_the_newest_grid_until_it_is_closed(monkeypatch):
    import matplotlib.pyplot as plt

    opened = []
    monkeypatch.setattr(plt, "get_backend", lambda: "TkAgg")
    monkeypatch.setattr(plt, "show", lambda block: opened.append(block))
    show = denoising_grids.window()
    for grey in (10, 20):
        show(np.full((40, 60, 3), grey, np.uint8))
    figure = plt.gcf()
    assert figure.axes[0].images[0].get_array().max() == 20 and opened == [False]
    plt.close(figure)
    show(np.zeros((40, 60, 3), np.uint8))
    assert figure.axes[0].images[0].get_array().max() == 20


def test_the_network_and_all_random_numbers_stay_as_they_were():
    from dataset import Normaliser
    from pipeline import Pipeline, build

    config = {
        "schedule": "cosine", "num_timesteps": 20, "beta_start": None, "beta_end": None,
        "model": {"name": "unet_small", "channels": [8, 8], "blocks": 1, "patch": 1, "heads": 1, "attention_size": 0,
                  "conditioning": "embedding", "prediction": "v"},
    }  # fmt: skip
    net, scheduler = build(config, (1, 8, 8), 3)
    pipeline = Pipeline(
        net.train(), scheduler, Normaliser(torch.zeros(1, 8, 8), torch.ones(1, 8, 8)), config, ["a"] * 3
    )
    before = torch.get_rng_state(), {k: v.clone() for k, v in net.state_dict().items()}
    states = denoising_grids.denoised(
        pipeline, torch.randn(4, 1, 8, 8, generator=torch.Generator()), torch.zeros(4, dtype=torch.int64), [19, 7, 0]
    )
    assert [state.step for state in states] == [20, 8, 1, 0] and net.training
    assert torch.equal(before[0], torch.get_rng_state())
    assert all(torch.equal(before[1][k], v) for k, v in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters()) and float(states[-1].x_t.abs().max()) <= 1 + 1e-5
