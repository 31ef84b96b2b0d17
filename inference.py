"""Replay the learned reverse process: `python inference.py`, `python inference.py --checkpoint runs/first`."""

from conf.entry import command  # answers --help before what follows takes its seconds

# isort: split
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from conf.config import Inference


@command("inference")
def main(options: Inference, run_folder: Path) -> Any:
    return run(run_folder=run_folder, **asdict(options))


def run(
    run_folder: Path,
    checkpoint: str | None,
    num_samples: int | None,
    labels: Any,
    seed: int,
    device: str,
    threads: int | None,
    precision: str,
    sampler: str | None,
    sampling_steps: int | None,
    eta: float,
    guidance: float | None,
    viz_steps: int,
    rerun: bool,
    viewer: str,
    port: int | None,
    **pictures: Any,
) -> None:
    """Sample from a checkpoint; leave samples.npy, samples.png and the recording in `run_folder`.

    pictures: animation, save_trajectory and track_samples, which mean something else for points and for images.
    """
    import numpy as np  # here and not above: --help must not wait for it

    from diffusion import chosen_steps
    from runtime import checkpoint as checkpoints
    from runtime import device as devices
    from runtime.progress import progress_bar
    from runtime.trained import load
    from sampler import visited

    chosen = devices.choose(device)
    path = Path(checkpoint) if checkpoint else checkpoints.newest()
    trained = load(path, chosen, precision)
    devices.use_threads(threads, trained.of_images)
    print(f"checkpoint: {path}")

    # ------------------------------------------------------------ the reverse process, every state of it passing by
    num_samples = num_samples or (100 if trained.of_images else 2000)
    wanted = trained.labels(labels, num_samples)
    options = trained.sampling(sampler, sampling_steps, guidance)
    passed = visited(trained.scheduler, options["sampler"], options["sampling_steps"])
    kept = {passed[i] for i in chosen_steps(len(passed) - 1, viz_steps)}
    states = trained.sample(num_samples, seed, chosen, labels=wanted, eta=eta, **options)
    states = (state for state in progress_bar(states, "sampling", len(passed)) if state.step in kept)

    # ------------------------------------------------------------ what is left of it
    labels = None if wanted is None else wanted.numpy()
    folder = path if path.is_dir() else path.parent
    save = leave_images if trained.of_images else leave_points
    log = save(run_folder, trained, states, num_samples, labels, seed=seed, folder=folder, rerun=rerun, **pictures)
    if labels is not None:
        np.save(run_folder / "labels.npy", labels)
    if rerun and log:
        from viz.viewer import recording

        with recording("moonwalk", run_folder / "reverse.rrd", viewer, port=port) as rec:
            log(rec)


def leave_points(
    run_folder: Path,
    trained: Any,
    states: Iterator[Any],
    num_samples: int,
    labels: Any,
    *,
    seed: int,
    folder: Path,
    rerun: bool,
    animation: str | None,
    save_trajectory: bool,
    track_samples: list[int] | None,
) -> Callable[[Any], None] | None:
    """The files of points out of the states of their reverse process; returns what records them.

    folder: that of the checkpoint, with the loss of its training.
    """
    import numpy as np
    import torch

    from metrics import replay
    from metrics.scene import checked_rows
    from viz import films
    from viz import stills as figures

    animation = animation or "none"
    films.check_writer(animation)
    tracked = checked_rows(track_samples, num_samples)
    process, guesses = replay.reverse(states, tracked)
    samples = trained.data_units(torch.from_numpy(process.states[-1])).numpy()
    np.save(run_folder / "samples.npy", samples)
    real, other = replay.real_sets(trained.config["dataset"], num_samples, seed)
    print(f"samples:    {run_folder / 'samples.npy'}")
    print(f"picture:    {figures.save(figures.samples(samples, real.points), run_folder / 'samples.png')}")
    if not (rerun or save_trajectory or animation != "none"):
        return None
    if trained.dims not in ((2,), (3,)):
        print(f"recording:  none, because it shows points of 2 or 3 coordinates, not of shape {trained.dims}")
        return None
    scene = replay.of_trained(trained, process, guesses, folder, real, other, seed)
    films.save(scene, run_folder, animation, save_trajectory)

    def log(rec: Any) -> None:
        from rerun_viz import log_scene  # rerun takes a second, and may not be wanted

        log_scene(scene, tracked, rec=rec)

    return log


def leave_images(
    run_folder: Path,
    trained: Any,
    states: Iterator[Any],
    num_samples: int,
    labels: Any,
    *,
    folder: Path,
    animation: str | None,
    save_trajectory: bool,
    track_samples: list[int] | None,
    **_: Any,
) -> Callable[[Any], None]:
    """The same of images: samples.npy (N, C, H, W) in [-1, 1], the grid of them and its film."""
    import numpy as np

    from metrics import replay
    from viz import films, image_film
    from viz import image_grids as image_figures
    from viz import stills as figures
    from viz.tiles import arranged

    animation = animation or "gif"
    films.check_writer(animation)
    image_film.check_options(track_samples, save_trajectory)
    process, guesses, samples = replay.reverse_of_images(states, min(num_samples, image_figures.SHOWN))
    np.save(run_folder / "samples.npy", samples)
    print(f"samples:    {run_folder / 'samples.npy'}")
    sheet = image_figures.samples(samples, labels, trained.classes)
    print(f"picture:    {figures.save(sheet, run_folder / 'samples.png')}")
    image_film.save(process, labels, trained.classes, run_folder, animation)

    def log(rec: Any) -> None:
        from viz.recording.images import log_images

        grid = arranged(process.states.shape[1], labels, trained.classes)
        log_images(replay.of_images(trained, process, guesses, folder), grid, rec=rec)

    return log


if __name__ == "__main__":
    main()
