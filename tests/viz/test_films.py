"""Films of points: length, size, what each picture shows, and the commands that write them."""

import shutil
import subprocess
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import command
from PIL import Image

from dataset import Normaliser, make_dataset
from pipeline import Pipeline
from viz.colours import NOISE_STOPS
from viz.films import animate, beside, check_options
from viz.films import point_film as points
from viz.films.film_files import write
from viz.films.film_moments import between, playing
from viz.films.image_film import how_many
from viz.films.trajectory import load_scene, save_scene
from viz.replay import _aspect
from viz.scene import HELD_S, LASTS_S, Process, Scene
from viz.turning import seen

LIMIT = 1_000_000  # bytes


@pytest.fixture(scope="module")
def scene():
    """2,000 points, which move between a circle and noise in both directions."""
    rng, steps = np.random.default_rng(0), np.linspace(0, 1000, 101).astype(int)
    angle = rng.uniform(0, 2 * np.pi, 2000)
    data = np.stack([np.cos(angle), np.sin(angle)], 1).astype("f")
    share = steps[:, None, None] / 1000
    states = ((1 - share) * data + share * rng.normal(size=data.shape)).astype("f")
    return Scene([Process("forward", states, steps), Process("reverse", states[::-1], steps[::-1])], data=data)


def pictures(path):
    """The pictures of a film, and for each how many milliseconds it stays."""
    with Image.open(path) as film:
        for i in range(film.n_frames):
            film.seek(i)
            yield np.asarray(film.convert("RGB")).astype(int), film.info["duration"]


def has(picture, colour):
    return int((np.abs(picture - colour).max(-1) <= 24).sum()) > 100


# ---------------------------------------------------------------- a whole film


@pytest.fixture(scope="module")
def path(scene, tmp_path_factory):
    return animate(scene, tmp_path_factory.mktemp("film") / "a.gif")


@pytest.fixture(scope="module")
def film(path):
    return list(pictures(path))


@pytest.mark.slow
def test_a_film_is_a_small_file(path):
    assert path.stat().st_size < LIMIT


@pytest.mark.slow
def test_a_film_has_fifteen_pictures_for_each_second(film):
    assert len(film) == 15 * LASTS_S + 1
    assert {duration for _, duration in film[:-1]} == {60, 70}  # the clock of a GIF counts hundredths


@pytest.mark.slow
def test_a_film_lasts_as_long_as_promised(film):
    assert sum(duration for _, duration in film) == 1000 * (LASTS_S + HELD_S)


@pytest.mark.slow
def test_the_last_picture_of_a_film_is_held(film):
    assert film[-1][1] == pytest.approx(1000 * HELD_S, abs=10)


@pytest.mark.slow
def test_every_picture_of_a_film_has_the_same_size(film):
    assert {picture.shape for picture, _ in film} == {(417, 720, 3)}


GREEN, RED = NOISE_STOPS[0], NOISE_STOPS[-1]  # the colours of no noise and of noise
LEFT, RIGHT = np.s_[:, :360], np.s_[:, 360:]  # the panels of the forward and of the reverse process


@pytest.mark.slow
def test_the_forward_process_begins_without_noise(film):
    first, _ = film[0]
    assert has(first[LEFT], GREEN)
    assert not has(first[LEFT], RED)


@pytest.mark.slow
def test_the_reverse_process_begins_with_noise(film):
    first, _ = film[0]
    assert has(first[RIGHT], RED)


@pytest.mark.slow
def test_the_forward_process_ends_with_noise_and_the_reverse_process_without(film):
    last, _ = film[-1]
    assert has(last[LEFT], RED)
    assert has(last[RIGHT], GREEN)


@pytest.mark.slow
def test_no_picture_of_a_film_is_blank(film):
    assert all(picture.std() > 10 for picture, _ in film)


@pytest.mark.slow
def test_every_picture_of_a_film_differs_from_the_next(film):
    assert all(np.any(one[0] != other[0]) for one, other in pairwise(film))


