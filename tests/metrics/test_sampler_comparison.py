"""compare.py: samplers from equal noise, with counted evaluations, and the files of the command."""

import json

import numpy as np
import pytest
import torch
from conftest import column, command, not_blank, untrained
from rerun.chunk import RrdReader

from conf.config import Compare
from conf.groups import MLP, Digits, File, Moons, UNetSmall
from conf.option import check
from dataset import make_dataset, make_sets
from metrics import image_features
from metrics.evaluation import as_frequent
from metrics.flow_map import FlowMap
from metrics.sampler_comparison import COSTLY, EXACT, NETWORK, TRACKED, compare, make_plan, save_numbers, table
from samplers import SAMPLERS, last
from samplers.options import SamplingOptions
from schedule import CLEAN
from viz import comparison_pictures as pictures
from viz.recording.comparison_recording import _image_scene, log_comparison
from viz.viewer import recording

# ---------------------------------------------------------------- points of a known distribution


@pytest.fixture(scope="module")
def model():
    """An untrained pipeline of moons."""
    return untrained(Moons(), MLP(hidden=8, layers=1))


@pytest.fixture(scope="module")
def found(model):
    """A comparison of three samplers at two numbers of evaluations."""
    return compare(model, ["ddim", "heun", "ddpm"], [10, 5, 5], 200, 3, SamplingOptions(guidance=0.0))


def test_every_sampler_is_tried_at_every_number_with_both_denoisers(found):
    assert found.denoisers == [NETWORK, EXACT]
    assert found.asked == [5, 10]
    assert len(found.trials) == 2 * 3 * 2


def test_every_sampler_begins_at_the_same_noise(found):
    starts = [trial.path[0].x_t for trial in found.trials]
    assert all(torch.equal(x, starts[0]) for x in starts)
    assert len(starts[0]) == TRACKED


def test_samples_of_the_network_are_those_of_the_pipeline(model, found):
    alone = model.data_units(
        last(model.states(200, SamplingOptions(sampler="ddim", sampling_steps=5, guidance=0.0), seed=3))
    ).numpy()
    assert np.array_equal(found.trial(NETWORK, "ddim", 5).samples, alone)


def test_evaluations_of_heun_are_counted(found):
    assert {(t.asked, t.evaluations) for t in found.trials if t.sampler == "heun"} == {(5, 4), (10, 10)}


@pytest.mark.parametrize("asked", [1, 5, 10, 20, 50])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_sampler_is_planned_with_more_evaluations_than_were_asked(model, sampler, asked):
    planned = make_plan(model.scheduler, model.dims, sampler, asked)
    if planned.steps is None:
        assert planned.evaluations > asked
    else:
        assert asked - 2 <= planned.evaluations <= asked


def test_every_trial_makes_as_many_evaluations_as_were_planned():
    """dpmpp_2m_sde makes two more for each covariance of points in the plane."""
    model = untrained(Moons(), MLP(hidden=8, layers=1))
    found = compare(model, ["dpmpp_2m_sde", "heun"], [2, 3, 10], 200, 0, SamplingOptions(guidance=0.0))
    for trial in found.trials:
        assert trial.evaluations == found.planned(trial.sampler, trial.asked).evaluations <= trial.asked


@pytest.fixture(scope="module")
def found_with_a_gap(model):
    """A comparison with 2 evaluations, of which dpmpp_2m_sde makes 3 or more."""
    return compare(model, ["dpmpp_2m_sde", "ddim"], [2], 200, 0, SamplingOptions(guidance=0.0))


def test_a_sampler_that_cannot_keep_to_the_evaluations_has_no_trial(found_with_a_gap):
    assert {trial.sampler for trial in found_with_a_gap.trials} == {"ddim"}
    assert found_with_a_gap.planned("dpmpp_2m_sde", 2).evaluations == 3


