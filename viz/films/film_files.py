"""Film files: frames into a GIF, or into an MP4 where the program ffmpeg is installed."""

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from runtime.atomic_file import atomic_file, temporary_path

FORMATS = ("gif", "mp4")
QUALITY = 21  # the constant rate factor of x264, at which thin lines stay thin

Frame = tuple[NDArray[np.uint8], int]  # a picture (H, W, 3), and for how many frames it is shown


def has_ffmpeg() -> bool:
    """Return whether the program ffmpeg is on the PATH."""
    return shutil.which("ffmpeg") is not None


def write(
    film: Iterable[Frame],
    path: Path,
    frames_per_s: int,
    colours: int = 64,
    must_have: Sequence[NDArray] | NDArray = (),
) -> Path:
    """Write a film as FILE.gif or FILE.mp4, and return its path.

    Args:
        film: pictures (H, W, 3), each with the number of frames for which it is shown.
        path: the file; a missing folder is created.
        frames_per_s: frames per second.
        colours: size of a GIF's palette; fewer colours make a smaller file.
        must_have: (K, 3), colours to include in a GIF's palette beside those of the first, middle
            and last picture.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".mp4":
        _write_mp4(iter(film), path, frames_per_s)
    else:
        _write_gif(list(film), path, frames_per_s, colours, must_have)
    return path


# ---------------------------------------------------------------- GIF


def _write_gif(
    film: Sequence[Frame],
    path: Path,
    frames_per_s: int,
    colours: int,
    must_have: Sequence[NDArray] | NDArray,
) -> None:
    """Write a GIF with one palette for all frames, without dithering, which makes files large."""
    pictures = [picture for picture, _ in film]
    palette = _palette(pictures, colours, must_have)
    images = []
    for picture in pictures:
        image = Image.fromarray(picture)
        images.append(image.quantize(palette=palette, dither=Image.Dither.NONE))
    ends = np.cumsum([shown_for for _, shown_for in film]) / frames_per_s
    hundredths = np.diff(np.round(100 * ends), prepend=0)  # the unit of a GIF's clock
    milliseconds = (10 * hundredths).astype(int).tolist()
    with atomic_file(path) as file:
        images[0].save(
            file,
            "GIF",
            save_all=True,
            append_images=images[1:],
            duration=milliseconds,
            loop=0,
            optimize=True,  # pixels that stay as they are become transparent, which is shorter
        )


def _palette(
    pictures: Sequence[NDArray[np.uint8]], colours: int, must_have: Sequence[NDArray] | NDArray
) -> Image.Image:
    """Return an image whose palette fits the first, middle and last picture, and `must_have`."""
    wall = np.concatenate([pictures[0], pictures[len(pictures) // 2], pictures[-1]])
    if len(must_have):
        width = wall.shape[1] // len(must_have)
        swatch = np.tile(must_have, (40, 1, 1)).repeat(width, 1)
        wall = np.concatenate([wall[:, : swatch.shape[1]], swatch])
    return Image.fromarray(wall).quantize(colours)


# ---------------------------------------------------------------- MP4


def _write_mp4(film: Iterator[Frame], path: Path, frames_per_s: int) -> None:
    """Write an MP4 picture by picture: uncompressed, a film takes some gigabytes.

    Raises:
        OSError: ffmpeg has failed.
    """
    first_picture, first_shown_for = next(film)
    # Every player reads yuv420p, which needs an even width and height.
    height = first_picture.shape[0] // 2 * 2
    width = first_picture.shape[1] // 2 * 2
    # ffmpeg moves back and forth in its output, so it needs a file rather than a pipe.
    temporary = temporary_path(path)
    try:
        with subprocess.Popen(
            _ffmpeg_command(temporary, width, height, frames_per_s),
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as ffmpeg:
            assert ffmpeg.stdin and ffmpeg.stderr
            try:
                ffmpeg.stdin.write(first_picture[:height, :width].tobytes() * first_shown_for)
                for picture, shown_for in film:
                    ffmpeg.stdin.write(picture[:height, :width].tobytes() * shown_for)
                ffmpeg.stdin.close()
            except BrokenPipeError:
                pass  # ffmpeg has ended; its messages below say why
            except BaseException:
                ffmpeg.kill()
                raise
            message = ffmpeg.stderr.read().decode(errors="replace").strip()
        if ffmpeg.returncode:
            raise OSError(f"ffmpeg could not write {path}: {message}")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _ffmpeg_command(path: Path, width: int, height: int, frames_per_s: int) -> list[str]:
    """Return the command that reads raw frames from its standard input and writes an MP4."""
    read_frames = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}"]
    read_frames += ["-r", str(frames_per_s), "-i", "-"]
    encode = ["-pix_fmt", "yuv420p", "-crf", str(QUALITY), "-movflags", "+faststart"]
    return ["ffmpeg", "-y", "-loglevel", "error", *read_frames, *encode, "-f", "mp4", str(path)]