@pytest.fixture(scope="module")
def turning_film(tmp_path_factory):
    """A film of one process with few states in three dimensions."""
    states = np.random.default_rng(0).normal(size=(3, 50, 3))
    path = tmp_path_factory.mktemp("turning") / "a.gif"
    return list(pictures(animate(Scene([Process("forward", states, np.arange(3))]), path)))


@pytest.mark.slow
def test_a_film_in_three_dimensions_turns_while_the_last_state_is_held(turning_film):
    assert len(turning_film) == 15 * (LASTS_S + HELD_S)


@pytest.mark.slow
def test_every_picture_of_a_film_in_three_dimensions_differs_from_the_next(turning_film):
    assert all(np.any(one[0] != other[0]) for one, other in pairwise(turning_film))


def test_a_film_of_nan_is_refused_and_leaves_no_file(tmp_path):
    with pytest.raises(ValueError, match="NaN"):
        animate(Scene([Process("forward", np.full((2, 5, 2), np.nan), np.arange(2))]), tmp_path / "a.gif")
    assert not list(tmp_path.iterdir())


def test_mp4_without_ffmpeg_is_refused_in_one_sentence(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda program: None)
    with pytest.raises(ValueError, match=r"ffmpeg.*animation=gif"):
        check_options("mp4", of_images=False)


def test_a_film_without_ffmpeg_names_the_option_that_animate_has(few, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda program: None)
    with pytest.raises(ValueError, match=r"a.mp4 needs the program ffmpeg.*--out \S*a.gif") as error:
        animate(few, tmp_path / "a.mp4")
    assert "animation=" not in str(error.value)


LARGE = points.LOOKS[".mp4"]
SCALED_DOWN = LARGE._replace(dpi=LARGE.dpi // 10)  # the same film with a hundredth of the pixels
GIF = points.LOOKS[".gif"]


def test_an_mp4_of_points_has_1920_by_1080_pixels(scene):
    assert points.painter(points.panels_of(scene), LARGE)(5.0).shape == (1080, 1920, 3)


def test_an_mp4_has_30_pictures_for_each_second():
    assert LARGE.frames_per_s == 30


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="needs ffmpeg and ffprobe")
def test_an_mp4_has_a_picture_for_every_moment(scene, tmp_path):
    film = points.frames(points.panels_of(scene), SCALED_DOWN._replace(frames_per_s=3))
    path = write(film, tmp_path / "a.mp4", 3)
    assert path.read_bytes()[4:8] == b"ftyp"
    asked = "-v error -count_frames -show_entries stream=width,height,r_frame_rate,nb_read_frames -of csv=p=0"
    said = subprocess.run(["ffprobe", *asked.split(), str(path)], capture_output=True, text=True, check=True).stdout
    assert said.strip() == f"192,108,3/1,{3 * round(LASTS_S + HELD_S)}"


# ---------------------------------------------------------------- the parts of a picture


def test_points_move_evenly_between_two_states(scene):
    forward, _ = scene.processes
    seconds = scene.seconds(forward)
    middle = between(seconds, forward.states, float(seconds[40:42].mean()))
    assert np.allclose(middle, forward.states[40:42].mean(0), atol=1e-5)


def test_points_stay_at_the_last_state(scene):
    forward, _ = scene.processes
    assert np.array_equal(between(scene.seconds(forward), forward.states, 99.0), forward.states[-1])


def test_points_of_a_single_state_do_not_move(scene):
    forward, _ = scene.processes
    assert np.array_equal(between(scene.seconds(forward)[:1], forward.states[:1], 3.0), forward.states[0])


def axes_at(scene, second, look=SCALED_DOWN):
    """The axes of both panels of a film at this second."""
    panels = points.panels_of(scene)
    _, axes = points._stage(panels, look)
    for ax, panel in zip(axes, panels):
        for move in points._movers(ax, panel, look):
            move(second)
    return axes


@pytest.fixture(scope="module")
def forward_axes(scene):
    """The panel of the forward process after 5 seconds."""
    return axes_at(scene, 5.0)[0]


