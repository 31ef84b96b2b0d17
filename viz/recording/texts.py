"""The texts beside the pictures, in Markdown: what they show, and where the clock stands. Panels give the lines."""

from collections.abc import Sequence

import rerun as rr
import rerun.blueprint as rrb

from metrics.scene import Scene
from viz.recording.panel import HELD, Panel

MARKDOWN = "text/markdown"


def log(rec: rr.RecordingStream, scene: Scene, panels: Sequence[Panel]) -> None:
    """about, and in now a text for each moment of each clock.

    The last one comes again, late: until then the last picture is held.
    """
    rec.log("about", rr.TextDocument(_about(scene, panels), media_type=MARKDOWN), static=True)
    rec.log("now", rr.TextDocument.from_fields(media_type=MARKDOWN), static=True)
    for clock in ("step", "t"):
        moments = sorted({int(m) for p in scene.processes for m in (p.story if clock == "step" else p.steps)})
        texts = [_now(scene, panels, clock, moment) for moment in moments]
        late = moments[-1] + max(1, round(HELD * moments[-1]))
        index = rr.TimeColumn(clock, sequence=[*moments, late])
        rec.send_columns("now", indexes=[index], columns=rr.TextDocument.columns(text=[*texts, texts[-1]]))


def view() -> rrb.Container:
    now, about = rrb.TextDocumentView(origin="/now", name="Now"), rrb.TextDocumentView(origin="/about", name="About")
    return rrb.Vertical(now, about, row_shares=[2, 3])


def _about(scene: Scene, panels: Sequence[Panel]) -> str:
    words = [panel.words(scene) for panel in panels]
    sees = [line for some in words for line in some.sees]
    tries = [line for some in words for line in some.tries] + ["Space pauses the clock, the arrow keys step it."]
    return "\n\n".join([*sees, "*Try this*"]) + "\n\n" + "\n".join(f"* {line}" for line in tries) + "\n"


def _now(scene: Scene, panels: Sequence[Panel], clock: str, moment: int) -> str:
    """Where each process stands when `clock` shows `moment`."""
    total = max(int(p.steps.max()) for p in scene.processes)
    blocks = [f"## {clock} {moment} of {total}"]
    for process in scene.processes:
        step = total - moment if clock == "step" and process.side == "reverse" else moment
        blocks.append(f"**{process.side}**, noise level: {step} forward steps")
        blocks.append("\n".join(f"* {panel.now(scene, process, step)}" for panel in panels if panel.now))
    return "\n\n".join(blocks)
