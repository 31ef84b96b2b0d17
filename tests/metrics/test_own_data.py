"""The evaluation of a file of one's own: labels, units, repeated rows, few rows, whole numbers."""

import numpy as np
import pandas as pd
import pytest
import torch

from dataset import PointSet, held_out_points, make_sets
from metrics.by_label import energies_by_label
from metrics.detectable import detectable_shift, shift_text
from metrics.evaluation import (
    distinct_rows,
    evaluate_file,
    evaluate_point_set,
    labels_of_real,
    real_draws,
    with_whole_numbers,
)
from metrics.significance import MAX_SAMPLES
from points.tables import Columns

ROWS = 2000


def table(count, seed):
    """Points of three labels that differ, and two columns that depend on each other: a frame."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 3, count)
    a = rng.normal(size=count) + 2 * kind
    b = a**2 / 4 + 0.3 * rng.normal(size=count)
    return pd.DataFrame({"a": a, "b": b, "kind": np.array(["u", "v", "w"])[kind]})


def evaluation(data, samples, folder):
    """The evaluation of a frame of samples against a file of data."""
    data.to_csv(folder / "data.csv", index=False)
    samples.to_csv(folder / "samples.csv", index=False)
    options = {"name": "file", "path": str(folder / "data.csv"), "label": "kind"}
    found, _ = evaluate_file(str(folder / "samples.csv"), options, 10_000, 0)
    return found


def rows_by_name(found):
    return {row.name: row for row in found.rows}


def failed(found):
    return {row.name for row in found.rows if not row.passed}


# ---------------------------------------------------------------- labels


def test_samples_with_their_labels_pass(tmp_path):
    found = evaluation(table(ROWS, 0), table(ROWS, 1), tmp_path)
    assert failed(found) == set()
    assert "energy by label" in rows_by_name(found)
    assert [each.label for each in found.by_label] == [0, 1, 2]


def test_permuted_labels_fail_although_the_points_are_right(tmp_path):
    samples = table(ROWS, 1)
    samples["kind"] = np.random.default_rng(2).permutation(samples["kind"])
    found = evaluation(table(ROWS, 0), samples, tmp_path)
    assert failed(found) == {"energy by label", "classifier accuracy"}


def test_one_label_that_is_wrong_is_named(tmp_path):
    samples = table(ROWS, 1)
    samples.loc[samples["kind"] == "w", ["a", "b"]] = table(ROWS, 3).loc[samples["kind"] == "w", ["a", "b"]]
    found = evaluation(table(ROWS, 0), samples, tmp_path)
    worst = min(found.by_label, key=lambda each: each.p)
    assert "energy by label" in failed(found)
    assert worst.label == 2


def test_a_label_that_the_data_do_not_have_is_refused(tmp_path):
    samples = table(ROWS, 1).replace({"kind": {"w": "z"}})
    with pytest.raises(ValueError, match="the samples have the label z, and the data only u, v, w"):
        evaluation(table(ROWS, 0), samples, tmp_path)


def test_the_energy_by_label_keeps_its_level_for_unequal_and_few_labels():
    p = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        labels = [rng.choice(3, 40, p=[0.8, 0.15, 0.05]) for _ in range(2)]
        samples, real = ([[2.0 * k, 0.0] for k in each] + rng.normal(size=(40, 2)) for each in labels)
        p.append(float(energies_by_label(samples, labels[0], real, labels[1], seed)[0].p))
    # Binomial(100, 0.1): more than 20 has a probability of 0.1 %, and less than 80 of 0.5 the same.
    assert sum(each <= 0.1 for each in p) <= 20
    assert 34 <= sum(each <= 0.5 for each in p) <= 66


def test_the_labels_of_exact_draws_are_those_of_their_parts():
    data, _ = make_sets("moons", 100, 0, noise=0.05)
    assert isinstance(data, PointSet)
    points = real_draws(data, 3)(MAX_SAMPLES, 0)
    labels = labels_of_real(data, 3)
    densities = [part.log_density(torch.from_numpy(points)) for part in data.parts]
    nearer = (densities[1] > densities[0]).numpy()
    assert (nearer == labels).mean() > 0.999


# ---------------------------------------------------------------- units, zero, order, repetitions


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return evaluation(table(ROWS, 0), table(ROWS, 1), tmp_path_factory.mktemp("plain"))


def changed(frame, shift=(0.0, 0.0), scale=(1.0, 1.0)):
    return frame.assign(a=shift[0] + scale[0] * frame["a"], b=shift[1] + scale[1] * frame["b"])


@pytest.mark.parametrize(("shift", "scale"), [((0, 0), (1e-3, 1e3)), ((1e8, -3), (1, 1)), ((1.7e9, 0), (86_400, 1e-6))])
def test_no_figure_depends_on_the_units_or_the_zero_of_a_column(shift, scale, plain, tmp_path):
    frames = [changed(table(ROWS, seed), shift, scale) for seed in (0, 1)]
    found = rows_by_name(evaluation(*frames, tmp_path))
    for name, row in rows_by_name(plain).items():
        # A tree's bins move by the rounding of float32: a few points in a thousand change sides.
        tolerance = 0.01 if name == "classifier accuracy" else 1e-3
        assert found[name].value == pytest.approx(row.value, abs=tolerance), name


@pytest.mark.parametrize("scale", [(1, 1), (1e-3, 1e3)])
def test_a_column_that_is_permuted_fails_in_any_units(scale, tmp_path):
    samples = table(ROWS, 1)
    samples["b"] = np.random.default_rng(0).permutation(samples["b"])
    found = evaluation(changed(table(ROWS, 0), scale=scale), changed(samples, scale=scale), tmp_path)
    assert {"classifier accuracy", "neighbours"} <= failed(found)


def test_the_order_of_columns_and_of_samples_changes_no_verdict(plain, tmp_path):
    data, samples = table(ROWS, 0), table(ROWS, 1)
    order = np.random.default_rng(0).permutation(ROWS)
    found = evaluation(data[["b", "kind", "a"]], samples.iloc[order], tmp_path)
    assert failed(found) == failed(plain)


def repeated(frame):
    """Each row five times, in random order."""
    return pd.concat([frame] * 5).sample(frac=1, random_state=0)


def test_repeated_rows_stay_on_one_side_of_the_split():
    points = np.random.default_rng(0).normal(size=(300, 2)).astype(np.float32)
    order = np.random.default_rng(1).permutation(1500)
    train, unseen = held_out_points(PointSet(np.repeat(points, 5, 0)[order]))
    shared = {tuple(row) for row in train.points} & {tuple(row) for row in unseen.points}
    assert not shared
    assert (len(train), len(unseen)) == (1200, 300)


def test_repeated_rows_count_once_and_rounded_numbers_as_often_as_they_occur():
    points = np.random.default_rng(0).normal(size=(300, 2)).astype(np.float32)
    assert len(distinct_rows(PointSet(np.repeat(points, 5, 0)))) == 300
    rounded = PointSet(np.round(points))
    assert distinct_rows(rounded) is rounded


def test_perfect_samples_of_repeated_rows_pass(tmp_path):
    data = repeated(table(ROWS, 0))
    assert failed(evaluation(data, table(ROWS, 1), tmp_path)) == set()


def test_near_copies_of_training_rows_fail_although_each_row_occurs_five_times(tmp_path):
    data = repeated(table(ROWS, 0))
    data.to_csv(tmp_path / "data.csv", index=False)
    options = {"path": str(tmp_path / "data.csv"), "columns": ["a", "b"]}
    train, unseen = make_sets("file", None, 0, **options)
    assert isinstance(train, PointSet)
    assert isinstance(unseen, PointSet)
    rng = np.random.default_rng(0)
    learnt = np.unique(train.points, axis=0)
    copies = learnt[rng.permutation(len(learnt))[:1000]]
    copies = copies + 1e-3 * rng.normal(size=copies.shape).astype(np.float32)
    found = evaluate_point_set(copies, None, unseen, train, 0)
    assert "memorised" in failed(found)


# ---------------------------------------------------------------- few rows, whole numbers


def test_a_file_of_150_rows_is_evaluated_with_its_30_held_out_rows_and_says_what_these_can_show(tmp_path):
    found = evaluation(table(150, 0), table(500, 1), tmp_path)
    rows = rows_by_name(found)
    assert {rows[name].n for name in ("energy distance", "neighbours")} == {30}
    assert 0 < rows["energy by label"].n <= 30
    assert "classifier accuracy" not in rows_by_name(found)
    assert any("with 30 held-out rows, the tests find a shift of one column by" in note for note in found.notes)


def test_few_perfect_samples_pass_and_shifted_ones_fail(tmp_path):
    outcomes = []
    for seed in range(10):
        outcomes.append(failed(evaluation(table(150, seed), table(500, 100 + seed), tmp_path)))
    # Each of ten fails with a probability of at most 1 %: two or more have one of 0.5 %.
    assert sum(bool(each) for each in outcomes) <= 1
    shifted = changed(table(500, 1), shift=(4, 0))
    assert "energy distance" in failed(evaluation(table(150, 0), shifted, tmp_path))


def test_the_shift_that_few_rows_can_show_is_indeed_found_and_falls_with_their_number():
    rows = np.random.default_rng(0).normal(size=(2000, 2))
    shifts = [detectable_shift(rows, n, 0.0025, 0) for n in (20, 60, 300)]
    assert None not in shifts
    assert shifts == sorted(shifts, reverse=True)
    assert shifts[0] > shifts[-1]
    assert "even a shift of a column by 5" in shift_text(None, 20)


def test_whole_columns_are_compared_as_they_are_written():
    points = np.array([[1.4, 2.6], [-0.2, 3.1]], np.float32)
    data = PointSet(points, columns=Columns(("a", "b"), (False, True)))
    np.testing.assert_array_equal(with_whole_numbers(points, data)[:, 1], [3, 3])
    np.testing.assert_array_equal(with_whole_numbers(points, data)[:, 0], points[:, 0])


def test_rows_that_recur_by_chance_are_kept_although_one_column_has_many_values():
    rng = np.random.default_rng(0)
    price = np.round(1000 * np.exp(0.5 * rng.normal(size=2000)))
    carat = np.round(price / 1000 + 0.05 * rng.normal(size=2000), 1)
    data = PointSet(np.column_stack([price, carat]).astype(np.float32))
    assert len(np.unique(data.points, axis=0)) < len(data)
    assert distinct_rows(data) is data


def test_the_split_of_rounded_numbers_prefers_no_value():
    # Half of the rows have one of ten values, and the others values of their own, all of them whole.
    rng = np.random.default_rng(0)
    common = rng.random(5000) < 0.5
    x = np.where(common, rng.integers(0, 10, 5000), rng.integers(100, 3000, 5000))
    train, unseen = held_out_points(PointSet(np.column_stack([x, x % 3]).astype(np.float32)))
    shares = [float((part.points[:, 0] < 10).mean()) for part in (train, unseen)]
    # The share of 1,000 held-out rows has a standard error of 1.6 %.
    assert abs(shares[0] - shares[1]) < 0.08
