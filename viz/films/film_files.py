"""Film files: pictures into a GIF, or into an MP4 where ffmpeg is found."""

import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from runtime.atomic_file import atomic_file, temporary_path

FORMATS = ("gif", "mp4")
QUALITY = 21  # of x264: thin lines stay thin

Frame = tuple[NDArray[np.uint8], int]  # a picture (H, W, 3) and how long it stays, in frames


def has_ffmpeg() -> bool:
    return shutil.which("ffmpeg") is not None


def write(
    film: Iterable[Frame],
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
        _write_gif(list(film), path, frames_per_s, colours, must_have)
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
    with atomic_file(path) as file:
        images[0].save(file, "GIF", save_all=True, **options)


def _write_mp4(film: Iterable[Frame], path: Path, frames_per_s: int) -> None:
    """Picture by picture: a film of 1920x1080 is some gigabytes before it is compressed."""
    film = iter(film)
    first = next(film)
    height, width = (n - n % 2 for n in first[0].shape[:2])  # yuv420p, which every player reads, wants even sizes
    temporary = temporary_path(path)  # ffmpeg goes back and forth in a file, so that it needs one on the disk
    line = ["ffmpeg", "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}",
            "-r", str(frames_per_s), "-i", "-", "-pix_fmt", "yuv420p", "-crf", str(QUALITY), "-movflags", "+faststart",
            "-f", "mp4", str(temporary)]  # fmt: skip
    try:
        with subprocess.Popen(line, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as ffmpeg:
            assert ffmpeg.stdin and ffmpeg.stderr
            try:
                for picture, stays in chain([first], film):
                    ffmpeg.stdin.write(picture[:height, :width].tobytes() * stays)
                ffmpeg.stdin.close()
            except BrokenPipeError:  # it has stopped, and says why
                pass
            except BaseException:
                ffmpeg.kill()
                raise
            said = ffmpeg.stderr.read().decode(errors="replace").strip()
        if ffmpeg.returncode:
            raise OSError(f"ffmpeg could not write {path}: {said}")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
