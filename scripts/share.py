"""A page to play with: `python scripts/share.py [RUN]` makes one HTML file out of the newest checkpoint, or of RUN's.

The file holds the network itself and runs it in the browser; it needs nothing beside it and no connection, so it can be
sent to anybody. Points of the plane and images. `--picture FILE.png` also takes its picture, by an installed Chromium.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, Python only knows scripts/
# isort: split
from pipeline import Pipeline, pipeline_from_checkpoint
from runtime import checkpoint_file
from runtime.atomic_file import atomic_file
from samplers import sampler_row
from samplers.options import SamplingOptions
from viz.pages.browser import picture_of
from viz.pages.explorable.page import explorable

# When the page has computed all that it shows, in its own words, and the moment at which it stands.
READY = {"points": "points.field && stage.walk.reach === 1", "images": "stage.walk?.reach === 1"}
MOMENT = 0.62
CALM = {"points": "adams", "images": "dpmpp_2m"}  # without noise, so that a path can be followed, and good in few steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", help="a run folder or checkpoint (also checkpoint=RUN; default: the newest)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: page.html in the run folder")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="also a PNG of it, 1280x720, by a Chromium")
    o = parser.parse_args()
    path, state = checkpoint_file.asked_or_newest(o.run and o.run.removeprefix("checkpoint="))
    folder = checkpoint_file.folder_of(path)
    pipeline = pipeline_from_checkpoint(state, path, torch.device("cpu"))
    html, facts = explorable(pipeline, sampling_of(pipeline), figures_of(folder))
    out = o.out or folder / "page.html"
    with atomic_file(out) as file:
        file.write(html.encode())
    print(f"checkpoint: {path}\n{facts}\npage:       {out}, {out.stat().st_size / 1000:,.0f} kB")
    if o.picture:
        with atomic_file(o.picture) as file:
            file.write(picture_of(f"{out.resolve().as_uri()}#{MOMENT}", READY[pipeline.kind]))
        print(f"picture:    {o.picture}")


def sampling_of(pipeline: Pipeline) -> SamplingOptions:
    """How the page samples at first: as inference.py does, but without noise on the way."""
    options = pipeline.resolve()
    if sampler_row(str(options.sampler)).noisy:
        return pipeline.resolve(SamplingOptions(sampler=CALM[pipeline.kind]))
    return options


def figures_of(folder: Path) -> dict[str, Any]:
    """The figures of the run's evaluation; {} where there was none. Raises ValueError for a damaged metrics.json."""
    path = folder / "metrics.json"
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text()).get("figures", {})
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is damaged: run python evaluate.py checkpoint={folder}, or remove it") from error


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