def test_table_file_sheet_and_recording_say_that_it_is_left_out(found_with_a_gap, tmp_path):
    assert "left out: it makes 3 or more" in table(found_with_a_gap)
    save_numbers(tmp_path / "compare.json", found_with_a_gap)
    left_out = json.loads((tmp_path / "compare.json").read_text())["left_out"]
    assert left_out == [{"sampler": "dpmpp_2m_sde", "asked": 2, "fewest": 3}]
    cell = pictures.sheet(found_with_a_gap).subfigs[0].axes[0]
    assert [text.get_text() for text in cell.texts] == ["left out:\nmakes 3 or more"]
    with recording("test", tmp_path / "a.rrd", "file") as rec:
        log_comparison(rec, found_with_a_gap)
    entities = {chunk.entity_path for chunk in RrdReader(tmp_path / "a.rrd").stream()}
    assert "/network/ddim/way" in entities and "/network/dpmpp_2m_sde/way" not in entities


def test_numbers_with_which_no_sampler_can_do_are_refused(model):
    with pytest.raises(ValueError, match="allow 3 or more"):
        compare(model, ["dpmpp_2m_sde"], [1, 2], 200, 0, SamplingOptions(guidance=0.0))


def test_every_cell_of_the_sheet_is_headed_by_the_evaluations_that_were_made(found):
    titles = [ax.get_title() for ax in pictures.sheet(found).subfigs[0].axes]
    assert titles == ["5 evaluations", "10 evaluations", "4 evaluations (of 5)", *titles[1:2], *titles[:2]]


def test_no_two_curves_of_the_flow_map_look_alike_and_the_legend_shows_each():
    counts = {name: [5, 10, 20] for name in SAMPLERS}
    errors = {name: [0.1, 0.05, 0.02] for name in SAMPLERS}
    flow = FlowMap(counts, {EXACT: errors, NETWORK: errors}, dict.fromkeys(SAMPLERS, 2.0), 1e-3)
    figure = pictures.flow_map(flow)
    drawn = [looks(line) for line in figure.axes[0].get_lines()[: len(SAMPLERS)]]
    assert len(set(drawn)) == len(SAMPLERS)
    assert len({marker for _, marker, _ in drawn}) == len(SAMPLERS)
    assert [looks(line) for line in figure.legends[0].get_lines()] == drawn


def looks(line):
    return line.get_color(), line.get_marker(), line.get_linestyle()


def test_every_figure_of_the_network_is_worse_than_that_of_the_exact_denoiser(found):
    network, exact = (found.trial(d, "ddpm", 10).figures for d in (NETWORK, EXACT))
    assert [*network] == [*found.floors]
    assert [*exact] == [name for name in found.floors if name not in COSTLY]
    assert all(network[name] > exact[name] for name in exact)


def test_with_the_exact_denoiser_more_evaluations_give_a_better_figure(found):
    few, many = (found.trial(EXACT, "ddim", n).figures["sliced Wasserstein-1"] for n in (5, 10))
    assert many < few


def test_exact_paths_reach_from_the_same_noise_to_clean_data(found):
    assert found.exact_path[-1].t == CLEAN
    assert torch.equal(found.exact_path[0].x_t.float(), found.trial(EXACT, "ddim", 5).path[0].x_t)


def distance_from_exact_ends(found, denoiser, asked):
    """The mean distance between the ends of DDIM's paths and those of the exact paths."""
    ends = found.exact_path[-1].x_t
    return float((found.trial(denoiser, "ddim", asked).path[-1].x_t - ends).norm(dim=1).mean())


def test_with_the_exact_denoiser_more_evaluations_end_nearer_to_the_exact_paths(found):
    assert distance_from_exact_ends(found, EXACT, 10) < distance_from_exact_ends(found, EXACT, 5)


def test_the_network_ends_farther_from_the_exact_paths_than_the_exact_denoiser(found):
    assert distance_from_exact_ends(found, EXACT, 5) < distance_from_exact_ends(found, NETWORK, 10)


def rows_of_table(found):
    return [line for line in table(found).splitlines() if line.split()[:1] in (["ddim"], ["heun"], ["ddpm"])]


def test_the_table_has_a_row_for_each_sampler_and_number(found):
    rows = rows_of_table(found)
    assert len(rows) == 6
    assert all(len(row.split()) == 4 + 4 + 2 for row in rows)


