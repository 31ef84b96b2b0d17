"""The pictures of an evaluation (samples, timesteps, field) and of losses."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from numpy.typing import NDArray

from loss.log import read_excess, read_losses
from loss.runs import run_options, runs_of_sweep
from loss.runs import runs as all_runs
from metrics.evaluation import Evaluation
from points.tables import Columns
from viz import image_grids, learning, stills, style
from viz.colours import run_colours

SHOWN = 5000  # points


def save_pictures(
    folder: Path,
    evaluation: Evaluation,
    real: NDArray,
    fields: Sequence[Mapping[str, NDArray]] = (),
    history: Mapping[str, NDArray] | None = None,
    formats: Sequence[str] = (),
    classes: Sequence[str] = (),
    real_labels: NDArray | None = None,
    columns: Columns | None = None,
) -> None:
    """Write samples.png and, for points, timesteps.png and field.png where they are known.

    Args:
        folder: where to write.
        evaluation: what was measured.
        real: real data (N, *dims) to show beside the samples.
        fields: see learning.score_fields.
        history: of the excess over the training, see loss.log.read_excess.
        formats: see stills.save.
        classes: the names of the labels that a conditional model knows.
        real_labels: of the real data (N,), where the samples have labels as well.
        columns: the names of the coordinates, for points of a table.
    """
    if evaluation.samples.ndim == 4:
        figures = {"samples": image_grids.beside_real(evaluation.samples, real)}
    else:
        figures = _figures_of_points(evaluation, real, real_labels, fields, history, classes, columns)
    for name, figure in figures.items():
        stills.save(figure, folder / f"{name}.png", formats)


def _figures_of_points(
    evaluation: Evaluation,
    real: NDArray,
    real_labels: NDArray | None,
    fields: Sequence[Mapping[str, NDArray]],
    history: Mapping[str, NDArray] | None,
    classes: Sequence[str],
    columns: Columns | None,
) -> dict[str, Figure]:
    """Return the figures of an evaluation of points, by the names of their files."""
    labels = evaluation.labels
    if labels is None:
        real_labels = None  # without labels neither side is coloured
    else:
        labels = labels[:SHOWN]
    if real_labels is not None:
        real_labels = real_labels[:SHOWN]
    figures = {
        "samples": stills.samples(
            evaluation.samples[:SHOWN],
            real[:SHOWN],
            labels,
            real_labels,
            classes,
            evaluation.sampling.guidance_text,
            len(evaluation.samples),
            columns,
        )
    }
    by_step = evaluation.by_step
    if by_step:
        figures["timesteps"] = learning.timesteps(
            by_step.steps,
            by_step.floor,
            by_step.excess,
            history,
            ", mean over the labels" if classes else "",
        )
    if fields:
        figures["field"] = learning.score_fields(fields, ", without a label" if classes else "")
    return figures


def save_losses(
    path: str | Path, runs: Mapping[str, Path], formats: Sequence[str] = (), colours: Sequence[str] = ()
) -> Path:
    """Draw the losses of several runs in one picture, and return its path.

    Args:
        path: the file.
        runs: run folders, by the names that they have in the picture.
        formats: see stills.save.
        colours: see learning.losses.

    Raises:
        FileNotFoundError, ValueError: see loss.log.read_losses.
    """
    losses = {}
    excesses = {}
    labelled = []
    for name, folder in runs.items():
        shown = style.literal(name)
        excess = read_excess(folder)
        if excess:
            excesses[shown] = excess
        losses[shown] = read_losses(folder)
        if run_options(folder).get("conditional"):
            labelled.append(shown)
    return stills.save(learning.losses(losses, excesses, labelled, colours), path, formats)


def save_sweep(folder: Path) -> None:
    """Write losses.png into the folder of a sweep: the losses of those runs that are finished.

    A run has the colour that it has in the report, which counts unfinished runs as well. The style
    and the formats are those that the first run asks for.
    """
    finished = runs_of_sweep(folder)
    if not finished:
        return
    options = next(iter(finished.values())).options
    style.use(options.get("style", "light"))
    folders = {name: run.folder for name, run in finished.items()}
    every_folder = [run.folder for run in all_runs(folder)]
    by_folder = dict(zip(every_folder, run_colours(len(every_folder), style.is_dark())))
    colours = [by_folder.get(run.folder, style.ink()) for run in finished.values()]
    picture = save_losses(folder / "losses.png", folders, options.get("figures", ()), colours)
    print(f"sweep: {picture}; `python loss/report.py {folder}` makes a page about its runs")
