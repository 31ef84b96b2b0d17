"""The page itself: its script out of the files beside this one, its texts, and the verdicts of an evaluation."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from torch import Tensor

from dataset import make_dataset, source_name
from pipeline import Pipeline
from points.mixture import GaussianMixture
from samplers import last
from samplers.options import SamplingOptions
from viz.pages.explorable.export import check_can_be_shared, contents, packed_weights, rounded
from viz.pages.explorable.verdicts import verdict_table
from viz.pages.html import page

HERE = Path(__file__).parent
ALL = ("arrays.js", "schedule.js", "denoisers.js", "samplers.js", "mixture.js", "embedding.js")
SCRIPTS = {
    "points": (*ALL, "mlp.js", "model.js", "worker.js", "stage.js", "points.js", "start.js"),
    "images": (*ALL, "unet.js", "model.js", "worker.js", "stage.js", "images.js", "start.js"),
}
LARGEST = 1_500_000  # bytes of a page that people send to each other
TITLES = {"mnist": "handwritten digits", "digits": "handwritten digits", "moons": "two moons"}
COMPARED = 16  # samples by the rounded weights and by the checkpoint's own


def explorable(pipeline: Pipeline, options: SamplingOptions, figures: Mapping[str, Any]) -> tuple[str, str]:
    """The page of a model, and in a sentence how exactly it computes.

    Args:
        options: how it samples at first, as Pipeline.resolve returns them; without fresh noise.
        figures: "figures" of metrics.json, {} where there are none.

    Raises:
        ValueError: the data are neither points of the plane nor images, or the network is too large for a page.
    """
    check_can_be_shared(pipeline)
    parts, own = exact_parts_of(pipeline), _samples(pipeline, options)
    for bits in (16, 8):
        weights = packed_weights(pipeline, bits)
        facts = _facts(pipeline, own, _samples(rounded(pipeline, weights), options), bits)
        html = _page(pipeline, contents(pipeline, options, parts, weights), figures, facts)
        if len(html.encode()) <= LARGEST:
            return html, facts
    raise ValueError(
        f"a network of {pipeline.num_parameters:,} weights makes a page of {len(html.encode()) / 1e6:.1f} MB even with"
        f" 8 bits a weight, and {LARGEST / 1e6:.1f} MB is the most: train a smaller one, with fewer model.channels or"
        " model.hidden"
    )


def exact_parts_of(pipeline: Pipeline) -> list[GaussianMixture]:
    """The exact distribution of each label's data, or of all in one; none of images, files and too little noise."""
    dataset = pipeline.config["dataset"]
    if pipeline.of_images or dataset["name"] == "file":
        return []
    data = make_dataset(n_samples=2, seed=0, **dataset)
    if data.mixture is None:
        return []
    return list(data.parts) if pipeline.classes else [data.mixture]


def name_of(pipeline: Pipeline) -> str:
    """What the data are called, in a title: their set, or the text, the picture or the file that they are."""
    dataset = pipeline.config["dataset"]
    if which := source_name(dataset):
        return f"“{which}”"
    name = str(dataset["name"])
    return TITLES.get(name, name.replace("_", " "))


def _page(pipeline: Pipeline, data: Mapping[str, Any], figures: Mapping[str, Any], facts: str) -> str:
    texts = {
        "name": escape(name_of(pipeline)),
        "weights": f"{pipeline.num_parameters:,}",
        "facts": escape(facts),
        "verdicts": verdict_table(figures),
    }
    body = Template((HERE / f"{pipeline.kind}.html").read_text(encoding="utf-8")).substitute(texts)
    script = "\n".join((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS[pipeline.kind])
    style = (HERE / "style.css").read_text(encoding="utf-8")
    return page(f"moonwalk: {name_of(pipeline)}", body, style=style, script=script, data=data)


def _facts(pipeline: Pipeline, own: Tensor, on_page: Tensor, bits: int) -> str:
    """How many bits a weight has, and how far that moves samples `on_page` from those of the checkpoint."""
    apart = float((own - on_page).square().mean().sqrt())
    if pipeline.of_images:
        moved = f"{apart / 2:.1g} of the range of a pixel"
    else:
        moved = f"{apart:.1g} standard deviations of the data"
    return f"Weights have {bits} bits here, which moves samples by {moved} (root mean square)."


def _samples(pipeline: Pipeline, options: SamplingOptions) -> Tensor:
    """A few samples, always from the same noise: (COMPARED, *dims)."""
    return last(pipeline.states(COMPARED, options, seed=0))