def test_the_table_marks_figures_within_their_floor(found):
    cells = " ".join(rows_of_table(found))
    for trial in found.trials:
        value, floor = trial.figures["sliced Wasserstein-1"], found.floors["sliced Wasserstein-1"]
        assert (f"{value:.4f}*" in cells) == (value <= floor.high)


@pytest.fixture(scope="module")
def saved(found, tmp_path_factory):
    """The numbers of the comparison, read back from their file."""
    path = tmp_path_factory.mktemp("comparison") / "compare.json"
    save_numbers(path, found, seed=3)
    return json.loads(path.read_text())


def test_the_file_holds_the_seed(saved):
    assert saved["seed"] == 3


def test_the_file_holds_the_evaluations_of_the_flow_map(saved):
    assert saved["flow_map"]["evaluations"]["heun"][:3] == [4, 6, 10]


def test_the_file_holds_every_trial(saved, found):
    for row, trial in zip(saved["trials"], found.trials, strict=True):
        assert row["sampler"] == trial.sampler
        assert row["evaluations"] == trial.evaluations
        assert row.get("classifier accuracy") == trial.figures.get("classifier accuracy")


@pytest.mark.parametrize(
    ("samplers", "evaluations", "words"),
    [
        (["ddim"], [5, 51], r"evaluations must lie in 1\.\.50, for this model has T = 50; got 51"),
        (["heun"], [0], r"evaluations must lie in 1\.\.50"),
        ([], [5], "name at least one sampler"),
        (None, [], "and one number of evaluations"),
        (["rk4"], [5], "sampler 'rk4' is unknown"),
    ],
)
def test_what_cannot_be_compared_is_refused_at_once(model, samplers, evaluations, words):
    with pytest.raises(ValueError, match=words):
        compare(model, samplers, evaluations, 200, 0, SamplingOptions(guidance=0.0))


def test_labelled_points_are_denoised_exactly_under_their_labels():
    model = untrained(Moons(), MLP(hidden=8, layers=1), conditional=True)
    found = compare(model, ["dpmpp_2m"], [30], 300, 0, SamplingOptions(guidance=0.0))
    real = make_dataset("moons", 2000, 0, noise=0.05)
    samples = found.trial(EXACT, "dpmpp_2m", 30).samples
    nearest = np.linalg.norm(samples[:, None] - real.points[None], axis=-1).argmin(1)
    _, unseen = make_sets(n_samples=2000, seed=0, **model.config["dataset"])
    assert (real.labels[nearest] == as_frequent(unseen, 300, 0).numpy()).mean() > 0.99


# ---------------------------------------------------------------- points of an unknown distribution


@pytest.fixture(scope="module")
def found_for_own_points(tmp_path_factory):
    """A comparison for points from a file, with 3 evaluations of one sampler."""
    path = tmp_path_factory.mktemp("own") / "mine.npy"
    np.save(path, make_dataset("helix", 2000, 0, noise=0.05).points)
    model = untrained(File(path=str(path)), MLP(hidden=8, layers=1))
    return compare(model, ["adams"], [3], 200, 0, SamplingOptions(guidance=0.0))


def test_points_of_ones_own_have_no_exact_denoiser_and_no_flow_map(found_for_own_points):
    assert found_for_own_points.denoisers == [NETWORK]
    assert found_for_own_points.flow is None
    assert not found_for_own_points.exact_path


def test_points_of_ones_own_have_no_log_density(found_for_own_points):
    assert [*found_for_own_points.floors] == ["sliced Wasserstein-1", "energy distance", "classifier accuracy"]


def test_the_table_for_points_of_ones_own_has_no_exact_rows(found_for_own_points):
    assert "exact" not in table(found_for_own_points)


def test_the_sheet_for_points_of_ones_own_has_panels(found_for_own_points):
    assert pictures.sheet(found_for_own_points).subfigs


