"""Short films of the processes, of points or of a grid of images: GIF, or MP4 where ffmpeg is found."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from PIL import Image

from metrics.scene import HELD_S, LASTS_S, Process, Scene, checked_points
from runtime.whole_file import unfinished, whole_file
from viz.colours import DATA, hex_colour, noise_colours
from viz.image_grids import Sheet, arranged, grid_picture
from viz.style import ink

WIDTH, DPI = 480, 80  # pixels
MOST_POINTS = 600  # drawn of each set: more of them only blacken a picture this small
MOST_PIXELS = 60_000  # of all images: noise does not compress

FEW_DEGREES = 20  # above the horizon: from where points in three dimensions are seen
MARKERS = "o^sDvP*X"  # of labels

Painter = Callable[[float], NDArray[np.uint8]]  # the picture (H, W, 3) after so many seconds
Frame = tuple[NDArray[np.uint8], int]  # a picture and how long it stays, in frames


class Kind(NamedTuple):
    """In what films of points and of images differ."""

    frames_per_s: int
    titles: dict[str, str]
    colours: int  # this and must_have: see `write`
    must_have: Sequence[NDArray] | NDArray


DATA_TO_NOISE = {"forward": "forward: data to noise", "reverse": "reverse: noise to data"}
IMAGES_TO_NOISE = {"forward": "forward: images to noise", "reverse": "reverse: noise to images"}
POINTS = Kind(10, DATA_TO_NOISE, 64, noise_colours(np.linspace(0, 1, 24)))
IMAGES = Kind(5, IMAGES_TO_NOISE, 20, ())


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
    """Write the film of a scene to FILE.gif or FILE.mp4; points in 3D turn once.

    Raises:
        ValueError: another suffix, no ffmpeg for mp4, NaN.
        OSError: the file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lstrip(".").lower()
    if suffix not in ("gif", "mp4"):
        raise ValueError(f"{path} must end in .gif or .mp4")
    check_options(suffix, scene.of_images)
    kind = IMAGES if scene.of_images else POINTS
    return write(list(frames(scene)), path, kind.frames_per_s, kind.colours, kind.must_have)


def frames(scene: Scene) -> Iterator[Frame]:
    """The film, which lasts LASTS_S and HELD_S: a picture where a state begins, the last one held.

    Points in three dimensions turn once, with a picture for every moment.
    """
    kind, painter = (IMAGES, _images(scene)) if scene.of_images else (POINTS, _points(scene))
    rate, end = kind.frames_per_s, round((LASTS_S + HELD_S) * kind.frames_per_s)
    moments = {round(rate * float(second)) for p in scene.processes for second in scene.seconds(p)}
    if not scene.of_images and scene.dim == 3:
        moments = set(range(end))
    for now, after in pairwise([*sorted(moments), end]):
        yield painter(now / rate), after - now


def _shown(scene: Scene, process: Process, seconds: float) -> int:
    """Which state a process shows after so many seconds: of those that have begun, or nearly, the last."""
    return max(0, int(np.searchsorted(scene.seconds(process), seconds + 0.5 / POINTS.frames_per_s, "right")) - 1)


def _noise_level(step: int) -> str:
    return f"noise level: {step} forward steps"


# ---------------------------------------------------------------- pictures of images


