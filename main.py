"""Show the forward process: `python main.py`, `python main.py --num-samples 1000 --save-plots --no-rerun`."""

from conf.entry import command  # answers --help before what follows takes its seconds

# isort: split
import runpy
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conf.config import Main
from conf.flags import TRAIN_DDPM_MODEL
from dataset import IMAGE_DATASETS, DataSet, PointSet, make_dataset
from diffusion import DiffusionModel
from images.sets import make_images
from metrics.forward import measured_statistics, theoretical_statistics
from samplers.spacing import clock, evenly_on
from schedule import SCHEDULES, NoiseScheduler, evenly, make_scheduler, t_of
from viz import films, image_grids, replay, stills, style
from viz.scene import checked_rows
from viz.sweeps import save_sheet

IMAGES, STRIPS = 64, 5  # images shown at most, and those of them in forward.png


@command("main", after_sweep=partial(save_sheet, names=["forward.png"]))
def main(o: Main, run_folder: Path) -> None:
    """Points or images turn into noise, step by step: as a recording and as stills in `run_folder`.

    The stills of points come with save_plots; a strip of images always. Those of images go into a folder of their own.
    """
    of_images = o.dataset.name in IMAGE_DATASETS
    films.check_options(o.animation or "none", of_images, o.track_samples, o.save_trajectory)
    folder = run_folder / "images" if of_images else run_folder
    style.use(o.style)
    scheduler = make_scheduler(o.schedule, o.num_timesteps, o.beta_start, o.beta_end, o.zero_snr)
    count, make = o.num_samples, make_dataset
    if of_images:
        count, make = min(count or IMAGES, IMAGES), make_images
    data = make(n_samples=count, seed=o.seed, **asdict(o.dataset))
    tracked = checked_rows(o.track_samples, len(data))
    print(f"{len(data)} {'images' if of_images else 'points'} of {o.dataset.name}, {o.num_timesteps} forward steps")
    if warning := scheduler.signal_warning():
        print(f"warning: {warning}")

    clean = data[:][0].numpy()
    if o.save_plots or of_images:
        print(stills.save(strip(scheduler, clean, o.seed), folder / "forward.png", o.figures))
    if o.save_plots:
        save_schedule(folder, scheduler, data, o.seed, o.figures)
    if o.compare_schedules:
        print(stills.save(comparison(clean, o.num_timesteps, o.seed), folder / "schedules.png", o.figures))
    if not (o.rerun or o.save_trajectory or o.animation != "none"):
        return
    if not of_images and clean.shape[1] not in (2, 3):
        print(f"recording: none, because it shows points of 2 or 3 coordinates, not of {clean.shape[1]}")
        return
    scene = replay.of_forward(scheduler, clean, o.viz_steps, o.seed)
    films.save(scene, folder, o.animation or "none", o.save_trajectory)
    if o.rerun:
        from rerun_viz import log_scene  # rerun takes a second to import, and may not be wanted
        from viz.viewer import recording

        with recording("moonwalk forward", folder / "forward.rrd", o.viewer, port=o.port) as rec:
            log_scene(scene, tracked, rec=rec)


def strip(scheduler: NoiseScheduler, clean: NDArray, seed: int) -> stills.Figure:
    """The forward process at a few moments."""
    of_images, alpha_bar = clean.ndim == 4, scheduler.alpha_bar
    steps = evenly_on(clock(alpha_bar), 7 if of_images else 6)
    states = replay.forward(scheduler, clean[:STRIPS] if of_images else clean, steps, seed).states
    if of_images:
        return image_grids.forward_strip(states, steps)
    return stills.forward_strip([*states], steps, np.sqrt(1 - alpha_bar[steps]))


def save_schedule(folder: Path, scheduler: NoiseScheduler, data: DataSet, seed: int, formats: list[str]) -> None:
    """schedule.png and, of points, statistics.png: the schedule, and what it does, measured against theory."""
    fresh = np.array([scheduler.stride(t - 1, t)[1] ** 2 for t in range(scheduler.num_timesteps)])
    sheet = stills.schedule(scheduler.alpha.numpy(), scheduler.sigma.numpy(), fresh)
    print(stills.save(sheet, folder / "schedule.png", formats))
    if isinstance(data, PointSet):
        steps = evenly(0, scheduler.num_timesteps, 41)
        states = replay.forward(scheduler, data.points, steps, seed).states[1:]
        theory = theoretical_statistics(data.points, data.mixture, scheduler, [t_of(k) for k in steps[1:]], seed)
        sheet = stills.forward_statistics(np.array(steps[1:]), measured_statistics(data.points, states), theory)
        print(stills.save(sheet, folder / "statistics.png", formats))


def comparison(clean: NDArray, num_timesteps: int, seed: int) -> stills.Figure:
    """The same data with the same noise under every schedule, without any signal left, and under the textbook betas."""
    options: dict[str, dict[str, Any]] = {name: {} for name in SCHEDULES}
    options["linear, zero SNR"] = {"zero_snr": True}
    options["linear, betas 1e-4 .. 0.02"] = {"beta_start": 1e-4, "beta_end": 0.02}
    models = {
        name: DiffusionModel(num_timesteps, schedule=name.split(",")[0], seed=seed, **own)
        for name, own in options.items()
    }
    noise, of_images = models["linear"].forward_diffusion(clean, 0)[1], clean.ndim == 4
    steps = evenly(0, num_timesteps, 7 if of_images else 6)
    states = {
        n: [clean, *(m.forward_diffusion(clean, t_of(k), noise)[0] for k in steps[1:])] for n, m in models.items()
    }
    if of_images:
        return image_grids.schedules({name: [x[0] for x in xs] for name, xs in states.items()}, steps)
    return stills.schedules({n: m.scheduler.alpha_bar for n, m in models.items()}, states, steps)


if __name__ == "__main__":
    if TRAIN_DDPM_MODEL in sys.argv:
        print(f"{TRAIN_DDPM_MODEL}: training lives in train.py; this is `python train.py dataset=mnist model=unet ...`")
        runpy.run_path(str(Path(__file__).with_name("train.py")), run_name="__main__")
    else:
        main()
