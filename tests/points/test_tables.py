"""A user's table: every way in which people write one, read from real files."""

import gzip
import zipfile

import numpy as np
import pandas as pd
import pytest

from points.tables import Columns, coordinate_names, read_any_table

POINTS = [[1.5, 2.0], [3.25, 4.0], [-5.0, 6e-3]]


def written(folder, text, name="x.csv", encoding="utf-8"):
    """The path of a file with this text."""
    (folder / name).write_bytes(text.encode(encoding))
    return str(folder / name)


def labels(table):
    """The label of each row."""
    return [table.label_texts[code] for code in table.labels]


# ---------------------------------------------------------------- how a text is written

TEXTS = {
    "commas": "a,b\n1.5,2\n3.25,4\n-5,6e-3\n",
    "spaces after commas": "a, b\n1.5, 2\n3.25, 4\n-5, 6e-3\n",
    "semicolons": "a;b\n1.5;2\n3.25;4\n-5;6e-3\n",
    "decimal commas": "a;b\n1,5;2\n3,25;4\n-5;6e-3\n",
    "tabs and decimal commas": "a\tb\n1,5\t2\n3,25\t4\n-5\t6e-3\n",
    "bars": "a|b\n1.5|2\n3.25|4\n-5|6e-3\n",
    "spaces": "  a    b\n 1.5    2\n3.25   4\n  -5   6e-3\n",
    "a header of np.savetxt": "# a b\n1.5 2\n3.25 4\n-5 6e-3\n",
    "a header in a comment": "# made by hand\n# a,b\n1.5,2\n3.25,4\n-5,6e-3\n",
    "a comment above the header": "# made by hand\n\na,b\n1.5,2\n3.25,4\n-5,6e-3\n",
    "a comment below the header": "a,b\n1.5,2\n# a pause\n3.25,4\n-5,6e-3\n",
    "a comment of other length": "a,b\n1.5,2\n# a, long, pause\n3.25,4\n-5,6e-3\n",
    "line ends of Windows": "a,b\r\n1.5,2\r\n3.25,4\r\n-5,6e-3\r\n",
    "line ends of old Macs": "a,b\r1.5,2\r3.25,4\r-5,6e-3\r",
    "quotes": '"a","b"\n"1.5","2"\n"3.25","4"\n"-5","6e-3"\n',
    "empty lines": "a,b\n\n1.5,2\n\n3.25,4\n-5,6e-3\n\n\n",
    "no line end": "a,b\n1.5,2\n3.25,4\n-5,6e-3",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_every_common_way_to_write_a_table_is_read(text, tmp_path):
    table = read_any_table(written(tmp_path, text))
    np.testing.assert_array_equal(table.numbers, POINTS)
    assert table.columns.names == ("a", "b")
    assert table.notes == []


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_every_common_encoding_is_read(encoding, tmp_path):
    table = read_any_table(written(tmp_path, TEXTS["commas"].replace("a", "Größe"), encoding=encoding))
    np.testing.assert_array_equal(table.numbers, POINTS)
    assert table.columns.names == ("Größe", "b")


def test_a_letter_beyond_the_beginning_of_the_file_does_not_change_what_is_read(tmp_path):
    rows = "".join(f"{i}.5,{i},a\n" for i in range(40_000))
    table = read_any_table(written(tmp_path, f"x,y,kind\n{rows}1,2,ü\n", encoding="cp1252"), label="kind")
    assert (len(table.numbers), labels(table)[-1]) == (40_001, "ü")


@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz", "x.txt"])
def test_a_packed_text_is_read_whatever_it_is_called(name, tmp_path):
    (tmp_path / name).write_bytes(gzip.compress(TEXTS["commas"].encode()))
    np.testing.assert_array_equal(read_any_table(str(tmp_path / name)).numbers, POINTS)


def test_an_archive_of_one_table_is_read_and_one_of_two_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "one.zip", "w") as archive:
        archive.writestr("a.csv", TEXTS["commas"])
    np.testing.assert_array_equal(read_any_table(str(tmp_path / "one.zip")).numbers, POINTS)
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.csv", TEXTS["commas"])
        archive.writestr("b.csv", TEXTS["commas"])
    with pytest.raises(ValueError, match=r"two\.zip must hold one table, and holds 2 files"):
        read_any_table(str(tmp_path / "two.zip"))


