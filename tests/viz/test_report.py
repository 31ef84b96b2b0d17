"""The page about a sweep: its content, its safety against the texts of runs, and its sorting in a browser."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from conftest import ROOT, command
from PIL import Image

from conf.sweep import ERROR
from loss.runs import differing, runs, runs_of_sweep
from viz import stills
from viz.colours import RUNS_ON_DARK, RUNS_ON_LIGHT, run_colours
from viz.evaluation_pictures import save_sweep
from viz.pages.svg_curves import _Axis, chart
from viz.pages.sweep_page import sweep_page

NASTY = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"
CHROMIUM = shutil.which("chromium")


def make_run(folder, options, value=None, error=None, steps=4):
    """Make a run folder like those of train.py. Without a value there is no metrics.json."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text(json.dumps([f"{k}={v}" for k, v in options.items()]))
    (folder / ".hydra" / "config.yaml").write_text(json.dumps({"lr": 0.008, "dataset": {"name": "moons"}, **options}))
    if steps:
        rows = "".join(f"{10 * i},{1 / i},0.1,1.0,0.5\n" for i in range(1, steps + 1))
        (folder / "loss.csv").write_text(f"step,loss,lr,seconds,stable_loss\n{rows}")
        (folder / "excess.csv").write_text(f"step,excess,floor,t25\n1,{value or 1},0.22,0.1\n")
    if error:
        (folder / ERROR).write_text(error)
    if value is not None:
        row = {"value": value, "floor": 0.22, "passed": value < 0.3, "verdict": "", "unit": ""}
        facts = {"loss": value, "cpu_seconds": 1.5, "steps": 40, "figures": {"error of epsilon": row}}
        (folder / "metrics.json").write_text(json.dumps(facts))
        Image.new("RGB", (640, 320), (40, 90, 200)).save(folder / "samples.png")


def make_sweep(folder):
    """Make a sweep of ten finished runs, the first without lr, one run that failed and one that was killed."""
    for i, value in enumerate([0.5, 0.25, 0.9, 0.23, 0.4, 0.31, 0.28, 0.6, 0.24, 0.35]):
        make_run(folder / str(i), {"lr": value / 100, "seed": 1} if i else {"seed": 1}, value)
    make_run(folder / "10", {"lr": -1, "seed": 1}, error="lr must be above 0; got -1.0", steps=0)
    make_run(folder / "11", {"lr": 0.5, "seed": 1}, steps=3)
    return folder


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return make_sweep(tmp_path_factory.mktemp("sweep"))


