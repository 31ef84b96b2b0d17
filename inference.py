"""Replay the learned reverse process: `python inference.py`, `python inference.py --checkpoint runs/first`."""

from pathlib import Path

from conf.entry import command


@command("inference")
def main(
    run_folder: Path,
    checkpoint: str | None,
    num_samples: int,
    seed: int,
    device: str,
    threads: int | None,
    sampler: str,
    sampling_steps: int | None,
    eta: float,
    viz_steps: int,
    track_samples: list[int],
    rerun: bool,
    viewer: str,
) -> None:
    """Sample from a checkpoint; leave samples.npy, samples.png and the recording in `run_folder`."""
    import numpy as np  # here and not above: --help must not wait for it

    import checkpoint as checkpoints
    import device as devices
    import figures
    from dataset import make_dataset
    from diffusion import chosen_steps
    from progress import shown
    from trained import load

    chosen = devices.choose(device, threads)
    path = Path(checkpoint) if checkpoint else checkpoints.newest()
    trained = load(path, chosen)
    print(f"checkpoint: {path}")

    # ------------------------------------------------------------ the reverse process, every state of it passing by
    options = {"sampler": sampler, "sampling_steps": sampling_steps, "eta": eta}
    states, steps = [], []
    for state in shown(trained.sample(num_samples, seed, chosen, **options), "sampling"):
        steps.append(state.step)
        states.append(trained.data_units(state.x_t).numpy())
    kept = [len(steps) - 1 - i for i in reversed(chosen_steps(len(steps) - 1, viz_steps))]

    # ------------------------------------------------------------ what is left of it
    np.save(run_folder / "samples.npy", states[-1])
    real = make_dataset(n_samples=num_samples, seed=seed + 1, **trained.config["dataset"]).points
    print(f"samples:    {run_folder / 'samples.npy'}")
    print(f"picture:    {figures.save(figures.samples(states[-1], real), run_folder / 'samples.png')}")
    if rerun:
        from rerun_viz import log_reverse_diffusion
        from viewer import recording

        with recording("moonwalk reverse", run_folder / "reverse.rrd", viewer) as rec:
            shown_states, shown_steps = np.stack([states[i] for i in kept]), [steps[i] for i in kept]
            log_reverse_diffusion(shown_states, shown_steps, track_samples, data=real, rec=rec)


if __name__ == "__main__":
    main()
