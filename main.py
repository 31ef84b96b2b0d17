"""Show the forward process: `python main.py`, `python main.py --num-samples 1000 --save-plots --no-rerun`."""

from conf.entry import command  # answers --help before what follows takes its seconds

# isort: split
import runpy
import sys
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from conf.config import Main
from conf.flags import TRAIN_DDPM_MODEL
from dataset import IMAGE_DATASETS, DataSet, Normaliser, PointSet, make_dataset
from diffusion import DiffusionModel
from images.sets import make_images
from metrics.forward import measured_statistics, theoretical_statistics
from points.tables import Columns
from registry.process_rows import SCHEDULES
from samplers.spacing import clock, evenly_on
from schedule import NoiseScheduler, evenly_spaced, make_scheduler, t_from_step
from viz import films, image_grids, replay, stills, style
from viz.scene import checked_rows
from viz.sweeps import save_sheet

# The files that a run may write, without their endings.
OUTPUT_NAMES = ("forward", "schedule", "schedules", "statistics", "trajectory")
OUTPUT_ENDINGS = (".png", ".pdf", ".svg", ".gif", ".mp4", ".npz", ".rrd")
IMAGES_MAX = 64
STRIP_IMAGES = 5  # in forward.png
STRIP_MOMENTS = 5  # in a row of points of forward.png: 0, T/4, T/2, 3T/4, T
STATISTICS_STEPS = 41


@command("main", after_sweep=partial(save_sheet, names=["forward.png"]))
def main(o: Main, run_folder: Path) -> None:
    """Show how points or images turn into noise, step by step: as a recording, and as stills in `run_folder`.

    The stills of points come with save_plots; a strip of images always. Pictures of images go into the folder images/.
    """
    of_images = o.dataset.name in IMAGE_DATASETS
    film = o.animation or "none"
    films.check_options(film, of_images, o.track_samples, o.save_trajectory)
    style.use(o.style)
    folder = run_folder / "images" if of_images else run_folder

    remove_older_outputs(folder)

    scheduler = make_scheduler(o.schedule, o.num_timesteps, o.beta_start, o.beta_end, o.zero_snr)
    data = _load(o, of_images)
    columns = None
    if isinstance(data, PointSet) and data.columns is not None:
        columns = data.columns
        data = normalised(data)
        print("each column of the file is scaled to mean 0 and standard deviation 1, as a training does")
    tracked = checked_rows(o.track_samples, len(data))
    print(f"{len(data)} {'images' if of_images else 'points'} of {o.dataset.name}, {o.num_timesteps} forward steps")
    warning = scheduler.signal_warning()
    if warning:
        print(f"warning: {warning}")

    clean = data[:][0].numpy()
    if o.save_plots or of_images:
        print(stills.save(forward_strip(scheduler, clean, o.seed, columns), folder / "forward.png", o.figures))
    if o.save_plots:
        save_schedule(folder, scheduler, data, o.seed, o.figures)
    if o.compare_schedules:
        sheet = schedule_comparison(clean, o.num_timesteps, o.seed)
        print(stills.save(sheet, folder / "schedules.png", o.figures))

    if not (o.rerun or o.save_trajectory or film != "none"):
        return
    if not of_images and clean.shape[1] not in (2, 3):
        print(f"recording: none, because it shows points of 2 or 3 coordinates, not of {clean.shape[1]}")
        return
    scene = replay.forward_scene(scheduler, clean, o.viz_steps, o.seed, columns)
    films.save(scene, folder, film, o.save_trajectory)
    if o.rerun:
        from rerun_viz import log_scene  # rerun takes a second to import, and may not be wanted
        from viz.viewer import recording

        with recording("moonwalk forward", folder / "forward.rrd", o.viewer, port=o.port) as rec:
            log_scene(scene, tracked, rec=rec)


def remove_older_outputs(folder: Path) -> None:
    """Remove what an earlier run has written, so that everything in the folder belongs to this run."""
    for name in OUTPUT_NAMES:
        for ending in OUTPUT_ENDINGS:
            (folder / f"{name}{ending}").unlink(missing_ok=True)


