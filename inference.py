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
    track_samples: list[int] | None,
    rerun: bool,
    viewer: str,
    port: int | None,
    animation: str,
    save_trajectory: bool,
) -> None:
    """Sample from a checkpoint; leave samples.npy, samples.png and the recording in `run_folder`."""
    import numpy as np  # here and not above: --help must not wait for it
    import torch

    import animation as films
    import checkpoint as checkpoints
    import device as devices
    import figures
    import replay
    from diffusion import chosen_steps
    from progress import shown
    from sampler import visited
    from scene import checked_rows
    from trained import load

    films.check_writer(animation)
    tracked = checked_rows(track_samples, num_samples)
    chosen = devices.choose(device, threads)
    path = Path(checkpoint) if checkpoint else checkpoints.newest()
    trained = load(path, chosen)
    print(f"checkpoint: {path}")

    # ------------------------------------------------------------ the reverse process, every state of it passing by
    passed = visited(trained.scheduler, sampler, sampling_steps)
    kept = {passed[i] for i in chosen_steps(len(passed) - 1, viz_steps)}
    options = {"sampler": sampler, "sampling_steps": sampling_steps, "eta": eta}
    states = shown(trained.sample(num_samples, seed, chosen, **options), "sampling", len(passed))
    process, guesses = replay.reverse((state for state in states if state.step in kept), tracked)
    samples = trained.data_units(torch.from_numpy(process.states[-1])).numpy()

    # ------------------------------------------------------------ what is left of it
    np.save(run_folder / "samples.npy", samples)
    real, other = replay.real_sets(trained.config["dataset"], num_samples, seed)
    print(f"samples:    {run_folder / 'samples.npy'}")
    print(f"picture:    {figures.save(figures.samples(samples, real.points), run_folder / 'samples.png')}")
    if not (rerun or save_trajectory or animation != "none"):
        return
    if trained.dims not in ((2,), (3,)):
        print(f"recording:  none, because it shows points of 2 or 3 coordinates, not of shape {trained.dims}")
        return
    folder = path if path.is_dir() else path.parent
    scene = replay.of_trained(trained, process, guesses, folder, real, other, seed)
    films.leave(scene, run_folder, animation, save_trajectory)
    if rerun:
        from rerun_viz import log_scene
        from viewer import recording

        with recording("moonwalk", run_folder / "reverse.rrd", viewer, port=port) as rec:
            log_scene(scene, tracked, rec=rec)


if __name__ == "__main__":
    main()
