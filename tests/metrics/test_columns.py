"""The report of each column, for samples whose faults are known."""

import json

import numpy as np
import pytest

from metrics.columns import column_lines, compare_columns, correlations, distribution_gap
from points.tables import Columns
from viz.column_pictures import columns_figure

NAMED = Columns(("carat", "price", "rain"), (False, True, False))


def real_points(count, seed):
    """Rows of a mass, of a whole number that grows with it, and of rain, which is 0 in two of five rows."""
    g = np.random.default_rng(seed)
    carat = np.exp(g.normal(size=count))
    price = np.round(1e4 * carat + 100 * g.normal(size=count))
    rain = np.where(g.random(count) < 0.4, 0, g.exponential(size=count))
    return np.column_stack([carat, price, rain])


REAL = real_points(2000, 0)


def test_the_gap_of_two_intervals_is_the_share_that_they_do_not_share():
    steps = np.arange(1024) / 1024
    assert distribution_gap(steps, steps + 0.25) == pytest.approx(0.25)
    assert distribution_gap(steps, steps) == 0


def test_real_points_stay_below_the_limit_and_about_the_floor():
    gaps = []
    for seed in range(1, 21):
        report = compare_columns(real_points(2000, seed), REAL, NAMED)
        assert all(column.gap <= column.limit for column in report.columns)
        gaps.append(report.columns[0].gap / report.columns[0].floor)
    assert 0.7 < np.median(gaps) < 1.5


@pytest.mark.parametrize("number", range(3))
def test_the_worst_column_is_the_one_that_was_moved(number):
    samples = real_points(2000, 1)
    samples[:, number] += 0.3 * samples[:, number].std()
    report = compare_columns(samples, REAL, NAMED)
    assert report.worst.name == NAMED.names[number]
    assert report.worst.gap > report.worst.limit
    assert column_lines(report)[0].startswith(f"worst column: {NAMED.names[number]}: ")


def test_the_worst_correlation_is_the_one_that_was_destroyed():
    samples = real_points(2000, 1)
    samples[:, 1] = np.random.default_rng(0).permutation(samples[:, 1])
    report = compare_columns(samples, REAL, NAMED)
    assert report.worst_pair == (0, 1)
    assert report.real[0, 1] > 0.95
    assert abs(report.generated[0, 1]) < 0.1


def test_quantiles_are_those_of_real_and_generated_points():
    report = compare_columns(REAL + [0, 0, 5], REAL, NAMED)
    assert report.columns[2].real[2] == np.median(REAL[:, 2])
    assert report.columns[2].generated[2] == pytest.approx(np.median(REAL[:, 2]) + 5)


def test_units_and_orders_of_columns_do_not_matter():
    samples = real_points(500, 1)
    scale = np.array([1e-6, 1.0, 1e7])
    plain = compare_columns(samples, REAL, NAMED)
    scaled = compare_columns(samples * scale, REAL * scale, NAMED)
    assert [c.gap for c in plain.columns] == [c.gap for c in scaled.columns]
    assert np.allclose(plain.real, scaled.real)


def test_the_share_of_samples_that_are_off_is_told():
    samples = real_points(1000, 1)
    samples[:250, 1] += 0.4  # no whole numbers
    samples[:100, 2] = -0.5
    _, price, rain = compare_columns(samples, REAL, NAMED).columns
    assert price.off == pytest.approx(0.25)
    assert rain.off == pytest.approx(0.1)
    assert "exactly 0 in 4" in rain.off_text


def test_whole_numbers_that_never_occur_are_told():
    real = np.repeat([[4.0, 0.1], [6.0, 0.2], [8.0, 0.4]], 20, 0)
    samples = real.copy()
    samples[:15, 0] = 5.02
    column = compare_columns(samples, real, Columns(("cylinders", "x"), (True, False))).columns[0]
    assert column.off == 0
    assert "rounded, 25.0% have a value that no real row has" in column.off_text


def test_a_constant_column_has_no_correlations_and_no_gap():
    real = np.column_stack([np.full(50, 3.0), np.arange(50.0)])
    samples = real + np.array([0.01, 0])
    samples[:10, 0] = 4
    report = compare_columns(samples, real, Columns(("c", "x"), (True, False)))
    assert report.columns[0].gap == 0
    assert report.columns[0].off == pytest.approx(0.2)
    assert correlations(real).tolist() == [[0, 0], [0, pytest.approx(1)]]


def test_samples_that_are_not_finite_are_left_out():
    samples = real_points(100, 1)
    samples[:5] = np.nan
    assert compare_columns(samples, REAL, NAMED).num_generated == 95
    assert compare_columns(np.full((100, 3), np.nan), REAL, NAMED) is None


def test_the_report_is_plain_data():
    report = compare_columns(real_points(100, 1), REAL, NAMED)
    plain = json.loads(json.dumps(report.as_plain()))
    assert [column["name"] for column in plain["columns"]] == [*NAMED.names]
    assert np.array(plain["correlations"]["real"]).shape == (3, 3)


@pytest.mark.parametrize("d", [2, 3, 10, 40])
def test_the_picture_has_the_worst_columns_and_both_matrices(d):
    g = np.random.default_rng(0)
    real = g.normal(size=(200, d))
    columns = Columns(tuple(f"$column {i}$" for i in range(d)), (False,) * d)
    report = compare_columns(g.normal(size=(200, d)), real, columns)
    figure = columns_figure(report, g.normal(size=(200, d)), real)
    figure.draw_without_rendering()
    shown = [ax for part in figure.subfigs for ax in part.axes if ax.get_visible()]
    assert len(shown) == min(d, 8) + 2 + 1
