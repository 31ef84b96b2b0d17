"""The public board: what it counts, what it refuses, how it ranks, and that its page is that of its rows."""

import json
import re

import numpy as np
import pytest
import torch
from conftest import ROOT, command, started, succeeded, without_torch

from benchmarks import board_check, board_tasks
from benchmarks.board import PAGE, ROWS
from benchmarks.board_check import FAULTS, verdict_on_fault, verdict_on_real
from benchmarks.board_entries import (
    CountedDenoiser,
    _trained,
    by_files,
    by_real_points,
    by_sampler,
    tasks_in,
    write_example,
)
from benchmarks.board_figures import judge_samples, measure, read_rows, save_row, task_row
from benchmarks.board_page import standings, write_page
from benchmarks.board_tasks import EVALUATIONS, SCHEDULER, SETS, TASKS, start
from conf.script_parsers import BOARD_TASKS, board_options
from diffusion import Prediction
from pipeline import Pipeline
from registry.sampler_rows import SAMPLERS, SamplerRow
from samplers.steps import State, as_t
from schedule import CLEAN

FEW = TASKS["few_steps"].cells


def cell_of(label):
    task, name = label.split("/")
    return next(cell for cell in TASKS[task].cells if cell.name == name)


# ---------------------------------------------------------------- tasks


@pytest.mark.slow
def test_the_command_of_an_added_sampler_names_its_file(tmp_path):
    lines = [
        "from registry import register_sampler",
        "from samplers.ancestral import ddim",
        'register_sampler("mine", ddim)',
    ]
    (tmp_path / "mine.py").write_text("\n".join(lines))
    line = "benchmarks/board.py include=mine.py sampler=mine tasks=few_steps out=rows"
    succeeded(line, tmp_path, started)
    again = read_rows(tmp_path / "rows")[0]["tasks"]["few_steps"]["command"]
    assert again == "python benchmarks/board.py include=mine.py sampler=mine tasks=few_steps"


def test_the_tasks_are_those_of_the_command_line():
    assert tuple(TASKS) == BOARD_TASKS


def test_the_sets_are_those_that_the_page_names():
    cells = TASKS["samplers"].cells
    assert {cell.set_name for cell in cells} == set(SETS) - {"gaussians"}
    assert len(cells) == 8 * len(EVALUATIONS)
    assert sorted(cell.dim for cell in cells if cell.evaluations == 5) == [2, 2, 2, 2, 2, 3, 32, 32]


def test_all_entries_start_from_the_same_noise():
    one, other = (start(cell_of("samplers/grid-5")).x_T for _ in range(2))
    assert torch.equal(one, other)
    assert not torch.equal(one, start(cell_of("samplers/grid-8")).x_T)


def test_the_claimed_density_is_that_of_its_draws():
    """Of moons whose label says nothing, guidance claims the label's own points."""
    truth = board_tasks.claimed_truth("moons", 1.0)
    x = truth.draw(2000, 5)
    part, other = board_tasks.labelled_parts("moons")
    log_p, log_q = (p.log_density(torch.from_numpy(x)).numpy() for p in (part, other))
    assert np.allclose(truth.log_density(x), 2 * log_p - np.logaddexp(log_p, log_q))


# ---------------------------------------------------------------- ties and planted faults


@pytest.mark.parametrize("seed", [1, 2])
def test_real_points_tie(seed):
    assert verdict_on_real("few_steps", seed).ties


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_ranks_below_real_points(fault):
    assert not verdict_on_fault("few_steps", fault, 0).ties


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_real_points_tie_and_planted_faults_rank_below_in_every_task(task):
    assert sum(verdict_on_real(task, seed).ties for seed in range(1, 9)) >= 7
    for fault in FAULTS:
        assert not verdict_on_fault(task, fault, 0).ties, fault


# ---------------------------------------------------------------- evaluations are counted


def nothing(x_t, t, label=None):
    return Prediction(0 * x_t, 2 * x_t)


def test_rows_are_counted_however_they_are_passed():
    denoise = CountedDenoiser(nothing, 10, None, "mine")
    denoise(torch.ones(10, 2), torch.tensor(3))
    denoise(torch.ones(40, 2), torch.tensor(3))
    assert denoise.evaluations == 5


