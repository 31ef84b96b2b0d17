"""Say how good a model is: `python evaluate.py`, `python evaluate.py --samples points.npy --dataset moons`."""

from conf.entry import command  # answers --help before what follows takes its seconds

# isort: split
from dataclasses import asdict
from functools import partial
from pathlib import Path

from conf.choices import NUM_SAMPLES
from conf.config import Evaluate, Train, check_source, sampling_options
from dataset import IMAGE_DATASETS, PointSet, source_name
from loss.log import read_excess
from metrics.evaluation import evaluate_file, evaluate_model, real_rows_with_labels
from metrics.results import score_fields, write_report
from pipeline import pipeline_from_checkpoint
from runtime import checkpoint_file
from runtime import device as devices
from samplers.options import SamplingOptions
from training.checksum import check_data
from viz import style
from viz.column_pictures import save_columns
from viz.evaluation_pictures import save_pictures
from viz.sweeps import save_sheet


@command("evaluate", after_sweep=partial(save_sheet, names=["samples.png"]))
def main(o: Evaluate, run_folder: Path) -> float:
    """Evaluate a checkpoint or a file of samples; save table, metrics.json and pictures in `run_folder`.

    Returns the first figure of the table, for sweepers: for points the classifier's accuracy, for images the FD.
    """
    check_source(o)
    style.use(o.style)
    result = evaluate_samples(o, o.samples, run_folder) if o.samples else evaluate_checkpoint(o, run_folder)
    print(f"  pictures and metrics.json in {run_folder}")
    first = next(iter(result["figures"].values()))
    return first["value"]


def evaluate_samples(o: Evaluate, samples: str, run_folder: Path) -> dict:
    """The samples in a file, against the data set that the options name."""
    devices.use_threads(o.threads, images=False)
    kind = "images" if o.dataset.name in IMAGE_DATASETS else "points"
    count = o.num_samples or NUM_SAMPLES["evaluate"][kind]
    # The rows that a training by default options holds out.
    evaluation, unseen = evaluate_file(samples, asdict(o.dataset), count, o.seed, Train.num_samples)
    print(f"{len(evaluation.samples):,} samples of {samples}, compared with {dataset_name(asdict(o.dataset))}")
    report = write_report(run_folder, evaluation, unseen, seed=o.seed, samples=samples)
    real, real_labels = real_rows_with_labels(unseen, len(evaluation.samples), o.seed)
    columns = unseen.columns if isinstance(unseen, PointSet) else None
    save_pictures(
        run_folder,
        evaluation,
        real,
        formats=o.figures,
        classes=unseen.classes,
        real_labels=real_labels,
        columns=columns,
    )
    save_columns(run_folder, evaluation, unseen, o.figures)
    return report


def dataset_name(options: dict) -> str:
    """The name of a data set, with the file or the text that it is made from."""
    source = options.get("path") or options.get("root") or source_name(options)
    return f"{options['name']} {source}" if source else options["name"]


def evaluate_checkpoint(o: Evaluate, run_folder: Path) -> dict:
    """The samples of a checkpoint, against the data that it was trained for."""
    path, state = checkpoint_file.load_or_newest(o.checkpoint)
    pipeline = pipeline_from_checkpoint(state, path, devices.choose(o.device), o.precision)
    devices.use_threads(o.threads, pipeline.of_images)
    pipeline.take_data(asdict(o.dataset))
    check_data(pipeline, state)
    train, unseen = pipeline.data_sets()

    count = o.num_samples or NUM_SAMPLES["evaluate"][pipeline.kind]
    print(f"checkpoint {path}, {count:,} samples")
    options = SamplingOptions(**sampling_options(o))
    evaluation = evaluate_model(pipeline, train, unseen, num_samples=count, seed=o.seed, options=options)

    facts = {"seed": o.seed, "checkpoint": str(path), "num_samples": count, **evaluation.sampling.as_facts()}
    report = write_report(run_folder, evaluation, unseen, **facts)
    real, real_labels = real_rows_with_labels(unseen, count, o.seed)
    history = read_excess(checkpoint_file.run_folder_path(path))
    fields = score_fields(pipeline, unseen)
    save_pictures(
        run_folder,
        evaluation,
        real,
        fields,
        history,
        o.figures,
        pipeline.classes,
        real_labels,
        pipeline.columns,
    )
    save_columns(run_folder, evaluation, unseen, o.figures)
    return report


if __name__ == "__main__":
    main()
