"""The texts beside the pictures, in Markdown: what they show, and where the clock stands. Panels give the lines."""

from collections.abc import Sequence

import numpy as np
import rerun as rr
import rerun.blueprint as rrb
from numpy.typing import NDArray

from viz.recording.panel import HELD, Panel, hands
from viz.scene import HELD_S, LASTS_S, Process, Scene

MARKDOWN = "text/markdown"


def log(rec: rr.RecordingStream, scene: Scene, panels: Sequence[Panel]) -> None:
    """about, and in now a text for each moment of each clock.

    The last one comes again, late: until then the last picture is held.
    """
    rec.log("about", rr.TextDocument(_about(scene, panels), media_type=MARKDOWN), static=True)
    rec.log("now", rr.TextDocument.from_fields(media_type=MARKDOWN), static=True)
    standing = [hands(scene, process) for process in scene.processes]
    for clock in ("time", "step", "t"):
        moments = sorted({moment for stood in standing for moment in stood[clock].tolist()})
        late = moments[-1] + (HELD_S if clock == "time" else max(1, round(HELD * moments[-1])))
        steps = [[_step(p, stood[clock], m) for p, stood in zip(scene.processes, standing)] for m in moments]
        texts = [_now(scene, panels, clock, m, each) for m, each in zip(moments, steps)]
        unit = "duration" if clock == "time" else "sequence"
        index = rr.TimeColumn(clock, **{unit: [*moments, late]})
        rec.send_columns("now", indexes=[index], columns=rr.TextDocument.columns(text=[*texts, texts[-1]]))


def _step(process: Process, stood: NDArray, moment: float) -> int:
    """The forward steps of the state that a process shows at a moment: of those before it the last."""
    order = np.argsort(stood, kind="stable")
    return int(process.steps[order][max(0, np.searchsorted(stood[order], moment, "right") - 1)])


def view() -> rrb.Container:
    now, about = rrb.TextDocumentView(origin="/now", name="Now"), rrb.TextDocumentView(origin="/about", name="About")
    return rrb.Vertical(now, about, row_shares=[3, 5], name="Words")


def _about(scene: Scene, panels: Sequence[Panel]) -> str:
    words = [panel.words(scene) for panel in panels]
    sees = [line for some in words for line in some.sees]
    tries = [line for some in words for line in some.tries] + ["Space pauses, the arrow keys step."]
    return "\n".join(f"* {line}" for line in sees) + "\n\n*Try this*\n\n" + "\n".join(f"* {t}" for t in tries) + "\n"


def _now(scene: Scene, panels: Sequence[Panel], clock: str, moment: float, steps: Sequence[int]) -> str:
    """Where each process stands when `clock` shows `moment`: after steps[i] forward steps."""
    total = max(int(p.steps.max()) for p in scene.processes)
    blocks = [f"### {moment:.1f} s of {LASTS_S:.0f}" if clock == "time" else f"### {clock} {moment} of {total}"]
    for process, step in zip(scene.processes, steps):
        lines = [panel.now(scene, process, step) for panel in panels if panel.now]
        blocks.append(f"**{process.side}**: {step} forward steps\n" + "".join(f"\n* {line}" for line in lines))
    return "\n\n".join(blocks)
