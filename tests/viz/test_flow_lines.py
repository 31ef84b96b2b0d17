"""Flow lines: they are the sampler's own paths, coloured by where they end, whole within the picture."""

import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from conf.config import Inference
from conf.inference_modes import chosen_mode
from dataset import Normaliser, PointSet, make_dataset
from pipeline import Pipeline, build
from runtime.randomness import generator
from samplers.options import SamplingOptions
from viz import flow, flow_lines, light
from viz.colours import LIGHTS
from viz.films.film_files import write
from viz.films.film_moments import between
from viz.flow_line_pictures import DEFAULTS, check_noiseless, save_flow_lines
from viz.scene import HELD_S, LASTS_S

MLP = {"name": "mlp", "hidden": 16, "layers": 1, "frequencies": 0, "prediction": "v"}
PROCESS = {"schedule": "linear", "num_timesteps": 60, "beta_start": None, "beta_end": None}


def pipeline(**dataset):
    """A network that has learnt nothing, with everything around it."""
    torch.manual_seed(0)
    data = make_dataset(n_samples=500, seed=0, **dataset)
    config = {"model": MLP, "dataset": dataset, "seed": 0, **PROCESS}
    net, scheduler = build(config, data.points.shape[1:])
    return Pipeline(net.eval(), scheduler, Normaliser.of(data), config)


def lines_of(network, count=40, **sampling):
    return flow_lines.flow_lines(network, count, 3, None, network.resolve(SamplingOptions(**sampling), DEFAULTS))


@pytest.mark.parametrize("name", ["moons", "helix"])
def test_lines_end_where_the_sampler_ends(name):
    network = pipeline(name=name, noise=0.05)
    lines = lines_of(network, sampler="dpmpp_2m", sampling_steps=12)
    *_, end = network.states(40, SamplingOptions(sampler="dpmpp_2m", sampling_steps=12, guidance=0.0), seed=3)
    assert np.array_equal(lines.paths[-1], network.data_units(end.x_t).numpy())
    assert lines.paths.shape == (13, 40, len(network.normaliser.mean))
    for clock in (lines.seconds, lines.way, -lines.noise):
        assert (np.diff(clock) > 0).all()
    assert lines.seconds[[0, -1]].tolist() == [0, LASTS_S] and lines.way[[0, -1]].tolist() == [0, 1]
    assert lines.noise[-1] == 0


def test_a_moon_is_the_one_that_the_posterior_believes_in():
    real = make_dataset("moons", 300, 0, noise=0.3)  # wide enough for doubt
    found, parts, _ = flow_lines.reached(real.points, real)
    size = len(real.parts[0].centres)
    for point, part in zip(torch.from_numpy(real.points), found):
        first = real.mixture.posterior(point, 1, flow_lines.SOFTENED).weights[:size].sum()
        assert part == int(first < 0.5)
    assert parts == 2 and 0 < found.mean() < 1


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_a_position_is_that_along_the_curve(noise):
    real = make_dataset("swiss_roll", 10, 0, noise=noise)
    ends, centre = real.mixture.sample_parts(200, generator(0, "test"))
    found, parts, _ = flow_lines.reached(ends.numpy(), real)
    assert parts == 1
    assert np.abs(found - real.mixture.weights.cumsum(0)[centre].numpy()).max() < 0.01


def test_points_of_a_file_are_ordered_along_their_widest_direction():
    along = np.random.default_rng(0).permutation(101)
    points = (along[:, None] * [3.0, 4.0] + [[0.01, 0]]).astype("f")
    found, parts, _ = flow_lines.reached(points, PointSet(points))
    assert parts == 1
    assert np.allclose(found, along / 100) or np.allclose(found, 1 - along / 100)


def test_labels_are_the_colours_of_a_conditional_model():
    network = pipeline(name="moons", noise=0.05)
    network.net, _ = build(network.config, (2,), 2)
    network.classes = ["0", "1"]
    labels = network.labels(None, 6)
    sampling = network.resolve(SamplingOptions(guidance=2.0, sampling_steps=5), DEFAULTS)
    lines = flow_lines.flow_lines(network, 6, 0, labels, sampling)
    assert np.allclose(flow.colours_of(lines), LIGHTS[[0, 1, 0, 1, 0, 1]] ** 1.5)
    assert "guidance 2" in lines.title and "labels" in lines.what


