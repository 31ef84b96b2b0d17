"""Export a trained model as a folder to share: `python scripts/export.py RUN --out DIR`.

The folder holds model.safetensors with the averaged weights and the normaliser, config.json with the options, and a
model card, README.md. `checkpoint=DIR` samples from it with the bits of the run. It cannot be trained further.
"""

if __name__ == "__main__":
    import repository  # noqa: F401  (first, so that Python finds the other folders)

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from conf import script_parsers
from conf.messages import last_words
from metrics.results import read_report
from metrics.table import bounds_text
from pipeline import Pipeline, pipeline_from_checkpoint
from runtime import checkpoint_file, exported_folder
from runtime.atomic_file import atomic_file, temporary_path

CARD_FILE = "README.md"
HOW_TO_READ = (
    "The floor of a metric is its median value when real data take the place of the samples. Column *passes* holds the"
    " values that pass."
)


def main() -> None:
    args = script_parsers.export().parse_args()

    run = args.run.removeprefix("checkpoint=") if args.run else None
    path, state = checkpoint_file.load_or_newest(run)
    export(path, state, args.out)
    print(f"checkpoint: {path}")
    print(f"model:      {args.out}, {folder_bytes(args.out) / 1000:,.0f} kB; use it by checkpoint={args.out}")


def export(path: Path, state: Mapping[str, Any], out: Path) -> None:
    """Write the model in the checkpoint `state` at `path` into the folder `out`, which becomes whole or stays absent.

    Raises:
        ValueError: weights and options of the checkpoint do not fit, or `out` is not empty.
        OSError: it cannot be written.
    """
    script_parsers.check_out_is_free(out)
    pipeline = pipeline_from_checkpoint(state, path, torch.device("cpu"))
    report = read_report(checkpoint_file.run_folder_path(path))

    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = temporary_path(out.absolute())
    unfinished.mkdir()
    try:
        exported_folder.save(unfinished, state)
        with atomic_file(unfinished / CARD_FILE) as file:
            file.write(model_card(pipeline, state, report, out.absolute().name).encode())
        if out.exists():
            out.rmdir()
        unfinished.rename(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


# ---------------------------------------------------------------- the model card


def model_card(pipeline: Pipeline, state: Mapping[str, Any], report: Mapping[str, Any], name: str) -> str:
    """The text of README.md.

    report: what metrics.json of the run contains; {} where there is none. name: of the exported folder.
    """
    config = pipeline.config
    shape = " x ".join(str(size) for size in pipeline.dims)
    kind = f"images of {shape} numbers" if pipeline.of_images else f"points of {shape} coordinates"
    steps = f" after {state['step']:,} optimizer steps" if "step" in state else ""
    labels = f" Labels: {', '.join(pipeline.classes)}." if pipeline.classes else ""
    return "\n".join(
        [
            f"# {name}",
            "",
            f"A diffusion model of moonwalk that makes {kind}; data set `{config['dataset']['name']}`, network"
            f" `{config['model']['name']}` of {pipeline.num_parameters:,} weights, averaged (EMA){steps}.{labels}",
            "",
            "```python",
            "from pipeline import Pipeline  # moonwalk's; docs/other-peoples-models.md says how Python finds it",
            f"samples = Pipeline.load({name!r}).sample(1000)",
            "```",
            "",
            "## How good it is",
            "",
            *verdict_lines(report),
            "",
            "## How it was trained",
            "",
            "```text",
            *(f"{option}={typed(value)}" for option, value in flat(config).items()),
            "```",
            "",
        ]
    )


def verdict_lines(report: Mapping[str, Any]) -> list[str]:
    """The verdict table of an evaluation in Markdown, or a sentence where there was none."""
    figures = report.get("figures")
    if not figures:
        return ["The run was not evaluated. `python evaluate.py checkpoint=DIR` does it."]
    lines = ["| metric | value | floor | passes | verdict |", "|---|---|---|---|---|"]
    for name, row in figures.items():
        low, high = row["bounds"]
        cells = [name, f"{row['value']:.4f}", f"{row['floor']:.4f}", bounds_text((low, high)), row["verdict"]]
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    failed = [name for name, row in figures.items() if not row["passed"]]
    verdict = f"distinguishable by {', '.join(failed)}" if failed else "indistinguishable by every test"
    return [*lines, "", f"Verdict: {verdict}.", "", HOW_TO_READ]


def typed(value: object) -> str:
    """A value in one line, as JSON or as plain text."""
    return value if isinstance(value, str) and value.isprintable() else json.dumps(value)


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The options by the names that a user types, such as model.hidden; a group by its name, as in model=mlp."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}".removesuffix(".name")] = value
    return found


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(last_words(error))
