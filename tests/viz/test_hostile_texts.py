"""No text of a user is read as a formula or as markup: pictures show what was written."""

import io
import json
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import succeeded, untrained
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from conf.groups import MLP
from conf.groups import Text as TextSet
from loss.runs import Run, runs
from metrics.columns import compare_columns
from points.tables import Columns
from samplers.options import SamplingOptions
from viz import column_pictures, components, image_grids, learning, search_pictures, stills, sweeps
from viz.films import point_film
from viz.pages.explorable.page import explorable
from viz.pages.gallery_page import Entry, gallery
from viz.pages.sweep_page import sweep_page
from viz.recording import score_panel
from viz.scene import Process, Scene
from viz.style import literal, literal_markdown

NAMES = ["$$", "b$x_$", "<b>&", "a_b^c", "\\frac", "%s", "{}", "_hidden", "$\\alpha$", "\\$", "*b* [a](b)", "</script>"]
POINTS = np.random.default_rng(0).standard_normal((60, 6))
LABELS = np.arange(60) % 2


def texts(figure):
    """What the texts of a figure say once they are drawn; none of them may be a formula."""
    figure.savefig(io.BytesIO(), format="png")
    shown = []
    for text in figure.findobj(Text):
        content, is_formula = text._preprocess_math(text.get_text())
        assert not is_formula or "mathdefault" in content, content
        shown.append(content)
    return "\n".join(shown)


def losses(name):
    run = {"step": np.arange(1, 30), "loss": np.linspace(1, 0.1, 29)}
    return learning.losses({literal(name): run, literal("other"): run}, {}, [])


def histogram(name):
    return components.label_histogram({name: 3, "other": 4}, f"labels of the images in {name}")


def grid(name):
    return components.image_grid(np.zeros((2, 1, 4, 4)), [name, "other"], f"images in {name}")


def search(name):
    return search_pictures.slices({"dataset.text": [name, "other"]}, [1.0, 2.0], "loss", [])


def samples(name):
    columns = Columns((name, "other"), (False, False), name)
    return stills.samples(POINTS[:, :2], POINTS[:, 2:4], LABELS, LABELS, [name, "other"], columns=columns)


def samples_in_space(name):
    columns = Columns((name, "b", "c"), (False,) * 3, name)
    return stills.samples(POINTS[:, :3], POINTS[:, 3:], LABELS, LABELS, [name, "other"], columns=columns)


def pairs(name):
    columns = Columns((name, *"bcdef"), (False,) * 6, name)
    return stills.samples(POINTS, POINTS + 1, LABELS, LABELS, [name, "other"], columns=columns)


def column_report(name):
    columns = Columns((name, "other"), (False, False), name)
    report = compare_columns(POINTS[:, :2], POINTS[:, 2:4], columns)
    return column_pictures.columns_figure(report, POINTS[:, :2], POINTS[:, 2:4])


def images(name):
    pictures = np.zeros((6, 1, 8, 8), np.float32)
    return image_grids.samples(pictures, [0, 1] * 3, [name, "other"], "")