@pytest.fixture(scope="module")
def tail_pieces(forward_axes):
    """The pieces of all tails: for each piece its two ends and a gap (TAILS, 3, 2)."""
    return [tail.get_xydata().reshape(-1, 3, 2) for tail in forward_axes.lines]


def test_every_tail_has_as_many_pieces(tail_pieces):
    assert len(tail_pieces) == points.PIECES
    assert len(tail_pieces[0]) == points.TAILS


def test_the_first_piece_of_a_tail_begins_at_its_point(forward_axes, tail_pieces):
    heads = forward_axes.collections[1].get_offsets()[: points.TAILS]
    assert np.allclose(tail_pieces[0][:, 0], heads)


def test_each_piece_of_a_tail_begins_where_the_one_before_ends(tail_pieces):
    assert all(np.allclose(one[:, 1], other[:, 0]) for one, other in pairwise(tail_pieces))


def test_tails_of_different_points_are_not_connected(tail_pieces):
    assert np.isnan(tail_pieces[0][:, 2]).all()


def test_tails_fade_out(forward_axes):
    assert np.diff([tail.get_alpha() for tail in forward_axes.lines]).max() < 0


@pytest.fixture(scope="module")
def rings(scene):
    """The positions of all groups of two points, in the forward and in the reverse panel, with known predictions."""
    _, reverse = scene.processes
    predictions = np.full((101, 2, 2), [0.5, -0.25], "f")
    axes = axes_at(scene._replace(predictions=(reverse.states[:, [3, 5]], predictions)), 5.0, GIF)
    return [[c.get_offsets() for c in ax.collections if len(c.get_offsets()) == 2] for ax in axes]


def test_rings_of_the_reverse_process_are_at_the_predictions_of_x_0(rings):
    _, reverse = rings
    assert np.allclose(reverse[-1], [0.5, -0.25])


def test_the_forward_process_has_no_rings(rings):
    forward, _ = rings
    assert not any(np.allclose(each, [0.5, -0.25]) for each in forward)


@pytest.mark.parametrize(("second", "noise"), [(0.0, (0, 1)), (LASTS_S, (1, 0))])
def test_the_length_of_the_bar_is_the_amount_of_noise(scene, second, noise):
    axes = axes_at(scene._replace(alpha_bar=np.linspace(1, 0, 1001)), second)
    for ax, expected in zip(axes, noise):
        assert np.isclose(ax.patches[-1].get_width(), points.BAR * expected)


# ---------------------------------------------------------------- two samplers side by side


@pytest.fixture(scope="module")
def few(scene):
    """The same scene with three states in each direction."""
    return scene._replace(processes=[p._replace(states=p.states[::50], steps=p.steps[::50]) for p in scene.processes])


@pytest.mark.slow
def test_the_command_shows_two_trajectories_side_by_side(few, tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        save_scene(few, tmp_path / name / "t.npz")
    done = command("scripts/animate.py one/t.npz other/t.npz --style dark --out both.gif", tmp_path)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "both.gif") as film:
        assert film.size == (720, 417)
        assert film.n_frames == 15 * LASTS_S + 1


def test_a_trajectory_without_a_reverse_process_is_not_shown_beside_others(few, tmp_path):
    with pytest.raises(ValueError, match="holds no reverse process"):
        beside({"a": few._replace(processes=few.processes[:1])}, tmp_path / "a.gif")


def test_trajectories_in_two_and_three_dimensions_are_not_shown_side_by_side(few, tmp_path):
    deep = few._replace(processes=[p._replace(states=p.states.repeat(2, 2)[..., :3]) for p in few.processes])
    with pytest.raises(ValueError, match="two and of three"):
        beside({"a": few, "b": deep}, tmp_path / "a.gif")


# ---------------------------------------------------------------- the commands


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """The folder `outputs` of main.py after it has written a film and a trajectory."""
    folder = tmp_path_factory.mktemp("commands")
    done = command("main.py num_samples=80 viz_steps=6 --no-rerun --animation gif --save-trajectory", folder)
    assert done.returncode == 0, done.stderr
    return folder / "outputs"


