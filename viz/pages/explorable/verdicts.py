"""The verdicts of an evaluation, metrics.json, as a table of HTML."""

from collections.abc import Mapping
from html import escape
from typing import Any


def verdict_table(figures: Mapping[str, Any]) -> str:
    """Metric, value, floor with its 90 % band, verdict; how to get one where there is none.

    Raises:
        ValueError: these are not the figures of metrics.json.
    """
    if not figures:
        return "<p>This model has not been evaluated yet.</p>"
    try:
        rows = "\n".join(_row(name, figure) for name, figure in figures.items())
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError("metrics.json does not hold the figures of an evaluation") from error
    head = "".join(f'<th scope="col">{word}</th>' for word in ("metric", "value", "floor [90 % band]", "verdict"))
    return f"""<p>Each metric compares generated with real data. Its <i>floor</i> is what as many <i>real</i>
data give: nothing can be expected to be better than that.</p>
<div class="scroll"><table>
<tr>{head}</tr>
{rows}
</table></div>"""


def _row(name: str, figure: Mapping[str, Any]) -> str:
    value, floor, low, high = (f"{float(figure[key]):.4f}" for key in ("value", "floor", "low", "high"))
    verdict = escape(str(figure["verdict"]))
    mark = "✓" if figure["passed"] else "✗"
    return (
        f'<tr><th scope="row">{escape(str(name))}</th><td class="number">{value}</td>'
        f"<td>{floor} [{low}, {high}]</td><td>{mark} {verdict}</td></tr>"
    )