@pytest.mark.parametrize("length", [5, 30, -3])
def test_an_archive_that_was_cut_off_is_refused_in_a_sentence(length, tmp_path):
    packed = gzip.compress("".join(f"{i},{i * i % 977}\n" for i in range(999)).encode())
    (tmp_path / "x.csv.gz").write_bytes(packed[:length])
    with pytest.raises(ValueError, match=r"x\.csv\.gz"):
        read_any_table(str(tmp_path / "x.csv.gz"))


def test_a_parquet_file_keeps_its_names(tmp_path):
    pd.DataFrame(POINTS, columns=["a", "b"]).to_parquet(tmp_path / "x.parquet")
    table = read_any_table(str(tmp_path / "x.parquet"))
    np.testing.assert_array_equal(table.numbers, POINTS)
    assert table.columns.names == ("a", "b")


def test_a_workbook_keeps_its_names_and_its_missing_values(tmp_path):
    pytest.importorskip("openpyxl")
    cells = {"a": [1.5, 3.25, 7], "b": [2, 4, "?"], "kind": ["u", "v", "v"]}
    pd.DataFrame(cells).to_excel(tmp_path / "x.xlsx")
    table = read_any_table(str(tmp_path / "x.xlsx"), label="kind", missing="drop")
    np.testing.assert_array_equal(table.numbers, POINTS[:2])
    assert table.columns.names == ("a", "b")
    assert labels(table) == ["u", "v"]


def test_a_text_that_is_called_xlsx_is_read_and_a_workbook_that_is_called_csv_is_named(tmp_path):
    np.testing.assert_array_equal(read_any_table(written(tmp_path, TEXTS["commas"], "x.xlsx")).numbers, POINTS)
    with zipfile.ZipFile(tmp_path / "book.csv", "w") as archive:
        archive.writestr("xl/workbook.xml", "")
        archive.writestr("other.xml", "")
    with pytest.raises(ValueError, match=r"is not a text but an Excel workbook: name it \.xlsx"):
        read_any_table(str(tmp_path / "book.csv"))


@pytest.mark.parametrize(
    ("start", "kind"),
    [(b"PAR1", "parquet"), (b"\x93NUMPY\x01", "NumPy"), (b"\x89PNG\r\n", "picture"), (b"%PDF-1.7", "PDF")],
)
def test_what_is_no_text_is_named(start, kind, tmp_path):
    (tmp_path / "x.csv").write_bytes(start + bytes(range(256)) * 3)
    with pytest.raises(ValueError, match=kind):
        read_any_table(str(tmp_path / "x.csv"))


def test_bytes_without_meaning_are_refused(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"\1\2\0\3\xff\4" * 50)
    with pytest.raises(ValueError, match="holds bytes that are no text"):
        read_any_table(str(tmp_path / "x.csv"))


@pytest.mark.parametrize("name", ["x.npy", "x.NPY"])
def test_an_array_is_read_whatever_the_case_of_its_ending(name, tmp_path):
    with open(tmp_path / name, "wb") as file:
        np.save(file, np.array(POINTS))
    np.testing.assert_array_equal(read_any_table(str(tmp_path / name)).numbers, POINTS)


def test_an_array_of_records_keeps_its_names(tmp_path):
    records = np.array([(1.5, 2, "u"), (3.25, 4, "v")], dtype=[("a", float), ("b", int), ("kind", "U3")])
    np.save(tmp_path / "x.npy", records)
    table = read_any_table(str(tmp_path / "x.npy"), label="kind")
    np.testing.assert_array_equal(table.numbers, POINTS[:2])
    assert table.columns == Columns(("a", "b"), (False, True), "kind")
    assert labels(table) == ["u", "v"]


