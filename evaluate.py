"""Say how good a model is: `python evaluate.py`, `python evaluate.py --samples points.npy --dataset moons`."""

from pathlib import Path
from typing import Any

from conf.entry import command


@command("evaluate")
def main(
    run_folder: Path,
    dataset: dict[str, Any],
    checkpoint: str | None,
    samples: str | None,
    num_samples: int,
    seed: int,
    device: str,
    threads: int | None,
    sampler: str,
    sampling_steps: int | None,
    eta: float,
) -> float:
    """Judge a checkpoint or a file of samples; leave table, metrics.json and pictures in `run_folder`.

    Returns the classifier's two-sample accuracy, for sweepers.
    """
    import checkpoint as checkpoints  # here and not above: --help must not wait for torch
    import device as devices
    from dataset import held_out, make_dataset, read_points
    from judge import Judgement, judge_model, real_draws
    from metrics import judge
    from report import write_report
    from trained import load

    chosen = devices.choose(device, threads)
    if samples:
        points = read_points(samples, n_samples=num_samples, seed=seed).points
        _, data = held_out(make_dataset(n_samples=num_samples, seed=seed, **dataset))
        judgement = Judgement(judge(points, real_draws(data, seed), data.law), points)
        print(f"{len(points):,} samples of {samples}, held against {dataset['name']}")
        result = write_report(run_folder, judgement, data, seed=seed, samples=samples)
    else:
        path = Path(checkpoint) if checkpoint else checkpoints.newest()
        trained = load(path, chosen)
        config = trained.config
        _, data = held_out(make_dataset(n_samples=config["num_samples"], seed=config["seed"], **config["dataset"]))
        options = {"num_samples": num_samples, "sampler": sampler, "sampling_steps": sampling_steps, "eta": eta}
        print(f"checkpoint {path}, {num_samples:,} samples by {sampler}")
        judgement = judge_model(trained, data, chosen, seed=seed, **options)
        folder = path if path.is_dir() else path.parent
        result = write_report(
            run_folder,
            judgement,
            data,
            seed=seed,
            trained=trained,
            history_from=folder,
            checkpoint=str(path),
            **options,
        )
    print(f"  pictures and metrics.json in {run_folder}")
    return result["figures"]["classifier accuracy"]["value"]


if __name__ == "__main__":
    main()