def test_cells_in_three_dimensions_have_their_name_and_their_figure(found_for_own_points):
    (ax,) = pictures.sheet(found_for_own_points).axes
    name, figure = (text.get_text() for text in ax.texts)
    assert name == "adams"
    assert figure.startswith("W1 ")
    assert ax.get_xlabel() == ""  # it would follow the axis, and lie on the next cell


def test_the_recording_for_points_of_ones_own_ends_on_the_samples(found_for_own_points, tmp_path):
    with recording("test", tmp_path / "a.rrd", "file") as rec:
        log_comparison(rec, found_for_own_points)
    _, now = column(tmp_path / "a.rrd", "/network/adams/now", "Points3D:positions")
    assert np.array_equal(now[-1], found_for_own_points.trials[0].path[-1].x_t.numpy())


# ---------------------------------------------------------------- images


@pytest.fixture(scope="module")
def found_for_images(tmp_path_factory):
    """A comparison for digits, with a feature classifier that is not trained well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("images"))
        patch.setattr(image_features, "MIN_IMAGES_SEEN", 600)
        options = {"schedule": "cosine", "conditional": True}
        model = untrained(Digits(), UNetSmall(channels=[8, 8], heads=2, blocks=1), **options)
        return compare(
            model, ["ddim", "heun"], [3, 4], 60, 0, SamplingOptions(guidance=0.35, guidance_interval=(0.5, 5.0))
        )


def test_images_are_compared_by_the_frechet_distance_alone(found_for_images):
    assert [*found_for_images.floors] == ["Frechet distance"]


def test_images_have_no_exact_denoiser_and_no_flow_map(found_for_images):
    assert found_for_images.denoisers == [NETWORK]
    assert found_for_images.flow is None


def test_images_of_an_untrained_network_lie_above_the_floor(found_for_images):
    floor = found_for_images.floors["Frechet distance"]
    assert all(trial.figures["Frechet distance"] > floor.high for trial in found_for_images.trials)


def test_the_sheet_of_images_is_not_blank(found_for_images, tmp_path):
    pictures.sheet(found_for_images).savefig(tmp_path / "sheet.png")
    assert not_blank(tmp_path / "sheet.png")


def test_the_recording_of_images_has_every_step_that_a_sampler_visits(found_for_images, tmp_path):
    with recording("test", tmp_path / "a.rrd", "file") as rec:
        log_comparison(rec, found_for_images)
    steps, _ = column(tmp_path / "a.rrd", "/reverse/x_t", "Image:buffer")
    visited = {50 - state.step for trial in found_for_images.trials if trial.asked == 4 for state in trial.path}
    assert steps.tolist() == sorted(visited)


@pytest.mark.parametrize(("row", "sampler"), [(0, "ddim"), (1, "heun")])
def test_each_sampler_of_images_has_a_row_with_every_state_at_its_own_step(found_for_images, row, sampler):
    process = _image_scene(found_for_images, 4).processes[0]
    rows = slice(row * TRACKED, (row + 1) * TRACKED)
    for state in found_for_images.trial(NETWORK, sampler, 4).path:
        at = process.steps.tolist().index(state.step)
        assert np.array_equal(process.states[at, rows], state.x_t.numpy())


# ---------------------------------------------------------------- the command


def test_an_alias_in_a_list_of_samplers_is_replaced():
    options = Compare(samplers=["dpm", "ddim"])
    check(options)
    assert options.samplers == ["dpmpp_2m", "ddim"]


def test_an_unknown_sampler_in_a_list_is_refused():
    with pytest.raises(ValueError, match=r"each of samplers must be one of ddpm, ddim, .*; got 'rk4'"):
        check(Compare(samplers=["ddim", "rk4"]))


def test_a_number_below_1_in_a_list_of_evaluations_is_refused():
    with pytest.raises(ValueError, match="each of evaluations must be at least 1; got 0"):
        check(Compare(evaluations=[5, 0]))


@pytest.fixture(scope="module")
def compared(run, workplace):
    """What the command prints, and its folder."""
    line = f"compare.py checkpoint={run} samplers=[ddim,adams] --evaluations [5] num_samples=200 hydra.run.dir=compared"
    done = command(line, workplace)
    assert done.returncode == 0, done.stderr
    return done.stdout, workplace / "compared"


@pytest.mark.slow
def test_the_command_leaves_numbers_pictures_and_a_recording(compared):
    _, folder = compared
    names = {path.name for path in folder.iterdir()}
    assert names == {".hydra", "compare.json", "compare.png", "flow_map.png", "compare.rrd"}


@pytest.mark.slow
@pytest.mark.parametrize("picture", ["compare.png", "flow_map.png"])
def test_the_pictures_of_the_command_are_not_blank(compared, picture):
    _, folder = compared
    assert not_blank(folder / picture)


@pytest.mark.slow
@pytest.mark.parametrize("words", ["with the network", "exact flow map", "rerun compared/"])
def test_the_command_prints_both_tables_and_where_the_recording_is(compared, words):
    printed, _ = compared
    assert words in printed


@pytest.mark.slow
def test_the_file_of_the_command_holds_every_trial(compared):
    _, folder = compared
    trials = json.loads((folder / "compare.json").read_text())["trials"]
    assert [(t["sampler"], t["denoiser"]) for t in trials] == [
        ("ddim", NETWORK),
        ("ddim", EXACT),
        ("adams", NETWORK),
        ("adams", EXACT),
    ]


@pytest.mark.slow
def test_the_recording_of_the_command_has_the_path_of_each_sampler_and_of_the_exact_flow(compared):
    _, folder = compared
    entities = {chunk.entity_path for chunk in RrdReader(folder / "compare.rrd").stream()}
    assert {f"/{p}/{name}/way" for p in ("network", "exact") for name in ("ddim", "adams", "exact_flow")} <= entities


@pytest.mark.slow
def test_the_recording_of_the_command_has_every_state_from_step_0_to_50(compared):
    _, folder = compared
    steps, _ = column(folder / "compare.rrd", "/network/ddim/now", "Points2D:positions")
    assert len(steps) == 6
    assert steps[0] == 0
    assert steps[-1] == 50


# ---------------------------------------------------------------- the units of a table


def compared_in_units(tmp_path, units, repeats):
    """The figures of a comparison on a table whose columns have these units and whose rows are repeated."""
    rng = np.random.default_rng(0)
    points = np.repeat(rng.normal(size=(400, 2)), repeats, 0)
    path = tmp_path / f"{units[0]}_{repeats}.csv"
    np.savetxt(path, points * units, delimiter=",", header="a,b")
    model = untrained(File(path=str(path)), MLP(hidden=8, layers=1))
    found = compare(model, ["ddim"], [5], 200, 0)
    return found.floors, found.trial(NETWORK, "ddim", 5).figures


def test_figures_of_a_table_do_not_depend_on_its_units(tmp_path):
    floors, figures = compared_in_units(tmp_path, [1.0, 1.0], 1)
    other_floors, other_figures = compared_in_units(tmp_path, [1e-3, 1e3], 1)
    assert other_figures == pytest.approx(figures, rel=1e-2)
    for name, floor in floors.items():
        assert other_floors[name] == pytest.approx(floor, rel=1e-2)


def test_repeated_rows_of_a_table_count_once(tmp_path):
    floors, _ = compared_in_units(tmp_path, [1.0, 1.0], 1)
    repeated_floors, _ = compared_in_units(tmp_path, [1.0, 1.0], 3)
    name = "sliced Wasserstein-1"
    assert repeated_floors[name].median == pytest.approx(floors[name].median, rel=0.5)


def test_a_small_table_is_compared_without_the_classifier(tmp_path):
    path = tmp_path / "small.csv"
    np.savetxt(path, np.random.default_rng(0).normal(size=(150, 2)), delimiter=",", header="a,b")
    model = untrained(File(path=str(path)), MLP(hidden=8, layers=1))
    found = compare(model, ["ddim"], [5], 200, 0)
    assert [*found.floors] == ["sliced Wasserstein-1", "energy distance"]
    assert "accuracy" not in table(found)
    assert pictures.sheet(found).subfigs
