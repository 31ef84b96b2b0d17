"""Short films of the processes, of points or of a grid of images: GIF, or MP4 where ffmpeg is found."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray
from PIL import Image

from metrics.scene import Process, Scene, checked_points
from runtime.whole_file import unfinished, whole_file
from schedule import evenly
from viz.colours import DATA, hex_colour, noise_colours
from viz.image_grids import Sheet, arranged, grid_picture

WIDTH, DPI = 480, 80  # pixels
FRAMES_PER_S, LASTS_S, HELD_S = 15, 4, 1.5  # at most; at least, since few states are shown more slowly; the last one
MOST_POINTS = 800  # drawn of each set: more of them only blacken a picture this small
MOST_PIXELS = 60_000  # of all images: noise does not compress

Painter = Callable[[float], NDArray[np.uint8]]  # the picture (H, W, 3) at a share of the way, from 0 to 1


class Kind(NamedTuple):
    """In what films of points and of images differ."""

    frames: int
    titles: dict[str, str]
    colours: int  # this and must_have: see `write`
    must_have: Sequence[NDArray] | NDArray


DATA_TO_NOISE = {"forward": "forward: data to noise", "reverse": "reverse: noise to data"}
IMAGES_TO_NOISE = {"forward": "forward: images to noise", "reverse": "reverse: noise to images"}
POINTS = Kind(60, DATA_TO_NOISE, 64, noise_colours(np.linspace(0, 1, 24)))
IMAGES = Kind(40, IMAGES_TO_NOISE, 20, ())


def check_options(
    animation: str, of_images: bool, track_samples: Sequence[int] | None = None, save_trajectory: bool = False
) -> None:
    """Raises ValueError where films of that kind cannot be made here; before anything long begins."""
    if animation == "mp4" and shutil.which("ffmpeg") is None:
        raise ValueError("animation=mp4 needs the program ffmpeg, which is not on the PATH; animation=gif needs none")
    if animation not in ("none", "gif", "mp4"):
        raise ValueError(f"animation must be one of none, gif, mp4; got {animation!r}")
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
    """Write the film of a scene to FILE.gif or FILE.mp4; points in 3D are seen from above.

    Raises:
        ValueError: another suffix, no ffmpeg for mp4, NaN.
        OSError: the file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lstrip(".").lower()
    if suffix not in ("gif", "mp4"):
        raise ValueError(f"{path} must end in .gif or .mp4")
    check_options(suffix, scene.of_images)
    pictures, kind = list(frames(scene)), IMAGES if scene.of_images else POINTS
    return write(pictures, path, min(FRAMES_PER_S, -(-len(pictures) // LASTS_S)), kind.colours, kind.must_have)


def frames(scene: Scene) -> Iterator[NDArray[np.uint8]]:
    """The pictures (H, W, 3), evenly chosen from the states."""
    kind, painter = (IMAGES, _images(scene)) if scene.of_images else (POINTS, _points(scene))
    last = max(len(p.states) for p in scene.processes) - 1
    for i in evenly(0, last, kind.frames):
        yield painter(i / max(1, last))


def _noise_level(step: int) -> str:
    return f"noise level: {step} forward steps"


# ---------------------------------------------------------------- pictures of images


def _images(scene: Scene) -> Painter:
    """A grid of them, in rows of one class each where they have labels."""
    process = scene.processes[0]
    s, n, _, h, w = process.states.shape
    n = min(n, max(16, MOST_PIXELS // (h * w)))
    grid = arranged(n, scene.labels, scene.classes)
    side = 36 if len(grid.cells) > 6 else 60
    what = IMAGES.titles[process.side] + (" of the label at the left" if grid.names else "")
    sheet = None

    def picture(share: float) -> NDArray[np.uint8]:
        nonlocal sheet
        i = round(share * (s - 1))
        tiles = grid_picture(process.states[i, :n], grid, side)
        title = f"{what}\n{_noise_level(int(process.steps[i]))}"
        sheet = sheet or Sheet(tiles, title, grid.names)
        return sheet.turn(tiles, title)

    return picture


# ---------------------------------------------------------------- pictures of points


def _points(scene: Scene) -> Painter:
    """The processes side by side."""
    processes = [p._replace(states=checked_points(p.states)) for p in scene.processes]
    figure, scatters, texts = _stage(processes, scene.data)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    figure.set_layout_engine("none")  # once is enough, and it is most of the work

    def picture(share: float) -> NDArray[np.uint8]:
        for process, dots, text in zip(processes, scatters, texts):
            i = round(share * (len(process.states) - 1))
            dots.set_offsets(process.states[i, :MOST_POINTS, :2])
            dots.set_color(hex_colour(noise_colours(scene.noise(process.steps[i]))))
            text.set_text(_noise_level(int(process.steps[i])))
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()

    return picture


def _stage(processes: list[Process], data: NDArray | None) -> tuple[Figure, list[PathCollection], list[Text]]:
    """Axes for each process, with the clean data in grey."""
    height = 280 if len(processes) > 1 else 440
    figure = Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, layout="constrained")
    axes = figure.subplots(1, len(processes), sharex=True, sharey=True, squeeze=False)[0]
    reach = 1.05 * max(float(np.quantile(np.abs(p.states[..., :2]), 0.9995)) for p in processes)
    scatters, texts = [], []
    for ax, process in zip(axes, processes):
        if data is not None:
            ax.scatter(*data[:MOST_POINTS, :2].T, s=2, color=hex_colour(DATA), linewidths=0)
        scatters.append(ax.scatter([], [], s=7, linewidths=0))
        texts.append(ax.text(0.02, 0.02, "", transform=ax.transAxes, fontsize=9))
        ax.set_title(POINTS.titles[process.side], fontsize=11)
        ax.set(aspect="equal", xlim=(-reach, reach), ylim=(-reach, reach))
        ax.tick_params(labelsize=8)
        ax.grid(alpha=0.2)
    return figure, scatters, texts


# ---------------------------------------------------------------- files


def write(
    pictures: list[NDArray[np.uint8]],
    path: Path,
    frames_per_s: int = FRAMES_PER_S,
    colours: int = 64,
    must_have: Sequence[NDArray] | NDArray = (),
) -> Path:
    """Write pictures (H, W, 3) as FILE.gif or FILE.mp4, the last one held.

    colours: of a GIF's palette; fewer make a smaller file. must_have (K, 3): those that it holds beside the colours of
    the first, middle and last picture.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".mp4":
        _write_mp4(pictures, path, frames_per_s)
    else:
        _write_gif(pictures, path, frames_per_s, colours, must_have)
    return path


def _write_gif(
    pictures: list[NDArray[np.uint8]],
    path: Path,
    frames_per_s: int,
    colours: int,
    must_have: Sequence[NDArray] | NDArray,
) -> None:
    """One palette for all frames and no dithering: noise in the colours is what makes a GIF large."""
    wall = np.concatenate([pictures[0], pictures[len(pictures) // 2], pictures[-1]])
    if len(must_have):
        swatch = np.tile(must_have, (40, 1, 1)).repeat(wall.shape[1] // len(must_have), 1)
        wall = np.concatenate([wall[:, : swatch.shape[1]], swatch])
    palette = Image.fromarray(wall).quantize(colours)
    images = [Image.fromarray(p).quantize(palette=palette, dither=Image.Dither.NONE) for p in pictures]
    duration = [round(1000 / frames_per_s)] * len(images)
    duration[-1] = round(1000 * HELD_S)
    options = {"append_images": images[1:], "duration": duration, "loop": 0, "optimize": False}
    with whole_file(path) as file:
        images[0].save(file, "GIF", save_all=True, **options)


def _write_mp4(pictures: list[NDArray[np.uint8]], path: Path, frames_per_s: int) -> None:
    height, width = (n - n % 2 for n in pictures[0].shape[:2])  # yuv420p, which every player reads, wants even sizes
    held = [pictures[-1]] * round(HELD_S * frames_per_s)
    raw = b"".join(p[:height, :width].tobytes() for p in [*pictures, *held])
    size = f"{width}x{height}"
    temporary = unfinished(path)  # ffmpeg goes back and forth in a file, so that it needs one on the disk
    try:
        done = subprocess.run(
            ["ffmpeg", "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size,
             "-r", str(frames_per_s), "-i", "-", "-pix_fmt", "yuv420p", "-f", "mp4", str(temporary)],
            input=raw, capture_output=True,
        )  # fmt: skip
        if done.returncode:
            raise OSError(f"ffmpeg could not write {path}: {done.stderr.decode(errors='replace').strip()}")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save_scene(scene: Scene, path: Path) -> Path:
    """trajectory.npz: for each side SIDE (S, N, d) and SIDE_steps (S,), the clean data (N, d), alpha_bar (T + 1,)."""
    around = {"data": scene.data, "alpha_bar": scene.alpha_bar}
    arrays: dict[str, Any] = {name: array for name, array in around.items() if array is not None}
    for p in scene.processes:
        arrays |= {p.side: p.states, f"{p.side}_steps": p.steps}
    with whole_file(path) as file:
        np.savez(file, **arrays)
    return path


def load_scene(path: str | Path) -> Scene:
    """What `save_scene` wrote. Raises FileNotFoundError or ValueError, each with a sentence."""
    if not Path(path).exists():
        raise FileNotFoundError(f"there is no {path}; save_trajectory=true makes one")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            sides = [s for s in POINTS.titles if s in arrays]
            steps = {
                s: arrays[f"{s}_steps" if f"{s}_steps" in arrays else f"{s}_noisings"] for s in sides
            }  # its former name
            processes = [Process(s, arrays[s], steps[s]) for s in sides]
            data, alpha_bar = arrays.get("data"), arrays.get("alpha_bar")
    except Exception as error:  # a damaged zip file has many ways to say so
        raise ValueError(f"{path} is no trajectory.npz of moonwalk") from error
    if not processes or any(len(p.states) != len(p.steps) or not len(p.states) for p in processes):
        raise ValueError(f"{path} is no trajectory.npz of moonwalk: it holds neither a forward nor a reverse process")
    return Scene(processes, data=data, alpha_bar=alpha_bar)
