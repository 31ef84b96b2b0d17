"""The site: every page and option is on it, every link leads somewhere, and nothing is loaded from another host."""

import importlib.util
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import pytest
from conftest import ROOT

from conf.config import COMMANDS
from conf.groups import GROUPS
from conf.script_parsers import PROGRAMS
from viz.pages.browser import Browser

docstrings = pytest.importorskip("docs.docstrings", reason="needs requirements/docs.txt")
option_lists = pytest.importorskip("docs.option_lists", reason="needs requirements/docs.txt")
CHROMIUM = shutil.which("chromium")
SOURCES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "lessons").glob("[0-9]_*.py"),
        ROOT / "lessons/README.md",
    ]
)
NAMES = [str(path.relative_to(ROOT).with_suffix("")) for path in SOURCES]  # such as docs/samplers


@cache
def settings():
    """The module docs/conf.py."""
    spec = importlib.util.spec_from_file_location("settings_of_the_site", ROOT / "docs/conf.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---------------------------------------------------------------- without building it


def test_every_page_stands_in_the_navigation():
    listed = {settings().root_doc}
    for name in (settings().root_doc, *settings().HEADS):
        source = [(ROOT / f"{name}.md").read_text()]
        settings().add_navigation(None, name, source)
        *_, tree = source[0].split("```{toctree}")
        for entry in tree.split("```")[0].split("\n\n")[1].splitlines():
            page_named = re.sub(r".*<(.*)>", r"\1", entry)
            folder = (ROOT / name).parent
            listed.add(str((folder / page_named).resolve().relative_to(ROOT)))
    assert set(NAMES) <= listed


def test_only_pages_without_a_section_have_no_list_of_its_pages():
    without = set(settings().html_sidebars)
    assert {"README", "docs/board", "CHANGELOG", "CONTRIBUTING"} <= without
    for head in settings().HEADS:
        for _, name in settings().LISTED.findall((ROOT / f"{head}.md").read_text()):
            path = (ROOT / head).parent / name
            assert str(path.resolve().relative_to(ROOT)) not in {*without}, name


def test_the_folders_that_are_not_read_are_all_but_those_with_pages():
    left = {path.name for path in ROOT.iterdir()} - set(settings().exclude_patterns)
    assert left == {Path(name).parts[0] for name in NAMES if "/" in name} | {f"{n}.md" for n in NAMES if "/" not in n}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_a_command_is_listed_with_its_help(name):
    text = option_lists.option_list(fields(COMMANDS[name]), name).astext()
    for option in fields(COMMANDS[name]):
        assert f"{option.name}={option_lists.default_of(option)}\n" in text
        assert option.metadata["help"] in text
        assert option_lists.limits_of(option) in text


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("|x|^2 is a * b of x_", r"\|x\|^2 is a \* b of x\_"),
        ("`a * b` and x_t", "`a * b` and x_t"),
        ("* a point of a list", "* a point of a list"),
        ("it is *not* better", "it is *not* better"),
        ("takes *args", r"takes \*args"),
    ],
)
def test_characters_of_docstrings_keep_their_meaning(written, read):
    assert docstrings.escaped([written]) == [read]


class Explained(NamedTuple):
    low: float
    high: float
    n: int


@pytest.mark.parametrize(
    "explanation",
    [
        ["low, high: the first and", "    the last value.", "n: their number."],
        ["low, high: the first and", "the last value. n: their", "number."],
    ],
)
def test_fields_that_a_docstring_explains_become_a_list(explanation):
    lines = ["Limits.", "", *explanation, "", "other: this is text."]
    docstrings.prepare(None, "class", "Explained", Explained, None, lines)
    assert lines[2:5] == ["Attributes:", "    low, high: the first and the last value.", "    n: their number."]
    assert lines[6] == "other: this is text."


def test_a_line_that_is_indented_for_looks_continues_the_line_before():
    lines = docstrings.joined(["Seen: noise too wide;", "    strays.", "* a point", "  goes on", "Args:", "    x: a"])
    assert lines == ["Seen: noise too wide; strays.", "* a point", "  goes on", "Args:", "    x: a"]


# ---------------------------------------------------------------- built

# The lessons are not executed: tests/commands/test_lessons.py runs them.
BUILD = ("-m", "sphinx", "-W", "-q", "-D", "nb_execution_mode=off", "-c", "docs")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as a user would build it, but with its files elsewhere."""
    folder = tmp_path_factory.mktemp("site")
    line = [sys.executable, *BUILD, "-d", str(folder / "cache"), ".", str(folder / "site")]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "site"


class Page(HTMLParser):
    """The anchors of a page, what it links to, and what it loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.anchors |= {values[key] for key in ("id", "name") if values.get(key)}
        target = values.get("href") or values.get("src")
        if target and tag == "a":
            self.links.append(target)
        elif target and values.get("rel") not in ("next", "prev", "index", "search"):
            self.loaded.append(target)