def _load(o: Main, of_images: bool) -> DataSet:
    if of_images:
        count = min(o.num_samples or IMAGES_MAX, IMAGES_MAX)
        return make_images(n_samples=count, seed=o.seed, **asdict(o.dataset))
    return make_dataset(n_samples=o.num_samples, seed=o.seed, **asdict(o.dataset))


def normalised(data: PointSet) -> PointSet:
    """The points of a table in units of each column's deviation: N(0, I) is noise only for data of such units."""
    points = Normaliser.fit_dataset(data).normalise(torch.from_numpy(data.points)).numpy()
    return replace(data, points=points)


def forward_strip(
    scheduler: NoiseScheduler, clean: NDArray, seed: int, columns: Columns | None = None
) -> stills.Figure:
    """The forward process of clean data (N, *dims) at a few steps: for points even in t and, below, in log-SNR."""
    of_images = clean.ndim == 4
    even_in_log_snr = evenly_on(clock(scheduler.alpha_bar), 7 if of_images else STRIP_MOMENTS)
    if of_images:
        states = replay.forward(scheduler, clean[:STRIP_IMAGES], even_in_log_snr, seed).states
        return image_grids.forward_strip(states, even_in_log_snr)

    T = scheduler.num_timesteps
    even_in_t = evenly_spaced(0, T, STRIP_MOMENTS)
    rows = []
    for name, steps in (("even in t", even_in_t), ("even in log-SNR", even_in_log_snr)):
        states = replay.forward(scheduler, clean, steps, seed).states
        noise = np.sqrt(1 - scheduler.alpha_bar[steps])
        rows.append(stills.Moments(name, [*states], steps, noise))
    return stills.forward_strip(rows, T, columns)


def save_schedule(folder: Path, scheduler: NoiseScheduler, data: DataSet, seed: int, formats: list[str]) -> None:
    """schedule.png; for points also statistics.png, what the schedule does to them, measured and by theory."""
    fresh = []
    for t in range(scheduler.num_timesteps):
        _, noise = scheduler.transition(t - 1, t)
        fresh.append(noise**2)
    sheet = stills.schedule(scheduler.alpha.numpy(), scheduler.sigma.numpy(), np.array(fresh))
    print(stills.save(sheet, folder / "schedule.png", formats))

    if isinstance(data, PointSet):
        steps = evenly_spaced(0, scheduler.num_timesteps, STATISTICS_STEPS)
        noised = steps[1:]
        states = replay.forward(scheduler, data.points, steps, seed).states[1:]
        measured = measured_statistics(data.points, states)
        timesteps = [t_from_step(step) for step in noised]
        theory = theoretical_statistics(data.points, data.mixture, scheduler, timesteps, seed)
        sheet = stills.forward_statistics(np.array(noised), measured, theory, data.columns)
        print(stills.save(sheet, folder / "statistics.png", formats))


def schedule_comparison(clean: NDArray, num_timesteps: int, seed: int) -> stills.Figure:
    """The same data with the same noise under every schedule, with zero terminal SNR, and under the textbook betas."""
    models = {}
    for name in SCHEDULES:
        models[name] = DiffusionModel(num_timesteps, schedule=name, seed=seed)
    models["linear, zero SNR"] = DiffusionModel(num_timesteps, zero_snr=True, seed=seed)
    models["linear, betas 1e-4 .. 0.02"] = DiffusionModel(num_timesteps, 1e-4, 0.02, seed=seed)

    of_images = clean.ndim == 4
    steps = evenly_spaced(0, num_timesteps, 7 if of_images else 6)
    _, noise = models["linear"].forward_diffusion(clean, 0)
    states = {}
    for name, model in models.items():
        noised = [model.forward_diffusion(clean, t_from_step(step), noise)[0] for step in steps[1:]]
        states[name] = [clean, *noised]

    if of_images:
        first_images = {name: [x[0] for x in xs] for name, xs in states.items()}
        return image_grids.schedules(first_images, steps)
    signal = {name: model.scheduler.alpha_bar for name, model in models.items()}
    return stills.schedules(signal, states, steps)


if __name__ == "__main__":
    if TRAIN_DDPM_MODEL in sys.argv:
        print(f"{TRAIN_DDPM_MODEL}: training lives in train.py; this is `python train.py dataset=mnist model=unet ...`")
        runpy.run_path(str(Path(__file__).with_name("train.py")), run_name="__main__")
    else:
        main()
