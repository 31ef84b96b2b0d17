"""The page about a sweep: options, samples, figures with their floors, and losses of all runs."""

import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from loss.log import read_excess, read_losses
from loss.runs import Run, differing
from viz.learning import smoothed
from viz.pages.html import data_uri, page
from viz.pages.svg_curves import chart

THUMBNAIL = (720, 360)  # pixels, at most
THUMBNAIL_COLOURS = 32
FEW_UNFINISHED = 6  # a list of fewer runs is open at first
LONG_NUMBER = r"-?\d*\.\d{6,}(e-?\d+)?"  # an option that a search has drawn

# What else metrics.json holds about a run, and how the table calls it.
FACTS = {"loss": "training loss", "cpu_seconds": "seconds of CPU", "steps": "steps"}

HERE = Path(__file__).parent
COLOURS = """The colour of a curve stands beside the name of its run in the table. The colours follow the order of the
table, from blue to orange: sort it by an option and see whether the curves follow."""
FLOORS = """Below each figure stands its <i>floor</i>, the median for <i>real</i> data in place of the samples: single
values may be smaller by chance. ✗ marks a figure by which the samples are distinguishable from real data."""


def title_of(folder: Path, found: Sequence[Run]) -> str:
    """Return the title of the page about the runs in a folder: a single run is no sweep."""
    if len(found) == 1 and found[0].folder == folder:
        return f"Run {folder}"
    return f"Sweep {folder}"


def sweep_page(title: str, found: Sequence[Run]) -> str:
    """Return the HTML page of all runs.

    It needs no other file, and no text out of a run folder can become more than a text.
    """
    body = f"""<h1>{escape(title)}</h1>
{_summary(found)}
<div class="charts">
{_charts(found)}
</div>
<div class="scroll" tabindex="0" role="region" aria-label="all runs">
{_table(found)}
</div>"""
    style = (HERE / "report.css").read_text(encoding="utf-8")
    script = (HERE / "report.js").read_text(encoding="utf-8")
    return page(title, body, style=style, script=script)


# ---------------------------------------------------------------- the summary


def counted(found: Sequence[Run]) -> str:
    """Return how many runs there are: '12 runs: 10 finished, 1 failed, 1 unfinished'."""
    counts = Counter(_state(run) for run in found)
    runs = "runs" if len(found) > 1 else "run"
    parts = [f"{count} {state}" for state, count in counts.items()]
    return f"{len(found)} {runs}: {', '.join(parts)}"


def _state(run: Run) -> str:
    """Return how a run ended, in one word."""
    if not run.fault:
        return "finished"
    return run.fault.split(":")[0].split(",")[0]


def _summary(found: Sequence[Run]) -> str:
    """Return how many runs there are, the options that they share, and which are not finished."""
    colours = f" {COLOURS}" if len(found) > 1 else ""
    parts = [f"<p>{counted(found)}.{colours} {FLOORS}</p>"]
    first = found[0]
    different = differing(found)
    shared = [f"{name}={first.value(name)}" for name in first.typed if name not in different]
    if shared:
        begin = "All with" if len(found) > 1 else "With"
        parts.append(f"<p>{begin} <code>{escape(' '.join(shared))}</code></p>")
    unfinished = [run for run in found if run.fault]
    if unfinished:
        opened = " open" if len(unfinished) < FEW_UNFINISHED else ""
        items = [f"<li>{escape(run.name)} {escape(run.fault)}</li>" for run in unfinished]
        parts.append(
            f"<details{opened}><summary>Not finished: {len(unfinished)}</summary><ul>{''.join(items)}</ul></details>"
        )
    return "\n".join(parts)


def _charts(found: Sequence[Run]) -> str:
    """Return the training losses and, where it is known, their excess over the Bayes floor."""
    losses = {}
    excesses = {}
    floors = set()
    for i, run in enumerate(found):
        try:
            table = read_losses(run.folder)
            losses[i] = (table["step"], smoothed(table["loss"]))
            excess = read_excess(run.folder)
            if excess:
                excesses[i] = (excess["step"], excess["excess"])
                floors.add(float(excess["floor"][0]))
        except (ValueError, OSError):
            continue  # the run made no step, or its row of the table says what is damaged
    title = "training loss, smoothed"
    if floors:
        title += "; dotted: Bayes floor"
    error = "mean squared error"
    upper = chart(losses, title, error, sorted(floors))
    lower = chart(excesses, "excess over the Bayes floor: what is left to learn", error)
    return upper + lower


# ---------------------------------------------------------------- the table


