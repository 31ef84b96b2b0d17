"""The pages at the root and in docs/: their commands are right, their links resolve, their words are plain.

No command is run. The options of our own commands are composed and checked, as those of a command line are. For a
script, its `add_argument` calls are read from the source, and the arguments are parsed with them.
"""

import argparse
import ast
import importlib.util
import re
import shlex
from collections import Counter
from copy import deepcopy
from functools import cache
from itertools import chain, pairwise
from pathlib import Path

import hydra
import pytest
from conftest import ROOT
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from benchmarks import power
from conf.config import COMMANDS
from conf.flags import command_line
from conf.groups import GROUPS, MLP, Moons
from conf.include import included_files
from conf.option import check
from conf.presets import CONF, EXPERIMENT
from conf.script_parsers import PROGRAMS
from conf.store import register
from metrics.flow_map import FlowMap, flow_table
from metrics.significance import Evidence, levels
from metrics.table import MetricResult, bounds_text, format_table
from pipeline import Pipeline
from runtime.randomness import generator

README = ROOT / "README.md"
BESIDE_README = [ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
PAGES = [README, *BESIDE_README, *sorted((ROOT / "docs").rglob("*.md"))]
MAX_README_WORDS = 1500
MAX_SENTENCE_WORDS = 25

FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
INLINE_CODE = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
NAMED_FILE = re.compile(r"[\w/]+/\w+\.(py|sh|txt|md)")
PLACEHOLDER = re.compile(r"\[[A-Z][A-Z. ]*\]")  # as in `python loss/plot.py [RUN ...]`

OUR_PROGRAMS = ("python", "torchrun", "sbatch", "pip")
OTHER_PROGRAMS = (
    "git",
    "cd",
    "source",
    "apt",
    "tensorboard",
    "eval",
    "bash",
    "ruff",
    "basedpyright",
    "uv",
    "sphinx-build",
)
MULTIRUN = {"-m", "--multirun"}

# The words of DESIGN section 5, and the metaphors that went with them.
FORBIDDEN = re.compile(
    r"\b(guess\w*|strides?|belie[fv]\w*|steer\w*|doors?|houses?|rooms?|walk(s|ed|ing)?|hands?|told|story|stories"
    r"|vot(e|es|ing)|lopsided|pictures a second)\b",
    re.IGNORECASE,
)
OF_AT_THE_HEAD = re.compile(r"\bOf\b.*")  # "Of points, ...": write "For points, ..."

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


# ---------------------------------------------------------------- reading a page


def fences(page: Path, language: str) -> list[str]:
    """The code blocks of a page in that language."""
    return [code for name, code in FENCE.findall(page.read_text()) if name == language]


def without_code_blocks(page: Path) -> str:
    return COMMENT.sub("", FENCE.sub("", page.read_text()))


def command_lines(page: Path) -> list[list[str]]:
    """The words of every command in the code blocks of a page, and of those in its text that begin with a program."""
    lines = list(chain.from_iterable(code.splitlines() for code in fences(page, "bash")))
    for code in INLINE_CODE.findall(without_code_blocks(page)):
        if code.split()[0] in OUR_PROGRAMS and len(code.split()) > 1:
            lines.append(" ".join(code.split()))

    found = []
    for line in lines:
        without_comment = re.split(r"(?:^|\s)#", line)[0]
        for part in without_comment.split("&&"):
            words = shlex.split(PLACEHOLDER.sub("", part))
            if words:
                found.append(words)
    return found


def blocks(page: Path) -> list[str]:
    """The paragraphs, headings, list items and table cells of a page, as one reads them."""
    text = without_code_blocks(page)
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)", "", text)
    text = LINK.sub(r"\1", text)
    text = INLINE_CODE.sub("code", text)
    found, paragraph = [], []
    for line in [*text.splitlines(), ""]:
        begins = re.match(r"\s*(#|\||\* |\d+\. |$)", line)
        if begins and paragraph:
            found.append(" ".join(paragraph))
            paragraph = []
        if line.startswith("|"):
            found += line.replace(r"\|", "/").split("|")
        elif line.strip():
            paragraph.append(line.strip().removeprefix("* "))
    return found