@cache
def page(path: Path) -> Page:
    return Page(path)


def pages_of(site: Path) -> list[Path]:
    """All pages, without the templates that the theme leaves in _static."""
    return sorted(path for path in site.rglob("*.html") if "_static" not in path.parts)


@pytest.mark.slow
def test_every_page_is_built_and_the_first_one_is_index(site):
    assert all((site / f"{name}.html").exists() for name in NAMES)
    assert (site / "index.html").read_text() == (site / "README.html").read_text()


@pytest.mark.slow
def test_every_link_of_the_site_leads_to_a_file_and_an_anchor(site):
    wrong = []
    for path in pages_of(site):
        for target in page(path).links + page(path).loaded:
            address = urlsplit(target)
            if address.scheme:
                continue
            file = (path.parent / unquote(address.path)).resolve() if address.path else path
            missing = not file.is_file()
            if not missing and address.fragment and file.suffix == ".html":
                missing = unquote(address.fragment) not in page(file).anchors
            if missing:
                wrong.append(f"{path.relative_to(site)}: {target}")
    assert not wrong, "\n".join(wrong[:20])


@pytest.mark.slow
def test_nothing_is_loaded_from_another_host(site):
    for path in pages_of(site):
        assert not [target for target in page(path).loaded if re.match(r"(\w+:)?//", target)], path
    for path in site.rglob("*.css"):
        text = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)
        assert not re.search(r"(url\(|@import )[\"']?(https?:)?//", text), path


@pytest.mark.slow
def test_the_list_of_options_is_complete(site):
    all_options = page(site / "docs/all-options.html")
    wanted = {f"{name}-{option.name}" for name, command in COMMANDS.items() for option in fields(command)}
    for group, choices in GROUPS.items():
        for choice, kind in choices.items():
            wanted |= {f"{group}-{choice}-{option.name}" for option in fields(kind)[1:]}
    wanted |= {f"program-{name.replace('_', '-')}" for name in PROGRAMS}
    assert wanted <= all_options.anchors


@pytest.mark.slow
def test_the_python_api_shows_functions_with_their_docstrings(site):
    anchors = set()
    for path in (site / "docs/api").glob("*.html"):
        anchors |= page(path).anchors
    assert {"pipeline.Pipeline.sample", "schedule.make_scheduler", "dataset.make_dataset"} <= anchors
    text = (site / "docs/api/trained-models.html").read_text()
    assert "Alias for field number" not in text and "moonwalk" in text


@pytest.mark.slow
def test_formulas_are_drawn_without_a_program(site):
    lesson = site / "lessons/1_noise.html"
    assert lesson.read_text().count('<span role="img" aria-label=') > 10
    assert not [target for target in page(lesson).loaded if "mathjax" in target.lower()]


# ---------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("needs Debian's chromium")
    with Browser(CHROMIUM, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


# Wider than the window, and not within something that scrolls by itself.
SIDEWAYS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
RESOURCES = "performance.getEntriesByType('resource').map((entry) => entry.name)"


@pytest.mark.slow
def test_no_page_scrolls_sideways_on_a_phone_or_loads_anything_from_elsewhere(site, browser):
    for name in NAMES:
        session = browser.open(f"file://{site}/{name}.html", 375, 780)
        assert browser.value(session, SIDEWAYS) == 0, name
        loaded = browser.value(session, RESOURCES)
        assert [address for address in loaded if not address.startswith(("file:", "data:", "blob:"))] == [], name
        target = browser.call("Target.getTargetInfo", session)["targetInfo"]["targetId"]
        browser.call("Target.closeTarget", targetId=target)


@pytest.mark.slow
def test_the_search_finds_a_term_without_a_server(site, browser):
    session = browser.open(f"file://{site}/search.html?q=stray")
    links = "[...document.querySelectorAll('#search-results li a')]"  # they appear one after the other
    assert browser.wait(session, f"{links}.some((link) => link.href.includes('docs/glossary.html'))")


@pytest.mark.slow
def test_an_embedded_page_plays(site, browser):
    session = browser.open(f"file://{site}/docs/gallery.html")
    frames = browser.value(session, "[...document.querySelectorAll('iframe')].map((frame) => frame.src)")
    assert len(frames) == 3
    for address in frames:
        inside = browser.open(address)
        assert browser.wait(inside, "document.querySelector('canvas') !== null"), address
