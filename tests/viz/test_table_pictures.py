"""Pictures of a table: units, names of columns, labels on both sides, pair plots."""

import numpy as np
import pytest
from conftest import command

import main
from dataset import PointSet, make_dataset
from metrics.evaluation import Evaluation, real_rows_with_labels
from points.tables import Columns
from viz import evaluation_pictures, replay, stills, style
from viz.films.point_film import LOOKS, panels_of
from viz.films.point_film import _stage as stage_of_film
from viz.films.trajectory import load_scene, save_scene
from viz.pair_plots import MAX_COLUMNS
from viz.point_axes import are_units_alike, axes_in_words
from viz.point_clouds import cloud_axes
from viz.recording import point_panel
from viz.scene import Process, Scene

RNG = np.random.default_rng(0)
NAMES = ("thick_$ness$", "load", "time", "speed")
UNITS = np.array([1e-3, 1e3, 1e6, 1.0])
LABELS = np.arange(200) % 3
CLASSES = ["$a$", "_b", "c"]


def table(d, label="kind"):
    """200 points of d columns with unlike units, and their names."""
    points = RNG.normal(size=(200, d)) * UNITS[:d] + np.array([0, 0, 1.7e9, 0])[:d]
    return points, Columns(NAMES[:d], (False,) * d, label)


def drawn(figure):
    """The figure after its layout is computed."""
    style.use("light")
    figure.draw_without_rendering()
    return figure