def sentences(page: Path) -> list[str]:
    """A sentence ends where a full stop, a question mark or an exclamation mark is followed by a space."""
    return [part for block in blocks(page) for part in re.split(r"(?<=[.?!])\W*\s|\s·\s", block) if part.strip()]


def words_of(sentence: str) -> list[str]:
    return [word for word in sentence.split() if re.search(r"\w", word)]


# ---------------------------------------------------------------- commands


@cache
def parser_of(script: Path) -> argparse.ArgumentParser:
    """The argument parser of a script; or one with its `add_argument` calls, as far as they are literal."""
    if script.stem in PROGRAMS:
        return PROGRAMS[script.stem][0]()

    class Parser(argparse.ArgumentParser):
        def error(self, message: str):
            raise ValueError(message)

    parser = Parser(prog=script.name)
    for call in ast.walk(ast.parse(script.read_text())):
        if not isinstance(call, ast.Call) or getattr(call.func, "attr", "") != "add_argument":
            continue
        names = [ast.literal_eval(argument) for argument in call.args]
        options = {}
        for keyword in call.keywords:
            if keyword.arg in ("nargs", "action", "required"):
                options[keyword.arg] = ast.literal_eval(keyword.value)
            if keyword.arg == "type" and ast.unparse(keyword.value) in ("int", "float"):
                options["type"] = {"int": int, "float": float}[ast.unparse(keyword.value)]
        parser.add_argument(*names, **options)
    return parser


registered: list[str] = []


@cache
def composed(command: str, groups: tuple[str, ...]) -> DictConfig:
    """The options of a command with the chosen groups, such as dataset=spirals, as Hydra composes them."""
    if registered[-1:] != [command]:  # its store holds the options of one command at a time; filling it takes 0.3 s
        register(command)
        registered.append(command)
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose(command, list(groups))


def without_help(words: list[str]) -> list[str]:
    """The same without --help and the topic behind it, such as "all" or the name of a group."""
    if "--help" not in words:
        return words
    at = words.index("--help")
    others = words[at + 1 :]
    while others and "=" not in others[0]:
        del others[0]
    return words[:at] + others


def check_options(command: str, words: list[str]) -> None:
    """Compose and check the options of one of our commands; for a sweep, those of its first and of its last run.

    Raises:
        Exception: one of them does not exist or has a wrong value.
    """
    if "--config-dir" in words or any(word.startswith("hydra.searchpath=") for word in words):
        return  # tests/conf/test_presets.py composes these lines, with the presets of the page
    if included_files(words)[0]:
        return  # tests/commands/test_plugins.py runs them, with the files of the page
    parser = OverridesParser.create()
    overrides = command_line(without_help(words)).overrides
    runs = [overrides]
    if not MULTIRUN.isdisjoint(words):
        every_run = chain.from_iterable(BasicSweeper.split_arguments(parser.parse_overrides(overrides), None))
        first, *_, last = every_run
        runs = [first, last]
    for run in runs:
        groups = [word for word in run if word.split("=")[0] in {*GROUPS, EXPERIMENT} or word.startswith("hydra")]
        options = deepcopy(composed(command, tuple(groups)))
        for override in parser.parse_overrides([word for word in run if word not in groups]):
            OmegaConf.update(options, override.key_or_group, override.value())
        check(OmegaConf.to_object(options))


def ends_of_ranges(options: list[str]) -> list[list[str]]:
    """The options of scripts/search.py as those of two trainings: lr=1e-3..3e-2 gives both ends, A,B,C both A and C."""
    first, last = [], []
    for option in options:
        name, _, values = option.partition("=")
        several = re.split(r"\.\.|,", values)
        first.append(f"{name}={several[0]}")
        last.append(f"{name}={several[-1]}")
    return [first, last]


def check_script(path: str, words: list[str]) -> None:
    """Parse the arguments of a script. Raises ValueError where it takes no such arguments."""
    script = ROOT / path
    if not script.exists():
        raise ValueError(f"there is no {path}")
    given, others = parser_of(script).parse_known_args(words)
    if "parse_known_args" in script.read_text():  # benchmarks/record.py passes them on to train.py
        check_options("train", others)
    elif others:
        raise ValueError(f"it does not take {' '.join(others)}")
    if path == "scripts/search.py":
        for run in ends_of_ranges(given.options):
            check_options("train", run)


