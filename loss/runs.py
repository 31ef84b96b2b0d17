"""What run folders say about themselves: options, figures, how they ended; and in what the runs of a sweep differ."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ERROR = "error.txt"  # the sentence of a run of a sweep that failed, in its folder: conf.sweep writes it


class Run(NamedTuple):
    """A run folder, by its name within the sweep.

    typed: the options that it was given, such as {"lr": "0.004"}. options: all that it had, nested as in its config;
    {} where it never came to that. results: what metrics.json holds; {} where there is none. fault: why there is none.
    """

    name: str
    folder: Path
    typed: dict[str, str]
    options: dict[str, Any]
    results: dict[str, Any]
    fault: str = ""

    def value(self, name: str) -> str:
        """The value of an option such as lr, model.hidden or dataset, as one types it; "" where it is not known."""
        found: Any = self.options
        for part in name.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        if isinstance(found, dict):  # a group: which of it was chosen
            found = found.get("name")
        if found is None:
            return self.typed.get(name, "")
        return str(found).lower() if isinstance(found, bool) else str(found)


def runs(folder: str | Path) -> list[Run]:
    """All runs below a folder, finished or not, in their natural order.

    Raises:
        ValueError: there is none.
    """
    folder = Path(folder)
    found = {path.parent.parent for path in folder.rglob(".hydra/overrides.yaml")}
    if not found:
        raise ValueError(f"there are no runs below {folder}: name the folder of a sweep (train.py -m) or of a search")
    return sorted((_run(path, folder) for path in found), key=lambda run: _natural(run.name))


def _run(path: Path, folder: Path) -> Run:
    name = path.relative_to(folder).as_posix()
    words, config = (_yaml(path / ".hydra" / f"{part}.yaml") for part in ("overrides", "config"))
    words = path.name.split(",") if words is None else words  # of main.py only the folder's name tells
    pairs = [str(word).lstrip("+").partition("=") for word in words]
    typed = {option: value.strip("'") for option, equals, value in pairs if equals and option != "task_name"}
    try:
        results = json.loads((path / "metrics.json").read_bytes())
        fault = "" if isinstance(results, dict) else "its metrics.json is damaged"
    except FileNotFoundError:
        results, fault = {}, _why_unfinished(path)
    except ValueError:
        results, fault = {}, "its metrics.json is damaged"
    return Run(name if name != "." else path.name, path, typed, config or {}, {} if fault else results, fault)


def _why_unfinished(path: Path) -> str:
    if (path / ERROR).exists():
        return f"failed: {(path / ERROR).read_text(encoding='utf-8').strip()}"
    lines = (path / "loss.csv").read_text(encoding="utf-8").splitlines()[1:] if (path / "loss.csv").exists() else []
    return f"unfinished, at step {lines[-1].split(',')[0]}" if lines else "unfinished, before its first step"


def _yaml(path: Path) -> Any:
    """None where the file is missing or damaged: a report of 200 runs does without one run's options."""
    try:
        return yaml.load(path.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, yaml.YAMLError):
        return None


def _natural(name: str) -> list[tuple[int, str]]:
    """So that run 10 comes behind run 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def differing(found: Sequence[Run]) -> list[str]:
    """The options that somebody typed and in which the runs differ."""
    typed = dict.fromkeys(name for run in found for name in run.typed)
    return [name for name in typed if len({run.value(name) for run in found}) > 1]


def labels(found: Sequence[Run]) -> list[str]:
    """What each run is called beside the others, such as "lr=0.001, seed=1"; its name where they do not differ."""
    names = differing(found)
    return [", ".join(f"{name}={value}" for name in names if (value := run.value(name))) or run.name for run in found]


def runs_of_sweep(folder: Path, last_file: str = "metrics.json") -> dict[str, Run]:
    """The finished runs of a sweep, which hold that file, by the options in which they differ, such as "lr=1e-3"."""
    finished = [_run(path.parent, folder) for path in folder.glob(f"*/{last_file}")]
    finished.sort(key=lambda run: _natural(run.name))
    return dict(zip(labels(finished), finished))
