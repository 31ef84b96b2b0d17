"""A page for several runs: `python scripts/gallery.py RUN ...` makes docs/index.html, ready for any web site.

Of each run it shows its samples, its films (flow.mp4, reverse.gif and the like), the verdicts of its evaluation, and a
page to play with, as scripts/share.py makes it. All of it is copied into docs/gallery, one folder for each run.
"""

import argparse
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, Python only knows scripts/
# isort: split
from pipeline import Pipeline, pipeline_from_checkpoint
from runtime import checkpoint_file
from runtime.atomic_file import atomic_file
from scripts.share import figures_of, sampling_of
from viz.pages.explorable.page import explorable, name_of
from viz.pages.gallery_page import Entry, gallery

PICTURES = ("flow.mp4", "flow.gif", "flow.png", "samples.png", "reverse.mp4", "reverse.gif")  # of a run, in this order


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", metavar="RUN", help="run folders or checkpoints (default: the newest run)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", default="docs", help="default: %(default)s")
    o = parser.parse_args()
    make(o.runs or [None], o.out)
    print(f"gallery: {o.out / 'index.html'}")


def make(runs: Sequence[str | None], out: Path) -> None:
    """index.html and all that it links, in the folder `out`. Raises ValueError for two runs of one name."""
    found = [checkpoint_file.asked_or_newest(run) for run in runs]
    names = [checkpoint_file.folder_of(path).resolve().name for path, _ in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"two runs are called {min(twice)}, and each needs a folder of its own: rename one of them")
    entries = [entry_of(path, state, out, Path("gallery", name)) for (path, state), name in zip(found, names)]
    with atomic_file(out / "index.html") as file:
        file.write(gallery(entries).encode())


def entry_of(path: Path, state: Mapping[str, Any], out: Path, folder: Path) -> Entry:
    """The run of a checkpoint, its pictures copied and its page made in out / folder."""
    source, pipeline = checkpoint_file.folder_of(path), pipeline_from_checkpoint(state, path, torch.device("cpu"))
    figures = figures_of(source)
    html, _ = explorable(pipeline, sampling_of(pipeline), figures)
    (out / folder).mkdir(parents=True, exist_ok=True)
    with atomic_file(out / folder / "page.html") as file:
        file.write(html.encode())
    found = [name for name in PICTURES if (source / name).exists()]
    for name in found:
        shutil.copyfile(source / name, out / folder / name)
    return Entry(title_of(pipeline), about(pipeline), [folder / name for name in found], folder / "page.html", figures)


def title_of(pipeline: Pipeline) -> str:
    title = name_of(pipeline)
    title = title[:1].upper() + title[1:]
    return f"{title}, by label" if pipeline.classes and not pipeline.of_images else title


def about(pipeline: Pipeline) -> str:
    """What made the samples, in a sentence."""
    chosen = [f"{group}={pipeline.config[group]['name']}" for group in ("dataset", "model")]
    chosen += [f"schedule={pipeline.config['schedule']}", *["conditional=true"] * bool(pipeline.classes)]
    return f"A network of {pipeline.num_parameters:,} weights, trained with {' '.join(chosen)}."


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
