"""The public board: tasks whose exact answer is known, on which anybody's samples can be measured.

`python benchmarks/board.py` measures everything of moonwalk, `submit=FOLDER name=NAME` measures samples from files, and
`sampler=NAME` or `method=NAME` measures one member of the registry. Each entry becomes a row, a JSON file, and
docs/board.md is written from the rows. board_tasks.py holds the tasks.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # Python finds only the modules beside this file
    import conf.packages  # noqa: F401  (first: it looks for the packages that all others need)
    from conf.script_parsers import check_arguments

    check_arguments("board", sys.argv[1:])

# isort: split
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.board_check import check_board, save_check
from benchmarks.board_entries import (
    INTERVAL,
    Cost,
    Source,
    by_files,
    by_method,
    by_real_points,
    by_reflow,
    by_sampler,
    by_training,
    tasks_in,
    total_cost,
    write_example,
)
from benchmarks.board_figures import Figures, measure, save_row, task_row
from benchmarks.board_page import printed_table, write_page
from benchmarks.board_tasks import TASKS
from benchmarks.record import yardstick
from conf import script_parsers
from conf.include import FILES
from conf.messages import last_words
from registry.plugins import include_word, is_added
from registry.posterior_rows import METHODS
from runtime.progress import steady_bar
from samplers import SAMPLERS

ROOT = Path(__file__).resolve().parent.parent
ROWS = ROOT / "benchmarks" / "board_rows"
PAGE = ROOT / "docs" / "board.md"
WITHOUT_FEW_STEPS = ("dpmpp_2m_sde",)  # its draws with a covariance take at least three evaluations
COMMAND = "python benchmarks/board.py"
REAL = "real points"
REAL_SEED = 0
OF_SAMPLERS = ("samplers", "few_steps", "guidance")  # tasks that a sampler can enter


def main() -> None:
    torch.set_num_threads(1)
    commit()  # now, before anything is written
    options = script_parsers.board_options(script_parsers.board().parse_args().options)
    rows = Path(options["out"]) if "out" in options else ROWS
    page = rows / "board.md" if "out" in options else PAGE
    asked = options["tasks"].split(",") if "tasks" in options else list(TASKS)

    if "example" in options:
        write_example(Path(options["example"]), asked, REAL_SEED)
        print(f"wrote an entry of real points into {options['example']}")
        return
    if "check" in options:
        found = check_board(asked, int(options["check"]))
        save_check(rows, found, commit())
    elif "sampler" in options:
        tasks = [task for task in asked if task in OF_SAMPLERS] if "tasks" not in options else asked
        _check_all_in(tasks, OF_SAMPLERS, "a sampler")
        add_sampler(rows, options["sampler"], tasks)
    elif "method" in options:
        _check_all_in(asked if "tasks" in options else ["posterior"], ("posterior",), "a posterior method")
        add_method(rows, options["method"])
    elif "submit" in options:
        add_submission(rows, options)
    elif "page" not in options:
        add_ours(rows, asked)
    write_page(rows, page)
    print(f"wrote {page}")


def _check_all_in(tasks: Sequence[str], possible: Sequence[str], what: str) -> None:
    for task in tasks:
        if task not in possible:
            raise ValueError(f"{what} cannot enter the task {task}, only {', '.join(possible)}")


# ---------------------------------------------------------------- one entry


def add(rows: Path, name: str, sources: Mapping[str, Source], command: str, facts: Callable[[], dict] = dict) -> None:
    """Measure an entry and save its row.

    Args:
        sources: where the samples of each task come from.
        command: which measures them again, up to its tasks.
        facts: called at the end; what else the row of each task says.
    """
    tasks: dict[str, Any] = {}
    cells = [cell for task in sources for cell in TASKS[task].cells]
    figures: dict[str, dict[str, Figures]] = {task: {} for task in sources}
    begin = time.process_time()
    with steady_bar(total=len(cells), desc=name, leave=False) as shown:
        for cell in cells:
            shown.set_description(f"{name}, {cell.label}")
            samples, evaluations = sources[cell.task](cell)
            figures[cell.task][cell.name] = measure(cell, samples, evaluations)
            shown.update()
    for task in sources:
        again = f"{command} tasks={task}"
        tasks[task] = task_row(task, figures[task], command=again, commit=commit(), versions=versions(), **facts())
    path = save_row(rows, name, tasks)
    print(f"{name}: {time.process_time() - begin:.0f} s of CPU, {path}")
    for task in sources:
        print(printed_table(rows, task, name))


def add_sampler(rows: Path, name: str, tasks: Sequence[str]) -> None:
    add(rows, name, dict.fromkeys(tasks, by_sampler(name)), f"{_command_with_files('sampler', name)} sampler={name}")


def add_method(rows: Path, name: str) -> None:
    command = f"{_command_with_files('posterior sampler', name)} method={name}"
    add(rows, name, {"posterior": by_method(name)}, command)


def _command_with_files(kind: str, name: str) -> str:
    """The command, with the files that include= named where one of them has added this row."""
    return f"{COMMAND} {include_word(FILES)}" if is_added(kind, name) else COMMAND


def add_submission(rows: Path, options: Mapping[str, str]) -> None:
    folder = Path(options["submit"])
    found = tasks_in(folder)
    tasks = options["tasks"].split(",") if "tasks" in options else found
    source = by_files(folder)
    command = f"{COMMAND} submit={folder} name={_quoted(options['name'])}"

    facts: dict[str, Any] = {}
    if "seconds" in options:
        seconds = float(options["seconds"])
        facts = asdict(Cost(seconds, seconds / yardstick()))
    add(rows, options["name"], dict.fromkeys(tasks, source), command, lambda: facts)


def _quoted(name: str) -> str:
    return name if name.isidentifier() else f'"{name}"'


# ---------------------------------------------------------------- everything of moonwalk


def add_ours(rows: Path, tasks: Sequence[str]) -> None:
    """Measure all entries of moonwalk for these tasks."""
    add(rows, REAL, dict.fromkeys(tasks, by_real_points(REAL_SEED)), COMMAND)

    for name in SAMPLERS:
        without = ("few_steps",) if name in WITHOUT_FEW_STEPS else ()
        own_tasks = [task for task in tasks if task in OF_SAMPLERS and task not in without]
        if own_tasks:
            add_sampler(rows, name, own_tasks)
    if "guidance" in tasks:
        within = by_sampler("dpmpp_2m", INTERVAL)
        low, high = INTERVAL
        name = f"dpmpp_2m, guided at sigma/alpha {low:g} to {high:g}"
        add(rows, name, {"guidance": within}, COMMAND)
    if "posterior" in tasks:
        for name in METHODS:
            add_method(rows, name)
    if "training" in tasks:
        costs: dict[str, Cost] = {}
        source = by_training(costs)
        add(rows, "train.py", {"training": source}, COMMAND, lambda: _cost_facts(costs))
    if "few_steps" in tasks:
        with tempfile.TemporaryDirectory() as folder:
            first, second = by_reflow(folder)
            add(rows, "flow", {"few_steps": first}, COMMAND)
            add(rows, "reflow", {"few_steps": second}, COMMAND)


def _cost_facts(costs: Mapping[str, Cost]) -> dict[str, Any]:
    total = total_cost(costs)
    return asdict(total) if total else {}


# ---------------------------------------------------------------- what a row says about the program


@cache
def commit() -> str:
    """The commit of this repository, with "-dirty" where files differ from it; "unknown" outside of git."""
    words = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(last_words(error))
