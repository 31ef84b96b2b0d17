"""docs/board.md, written from the rows: one table for each task, sorted, with ties."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.board_check import read_check
from benchmarks.board_figures import read_rows
from benchmarks.board_tasks import GUIDANCE, OBSERVATIONS, TASKS, TRAINING_POINTS, VERSION, columns_of
from metrics.table import LEVEL
from runtime.atomic_file import atomic_file

APART = 2.576  # standard errors of a difference: two equal entries are that far apart in 1 of 100 cases

Row = Mapping[str, Any]  # what the row of an entry says about one task, or about one column of it


class Column(NamedTuple):
    """A column of a table beside the main figure: its head, and its cell for a row."""

    head: str
    text: Callable[[Row], str]


def _mean(name: str, digits: int, scale: float = 1.0) -> Callable[[Row], str]:
    """The mean of a figure over the cells, in as many digits after the point."""

    def text(row: Row) -> str:
        values = [cell[name] for cell in row["cells"].values() if cell[name] is not None]
        return f"{scale * np.mean(values):.{digits}f}" if values else "–"

    return text


def _coverage(index: int) -> Callable[[Row], str]:
    def text(row: Row) -> str:
        return f"{np.mean([cell['coverage'][index] for cell in row['cells'].values()]):.3f}"

    return text


def _strays(row: Row) -> str:
    count = sum(cell["strays"] for cell in row["cells"].values())
    total = sum(cell["samples"] for cell in row["cells"].values())
    return f"{1e4 * count / total:.1f}"


def _evaluations(row: Row) -> str:
    values = [cell["evaluations"] for cell in row["cells"].values()]
    return f"{max(values):,.0f}" if None not in values else "–"


def _fact(name: str, digits: int) -> Callable[[Row], str]:
    return lambda row: f"{row[name]:.{digits}f}" if name in row else "–"


DISTANCE = Column("W1", _mean("distance", 2))
GAP = Column("gap", _mean("density_gap", 3))
STRAYS = Column("strays", _strays)
WITHIN = [Column("in 50 %", _coverage(0)), Column("in 90 %", _coverage(1))]
OTHERS: dict[str, list[Column]] = {
    "samplers": [DISTANCE, GAP, STRAYS],
    "training": [
        DISTANCE,
        GAP,
        STRAYS,
        Column("seconds", _fact("seconds", 0)),
        Column("yardsticks", _fact("yardsticks", 1)),
    ],
    "few_steps": [DISTANCE, GAP, STRAYS],
    "posterior": [*WITHIN, Column("weights", _mean("weight_error", 3)), DISTANCE, Column("evaluations", _evaluations)],
    "guidance": [*WITHIN, DISTANCE],
}


# ---------------------------------------------------------------- ranks


class Standing(NamedTuple):
    """An entry in the order of a task. rank: 1 and the number of entries that are better beyond the error."""

    rank: int
    name: str
    row: Row


def standings(rows: Sequence[Mapping[str, Any]], task: str) -> list[Standing]:
    """All entries of a task, the best first; entries with one rank tie."""
    entries = [(each["name"], each["tasks"][task]) for each in rows if task in each["tasks"]]
    found = []
    for name, row in entries:
        better = sum(_is_better(other, row) for _, other in entries)
        found.append(Standing(1 + better, name, row))
    return sorted(found, key=lambda each: (each.rank, each.row["nats"]))


def _is_better(one: Row, other: Row) -> bool:
    """Whether one row is better beyond the error. None is better than one that ties with real points."""
    if other["ties"]:
        return False
    error = math.hypot(one["error"], other["error"])
    return bool(one["ties"]) or other["nats"] - one["nats"] > APART * error


# ---------------------------------------------------------------- tables


def table(rows: Sequence[Mapping[str, Any]], task: str) -> str:
    """The table of a task in Markdown."""
    columns = columns_of(TASKS[task].cells)
    others = OTHERS[task]
    order = standings(rows, task)
    heads = ["rank", "entry", "nats", *columns, *[column.head for column in others], "command"]
    lines = [_line(heads), _line(["---"] * len(heads))]
    for each in order:
        row = each.row
        cells = [str(each.rank), each.name, _marked(row, f" ± {_short(row['error'])}")]
        for column in columns:
            in_column = [other.row["columns"][column] for other in order]
            cells.append(_best_in_bold(row["columns"][column], in_column))
        cells += [column.text(row) for column in others]
        lines.append(_line([*cells, f"`{row['command']}`"]))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _best_in_bold(figure: Row, all_figures: Sequence[Row]) -> str:
    """The nats in a column; in bold where no other entry is better beyond the error."""
    text = _marked(figure)
    if any(_is_better(other, figure) for other in all_figures):
        return text
    return f"**{text}**"


def _marked(figure: Row, error: str = "") -> str:
    """The nats of a row or of a column of it, with = where it ties with real points."""
    return f"{_short(figure['nats'])}{error}{' =' if figure['ties'] else ''}"


def _short(value: float) -> str:
    """A number in about three digits, and at most four after the point."""
    if abs(value) >= 1:
        return f"{value:.2f}"
    if abs(value) >= 0.1:
        return f"{value:.3f}"
    text = f"{value:.4f}"
    return "0.0000" if text == "-0.0000" else text


def printed_table(folder: Path, task: str, name: str) -> str:
    """Where an entry stands in a task, in lines for a terminal."""
    order = standings(read_rows(folder), task)
    (own,) = (each for each in order if each.name == name)
    verdict = "ties with real points" if own.row["ties"] else "differs from real points"
    tests = ", ".join(f"{test} p = {p:.2g}" for test, p in own.row["p"].items())
    return (
        f"  {task:<10} rank {own.rank} of {len(order)}: {own.row['nats']:.4f} nats +- {own.row['error']:.4f}, {verdict}"
        f" ({tests}; each fails at {own.row['level']:.2g})"
    )


# ---------------------------------------------------------------- the page


def write_page(folder: Path, page: Path) -> None:
    """Write the page from the rows in a folder. Raises ValueError where one of them cannot be read."""
    rows = read_rows(folder)
    parts = [_HEAD.format(version=VERSION, level=f"{LEVEL:.0%}".replace("%", " %"))]
    for task in TASKS:
        parts.append(f"## {TITLES[task]}\n\n{_ABOUT[task]}")
        if standings(rows, task):
            parts.append(table(rows, task))
    parts.append(_ENTER.format(observations=_observations(), weights=", ".join(f"{w:g}" for w in GUIDANCE)))
    parts.append(_checks(read_check(folder)))
    parts.append(_origins(rows))
    with atomic_file(page) as file:
        file.write(("\n\n".join(parts) + "\n").encode())


def _observations() -> str:
    """All observations of the posterior task with their noise, as a list."""
    lines = []
    for name, observed in OBSERVATIONS.items():
        lines.append(f"* {name}: " + ", ".join(f"`{text}` ({noise:g})" for text, noise in observed))
    return "\n".join(lines)


def _checks(found: Mapping[str, Any]) -> str:
    """The section about the board's own error rates."""
    lines = ["## How often the board is wrong", "", _CHECKED]
    if not found:
        return "\n".join([*lines, "", "It has not been measured for these rows."])
    faults = list(dict.fromkeys(fault for each in found.values() for fault in each["below"]))
    lines += ["", _line(["task", "real points that tie", *faults]), _line(["---"] * (2 + len(faults)))]
    for task in TASKS:
        if task in found:
            each = found[task]
            below = [f"{each['below'][fault]} of {each['faulty']}" for fault in faults]
            lines.append(_line([task, f"{each['ties']} of {each['real']}", *below]))
    return "\n".join(lines)