@pytest.mark.parametrize("size", flow.SIZES.values())
@pytest.mark.parametrize("name", ["moons", "helix", "text"])
def test_nothing_is_drawn_outside_of_the_picture_and_it_is_filled(name, size):
    options = {"noise": 0.6, "text": "HELLO"} if name == "text" else {"noise": 0.05}
    at = flow.placed(lines_of(pipeline(name=name, **options), sampling_steps=8), size)
    low, high = at.min((0, 1)), at.max((0, 1))
    edge = flow.MARGIN * size[1]
    assert (low >= edge - 1e-6).all() and high[0] <= size[0] - edge + 1e-6
    assert high[1] <= (1 - flow.BELOW) * size[1] + 1e-6
    room = np.array([size[0] - 2 * edge, size[1] * (1 - flow.MARGIN - flow.BELOW)])
    assert np.isclose(((high - low) / room).max(), 1)


def test_a_wide_picture_has_noise_and_data_at_two_sides_and_a_square_one_does_not():
    lines = lines_of(pipeline(name="moons", noise=0.05), sampling_steps=8)
    wide, square = (flow.placed(lines, size) for size in flow.SIZES.values())
    assert np.median(wide[0, :, 0]) < 0.45 * 1920 < 0.55 * 1920 < np.median(wide[-1, :, 0])
    step = np.diff(square, axis=0)[..., 0].mean(1)
    scale = np.ptp(square[0, :, 0]) / np.ptp(lines.paths[0, :, 0])
    assert np.allclose(step, scale * np.diff(lines.paths, axis=0)[..., 0].mean(1), atol=1e-3)


def test_the_exact_denoiser_goes_from_the_same_noise_and_ends_in_the_data():
    network = pipeline(name="moons", noise=0.05)
    sampling = network.resolve(SamplingOptions(sampling_steps=40), DEFAULTS)
    lines = flow_lines.flow_lines(network, 200, 3, None, sampling)
    left, right = flow_lines.beside_exact(network, lines, 3, None, sampling)
    assert np.array_equal(left.paths, lines.paths) and np.allclose(left.paths[0], right.paths[0], atol=1e-6)
    real = make_dataset("moons", 200, 0, noise=0.05).mixture
    own, exact = (float(real.log_density(torch.from_numpy(end.paths[-1]).double()).mean()) for end in (left, right))
    assert abs(exact - float(real.log_density(real.sample(200, generator(0, "test"))).mean())) < 0.4 < exact - own
    apart = np.median(np.linalg.norm(left.paths[-1] - right.paths[-1], axis=1))
    assert f"within {apart:.2g} of" in right.title


def test_where_there_is_no_exact_denoiser_nothing_stands_beside(tmp_path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(50, 2)))
    network = pipeline(name="file", path=str(tmp_path / "a.npy"))
    sampling = network.resolve(SamplingOptions(sampling_steps=4), DEFAULTS)
    lines = flow_lines.flow_lines(network, 5, 0, None, sampling)
    assert flow_lines.beside_exact(network, lines, 0, None, sampling) is None
    moons = pipeline(name="moons", noise=0.05)
    assert flow_lines.beside_exact(moons, lines, 0, None, replace(sampling, autoguidance=1.0)) is None


# ---------------------------------------------------------------- films


@pytest.mark.parametrize("size", flow.SIZES.values())
def test_a_camera_keeps_everything_in_the_picture_all_around(size):
    lines = lines_of(pipeline(name="helix", noise=0.05), sampling_steps=8)
    place = flow.camera(lines, size, flow.TURNS)
    at = np.stack([place(turn) for turn in np.linspace(0, 2 * np.pi, 50)])
    room = 0.02 * size[1]  # between the turns that it knows
    assert at.min() > flow.MARGIN * size[1] - room
    assert (
        at.max((0, 1, 2)) < np.array([size[0], (1 - flow.BELOW) * size[1]]) + [-flow.MARGIN * size[1] + room, room]
    ).all()
    assert np.abs(place(1.0) - place(2.0)).max() > 0.1 * size[1] and np.allclose(place(0), place(2 * np.pi))


def test_lines_in_three_dimensions_turn_until_the_end():
    lines = lines_of(pipeline(name="helix", noise=0.05), count=25, sampling_steps=20)
    film = list(flow.frames(lines, (96, 96), 2))
    assert [stays for _, stays in film] == [1] * round(2 * (LASTS_S + HELD_S))
    drawn = [int((picture[:85] - light.GROUND).sum()) for picture, _ in film]  # without the words and the bar
    assert drawn[20] > 1.05 * drawn[0]
    assert np.abs(film[-1][0][:85].astype(int) - film[-2][0][:85]).max() > 30  # nothing grows any more


@pytest.fixture(scope="module")
def moons():
    return lines_of(pipeline(name="moons", noise=0.05), count=25, sampling_steps=20)


