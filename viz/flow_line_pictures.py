"""Flow lines as files: two pictures, a film of each in which the lines grow, and a comparison with the exact ones."""

from pathlib import Path
from typing import Any

from pipeline import Pipeline
from registry.sampler_rows import SAMPLERS, SamplingDefaults
from samplers import sampler_row
from samplers.options import SamplingOptions
from viz import films, flow, stills
from viz.films.film_files import has_ffmpeg
from viz.flow_lines import beside_exact, flow_lines

FLOW_LINES = 1400  # by default
# By default adams with many evaluations: they are even in the angle, in which paths move evenly.
DEFAULTS = SamplingDefaults("adams", 200, 0.0)


def save_flow_lines(
    pipeline: Pipeline,
    run_folder: Path,
    count: int,
    options: SamplingOptions,
    seed: int,
    formats: list[str],
    *,
    labels: Any,
    film: str | None,
) -> None:
    """Save flow.png and flow_square.png, their films, and flow_exact.png where the exact distribution is known.

    Args:
        labels: those asked for, as Pipeline.labels takes them. film: "gif", "mp4" or "none"; default: mp4 where there
            is ffmpeg, else gif.

    Raises:
        ValueError: not points of 2 or 3 coordinates, or a sampler with fresh noise.
    """
    check_noiseless(options)
    if pipeline.dims not in ((2,), (3,)):
        raise ValueError(f"flow lines are drawn of points of 2 or 3 coordinates, not of shape {pipeline.dims}")
    if film is None:
        film = "mp4" if has_ffmpeg() else "gif"
    films.check_options(film, of_images=False)

    options = pipeline.resolve(options, DEFAULTS)
    label_numbers = pipeline.labels(labels, count)
    if label_numbers is not None:
        print(f"labels:     {pipeline.describe_labels(labels, label_numbers)}")
    lines = flow_lines(pipeline, count, seed, label_numbers, options)
    for name, size in flow.SIZES.items():
        print(f"picture:    {stills.save(flow.still(lines, size), run_folder / f'{name}.png', formats)}")

    pair = beside_exact(pipeline, lines, seed, label_numbers, options)
    if pair is not None:
        network, exact = pair
        sheet = flow.beside(network, exact, flow.SIZES["flow"])
        print(f"picture:    {stills.save(sheet, run_folder / 'flow_exact.png', formats)}")

    if film != "none":
        for name, size in flow.SIZES.items():
            print(f"film:       {flow.save_film(lines, size, run_folder / f'{name}.{film}')}")


def check_noiseless(options: SamplingOptions) -> None:
    """Raises ValueError for a sampler that adds fresh noise on its way."""
    noisy = options.sampler is not None and sampler_row(options.sampler).noisy
    if options.eta or noisy:
        noiseless = ", ".join(name for name, row in SAMPLERS.items() if not row.noisy)
        raise ValueError(f"flow lines are paths without fresh noise: leave out eta, and take sampler={noiseless}")
