"""Flow lines: the sampler's own paths, coloured by where they end, inside the picture."""

import functools
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
from points.tables import Columns
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


def untrained_pipeline(**dataset):
    """A pipeline whose network has learnt nothing."""
    torch.manual_seed(0)
    data = make_dataset(n_samples=500, seed=0, **dataset)
    config = {"model": MLP, "dataset": dataset, "seed": 0, **PROCESS}
    net, scheduler = build(config, data.points.shape[1:])
    return Pipeline(net.eval(), scheduler, Normaliser.fit_dataset(data), config)


def lines_of(network, count=40, **sampling):
    return flow_lines.flow_lines(network, count, 3, None, network.resolve(SamplingOptions(**sampling), DEFAULTS))


# ---------------------------------------------------------------- paths and colours


@functools.cache
def pipeline_and_lines(name):
    """An untrained pipeline, and the paths of 40 samples over 12 steps."""
    pipeline = untrained_pipeline(name=name, noise=0.05)
    return pipeline, lines_of(pipeline, sampler="dpmpp_2m", sampling_steps=12)


every_set = pytest.mark.parametrize("name", ["moons", "helix"])


@every_set
def test_lines_end_where_the_sampler_ends(name):
    pipeline, lines = pipeline_and_lines(name)
    *_, end = pipeline.states(40, SamplingOptions(sampler="dpmpp_2m", sampling_steps=12, guidance=0.0), seed=3)
    assert np.array_equal(lines.paths[-1], pipeline.data_units(end.x_t).numpy())


@every_set
def test_lines_have_every_state_of_every_sample(name):
    pipeline, lines = pipeline_and_lines(name)
    assert lines.paths.shape == (13, 40, len(pipeline.normaliser.mean))


@every_set
def test_along_lines_seconds_and_way_rise_and_noise_falls(name):
    _, lines = pipeline_and_lines(name)
    for clock in (lines.seconds, lines.way, -lines.noise):
        assert (np.diff(clock) > 0).all()


@every_set
def test_lines_last_as_long_as_a_film(name):
    _, lines = pipeline_and_lines(name)
    assert lines.seconds[[0, -1]].tolist() == [0, LASTS_S]


@every_set
def test_the_way_of_lines_is_from_0_to_1(name):
    _, lines = pipeline_and_lines(name)
    assert lines.way[[0, -1]].tolist() == [0, 1]


@every_set
def test_lines_end_without_noise(name):
    _, lines = pipeline_and_lines(name)
    assert lines.noise[-1] == 0


def test_the_part_of_a_point_is_that_of_larger_posterior_probability():
    real = make_dataset("moons", 300, 0, noise=0.3)  # so wide that the moons overlap
    found, parts, _ = flow_lines.reached(real.points, real)
    size = len(real.parts[0].centres)
    for point, part in zip(torch.from_numpy(real.points), found):
        first = real.mixture.posterior(point, 1, flow_lines.SOFTENED).weights[:size].sum()
        assert part == int(first < 0.5)
    assert parts == 2
    assert 0 < found.mean() < 1


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_the_position_of_a_point_is_that_along_the_curve(noise):
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


@pytest.fixture(scope="module")
def conditional_lines():
    """The paths of six samples of a guided conditional model, whose labels take turns."""
    pipeline = untrained_pipeline(name="moons", noise=0.05)
    torch.manual_seed(0)
    pipeline.net, _ = build(pipeline.config, (2,), 2)
    pipeline.classes = ["0", "1"]
    labels = pipeline.labels(None, 6)
    sampling = pipeline.resolve(SamplingOptions(guidance=2.0, sampling_steps=5), DEFAULTS)
    return flow_lines.flow_lines(pipeline, 6, 0, labels, sampling)


def test_paths_of_a_table_are_normalised_so_that_unlike_units_leave_no_sliver():
    pipeline = untrained_pipeline(name="moons", noise=0.05)
    pipeline.normaliser = Normaliser(torch.zeros(2), torch.tensor([1e-3, 1e3]))
    sampling = pipeline.resolve(SamplingOptions(sampling_steps=5), DEFAULTS)
    in_data_units = flow_lines.flow_lines(pipeline, 20, 0, None, sampling)
    pipeline.columns = Columns(("thickness", "load"))
    normalised = flow_lines.flow_lines(pipeline, 20, 0, None, sampling)
    assert np.allclose(normalised.paths * [1e-3, 1e3], in_data_units.paths, rtol=1e-4, atol=1e-5)
    widths = np.ptp(normalised.paths, (0, 1))
    assert widths.max() < 3 * widths.min()


