"""One image file as 8-bit pixels, and how the files of a folder are read alike.

A folder may hold photographs of several sizes, turned by a camera, or files with more than 8 bits.
`plan_reading` looks at all files before the first is decoded. All of them then get one size and one
scale of grey.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageFile, ImageOps

from runtime.progress import progress_bar

DEFAULT_SIDE = 32  # pixels, of images whose files have several sizes or are large
LARGE_SIDE = 256  # pixels; larger images are resized unless dataset.size says otherwise
DRAFT_SIDES = 4  # a JPEG file is decoded at this many times the final side at least
SIDEWAYS = (5, 6, 7, 8)  # values of EXIF's orientation that exchange width and height
# TIFF's tags of the lowest and highest value: 8-bit and 16-bit integers, then any type.
DECLARED_TAGS = ((340, 341), (280, 281))
SWAPPED_BYTES = {"16B": "16L", "16L": "16B", "16N": "16B" if sys.byteorder == "little" else "16L"}


class Levels(NamedTuple):
    """The values that become black and white in files with more than 8 bits."""

    low: float
    high: float


class Reading(NamedTuple):
    """How the files of a folder are read.

    side: images are resized and cropped to side x side pixels; None: they keep their size.
    levels: of files with more than 8 bits; None: there are none.
    lines: what a command prints about it.
    """

    side: int | None = None
    levels: Levels | None = None
    lines: tuple[str, ...] = ()


@contextmanager
def _opened(path: str | Path) -> Iterator[ImageFile.ImageFile]:
    """Open an image, and close its file at the end.

    Pillow 13 maps a TIFF file that it opens by its name into memory, and then exchanges the wrong
    pixels of one that lies sideways.
    """
    with Path(path).open("rb") as file, Image.open(file) as image:
        yield image


# ---------------------------------------------------------------- a plan for all files


def plan_reading(paths: Sequence[str | Path], size: int | None = None) -> Reading:
    """Look at the headers of image files, and at the values of those with more than 8 bits.

    Args:
        paths: image files. Those that cannot be opened are left to `read_image`.
        size: side in pixels that all images get. None: they keep their size if they have one, of at
            most LARGE_SIDE; otherwise they get DEFAULT_SIDE.
    """
    sizes: set[tuple[int, int]] = set()
    wide: list[str | Path] = []
    turned = 0
    for path in progress_bar(paths, "looking at images"):
        try:
            with _opened(path) as image:
                orientation = _orientation(image)
                sizes.add(_upright_size(image, orientation))
                turned += orientation != 1
                if _is_wide(image):
                    wide.append(path)
        except Exception:  # decoders raise OSError, SyntaxError, struct.error and others
            continue

    side = _chosen_side(sizes, size)
    levels, source = _find_levels(wide)
    lines = []
    if turned:
        lines.append(f"turned {turned:,} images upright, as their EXIF orientation says")
    if side is not None:
        lines.append(_resized_line(sizes, side, size))
    if levels is not None:
        scale = f"from {levels.low:g} (black) to {levels.high:g} (white), {source}"
        lines.append(f"scaled {len(wide):,} images of more than 8 bits {scale}")
    return Reading(side, levels, tuple(lines))


def _orientation(image: ImageFile.ImageFile) -> int:
    """Return EXIF's orientation from the header: 1 is upright."""
    if image.format == "PNG" and "exif" not in image.info:  # getexif would decode the whole file
        return 1
    return image.getexif().get(ExifTags.Base.Orientation, 1)


def _upright_size(image: ImageFile.ImageFile, orientation: int) -> tuple[int, int]:
    """Return (width, height) as `read_image` will see them."""
    width, height = image.size
    if orientation in SIDEWAYS and image.format != "TIFF":  # Pillow itself turns TIFF files
        return height, width
    return width, height


def _chosen_side(sizes: set[tuple[int, int]], size: int | None) -> int | None:
    if size is not None:
        return None if sizes == {(size, size)} else size
    is_large = any(max(each) > LARGE_SIDE for each in sizes)
    return DEFAULT_SIDE if len(sizes) > 1 or is_large else None


def _resized_line(sizes: set[tuple[int, int]], side: int, size: int | None) -> str:
    by_area = sorted(sizes, key=lambda each: each[0] * each[1])
    what = "images"
    if by_area:
        what = "images of {}x{} pixels".format(*by_area[0])
    if len(by_area) > 1:
        what += " to {}x{}".format(*by_area[-1])
    advice = "" if size else "; dataset.size=N takes another size"
    return f"{what} are resized and cropped to {side}x{side}{advice}"


# ---------------------------------------------------------------- more than 8 bits


def _is_wide(image: ImageFile.ImageFile) -> bool:
    """Tell whether a file has more than 8 bits for each value."""
    return image.mode[:1] in ("I", "F") or _swapped_tiles(image) is not None


def _swapped_tiles(image: ImageFile.ImageFile) -> list[Any] | None:
    """Return what lets Pillow read the lower instead of the upper 8 bits of 16-bit colours.

    Pillow has no 16-bit colours: it drops the lower byte of each value. With the order of bytes
    reversed it drops the upper one. None: a file of another kind.
    """
    if image.mode not in ("RGB", "RGBA"):
        return None
    swapped = []
    for tile in image.tile:
        args = tile.args if isinstance(tile.args, tuple) else (tile.args,)
        bands, _, order = str(args[0]).partition(";")
        if bands not in ("RGB", "RGBA") or order not in SWAPPED_BYTES:
            return None
        other = (f"{bands};{SWAPPED_BYTES[order]}", *args[1:])
        swapped.append(tile._replace(args=other if isinstance(tile.args, tuple) else other[0]))
    return swapped or None


