"""Films: as many pictures as promised, small, readable, and not blank."""

import shutil
import subprocess
from itertools import pairwise

import numpy as np
import pytest
from conftest import command
from PIL import Image

from viz.colours import NOISE_STOPS
from viz.films import animate, beside, check_options
from viz.films import point_film as points
from viz.films.film_files import write
from viz.films.film_moments import between, playing
from viz.films.image_film import how_many
from viz.films.trajectory import load_scene, save_scene
from viz.scene import HELD_S, LASTS_S, Process, Scene
from viz.turning import seen

LIMIT = 1_000_000  # bytes


@pytest.fixture
def scene():
    rng, steps = np.random.default_rng(0), np.linspace(0, 1000, 101).astype(int)
    angle = rng.uniform(0, 2 * np.pi, 2000)
    data = np.stack([np.cos(angle), np.sin(angle)], 1).astype("f")
    share = steps[:, None, None] / 1000
    states = ((1 - share) * data + share * rng.normal(size=data.shape)).astype("f")
    return Scene([Process("forward", states, steps), Process("reverse", states[::-1], steps[::-1])], data=data)


def pictures(path):
    with Image.open(path) as film:
        for i in range(film.n_frames):
            film.seek(i)
            yield np.asarray(film.convert("RGB")).astype(int), film.info["duration"]


def has(picture, colour):
    return int((np.abs(picture - colour).max(-1) <= 24).sum()) > 100


def test_a_film_is_small_and_shows_both_processes(scene, tmp_path):
    path = animate(scene, tmp_path / "a.gif")
    assert path.stat().st_size < LIMIT
    film = list(pictures(path))
    assert len(film) == 10 * LASTS_S + 1 and sum(duration for _, duration in film) == 1000 * (LASTS_S + HELD_S)
    assert {picture.shape for picture, _ in film} == {(280, 480, 3)}
    assert film[-1][1] == 1000 * HELD_S and film[0][1] == 100
    (first, _), (last, _) = film[0], film[-1]
    green, red, middle = NOISE_STOPS[0], NOISE_STOPS[-1], 240
    assert has(first[:, :middle], green) and has(first[:, middle:], red)  # forward clean, reverse noise
    assert has(last[:, :middle], red) and has(last[:, middle:], green)
    assert not has(first[:, :middle], red)
    assert all(picture.std() > 10 for picture, _ in film)
    assert all(np.any(one[0] != other[0]) for one, other in pairwise(film))


def test_one_process_of_few_states_in_three_dimensions(tmp_path):
    states = np.random.default_rng(0).normal(size=(3, 50, 3))
    path = animate(Scene([Process("forward", states, np.arange(3))]), tmp_path / "a.gif")
    film = list(pictures(path))
    assert len(film) == 10 * (LASTS_S + HELD_S)  # it turns all the time
    assert all(np.any(one[0] != other[0]) for one, other in pairwise(film))


def test_a_trajectory_comes_back_from_its_file(scene, tmp_path):
    again = load_scene(save_scene(scene, tmp_path / "t.npz"))
    assert np.array_equal(again.data, scene.data)
    for one, other in zip(scene.processes, again.processes):
        assert one.side == other.side
        assert np.array_equal(one.states, other.states) and np.array_equal(one.steps, other.steps)


def test_a_trajectory_with_the_former_names_is_read(scene, tmp_path):
    forward = scene.processes[0]
    np.savez(tmp_path / "t.npz", forward=forward.states, forward_noisings=forward.steps)
    (again,) = load_scene(tmp_path / "t.npz").processes
    assert again.side == "forward" and np.array_equal(again.steps, forward.steps)


def test_nan_is_refused(tmp_path):
    with pytest.raises(ValueError, match="NaN"):
        animate(Scene([Process("forward", np.full((2, 5, 2), np.nan), np.arange(2))]), tmp_path / "a.gif")
    assert not list(tmp_path.iterdir())


def test_mp4_without_ffmpeg_is_refused_in_one_sentence(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda program: None)
    with pytest.raises(ValueError, match=r"ffmpeg.*animation=gif"):
        check_options("mp4", of_images=False)


