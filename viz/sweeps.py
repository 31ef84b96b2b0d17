"""The pictures of all runs of a sweep on one."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from loss.runs import runs_of_sweep
from runtime.atomic_file import atomic_file
from viz.style import ink, paper

LINE, WIDEST = 36, 1200  # pixels: the height of a name, and the width of a picture at most


def save_sheet(folder: Path, *, names: Sequence[str]) -> None:
    """sweep.png: a picture of each run that has one, below each other, each under its run's options.

    names: of the pictures; all are of the first name that is found.
    """
    name = next((name for name in names if any(folder.glob(f"*/{name}"))), None)
    if name is None:
        return
    runs = runs_of_sweep(folder, name)
    pictures = [Image.open(run.folder / name).convert("RGB") for run in runs.values()]
    for picture in pictures:
        picture.thumbnail((WIDEST, WIDEST))
    size = max(picture.width for picture in pictures), sum(picture.height + LINE for picture in pictures)
    sheet, below = Image.new("RGB", size, paper()), 0
    draw = ImageDraw.Draw(sheet)
    for options, picture in zip(runs, pictures):
        draw.text((LINE // 2, below + LINE // 2), options, ink(), ImageFont.load_default(LINE // 2), anchor="lm")
        sheet.paste(picture, (0, below + LINE))
        below += picture.height + LINE
    with atomic_file(folder / "sweep.png") as file:
        sheet.save(file, "PNG", optimize=True)
    print(f"sweep: {folder / 'sweep.png'}")