def check_pip(words: list[str]) -> None:
    """Files of requirements exist, and a pinned package is pinned alike in requirements.txt."""
    for before, word in pairwise(words):
        if before == "-r" and not (ROOT / word).exists():
            raise ValueError(f"there is no {word}")
        if "==" in word and word not in (ROOT / "requirements.txt").read_text().split():
            raise ValueError(f"requirements.txt does not pin {word}")


def check_command(words: list[str]) -> None:
    """Check a command line without running it. Raises an error that says what is wrong."""
    program, *rest = words
    if program in OTHER_PROGRAMS:
        return
    if program == "pip":
        check_pip(rest)
    elif program == "torchrun":
        at = rest.index("train.py")
        assert all(word.startswith("--") for word in rest[:at]), words
        check_options("train", rest[at + 1 :])
    elif program == "sbatch":
        assert (ROOT / rest[0]).exists(), words
        check_options("train", rest[1:])
    elif program in ("python", "python3"):
        check_python(rest)
    else:
        raise ValueError(f"an unknown program: {program}")


def check_python(words: list[str]) -> None:
    if words[0] == "-m" and words[1] in ("venv", "pytest"):
        return
    if words[0] == "-m":
        path, arguments = words[1].replace(".", "/") + ".py", words[2:]
    else:
        path, arguments = words[0], words[1:]
    command = path.removesuffix(".py")
    if command == "main" and "--train-ddpm-model" in arguments:
        command = "train"
    if command in COMMANDS:
        check_options(command, arguments)
    else:
        check_script(path, arguments)


@cache
def errors() -> dict[str, str]:
    """The command lines of all pages that are wrong, each with the reason. Sorted, so that each command is registered
    once."""
    found = {}
    lines = {tuple(words) for page in PAGES for words in command_lines(page)}
    for words in sorted(lines):
        try:
            check_command(list(words))
        except Exception as error:
            found[shlex.join(words)] = str(error)
    return found


@pages
def test_every_command_line_is_accepted(page):
    lines = [shlex.join(words) for words in command_lines(page)]
    wrong = [f"{line}: {errors()[line]}" for line in lines if line in errors()]
    assert not wrong, "\n".join(wrong)


def test_the_table_in_the_readme_holds_the_limits_of_the_tests():
    """The limits that depend on the number of points alone, and not on the samples or on random permutations."""
    train, samples, real = (power.real(10_000, generator(seed, "readme")).numpy() for seed in range(3))
    evidence = Evidence(samples, real, power.MOONS, 2, train)
    names = {"classifier accuracy", "memorised", "masses", "cells", "negative log-density", "strays"}
    rows = [(test, level) for test, level in levels(evidence) if test.name in names]
    assert len(rows) == len(names)
    for test, level in rows:
        passes = bounds_text(test.compute(evidence).bounds(level))
        line = next(line for line in README.read_text().splitlines() if line.startswith(f"  {test.name} "))
        assert f"  {passes}  " in line


def test_the_readme_shows_the_last_line_of_a_table_as_it_is_printed():
    row = MetricResult("cells", 0.0, 0.0, 0.0, 0.0, 10_000, True, "", p=0.5, level=0.01)
    last_line = format_table([row]).splitlines()[2]
    assert f"{last_line}\n" in README.read_text()


def test_the_readme_names_the_evaluations_that_compare_makes_by_default():
    *first, last = composed("compare", ()).evaluations
    row = next(line for line in README.read_text().splitlines() if line.startswith("| `python compare.py` |"))
    assert f"at {', '.join(map(str, first))} and {last} network evaluations" in row


def test_the_column_that_the_page_about_samplers_explains_is_one_of_the_printed_table():
    flow = FlowMap({"unipc": [5, 10]}, {"exact denoiser": {"unipc": [0.1, 0.01]}}, {"unipc": 5.2}, 1e-4)
    heads = flow_table(flow).splitlines()[1].split()
    (column,) = re.findall(r"The column \*(\w+)\* of the printed", (ROOT / "docs/samplers.md").read_text())
    assert heads[-1] == column