def test_labels_are_the_colours_of_a_conditional_model(conditional_lines):
    assert np.allclose(flow.colours_of(conditional_lines), LIGHTS[[0, 1, 0, 1, 0, 1]] ** 1.5)


def test_words_about_a_conditional_model_name_guidance_and_labels(conditional_lines):
    assert "guidance 2" in conditional_lines.title
    assert "labels" in conditional_lines.what


# ---------------------------------------------------------------- places in the picture


def every_picture(test):
    """Parametrise a test by data set and size of the picture."""
    test = pytest.mark.parametrize("size", flow.SIZES.values())(test)
    return pytest.mark.parametrize("name", ["moons", "helix", "text"])(test)


def corners_of_lines(name, size):
    """The smallest and the largest coordinates (x, y) of all lines, in pixels."""
    options = {"noise": 0.6, "text": "HELLO"} if name == "text" else {"noise": 0.05}
    at = flow.placed(lines_of(untrained_pipeline(name=name, **options), sampling_steps=8), size)
    return at.min((0, 1)), at.max((0, 1))


@every_picture
def test_lines_keep_the_margins_of_the_picture(name, size):
    low, high = corners_of_lines(name, size)
    edge = flow.MARGIN * size[1]
    assert (low >= edge - 1e-6).all()
    assert high[0] <= size[0] - edge + 1e-6
    assert high[1] <= (1 - flow.below(size)) * size[1] + 1e-6


@every_picture
def test_lines_fill_the_picture_in_one_direction(name, size):
    low, high = corners_of_lines(name, size)
    available = np.array([size[0] - 2 * flow.MARGIN * size[1], size[1] * (1 - flow.MARGIN - flow.below(size))])
    assert np.isclose(((high - low) / available).max(), 1)


@pytest.fixture(scope="module")
def placed_moons():
    """The paths of moons, and their places in a wide and in a square picture."""
    lines = lines_of(untrained_pipeline(name="moons", noise=0.05), sampling_steps=8)
    wide, square = (flow.placed(lines, size) for size in flow.SIZES.values())
    return lines.paths, wide, square


def test_a_wide_picture_has_noise_at_the_left_and_data_at_the_right(placed_moons):
    _, wide, _ = placed_moons
    assert np.median(wide[0, :, 0]) < 0.45 * 1920 < 0.55 * 1920 < np.median(wide[-1, :, 0])


def test_a_square_picture_only_scales_the_paths(placed_moons):
    paths, _, square = placed_moons
    step = np.diff(square, axis=0)[..., 0].mean(1)
    scale = np.ptp(square[0, :, 0]) / np.ptp(paths[0, :, 0])
    assert np.allclose(step, scale * np.diff(paths, axis=0)[..., 0].mean(1), atol=1e-3)


# ---------------------------------------------------------------- beside the exact denoiser


@pytest.fixture(scope="module")
def beside_exact():
    """The paths of the network, and the same ones beside those of the exact denoiser."""
    pipeline = untrained_pipeline(name="moons", noise=0.05)
    sampling = pipeline.resolve(SamplingOptions(sampling_steps=40), DEFAULTS)
    lines = flow_lines.flow_lines(pipeline, 200, 3, None, sampling)
    return lines, *flow_lines.beside_exact(pipeline, lines, 3, None, sampling)


def test_the_paths_at_the_left_are_those_of_the_network(beside_exact):
    lines, left, _ = beside_exact
    assert np.array_equal(left.paths, lines.paths)


def test_the_exact_denoiser_begins_at_the_same_noise(beside_exact):
    _, left, right = beside_exact
    assert np.allclose(left.paths[0], right.paths[0], atol=1e-6)


def test_the_exact_denoiser_ends_in_the_data_and_an_untrained_network_does_not(beside_exact):
    _, left, right = beside_exact
    real = make_dataset("moons", 200, 0, noise=0.05).mixture
    own, exact = (float(real.log_density(torch.from_numpy(end.paths[-1]).double()).mean()) for end in (left, right))
    expected = float(real.log_density(real.sample(200, generator(0, "test"))).mean())
    assert abs(exact - expected) < 0.4 < exact - own


