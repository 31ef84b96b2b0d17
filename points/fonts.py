"""Fonts for drawn texts: the font that comes with matplotlib, a file, or an installed family."""

import math
import shutil
import subprocess
import unicodedata
from pathlib import Path
from typing import NamedTuple

from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont

DEFAULT_FONT = "DejaVuSans.ttf"  # in matplotlib's folder of fonts
BITMAP_SIZES = (109, 136, 128, 96, 64, 32)  # pixels; emoji fonts hold bitmaps of a single size
MISSING_LETTER = "\U0010ffff"  # no font has it, so it is drawn as the font's replacement glyph
MAX_NAMED = 10  # letters that a sentence names
INVISIBLE = ("Cc", "Cf")  # categories of Unicode: control characters, joiners
VARIATION_SELECTORS = range(0xFE00, 0xFE10)


class Face(NamedTuple):
    """A face in a font file; index: which of the faces of a collection."""

    path: str
    index: int = 0


def find_face(font: str | None) -> Face:
    """Return the face that `dataset.font` names.

    Args:
        font: a file, or a family that fontconfig finds, such as "Noto Sans"; None: DejaVu Sans.

    Raises:
        ValueError: no such file or family, or a file that is no font.
    """
    if font is None:
        return Face(str(Path(get_data_path(), "fonts", "ttf", DEFAULT_FONT)))
    if not Path(font).is_file():
        return _installed_face(font)
    face = Face(font)
    try:
        sized_font(face, 48)
    except OSError as error:
        raise ValueError(f"dataset.font={font} is not a font that can be read: {error}") from error
    return face


def _installed_face(family: str) -> Face:
    """Ask fontconfig for a family. Its nearest match counts only if it has that name."""
    rule = "name a font file, or a family that `fc-list : family` lists"
    answer = _fontconfig("fc-match", "--format", "%{file}\n%{index}\n%{family}", "--", family)
    path, index, families = [*answer.splitlines(), "", "", ""][:3]
    asked = family.split(":")[0].strip().lower()
    known = [name.strip().lower() for name in families.split(",")]
    if not asked or asked not in known:
        raise ValueError(f"dataset.font={family} is neither a file nor an installed font: {rule}")
    return Face(path, int(index) % 2**16)  # the upper bits number instances of a variable font


def _fontconfig(program: str, *arguments: str) -> str:
    """Return what a program of fontconfig prints; "" where it is not installed or fails."""
    if not shutil.which(program):
        return ""
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False, timeout=30)
    except (OSError, ValueError, subprocess.TimeoutExpired):  # such as a name with a null byte
        return ""
    return done.stdout if done.returncode == 0 else ""


def sized_font(face: Face, size: int) -> ImageFont.FreeTypeFont:
    """Return a face in pixels of that size, or in the only size of a font of bitmaps.

    Raises:
        OSError: the file is no font.
    """
    try:
        return ImageFont.truetype(face.path, size, face.index)
    except OSError as error:
        if "pixel size" not in str(error):
            raise
    for bitmap_size in BITMAP_SIZES:
        try:
            return ImageFont.truetype(face.path, bitmap_size, face.index)
        except OSError:
            continue
    raise OSError("it holds bitmaps of an unknown size")


def missing_letters(text: str, font: ImageFont.FreeTypeFont) -> list[str]:
    """Return the distinct letters of a text that a font does not have, in their order."""
    replacement = _drawn(MISSING_LETTER, font)
    missing = []
    for letter in dict.fromkeys(text):
        if letter.isspace() or is_invisible(letter):
            continue
        drawn = _drawn(letter, font)
        if not any(drawn) or drawn == replacement:
            missing.append(letter)
    return missing


def is_invisible(letter: str) -> bool:
    """Tell whether a letter only changes its neighbours, so that a font need not have it."""
    is_selector = ord(letter) in VARIATION_SELECTORS
    return is_selector or unicodedata.category(letter) in INVISIBLE


def _drawn(letter: str, font: ImageFont.FreeTypeFont) -> bytes:
    left, top, right, bottom = font.getbbox(letter)
    size = (max(1, math.ceil(right - left)), max(1, math.ceil(bottom - top)))
    page = Image.new("L", size)
    ImageDraw.Draw(page).text((-left, -top), letter, fill=255, font=font)
    return page.tobytes()


def missing_sentence(missing: list[str], font: ImageFont.FreeTypeFont) -> str:
    """Say which letters a font lacks, and which installed font has them."""
    named = " ".join(missing[:MAX_NAMED])
    if len(missing) > MAX_NAMED:
        named += " ..."
    advice = "set dataset.font= to a font that has them, a file or an installed family"
    charset = " ".join(f"{ord(letter):x}" for letter in missing)
    families = _fontconfig("fc-list", f":charset={charset}", "family").splitlines()
    if families:
        family = min(sorted(families), key=len).split(",")[0]
        advice += f", such as dataset.font='{family}'"
    return f"dataset.text cannot be drawn: the font {font.getname()[0]} has no {named}; {advice}"