LARGE = points.LOOKS[".mp4"]
SCALED_DOWN = LARGE._replace(dpi=LARGE.dpi // 10)  # the same film with a hundredth of the pixels


def test_an_mp4_of_points_has_1920_by_1080_pixels(scene):
    assert points.painter(points.panels_of(scene), LARGE)(5.0).shape == (1080, 1920, 3)


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="needs ffmpeg and ffprobe")
def test_an_mp4_has_a_picture_for_every_moment(scene, tmp_path):
    assert LARGE.frames_per_s == 30
    film = points.frames(points.panels_of(scene), SCALED_DOWN._replace(frames_per_s=3))
    path = write(film, tmp_path / "a.mp4", 3)
    assert path.read_bytes()[4:8] == b"ftyp"
    asked = "-v error -count_frames -show_entries stream=width,height,r_frame_rate,nb_read_frames -of csv=p=0"
    said = subprocess.run(["ffprobe", *asked.split(), str(path)], capture_output=True, text=True, check=True).stdout
    assert said.strip() == f"192,108,3/1,{3 * round(LASTS_S + HELD_S)}"


def test_points_move_evenly_between_two_states_and_drag_tails_behind_them(scene):
    forward, _ = panels = points.panels_of(scene)
    seconds = scene.seconds(forward.process)
    middle = between(seconds, forward.process.states, float(seconds[40:42].mean()))
    assert np.allclose(middle, forward.process.states[40:42].mean(0), atol=1e-5)
    assert np.array_equal(between(seconds, forward.process.states, 99.0), forward.process.states[-1])
    assert np.array_equal(between(seconds[:1], forward.process.states[:1], 3.0), forward.process.states[0])
    _, axes = points._stage(panels, SCALED_DOWN)
    for move in points._movers(axes[0], forward, SCALED_DOWN):
        move(5.0)
    tails, heads = axes[0].lines, axes[0].collections[1].get_offsets()[: points.TAILS]
    pieces = [tail.get_xydata().reshape(-1, 3, 2) for tail in tails]
    assert len(pieces) == points.PIECES and len(pieces[0]) == points.TAILS
    assert np.allclose(pieces[0][:, 0], heads)  # the first piece begins at the point,
    assert all(np.allclose(one[:, 1], other[:, 0]) for one, other in pairwise(pieces))  # the next where it ends
    assert np.isnan(pieces[0][:, 2]).all()
    assert np.diff([tail.get_alpha() for tail in tails]).max() < 0


def test_rings_are_where_the_network_believes_that_samples_will_end(scene, tmp_path):
    _, reverse = scene.processes
    guessed = reverse.states[:, [3, 5]], np.full((101, 2, 2), [0.5, -0.25], "f")
    known = scene._replace(guesses=guessed)
    again = load_scene(save_scene(known, tmp_path / "t.npz"))
    assert all(np.array_equal(one, other) for one, other in zip(again.guesses, guessed))
    _, axes = points._stage(panels := points.panels_of(again), SCALED_DOWN)
    for ax, panel in zip(axes, panels):
        for move in points._movers(ax, panel, points.LOOKS[".gif"]):
            move(5.0)
    forward, reverse = ([c.get_offsets() for c in ax.collections if len(c.get_offsets()) == 2] for ax in axes)
    assert not any(np.allclose(rings, [0.5, -0.25]) for rings in forward)
    assert np.allclose(reverse[-1], [0.5, -0.25])


def test_a_bar_is_as_long_as_there_is_noise(scene):
    known = scene._replace(alpha_bar=np.linspace(1, 0, 1001))
    panels = points.panels_of(known)
    _, axes = points._stage(panels, SCALED_DOWN)
    for second, forward, reverse in ((0.0, 0, 1), (LASTS_S, 1, 0)):
        for ax, panel, noise in zip(axes, panels, (forward, reverse)):
            for move in points._movers(ax, panel, SCALED_DOWN):
                move(second)
            assert np.isclose(ax.patches[-1].get_width(), points.BAR * noise)


def test_two_samplers_side_by_side(scene, tmp_path):
    few = scene._replace(processes=[p._replace(states=p.states[::50], steps=p.steps[::50]) for p in scene.processes])
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        save_scene(few, tmp_path / name / "t.npz")
    done = command("scripts/animate.py one/t.npz other/t.npz --style dark --out both.gif", tmp_path)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "both.gif") as film:
        assert film.size == (480, 280) and film.n_frames == 3
    with pytest.raises(ValueError, match="holds no reverse process"):
        beside({"a": few._replace(processes=few.processes[:1])}, tmp_path / "a.gif")
    with pytest.raises(ValueError, match="two and of three"):
        deep = few._replace(processes=[p._replace(states=p.states.repeat(2, 2)[..., :3]) for p in few.processes])
        beside({"a": few, "b": deep}, tmp_path / "a.gif")


