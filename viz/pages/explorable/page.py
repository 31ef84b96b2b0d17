"""The page that runs a network: its script out of the files beside this one, and its texts."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from torch import Tensor

from dataset import make_dataset, source_name
from pipeline import Pipeline
from points.mixture import GaussianMixture
from registry.data_rows import POINT_SETS
from samplers import last
from samplers.options import SamplingOptions
from viz.pages.explorable.page_contents import check_can_be_shared, contents, packed_weights, rounded
from viz.pages.explorable.verdicts import VERDICT_STYLE, verdict_table
from viz.pages.html import page

HERE = Path(__file__).parent
COMMON = (
    "arrays.js",
    "schedule.js",
    "denoisers.js",
    "samplers.js",
    "mixture.js",
    "embedding.js",
)
SCRIPTS = {
    "points": (
        *COMMON,
        "mlp.js",
        "model.js",
        "worker.js",
        "stage.js",
        "points.js",
        "start.js",
    ),
    "images": (
        *COMMON,
        "unet.js",
        "model.js",
        "worker.js",
        "stage.js",
        "images.js",
        "start.js",
    ),
}
LARGEST = 1_500_000  # bytes of a page that people send to each other
BITS = (16, 8)  # of a weight: fewer where the page would otherwise be larger
COMPARED = 16  # samples that measure how far rounded weights move samples
REFLOWED = """<p>This network is a reflow: it was trained on the paths of another network, to straighten them. The exact
answer at the right is that of the data and of their own flow, which is not straight. So the same noise ends at other
places, and both can be right about the data.</p>
"""
# What the pages say of a network by the way in which it was trained.
MIXED = "x<sub>t</sub> = α x<sub>0</sub> + σ ε, at every strength, and the network learnt to predict what was mixed."
TEXTS = {
    "exact_of": "",
    "exact_note": "",
    "arrows": "its score (arrows)",
    "trained": f"To train it, data were mixed with noise, {MIXED}",
    "few": "With few evaluations the steps are long and the points miss; try 3.",
    "score": """The <i>score</i> says where data with this much noise lie denser: the arrows lead there.
<span class="of_exact">For these data it is known exactly, at every noise level, and no network can do better than the
panel at the right.</span>""",
}
TEXTS_OF_REFLOW = {
    "exact_of": " for the data",
    "exact_note": REFLOWED,
    "arrows": "where less noise is predicted (arrows)",
    "trained": f"To train it, samples of another network were mixed with the noise that each came from, {MIXED}",
    "few": "The paths are nearly straight, so few evaluations are enough; compare 1 with 50.",
    "score": """The arrows lead away from the noise that the network predicts.
<span class="of_exact">Those at the right are the exact <i>score</i> of the data, which says where data with this much
noise lie denser. A reflow does not learn it.</span>""",
}
TITLES = {"mnist": "handwritten digits", "digits": "handwritten digits", "moons": "two moons"}


def explorable(
    pipeline: Pipeline,
    options: SamplingOptions,
    figures: Mapping[str, Any],
) -> tuple[str, str]:
    """Return the HTML page of a model, and a sentence about how exactly it computes.

    Args:
        pipeline: the model.
        options: how it samples at first, see Pipeline.resolve; without fresh noise.
        figures: "figures" of metrics.json, {} where there are none.

    Raises:
        ValueError: the data are neither points of the plane nor images, or the network is too large
            for a page.
    """
    check_can_be_shared(pipeline)
    parts = exact_parts_of(pipeline)
    own = _samples(pipeline, options)
    size = 0
    for bits in BITS:
        weights = packed_weights(pipeline, bits)
        on_page = _samples(rounded(pipeline, weights), options)
        facts = _facts(pipeline, own, on_page, bits)
        html = _page(pipeline, contents(pipeline, options, parts, weights), figures, facts)
        size = len(html.encode())
        if size <= LARGEST:
            return html, facts
    raise ValueError(
        f"a network of {pipeline.num_parameters:,} weights makes a page of {size / 1e6:.1f} MB even"
        f" with 8 bits a weight, and {LARGEST / 1e6:.1f} MB is the most: train a smaller one, with"
        " fewer model.channels or model.hidden"
    )


def exact_parts_of(pipeline: Pipeline) -> list[GaussianMixture]:
    """Return the exact distribution of each label's data, or one of all data, in data units.

    It is empty for images, for files, and for data without enough noise to have a density.
    """
    dataset = pipeline.config["dataset"]
    if pipeline.of_images or dataset["name"] not in POINT_SETS:
        return []
    data = make_dataset(n_samples=2, seed=0, **dataset)
    if data.mixture is None:
        return []
    return list(data.parts) if pipeline.classes else [data.mixture]


def name_of(pipeline: Pipeline) -> str:
    """Return the name of the data for a title: their set, or the text, picture or file of them."""
    dataset = pipeline.config["dataset"]
    source = source_name(dataset)
    if source:
        return f"“{source}”"
    name = str(dataset["name"])
    return TITLES.get(name, name.replace("_", " "))


def _page(
    pipeline: Pipeline,
    data: Mapping[str, Any],
    figures: Mapping[str, Any],
    facts: str,
) -> str:
    """Return the HTML of a page with this data."""
    kind = pipeline.kind
    name = name_of(pipeline)
    body = Template(_file(f"{kind}.html")).substitute(
        name=escape(name),
        weights=f"{pipeline.num_parameters:,}",
        facts=escape(facts),
        verdicts=verdict_table(figures),
        **(TEXTS_OF_REFLOW if "reflow" in pipeline.config else TEXTS),
    )
    script = "\n".join(_file(script) for script in SCRIPTS[kind])
    return page(f"moonwalk: {name}", body, style=_file("style.css") + VERDICT_STYLE, script=script, data=data)


def _file(name: str) -> str:
    """Return the text of a file beside this one."""
    return (HERE / name).read_text(encoding="utf-8")


def _facts(pipeline: Pipeline, own: Tensor, on_page: Tensor, bits: int) -> str:
    """Say how many bits a weight has, and how far that moves samples.

    Args:
        pipeline: the model.
        own: samples of the checkpoint.
        on_page: samples of the rounded weights from the same noise.
        bits: of a weight.
    """
    distance = float((own - on_page).square().mean().sqrt())
    if pipeline.of_images:
        moved = f"{distance / 2:.1g} of the range of a pixel"
    else:
        moved = f"{distance:.1g} standard deviations of the data"
    return f"Weights have {bits} bits here, which moves samples by {moved} (root mean square)."


def _samples(pipeline: Pipeline, options: SamplingOptions) -> Tensor:
    """Return samples (COMPARED, *dims), always from the same noise."""
    return last(pipeline.states(COMPARED, options, seed=0))