def _wide_values(path: str | Path) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Return the values (C, H, W) of a file with more than 8 bits, and its opacity (H, W) in 0..1.

    Raises:
        ValueError: a value is not finite.
    """
    with _opened(path) as image:
        swapped = _swapped_tiles(image)
        values = np.asarray(ImageOps.exif_transpose(image)).astype(np.float64)
    if swapped is not None:
        with _opened(path) as image:
            image.tile = swapped
            lower = np.asarray(ImageOps.exif_transpose(image))
        values = 256 * values + lower
    if not np.isfinite(values).all():
        raise ValueError("it holds values that are not finite")

    if values.ndim == 2:
        return values[None], None
    values = values.transpose(2, 0, 1)
    opacity = values[3] / 65535 if len(values) == 4 else None
    return values[:3], opacity


def _find_levels(wide: Sequence[str | Path]) -> tuple[Levels | None, str]:
    """Return the levels of files with more than 8 bits, and where they come from, in words.

    They are those that the files declare, if all do so. Otherwise they are the lowest and the
    highest value of all files, so that no file has a scale of its own.
    """
    declared = [_declared_levels(path) for path in wide]
    ranges = [levels for levels in declared if levels is not None]
    source = "as their files declare"
    if len(ranges) < len(wide):
        source = "their lowest and highest value"
        ranges = []
        for path in progress_bar(wide, "finding the range of values"):
            try:
                values, _ = _wide_values(path)
            except Exception:  # a damaged file, which read_image reports
                continue
            ranges.append(Levels(float(values.min()), float(values.max())))
    if not ranges:
        return None, ""
    low = min(levels.low for levels in ranges)
    high = max(levels.high for levels in ranges)
    return Levels(low, high), source


def _declared_levels(path: str | Path) -> Levels | None:
    """Return the lowest and highest value that a TIFF file declares; None if it does not."""
    with _opened(path) as image:
        tags = getattr(image, "tag_v2", {})
        for low_tag, high_tag in DECLARED_TAGS:
            if low_tag in tags and high_tag in tags:
                low = float(np.min(tags[low_tag]))
                high = float(np.max(tags[high_tag]))
                if low < high:
                    return Levels(low, high)
    return None


def _scaled(path: str | Path, levels: Levels | None) -> Image.Image:
    """Return a file with more than 8 bits as an 8-bit image, on white."""
    values, opacity = _wide_values(path)
    if levels is None:
        found, _ = _find_levels([path])
        levels = found or Levels(0, 1)
    width = levels.high - levels.low
    shares = ((values - levels.low) / (width if width > 0 else 1)).clip(0, 1)
    if opacity is not None:
        shares = shares * opacity + 1 - opacity
    pixels = np.rint(255 * shares).astype(np.uint8)
    return Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))


# ---------------------------------------------------------------- one file


def read_image(path: str | Path, reading: Reading | None = None) -> NDArray[np.uint8]:
    """Read one image: (1, H, W) uint8 if its file is grey, else (3, H, W).

    It is turned upright as its EXIF orientation says. A file with a palette is grey if all colours
    in use are. Transparent pixels become white. An animation gives its first image.

    Args:
        path: the file.
        reading: the size and the levels of all images; default: the file's own size, and for more
            than 8 bits its lowest and highest value.

    Raises:
        OSError, and many other types: the file is damaged or no image.
    """
    reading = reading or Reading()
    with _opened(path) as image:
        if _is_wide(image):
            upright = _scaled(path, reading.levels)
            may_be_grey = False
        else:
            if reading.side is not None:
                image.draft(None, (DRAFT_SIDES * reading.side, DRAFT_SIDES * reading.side))
            may_be_grey = image.mode in ("1", "L", "LA", "La", "P", "PA")
            upright = _on_white(ImageOps.exif_transpose(image))

    if may_be_grey and upright.mode == "RGB" and _has_no_colour(upright):
        upright = upright.getchannel(0)
    if reading.side is not None:
        square = (reading.side, reading.side)
        upright = ImageOps.fit(upright, square, Image.Resampling.BICUBIC)
    pixels = np.asarray(upright)
    return pixels[None] if upright.mode == "L" else pixels.transpose(2, 0, 1)


def _has_no_colour(image: Image.Image) -> bool:
    pixels = np.asarray(image)
    return bool((pixels == pixels[..., :1]).all())


def _on_white(image: Image.Image) -> Image.Image:
    """Return an image in mode L or RGB, with white behind what is transparent."""
    if image.mode == "LAB":
        lab = ImageCms.createProfile("LAB")
        srgb = ImageCms.createProfile("sRGB")
        image = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB") or image
    if image.mode == "La":
        image = image.convert("LA")
    has_opacity = image.mode in ("RGBA", "RGBa", "LA", "PA") or "transparency" in image.info
    if has_opacity:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("L" if image.mode in ("1", "L") else "RGB")