def test_the_commands(tmp_path):
    done = command("main.py num_samples=80 viz_steps=6 --no-rerun --animation gif --save-trajectory", tmp_path)
    assert done.returncode == 0, done.stderr
    outputs = tmp_path / "outputs"
    assert {p.name for p in outputs.iterdir()} == {"forward.gif", "trajectory.npz"}
    assert len(list(pictures(outputs / "forward.gif"))) == 6
    done = command("scripts/animate.py outputs/trajectory.npz --out again.gif", tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "again.gif").read_bytes() == (outputs / "forward.gif").read_bytes()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("main.py animation=webm", "animation must be one of none, gif, mp4"),
        ("scripts/animate.py nowhere.npz", "there is no nowhere.npz"),
        ("scripts/animate.py damaged.npz", "damaged.npz is no trajectory.npz"),
        ("scripts/animate.py other.npz", "holds neither"),
        ("scripts/animate.py other.npz other.npz", "need as many names, all different"),
    ],
)
def test_mistakes(line, words, tmp_path):
    (tmp_path / "damaged.npz").write_bytes(b"PK\x03\x04 but not really")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    done = command(line, tmp_path)
    assert done.returncode == 1 and words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_a_film_begins_with_the_first_state_although_the_next_ones_follow_at_once():
    alpha_bar = np.array([1.0, 0.5, 1e-6, 1e-7])  # so little is left at the end that nobody can see the last two differ
    process = Process("reverse", np.zeros((4, 5, 2)), np.array([3, 2, 1, 0]))
    scene = Scene([process], alpha_bar=alpha_bar)
    assert scene.seconds(process)[1] < 0.2 and playing(scene, process, 0.0) == 0
    assert playing(scene, process, scene.seconds(process)[1]) == 1


def test_frames_are_drawn_from_first_to_last(scene):
    few = scene._replace(processes=[p._replace(states=p.states[::50], steps=p.steps[::50]) for p in scene.processes])
    film = points.frames(points.panels_of(few), points.LOOKS[".gif"])
    assert [stays for _, stays in film] == [50, 50, 20]  # even in steps: no schedule is known


def test_samples_of_a_conditional_model_have_markers_and_a_title_that_say_so(scene):
    labels = np.arange(2000) % 2
    named = scene._replace(labels=labels, classes=["cat", "dog"], steered="guidance 2")
    _, (forward, reverse) = points._stage(points.panels_of(named), points.LOOKS[".gif"])
    assert forward.get_legend() is None and "guidance" not in forward.get_title()
    assert [text.get_text() for text in reverse.get_legend().get_texts()] == ["label cat", "label dog"]
    assert "guidance 2" in reverse.get_title()
    groups = points._groups(named, "reverse", 600)
    assert len({marker for marker, _ in groups}) == 2
    assert [np.array_equal(labels[rows], np.full(len(rows), k)) for k, (_, rows) in enumerate(groups)] == [True, True]
    assert len(points._groups(named, "forward", 600)) == 1


def test_points_in_three_dimensions_turn_and_come_back():
    cloud = np.random.default_rng(0).normal(size=(50, 3))
    cloud[0] = [0, 0, 2]  # on the axis: it stays where it is
    start, quarter, end = (seen(cloud, turn) for turn in (0, np.pi / 2, 2 * np.pi))
    assert np.allclose(start, end) and np.abs(start - quarter).max() > 0.5
    assert np.allclose(start[0], quarter[0])
    assert np.allclose(quarter[:, 0], -cloud[:, 1])  # what was away is now at the left
    assert np.array_equal(seen(cloud[:, :2], 1.0), cloud[:, :2])


def test_the_trajectory_of_labelled_samples_comes_back(scene, tmp_path):
    named = scene._replace(
        labels=np.arange(2000) % 2, classes=["cat", "dog"], steered="guidance 2", alpha_bar=np.linspace(1, 0, 1001)
    )
    again = load_scene(save_scene(named, tmp_path / "t.npz"))
    assert np.array_equal(again.labels, named.labels) and list(again.classes) == named.classes
    assert again.steered == "guidance 2" and np.array_equal(again.alpha_bar, named.alpha_bar)


def test_a_film_of_images_shows_as_many_of_each_kind_as_fit():
    assert [how_many(100, 28**2, kinds) for kinds in (1, 10, 3)] == [76, 70, 75]
    assert how_many(100, 64, 10) == 100 and how_many(7, 28**2, 10) == 7
