"""Show the forward process: `python main.py`, `python main.py --num-samples 1000 --save-plots --no-rerun`."""

from conf.entry import command  # answers --help before what follows takes its seconds

# isort: split
import runpy
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from conf.config import Main
from conf.flags import TRAIN_DDPM_MODEL

IMAGES, STRIPS = 64, 5  # images shown at most, and those of them in forward.png


@command("main")
def main(options: Main, run_folder: Path) -> Any:
    return run(run_folder=run_folder, **asdict(options))


def run(
    run_folder: Path,
    dataset: dict[str, Any],
    num_samples: int,
    schedule: str,
    num_timesteps: int,
    beta_start: float | None,
    beta_end: float | None,
    seed: int,
    viz_steps: int,
    track_samples: list[int] | None,
    save_plots: bool,
    compare_schedules: bool,
    rerun: bool,
    viewer: str,
    port: int | None,
    animation: str,
    save_trajectory: bool,
) -> None:
    """Points or images turn into noise, step by step: as a recording and as stills in `run_folder`.

    The stills of points come with save_plots; a strip of images always.
    """
    from dataset import IMAGE_DATASETS
    from schedule import make_scheduler
    from viz import films  # here and not above: --help must not wait for it

    films.check_writer(animation)
    scheduler = make_scheduler(schedule, num_timesteps, beta_start, beta_end)
    show = show_images if dataset["name"] in IMAGE_DATASETS else show_points
    log = show(
        run_folder, scheduler, dataset, num_samples, viz_steps, seed, save_plots=save_plots, rerun=rerun,
        compare_schedules=compare_schedules, animation=animation, save_trajectory=save_trajectory,
        tracked=track_samples,
    )  # fmt: skip
    if rerun:
        from viz.viewer import recording

        with recording("moonwalk forward", run_folder / "forward.rrd", viewer, port=port) as rec:
            log(rec)


def announce(what: str, scheduler: Any) -> None:
    print(f"{what}, {scheduler.num_timesteps} noisings")
    if warning := scheduler.signal_warning():
        print(f"warning: {warning}")


def save_schedule(folder: Path, scheduler: Any) -> None:
    """schedule.png: what the schedule does, whatever the data."""
    from viz import stills as figures

    sheet = figures.schedule(scheduler.betas.numpy(), scheduler.alphas_cumprod.numpy())
    print(figures.save(sheet, folder / "schedule.png"))


# ---------------------------------------------------------------- points


def show_points(
    run_folder: Path,
    scheduler: Any,
    dataset: dict[str, Any],
    num_samples: int,
    viz_steps: int,
    seed: int,
    *,
    save_plots: bool,
    compare_schedules: bool,
    rerun: bool,
    animation: str,
    save_trajectory: bool,
    tracked: list[int] | None,
) -> Callable[[Any], None] | None:
    """The pictures that are asked for; returns what records the process."""
    from dataset import make_dataset
    from metrics import replay
    from metrics.scene import checked_rows
    from viz import films

    rows = checked_rows(tracked, num_samples)
    points = make_dataset(n_samples=num_samples, seed=seed, **dataset)
    announce(f"{num_samples} points of {dataset['name']}", scheduler)
    if save_plots:
        save_stills(run_folder, points, scheduler, seed)
    if compare_schedules:
        save_comparison(run_folder, points.points, scheduler.num_timesteps, seed)
    if not (rerun or save_trajectory or animation != "none"):
        return None
    scene = replay.of_forward(scheduler, points.points, viz_steps, seed)
    films.save(scene, run_folder, animation, save_trajectory)

    def log(rec: Any) -> None:
        from rerun_viz import log_scene  # rerun takes a second, and may not be wanted

        log_scene(scene, rows, rec=rec)

    return log