def _images(scene: Scene) -> Painter:
    """A grid of them, in rows of one class each where they have labels."""
    process = scene.processes[0]
    _, n, _, h, w = process.states.shape
    n = min(n, max(16, MOST_PIXELS // (h * w)))
    grid = arranged(n, scene.labels, scene.classes)
    side = 36 if len(grid.cells) > 6 else 60
    what = IMAGES.titles[process.side] + (" of the label at the left" if grid.names else "")
    what += f", {scene.steered}" if scene.steered else ""
    sheet = None

    def picture(seconds: float) -> NDArray[np.uint8]:
        nonlocal sheet
        i = _shown(scene, process, seconds)
        tiles = grid_picture(process.states[i, :n], grid, side)
        title = f"{what}\n{_noise_level(int(process.steps[i]))}"
        sheet = sheet or Sheet(tiles, title, grid.names)
        return sheet.turn(tiles, title)

    return picture


# ---------------------------------------------------------------- pictures of points


def _points(scene: Scene) -> Painter:
    """The processes side by side; in three dimensions seen from the side, turning."""
    processes = [p._replace(states=checked_points(p.states)) for p in scene.processes]
    figure, axes = _stage(scene, processes)
    canvas = FigureCanvasAgg(figure)
    data = [ax.scatter([], [], s=2, color=hex_colour(DATA), linewidths=0, zorder=0) for ax in axes]
    groups = [_groups(scene, process.side) for process in processes]
    dots = [
        [ax.scatter([], [], s=7 if m == "o" else 12, linewidths=0, marker=m) for m, _ in of]
        for ax, of in zip(axes, groups)
    ]
    texts = [ax.text(0.02, 0.02, "", transform=ax.transAxes, fontsize=8) for ax in axes]
    canvas.draw()
    figure.set_layout_engine("none")  # once is enough, and it is most of the work

    def picture(seconds: float) -> NDArray[np.uint8]:
        turn = 2 * np.pi * seconds / (LASTS_S + HELD_S)
        for process, of, clouds, text, grey in zip(processes, groups, dots, texts, data):
            i = _shown(scene, process, seconds)
            colour = hex_colour(noise_colours(scene.noise(process.steps[i])))
            for (_, rows), cloud in zip(of, clouds):
                cloud.set_offsets(_seen(process.states[i, rows], turn))
                cloud.set_color(colour)
            if scene.data is not None:
                grey.set_offsets(_seen(scene.data[:MOST_POINTS], turn))
            text.set_text(_noise_level(int(process.steps[i])))
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()

    return picture


def _groups(scene: Scene, side: str) -> list[tuple[str, NDArray | slice]]:
    """Which rows are drawn with which marker: generated samples by their label, if they have any."""
    if scene.labels is None or side == "forward":
        return [("o", slice(MOST_POINTS))]
    labels = scene.labels[:MOST_POINTS]
    return [(MARKERS[k % len(MARKERS)], np.flatnonzero(labels == k)) for k in np.unique(labels)]


def _seen(points: NDArray, turn: float) -> NDArray:
    """Points (N, 2) as they are, (N, 3) from the side and a little above, after a turn in radians: (N, 2)."""
    if points.shape[1] == 2:
        return points
    (x, y, z), above = points.T, np.radians(FEW_DEGREES)
    right, away = x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)
    return np.stack([right, z * np.cos(above) + away * np.sin(above)], 1)


def _stage(scene: Scene, processes: list[Process]) -> tuple[Figure, list[Axes]]:
    """Axes for each process, with its title, and the labels' markers."""
    height = 280 if len(processes) > 1 else 440
    figure = Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, layout="constrained")
    axes = figure.subplots(1, len(processes), sharex=True, sharey=True, squeeze=False)[0]
    far = [np.linalg.norm(p.states, axis=-1) if scene.dim == 3 else np.abs(p.states) for p in processes]
    reach = 1.05 * max(float(np.quantile(each, 0.9995)) for each in far)
    for ax, process in zip(axes, processes):
        steered = f"\n{scene.steered}" if process.side == "reverse" and scene.steered else ""
        ax.set_title(POINTS.titles[process.side] + steered, fontsize=10)
        ax.set(aspect="equal", xlim=(-reach, reach), ylim=(-reach, reach))
        ax.tick_params(labelsize=8, labelbottom=scene.dim == 2, labelleft=scene.dim == 2)
        ax.grid(alpha=0.2)
        if process.side == "reverse" and scene.labels is not None:
            asked = np.unique(scene.labels)[: len(MARKERS)]
            names = [(MARKERS[k % len(MARKERS)], f"label {scene.classes[k]}") for k in asked]
            keys = [Line2D([], [], marker=m, linestyle="", markersize=4, color=ink(), label=name) for m, name in names]
            ax.legend(handles=keys, fontsize=7, loc="upper right", framealpha=0.6, handletextpad=0.1)
    return figure, list(axes)


# ---------------------------------------------------------------- files


def write(
    film: Sequence[Frame],
    path: Path,
    frames_per_s: int,
    colours: int = 64,
    must_have: Sequence[NDArray] | NDArray = (),
) -> Path:
    """Write pictures (H, W, 3), each for so many frames, as FILE.gif or FILE.mp4.

    colours: of a GIF's palette; fewer make a smaller file. must_have (K, 3): those that it holds beside the colours of
    the first, middle and last picture.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".mp4":
        _write_mp4(film, path, frames_per_s)
    else:
        _write_gif(film, path, frames_per_s, colours, must_have)
    return path


def _write_gif(
    film: Sequence[Frame], path: Path, frames_per_s: int, colours: int, must_have: Sequence[NDArray] | NDArray
) -> None:
    """One palette for all frames and no dithering: noise in the colours is what makes a GIF large."""
    pictures = [picture for picture, _ in film]
    wall = np.concatenate([pictures[0], pictures[len(pictures) // 2], pictures[-1]])
    if len(must_have):
        swatch = np.tile(must_have, (40, 1, 1)).repeat(wall.shape[1] // len(must_have), 1)
        wall = np.concatenate([wall[:, : swatch.shape[1]], swatch])
    palette = Image.fromarray(wall).quantize(colours)
    images = [Image.fromarray(p).quantize(palette=palette, dither=Image.Dither.NONE) for p in pictures]
    duration = [round(1000 * stays / frames_per_s) for _, stays in film]
    options = {"append_images": images[1:], "duration": duration, "loop": 0, "optimize": False}
    with whole_file(path) as file:
        images[0].save(file, "GIF", save_all=True, **options)


def _write_mp4(film: Sequence[Frame], path: Path, frames_per_s: int) -> None:
    height, width = (n - n % 2 for n in film[0][0].shape[:2])  # yuv420p, which every player reads, wants even sizes
    raw = b"".join(picture[:height, :width].tobytes() * stays for picture, stays in film)
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
    """trajectory.npz: for each side SIDE (S, N, d) and SIDE_steps (S,); where they are known the clean data (N, d),
    alpha_bar (T + 1,), labels (N,), the names of their `classes`, and in words how the samples were `steered`."""
    around = {"data": scene.data, "alpha_bar": scene.alpha_bar, "labels": scene.labels}
    arrays: dict[str, Any] = {name: array for name, array in around.items() if array is not None}
    arrays |= {"classes": np.array(scene.classes, str), "steered": np.array(scene.steered)}
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
            around = {name: arrays[name] for name in ("data", "alpha_bar", "labels") if name in arrays}
            around |= {"classes": [*map(str, arrays.get("classes", ()))], "steered": str(arrays.get("steered", ""))}
    except Exception as error:  # a damaged zip file has many ways to say so
        raise ValueError(f"{path} is no trajectory.npz of moonwalk") from error
    if not processes or any(len(p.states) != len(p.steps) or not len(p.states) for p in processes):
        raise ValueError(f"{path} is no trajectory.npz of moonwalk: it holds neither a forward nor a reverse process")
    return Scene(processes, **around)