def test_the_readme_holds_both_commands_literally():
    text = README.read_text()
    assert "pip install -r requirements.txt && python train.py\n" in text
    assert "pip install -r requirements/dev.txt && python -m pytest\n" in text


# ---------------------------------------------------------------- Python


@cache
def names_in(path: Path) -> set[str]:
    """The names that a module defines or imports at its top level."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
        else:
            found |= {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
    return found


def is_of_a_package(name: str) -> bool:
    """Whether a module belongs to an installed package, such as diffusers."""
    first = name.partition(".")[0]
    is_ours = (ROOT / first).is_dir() or (ROOT / f"{first}.py").exists()
    return not is_ours and importlib.util.find_spec(first) is not None


@pages
def test_every_name_that_python_code_imports_from_us_exists(page):
    for code in fences(page, "python"):
        for node in ast.walk(ast.parse(code)):
            if not isinstance(node, ast.ImportFrom) or is_of_a_package(str(node.module)):
                continue
            folder = ROOT / str(node.module).replace(".", "/")
            path = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
            assert path.exists(), f"{page.name}: there is no module {node.module}"
            for alias in node.names:
                assert alias.name in names_in(path), f"{page.name}: {node.module} has no {alias.name}"


def test_the_example_in_the_readme_runs(monkeypatch):
    from conftest import untrained

    pipeline = untrained(Moons(), MLP(hidden=8, layers=1))
    monkeypatch.setattr(Pipeline, "load", lambda path: pipeline)
    (code,) = fences(README, "python")
    names = {}
    exec(code, names)
    assert names["x"].shape == (1000, 2)


# ---------------------------------------------------------------- links


@cache
def anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    if path.suffix == ".html":
        return set(re.findall(r'id="([^"]+)"', path.read_text()))
    found, seen = set(), Counter()
    for heading in HEADING.findall(FENCE.sub("", path.read_text())):
        slug = re.sub(r"[^\w\- ]", "", LINK.sub(r"\1", heading).lower()).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


@pages
def test_every_link_leads_to_a_file_and_a_heading_that_exist(page):
    for _, target in LINK.findall(without_code_blocks(page)):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), f"{page.name} links to {target}, which does not exist"
        assert not anchor or anchor in anchors(path), f"{page.name} links to {target}, which has no such heading"


@pages
def test_every_file_that_is_named_with_its_folder_exists(page):
    for code in INLINE_CODE.findall(without_code_blocks(page)):
        if NAMED_FILE.fullmatch(code):
            assert (ROOT / code).exists(), f"{page.name} names {code}, which does not exist"


def test_every_page_can_be_reached_from_the_index():
    reached, waiting = set(), [ROOT / "docs/README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page not in PAGES:
            continue
        reached.add(page)
        for _, target in LINK.findall(without_code_blocks(page)):
            waiting.append((page.parent / target.partition("#")[0]).resolve())
    assert set(PAGES) == reached


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: str(page.relative_to(ROOT)))
def test_the_first_sentence_says_what_a_page_is_for(page):
    title, first = page.read_text().split("\n\n")[:2]
    assert title.startswith("# ")
    assert first.startswith("This page ")


# ---------------------------------------------------------------- words


def test_the_readme_has_at_most_1500_words():
    """Words are what spaces and line ends separate, in the whole file: code, tables and the marks of links count."""
    assert len(README.read_text().split()) <= MAX_README_WORDS


@pages
def test_no_sentence_is_longer_than_25_words(page):
    """Code in backticks is one word; a table cell, a heading and a list item are sentences of their own."""
    longest = max(sentences(page), key=lambda sentence: len(words_of(sentence)))
    assert len(words_of(longest)) <= MAX_SENTENCE_WORDS, f"{len(words_of(longest))} words: {longest}"


@pages
def test_forbidden_words_do_not_occur(page):
    text = page.read_text()
    assert not FORBIDDEN.search(text), FORBIDDEN.search(text)
    assert not OF_AT_THE_HEAD.search(text), OF_AT_THE_HEAD.search(text)
