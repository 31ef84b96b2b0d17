"""Short films of the processes, of points or of a grid of images: GIF, or MP4 with ffmpeg."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from runtime.progress import progress_bar
from viz.colours import TRACKED, noise_colours
from viz.films import image_film as images
from viz.films import point_film as points
from viz.films.film_files import FORMATS, has_ffmpeg, write
from viz.films.trajectory import save_scene
from viz.scene import Scene


def check_options(
    animation: str,
    of_images: bool,
    track_samples: Sequence[int] | None = None,
    save_trajectory: bool = False,
    *,
    asked_by: str = "animation=mp4",
    instead: str = "animation=gif",
) -> None:
    """Check the options of a film before anything long begins.

    Args:
        animation: "none", "gif" or "mp4".
        of_images: whether the film shows images.
        track_samples, save_trajectory: the options of those names.
        asked_by: what the user has typed to get an mp4.
        instead: what the user can type to get a film without ffmpeg.

    Raises:
        ValueError: films of that kind cannot be made here.
    """
    if animation == "mp4" and not has_ffmpeg():
        raise ValueError(
            f"{asked_by} needs the program ffmpeg, which is not on the PATH; {instead} needs none",
        )
    if animation not in ("none", *FORMATS):
        kinds = ", ".join(FORMATS)
        raise ValueError(f"animation must be one of none, {kinds}; got {animation!r}")
    if of_images and (track_samples or save_trajectory):
        raise ValueError(
            "track_samples and save_trajectory belong to points; images have their film and recording",
        )


def save(scene: Scene, folder: Path, animation: str, save_trajectory: bool = False) -> None:
    """Write the film and trajectory.npz of a run, where they are asked for.

    Args:
        scene: what to show.
        folder: of the run.
        animation: "none", "gif" or "mp4".
        save_trajectory: whether to write trajectory.npz.
    """
    if save_trajectory:
        print(f"trajectory: {save_scene(scene, folder / 'trajectory.npz')}")
    if animation != "none":
        sides = [process.side for process in scene.processes]
        name = "reverse" if "reverse" in sides else "forward"
        print(f"animation:  {animate(scene, folder / f'{name}.{animation}')}")


def animate(scene: Scene, path: str | Path) -> Path:
    """Write the film of a scene, and return its path.

    FILE.gif is small. FILE.mp4 of points has 1920x1080 pixels and 30 frames per second.

    Raises:
        ValueError: another suffix, no ffmpeg for mp4, or NaN.
        OSError: the file cannot be written.
    """
    path = _checked(path)
    if scene.of_images:
        return write(images.frames(scene), path, images.FRAMES_PER_S, images.COLOURS)
    return _point_film(points.panels_of(scene), path)


def beside(scenes: Mapping[str, Scene], path: str | Path) -> Path:
    """Write the film of two or three reverse processes of points beside each other.

    Args:
        scenes: the scenes by the titles of their panels.
        path: the file, .gif or .mp4.

    Raises:
        ValueError: as `animate`, and for a scene without such a process, or of other dimensions.
        OSError: the file cannot be written.
    """
    path = _checked(path)
    panels = [points.reverse_panel(name, scene) for name, scene in scenes.items()]
    dimensions = {panel.scene.dim for panel in panels}
    if len(dimensions) > 1:
        raise ValueError(
            "points of two and of three coordinates cannot stand side by side in one film",
        )
    return _point_film(panels, path)


def _point_film(panels: Sequence[points.Panel], path: Path) -> Path:
    """Write the film of these panels of points, with the colours of noise and of tracked samples in its palette."""
    look = points.LOOKS[path.suffix.lower()]
    film = progress_bar(points.frames(panels, look), path.name)
    noise = noise_colours(np.linspace(0, 1, 14))
    must_have = np.vstack([noise, np.array(TRACKED, np.uint8)])
    return write(film, path, look.frames_per_s, points.COLOURS, must_have)


def _checked(path: str | Path) -> Path:
    """Return the path of a film.

    Raises:
        ValueError: films of that suffix cannot be written here.
    """
    path = Path(path)
    kind = path.suffix.lstrip(".").lower()
    if kind not in FORMATS:
        raise ValueError(f"{path} must end in .gif or .mp4")
    instead = f"--out {path.with_suffix('.gif')}"
    check_options(kind, of_images=False, asked_by=str(path), instead=instead)
    return path
