"""Make an interactive page from a checkpoint: `python scripts/share.py [RUN]`.

The page is a single HTML file that holds the network and runs it in the browser. It needs no other
file and no connection, so it can be sent to anybody. It shows points of the plane or images.
`--picture FILE.png` also takes a picture of it, with an installed Chromium.
"""

if __name__ == "__main__":
    import repository  # noqa: F401  (first, so that Python finds the other folders)

import json
import sys
from pathlib import Path
from typing import Any

import torch

from conf import script_parsers
from conf.messages import last_words
from pipeline import Pipeline, pipeline_from_checkpoint
from runtime import checkpoint_file
from runtime.atomic_file import atomic_file
from samplers import sampler_row
from samplers.options import SamplingOptions
from viz.pages.browser import picture_of
from viz.pages.explorable.page import explorable

# Conditions, in the page's own JavaScript, that hold once it has computed all that it shows.
READY = {
    "points": "points.field && stage.walk.reach === 1",
    "images": "stage.walk?.reach === 1",
}
# The fraction of the reverse process at which the picture shows the page.
PICTURE_MOMENT = 0.62
# Deterministic samplers, whose paths can be followed. Both need few steps.
NOISELESS_SAMPLER = {"points": "adams", "images": "dpmpp_2m"}
REFLOW_EVALUATIONS = 2  # the paths of a reflow are nearly straight


def main() -> None:
    args = script_parsers.share().parse_args()

    run = args.run.removeprefix("checkpoint=") if args.run else None
    path, state = checkpoint_file.load_or_newest(run)
    folder = checkpoint_file.run_folder_path(path)
    pipeline = pipeline_from_checkpoint(state, path, torch.device("cpu"))
    html, facts = explorable(pipeline, page_sampling(pipeline), evaluated_figures(folder))

    out = args.out or folder / "page.html"
    with atomic_file(out) as file:
        file.write(html.encode())
    print(f"checkpoint: {path}")
    print(facts)
    print(f"page:       {out}, {out.stat().st_size / 1000:,.0f} kB")

    if args.picture:
        address = f"{out.resolve().as_uri()}#{PICTURE_MOMENT}"
        with atomic_file(args.picture) as file:
            file.write(picture_of(address, READY[pipeline.kind]))
        print(f"picture:    {args.picture}")


def page_sampling(pipeline: Pipeline) -> SamplingOptions:
    """The sampling options with which the page begins: those of inference.py, without fresh noise.

    A reflow begins with few evaluations, which its straight paths are for.
    """
    if "reflow" in pipeline.config:
        return pipeline.resolve(SamplingOptions(sampling_steps=REFLOW_EVALUATIONS))
    options = pipeline.resolve()
    if sampler_row(str(options.sampler)).noisy:
        return pipeline.resolve(SamplingOptions(sampler=NOISELESS_SAMPLER[pipeline.kind]))
    return options


def evaluated_figures(folder: Path) -> dict[str, Any]:
    """The figures of a run's evaluation; {} where there was none.

    Raises:
        ValueError: metrics.json is damaged.
    """
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
        sys.exit(last_words(error))
