"""The runs below a folder: their options, their figures and how they ended.

The runs of a sweep are named by the options in which they differ.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

# The file in which conf/sweep.py keeps why a run of a sweep failed (tests/loss/test_runs.py holds
# both names equal).
ERROR = "error.txt"
METRICS = "metrics.json"
FACTS = ("steps", "seconds", "cpu_seconds", "loss")  # of metrics.json, each a single value
DAMAGED = f"its {METRICS} is damaged"


class Run(NamedTuple):
    """A run folder and what its files say.

    name: the path of the folder within the sweep.
    typed: the options that the run was given, such as {"lr": "0.004"}.
    options: all options, nested as in its config; {} where they are not known.
    results: the content of metrics.json; {} where there is none.
    fault: why there are no results; "" where there are.
    """

    name: str
    folder: Path
    typed: dict[str, str]
    options: dict[str, Any]
    results: dict[str, Any]
    fault: str = ""

    def value(self, name: str) -> str:
        """The value of an option such as lr, model.hidden or dataset, as a user types it.

        "" where it is not known.
        """
        found: Any = self.options
        for part in name.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        if isinstance(found, dict):  # a data set or a network
            found = found.get("name")
        if found is None:
            return self.typed.get(name, "")
        return str(found).lower() if isinstance(found, bool) else str(found)


# ---------------------------------------------------------------- finding runs


def runs(folder: str | Path) -> list[Run]:
    """All runs below a folder, finished or not, ordered by name: run 10 follows run 9.

    Raises:
        ValueError: there is none.
    """
    folder = Path(folder)
    found = {path.parent.parent for path in folder.rglob(".hydra/overrides.yaml")}
    if not found:
        raise ValueError(f"there are no runs below {folder}: name the folder of a sweep (train.py -m) or of a search")
    return _sorted([_run(path, folder) for path in found])


def runs_of_sweep(folder: Path, last_file: str = METRICS) -> dict[str, Run]:
    """The finished runs of a sweep by the options in which they differ, such as "lr=1e-3".

    last_file: the file that only a finished run holds.
    """
    finished = _sorted([_run(path.parent, folder) for path in folder.glob(f"*/{last_file}")])
    return dict(zip(labels(finished), finished))


def _sorted(found: list[Run]) -> list[Run]:
    return sorted(found, key=lambda run: _natural_order(run.name))


def _natural_order(name: str) -> list[tuple[int, str]]:
    """A sort key by which "10" follows "9"."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


# ---------------------------------------------------------------- reading a run folder


def _run(path: Path, sweep: Path) -> Run:
    """The run in the folder `path` of a sweep."""
    name = path.relative_to(sweep).as_posix()
    if name == ".":
        name = path.name
    options = run_options(path)
    results, fault = _results(path)
    return Run(name, path, _typed_options(path), options, results, fault)


def run_options(path: Path) -> dict[str, Any]:
    """All options of the run in a folder, nested as in its config; {} where they are not known."""
    options = _yaml(path / ".hydra" / "config.yaml")
    return options if isinstance(options, dict) else {}


def _typed_options(path: Path) -> dict[str, str]:
    """The options that the run was given, apart from its folder."""
    words = _yaml(path / ".hydra" / "overrides.yaml")
    if not isinstance(words, list):
        words = path.name.split(",")  # main.py keeps no such file, but names the folder by them
    typed = {}
    for word in words:
        option, equals, value = str(word).lstrip("+").partition("=")
        if equals and option != "task_name":
            typed[option] = value.strip("'")
    return typed


def _results(path: Path) -> tuple[dict[str, Any], str]:
    """The content of metrics.json and ""; or {} and why there is no content."""
    try:
        results = json.loads((path / METRICS).read_bytes())
    except FileNotFoundError:
        return {}, _why_unfinished(path)
    except OSError as error:
        return {}, f"its {METRICS} cannot be read ({error.strerror})"
    except (ValueError, RecursionError):
        return {}, DAMAGED
    return (results, "") if _are_results(results) else ({}, DAMAGED)


def _are_results(results: Any) -> bool:
    """Whether metrics.json holds what pages show of it: single facts, and figures with values."""
    figures = results.get("figures", {}) if isinstance(results, dict) else None
    if not isinstance(figures, dict):
        return False
    for row in figures.values():
        if not isinstance(row, dict) or not isinstance(row.get("value"), int | float):
            return False
        if not isinstance(row.get("floor"), int | float | None):
            return False
    return not any(isinstance(results.get(name), dict | list) for name in FACTS)


def _why_unfinished(path: Path) -> str:
    if (path / ERROR).exists():
        return f"failed: {_text(path / ERROR).strip()}"
    rows = []
    if (path / "loss.csv").exists():
        rows = _text(path / "loss.csv").splitlines()[1:]
    if not rows:
        return "unfinished, before its first step"
    step = rows[-1].split(",")[0]
    return f"unfinished, at step {step}"


def _text(path: Path) -> str:
    """The text of a file, with a sign in place of what is none; "" where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _yaml(path: Path) -> Any:
    """The content of a file; None where it is missing or damaged.

    A report of 200 runs can do without the options of one of them.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the first one is faster
    try:
        return yaml.load(path.read_bytes(), loader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):  # ValueError: a date that does not exist
        return None


# ---------------------------------------------------------------- comparing runs


def differing(found: Sequence[Run]) -> list[str]:
    """The options that were typed for some run and in which the runs differ."""
    typed = dict.fromkeys(name for run in found for name in run.typed)
    return [name for name in typed if len({run.value(name) for run in found}) > 1]


def labels(found: Sequence[Run]) -> list[str]:
    """A label for each run, such as "lr=0.001, seed=1"; its name where the runs do not differ."""
    names = differing(found)
    result = []
    for run in found:
        parts = [f"{name}={run.value(name)}" for name in names if run.value(name)]
        result.append(", ".join(parts) or run.name)
    return result
