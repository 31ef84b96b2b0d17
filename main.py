"""Show the forward process: `python main.py`, `python main.py --num-samples 1000 --save-plots --no-rerun`."""

from pathlib import Path
from typing import Any

from conf.entry import command


@command("main")
def main(
    run_folder: Path,
    dataset: dict[str, Any],
    num_samples: int,
    num_timesteps: int,
    beta_start: float | None,
    beta_end: float | None,
    seed: int,
    viz_steps: int,
    track_samples: list[int] | None,
    save_plots: bool,
    rerun: bool,
    viewer: str,
    port: int | None,
    animation: str,
    save_trajectory: bool,
) -> None:
    """Points turn into noise, step by step: as a recording and, with save_plots, as stills in `run_folder`."""
    import animation as films  # here and not above: --help must not wait for torch
    import replay
    from dataset import make_dataset
    from diffusion import chosen_steps
    from scene import checked_rows
    from schedule import make_scheduler

    films.check_writer(animation)
    tracked = checked_rows(track_samples, num_samples)
    data = make_dataset(n_samples=num_samples, seed=seed, **dataset).points
    scheduler = make_scheduler("linear", num_timesteps, beta_start, beta_end)
    print(f"{num_samples} points of {dataset['name']}, {num_timesteps} noisings")
    if warning := scheduler.signal_warning():
        print(warning)

    if save_plots:
        import figures

        moments = chosen_steps(num_timesteps, 5)
        states = replay.forward(scheduler, data, moments, seed).states
        print(figures.save(figures.forward_strip(states, moments, num_timesteps), run_folder / "forward.png"))
        sheet = figures.schedule(scheduler.betas.numpy(), scheduler.alphas_cumprod.numpy())
        print(figures.save(sheet, run_folder / "schedule.png"))
    scene = replay.of_forward(scheduler, data, viz_steps, seed)
    films.leave(scene, run_folder, animation, save_trajectory)
    if rerun:
        from rerun_viz import log_scene
        from viewer import recording

        with recording("moonwalk forward", run_folder / "forward.rrd", viewer, port=port) as rec:
            log_scene(scene, tracked, rec=rec)


if __name__ == "__main__":
    main()
