"""Make a page about several runs: `python scripts/gallery.py RUN ...` writes
outputs/gallery/index.html.

For each run the page shows samples and, folded away, the verdicts of the evaluation. Films such as
flow.mp4 appear if they lie in the folder of the run. The page links an interactive page such as
scripts/share.py makes. All files are copied into the folder gallery/ beside the page, in one folder
for each run, so that any web site can serve them.
"""

if __name__ == "__main__":
    import repository  # noqa: F401  (first, so that Python finds the other folders)

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from conf import script_parsers
from conf.messages import last_words
from pipeline import Pipeline, pipeline_from_checkpoint
from runtime import checkpoint_file
from runtime.atomic_file import atomic_file
from scripts.share import evaluated_figures, page_sampling
from viz import style
from viz.colours import GROUND
from viz.pages.explorable.page import explorable, name_of
from viz.pages.gallery_page import Entry, gallery

WHITE = 240  # of 255, from which on a corner is white
# Pictures and films of a run, in the order in which the page shows them.
PICTURES = ("flow.mp4", "flow.gif", "flow.png", "samples.png", "reverse.mp4", "reverse.gif")


def main() -> None:
    args = script_parsers.gallery().parse_args()

    make(args.runs or [None], args.out)
    print(f"gallery: {args.out / 'index.html'}")


def make(runs: Sequence[str | None], out: Path) -> None:
    """Write index.html, and all files that it links, into the folder `out`.

    runs: run folders or checkpoints; None: the newest run.

    Raises:
        ValueError: two runs have one name, or a run cannot be shown; the sentence names it.
        OSError: a run is missing, or a file cannot be written.
    """
    checkpoints = [checkpoint_file.load_or_newest(run) for run in runs]
    names = [checkpoint_file.run_folder_path(path).resolve().name for path, _ in checkpoints]
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise ValueError(f"two runs are called {min(repeated)}, and each needs a folder of its own: rename one of them")

    entries = []
    for (path, state), name in zip(checkpoints, names):
        try:
            entries.append(gallery_entry(path, state, out, Path("gallery", name)))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    with atomic_file(out / "index.html") as file:
        file.write(gallery(entries).encode())


def gallery_entry(path: Path, state: Mapping[str, Any], out: Path, folder: Path) -> Entry:
    """The entry of a checkpoint.

    Its pictures are copied to out / folder, and its page is made there.
    """
    source = checkpoint_file.run_folder_path(path)
    pipeline = pipeline_from_checkpoint(state, path, torch.device("cpu"))
    figures = evaluated_figures(source)
    html, _ = explorable(pipeline, page_sampling(pipeline), figures)

    (out / folder).mkdir(parents=True, exist_ok=True)
    page = folder / "page.html"
    with atomic_file(out / page) as file:
        file.write(html.encode())
    pictures = []
    for name in PICTURES:
        if (source / name).exists():
            with atomic_file(out / folder / name) as file:
                file.write((source / name).read_bytes())
            pictures.append(folder / name)
    dark = dark_pictures(pictures, out)
    return Entry(title(pipeline), description(pipeline), pictures, page, figures, dark)


def dark_pictures(pictures: Sequence[Path], out: Path) -> dict[Path, Path]:
    """Write NAME_dark.png beside each NAME.png on a white ground; returns the new paths by the old."""
    dark = {}
    for path in pictures:
        if path.suffix != ".png":
            continue
        try:
            pixels = np.asarray(Image.open(out / path).convert("RGB"))
        except OSError:
            continue  # a damaged picture
        if pixels[0, 0].min() < WHITE:
            continue
        dark[path] = path.with_name(f"{path.stem}_dark.png")
        with atomic_file(out / dark[path]) as file:
            Image.fromarray(style.darkened(pixels, keep=GROUND)).save(file, "PNG", optimize=True)
    return dark


def title(pipeline: Pipeline) -> str:
    """The name of the data set with a capital, such as 'Two moons, by label'."""
    name = name_of(pipeline)
    name = name[:1].upper() + name[1:]
    return f"{name}, by label" if pipeline.classes and not pipeline.of_images else name


def description(pipeline: Pipeline) -> str:
    """A sentence about the network and the options with which it was trained."""
    options = [f"{group}={pipeline.config[group]['name']}" for group in ("dataset", "model")]
    options.append(f"schedule={pipeline.config['schedule']}")
    if pipeline.classes:
        options.append("conditional=true")
    words = " ".join(options)
    return f"A network of {pipeline.num_parameters:,} weights, trained with {words}."


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(last_words(error))