def test_derivatives_are_counted():
    denoise = CountedDenoiser(nothing, 10, None, "mine")
    x = torch.ones(10, 2, requires_grad=True)
    x_0 = denoise(x, torch.tensor(3)).x_0
    (gradient,) = torch.autograd.grad(x_0.sum(), x, retain_graph=True)
    torch.autograd.grad(x_0.sum(), x)
    assert torch.equal(gradient, torch.full((10, 2), 2.0))
    assert denoise.evaluations == 3


def test_a_limited_denoiser_has_no_derivatives_and_stops_at_its_limit():
    denoise = CountedDenoiser(nothing, 10, 2, "sampler=mine in samplers/moons-5")
    x = torch.ones(10, 2, requires_grad=True)
    assert not denoise(x, torch.tensor(3)).x_0.requires_grad
    denoise(x, torch.tensor(3))
    with pytest.raises(ValueError, match=r"sampler=mine in samplers/moons-5 .* more often than the 2 times allowed"):
        denoise(x, torch.tensor(3))


def twice_for_many(denoise, scheduler, x_T, *, timesteps, generator=None):
    """Keeps to its evaluations for one sample, and doubles its rows for more."""
    x = x_T
    for t in timesteps:
        rows = torch.cat([x, x]) if len(x) > 1 else x
        x_0 = denoise(rows, as_t(t, x)).x_0[: len(x)]
        yield State(t, x, x_0)
        x = x_0
    yield State(CLEAN, x, x)


def sixty(denoise, scheduler, x_T, *, timesteps, generator=None):
    """Takes sixty evaluations, whatever it is asked."""
    for _ in range(60):
        denoise(x_T, as_t(0, x_T))
    yield State(CLEAN, x_T, x_T)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            "twice_for_many",
            "sampler=mine in samplers/grid-5 evaluates the denoiser more often than the 5 times allowed",
        ),
        ("sixty", "sampler=mine in samplers/grid-5 makes 60 or more evaluations, and 5 are allowed"),
    ],
)
def test_a_sampler_that_exceeds_its_evaluations_is_refused_by_name(monkeypatch, function, message):
    row = SamplerRow(f"{__name__}:{function}", "a plug-in", evaluations=5, spacing="log_snr")
    monkeypatch.setitem(SAMPLERS, "mine", row)
    with pytest.raises(ValueError, match=re.escape(message)):
        by_sampler("mine")(cell_of("samplers/grid-5"))


def test_a_sampler_that_keeps_to_them_is_measured():
    cell = cell_of("samplers/grid-15")
    samples, evaluations = by_sampler("adams")(cell)
    figures = measure(cell, samples, evaluations)
    assert evaluations == 15
    assert figures.nats < 0.05
    assert figures.samples == cell.n


@pytest.mark.slow
def test_the_solver_of_diffusers_ties_with_ours():
    board_with_diffusers = pytest.importorskip("benchmarks.board_with_diffusers")
    cell = cell_of("samplers/grid-10")
    ours, _ = by_sampler("dpmpp_2m")(cell)
    begin = start(cell)
    theirs = begin.normaliser.denormalise(board_with_diffusers.solved(begin, 10)).numpy()
    assert np.abs(ours - theirs).max() < 2e-3
    assert measure(cell, theirs).nats == pytest.approx(measure(cell, ours).nats, abs=2e-3)


# ---------------------------------------------------------------- samples from files


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    folder = tmp_path_factory.mktemp("board") / "example"
    write_example(folder, ["few_steps"], seed=0)
    return folder


@pytest.fixture
def entry(example, tmp_path):
    """A folder in which one file can be replaced: `entry(samples)` measures that file."""

    def replaced(samples):
        for path in [*example.rglob("*.npy"), example / "benchmark.txt"]:
            copy = tmp_path / path.relative_to(example)
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(path.read_bytes())
        np.save(tmp_path / "few_steps" / "moons-1.npy", samples)
        return by_files(tmp_path)(FEW[0])

    return replaced


def real(seed=0):
    samples, _ = by_real_points(seed)(FEW[0])
    return samples


def test_poor_samples_are_no_other_units(entry):
    """Some samplers give a wider set with few evaluations. Its spread may be near 1 by chance."""
    samples = entry(1.1 * real())
    assert samples[0].shape == (FEW[0].n, 2)


