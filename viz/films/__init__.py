"""Short films of the processes, of points or of a grid of images: GIF, or MP4 where ffmpeg is found."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from metrics.scene import HELD_S, LASTS_S, Scene
from viz.colours import noise_colours
from viz.films import images, points
from viz.films.files import FORMATS, Frame, has_ffmpeg, write
from viz.films.trajectory import save_scene


def check_options(
    animation: str, of_images: bool, track_samples: Sequence[int] | None = None, save_trajectory: bool = False
) -> None:
    """Raises ValueError where films of that kind cannot be made here; before anything long begins."""
    if animation == "mp4" and not has_ffmpeg():
        raise ValueError("animation=mp4 needs the program ffmpeg, which is not on the PATH; animation=gif needs none")
    if animation not in ("none", *FORMATS):
        raise ValueError(f"animation must be one of none, {', '.join(FORMATS)}; got {animation!r}")
    if of_images and (track_samples or save_trajectory):
        raise ValueError("track_samples and save_trajectory belong to points; images have their film and recording")


def save(scene: Scene, folder: Path, animation: str, save_trajectory: bool = False) -> None:
    """The film (none, gif or mp4) and trajectory.npz in a run folder, where they are asked for."""
    if save_trajectory:
        print(f"trajectory: {save_scene(scene, folder / 'trajectory.npz')}")
    if animation != "none":
        name = "reverse" if any(p.side == "reverse" for p in scene.processes) else "forward"
        print(f"animation:  {animate(scene, folder / f'{name}.{animation}')}")


def animate(scene: Scene, path: str | Path) -> Path:
    """Write the film of a scene to FILE.gif or FILE.mp4; points in 3D turn once.

    Raises:
        ValueError: another suffix, no ffmpeg for mp4, NaN.
        OSError: the file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lstrip(".").lower()
    if suffix not in FORMATS:
        raise ValueError(f"{path} must end in .gif or .mp4")
    check_options(suffix, scene.of_images)
    kind = images if scene.of_images else points
    must_have = () if scene.of_images else noise_colours(np.linspace(0, 1, 24))
    return write(frames(scene), path, kind.FRAMES_PER_S, kind.COLOURS, must_have)


def frames(scene: Scene) -> Iterator[Frame]:
    """The film, which lasts LASTS_S and HELD_S: a picture where a state begins, the last one held.

    Points in three dimensions turn once, with a picture for every moment.
    """
    kind = images if scene.of_images else points
    rate, end, picture = kind.FRAMES_PER_S, round((LASTS_S + HELD_S) * kind.FRAMES_PER_S), kind.painter(scene)
    moments = {round(rate * float(second)) for p in scene.processes for second in scene.seconds(p)}
    if not scene.of_images and scene.dim == 3:
        moments = set(range(end))
    for now, after in pairwise([*sorted(moments), end]):
        yield picture(now / rate), after - now
