"""Replay the learned reverse process: `python inference.py`, `python inference.py --checkpoint runs/first`."""

from conf.entry import command  # answers --help before what follows takes its seconds

# isort: split
from dataclasses import fields
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from conf.choices import NUM_SAMPLES, SAMPLING
from conf.config import Inference, Labels, Sampling, Steering, sampling_options
from conf.machine import Machine
from conf.pictures import Pictures
from metrics import conditioning as steering
from pipeline import Pipeline, of_state
from runtime import checkpoint_file
from runtime import device as devices
from runtime.atomic_file import atomic_file
from runtime.progress import progress_bar
from samplers import SAMPLERS, sampler_of, timesteps_of
from samplers.guidance import Guidance
from samplers.spacing import clock, evenly_on
from schedule import CLEAN, step_of
from viz import conditioning_pictures as steering_pictures
from viz import films, flow, flow_lines, image_grids, replay, stills, style
from viz.films.film_files import has_ffmpeg
from viz.scene import checked_rows
from viz.sweeps import save_sheet


@command("inference", after_sweep=partial(save_sheet, names=["flow.png", "samples.png"]))
def main(o: Inference, run_folder: Path) -> None:
    """Sample from a checkpoint; save samples.npy, samples.png, a film and the recording in `run_folder`."""
    check_steering(o)
    check_flow(o)
    path, state = checkpoint_file.asked_or_newest(o.checkpoint)
    pipeline = of_state(state, path, devices.choose(o.device), o.precision)
    devices.use_threads(o.threads, pipeline.of_images)
    print(f"checkpoint: {path}")
    style.use(o.style)
    if o.observe is not None or o.guidance_sheet:
        steered(o, pipeline, run_folder)
        return
    if o.flow:
        flow_pictures(o, pipeline, run_folder)
        return
    film = o.animation or ("gif" if pipeline.of_images else "none")
    films.check_options(film, pipeline.of_images, o.track_samples, o.save_trajectory)

    # ------------------------------------------------------------ the reverse process
    count = o.num_samples or NUM_SAMPLES["inference"][pipeline.kind]
    labels, tracked = pipeline.labels(o.labels, count), checked_rows(o.track_samples, count)
    sampling = pipeline.sampling(SAMPLING[pipeline.kind]._asdict(), **sampling_options(o))
    chosen = {name: sampling.get(name) for name in ("sampling_steps", "spacing")}
    timesteps = timesteps_of(pipeline.scheduler, sampling["sampler"], **chosen)
    hands = clock(pipeline.scheduler.alpha_bar)[[step_of(t) for t in [*timesteps, CLEAN]]]
    states = progress_bar(pipeline.sample(count, o.seed, labels=labels, **sampling), "sampling", len(hands))
    kept, some = set(evenly_on(hands, o.viz_steps)), slice(image_grids.SHOWN if pipeline.of_images else None)
    states = (state for i, state in enumerate(states) if i in kept)
    process, guesses, samples = replay.reverse(states, some, some if pipeline.of_images else tracked)

    # ------------------------------------------------------------ what is saved of it
    asked = None if labels is None else labels.numpy()
    guidance = Guidance.of(sampling)
    save_samples(run_folder, pipeline, samples, asked, o, guidance.words)
    if not (o.rerun or o.save_trajectory or film != "none"):
        return
    if pipeline.dims not in ((2,), (3,)) and not pipeline.of_images:
        print(f"recording:  none, because it shows points of 2 or 3 coordinates, not of shape {pipeline.dims}")
        return
    folder = checkpoint_file.folder_of(path)
    scene = replay.of_trained(
        pipeline, process, guesses, folder, labels=asked, tracked=tracked, seed=o.seed, guidance=guidance
    )
    films.save(scene, run_folder, film, o.save_trajectory)
    if o.rerun:
        from rerun_viz import log_scene  # rerun takes a second to import, and may not be wanted
        from viz.viewer import recording

        with recording("moonwalk", run_folder / "reverse.rrd", o.viewer, port=o.port) as rec:
            log_scene(scene, tracked, rec=rec)


def save_samples(
    folder: Path, pipeline: Pipeline, samples: NDArray, labels: NDArray | None, o: Inference, steered: str
) -> None:
    """samples.npy, in data units; labels.npy where there are any; samples.png: of points beside real ones."""
    samples = pipeline.data_units(torch.from_numpy(samples)).numpy()
    if pipeline.of_images:
        samples = samples.clip(-1, 1)  # which rounding may have left by a hair
        sheet = image_grids.samples(samples, labels, pipeline.classes, steered)
    else:
        asked = None if labels is None else np.unique(labels)
        real, _ = replay.real_sets(pipeline.config["dataset"], len(samples), o.seed, asked)
        colours = None if labels is None else real.labels  # no label, no colour: on both sides
        sheet = stills.samples(samples, real.points, labels, colours, pipeline.classes, steered)
    for name, array in (("samples", samples), ("labels", labels)):
        if array is not None:
            save_array(folder / f"{name}.npy", array)
    print(f"samples:    {folder / 'samples.npy'}")
    print(f"picture:    {stills.save(sheet, folder / 'samples.png', o.figures)}")