class Texts(HTMLParser):
    """The tags of a page, and the rows of its table as lists of words."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.rows = [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")

    def handle_data(self, data):
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip()


# ---------------------------------------------------------------- runs


def test_runs_are_in_the_order_of_their_numbers(sweep):
    assert [run.name for run in runs(sweep)] == [str(i) for i in range(12)]


def test_options_that_differ_are_found(sweep):
    assert differing(runs(sweep)) == ["lr"]


@pytest.mark.parametrize(("option", "value"), [("lr", "0.008"), ("dataset", "moons")])
def test_a_run_has_the_value_of_an_option_that_was_not_set(sweep, option, value):
    assert runs(sweep)[0].value(option) == value


def test_a_run_says_how_it_ended(sweep):
    assert [run.fault for run in runs(sweep)[9:]] == [
        "",
        "failed: lr must be above 0; got -1.0",
        "unfinished, at step 30",
    ]


def test_runs_of_a_sweep_are_named_by_what_differs(sweep):
    assert [*runs_of_sweep(sweep)][:2] == ["lr=0.008", "lr=0.0025"]


# ---------------------------------------------------------------- the page


@pytest.fixture(scope="module")
def page(sweep):
    return sweep_page("a sweep", runs(sweep))


def test_the_table_has_a_row_for_each_run(page):
    rows = Texts(page).rows
    assert rows[0][:3] == ["run", "lr", "samples"]
    assert len(rows) == 13


@pytest.mark.parametrize(("row", "cell"), [(1, "✗ 0.5floor 0.22"), (2, "0.25floor 0.22")])
def test_a_figure_stands_with_its_floor_and_a_failed_one_with_a_cross(page, row, cell):
    assert Texts(page).rows[row][4] == cell


@pytest.mark.parametrize(
    ("row", "words"), [(11, "failed: lr must be above 0; got -1.0"), (12, "unfinished, at step 30")]
)
def test_the_table_says_how_other_runs_ended(page, row, words):
    assert words in Texts(page).rows[row]


@pytest.mark.parametrize("words", ["10 finished, 1 failed, 1 unfinished", "seed=1"])
def test_the_page_counts_runs_and_names_their_common_options(page, words):
    assert words in page


def test_the_page_shows_samples_of_every_finished_run(page):
    pictures = [attributes for tag, attributes in Texts(page).tags if tag == "img"]
    assert len(pictures) == 10
    assert all(p["alt"].startswith("samples of run") for p in pictures)


def test_samples_on_the_page_can_be_read(page):
    """A picture is shown 22 rem wide, and holds twice as many pixels for sharp screens."""
    widths = {int(a["width"]) for tag, a in Texts(page).tags if tag == "img"}
    assert widths == {640}


@pytest.mark.slow  # a real browser
@pytest.mark.parametrize("width", [500, 1280, 1920])
def test_no_column_of_a_run_with_many_figures_is_cut(width, tmp_path):
    if CHROMIUM is None:
        pytest.skip("needs chromium")
    make_run(tmp_path / "0", {"lr": 0.1}, 0.2)
    make_run(tmp_path / "1", {"lr": 0.2}, 0.3)
    for folder in (tmp_path / "0", tmp_path / "1"):
        found = json.loads((folder / "metrics.json").read_text())
        row = found["figures"]["error of epsilon"]
        found["figures"] = {f"negative log-density {i}": row for i in range(12)}
        (folder / "metrics.json").write_text(json.dumps(found))
    measure = "const s = document.querySelector('.scroll'); document.title = `${s.scrollWidth - s.clientWidth} cut`;"
    page = sweep_page("a sweep", runs(tmp_path))
    (tmp_path / "page.html").write_text(page.replace("</body>", f"<script>{measure}</script></body>"))
    line = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900", "--dump-dom"]
    done = subprocess.run([*line, f"file://{tmp_path / 'page.html'}"], capture_output=True, text=True, timeout=1800)
    assert "<title>0 cut</title>" in done.stdout


def test_the_page_loads_nothing(page):
    addresses = [a[name] for _, a in Texts(page).tags for name in ("src", "href") if name in a]
    assert all(address.startswith("data:image/png;base64,") for address in addresses)


def test_the_page_has_the_losses_and_excesses_of_every_run_that_began(page):
    assert sum(tag == "polyline" for tag, _ in Texts(page).tags) == 11 + 11


def test_no_text_of_a_run_becomes_a_script(tmp_path):
    make_run(tmp_path / "0", {"dataset.text": NASTY}, 0.2)
    make_run(tmp_path / "1", {"dataset.text": "a", NASTY: 1}, error=NASTY)
    page = sweep_page(NASTY, runs(tmp_path))
    tags = [tag for tag, _ in Texts(page).tags]
    assert tags.count("script") == 1
    assert tags.count("img") == 1
    assert "onerror=alert(2)>" not in page


# ---------------------------------------------------------------- curves


@pytest.fixture(scope="module")
def power_law():
    """The coordinates x and y, in the chart, of 1 / x^2. The other curve is 0, and has no logarithm."""
    x = np.arange(1, 2001)
    (points,) = re.findall('points="(.*?)"', chart({0: (x, 1 / x**2), 1: (x, np.zeros(2000))}, "t", "y"))
    return np.array([pair.split(",") for pair in points.split()], float).T


def test_a_power_law_is_a_straight_line_on_logarithmic_axes(power_law):
    a, b = power_law
    assert np.abs(np.polyval(np.polyfit(a, b, 1), a) - b).max() < 0.2


def test_a_curve_has_few_points(power_law):
    a, _ = power_law
    assert 10 < len(a) <= 80


def test_a_falling_curve_goes_from_the_upper_left_to_the_lower_right(power_law):
    a, b = power_law
    assert a[0] < a[-1]
    assert b[0] < b[-1]


@pytest.mark.parametrize("ends", [(0.0601, 0.0688), (0.216, 0.282), (0.9, 1.1), (3.0, 3.4)])
def test_ticks_are_round_numbers(ends):
    """Two significant digits are enough for each, also where the axis is narrow; three for steps of 0.025."""
    ticks = _Axis(np.array(ends), 0, 100).ticks()
    assert len(ticks) >= 2
    assert all(tick == pytest.approx(float(f"{tick:.2g}"), rel=0.005) for tick in ticks)


def test_a_chart_without_curves_is_empty():
    assert chart({}, "t", "y") == ""


# ---------------------------------------------------------------- the command


def test_the_page_of_a_single_run_is_not_called_a_sweep(tmp_path):
    make_run(tmp_path / "run", {"lr": 0.01}, 0.3)
    done = command("loss/report.py run", tmp_path)
    assert done.returncode == 0, done.stderr
    html = (tmp_path / "run" / "report.html").read_text()
    assert "<h1>Run run</h1>" in html and "sort it" not in html


def test_no_number_at_an_axis_reaches_beyond_the_drawing():
    drawing = chart({0: (np.array([10.0, 1000.0]), np.array([1.0, 2.0]))}, "a", "b")
    texts = re.findall(r'<text x="([\d.]+)" y="\S+" text-anchor="(\w+)">([\d,]+)</text>', drawing)
    assert "1,000" in [text for *_, text in texts]
    for x, anchor, text in texts:
        right = float(x) + {"end": 0, "middle": len(text) * 8 / 2}[anchor]
        assert right <= 640, text


# ---------------------------------------------------------------- colours


def colours_in_browser(folder, dark):
    """The colour that a browser computes for each run of a page: RGB from 0 to 255."""
    values = "[...document.querySelectorAll('tbody tr')].map((row) => getComputedStyle(row).getPropertyValue('color'))"
    style = "<style>tbody tr { color: color-mix(in srgb, var(--colour), var(--colour)) !important; }</style>"
    end = f"{style}<script>document.body.textContent = 'answer' + JSON.stringify({values}) + 'answer'</script></body>"
    path = folder / "page.html"
    path.write_text(sweep_page("a sweep", runs(folder)).replace("</body>", end))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    if dark:
        flags.append("--blink-settings=preferredColorScheme=0")
    done = subprocess.run([CHROMIUM, *flags, f"file://{path}"], capture_output=True, text=True, timeout=1800)
    found = json.loads(done.stdout.split("answer")[1])
    channels = [colour.removeprefix("color(srgb ").removesuffix(")").split() for colour in found]
    return [[255 * float(channel) for channel in colour] for colour in channels]


@pytest.mark.slow  # a real browser
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_mixes_the_colours_of_runs_as_pictures_do(dark, tmp_path):
    found = colours_in_browser(make_sweep(tmp_path), dark)
    ours = [[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in run_colours(12, dark)]
    assert np.abs(np.clip(found, 0, 255) - ours).max() < 1, (found, ours)


def test_the_first_and_the_last_colour_of_runs_are_those_of_the_page():
    css = (ROOT / "viz/pages/report.css").read_text()
    ends = re.findall(r"--first: (#\w+); --last: (#\w+);", css)
    assert ends == [RUNS_ON_LIGHT, RUNS_ON_DARK]
    assert [tuple(run_colours(5, dark)[::4]) for dark in (False, True)] == ends


def test_a_finished_run_has_the_same_colour_in_losses_png_and_on_the_page(tmp_path, monkeypatch):
    """The page counts the runs that are not finished, too: here the first one."""
    make_run(tmp_path / "0", {"lr": 0.01}, error="a fault")
    for i in (1, 2):
        make_run(tmp_path / str(i), {"lr": i}, 0.3)
    figures = []
    monkeypatch.setattr(stills, "save", lambda figure, path, formats: figures.append(figure) or path)
    save_sweep(tmp_path)
    thick = [line for line in figures[0].axes[0].get_lines() if line.get_label().startswith("lr")]
    ranks = re.findall(r'<tr data-run="\d" style="--rank:([\d.]+)"', sweep_page("a", runs(tmp_path)))
    assert ranks == ["0.0000", "0.5000", "1.0000"]
    assert [line.get_color() for line in thick] == run_colours(3)[1:]


def test_the_command_makes_a_page_and_counts_runs(sweep):
    done = command(f"loss/report.py {sweep}", sweep)
    assert done.returncode == 0 and "12 runs: 10 finished, 1 failed, 1 unfinished" in done.stdout, done.stderr
    assert (sweep / "report.html").read_text().startswith("<!doctype html>")


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(ValueError, match="there are no runs below"):
        runs(tmp_path)


# ---------------------------------------------------------------- in a browser


@pytest.fixture(scope="module", params=[1, 2], ids=["one click", "two clicks"])
def sorted_page(request, tmp_path_factory):
    """The document after clicks on the head of a column, the run that must come first, and the direction."""
    if CHROMIUM is None:
        pytest.skip("needs chromium")
    folder = make_sweep(tmp_path_factory.mktemp("sorted"))
    click = "document.querySelectorAll('thead button')[3].click();" * request.param
    page = sweep_page("a sweep", runs(folder))
    (folder / "page.html").write_text(page.replace("</body>", f"<script>{click}</script></body>"))
    line = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", f"file://{folder / 'page.html'}"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=1800)
    first, direction = {1: ("3", "ascending"), 2: ("2", "descending")}[request.param]
    return done.stdout, first, direction


def sorted_rows(document):
    """The run and the rank of each row of the table."""
    return re.findall(r'<tr data-run="(\d+)" style="--rank: ?([\d.]+);?"', document)


@pytest.mark.slow  # a real browser
def test_a_browser_sorts_numbers_as_numbers_in_both_directions(sorted_page):
    document, first, _ = sorted_page
    assert sorted_rows(document)[0] == (first, "0")


@pytest.mark.slow  # a real browser
def test_a_browser_sorts_missing_values_last(sorted_page):
    document, _, _ = sorted_page
    rows = sorted_rows(document)
    assert rows[-1] == ("11", "1")
    assert {run for run, _ in rows[-2:]} == {"10", "11"}


@pytest.mark.slow  # a real browser
def test_the_colours_of_curves_follow_the_sorting(sorted_page):
    document, first, _ = sorted_page
    assert f'<polyline data-run="{first}" style="--rank: 0;"' in document


@pytest.mark.slow  # a real browser
def test_the_head_of_the_table_names_the_direction_of_sorting(sorted_page):
    document, _, direction = sorted_page
    assert f'aria-sort="{direction}"' in document


# ---------------------------------------------------------------- damaged files of single runs

BAD_METRICS = {
    "a list": "[1]",
    "figures as a list": '{"loss": 1, "figures": [1]}',
    "a row that is none": '{"loss": 1, "figures": {"a": 3}}',
    "a row without a value": '{"loss": 1, "figures": {"a": {"floor": 1}}}',
    "a value that is none": '{"figures": {"a": {"value": [], "floor": {}}}}',
    "a floor that is none": '{"figures": {"a": {"value": 1.0, "floor": {}}}}',
    "a loss that is a list": '{"loss": [1]}',
    "nested": "[" * 100_000,
    "no text": b"\xff\xfe",
}


def spoil(folder, name, content):
    path = folder / name
    path.unlink(missing_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.mark.parametrize("kind", BAD_METRICS)
def test_a_damaged_metrics_file_costs_its_own_figures_only(kind, tmp_path):
    make_run(tmp_path / "0", {"lr": 1}, 0.25)
    make_run(tmp_path / "1", {"lr": 2}, 0.5)
    spoil(tmp_path / "1", "metrics.json", BAD_METRICS[kind])
    page = sweep_page("t", runs(tmp_path))
    assert "<li>1 its metrics.json is damaged</li>" in page
    assert "2 runs: 1 finished" in page
    assert any("0.25" in cell for row in Texts(page).rows for cell in row)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (".hydra/overrides.yaml", "3"),
        (".hydra/config.yaml", "[1, 2]"),
        (".hydra/config.yaml", "a: 2023-99-99"),
        (".hydra/config.yaml", "[" * 100_000),
        ("error.txt", b"\xff\xfe"),
        ("loss.csv", b"\xff\xfe"),
        ("samples.png", b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR" + b"\xff" * 13),
    ],
)
def test_no_damaged_file_of_a_run_ends_the_page(name, content, tmp_path):
    make_run(tmp_path / "0", {"lr": 1}, 0.25)
    make_run(tmp_path / "1", {"lr": 2}, 0.5)
    spoil(tmp_path / "1", name, content)
    if name in ("error.txt", "loss.csv"):  # which are read where there is no metrics.json
        (tmp_path / "1" / "metrics.json").unlink()
    assert "2 runs" in sweep_page("t", runs(tmp_path))


def test_the_page_reads_a_folder_in_place_of_metrics(tmp_path):
    make_run(tmp_path / "0", {"lr": 1}, 0.25)
    make_run(tmp_path / "1", {"lr": 2})
    (tmp_path / "1" / "metrics.json").mkdir()
    assert "metrics.json cannot be read" in sweep_page("t", runs(tmp_path))