def test_a_poor_sampler_is_measured_and_not_refused():
    """Heun's method with 8 evaluations gives a grid whose standard deviation is 0.92, and not 0.71."""
    cell = cell_of("samplers/grid-8")
    samples, evaluations = by_sampler("heun")(cell)
    assert np.abs(samples.std(0) - 0.92).max() < 0.02
    assert measure(cell, samples, evaluations).nats > 0.5


def test_the_example_is_an_entry_that_ties_with_real_points(example):
    assert tasks_in(example) == ["few_steps"]
    source = by_files(example)
    assert judge_samples(FEW, [source(cell)[0] for cell in FEW]).ties


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[:-1], r"moons-1 takes 10,000 points of 2 coordinates, .* these are float32 of shape \(9999, 2\)"),
        (lambda x: np.column_stack([x, x]), r"10,000 points of 2 coordinates, .* of shape \(10000, 4\)"),
        (lambda x: np.round(x).astype(int), "floats of shape .* these are int64"),
        (lambda x: np.where(x > 1.9, np.nan, x), "moons-1 hold NaN or infinity"),
        (
            lambda x: (x - x.mean(0)) / x.std(0),
            r"other units: real points have the mean \[0.501, 0.248\] and the standard",
        ),
        (lambda x: 100 * x, r"other units: .* and these \[5.*\] and \["),
    ],
)
def test_unusable_samples_end_in_a_sentence_that_says_what_is_expected(entry, change, message):
    with pytest.raises(ValueError, match=message):
        entry(change(real()))


def test_an_entry_of_another_version_is_refused(example, entry, tmp_path):
    entry(real())
    (tmp_path / "benchmark.txt").write_text("v0\n")
    with pytest.raises(ValueError, match=r"benchmark.txt must say .*: v1 here, and there it is v0"):
        by_files(tmp_path)
    (tmp_path / "benchmark.txt").unlink()
    with pytest.raises(ValueError, match="there it is no version"):
        by_files(tmp_path)


def test_a_missing_file_and_an_unknown_task_are_named(entry, tmp_path):
    entry(real())
    (tmp_path / "few_steps" / "moons-1.npy").unlink()
    with pytest.raises(
        ValueError, match=r"no .*moons-1.npy: an entry has a file for each of moons-1, moons-2, moons-4"
    ):
        by_files(tmp_path)(FEW[0])
    (tmp_path / "sampler").mkdir()
    with pytest.raises(ValueError, match="holds the task sampler: its folders are some of samplers, training"):
        tasks_in(tmp_path)


def test_pickled_samples_are_not_loaded(entry, tmp_path):
    entry(real())
    path = tmp_path / "few_steps" / "moons-1.npy"
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"moons-1.npy is no array of numbers: write it by numpy.save"):
        by_files(tmp_path)(FEW[0])
    path.write_text("")
    with pytest.raises(ValueError, match=r"moons-1.npy is no array of numbers"):
        by_files(tmp_path)(FEW[0])


def test_an_entry_goes_from_files_to_a_row_and_to_the_page(example, tmp_path):
    printed = succeeded(["benchmarks/board.py", f"submit={example}", "name=my own", "out=rows", "seconds=30"], tmp_path)
    assert "few_steps  rank 1 of 1" in printed
    assert "ties with real points" in printed
    row = json.loads((tmp_path / "rows" / "my_own.json").read_text())
    assert row["benchmark"] == "v1"
    assert row["tasks"]["few_steps"]["seconds"] == 30
    assert row["tasks"]["few_steps"]["yardsticks"] > 0
    assert set(row["tasks"]["few_steps"]["cells"]) == {"moons-1", "moons-2", "moons-4"}
    assert "\n| 1 | my own | " in (tmp_path / "rows" / "board.md").read_text()


# ---------------------------------------------------------------- the command line


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("tasks=sampler", "the task 'sampler' is unknown; choose some of samplers, training"),
        ("task=samplers", r"unknown option task \(did you mean tasks\?\)"),
        ("submit=folder", "submit=FOLDER and name=NAME belong together"),
        ("sampler=adams method=dps", "sampler= and method= exclude each other"),
        ("seconds=3", "seconds= belongs to submit="),
        ("submit=a name=b seconds=-1", "seconds needs a number above 0; got -1"),
        ("check=many", "check needs a whole number above 0; got many"),
        ("sampler", "sampler needs a value"),
    ],
)
def test_a_mistake_in_the_options_is_named(line, message):
    with pytest.raises(ValueError, match=message):
        board_options(line.split())


