"""The verdicts of an evaluation, metrics.json, as an HTML table."""

from collections.abc import Mapping
from html import escape
from typing import Any

from metrics.table import bounds_text

COLUMNS = ("metric", "value", "floor", "passes", "verdict")
# On a phone each metric is a block of its own: its name, then its figures, then the verdict.
VERDICT_STYLE = """@media (max-width: 640px) {
  .verdicts, .verdicts tbody { display: block; }
  .verdicts .heads { display: none; }
  .verdicts tr { display: grid; grid-template-columns: 1fr 1fr 2fr; border-bottom: 1px solid var(--edge); }
  .verdicts th, .verdicts td { border: 0; text-align: left; }
  .verdicts th, .verdicts td.verdict { grid-column: 1 / -1; }
  .verdicts td[data-label]::before { content: attr(data-label); display: block; color: var(--faint); }
}
"""


def verdict_table(figures: Mapping[str, Any]) -> str:
    """Return a table of metric, value, floor, the values that pass, and verdict.

    Args:
        figures: "figures" of metrics.json; {} if the model has not been evaluated.

    Raises:
        ValueError: these are not the figures of metrics.json.
    """
    if not figures:
        return "<p>This model has not been evaluated yet.</p>"
    try:
        rows = [_row(name, figure) for name, figure in figures.items()]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError("metrics.json does not hold the figures of an evaluation") from error
    columns = [f'<th scope="col">{name}</th>' for name in COLUMNS]
    newline = "\n"
    return f"""<p>Each metric compares generated with real data. Its <i>floor</i> is the median
for <i>real</i> data in place of the samples: single values may lie below it by chance.</p>
<div class="scroll"><table class="verdicts">
<tr class="heads">{"".join(columns)}</tr>
{newline.join(rows)}
</table></div>"""


def _row(name: str, figure: Mapping[str, Any]) -> str:
    """Return the row of a metric.

    Raises:
        KeyError, TypeError, ValueError: something is missing, or no number.
    """
    value = f"{float(figure['value']):.4f}"
    floor = f"{float(figure['floor']):.4f}"
    low, high = figure.get("bounds", (None, None))  # older evaluations hold none
    passes = bounds_text((low if low is None else float(low), high if high is None else float(high)))
    verdict = escape(str(figure["verdict"]))
    mark = "✓" if figure["passed"] else "✗"
    return (
        f'<tr><th scope="row">{escape(str(name))}</th><td class="number" data-label="value">{value}</td>'
        f'<td class="number" data-label="floor">{floor}</td><td data-label="passes">{passes}</td>'
        f'<td class="verdict">{mark} {verdict}</td></tr>'
    )
