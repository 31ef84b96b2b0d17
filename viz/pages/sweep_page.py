"""The page about a sweep: options, samples, figures beside their floors and losses of all its runs, in one table."""

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

THUMBNAIL = (320, 160)  # pixels, at most
FACTS = {"loss": "training loss", "cpu_seconds": "seconds of CPU", "steps": "steps"}  # of metrics.json, no figures
HERE = Path(__file__).parent
HOW_TO_READ = """The colours follow the order of the table, from blue to orange: sort it by an option and see whether
the curves follow. A figure stands above its floor, what real data give; ✗ marks one by which the samples are
distinguishable from them."""


def sweep_page(title: str, found: Sequence[Run]) -> str:
    """The HTML of all runs: nothing beside it is needed, and no text out of a run folder is more than a text."""
    body = f"""<h1>{escape(title)}</h1>
{_summary(found)}
<div class="charts">
{_charts(found)}
</div>
<div class="scroll" tabindex="0" role="region" aria-label="all runs">
{_table(found)}
</div>"""
    style, script = ((HERE / f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    return page(title, body, style=style, script=script)


def counted(found: Sequence[Run]) -> str:
    """'12 runs: 10 finished, 1 failed, 1 unfinished'"""
    counts = Counter(_state(run) for run in found)
    return f"{len(found)} run{'s' * (len(found) > 1)}: " + ", ".join(f"{n} {state}" for state, n in counts.items())


def _state(run: Run) -> str:
    return run.fault.split(":")[0].split(",")[0] if run.fault else "finished"


def _summary(found: Sequence[Run]) -> str:
    """How many there are; the options that all share; and by name those that are not finished."""
    first, apart = found[0], differing(found)
    shared = [f"{name}={first.value(name)}" for name in first.typed if name not in apart]
    parts = [f"<p>{counted(found)}. {HOW_TO_READ}</p>"]
    if shared:
        parts.append(f"<p>All with <code>{escape(' '.join(shared))}</code></p>")
    if missing := [f"<li>{escape(run.name)} {escape(run.fault)}</li>" for run in found if run.fault]:
        head = f"<details{' open' * (len(missing) < 6)}><summary>Not finished: {len(missing)}</summary>"
        parts.append(f"{head}<ul>{''.join(missing)}</ul></details>")
    return "\n".join(parts)


def _charts(found: Sequence[Run]) -> str:
    """Training losses, and where it is known their excess over the Bayes floor."""
    losses, excesses, floors = {}, {}, set()
    for i, run in enumerate(found):
        try:
            table = read_losses(run.folder)
            losses[i] = table["step"], smoothed(table["loss"])
            if over := read_excess(run.folder):
                excesses[i] = over["step"], over["excess"]
                floors.add(float(over["floor"][0]))
        except (ValueError, OSError):  # it never came to its first step, or says in its own row what is damaged
            continue
    above = "; dotted: Bayes floor" if floors else ""
    return chart(losses, f"training loss, smoothed{above}", "mean squared error", sorted(floors)) + chart(
        excesses, "excess over the Bayes floor: what is left to learn", "mean squared error"
    )


# ---------------------------------------------------------------- the table


def _table(found: Sequence[Run]) -> str:
    options = differing(found)
    figures = list(dict.fromkeys(name for run in found for name in run.results.get("figures", {})))
    heads = ["run", *options, "", "verdict", *figures, *FACTS.values()]
    names = [f'<button type="button">{escape(head)}</button>' if head else "samples" for head in heads]
    head = "".join(f'<th scope="col" aria-sort="none">{name}</th>' for name in names)
    last = max(1, len(found) - 1)
    rows = [_row(run, i, i / last, options, figures) for i, run in enumerate(found)]
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{''.join(rows)}</tbody>\n</table>"


def _row(run: Run, number: int, rank: float, options: Sequence[str], figures: Sequence[str]) -> str:
    cells = [_cell(name, run.value(name), _typed(run.value(name))) for name in options]
    cells.append(f'<td class="wide" data-label="" data-value="">{_thumbnail(run, options)}</td>')
    cells.append(_verdict(run))
    cells += [_figure(name, run.results.get("figures", {}).get(name)) for name in figures]
    cells += [_cell(words, value, _short(value)) for name, words in FACTS.items() for value in [run.results.get(name)]]
    name = f'<th scope="row" data-value="{number}"><span class="swatch"></span>{escape(run.name)}</th>'
    return f'<tr data-run="{number}" style="--rank:{rank:.4f}">{name}{"".join(cells)}</tr>\n'


def _cell(label: str, value: object, content: str, kind: str = "") -> str:
    """value: what the column is sorted by, a number or words."""
    by = "" if value is None else escape(str(value))
    return f'<td class="{kind}" data-label="{escape(label)}" data-value="{by}">{content}</td>'


def _verdict(run: Run) -> str:
    """Sorted by the number of metrics by which the samples are distinguishable."""
    if run.fault:
        return _cell("verdict", run.fault, escape(run.fault), "words wide fault")
    rows = run.results.get("figures", {})
    if not rows:
        return _cell("verdict", None, "not evaluated", "words wide faint")
    failed = [name for name, row in rows.items() if not row.get("passed")]
    words = f"distinguishable by {', '.join(failed)}" if failed else "indistinguishable"
    return _cell("verdict", len(failed), escape(words), "words wide")


def _figure(name: str, row: Mapping[str, Any] | None) -> str:
    if row is None:
        return _cell(name, None, "")
    mark = "" if row.get("passed") else "✗ "
    content = f"{mark}{_short(row['value'])}<small>floor {_short(row.get('floor'))}</small>"
    return _cell(name, row["value"], content, "" if row.get("passed") else "fault")


def _short(value: object) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else escape("" if value is None else str(value))


def _typed(value: str) -> str:
    """An option's value; of a search's long numbers the first digits."""
    return f"{float(value):.4g}" if re.fullmatch(r"-?\d*\.\d{6,}(e-?\d+)?", value) else escape(value)


def _thumbnail(run: Run, options: Sequence[str]) -> str:
    try:
        with Image.open(run.folder / "samples.png") as picture:
            small = picture.convert("RGB")
    except OSError:  # none, or damaged
        return ""
    small.thumbnail(THUMBNAIL)
    file = io.BytesIO()
    small.quantize(64).save(file, "PNG", optimize=True)
    size = f'width="{small.width}" height="{small.height}"'
    words = ", ".join(f"{name}={run.value(name)}" for name in options)
    alt = escape(f"samples of run {run.name}" + f" ({words})" * bool(words))
    return f'<img loading="lazy" {size} alt="{alt}" src="{data_uri(file.getvalue(), "image/png")}">'
