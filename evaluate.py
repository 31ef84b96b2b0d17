"""Say how good a model is: `python evaluate.py`, `python evaluate.py --samples points.npy --dataset moons`."""

from conf.entry import command  # answers --help before what follows takes its seconds

# isort: split
from dataclasses import asdict
from pathlib import Path
from typing import Any

from conf.config import Evaluate


@command("evaluate")
def main(options: Evaluate, run_folder: Path) -> Any:
    return run(run_folder=run_folder, **asdict(options))


def run(
    run_folder: Path,
    dataset: dict[str, Any],
    checkpoint: str | None,
    samples: str | None,
    num_samples: int,
    seed: int,
    device: str,
    threads: int | None,
    sampler: str | None,
    sampling_steps: int | None,
    eta: float,
    guidance: float | None,
    precision: str,
) -> float:
    """Judge a checkpoint or a file of samples; leave table, metrics.json and pictures in `run_folder`.

    Returns the first figure of the table, for sweepers: of points the classifier's accuracy, of images the FD.
    """
    from dataset import make_sets
    from metrics.evaluation import default_eval_samples, evaluate_file, evaluate_model
    from metrics.report import write_report
    from runtime import checkpoint as checkpoints  # here and not above: --help must not wait for torch
    from runtime import device as devices
    from runtime.trained import load

    chosen = devices.choose(device)
    if samples:
        devices.use_threads(threads, images=False)
        evaluation, data = evaluate_file(samples, dataset, num_samples, seed)
        print(f"{len(evaluation.samples):,} samples of {samples}, held against {dataset['name']}")
        result = write_report(run_folder, evaluation, data, seed=seed, samples=samples)
    else:
        path = Path(checkpoint) if checkpoint else checkpoints.newest()
        trained = load(path, chosen, precision)
        devices.use_threads(threads, trained.of_images)
        config, num_samples = trained.config, num_samples or default_eval_samples(trained.of_images)
        train, data = make_sets(n_samples=config["num_samples"], seed=config["seed"], **config["dataset"])
        options = {"num_samples": num_samples, "sampler": sampler, "sampling_steps": sampling_steps, "eta": eta}
        print(f"checkpoint {path}, {num_samples:,} samples")
        evaluation = evaluate_model(trained, train, data, chosen, seed=seed, guidance=guidance, **options)
        folder = path if path.is_dir() else path.parent
        result = write_report(
            run_folder,
            evaluation,
            data,
            seed=seed,
            trained=trained,
            history_from=folder,
            checkpoint=str(path),
            eta=eta,
            num_samples=num_samples,
            **evaluation.sampling,
        )
    print(f"  pictures and metrics.json in {run_folder}")
    return next(iter(result["figures"].values()))["value"]


if __name__ == "__main__":
    main()