def save_stills(folder: Path, points: Any, scheduler: Any, seed: int) -> None:
    """forward.png, schedule.png and statistics.png: the process, its schedule, its statistics against theory."""
    from diffusion import chosen_steps
    from metrics import replay
    from metrics.forward import measured_statistics, theoretical_statistics
    from viz import stills as figures

    data, num_timesteps = points.points, scheduler.num_timesteps
    moments = chosen_steps(num_timesteps, 5)
    states = replay.forward(scheduler, data, moments, seed).states
    print(figures.save(figures.forward_strip(states, moments, num_timesteps), folder / "forward.png"))
    save_schedule(folder, scheduler)
    steps = chosen_steps(num_timesteps, 41)
    measured = measured_statistics(data, replay.forward(scheduler, data, steps, seed).states[1:])
    theory = theoretical_statistics(data, points.mixture, scheduler, [step - 1 for step in steps[1:]], seed)
    print(figures.save(figures.forward_statistics(steps[1:], measured, theory), folder / "statistics.png"))


def save_comparison(folder: Path, data: Any, num_timesteps: int, seed: int) -> None:
    """schedules.png: the same points under every schedule."""
    from diffusion import chosen_steps
    from viz import stills as figures

    moments, models = chosen_steps(num_timesteps, 6)[1:], compared_models(num_timesteps, seed)
    alpha_bars = {name: model.scheduler.alphas_cumprod.numpy() for name, model in models.items()}
    clouds = {name: [model.forward_diffusion(data, step - 1)[0] for step in moments] for name, model in models.items()}
    print(figures.save(figures.schedules(alpha_bars, clouds, moments), folder / "schedules.png"))


def compared_models(num_timesteps: int, seed: int) -> dict[str, Any]:
    """A forward process of every schedule, and of the textbook betas, by name."""
    from diffusion import DiffusionModel
    from schedule import SCHEDULES

    betas = dict.fromkeys(SCHEDULES, (None, None)) | {"linear, betas 1e-4 .. 0.02": (1e-4, 0.02)}
    return {name: DiffusionModel(num_timesteps, *pair, seed, name.split(",")[0]) for name, pair in betas.items()}


# ---------------------------------------------------------------- images


def show_images(
    run_folder: Path,
    scheduler: Any,
    dataset: dict[str, Any],
    num_samples: int,
    viz_steps: int,
    seed: int,
    *,
    save_plots: bool,
    compare_schedules: bool,
    animation: str,
    save_trajectory: bool,
    tracked: list[int] | None,
    **_: Any,
) -> Callable[[Any], None]:
    """The same of images (IMAGES at most): forward.png, the pictures that are asked for, and what records them."""
    from diffusion import chosen_steps
    from images.sets import make_images
    from metrics import replay
    from viz import image_film
    from viz import image_grids as image_figures
    from viz import stills as figures
    from viz.tiles import arranged

    image_film.check_options(tracked, save_trajectory)
    data = make_images(n_samples=min(num_samples, IMAGES), seed=seed, **dataset)
    images = data[:][0].numpy()
    announce(f"{len(data)} images of {dataset['name']}", scheduler)
    moments = chosen_steps(scheduler.num_timesteps, 7)
    states = replay.forward(scheduler, images[:STRIPS], moments, seed).states
    print(figures.save(image_figures.forward_strip(states, moments), run_folder / "forward.png"))
    if save_plots:
        save_schedule(run_folder, scheduler)
    if compare_schedules:
        models, image = compared_models(scheduler.num_timesteps, seed), images[:1]
        noise = models["linear"].forward_diffusion(image, 0)[1]
        under = {n: [m.forward_diffusion(image, k - 1, noise)[0][0] for k in moments[1:]] for n, m in models.items()}
        print(figures.save(image_figures.schedules(under, moments[1:]), run_folder / "schedules.png"))
    scene = replay.of_forward(scheduler, images, viz_steps, seed)
    image_film.save(scene.processes[0], None, [], run_folder, animation)

    def log(rec: Any) -> None:
        from viz.recording.images import log_images

        log_images(scene, arranged(len(images)), rec=rec)

    return log


if __name__ == "__main__":
    if TRAIN_DDPM_MODEL in sys.argv:
        print(f"{TRAIN_DDPM_MODEL}: training lives in train.py; this is `python train.py dataset=mnist model=unet ...`")
        runpy.run_path(str(Path(__file__).with_name("train.py")), run_name="__main__")
    else:
        main()
