"""Short films of the processes, drawn like the stills in figures.py: GIF, or MP4 where ffmpeg is found."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from metrics.scene import Process, Scene, checked_points
from viz.colours import DATA, hex_colour, noise_colours

WIDTH, DPI = 480, 80  # pixels
FRAMES, FRAMES_PER_S, HELD_S = 60, 15, 1.5
POINTS = 800  # drawn of each set: more of them only blacken a picture this small
COLOURS = 64  # of a GIF's palette
TITLES = {"forward": "forward: data to noise", "reverse": "reverse: noise to data"}


def check_writer(animation: str) -> None:
    """Raises ValueError where films of that kind cannot be made here; before anything long begins."""
    if animation == "mp4" and shutil.which("ffmpeg") is None:
        raise ValueError("animation=mp4 needs the program ffmpeg, which is not on the PATH; animation=gif needs none")
    if animation not in ("none", "gif", "mp4"):
        raise ValueError(f"animation must be one of none, gif, mp4; got {animation!r}")


def save(scene: Scene, folder: Path, animation: str, save_trajectory: bool) -> None:
    """The film and trajectory.npz in a run folder, where they are asked for."""
    if save_trajectory:
        print(f"trajectory: {save_scene(scene, folder / 'trajectory.npz')}")
    if animation != "none":
        name = "reverse" if any(p.side == "reverse" for p in scene.processes) else "forward"
        print(f"animation:  {animate(scene, folder / f'{name}.{animation}')}")


def animate(scene: Scene, path: str | Path) -> Path:
    """Write the film of a scene of 2D or 3D points (3D ones are seen from above) to FILE.gif or FILE.mp4.

    Raises:
        ValueError: another suffix, no ffmpeg for mp4, NaN.
        OSError: the file cannot be written.
    """
    path = Path(path)
    kind = path.suffix.lstrip(".").lower()
    if kind not in ("gif", "mp4"):
        raise ValueError(f"{path} must end in .gif or .mp4")
    check_writer(kind)
    return write(list(frames(scene)), path, extra_colours=noise_colours(np.linspace(0, 1, 24)))


def frames(scene: Scene) -> Iterator[NDArray[np.uint8]]:
    """The pictures (H, W, 3), evenly chosen from the states; the processes side by side."""
    processes = [p._replace(states=checked_points(p.states)) for p in scene.processes]
    figure, scatters, texts = _stage(processes, scene.data)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    figure.set_layout_engine("none")  # once is enough, and it is most of the work
    count = min(FRAMES, max(len(p.states) for p in processes))
    for share in np.linspace(0, 1, count):
        for process, dots, text in zip(processes, scatters, texts):
            i = round(share * (len(process.states) - 1))
            dots.set_offsets(process.states[i, :POINTS, :2])
            dots.set_color(hex_colour(noise_colours(process.steps[i] / process.steps.max())))
            text.set_text(f"noised {process.steps[i]} times")
        canvas.draw()
        yield np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _stage(processes: list[Process], data: NDArray | None) -> tuple[Figure, list, list]:
    """Axes for each process, with the clean data in grey."""
    height = 280 if len(processes) > 1 else 440
    figure = Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, layout="constrained")
    axes = figure.subplots(1, len(processes), sharex=True, sharey=True, squeeze=False)[0]
    reach = 1.05 * max(float(np.quantile(np.abs(p.states[..., :2]), 0.9995)) for p in processes)
    scatters, texts = [], []
    for ax, process in zip(axes, processes):
        if data is not None:
            ax.scatter(*data[:POINTS, :2].T, s=2, color=hex_colour(DATA), linewidths=0)
        scatters.append(ax.scatter([], [], s=7, linewidths=0))
        texts.append(ax.text(0.02, 0.02, "", transform=ax.transAxes, fontsize=9))
        ax.set_title(TITLES[process.side], fontsize=11)
        ax.set(aspect="equal", xlim=(-reach, reach), ylim=(-reach, reach))
        ax.tick_params(labelsize=8)
        ax.grid(alpha=0.2)
    return figure, scatters, texts


# ---------------------------------------------------------------- files


def write(
    pictures: list[NDArray[np.uint8]],
    path: Path,
    frames_per_s: int = FRAMES_PER_S,
    extra_colours: NDArray | None = None,
    colours: int = COLOURS,
) -> Path:
    """Write pictures (H, W, 3) as FILE.gif or FILE.mp4, the last one held.

    extra_colours (K, 3): what a GIF's palette must hold beside the colours of the first, middle and last picture.
    colours: of that palette; fewer make a smaller file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".mp4":
        _write_mp4(pictures, path, frames_per_s)
    else:
        _write_gif(pictures, path, frames_per_s, extra_colours, colours)
    return path