def _origins(rows: Sequence[Mapping[str, Any]]) -> str:
    """The section that says with which commits and versions the rows were measured."""
    lines = [
        "## Where the figures come from",
        "",
        _ORIGINS,
        "",
        _line(["task", "commit", "versions"]),
        _line(["---"] * 3),
    ]
    for task in TASKS:
        entries = [each["tasks"][task] for each in rows if task in each["tasks"]]
        commits = sorted({f"`{row['commit']}`" for row in entries})
        versions = sorted({", ".join(f"{name} {v}" for name, v in row["versions"].items()) for row in entries})
        if entries:
            lines.append(_line([task, ", ".join(commits), "; ".join(versions)]))
    return "\n".join(lines)


_HEAD = """# Board

This page ranks samplers, models and posterior methods on tasks whose exact answer is known (benchmark {version}).

Usual benchmarks compare samples with a finite set of data. Here the distribution itself is known, as a mixture of
Gaussians. So every figure has a floor that no method can beat, and it is known how far chance moves it.

Contents: [how to read the tables](#how-to-read-the-tables) · [samplers](#samplers) · [training](#training) ·
[few steps](#few-steps) · [posterior](#posterior) · [guidance](#guidance) · [enter your own](#enter-your-own) ·
[how often the board is wrong](#how-often-the-board-is-wrong)

## How to read the tables

| column | meaning |
|---|---|
| nats | the main figure, the mean over all sets of the task; 0 is perfect |
| ± | its standard error |
| = | ties with real points: two tests that keep the level {level} together find no difference |
| **bold** | no other entry is better in this column beyond the error |
| rank | 1, and one more for each entry that is better beyond the error |
| W1 | sliced Wasserstein-1 distance to real points, divided by that between real points; 1 is perfect |
| gap | how much lower log p of the samples is on average than that of real points, in nats; 0 is perfect |
| strays | samples in 10,000 that lie farther off than all but 1 in 10,000 real points; 1 is due |
| in 50 %, in 90 % | share of the samples within the credible regions that hold 50 % and 90 % of real points |

**The main figure** is a Kullback-Leibler divergence. Space is divided into 32 places of equal mass, and each place into
the credible regions of 50 %, 90 % and 99 %. The figure compares the shares of the samples in these 128 cells with the
exact shares. It is a lower bound of KL(samples || truth). The mean that real points give is taken off, so that a
perfect entry may fall a little below 0. A missing place, wrong weights, too much noise and too little noise all raise
it. It does not see how points lie within a cell.

**Ties.** Entries of the same rank are not distinguished by this benchmark. An entry is better than another if their
figures differ by more than 2.6 standard errors of the difference. It is better, too, if it ties with real points and
the other one does not. The row *real points* is a fresh draw of the exact distribution.

**Evaluations** of the denoiser are counted by the benchmark, for each sample, where an entry is a program. Those of
samples from files (`submit=`) are as the entrant says."""