# ---------------------------------------------------------------- names, and what is a header


@pytest.mark.parametrize(
    ("text", "names", "rows"),
    [
        ("1,2\n3,4\n", (), 2),
        ("1,2,a\n3,4,b\n5,6,b\n", (), 3),
        ("species,1990,1991\nu,5.1,2.5\nv,3.2,4.5\nu,4.1,5.5\n", ("1990", "1991"), 3),
        ("year,1990\n2.5,5.1\n3.5,3.2\n", ("year", "1990"), 2),
        ("NA,2\n3,4\n5,6\n", (), 2),
        ('a,"b\nc"\n1,2\n3,4\n', ("a", "b\nc"), 2),
    ],
)
def test_names_are_recognised_by_what_stands_below_them(text, names, rows, tmp_path):
    is_text = [i for i, cell in enumerate(text.splitlines()[1].split(",")) if cell.isalpha()]
    label = str(is_text[0]) if is_text else None
    table = read_any_table(written(tmp_path, text), label=label, missing="drop")
    assert table.columns.names == names
    assert len(table.numbers) == rows


def test_a_header_that_lacks_the_name_of_the_row_names_is_completed(tmp_path):
    table = read_any_table(written(tmp_path, '"a" "b"\n"first" 1.5 2\n"second" 3.25 4\n"third" -5 6e-3\n'))
    np.testing.assert_array_equal(table.numbers, POINTS)
    assert table.columns.names == ("a", "b")


@pytest.mark.parametrize("head", ['""', "", "Unnamed: 0", "id", "rownames"])
@pytest.mark.parametrize("first", [0, 1])
def test_a_row_number_is_left_out_and_a_line_says_so(head, first, tmp_path):
    rows = [f"{i + first},{i * i},{0.5 - i}" for i in range(12)]
    table = read_any_table(written(tmp_path, "\n".join([f"{head},a,b", *rows])))
    assert table.columns.names == ("a", "b")
    assert len(table.notes) == 1
    assert "left out: " in table.notes[0]


def test_a_first_column_without_a_name_is_left_out_whatever_it_holds(tmp_path):
    table = read_any_table(written(tmp_path, ",a,b\n1947,1,2\n1950,3,4\n"))
    assert table.numbers.tolist() == [[1, 2], [3, 4]]


def test_a_row_number_can_be_asked_for(tmp_path):
    rows = [f"{i},{i * i},{0.5 - i}" for i in range(12)]
    table = read_any_table(written(tmp_path, "\n".join([",a,b", *rows])), columns=["0", "b"])
    assert table.columns.names == ("", "b")
    assert table.numbers[:, 0].tolist() == list(range(12))


def test_a_column_that_counts_under_another_name_is_kept_with_a_line(tmp_path):
    rows = [f"{i},{0.5 - i * i}" for i in range(12)]
    table = read_any_table(written(tmp_path, "\n".join(["t,b", *rows])))
    assert table.columns.names == ("t", "b")
    assert "t counts the rows" in table.notes[0]


def test_columns_are_chosen_in_the_order_asked_for(tmp_path):
    path = written(tmp_path, "a,b,c\n1,2,3\n4,5,6\n")
    assert read_any_table(path, columns=["c", "a"]).numbers.tolist() == [[3, 1], [6, 4]]
    with pytest.raises(ValueError, match=r"no column 'z' for dataset\.columns; its columns are a, b, c"):
        read_any_table(path, columns=["a", "z"])
    with pytest.raises(ValueError, match=r"names the column a of .* twice"):
        read_any_table(path, columns=["a", "0"])
    with pytest.raises(ValueError, match="cannot be both"):
        read_any_table(path, label="b", columns=["a", "b"])


def test_quotes_hold_separators_and_signs_of_comments(tmp_path):
    table = read_any_table(written(tmp_path, 'a,b,kind\n1,2,"x, #1"\n3,4,"y"\n'), label="kind")
    assert labels(table) == ["x, #1", "y"]