@pytest.mark.slow
def test_the_command_leaves_a_film_and_a_trajectory(outputs):
    assert {p.name for p in outputs.iterdir()} == {"forward.gif", "trajectory.npz"}


@pytest.mark.slow
def test_the_film_of_the_command_moves_between_its_few_states(outputs):
    assert len(list(pictures(outputs / "forward.gif"))) == 15 * LASTS_S + 1


@pytest.mark.slow
def test_the_script_makes_the_same_film_from_the_trajectory(outputs):
    done = command("scripts/animate.py outputs/trajectory.npz --out again.gif", outputs.parent)
    assert done.returncode == 0, done.stderr
    assert (outputs.parent / "again.gif").read_bytes() == (outputs / "forward.gif").read_bytes()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("main.py animation=webm", "animation must be one of none, gif, mp4"),
        ("scripts/animate.py damaged.npz", "damaged.npz is no trajectory.npz"),
        ("scripts/animate.py other.npz", "holds neither"),
        ("scripts/animate.py other.npz other.npz", "need as many names, all different"),
    ],
)
def test_a_mistake_is_answered_in_one_line(line, words, tmp_path):
    (tmp_path / "damaged.npz").write_bytes(b"PK\x03\x04 but not really")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    done = command(line, tmp_path)
    assert done.returncode == 1 and words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


# ---------------------------------------------------------------- moments and labels


@pytest.fixture
def hasty_scene():
    """A scene whose first states follow each other at once, because no difference between them can be seen."""
    alpha_bar = np.array([1.0, 0.5, 1e-6, 1e-7])
    return Scene([Process("reverse", np.zeros((4, 5, 2)), np.array([3, 2, 1, 0]))], alpha_bar=alpha_bar)


def test_a_film_begins_with_the_first_state_although_the_next_one_follows_at_once(hasty_scene):
    (process,) = hasty_scene.processes
    assert hasty_scene.seconds(process)[1] < 0.2
    assert playing(hasty_scene, process, 0.0) == 0


def test_a_state_is_shown_from_its_own_second_on(hasty_scene):
    (process,) = hasty_scene.processes
    assert playing(hasty_scene, process, hasty_scene.seconds(process)[1]) == 1


def test_without_a_schedule_states_are_shown_evenly_in_steps(few):
    assert np.allclose(few.seconds(few.processes[0]), [0, LASTS_S / 2, LASTS_S])


def texts_of(axes):
    """Everything that is written in a panel and around it."""
    legend = axes.get_legend()
    named = legend.get_texts() if legend else []
    texts = [*axes.texts, axes.title, axes.xaxis.label, *axes.get_xticklabels(), *axes.get_yticklabels(), *named]
    return [text for text in texts if text.get_text()]


def test_letters_of_a_gif_have_fourteen_pixels_at_least(few):
    _, reverse = few.processes
    predictions = (reverse.states[:, [3, 5]], reverse.states[:, [3, 5]])
    scene = few._replace(predictions=predictions, labels=LABELS, classes=["cat", "dog"])
    for axes in axes_at(scene, 5.0, GIF):
        assert min(text.get_fontsize() for text in texts_of(axes)) * GIF.dpi / 72 >= 14


def test_words_of_a_film_are_in_ink(few):
    _, reverse = few.processes
    scene = few._replace(predictions=(reverse.states[:, [3, 5]], reverse.states[:, [3, 5]]))
    assert {text.get_color() for axes in axes_at(scene, 5.0, GIF) for text in texts_of(axes)} == {"black"}


LABELS = np.arange(2000) % 2


@pytest.fixture(scope="module")
def labelled(scene):
    """The scene of a guided conditional model."""
    return scene._replace(labels=LABELS, classes=["cat", "dog"], guidance_text="guidance 2")


def test_the_reverse_panel_of_a_conditional_model_has_a_legend_and_names_the_guidance(labelled):
    _, (_, reverse) = points._stage(points.panels_of(labelled), GIF)
    assert [text.get_text() for text in reverse.get_legend().get_texts()] == ["label cat", "label dog"]
    assert "guidance 2" in reverse.get_title()