TITLES = {
    "samplers": "Samplers",
    "training": "Training",
    "few_steps": "Few steps",
    "posterior": "Posterior",
    "guidance": "Guidance",
}
_ABOUT = {
    "samplers": """\
Every sampler runs with the exact denoiser, from the same noise. So all that is wrong is the sampler's own error. The
process is the linear schedule with 1,000 steps. The columns are numbers of evaluations. Each is a mean over eight sets
of 1,000 samples. Five have two dimensions: moons, circles, a grid of 25 Gaussians, checkerboard and spirals. The swiss
roll has three. The last two have 32: moons, and 40 Gaussians of unequal weight.""",
    "training": f"""\
A model may learn from {TRAINING_POINTS:,} given points of each set, and gives 10,000 samples of each.
*Seconds* are those of CPU for all three trainings. *Yardsticks* are the same time divided by that of 10,000 products of
matrices on the same machine ([records](records.md)).""",
    "few_steps": """\
Samples of two moons after 1, 2 and 4 evaluations of any denoiser, 10,000 each. Samplers run with the exact denoiser.
The entries *flow* and *reflow* are trained networks. One evaluation of the exact denoiser gives a mean. So a good entry
has to learn the jump.""",
    "posterior": """\
Samples given a noisy observation of a coordinate or of a sum, 1,000 each, with the exact denoiser.
The posterior itself is known, too ([conditioning](conditioning.md)). The columns *in 50 %* and *in 90 %* are the
coverage of credible regions. *Weights* is the largest error of a mode's weight; chance alone gives that of the real
points. *Evaluations* are those for each sample, and a derivative counts as one.""",
    "guidance": """\
Guidance of weight w claims to sample p(x | c) p(c | x)^w, which can be sampled exactly here. The task
has two sets whose labels overlap, and 8,000 samples of one label for each w. Every sampler gets the guided exact
denoiser and 50 evaluations. So the figures show how far guidance is from its own claim ([guidance](guidance.md)).""",
}
_ENTER = """## Enter your own

**Samples from files.** An entry is a folder with a `.npy` file for each line of a task. This command writes such a
folder with real points, and beside it what an entry may use: training points and observations.

```bash
python benchmarks/board.py example=outputs/example
```

Replace the files of the tasks that you enter, and remove the folders of the others. Samples are in the units of the
data. Then measure them:

```bash
python benchmarks/board.py submit=outputs/example name=mine
```

The weights of guidance are {weights}, and its samples are those of label 0. The observations of the posterior task,
with the standard deviations of their noise:

{observations}

**A sampler or a posterior method.** A member of the registry is measured by its name, and its evaluations are counted.
One that needs more evaluations than allowed is refused.

```bash
python benchmarks/board.py sampler=adams tasks=samplers
python benchmarks/board.py method=mmps
```

`include=` adds a sampler or a method from a file of yours ([plug-ins](plugins.md)). `out=` names another folder for
rows and page. Copy `benchmarks/board_rows` to that folder first, and your entry is ranked among all others:

```bash
python benchmarks/board.py include=my_ideas.py sampler=euler_sigma tasks=samplers out=outputs/rows
```

`benchmarks/board_with_diffusers.py` is an example: it makes the files with the scheduler of another library.

**All of moonwalk** is measured by the next commands; the second one measures the training again.

```bash
python benchmarks/board.py
python benchmarks/board.py tasks=training
```

Each row is a file in `benchmarks/board_rows/`. A row is accepted if its command gives the same figures again."""
_CHECKED = """\
Perfect samples fail the tests of a task with a probability of at most 1 %, by construction.
`python benchmarks/board.py check=100` measures it with fresh sets of real points. It also plants five faults in real
points, which must rank below them."""
_ORIGINS = """\
Each row names the commit with which it was measured. Sets, seeds and numbers of samples are fixed for a
version of the benchmark, and rows of different versions are not compared."""