def test_a_mistake_is_answered_before_torch_is_imported(tmp_path):
    done = without_torch("benchmarks/board.py tasks=sampler", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the task 'sampler' is unknown")
    assert done.stderr.count("\n") == 1


def test_an_unknown_sampler_is_one_sentence(tmp_path):
    done = command("benchmarks/board.py sampler=adam out=rows", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: sampler 'adam' is unknown; choose one of ddpm")
    assert done.stderr.count("\n") == 1


# ---------------------------------------------------------------- rows, ranks and the page


@pytest.fixture(scope="module")
def figures():
    return {cell.name: measure(cell, by_real_points(3)(cell)[0]) for cell in FEW}


def test_a_row_keeps_the_tasks_that_are_not_measured_again(tmp_path, figures):
    row = task_row("few_steps", figures, command="python benchmarks/board.py", commit="abc", versions={})
    path = save_row(tmp_path, "my own", {"few_steps": row})
    save_row(tmp_path, "my own", {})
    (known,) = read_rows(tmp_path)
    assert known["tasks"]["few_steps"]["commit"] == "abc"
    with pytest.raises(ValueError, match="is the row of 'my own': choose another name than 'my_own'"):
        save_row(tmp_path, "my_own", {})

    path.write_text(path.read_text().replace('"v1"', '"v0"'))
    with pytest.raises(ValueError, match="is a row of benchmark v0, and this board is v1: remove it"):
        read_rows(tmp_path)
    path.write_text('{"benchmark": "v1", "name": "my own", "tasks": {"few_steps": {}}}')
    with pytest.raises(ValueError, match=r"my_own.json is no row of the board"):
        read_rows(tmp_path)


def test_entries_within_the_error_share_a_rank():
    def row(name, nats, error, ties=False):
        return {"name": name, "tasks": {"guidance": {"nats": nats, "error": error, "ties": ties}}}

    rows = [
        row("far", 0.5, 0.01),
        row("near", 0.10, 0.01),
        row("as near", 0.13, 0.01),
        row("real", 0.001, 0.001, True),
        row("as real", 0.004, 0.001, True),
        row("strays", 0.002, 0.001),
        {"name": "other task", "tasks": {}},
    ]
    order = [(each.rank, each.name) for each in standings(rows, "guidance")]
    assert order == [(1, "real"), (1, "as real"), (3, "strays"), (4, "near"), (4, "as near"), (6, "far")]


def test_the_page_is_that_of_the_rows(tmp_path):
    """`python benchmarks/board.py page=true` writes it again."""
    write_page(ROWS, tmp_path / "board.md")
    assert (tmp_path / "board.md").read_text() == PAGE.read_text()


def test_the_page_holds_what_the_board_promises():
    rows = {row["name"]: row["tasks"] for row in read_rows(ROWS)}
    for task in TASKS:
        assert rows["real points"][task]["ties"]
    assert {"ddpm", "adams", "dpmpp_2m"} <= {each.name for each in standings(read_rows(ROWS), "samplers")}
    ranks = {each.name: each.rank for each in standings(read_rows(ROWS), "samplers")}
    assert ranks["dpmpp_2m"] == ranks["diffusers DPM-Solver++(2M)"]
    for found in board_check.read_check(ROWS).values():
        assert found["ties"] >= 0.97 * found["real"]
        assert set(found["below"].values()) == {found["faulty"]}


@pytest.mark.slow
def test_a_training_can_be_measured(tmp_path):
    run_folder, cost = _trained(str(tmp_path), "dataset=grid", "max_steps=20")
    assert cost.seconds > 0
    assert cost.yardsticks > 0
    assert Pipeline.load(run_folder, "cpu").sample(10).shape == (10, 2)


def test_the_process_ends_in_noise():
    assert SCHEDULER.signal_warning() is None


def test_the_rows_are_named_in_the_repository():
    assert ROWS == ROOT / "benchmarks" / "board_rows"