def test_the_title_says_how_far_the_ends_lie_apart(beside_exact):
    _, left, right = beside_exact
    apart = np.median(np.linalg.norm(left.paths[-1] - right.paths[-1], axis=1))
    assert f"within {apart:.2g} of" in right.title


def test_points_of_a_file_have_no_exact_denoiser_beside_them(tmp_path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(50, 2)))
    pipeline = untrained_pipeline(name="file", path=str(tmp_path / "a.npy"))
    sampling = pipeline.resolve(SamplingOptions(sampling_steps=4), DEFAULTS)
    lines = flow_lines.flow_lines(pipeline, 5, 0, None, sampling)
    assert flow_lines.beside_exact(pipeline, lines, 0, None, sampling) is None


def test_autoguidance_has_no_exact_denoiser_beside_it():
    pipeline = untrained_pipeline(name="moons", noise=0.05)
    sampling = pipeline.resolve(SamplingOptions(sampling_steps=4), DEFAULTS)
    lines = flow_lines.flow_lines(pipeline, 5, 0, None, sampling)
    assert flow_lines.beside_exact(pipeline, lines, 0, None, replace(sampling, autoguidance=1.0)) is None


# ---------------------------------------------------------------- films


every_size = pytest.mark.parametrize("size", flow.SIZES.values())


def camera(size):
    """A function of the angle that places the paths of a helix in a picture of this size."""
    return flow.camera(lines_of(untrained_pipeline(name="helix", noise=0.05), sampling_steps=8), size, flow.TURNS)


@every_size
def test_a_camera_keeps_everything_in_the_picture_from_all_sides(size):
    place = camera(size)
    at = np.stack([place(turn) for turn in np.linspace(0, 2 * np.pi, 50)])
    tolerance = 0.02 * size[1]  # The camera is exact at some angles only.
    edge = flow.MARGIN * size[1]
    assert at.min() > edge - tolerance
    right, lower = at.max((0, 1, 2))
    assert right < size[0] - edge + tolerance
    assert lower < (1 - flow.below(size)) * size[1] + tolerance


@every_size
def test_a_camera_moves_around_the_points(size):
    place = camera(size)
    assert np.abs(place(1.0) - place(2.0)).max() > 0.1 * size[1]


@every_size
def test_a_camera_comes_back_after_a_whole_turn(size):
    place = camera(size)
    assert np.allclose(place(0), place(2 * np.pi))


def brightness(film, rows):
    """The light in each picture of a film, in its upper rows, without the words and the bar below."""
    return [int((picture[:rows] - light.GROUND).sum()) for picture, _ in film]


@pytest.fixture(scope="module")
def helix_film():
    lines = lines_of(untrained_pipeline(name="helix", noise=0.05), count=25, sampling_steps=20)
    return list(flow.frames(lines, (96, 96), 2))


def test_a_film_in_three_dimensions_has_a_picture_for_every_moment(helix_film):
    assert [stays for _, stays in helix_film] == [1] * round(2 * (LASTS_S + HELD_S))


def test_lines_in_three_dimensions_grow(helix_film):
    drawn = brightness(helix_film, 85)
    assert drawn[20] > 1.05 * drawn[0]


def test_lines_in_three_dimensions_turn_until_the_end(helix_film):
    # At the end nothing grows any more.
    assert np.abs(helix_film[-1][0][:85].astype(int) - helix_film[-2][0][:85]).max() > 30


@pytest.fixture(scope="module")
def moons():
    """The paths of 25 samples over 20 steps."""
    return lines_of(untrained_pipeline(name="moons", noise=0.05), count=25, sampling_steps=20)


def test_a_film_begins_at_the_noise(moons):
    assert np.array_equal(between(moons.seconds, moons.paths, 0), moons.paths[0])


def test_a_film_ends_at_the_samples(moons):
    assert np.array_equal(between(moons.seconds, moons.paths, LASTS_S), moons.paths[-1])


def test_heads_of_lines_move_evenly_between_two_states(moons):
    middle = moons.seconds[3:5].mean()
    assert np.allclose(between(moons.seconds, moons.paths, middle), moons.paths[3:5].mean(0), atol=1e-5)


