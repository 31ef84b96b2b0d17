"""The pictures of all runs of a sweep on one sheet."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from loss.runs import runs_of_sweep
from runtime.atomic_file import atomic_file
from viz.style import ink, paper

LINE = 36  # pixels: the height of the line above each picture
WIDEST = 1200  # pixels: the width and height of a picture, at most


def save_sheet(folder: Path, *, names: Sequence[str]) -> None:
    """Write sweep.png: one picture of each run, below each other, each under the run's options.

    Args:
        folder: of the sweep.
        names: files, in order of preference. All pictures are of the first that any run has; if
            there is none, nothing is written.
    """
    name = _first_that_exists(folder, names)
    if name is None:
        return
    runs = runs_of_sweep(folder, name)
    pictures = []
    for run in runs.values():
        picture = Image.open(run.folder / name).convert("RGB")
        picture.thumbnail((WIDEST, WIDEST))
        pictures.append(picture)

    width = max(picture.width for picture in pictures)
    height = sum(picture.height + LINE for picture in pictures)
    sheet = Image.new("RGB", (width, height), paper())
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(LINE // 2)
    top = 0
    for options, picture in zip(runs, pictures):
        draw.text((LINE // 2, top + LINE // 2), options, ink(), font, anchor="lm")
        sheet.paste(picture, (0, top + LINE))
        top += picture.height + LINE

    path = folder / "sweep.png"
    with atomic_file(path) as file:
        sheet.save(file, "PNG", optimize=True)
    print(f"sweep: {path}")


def _first_that_exists(folder: Path, names: Sequence[str]) -> str | None:
    """Return the first of these names that is a file in a run folder, or None."""
    for name in names:
        if any(folder.glob(f"*/{name}")):
            return name
    return None