def _table(found: Sequence[Run]) -> str:
    """Return the table: one row for each run, with buttons that sort it."""
    options = differing(found)
    figures = _figure_names(found)
    columns = []
    for name in ("run", *options, "", "verdict", *figures, *FACTS.values()):
        content = f'<button type="button">{escape(name)}</button>' if name else "samples"
        kind = "" if name else ' class="unsorted"'
        columns.append(f'<th scope="col" aria-sort="none"{kind}>{content}</th>')
    rows = []
    last = max(1, len(found) - 1)
    for i, run in enumerate(found):
        rows.append(_row(run, i, i / last, options, figures))
    head = f"<thead><tr>{''.join(columns)}</tr></thead>"
    return f"<table>\n{head}\n<tbody>\n{''.join(rows)}</tbody>\n</table>"


def _figure_names(found: Sequence[Run]) -> list[str]:
    """Return the names of all metrics of all runs, in the order in which they first occur."""
    names: dict[str, None] = {}
    for run in found:
        names |= dict.fromkeys(run.results.get("figures", {}))
    return list(names)


def _row(run: Run, number: int, rank: float, options: Sequence[str], figures: Sequence[str]) -> str:
    """Return the row of a run; its rank, from 0 to 1, gives its colour."""
    cells = []
    for name in options:
        value = run.value(name)
        cells.append(_cell(name, value, _typed(value)))
    thumbnail = _thumbnail(run, options)
    cells.append(f'<td class="picture" data-label="" data-value="">{thumbnail}</td>')
    cells.append(_verdict(run))
    for name in figures:
        cells.append(_figure(name, run.results.get("figures", {}).get(name)))
    for name, words in FACTS.items():
        value = run.results.get(name)
        cells.append(_cell(words, value, _short(value)))
    swatch = '<span class="swatch"></span>'
    head = f'<th scope="row" data-value="{number}">{swatch}{escape(run.name)}</th>'
    return f'<tr data-run="{number}" style="--rank:{rank:.4f}">{head}{"".join(cells)}</tr>\n'


def _cell(label: str, value: object, content: str, kind: str = "") -> str:
    """Return a cell.

    Args:
        label: the name of its column.
        value: the number or word by which the column is sorted.
        content: HTML.
        kind: its CSS classes.
    """
    by = "" if value is None else escape(str(value))
    return f'<td class="{kind}" data-label="{escape(label)}" data-value="{by}">{content}</td>'


def _verdict(run: Run) -> str:
    """Return the cell of the verdict, sorted by the number of metrics that find a difference."""
    if run.fault:
        return _cell("verdict", run.fault, escape(run.fault), "words wide fault")
    rows = run.results.get("figures", {})
    if not rows:
        return _cell("verdict", None, "not evaluated", "words wide faint")
    failed = [name for name, row in rows.items() if not row.get("passed")]
    words = "indistinguishable"
    if failed:
        words = f"distinguishable by {', '.join(failed)}"
    return _cell("verdict", len(failed), escape(words), "words wide")


def _figure(name: str, row: Mapping[str, Any] | None) -> str:
    """Return the cell of a metric: its value above its floor, with a mark if it has failed."""
    if row is None:
        return _cell(name, None, "")
    passed = row.get("passed")
    mark = "" if passed else "✗ "
    content = f"{mark}{_short(row['value'])}<small>floor {_short(row.get('floor'))}</small>"
    return _cell(name, row["value"], content, "" if passed else "fault")


def _short(value: object) -> str:
    """Return a number with few digits, or an escaped text."""
    if value is None:
        return ""
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.3g}"
    return escape(str(value))


def _typed(value: str) -> str:
    """Return the value of an option, escaped; long numbers are shortened."""
    if re.fullmatch(LONG_NUMBER, value):
        return f"{float(value):.3g}"
    return escape(value)


def _thumbnail(run: Run, options: Sequence[str]) -> str:
    """Return a small image of a run's samples.png; empty if there is none or it is damaged."""
    try:
        with Image.open(run.folder / "samples.png") as picture:
            small = picture.convert("RGB")
    except Exception:  # Pillow reports damaged pictures by many types of error
        return ""
    small.thumbnail(THUMBNAIL)
    file = io.BytesIO()
    small.quantize(THUMBNAIL_COLOURS).save(file, "PNG", optimize=True)
    source = data_uri(file.getvalue(), "image/png")
    size = f'width="{small.width}" height="{small.height}"'
    alt = f"samples of run {run.name}"
    if options:
        words = [f"{name}={_typed(run.value(name))}" for name in options]
        alt += f" ({', '.join(words)})"
    return f'<img loading="lazy" {size} alt="{escape(alt)}" src="{source}">'
