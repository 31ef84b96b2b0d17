"""The pictures of an evaluation, samples.png, timesteps.png and field.png; and of losses, loss.png."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from numpy.typing import NDArray

from loss.log import read_excess, read_losses
from loss.runs import runs_of_sweep
from metrics.evaluation import Evaluation
from viz import image_grids, learning, stills, style

SHOWN = 5000  # points


def save_pictures(
    folder: Path,
    evaluation: Evaluation,
    real: NDArray,
    fields: Sequence[Mapping[str, NDArray]] = (),
    history: Mapping[str, NDArray] | None = None,
    formats: Sequence[str] = (),
    classes: Sequence[str] = (),
) -> None:
    """All that an evaluation can show, in these formats (stills.save).

    real: data beside the samples; fields: see learning.score_fields; history: of the excess over the training
    (loss.log.read_excess); classes: the names of the labels that a conditional model knows.
    """
    if evaluation.samples.ndim == 4:
        sheets = {"samples": image_grids.beside_real(evaluation.samples, real)}
    else:
        labels = None if evaluation.labels is None else evaluation.labels[:SHOWN]
        steered = evaluation.sampling.guidance_text
        sheet = stills.samples(evaluation.samples[:SHOWN], real[:SHOWN], labels, None, classes, steered)
        sheets = {"samples": sheet}
        if found := evaluation.by_step:
            over = ", mean over the labels" if classes else ""
            sheets["timesteps"] = learning.timesteps(found.steps, found.floor, found.excess, history, over)
        if fields:
            sheets["field"] = learning.score_fields(fields, ", without a label" if classes else "")
    for name, sheet in sheets.items():
        stills.save(sheet, folder / f"{name}.png", formats)


def save_losses(path: str | Path, runs: Mapping[str, Path], formats: Sequence[str] = ()) -> Path:
    """The losses of run folders, by the names that they have on the picture; returns its path.

    Raises:
        FileNotFoundError, ValueError: see loss.log.read_losses.
    """
    excesses = {name: excess for name, run in runs.items() if (excess := read_excess(run))}
    return stills.save(learning.losses({name: read_losses(run) for name, run in runs.items()}, excesses), path, formats)


def save_sweep(folder: Path) -> None:
    """losses.png of those runs of a sweep that are done, in its folder, on the ground and in the formats they chose."""
    if done := runs_of_sweep(folder):
        options = next(iter(done.values())).options
        style.use(options.get("style", "light"))
        folders = {name: run.folder for name, run in done.items()}
        picture = save_losses(folder / "losses.png", folders, options.get("figures", ()))
        print(f"sweep: {picture}; `python loss/report.py {folder}` makes a page about its runs")