@pytest.mark.parametrize(("columns", "dim", "names"), [
    (None, 2, ["x", "y"]), (None, 5, ["x1", "x2", "x3", "x4", "x5"]), (Columns(("a", "b")), 2, ["a", "b"]),
])  # fmt: skip
def test_coordinates_without_names_get_some(columns, dim, names):
    assert coordinate_names(columns, dim) == names


# ---------------------------------------------------------------- missing values, labels, whole numbers


@pytest.mark.parametrize("missing", ["", "NA", "N/A", "null", "-", "?", "nan", "None", "."])
def test_the_usual_spellings_are_missing_values_in_numbers_and_in_labels(missing, tmp_path):
    path = written(tmp_path, f"a,b,kind\n1,2,u\n3,{missing},v\n4,5,{missing}\n6,7,v\n")
    with pytest.raises(ValueError, match=r"2 rows lack a value, of 4; by column: b \(1\), kind \(1\); .* row 2"):
        read_any_table(path, label="kind")
    table = read_any_table(path, label="kind", missing="drop")
    assert table.numbers.tolist() == [[1, 2], [6, 7]]
    assert labels(table) == ["u", "v"]
    assert table.notes == ["left out: 2 rows lack a value, of 4; by column: b (1), kind (1)"]


def test_a_missing_value_of_a_column_that_is_not_learnt_does_no_harm(tmp_path):
    path = written(tmp_path, "a,b,c\n1,2,\n3,4,5\n")
    assert read_any_table(path, columns=["a", "b"]).numbers.tolist() == [[1, 2], [3, 4]]


def test_missing_numbers_of_an_array_are_refused_or_left_out(tmp_path):
    np.save(tmp_path / "x.npy", [[1, 2], [3, np.nan], [5, 6]])
    with pytest.raises(ValueError, match="1 row lacks a value, of 3; by column: 1"):
        read_any_table(str(tmp_path / "x.npy"))
    assert read_any_table(str(tmp_path / "x.npy"), missing="drop").numbers.tolist() == [[1, 2], [5, 6]]


def test_labels_stay_as_they_are_written(tmp_path):
    table = read_any_table(written(tmp_path, "a,b,kind\n1,2,001\n3,4,true\n5,6,1.50\n"), label="kind")
    assert labels(table) == ["001", "true", "1.50"]


def test_whole_numbers_are_noticed_and_the_description_survives_a_checkpoint(tmp_path):
    columns = read_any_table(written(tmp_path, "a,b,kind\n1,2.5,u\n3,4,v\n"), label="kind").columns
    assert columns == Columns(("a", "b"), (True, False), "kind")
    assert Columns.from_plain(columns.as_plain()) == columns


@pytest.mark.parametrize("plain", [3, {}, {"names": [1], "whole": [True], "label": ""}, {"names": None}])
def test_a_damaged_description_is_refused(plain):
    with pytest.raises(ValueError, match="not those of a table"):
        Columns.from_plain(plain)


# ---------------------------------------------------------------- headers in quotes


def test_a_header_in_quotes_may_hold_line_ends_and_signs_of_comments(tmp_path):
    (tmp_path / "a.csv").write_text('"length\n#1","b"\n1.5,2\n3,4\n# a comment\n5,6\n')
    table = read_any_table(str(tmp_path / "a.csv"))
    assert table.columns.names == ("length\n#1", "b")
    assert table.numbers.tolist() == [[1.5, 2], [3, 4], [5, 6]]


def test_a_first_row_in_quotes_above_rows_without_is_a_header(tmp_path):
    (tmp_path / "a.csv").write_text('"1990","1991"\n1.5,2\n3,4\n')
    assert read_any_table(str(tmp_path / "a.csv")).columns.names == ("1990", "1991")


def test_rows_that_are_all_in_quotes_have_no_header(tmp_path):
    (tmp_path / "a.csv").write_text('"1990","1991"\n"1.5","2"\n"3","4"\n')
    assert len(read_any_table(str(tmp_path / "a.csv")).numbers) == 3