PICTURES = {
    "losses": losses,
    "histogram": histogram,
    "grid": grid,
    "search": search,
    "samples": samples,
    "samples in space": samples_in_space,
    "pairs": pairs,
    "columns": column_report,
    "images": images,
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", PICTURES)
def test_a_picture_shows_a_name_as_it_is(kind, name):
    assert name in texts(PICTURES[kind](name))


@pytest.mark.parametrize("name", NAMES)
def test_a_film_shows_its_title_as_it_is(name):
    states = np.random.default_rng(0).standard_normal((3, 20, 2))
    scene = Scene([Process("reverse", states, np.array([2, 1, 0]))])
    figure = Figure()
    figure.suptitle(point_film.reverse_panel(name, scene).title)
    assert name in texts(figure)


@pytest.mark.parametrize("name", NAMES)
def test_a_recording_shows_a_label_as_it_is(name):
    markdown = literal_markdown(name)
    assert markdown.replace("\\\\", "\0").replace("\\", "").replace("\0", "\\") == name
    scene = SimpleNamespace(fields=[SimpleNamespace(label=0, name="network")], classes=[name])
    (line,) = score_panel.words(scene).sees
    assert f"for label {markdown}, to" in line


# ---------------------------------------------------------------- the sheet of a sweep


@pytest.mark.parametrize("name", [*NAMES, "two\nlines", "é 漢"])
def test_a_sheet_names_every_run(name, tmp_path):
    for number, text in enumerate([name, "other"]):
        folder = tmp_path / str(number)
        (folder / ".hydra").mkdir(parents=True)
        (folder / ".hydra/overrides.yaml").write_text(json.dumps([f"dataset.text={text}"]))
        Image.new("RGB", (400, 20), "white").save(folder / "samples.png")
    sweeps.save_sheet(tmp_path, names=["samples.png"])
    sheet = np.asarray(Image.open(tmp_path / "sweep.png").convert("L"))
    first_line = sheet[: sweeps.LINE]
    second_line = sheet[sweeps.LINE + 20 : 2 * sweeps.LINE + 20]
    assert (first_line < 128).any() and (first_line != second_line).any()


# ---------------------------------------------------------------- pages


class Page(HTMLParser):
    """The tags of a page in their order, its texts, and the values of its attributes."""

    def __init__(self, html):
        super().__init__()
        self.tags = []
        self.words = []
        self.values = []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.values += [value for _, value in attributes]

    def handle_data(self, data):
        self.words.append(data)


def page_of_sweep(name):
    figures = {name: {"value": 1.0, "floor": 0.5, "passed": False, "verdict": name}}
    rows = [Run(name, Path(name), {"dataset.text": name}, {"dataset": {"text": name}}, {"figures": figures})]
    rows.append(Run("other", Path("other"), {"dataset.text": "b"}, {"dataset": {"text": "b"}}, {}, f"failed: {name}"))
    return sweep_page(f"Sweep {name}", rows)


def page_of_gallery(name):
    figures = {name: {"value": 1.0, "floor": 0.5, "passed": False, "verdict": name}}
    folder = Path("gallery", name)
    return gallery([Entry(name, name, [folder / "samples.png"], folder / "page.html", figures)])


def page_of_model(name):
    pipeline = untrained(TextSet(text=name), MLP(hidden=8, layers=1), num_samples=50)
    html, _ = explorable(pipeline, pipeline.resolve(SamplingOptions(sampler="adams", sampling_steps=3)), {})
    return html


PAGES = {"sweep": page_of_sweep, "gallery": page_of_gallery, "model": page_of_model}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", PAGES)
def test_a_page_shows_a_name_as_it_is_and_gains_no_tag(kind, name):
    found = Page(PAGES[kind](name))
    assert found.tags == Page(PAGES[kind]("harmless")).tags
    assert any(name in word for word in found.words)


# ---------------------------------------------------------------- all commands


@pytest.mark.slow
def test_a_table_of_hostile_names_passes_all_commands(tmp_path):
    names = [name for name in NAMES if "*" not in name]
    points = np.random.default_rng(0).normal(size=(880, 2)).round(4)
    rows = [f"{x},{y},{names[i % len(names)]}\n" for i, (x, y) in enumerate(points)]
    (tmp_path / "t.csv").write_text("b$x_$,</script>,$$\n" + "".join(rows))
    size = "num_timesteps=10 batch_size=64 model.hidden=8 model.layers=1 max_steps=20 eval_samples=100 conditional=true"
    run = "runs/<b>&%s{}"
    file = ["dataset=file", "dataset.path=t.csv", "dataset.label=$$", f"task_name={run}"]
    lines = [
        ["train.py", *size.split(), *file],
        ["inference.py", "num_samples=60", "labels=all", "viewer=file"],
        ["inference.py", "num_samples=60", "labels=[</script>]", "animation=gif", "rerun=false"],
        ["inference.py", "num_samples=60", "observe=</script>=1.5"],
        ["evaluate.py", "num_samples=100"],
        ["compare.py", "num_samples=100", "samplers=[ddim]", "--evaluations", "[3]"],
        ["main.py", *file[:3], "num_timesteps=10"],
        ["scripts/share.py", run],
        ["scripts/gallery.py", run],
        ["loss/report.py", "runs"],
        ["loss/plot.py", run, "--out", "losses.png"],
    ]
    for line in lines:
        printed = succeeded(line, tmp_path)
        assert "be drawn" not in printed, line
    (found,) = runs(tmp_path / "runs")
    assert found.fault == "" and "columns" in found.results
