"""The glyphs of an installed emoji font: a set of colour images without a download."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

FONT_SIZE = 109  # pixels of the bitmaps in Noto Color Emoji, the only size that it has
CANVAS = 136  # side in pixels of the page on which a glyph is drawn
IMAGE_SIDE = 32  # side in pixels of an image of the set
GRINNING_FACE = 0x1F600  # in every emoji font

FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.fonts", "~/.local/share/fonts")
# The blocks of Unicode 16 that contain emoji.
BLOCKS = {
    "Miscellaneous Symbols": range(0x2600, 0x2700),
    "Dingbats": range(0x2700, 0x27C0),
    "Miscellaneous Symbols and Pictographs": range(0x1F300, 0x1F600),
    "Emoticons": range(0x1F600, 0x1F650),
    "Transport and Map Symbols": range(0x1F680, 0x1F700),
    "Supplemental Symbols and Pictographs": range(0x1F900, 0x1FA00),
    "Symbols and Pictographs Extended-A": range(0x1FA70, 0x1FB00),
}


def find_font() -> ImageFont.FreeTypeFont:
    """Return an installed emoji font with colour bitmaps; Noto Color Emoji if there is a choice.

    Fontconfig and the usual folders are searched.

    Raises:
        FileNotFoundError: there is none.
    """
    candidates = _fonts_of_fontconfig() + _fonts_in_folders()
    for path in sorted(candidates, key=lambda path: "NotoColorEmoji" not in path):
        try:
            font = ImageFont.truetype(path, FONT_SIZE)
            if _is_drawn(glyph(font, GRINNING_FACE)):
                return font
        except OSError:  # a font of outlines, or of bitmaps of other sizes
            continue
    advice = "install one, such as the package fonts-noto-color-emoji"
    raise FileNotFoundError(f"dataset=emoji found no font of coloured emoji: {advice}")


def _fonts_of_fontconfig() -> list[str]:
    if not shutil.which("fc-list"):
        return []
    command = ["fc-list", ":color=true", "file"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return [line.strip().rstrip(":") for line in done.stdout.splitlines()]


def _fonts_in_folders() -> list[str]:
    found = []
    for folder in FOLDERS:
        paths = Path(folder).expanduser().rglob("*moji*.ttf")
        found += [str(path) for path in sorted(paths)]
    return found


def glyph(font: ImageFont.FreeTypeFont, code: int) -> Image.Image:
    """Draw the character of that code point in its colours on white, (CANVAS, CANVAS) pixels.

    A character that the font does not have is drawn in white, or not at all.
    """
    page = Image.new("RGB", (CANVAS, CANVAS), "white")
    middle = (CANVAS // 2, CANVAS // 2)
    draw = ImageDraw.Draw(page)
    draw.text(middle, chr(code), font=font, embedded_color=True, fill="white", anchor="mm")
    return page


def _is_drawn(page: Image.Image) -> bool:
    return bool((np.asarray(page) < 255).any())


def draw_glyphs() -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Draw all the glyphs of an installed font that are in BLOCKS.

    Returns:
        Pixels (N, 3, IMAGE_SIDE, IMAGE_SIDE) uint8, labels (N,) int64, and the names of the labels:
        the blocks that have any glyphs.

    Raises:
        FileNotFoundError: there is no emoji font.
    """
    font = find_font()
    pixels = []
    block_indices = []
    for i, block in enumerate(BLOCKS.values()):
        for code in block:
            page = glyph(font, code)
            if _is_drawn(page):
                small = page.resize((IMAGE_SIDE, IMAGE_SIDE), Image.Resampling.BOX)
                pixels.append(np.asarray(small).transpose(2, 0, 1))
                block_indices.append(i)

    present = sorted(set(block_indices))
    labels = np.searchsorted(present, block_indices).astype(np.int64)
    block_names = list(BLOCKS)
    return np.stack(pixels), labels, [block_names[i] for i in present]
