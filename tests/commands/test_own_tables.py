"""A table of one's own, from the training to a table of samples, through the real commands."""

import json
import shutil

import numpy as np
import pytest
from conftest import command, not_blank, succeeded

from dataset import PointSet
from metrics.evaluation import read_like
from points.tables import Columns, read_any_table

SMALL = "model.hidden=16 model.layers=1 num_timesteps=20 max_steps=20 task_name=runs/gems"
FILE = "dataset=file dataset.path=gems.csv dataset.label=cut"
FAST = "num_samples=200 rerun=false"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a table and a training on it."""
    folder = tmp_path_factory.mktemp("gems")
    g = np.random.default_rng(0)
    rows = ['"carat (ct)",cut,price']
    for i in range(1000):
        carat = np.exp(g.normal())
        cut = "Good" if i % 20 else '"Ideal, #1"'
        rows.append(f"{carat:.3f},{cut},{1000 * carat + 100 * g.normal():.0f}")
    (folder / "gems.csv").write_text("\n".join(rows) + "\n")
    (folder / "train.txt").write_text(succeeded(f"train.py {FILE} conditional=true {SMALL} eval_samples=100", folder))
    return folder


@pytest.fixture
def workshop(trained, tmp_path):
    """A copy of that folder, into which a test may write."""
    return shutil.copytree(trained, tmp_path / "copy")


@pytest.fixture(scope="module")
def sampled(trained):
    """The folder of samples of that training, and what inference.py printed."""
    printed = succeeded(f"inference.py {FAST} hydra.run.dir=samples", trained)
    return trained / "samples", printed


# ---------------------------------------------------------------- samples.csv


def test_samples_come_as_a_table_like_the_one_that_was_learnt(sampled):
    folder, printed = sampled
    samples = np.load(folder / "samples.npy")
    table = read_any_table(str(folder / "samples.csv"), label="cut")
    assert f"table:      {folder.name}/samples.csv" in printed
    assert table.columns.names == ("carat (ct)", "price")
    assert np.array_equal(table.numbers[:, 0].astype(np.float32), samples[:, 0])
    assert np.array_equal(table.numbers[:, 1], np.round(samples[:, 1]))
    names = ["Good", "Ideal, #1"]
    assert table.labels is not None
    written = [table.label_texts[code] for code in table.labels]
    assert written == [names[label] for label in np.load(folder / "labels.npy")]


def test_classes_are_sampled_as_often_as_they_occur(sampled):
    labels = np.load(sampled[0] / "labels.npy")
    assert abs(labels.mean() - 0.05) < 0.02
    assert f"labels:     Good {np.sum(labels == 0)}, Ideal, #1 {np.sum(labels == 1)}; as often as in" in sampled[1]


@pytest.mark.slow
def test_all_labels_are_sampled_equally_often_where_that_is_asked(workshop):
    succeeded(f"inference.py labels=all {FAST} hydra.run.dir=samples", workshop)
    assert np.bincount(np.load(workshop / "samples" / "labels.npy")).tolist() == [100, 100]


# ---------------------------------------------------------------- evaluate.py samples=FILE


@pytest.mark.parametrize("header", ["price,note,carat", "carat,price", "note,carat,kind,price"])
def test_the_columns_of_a_table_are_found_by_name(header, tmp_path):
    values = {"carat": "1.5", "price": "7", "note": "a text", "kind": "b"}
    row = ",".join(values[name] for name in header.split(","))
    (tmp_path / "samples.csv").write_text("\n".join([header, row, row, row]))
    columns = Columns(("carat", "price"), (False, True), "kind")
    data = PointSet(np.ones((4, 2)), np.array([0, 0, 1, 1]), names=["a", "b"], columns=columns)
    found = read_like(str(tmp_path / "samples.csv"), data, 100, 0)
    assert found.points.tolist() == [[1.5, 7]] * 3
    assert (found.labels is not None) == ("kind" in header)


def test_the_labels_of_a_table_without_names_are_found_by_position(tmp_path):
    (tmp_path / "samples.csv").write_text("a,1.5,7\n" * 3 + "b,1.5,7\n")
    data = PointSet(np.ones((4, 2)), np.array([0, 0, 1, 1]), columns=Columns((), (False, True)))
    found = read_like(str(tmp_path / "samples.csv"), data, 100, 0, label="0")
    assert found.points.tolist() == [[1.5, 7]] * 4
    assert sorted(found.labels) == [0, 0, 0, 1]


@pytest.mark.slow
def test_a_table_of_samples_is_compared_by_the_names_of_its_columns(sampled, trained):
    numbers = read_any_table(str(sampled[0] / "samples.csv"), label="cut").numbers
    lines = ["price,note,carat (ct)"]
    lines += [f"{price:.0f},text {i},{carat}" for i, (carat, price) in enumerate(numbers)]
    (trained / "other.csv").write_text("\n".join(lines) + "\n")
    same = succeeded(f"evaluate.py samples=samples/samples.csv {FILE} hydra.run.dir=one", trained)
    succeeded(f"evaluate.py samples=other.csv {FILE} hydra.run.dir=two", trained)
    one, two = (json.loads((trained / name / "metrics.json").read_text()) for name in ("one", "two"))
    for name in ("energy distance", "neighbours"):  # the other file has no labels, so the levels differ
        assert one["figures"][name]["value"] == two["figures"][name]["value"]
    assert "worst column: " in same


def test_a_table_without_a_column_of_the_data_is_refused_by_name(trained):
    (trained / "lacks.csv").write_text("carat (ct),cost\n" + "1.5,2\n" * 200)
    done = command(f"evaluate.py samples=lacks.csv {FILE}", trained)
    assert done.returncode == 1
    assert done.stderr == "lacks.csv lacks the column price of the data, which has carat (ct), price\n"


# ---------------------------------------------------------------- the report of the columns


def test_a_training_reports_every_column(trained):
    report = json.loads((trained / "runs/gems/metrics.json").read_text())["columns"]
    assert [column["name"] for column in report["columns"]] == ["carat (ct)", "price"]
    assert f"worst column: {report['worst']}: " in (trained / "train.txt").read_text()
    assert not_blank(trained / "runs/gems/columns.png")


# ---------------------------------------------------------------- a file that was changed or is gone


def test_without_its_file_a_model_is_sampled_all_the_same(workshop):
    (workshop / "gems.csv").unlink()
    done = command("inference.py num_samples=200 animation=gif hydra.run.dir=samples", workshop)
    assert (done.returncode, done.stderr) == (0, "")
    assert "real side:  missing, because gems.csv cannot be read: No such file" in done.stdout
    assert "recording:  none, because" in done.stdout
    assert not_blank(workshop / "samples" / "samples.png")


@pytest.mark.slow
@pytest.mark.parametrize("line", ["evaluate.py", "compare.py samplers=[ddim] evaluations=[5] num_samples=100"])
@pytest.mark.parametrize("change", ["change", "remove"])
def test_another_file_is_refused_by_name(line, change, workshop):
    rows = (workshop / "gems.csv").read_text().splitlines()
    if change == "change":
        (workshop / "gems.csv").write_text("\n".join(rows[:-1]) + "\n")
    else:
        (workshop / "gems.csv").unlink()
    done = command(line, workshop)
    assert done.returncode == 1
    wrong = "gems.csv has changed since the training" if change == "change" else "gems.csv cannot be read"
    assert done.stderr.startswith(wrong)
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("change", ["change", "remove"])
@pytest.mark.parametrize(
    "line", ["flow=true num_samples=20 animation=none", "observe=price=1000 num_samples=20", "save_trajectory=true"]
)
def test_every_use_of_a_model_without_its_file_ends_well(line, change, workshop):
    if change == "change":
        (workshop / "gems.csv").write_text("a,b\n1,2\n3,4\n")
    else:
        (workshop / "gems.csv").unlink()
    done = command(f"inference.py {line}", workshop)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_a_page_is_made_without_the_file(workshop):
    (workshop / "gems.csv").unlink()
    succeeded("scripts/share.py", workshop)


# ---------------------------------------------------------------- observe


@pytest.mark.slow
def test_a_column_is_observed_by_its_name(trained):
    line = ["inference.py", "observe=carat (ct)=1.5", "num_samples=50", "hydra.run.dir=observed"]
    printed = succeeded(line, trained)
    assert "no truth is known" in printed
    assert read_any_table(str(trained / "observed/samples.csv")).columns.names == ("carat (ct)", "price")
    assert not_blank(trained / "observed/posterior.png")


def test_a_column_that_the_file_lacks_is_answered_with_its_columns(trained):
    done = command("inference.py observe=karat=1.5", trained)
    assert done.returncode == 1
    assert 'with the coordinates "carat (ct)", price: ' in done.stderr
    assert len(done.stderr.splitlines()) == 1
