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
    track_samples: list[int],
    save_plots: bool,
    compare_schedules: bool,
    rerun: bool,
    viewer: str,
) -> None:
    """Points turn into noise, step by step: as a recording and, with save_plots, as stills in `run_folder`."""
    from dataset import make_dataset  # here and not above: --help must not wait for torch
    from diffusion import DiffusionModel, chosen_steps

    points = make_dataset(n_samples=num_samples, seed=seed, **dataset)
    data = points.points
    model = DiffusionModel(num_timesteps, beta_start, beta_end, seed, schedule)
    trajectory = model.add_noise_trajectory(data)
    print(f"{num_samples} points of {dataset['name']}, {num_timesteps} noisings")
    if warning := model.scheduler.signal_warning():
        print(warning)

    if save_plots:
        save_stills(run_folder, points, model, trajectory, seed)
    if compare_schedules:
        save_comparison(run_folder, data, num_timesteps, seed)
    if rerun:
        from rerun_viz import log_forward_diffusion
        from viewer import recording

        steps = chosen_steps(num_timesteps, viz_steps)[1:]
        with recording("moonwalk forward", run_folder / "forward.rrd", viewer) as rec:
            log_forward_diffusion(data, trajectory[[s - 1 for s in steps]], track_samples, steps=steps, rec=rec)


def save_stills(folder: Path, points: Any, model: Any, trajectory: Any, seed: int) -> None:
    """forward.png, schedule.png and statistics.png: the process, its schedule, its statistics against theory."""
    import figures
    from analysis import measured_statistics, theoretical_statistics
    from diffusion import chosen_steps

    data, scheduler = points.points, model.scheduler
    moments = chosen_steps(scheduler.num_timesteps, 5)
    states = [data if step == 0 else trajectory[step - 1] for step in moments]
    print(figures.save(figures.forward_strip(states, moments, scheduler.num_timesteps), folder / "forward.png"))
    sheet = figures.schedule(scheduler.betas.numpy(), scheduler.alphas_cumprod.numpy())
    print(figures.save(sheet, folder / "schedule.png"))
    steps = chosen_steps(scheduler.num_timesteps, 41)[1:]
    timesteps = [step - 1 for step in steps]
    measured = measured_statistics(data, trajectory[timesteps])
    theory = theoretical_statistics(data, points.law, scheduler, timesteps, seed)
    print(figures.save(figures.forward_statistics(steps, measured, theory), folder / "statistics.png"))


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
