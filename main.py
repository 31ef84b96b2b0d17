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
    track_samples: list[int],
    save_plots: bool,
    rerun: bool,
    viewer: str,
) -> None:
    """Points turn into noise, step by step: as a recording and, with save_plots, as stills in `run_folder`."""
    from dataset import make_dataset  # here and not above: --help must not wait for torch
    from diffusion import DiffusionModel, chosen_steps

    data = make_dataset(n_samples=num_samples, seed=seed, **dataset).points
    model = DiffusionModel(num_timesteps, beta_start, beta_end, seed)
    trajectory = model.add_noise_trajectory(data)
    print(f"{num_samples} points of {dataset['name']}, {num_timesteps} noisings")
    if warning := model.scheduler.signal_warning():
        print(warning)

    if save_plots:
        import figures

        moments = chosen_steps(num_timesteps, 5)
        states = [data if step == 0 else trajectory[step - 1] for step in moments]
        scheduler = model.scheduler
        print(figures.save(figures.forward_strip(states, moments, num_timesteps), run_folder / "forward.png"))
        sheet = figures.schedule(scheduler.betas.numpy(), scheduler.alphas_cumprod.numpy())
        print(figures.save(sheet, run_folder / "schedule.png"))
    if rerun:
        from rerun_viz import log_forward_diffusion
        from viewer import recording

        steps = chosen_steps(num_timesteps, viz_steps)[1:]
        with recording("moonwalk forward", run_folder / "forward.rrd", viewer) as rec:
            log_forward_diffusion(data, trajectory[[s - 1 for s in steps]], track_samples, steps=steps, rec=rec)


if __name__ == "__main__":
    main()