def save_array(path: Path, array: NDArray) -> None:
    with atomic_file(path) as file:
        np.save(file, array)


def check_steering(o: Inference) -> None:
    """Raises ValueError for options of which one would have to be ignored."""
    observe = o.observe is not None  # an empty one, too, is to be answered
    if observe and o.guidance_sheet:
        raise ValueError("observe and guidance_sheet are two things: ask for one of them")
    given = sorted(name for name, default in vars(Inference()).items() if getattr(o, name) != default)
    observing, steering = [name for name in given if name.startswith("observe_")], observe or o.guidance_sheet
    if observing and not observe:
        raise ValueError(f"{observing[0]} belongs to observe: give observe=y=0.2, say, as well")
    known = {f.name for cls in (Machine, Pictures, Steering) for f in fields(cls)} | {"checkpoint", "num_samples"}
    known |= {"rerun", "viewer", "port"} | ({"guidance_interval"} if o.guidance_sheet else set())
    if steering and (others := [name for name in given if name not in known]):
        raise ValueError(
            "observe and guidance_sheet choose sampler, labels and guidance themselves, and make no recording: leave"
            f" out {' and '.join(others)}"
        )


def steered(o: Inference, pipeline: Pipeline, run_folder: Path) -> None:
    """Samples given an observation, or the sheet of what guidance claims and samples."""
    count = o.num_samples or NUM_SAMPLES["inference"][pipeline.kind]
    if o.guidance_sheet:
        sheet = steering.guidance_sheet(pipeline, count, o.seed, o.guidance_interval)
        picture = steering_pictures.guidance(sheet)
        print(steering.guidance_table(sheet))
        print(f"picture:    {stills.save(picture, run_folder / 'guidance.png', o.figures)}")
    elif pipeline.of_images:
        if o.num_samples:
            raise ValueError(f"observe draws {steering.COLUMNS} samples of each image: leave out num_samples")
        found = steering.inpaint(pipeline, str(o.observe), o.observe_noise, o.observe_method, o.observe_image, o.seed)
        save_array(run_folder / "samples.npy", found.samples)
        print(f"samples:    {run_folder / 'samples.npy'}")
        picture = steering_pictures.inpainting(found)
        print(f"picture:    {stills.save(picture, run_folder / 'inpainting.png', o.figures)}")
    else:
        found = steering.posteriors(pipeline, str(o.observe), o.observe_noise, o.observe_method, count, o.seed)
        save_array(run_folder / "samples.npy", found.samples)
        print(steering.posterior_table(found))
        print(f"samples:    {run_folder / 'samples.npy'}, by {found.method} and the network")
        picture = steering_pictures.posterior(found)
        print(f"picture:    {stills.save(picture, run_folder / 'posterior.png', o.figures)}")


def check_flow(o: Inference) -> None:
    """Raises ValueError for options that flow lines would have to ignore, and for a sampler with noise."""
    if not o.flow:
        return
    known = {f.name for cls in (Machine, Labels, Sampling) for f in fields(cls)}
    known |= {"flow", "animation", "figures", "rerun", "viewer", "port"}
    given = [name for name, default in vars(Inference()).items() if getattr(o, name) != default]
    if others := [name for name in given if name not in known]:
        raise ValueError(
            f"flow=true draws flow lines on a dark ground and nothing else: leave out {' and '.join(others)}"
        )
    if o.eta or (o.sampler and sampler_of(o.sampler).noisy):
        noiseless = ", ".join(name for name, row in SAMPLERS.items() if not row.noisy)
        raise ValueError(f"flow lines are paths without fresh noise: leave out eta, and take sampler={noiseless}")


def flow_pictures(o: Inference, pipeline: Pipeline, run_folder: Path) -> None:
    """flow.png and flow_square.png, a film of each in which the lines grow, and the exact ones beside the network's."""
    if pipeline.dims not in ((2,), (3,)):
        raise ValueError(f"flow lines are drawn of points of 2 or 3 coordinates, not of shape {pipeline.dims}")
    kind, count = o.animation or ("mp4" if has_ffmpeg() else "gif"), o.num_samples or flow_lines.COUNT
    films.check_options(kind, of_images=False)
    sampling = pipeline.sampling(flow_lines.DEFAULTS, **sampling_options(o))
    labels = pipeline.labels(o.labels, count)
    lines = flow_lines.of_trained(pipeline, count, o.seed, labels, sampling)
    for name, size in flow.SIZES.items():
        print(f"picture:    {stills.save(flow.still(lines, size), run_folder / f'{name}.png', o.figures)}")
    if pair := flow_lines.beside_exact(pipeline, lines, o.seed, labels, sampling):
        sheet = flow.beside(*pair, flow.SIZES["flow"])
        print(f"picture:    {stills.save(sheet, run_folder / 'flow_exact.png', o.figures)}")
    for name, size in flow.SIZES.items() if kind != "none" else ():
        print(f"film:       {flow.save_film(lines, size, run_folder / f'{name}.{kind}')}")


if __name__ == "__main__":
    main()