def _write_gif(
    pictures: list[NDArray[np.uint8]], path: Path, frames_per_s: int, extra: NDArray | None, colours: int
) -> None:
    """One palette for all frames and no dithering: noise in the colours is what makes a GIF large."""
    wall = np.concatenate([pictures[0], pictures[len(pictures) // 2], pictures[-1]])
    if extra is not None:
        swatch = np.repeat(extra[None], 40, 0).repeat(wall.shape[1] // len(extra), 1)
        wall = np.concatenate([wall[:, : swatch.shape[1]], swatch])
    palette = Image.fromarray(wall).quantize(colours)
    images = [Image.fromarray(p).quantize(palette=palette, dither=Image.Dither.NONE) for p in pictures]
    duration = [round(1000 / frames_per_s)] * len(images)
    duration[-1] = round(1000 * HELD_S)
    images[0].save(path, save_all=True, append_images=images[1:], duration=duration, loop=0, optimize=False)


def _write_mp4(pictures: list[NDArray[np.uint8]], path: Path, frames_per_s: int) -> None:
    height, width = (n - n % 2 for n in pictures[0].shape[:2])  # yuv420p, which every player reads, wants even sizes
    held = [pictures[-1]] * round(HELD_S * frames_per_s)
    raw = b"".join(p[:height, :width].tobytes() for p in [*pictures, *held])
    size = f"{width}x{height}"
    done = subprocess.run(
        ["ffmpeg", "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size,
         "-r", str(frames_per_s), "-i", "-", "-pix_fmt", "yuv420p", str(path)],
        input=raw, capture_output=True,
    )  # fmt: skip
    if done.returncode:
        path.unlink(missing_ok=True)
        raise OSError(f"ffmpeg could not write {path}: {done.stderr.decode(errors='replace').strip()}")


def save_scene(scene: Scene, path: Path) -> Path:
    """trajectory.npz: for each side SIDE (S, N, d) and SIDE_noisings (S,), and the clean data (N, d)."""
    arrays = {p.side: p.states for p in scene.processes} | {f"{p.side}_noisings": p.steps for p in scene.processes}
    np.savez(path, **arrays, **({} if scene.data is None else {"data": scene.data}))
    return path


def load_scene(path: str | Path) -> Scene:
    """What `save_scene` wrote. Raises FileNotFoundError or ValueError, each with a sentence."""
    if not Path(path).exists():
        raise FileNotFoundError(f"there is no {path}; save_trajectory=true makes one")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            sides = [s for s in TITLES if s in arrays]
            processes = [Process(s, arrays[s], arrays[f"{s}_noisings"]) for s in sides]
            data = arrays.get("data")
    except Exception as error:  # a damaged zip file has many ways to say so
        raise ValueError(f"{path} is no trajectory.npz of moonwalk") from error
    if not processes or any(len(p.states) != len(p.steps) or not len(p.states) for p in processes):
        raise ValueError(f"{path} is no trajectory.npz of moonwalk: it holds neither a forward nor a reverse process")
    return Scene(processes, data=data)
