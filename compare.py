"""Compare samplers on one checkpoint: `python compare.py`, `python compare.py samplers=[ddim,unipc]`."""

from conf.entry import command  # answers --help before what follows takes its seconds

# isort: split
from dataclasses import asdict
from pathlib import Path

from conf.choices import NUM_SAMPLES
from conf.config import Compare
from metrics import sampler_comparison as comparison
from metrics.flow_map import flow_table
from pipeline import pipeline_from_checkpoint
from runtime import checkpoint_file
from runtime import device as devices
from training.checksum import check_data
from viz import comparison_pictures as pictures
from viz import stills, style


@command("compare")
def main(o: Compare, run_folder: Path) -> None:
    """Sample by every sampler from the same noise; save table, compare.json, pictures and recording in `run_folder`."""
    style.use(o.style)
    path, state = checkpoint_file.load_or_newest(o.checkpoint)
    pipeline = pipeline_from_checkpoint(state, path, devices.choose(o.device), o.precision)
    devices.use_threads(o.threads, pipeline.of_images)
    pipeline.take_data(asdict(o.dataset))
    check_data(pipeline, state)
    count = o.num_samples or NUM_SAMPLES["compare"][pipeline.kind]
    print(f"checkpoint {path}, {count:,} samples by each sampler, all from the same x_T")
    found = comparison.compare(pipeline, o.samplers, o.evaluations, count, o.seed)

    # ------------------------------------------------------------ what is saved of it
    facts = {"checkpoint": str(path), "num_samples": count, "seed": o.seed}
    comparison.save_numbers(run_folder / "compare.json", found, **facts)
    print(comparison.table(found))
    sheet = pictures.sheet(found, pipeline.columns)
    print(f"picture:    {stills.save(sheet, run_folder / 'compare.png', o.figures)}")
    if found.flow:
        print(flow_table(found.flow))
        print(f"picture:    {stills.save(pictures.flow_map(found.flow), run_folder / 'flow_map.png', o.figures)}")
    if not o.rerun:
        return
    if not pipeline.of_images and pipeline.dims not in ((2,), (3,)):
        print(f"recording:  none, because it shows points of 2 or 3 coordinates, not of shape {pipeline.dims}")
        return
    from viz.recording.comparison_recording import (
        log_comparison,
    )  # rerun takes a second to import, and may not be wanted
    from viz.viewer import recording

    with recording("moonwalk-compare", run_folder / "compare.rrd", o.viewer, port=o.port) as rec:
        log_comparison(rec, found)


if __name__ == "__main__":
    main()