def legend_texts(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


# ---------------------------------------------------------------- units


def share_of_panel(ax):
    """The width of the points on the screen over that of their axes, and the same of the heights."""
    offsets = ax.transData.transform(ax.collections[0].get_offsets())
    return np.ptp(offsets, 0) / [ax.bbox.width, ax.bbox.height]


def test_points_of_unlike_units_fill_their_panel():
    points, columns = table(2)
    figure = drawn(stills.samples(points, points, columns=columns))
    for ax in figure.axes:
        assert ax.bbox.width > 0.25 * figure.bbox.width
        assert ax.bbox.height > 0.4 * figure.bbox.height
        assert (share_of_panel(ax) > 0.5).all()


def test_columns_of_one_unit_keep_equal_aspect():
    points = RNG.normal(size=(200, 2)) * [1, 2]
    figure = stills.samples(points, points, columns=Columns(("east", "north")))
    assert [ax.get_aspect() for ax in figure.axes] == [1, 1]


def test_synthetic_sets_keep_equal_aspect_and_have_no_names():
    points = RNG.normal(size=(200, 2)) * [1, 8]
    figure = stills.samples(points, points)
    assert [ax.get_aspect() for ax in figure.axes] == [1, 1]
    assert [ax.get_xlabel() + ax.get_ylabel() for ax in figure.axes] == ["", ""]


@pytest.mark.parametrize(
    ("widths", "alike"), [([1, 2.9], True), ([1, 3.1], False), ([0, 1], False), ([0, 0], True), ([1e8, 2e8], True)]
)
def test_units_are_alike_where_widths_are(widths, alike):
    points = np.array([[0.0, 0.0], widths])
    assert are_units_alike(points, Columns()) == alike


def test_a_cloud_of_unlike_units_fills_its_cell():
    points, columns = table(2)
    figure = stills.Figure(figsize=(4, 4), layout="constrained")
    (ax,) = cloud_axes(figure, 1, 1, points, columns).flat
    drawn(figure)
    assert min(ax.bbox.width, ax.bbox.height) > 0.7 * figure.bbox.width


# ---------------------------------------------------------------- names


@pytest.mark.parametrize("d", [2, 3])
def test_axes_carry_the_names_of_columns_as_they_are_written(d):
    points, columns = table(d)
    figure = drawn(stills.samples(points, points, columns=columns))
    for ax in figure.axes:
        assert ax.get_xlabel().startswith(r"thick_\$ness\$")
        assert ax.get_ylabel() == "load"
    if d == 3:
        assert figure.axes[0].get_zlabel().startswith("(time") or figure.axes[0].get_zlabel().startswith("time")


def test_what_ticks_leave_out_stands_in_the_name():
    """Numbers near 1.7e9 that differ by hours: the tick texts and the name together give the numbers."""
    points = np.stack([1.7e9 + 3600 * np.arange(200.0), np.arange(200.0)], 1)
    figure = drawn(stills.samples(points, points, columns=Columns(("seconds", "y"))))
    ax = figure.axes[0]
    assert not ax.xaxis.get_offset_text().get_visible()
    texts = [text.get_text().replace("\N{MINUS SIGN}", "-") for text in ax.get_xticklabels()]
    shown = np.array([float(text) for text in texts])
    name = ax.get_xlabel().replace("\N{MINUS SIGN}", "-")
    scale = float(name.split(" / ")[1]) if " / " in name else 1
    offset = float(name.split(" - ")[1].split(")")[0]) if " - " in name else 0
    assert np.allclose(shown * scale + offset, ax.get_xticks(), rtol=1e-9, atol=100)
    assert len(set(texts)) == len(texts)
    assert max(len(text) for text in texts) <= 8


def test_how_many_points_lie_outside_stands_below_the_name():
    points, columns = table(2)
    far = points.copy()
    far[:2] += 1e6
    figure = stills.samples(far, points, columns=columns)
    assert figure.axes[0].get_xlabel().endswith("\n2 points lie outside of this picture")


def test_a_long_name_keeps_its_beginning_and_its_end():
    text = style.shortened("measured quantity\nnumber 17", 19)
    assert len(text) == 19
    assert text.startswith("measured") and text.endswith("17")
    assert style.shortened("short\nname", 19) == "short name"


def test_the_strip_names_the_columns_and_shows_the_first_two_of_four():
    states = [RNG.normal(size=(50, 4)) for _ in range(3)]
    row = stills.Moments("even in t", states, [0, 5, 10], np.array([0, 0.5, 1]))
    figure = drawn(stills.forward_strip([row], 10, table(4)[1]))
    assert figure.axes[0].get_ylabel() == "even in t\nload"
    assert "first 2 of 4" in figure.get_suptitle()


def test_axes_in_words_are_literal():
    assert axes_in_words(["$x$", "y"]) == r"\$x\$ to the right, y upwards"
    assert axes_in_words(list("abcd")) == "axes x, y, z: a, b, c, the first 3 of 4"
    assert axes_in_words([]) == ""


# ---------------------------------------------------------------- labels


def colours_by_label(ax, labels):
    colours = ax.collections[0].get_facecolor()
    return [np.unique(colours[labels == k], axis=0).tolist() for k in range(3)]


def test_both_sides_have_the_colours_of_their_labels():
    points, columns = table(2)
    real_labels = LABELS[::-1]
    left, right = stills.samples(points, points, LABELS, real_labels, CLASSES, columns=columns).axes
    assert colours_by_label(left, LABELS) == colours_by_label(right, real_labels)


def test_the_legend_has_the_name_of_the_column_and_every_label_as_it_is_written():
    points, columns = table(2, label="ki$nd$")
    figure = stills.samples(points, points, LABELS, LABELS, CLASSES, columns=columns)
    assert figure.legends[0].get_title().get_text() == r"ki\$nd\$"
    assert [text.lstrip("\u200b ") for text in legend_texts(figure)] == [r"\$a\$", "_b", "c"]


def test_fifteen_labels_have_fifteen_looks_and_keys():
    points, columns = table(2)
    labels = np.arange(200) % 15
    figure = stills.samples(points, points, labels, labels, [f"town {k}" for k in range(15)], columns=columns)
    looks = {(each.get_color(), each.get_marker()) for each in figure.legends[0].legend_handles}
    assert len(looks) == len(legend_texts(figure)) == 15


def test_the_legend_of_many_labels_says_how_many_more_there_are():
    points, columns = table(2)
    labels = np.arange(200) % 40
    figure = drawn(stills.samples(points, points, labels, labels, [f"town {k}" for k in range(40)], columns=columns))
    assert legend_texts(figure)[-1] == "and 16 more"
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.width


def test_real_rows_of_a_file_keep_their_labels():
    points = RNG.normal(size=(40, 2))
    data = PointSet(points, np.arange(40) % 3, names=CLASSES, columns=Columns(("x", "y")))
    shown, labels = real_rows_with_labels(data, 1000, seed=0)
    assert len(shown) == 40
    row_of = {tuple(point): i for i, point in enumerate(points)}
    assert labels.tolist() == [row_of[tuple(point)] % 3 for point in shown]


def test_real_points_of_an_exact_set_lie_where_their_label_says():
    data = make_dataset("moons", 100, 0, noise=0.05)
    shown, labels = real_rows_with_labels(data, 300, seed=0)
    assert shown.shape == (300, 2)
    upper = shown[labels == 0, 1].mean()
    lower = shown[labels == 1, 1].mean()
    assert upper > lower + 0.5


def test_an_evaluation_colours_the_real_side(tmp_path, monkeypatch):
    points, columns = table(2)
    figures = {}
    monkeypatch.setattr(stills, "save", lambda figure, path, formats: figures.update({path.stem: figure}))
    evaluation = Evaluation([], points, LABELS)
    evaluation_pictures.save_pictures(
        tmp_path, evaluation, points, classes=CLASSES, real_labels=LABELS, columns=columns
    )
    _, right = figures["samples"].axes
    assert len(np.unique(right.collections[0].get_facecolor(), axis=0)) == 3
    assert right.get_ylabel() == "load"


def test_real_points_of_a_file_for_inference_have_labels_and_may_be_all(tmp_path):
    (tmp_path / "a.csv").write_text("x,y,kind\n" + "".join(f"{i},{i * i},k{i % 2}\n" for i in range(20)))
    dataset = {"name": "file", "path": str(tmp_path / "a.csv"), "label": "kind"}
    real = replay.real_points(dataset, 1000, 0)
    assert len(real) == 20
    assert (real.labels == real.points[:, 0] % 2).all()
    first, second = replay.real_sets(dataset, 1000, 0)
    assert len(first) == len(second) == 10
    assert (first.labels == first.points[:, 0] % 2).all()


# ---------------------------------------------------------------- pair plots


def grid(d, **options):
    points = RNG.normal(size=(200, d)) * 10.0 ** (np.arange(d) % 5 - 2)
    columns = Columns(tuple(f"col$umn$ {i}" for i in range(d)), (False,) * d, "kind")
    return points, drawn(stills.samples(points[:100], points, columns=columns, **options))


@pytest.mark.parametrize("d", [4, *(pytest.param(d, marks=pytest.mark.slow) for d in (6, 12))])
def test_more_than_three_columns_have_a_panel_for_each_pair_of_the_first_six(d):
    _, figure = grid(d)
    assert len(figure.axes) == min(d, MAX_COLUMNS) ** 2
    assert ("the first 6 of 12" in figure.get_suptitle()) == (d == 12)
    box = figure.texts[0].get_window_extent() if figure.texts else figure._suptitle.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.width


def test_generated_points_stand_below_the_diagonal_and_real_ones_above():
    points, figure = grid(4)
    axes = np.reshape(figure.axes, (4, 4))
    for i in range(4):
        for j in range(4):
            if i == j:
                assert len(axes[i, j].patches) == 2
                continue
            shown = points[:100] if i > j else points
            assert np.allclose(axes[i, j].collections[0].get_offsets(), shown[:, [j, i]])


def test_the_outer_panels_carry_the_names():
    _, figure = grid(4)
    axes = np.reshape(figure.axes, (4, 4))
    for i in range(4):
        assert axes[3, i].get_xlabel().startswith(rf"col\$umn\$ {i}")
        assert axes[i, 0].get_ylabel().startswith(rf"col\$umn\$ {i}")
        assert axes[i, 0].get_ylim() == axes[i, 1].get_ylim() or i in (0, 1)


def test_marginals_are_shares_of_all_points_of_their_side():
    _, figure = grid(4)
    for patch in np.reshape(figure.axes, (4, 4))[1, 1].patches:
        assert patch.get_data().values.sum() == pytest.approx(1, abs=0.03)


def test_no_bin_of_rounded_values_is_empty_for_lack_of_places():
    real = np.repeat(np.arange(0, 100), 10)[:, None] * [0.1, 1, 1, 1]
    figure = stills.samples(real, real)
    filled = np.reshape(figure.axes, (4, 4))[0, 0].patches[0].get_data().values
    inner = filled[filled > 0][:-1]
    assert np.ptp(inner) < 1e-12


def test_labels_colour_both_halves_of_a_grid():
    labels = LABELS[:100]
    _, figure = grid(4, labels=labels, real_labels=LABELS, classes=CLASSES)
    axes = np.reshape(figure.axes, (4, 4))
    assert colours_by_label(axes[1, 0], labels) == colours_by_label(axes[0, 1], LABELS)
    assert legend_texts(figure)[-1] == "c"


# ---------------------------------------------------------------- films, recordings, pages, main.py


def named_scene():
    states = RNG.normal(size=(3, 30, 2)).astype(np.float32)
    process = Process("reverse", states, np.array([2, 1, 0]))
    return Scene([process], data=states[0], normalised=True, names=("$a$ *b*", "load"))


def test_a_film_names_its_axes():
    _, (ax,) = stage_of_film(panels_of(named_scene()), LOOKS[".gif"])
    assert ax.get_xlabel() == r"\$a\$ *b*, standardised"
    assert ax.get_ylabel() == "load, standardised"


def test_a_saved_trajectory_keeps_the_names(tmp_path):
    assert load_scene(save_scene(named_scene(), tmp_path / "a.npz")).names == ["$a$ *b*", "load"]


def test_the_words_of_a_recording_name_the_axes():
    sees = "\n".join(point_panel.words(named_scene()).sees)
    assert r"\$a\$ \*b\* (right), load (up)" in sees


def test_main_shows_a_table_in_units_of_its_deviations():
    points, columns = table(2)
    data = main.normalised(PointSet(points, columns=columns))
    assert np.allclose(data.points.mean(0), 0, atol=1e-4)
    assert np.allclose(data.points.std(0), 1, atol=1e-4)


@pytest.mark.slow
def test_main_of_four_columns_draws_the_strip_and_says_why_nothing_is_recorded(tmp_path):
    rows = "".join(f"{i % 7},{i * 1000},{i / 1000},{i % 5}\n" for i in range(30))
    (tmp_path / "a.csv").write_text("a,b,c,d\n" + rows)
    done = command("main.py dataset=file dataset.path=a.csv save_plots=true num_timesteps=10", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "scaled to mean 0 and standard deviation 1" in done.stdout
    assert done.stdout.count("recording: none") == 1
    assert (tmp_path / "outputs/forward.png").stat().st_size > 10_000
