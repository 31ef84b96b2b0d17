"""Tables that are written: what points.tables reads of them is what was written."""

import numpy as np
import pytest

from points.table_writer import write_table
from points.tables import Columns, label_position, read_any_table

HOSTILE = ["a", "b c", 'a"b', '"q"', "x,y", "#h", "l\nb", "l\n#c", "1990", "-3", "NA", "a;b", "tab\tt", "é", "it's", ""]
CLASSES = ["#1", 'Ideal, "very"', "two\nlines", "7"]


def normal(shape, dtype=np.float32):
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


@pytest.mark.parametrize("first", range(0, len(HOSTILE), 2))
@pytest.mark.parametrize("rows", [2, 12])
def test_names_of_any_characters_come_again(first, rows, tmp_path):
    names = tuple(HOSTILE[first : first + 2])
    points = normal((rows, 2))
    write_table(tmp_path / "a.csv", points, Columns(names, (False, False)))
    table = read_any_table(str(tmp_path / "a.csv"))
    assert table.columns.names == names
    assert np.array_equal(table.numbers.astype(np.float32), points)


def test_labels_of_any_characters_come_again(tmp_path):
    labels = np.arange(12) % len(CLASSES)
    columns = Columns(("x", "y"), (False, False), 'the "cut", graded')
    write_table(tmp_path / "a.csv", normal((12, 2)), columns, labels, CLASSES)
    table = read_any_table(str(tmp_path / "a.csv"), label='the "cut", graded')
    assert table.labels is not None
    assert [table.label_texts[code] for code in table.labels] == [CLASSES[label] for label in labels]
    assert table.columns == columns


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e8, 1e15])
def test_every_digit_comes_again(dtype, scale, tmp_path):
    points = (normal((500, 3), np.float64) * scale).astype(dtype)
    write_table(tmp_path / "a.csv", points, Columns(("x", "y", "z"), (False,) * 3))
    numbers = read_any_table(str(tmp_path / "a.csv")).numbers
    assert np.array_equal(numbers.astype(dtype), points)


def test_columns_of_whole_numbers_are_rounded(tmp_path):
    points = np.array([[-0.4, 2.6], [1e20, -7.5], [3.2, 0.1]])
    write_table(tmp_path / "a.csv", points[[0, 2]], Columns(("n", "x"), (True, False)))
    assert (tmp_path / "a.csv").read_text().splitlines() == ['"n","x"', "0,2.6", "3,0.1"]
    write_table(tmp_path / "b.csv", points, Columns(("n", "x"), (True, False)))
    assert read_any_table(str(tmp_path / "b.csv")).numbers[:, 0].tolist() == [0, 1e20, 3]


@pytest.mark.parametrize(("label", "position"), [("0", 0), ("-1", 2), ("1", 1), ("kind", 2), (None, 2), ("9", 2)])
def test_without_names_there_is_no_header_and_the_labels_stand_where_they_stood(label, position, tmp_path):
    points = normal((20, 2))
    labels = np.arange(20) % 2
    write_table(tmp_path / "a.csv", points, Columns((), (False, False)), labels, ["a", "b"], label)
    table = read_any_table(str(tmp_path / "a.csv"), label=str(label_position(label, 2)))
    assert label_position(label, 2) == position
    assert table.columns.names == ()
    assert np.array_equal(table.numbers.astype(np.float32), points)
    assert [table.label_texts[code] for code in table.labels] == ["a", "b"] * 10