def test_a_film_grows_from_the_noise_to_the_samples(moons):
    assert np.array_equal(between(moons.seconds, moons.paths, 0), moons.paths[0])
    assert np.array_equal(between(moons.seconds, moons.paths, LASTS_S), moons.paths[-1])
    middle = moons.seconds[3:5].mean()
    assert np.allclose(between(moons.seconds, moons.paths, middle), moons.paths[3:5].mean(0), atol=1e-5)
    film = list(flow.frames(moons, (96, 54), 5))
    assert [stays for _, stays in film] == [1] * round(5 * LASTS_S) + [round(5 * HELD_S)]
    drawn = [int((picture[:48] - light.GROUND).sum()) for picture, _ in film]  # without the words and the bar
    assert np.diff(drawn).min() > -0.05 * drawn[-1]  # heads that meet are less bright than two
    assert drawn[-1] > 1.2 * drawn[0]


def test_a_gif_is_as_long_and_as_large_as_promised(moons, tmp_path):
    with Image.open(flow.save_film(moons, (192, 108), tmp_path / "a.gif")) as film:
        assert film.size == (64, 36) and film.n_frames == 10 * LASTS_S + 1
        total = 0
        for i in range(film.n_frames):
            film.seek(i)
            total += film.info["duration"]
    assert total == 1000 * (LASTS_S + HELD_S)


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="needs ffmpeg and ffprobe")
def test_an_mp4_is_as_long_and_as_large_as_promised(moons, tmp_path):
    path = flow.save_film(moons, (192, 108), tmp_path / "a.mp4")
    asked = [
        "ffprobe",
        "-v",
        "error",
        "-count_frames",
        "-show_entries",
        "stream=width,height,r_frame_rate,nb_read_frames",
    ]
    said = subprocess.run([*asked, "-of", "csv=p=0", str(path)], capture_output=True, text=True, check=True).stdout
    assert said.strip() == f"192,108,30/1,{30 * round(LASTS_S + HELD_S)}"


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
def test_a_film_that_ffmpeg_cannot_write_is_one_sentence_and_no_file(tmp_path):
    with pytest.raises(OSError, match=r"ffmpeg could not write .*a\.mp4"):
        write([(np.zeros((0, 2, 3), np.uint8), 1)], tmp_path / "a.mp4", 30)
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- light


def test_light_is_neither_lost_nor_made():
    page = light.dark(40, 60)
    light.drop(page, np.array([[20.3, 10.7], [31.0, 5.5]]), np.array([[1, 0.5, 0.25], [2, 0, 0]]))
    assert np.allclose(page.sum((0, 1)), [3, 0.5, 0.25], atol=1e-5)
    centre = (page[..., 1] * np.arange(60)).sum() / 0.5, (page[..., 1] * np.arange(40)[:, None]).sum() / 0.5
    assert np.allclose(centre, [19.8, 10.2], atol=1e-4)  # a pixel's middle is half a pixel into it
    page = light.dark(40, 60)
    light.stroke(page, np.array([[10.0, 10.0]]), np.array([[40.0, 30.0]]), np.array([[1, 0, 2.0]]))
    assert np.allclose(page.sum((0, 1)), np.hypot(30, 20) * np.array([1, 0, 2]), rtol=1e-4)
    light.stroke(page, np.array([[-30.0, -1.0]]), np.array([[-2.0, -20.0]]), np.ones((1, 3)))
    assert np.allclose(page.sum((0, 1)), np.hypot(30, 20) * np.array([1, 0, 2]), rtol=1e-4)  # outside: lost


def test_more_light_is_brighter_and_none_is_the_ground():
    assert (light.developed(light.dark(8, 8)) == light.GROUND.astype(int)).all()
    ramp = np.linspace(0, 5, 64, dtype=np.float32)[None, :, None].repeat(8, 0).repeat(3, 2)
    shown = light.developed(ramp).astype(int)
    assert (np.diff(shown, axis=1) >= 0).all() and shown.max() > 245


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sampler": "ddpm"}, "without fresh noise.*ddim"),
        ({"sampler": "dpmpp_2m_sde"}, "without fresh noise"),
        ({"eta": 0.5}, "leave out eta"),
        ({"track_samples": [0], "save_trajectory": True}, "leave out track_samples and save_trajectory"),
        ({"observe": "y=0.2"}, "observe and flow are two things"),
    ],
)
def test_what_flow_lines_would_have_to_ignore_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        chosen_mode(Inference(flow=True, **options))
        check_noiseless(SamplingOptions(sampler=options.get("sampler"), eta=options.get("eta", 0.0)))


def test_flow_lines_are_of_points_that_can_be_seen(tmp_path):
    with pytest.raises(ValueError, match="points of 2 or 3 coordinates"):
        save_flow_lines(
            pipeline(name="moons", noise=0.05, embed=5),
            tmp_path,
            10,
            SamplingOptions(),
            0,
            ["png"],
            labels=None,
            film=None,
        )
    assert not list(tmp_path.iterdir())