@pytest.fixture(scope="module")
def moons_film(moons):
    return list(flow.frames(moons, (96, 54), 5))


def test_a_film_in_the_plane_holds_its_last_picture(moons_film):
    assert [stays for _, stays in moons_film] == [1] * round(5 * LASTS_S) + [round(5 * HELD_S)]


def test_lines_in_the_plane_grow(moons_film):
    drawn = brightness(moons_film, 48)
    assert np.diff(drawn).min() > -0.05 * drawn[-1]  # Two heads that meet are less bright than two alone.
    assert drawn[-1] > 1.2 * drawn[0]


def test_a_gif_is_as_long_and_as_large_as_promised(moons, tmp_path):
    with Image.open(flow.save_film(moons, (192, 108), tmp_path / "a.gif")) as film:
        assert film.size == (64, 36)
        assert film.n_frames == 10 * LASTS_S + 1
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


@pytest.fixture
def two_drops():
    """A page with two drops of light between pixels."""
    page = light.dark(40, 60)
    light.drop(page, np.array([[20.3, 10.7], [31.0, 5.5]]), np.array([[1, 0.5, 0.25], [2, 0, 0]]))
    return page


def test_a_drop_keeps_its_amount_of_light(two_drops):
    assert np.allclose(two_drops.sum((0, 1)), [3, 0.5, 0.25], atol=1e-5)


def test_the_centre_of_a_drop_is_its_place(two_drops):
    # Only the first drop has green light. The middle of a pixel is half a pixel from its edge.
    green = two_drops[..., 1]
    centre = (green * np.arange(60)).sum() / 0.5, (green * np.arange(40)[:, None]).sum() / 0.5
    assert np.allclose(centre, [19.8, 10.2], atol=1e-4)


LIGHT_OF_STROKE = np.hypot(30, 20) * np.array([1, 0, 2])


@pytest.fixture
def one_stroke():
    """A page with a stroke of length (30, 20)."""
    page = light.dark(40, 60)
    light.stroke(page, np.array([[10.0, 10.0]]), np.array([[40.0, 30.0]]), np.array([[1, 0, 2.0]]))
    return page


def test_the_light_of_a_stroke_is_proportional_to_its_length(one_stroke):
    assert np.allclose(one_stroke.sum((0, 1)), LIGHT_OF_STROKE, rtol=1e-4)


def test_a_stroke_outside_of_the_page_is_lost(one_stroke):
    light.stroke(one_stroke, np.array([[-30.0, -1.0]]), np.array([[-2.0, -20.0]]), np.ones((1, 3)))
    assert np.allclose(one_stroke.sum((0, 1)), LIGHT_OF_STROKE, rtol=1e-4)


def test_a_page_without_light_has_the_ground_colour():
    assert (light.developed(light.dark(8, 8)) == light.GROUND.astype(int)).all()


def test_more_light_is_brighter():
    ramp = np.linspace(0, 5, 64, dtype=np.float32)[None, :, None].repeat(8, 0).repeat(3, 2)
    shown = light.developed(ramp).astype(int)
    assert (np.diff(shown, axis=1) >= 0).all()
    assert shown.max() > 245


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sampler": "ddpm"}, "without fresh noise.*ddim"),
        ({"sampler": "dpmpp_2m_sde"}, "without fresh noise"),
        ({"eta": 0.5}, "leave out eta"),
        ({"track_samples": [0], "save_trajectory": True}, "leave out save_trajectory and track_samples"),
        ({"observe": "y=0.2"}, "observe and flow are two things"),
    ],
)
def test_options_without_an_effect_on_flow_lines_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        chosen_mode(Inference(flow=True, **options))
        check_noiseless(SamplingOptions(sampler=options.get("sampler"), eta=options.get("eta", 0.0)))


def test_flow_lines_in_five_dimensions_are_refused_and_leave_no_file(tmp_path):
    with pytest.raises(ValueError, match="points of 2 or 3 coordinates"):
        pipeline = untrained_pipeline(name="moons", noise=0.05, embed=5)
        save_flow_lines(pipeline, tmp_path, 10, SamplingOptions(), 0, ["png"], labels=None, film=None)
    assert not list(tmp_path.iterdir())
