"""Show the forward process: `python main.py`, `python main.py --num-samples 1000 --save-plots --no-rerun`."""

from pathlib import Path
from typing import Any

from conf.entry import command


@command("main")
def main(
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
    """Points turn into noise, step by step: as a recording and, with save_plots, as stills in `run_folder`."""
    from dataset import make_dataset  # here and not above: --help must not wait for torch
    from scene import checked_rows
    from schedule import make_scheduler

    tracked = checked_rows(track_samples, num_samples)
    points = make_dataset(n_samples=num_samples, seed=seed, **dataset)
    scheduler = make_scheduler(schedule, num_timesteps, beta_start, beta_end)
    print(f"{num_samples} points of {dataset['name']}, {num_timesteps} noisings")
    if warning := scheduler.signal_warning():
        print(f"warning: {warning}")

    if save_plots:
        save_stills(run_folder, points, scheduler, seed)
    if compare_schedules:
        save_comparison(run_folder, points.points, num_timesteps, seed)
    if not (rerun or save_trajectory or animation != "none"):
        return

    import animation as films
    import replay

    films.check_writer(animation)
    scene = replay.of_forward(scheduler, points.points, viz_steps, seed)
    films.leave(scene, run_folder, animation, save_trajectory)
    if rerun:
        from rerun_viz import log_scene
        from viewer import recording

        with recording("moonwalk forward", run_folder / "forward.rrd", viewer, port=port) as rec:
            log_scene(scene, tracked, rec=rec)


def save_stills(folder: Path, points: Any, scheduler: Any, seed: int) -> None:
    """forward.png, schedule.png and statistics.png: the process, its schedule, its statistics against theory."""
    import figures
    import replay
    from analysis import measured_statistics, theoretical_statistics
    from diffusion import chosen_steps

    data, num_timesteps = points.points, scheduler.num_timesteps
    moments = chosen_steps(num_timesteps, 5)
    states = replay.forward(scheduler, data, moments, seed).states
    print(figures.save(figures.forward_strip(states, moments, num_timesteps), folder / "forward.png"))
    sheet = figures.schedule(scheduler.betas.numpy(), scheduler.alphas_cumprod.numpy())
    print(figures.save(sheet, folder / "schedule.png"))
    steps = chosen_steps(num_timesteps, 41)
    measured = measured_statistics(data, replay.forward(scheduler, data, steps, seed).states[1:])
    theory = theoretical_statistics(data, points.law, scheduler, [step - 1 for step in steps[1:]], seed)
    print(figures.save(figures.forward_statistics(steps[1:], measured, theory), folder / "statistics.png"))


def save_comparison(folder: Path, data: Any, num_timesteps: int, seed: int) -> None:
    """schedules.png: the same points under every schedule."""
    import figures
    from diffusion import DiffusionModel, chosen_steps
    from schedule import SCHEDULES

    moments = chosen_steps(num_timesteps, 6)[1:]
    betas = dict.fromkeys(SCHEDULES, (None, None)) | {"linear, betas 1e-4 .. 0.02": (1e-4, 0.02)}
    models = {name: DiffusionModel(num_timesteps, *pair, seed, name.split(",")[0]) for name, pair in betas.items()}
    alpha_bars = {name: model.scheduler.alphas_cumprod.numpy() for name, model in models.items()}
    clouds = {name: [model.forward_diffusion(data, step - 1)[0] for step in moments] for name, model in models.items()}
    print(figures.save(figures.schedules(alpha_bars, clouds, moments), folder / "schedules.png"))


if __name__ == "__main__":
    main()
