"""The texts beside the pictures, in Markdown: what they show, and what happens at each moment."""

from collections.abc import Sequence

import numpy as np
import rerun as rr
import rerun.blueprint as rrb
from numpy.typing import NDArray

from viz.recording.panel import HELD, Panel, clock_values
from viz.scene import HELD_S, LASTS_S, Process, Scene

MARKDOWN = "text/markdown"
CLOCKS = ("time", "step", "t")


def log(rec: rr.RecordingStream, scene: Scene, panels: Sequence[Panel]) -> None:
    """Send `about`, and in `now` a text for each moment of each clock."""
    about = rr.TextDocument(_about(scene, panels), media_type=MARKDOWN)
    rec.log("about", about, static=True)
    rec.log("now", rr.TextDocument.from_fields(media_type=MARKDOWN), static=True)
    values_of_processes = [clock_values(scene, process) for process in scene.processes]
    for clock in CLOCKS:
        values = [values_of_process[clock] for values_of_process in values_of_processes]
        _log_now(rec, scene, panels, clock, values)


def _log_now(
    rec: rr.RecordingStream,
    scene: Scene,
    panels: Sequence[Panel],
    clock: str,
    values: Sequence[NDArray],
) -> None:
    """Send the texts of one clock.

    The last text comes again, late: the last state is held until then.

    Args:
        rec: the recording.
        scene: what is shown.
        panels: what gives the lines.
        clock: the name of the clock.
        values: for each process the values of the clock at its states, (S,).
    """
    moments = np.unique(np.concatenate(values)).tolist()
    texts = []
    for moment in moments:
        steps = []
        for process, values_of_process in zip(scene.processes, values):
            steps.append(_shown_step(process, values_of_process, moment))
        texts.append(_now(scene, panels, clock, moment, steps))

    last = moments[-1]
    if clock == "time":
        index = rr.TimeColumn(clock, duration=[*moments, last + HELD_S])
    else:
        index = rr.TimeColumn(clock, sequence=[*moments, last + max(1, round(HELD * last))])
    columns = rr.TextDocument.columns(text=[*texts, texts[-1]])
    rec.send_columns("now", indexes=[index], columns=columns)


def _shown_step(process: Process, values: NDArray, moment: float) -> int:
    """Return the forward steps of the state that a process shows: the last that has begun.

    Args:
        process: the process.
        values: (S,), the clock at each of its states.
        moment: of that clock.
    """
    order = np.argsort(values, kind="stable")
    begun = np.searchsorted(values[order], moment, "right") - 1
    return int(process.steps[order][max(0, begun)])


def view() -> rrb.Container:
    """Return the views of both texts."""
    now = rrb.TextDocumentView(origin="/now", name="Now")
    about = rrb.TextDocumentView(origin="/about", name="About")
    return rrb.Vertical(now, about, row_shares=[3, 5], name="Words")


def _about(scene: Scene, panels: Sequence[Panel]) -> str:
    """Return the text that describes the recording: what there is to see, and what to try."""
    sees = []
    tries = []
    for panel in panels:
        words = panel.words(scene)
        sees += words.sees
        tries += words.tries
    tries.append("Space pauses, the arrow keys step.")
    return f"{_bullets(sees)}\n\n*Try this*\n\n{_bullets(tries)}\n"


def _bullets(lines: Sequence[str]) -> str:
    """Return a list in Markdown."""
    return "\n".join(f"* {line}" for line in lines)


def _now(
    scene: Scene,
    panels: Sequence[Panel],
    clock: str,
    moment: float,
    steps: Sequence[int],
) -> str:
    """Return the text of a moment of `clock`, when process i is after steps[i] forward steps."""
    if clock == "time":
        heading = f"### Shown since {moment:.1f} s of {LASTS_S:.0f}"
    else:
        total = max(int(process.steps.max()) for process in scene.processes)
        heading = f"### {clock} {moment} of {total}"
    blocks = [heading]
    for process, step in zip(scene.processes, steps):
        lines = [f"**{process.side}**: as noisy as after {step} forward steps\n"]
        for panel in panels:
            if panel.now:
                lines.append(f"\n* {panel.now(scene, process, step)}")
        blocks.append("".join(lines))
    return "\n\n".join(blocks)
