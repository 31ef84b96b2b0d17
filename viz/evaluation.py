"""The pictures of an evaluation: samples.png, timesteps.png and field.png."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from numpy.typing import NDArray

from metrics.evaluation import Evaluation
from viz import image_grids, learning, stills

SHOWN = 5000  # points


def save_pictures(
    folder: Path,
    evaluation: Evaluation,
    real: NDArray,
    fields: Sequence[Mapping[str, NDArray]] = (),
    history: Mapping[str, NDArray] | None = None,
) -> None:
    """All that an evaluation can show. real: data beside the samples; fields: see learning.score_fields; history: of
    the excess over the training (loss.log.read_excess)."""
    if evaluation.samples.ndim == 4:
        stills.save(image_grids.beside_real(evaluation.samples, real), folder / "samples.png")
        return
    stills.save(stills.samples(evaluation.samples[:SHOWN], real[:SHOWN]), folder / "samples.png")
    if found := evaluation.by_step:
        sheet = learning.timesteps(found.steps, found.floor, found.excess, history)
        stills.save(sheet, folder / "timesteps.png")
    if fields:
        stills.save(learning.score_fields(fields), folder / "field.png")
