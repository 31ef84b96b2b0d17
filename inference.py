"""Replay the learned reverse process: `python inference.py`, `python inference.py --checkpoint runs/first`."""

from conf.entry import command  # answers --help before what follows takes its seconds

# isort: split
from pathlib import Path

from conf.choices import SAMPLING_DEFAULTS
from conf.config import Inference
from metrics import replay
from metrics.scene import checked_rows
from runtime import checkpoint
from runtime import device as devices
from runtime.progress import progress_bar
from runtime.trained import load
from sampler import timesteps_of
from schedule import evenly
from viz import films, image_film, image_grids


@command("inference")
def main(o: Inference, run_folder: Path) -> None:
    """Sample from a checkpoint; save samples.npy, samples.png, a film and the recording in `run_folder`."""
    path = Path(o.checkpoint) if o.checkpoint else checkpoint.newest()
    trained = load(path, devices.choose(o.device), o.precision)
    devices.use_threads(o.threads, trained.of_images)
    print(f"checkpoint: {path}")
    film = o.animation or ("gif" if trained.of_images else "none")
    films.check_writer(film)
    if trained.of_images:
        image_film.check_options(o.track_samples, o.save_trajectory)

    # ------------------------------------------------------------ the reverse process
    defaults = SAMPLING_DEFAULTS["inference"][trained.kind]
    count = o.num_samples or defaults.num_samples
    labels, tracked = trained.labels(o.labels, count), checked_rows(o.track_samples, count)
    options = {"sampler": o.sampler, "sampling_steps": o.sampling_steps, "eta": o.eta, "guidance": o.guidance}
    sampling = trained.sampling(defaults._asdict(), **options)
    total = len(timesteps_of(trained.scheduler, sampling["sampler"], sampling["sampling_steps"])) + 1
    states = progress_bar(trained.sample(count, o.seed, labels=labels, **sampling), "sampling", total)
    kept = set(evenly(0, total - 1, o.viz_steps))
    some = slice(image_grids.SHOWN if trained.of_images else None)
    process, guesses, samples = replay.reverse(
        (state for i, state in enumerate(states) if i in kept), some, some if trained.of_images else tracked
    )

    # ------------------------------------------------------------ what is saved of it
    asked = None if labels is None else labels.numpy()
    save_samples(run_folder, trained, samples, asked, o.seed)
    if not (o.rerun or o.save_trajectory or film != "none"):
        return
    if trained.dims not in ((2,), (3,)) and not trained.of_images:
        print(f"recording:  none, because it shows points of 2 or 3 coordinates, not of shape {trained.dims}")
        return
    ...


if __name__ == "__main__":
    main()