def test_the_forward_panel_of_a_conditional_model_has_neither_legend_nor_guidance(labelled):
    _, (forward, _) = points._stage(points.panels_of(labelled), GIF)
    assert forward.get_legend() is None
    assert "guidance" not in forward.get_title()


def test_points_of_each_label_have_a_marker_of_their_own(labelled):
    groups = points._groups(labelled, "reverse", 600)
    assert len({marker for marker, _ in groups}) == 2
    assert [np.array_equal(LABELS[rows], np.full(len(rows), k)) for k, (_, rows) in enumerate(groups)] == [True, True]


def test_points_of_the_forward_process_have_one_marker(labelled):
    assert len(points._groups(labelled, "forward", 600)) == 1


# ---------------------------------------------------------------- turning


@pytest.fixture(scope="module")
def cloud():
    """50 points in space, the first of them on the axis."""
    cloud = np.random.default_rng(0).normal(size=(50, 3))
    cloud[0] = [0, 0, 2]
    return cloud


def test_points_in_space_come_back_after_a_whole_turn(cloud):
    assert np.allclose(seen(cloud, 0), seen(cloud, 2 * np.pi))


def test_points_in_space_move_in_a_quarter_turn(cloud):
    assert np.abs(seen(cloud, 0) - seen(cloud, np.pi / 2)).max() > 0.5


def test_a_point_on_the_axis_does_not_move(cloud):
    assert np.allclose(seen(cloud, 0)[0], seen(cloud, np.pi / 2)[0])


def test_a_quarter_turn_moves_what_is_behind_to_the_left(cloud):
    assert np.allclose(seen(cloud, np.pi / 2)[:, 0], -cloud[:, 1])


def test_points_in_the_plane_do_not_turn(cloud):
    assert np.array_equal(seen(cloud[:, :2], 1.0), cloud[:, :2])


@pytest.mark.parametrize(
    ("count", "pixels", "kinds", "shown"),
    [(100, 28**2, 1, 76), (100, 28**2, 10, 70), (100, 28**2, 3, 75), (100, 64, 10, 100), (7, 28**2, 10, 7)],
)
def test_a_film_of_images_shows_as_many_of_each_kind_as_fit(count, pixels, kinds, shown):
    assert how_many(count, pixels, kinds) == shown


# ---------------------------------------------------------------- sets that are much wider than high


@pytest.mark.parametrize("look", ["gif", "mp4"])
def test_a_set_four_times_as_wide_as_high_is_drawn_so(scene, look):
    wide = scene._replace(aspect=0.25)
    figure, axes = points._stage(points.panels_of(wide), points.LOOKS[f".{look}"])
    figure.draw_without_rendering()
    boxes = [ax.get_window_extent() for ax in axes]
    for box in boxes:
        assert box.width / box.height == pytest.approx(4, rel=0.02)
        assert box.width > 0.7 * figure.bbox.width  # it fills its frame
    assert boxes[0].y0 > boxes[1].y1  # one above the other


def test_a_trajectory_keeps_how_wide_its_set_is(scene, tmp_path):
    path = save_scene(scene._replace(aspect=0.25), tmp_path / "trajectory.npz")
    assert load_scene(path).aspect == 0.25


def test_a_trajectory_with_an_impossible_aspect_is_refused(scene, tmp_path):
    path = save_scene(scene._replace(aspect=float("nan")), tmp_path / "trajectory.npz")
    with pytest.raises(ValueError, match=r"is no trajectory\.npz"):
        load_scene(path)


@pytest.mark.parametrize(("name", "is_one"), [("text", False), ("moons", True)])
def test_only_sets_much_wider_than_high_keep_their_shape(name, is_one):
    options = {"text": "HELLO", "noise": 1.0} if name == "text" else {"noise": 0.05}
    data = make_dataset(name, 500, 0, **options)
    normaliser = Normaliser.fit_dataset(data)
    pipeline = Pipeline(torch.nn.Identity(), None, normaliser, {})
    assert (_aspect(pipeline) == 1) == is_one
