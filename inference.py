"""Replay the learned reverse process: `python inference.py`, `python inference.py --checkpoint runs/first`."""

from conf.entry import command  # answers --help before what follows takes its seconds

# isort: split
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from conf.choices import NUM_SAMPLES
from conf.config import Inference, sampling_options
from conf.inference_modes import chosen_mode
from pipeline import Pipeline, pipeline_from_checkpoint
from runtime import checkpoint_file
from runtime import device as devices
from runtime.atomic_file import save_array
from runtime.progress import progress_bar
from samplers import State, sampler_timesteps
from samplers.options import SamplingOptions
from samplers.spacing import clock, evenly_on
from schedule import CLEAN, NoiseScheduler, step_from_t
from training.checksum import missing_data
from viz import films, image_grids, replay, stills, style
from viz.conditioning_pictures import save_inpaintings, save_posterior_samples
from viz.flow_line_pictures import FLOW_LINES, save_flow_lines
from viz.guidance_pictures import save_guidance_sheet
from viz.scene import Scene, checked_rows
from viz.sweeps import save_sheet


@command("inference", after_sweep=partial(save_sheet, names=["flow.png", "samples.png"]))
def main(o: Inference, run_folder: Path) -> None:
    """Sample from a checkpoint; save samples.npy, samples.png, a film and the recording in `run_folder`."""
    mode = chosen_mode(o)
    path, state = checkpoint_file.load_or_newest(o.checkpoint)
    pipeline = pipeline_from_checkpoint(state, path, devices.choose(o.device), o.precision)
    pipeline.take_data(asdict(o.dataset))
    devices.use_threads(o.threads, pipeline.of_images)
    style.use(o.style)
    print(f"checkpoint: {path}")

    options = SamplingOptions(**sampling_options(o))
    count = o.num_samples or NUM_SAMPLES["inference"][pipeline.kind]
    observation = {"observe": o.observe, "observe_noise": o.observe_noise, "observe_method": o.observe_method}
    if mode == "observe" and pipeline.of_images:
        save_inpaintings(
            pipeline, run_folder, o.num_samples, o.seed, o.figures, observe_image=o.observe_image, **observation
        )
    elif mode == "observe":
        save_posterior_samples(pipeline, run_folder, count, o.seed, o.figures, **observation)
    elif mode == "guidance_sheet":
        save_guidance_sheet(pipeline, run_folder, count, o.seed, o.figures, o.guidance_interval)
    elif mode == "flow":
        lines = o.num_samples or FLOW_LINES
        save_flow_lines(pipeline, run_folder, lines, options, o.seed, o.figures, labels=o.labels, film=o.animation)
    else:
        training_folder = checkpoint_file.run_folder_path(path)
        missing = None if pipeline.of_images else missing_data(pipeline, state)  # images have no real side
        save_reverse_process(o, pipeline, pipeline.resolve(options), count, training_folder, run_folder, missing)


def save_reverse_process(
    o: Inference,
    pipeline: Pipeline,
    options: SamplingOptions,
    count: int,
    training_folder: Path,
    run_folder: Path,
    missing: str | None,
) -> None:
    """Sample, and save the samples, their picture, the film and the recording of how they came about.

    missing: why there are no real points to show; None where there are.
    """
    film = o.animation or ("gif" if pipeline.of_images else "none")
    films.check_options(film, pipeline.of_images, o.track_samples, o.save_trajectory)
    labels = pipeline.labels(o.labels, count)
    if labels is not None:
        print(f"labels:     {pipeline.describe_labels(o.labels, labels)}")
    if missing:
        print(f"real side:  missing, because {missing}")
    tracked = checked_rows(o.track_samples, count)

    all_states = pipeline.states(count, options, labels=labels, seed=o.seed)
    states = shown_states(all_states, pipeline.scheduler, options, o.viz_steps)
    rows = slice(image_grids.SHOWN if pipeline.of_images else None)
    process, predictions, samples = replay.reverse(states, rows, rows if pipeline.of_images else tracked)

    label_numbers = None if labels is None else labels.numpy()
    samples = pipeline.data_units(torch.from_numpy(samples)).numpy()
    save_samples(run_folder, pipeline, samples, label_numbers)
    sheet = samples_picture(pipeline, samples, label_numbers, o.seed, options.guidance_text, missing is None)
    print(f"picture:    {stills.save(sheet, run_folder / 'samples.png', o.figures)}")
    if not (o.rerun or o.save_trajectory or film != "none"):
        return
    if missing:
        print("recording:  none, because it shows the real points as well")
        return
    if pipeline.dims not in ((2,), (3,)) and not pipeline.of_images:
        print(f"recording:  none, because it shows points of 2 or 3 coordinates, not of shape {pipeline.dims}")
        return
    scene = replay.reverse_scene(
        pipeline,
        process,
        predictions,
        training_folder,
        labels=label_numbers,
        tracked=tracked,
        seed=o.seed,
        options=options,
    )
    films.save(scene, run_folder, film, o.save_trajectory)
    if o.rerun:
        save_recording(scene, tracked, run_folder / "reverse.rrd", o)


def shown_states(
    states: Iterator[State], scheduler: NoiseScheduler, options: SamplingOptions, viz_steps: int
) -> Iterator[State]:
    """At most `viz_steps` of the states, which lie evenly on the display grid; all of them are computed."""
    timesteps = sampler_timesteps(scheduler, options)
    steps = [step_from_t(t) for t in [*timesteps, CLEAN]]
    shown = set(evenly_on(clock(scheduler.alpha_bar)[steps], viz_steps))
    for i, state in enumerate(progress_bar(states, "sampling", len(steps))):
        if i in shown:
            yield state


def save_samples(folder: Path, pipeline: Pipeline, samples: NDArray, labels: NDArray | None) -> None:
    """samples.npy, in data units; samples.csv for a model of a file; labels.npy for a conditional model."""
    if pipeline.of_images:
        samples = samples.clip(-1, 1)  # rounding may leave the range by a hair
    save_array(folder / "samples.npy", samples)
    if labels is not None:
        save_array(folder / "labels.npy", labels)
    print(f"samples:    {folder / 'samples.npy'}")
    if pipeline.columns is not None:
        print(f"table:      {pipeline.save_table(folder / 'samples.csv', samples, labels)}")


def samples_picture(
    pipeline: Pipeline, samples: NDArray, labels: NDArray | None, seed: int, guidance: str, has_real: bool
) -> Figure:
    """The samples; points beside real ones where there are any."""
    if pipeline.of_images:
        return image_grids.samples(samples, labels, pipeline.classes, guidance)
    if not has_real:
        title = f"generated ({len(samples):,}); the real points are missing"
        return stills.scatter(samples, title, labels, pipeline.classes, pipeline.columns, colour=stills.BLUE)
    asked = None if labels is None else np.unique(labels)
    real = replay.real_points(pipeline.config["dataset"], len(samples), seed, asked)
    real_labels = None if labels is None else real.labels  # without labels neither side is coloured
    return stills.samples(
        samples, real.points, labels, real_labels, pipeline.classes, guidance, columns=pipeline.columns
    )


def save_recording(scene: Scene, tracked: NDArray, path: Path, o: Inference) -> None:
    """The recording of a scene, opened where o.viewer says."""
    from rerun_viz import log_scene  # rerun takes a second to import, and may not be wanted
    from viz.viewer import recording

    with recording("moonwalk", path, o.viewer, port=o.port) as rec:
        log_scene(scene, tracked, rec=rec)


if __name__ == "__main__":
    main()
