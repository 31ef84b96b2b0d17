"""Short films of the processes, of points or of a grid of images: GIF, or MP4 where ffmpeg is found."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from runtime.progress import progress_bar
from viz.colours import noise_colours
from viz.films import image_film as images
from viz.films import point_film as points
from viz.films.film_files import FORMATS, has_ffmpeg, write
from viz.films.trajectory import save_scene
from viz.scene import Scene


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
    """Write the film of a scene: FILE.gif is small; FILE.mp4 of points has 1920x1080 pixels and 30 pictures a second.

    Raises:
        ValueError: another suffix, no ffmpeg for mp4, NaN.
        OSError: the file cannot be written.
    """
    path = _checked(path)
    if scene.of_images:
        return write(images.frames(scene), path, images.FRAMES_PER_S, images.COLOURS)
    return _film(points.panels_of(scene), path)


def beside(scenes: Mapping[str, Scene], path: str | Path) -> Path:
    """The film of two or three reverse processes of points side by side, under their names. Raises as `animate`."""
    path, panels = _checked(path), [points.reverse_panel(name, scene) for name, scene in scenes.items()]
    if len({panel.scene.dim for panel in panels}) > 1:
        raise ValueError("points of two and of three coordinates cannot stand side by side in one film")
    return _film(panels, path)


def _film(panels: Sequence[points.Panel], path: Path) -> Path:
    look = points.LOOKS[path.suffix.lower()]
    film = progress_bar(points.frames(panels, look), path.name)
    return write(film, path, look.frames_per_s, points.COLOURS, noise_colours(np.linspace(0, 1, 24)))


def _checked(path: str | Path) -> Path:
    path = Path(path)
    if (kind := path.suffix.lstrip(".").lower()) not in FORMATS:
        raise ValueError(f"{path} must end in .gif or .mp4")
    check_options(kind, of_images=False)
    return path
