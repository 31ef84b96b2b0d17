"""The page about a sweep: what stands in it, what cannot get into it, and that a browser sorts it."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from conftest import command
from PIL import Image

from conf.sweep import ERROR
from loss.runs import differing, runs, runs_of_sweep
from viz.pages.svg_curves import chart
from viz.pages.sweep_page import sweep_page

NASTY = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"
CHROMIUM = shutil.which("chromium")


def make_run(folder, options, value=None, error=None, steps=4):
    """A run folder as train.py leaves one: without metrics.json where there is no value."""
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


@pytest.fixture
def sweep(tmp_path):
    """Ten runs in an order of their own, the first without lr; one that failed, one that was killed."""
    for i, value in enumerate([0.5, 0.25, 0.9, 0.23, 0.4, 0.31, 0.28, 0.6, 0.24, 0.35]):
        make_run(tmp_path / str(i), {"lr": value / 100, "seed": 1} if i else {"seed": 1}, value)
    make_run(tmp_path / "10", {"lr": -1, "seed": 1}, error="lr must be above 0; got -1.0", steps=0)
    make_run(tmp_path / "11", {"lr": 0.5, "seed": 1}, steps=3)
    return tmp_path


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


def test_runs_know_their_options_and_how_they_ended(sweep):
    found = runs(sweep)
    assert [run.name for run in found] == [str(i) for i in range(12)]
    assert differing(found) == ["lr"] and found[0].value("lr") == "0.008" and found[0].value("dataset") == "moons"
    assert [run.fault for run in found[9:]] == [
        "",
        "failed: lr must be above 0; got -1.0",
        "unfinished, at step 30",
    ]
    assert [*runs_of_sweep(sweep)][:2] == ["lr=0.008", "lr=0.0025"]


def test_a_page_names_every_run_and_asks_nobody_for_anything(sweep):
    page = sweep_page("a sweep", runs(sweep))
    read = Texts(page)
    assert read.rows[0][:3] == ["run", "lr", "samples"] and len(read.rows) == 13
    assert read.rows[1][4] == "✗ 0.5floor 0.22" and read.rows[2][4] == "0.25floor 0.22"
    assert "failed: lr must be above 0; got -1.0" in read.rows[11] and "unfinished, at step 30" in read.rows[12]
    assert "10 finished, 1 failed, 1 unfinished" in page and "seed=1" in page
    pictures = [attributes for tag, attributes in read.tags if tag == "img"]
    assert len(pictures) == 10 and all(p["alt"].startswith("samples of run") for p in pictures)
    addresses = [a[name] for _, a in read.tags for name in ("src", "href") if name in a]
    assert all(address.startswith("data:image/png;base64,") for address in addresses)
    assert sum(tag == "polyline" for tag, _ in read.tags) == 11 + 11  # losses and excesses of all but the failed one


def test_no_text_of_a_run_becomes_a_script(tmp_path):
    make_run(tmp_path / "0", {"dataset.text": NASTY}, 0.2)
    make_run(tmp_path / "1", {"dataset.text": "a", NASTY: 1}, error=NASTY)
    page = sweep_page(NASTY, runs(tmp_path))
    tags = [tag for tag, _ in Texts(page).tags]
    assert tags.count("script") == 1 and tags.count("img") == 1 and "onerror=alert(2)>" not in page


def test_a_curve_lies_where_its_values_are():
    """On logarithmic axes a power law is a straight line; what has no logarithm is left out."""
    x = np.arange(1, 2001)
    (points,) = re.findall('points="(.*?)"', chart({0: (x, 1 / x**2), 1: (x, np.zeros(2000))}, "t", "y"))
    a, b = np.array([pair.split(",") for pair in points.split()], float).T
    assert 10 < len(a) <= 80 and np.abs(np.polyval(np.polyfit(a, b, 1), a) - b).max() < 0.2
    assert a[0] < a[-1] and b[0] < b[-1] and chart({}, "t", "y") == ""


def test_the_script_makes_a_page(sweep):
    done = command(f"loss/report.py {sweep}", sweep)
    assert done.returncode == 0 and "12 runs: 10 finished, 1 failed, 1 unfinished" in done.stdout, done.stderr
    assert (sweep / "report.html").read_text().startswith("<!doctype html>")


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(ValueError, match="there are no runs below"):
        runs(tmp_path)


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_a_browser_sorts_the_table(sweep):
    """By a click: numbers as numbers, what is missing last, both ways; the colours follow."""
    page = sweep_page("a sweep", runs(sweep))
    for clicks, first, last in ((1, "3", "11"), (2, "2", "11")):
        click = "document.querySelectorAll('thead button')[3].click();" * clicks
        (sweep / "page.html").write_text(page.replace("</body>", f"<script>{click}</script></body>"))
        line = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", f"file://{sweep / 'page.html'}"]
        done = subprocess.run(line, capture_output=True, text=True, timeout=1800)
        rows = re.findall(r'<tr data-run="(\d+)" style="--rank: ?([\d.]+);?"', done.stdout)
        assert rows[0] == (first, "0") and rows[-1] == (last, "1") and {run for run, _ in rows[-2:]} == {"10", "11"}
        assert f'<polyline data-run="{first}" style="--rank: 0;"' in done.stdout
        assert 'aria-sort="ascending"' in done.stdout if clicks == 1 else 'aria-sort="descending"' in done.stdout
