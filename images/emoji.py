"""The glyphs of an emoji font that this machine has: a colour image set without a download."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIZE = 109  # of the bitmaps in Noto Color Emoji, the only size that it has
SIDE, CANVAS = 32, 136  # pixels of an image, and of what it is drawn on
FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.fonts", "~/.local/share/fonts")
BLOCKS = {  # of Unicode 16, those that hold emoji
    "Miscellaneous Symbols": range(0x2600, 0x2700),
    "Dingbats": range(0x2700, 0x27C0),
    "Miscellaneous Symbols and Pictographs": range(0x1F300, 0x1F600),
    "Emoticons": range(0x1F600, 0x1F650),
    "Transport and Map Symbols": range(0x1F680, 0x1F700),
    "Supplemental Symbols and Pictographs": range(0x1F900, 0x1FA00),
    "Symbols and Pictographs Extended-A": range(0x1FA70, 0x1FB00),
}


def find_font() -> ImageFont.FreeTypeFont:
    """An emoji font of colour bitmaps, by fontconfig or in the usual folders.

    Raises:
        FileNotFoundError: there is none.
    """
    found: list[str] = []
    if shutil.which("fc-list"):
        done = subprocess.run(["fc-list", ":color=true", "file"], capture_output=True, text=True, check=False)
        found = [line.strip().rstrip(":") for line in done.stdout.splitlines()]
    found += [str(path) for folder in FOLDERS for path in sorted(Path(folder).expanduser().rglob("*moji*.ttf"))]
    for path in sorted(found, key=lambda path: "NotoColorEmoji" not in path):
        try:
            font = ImageFont.truetype(path, SIZE)
            if _coloured(glyph(font, 0x1F600)):
                return font
        except OSError:  # a font of outlines, or of bitmaps of other sizes
            continue
    raise FileNotFoundError(
        "dataset=emoji found no font of coloured emoji: install one, such as the package fonts-noto-color-emoji"
    )


def glyph(font: ImageFont.FreeTypeFont, code: int) -> Image.Image:
    """A character in its colours on white, (CANVAS, CANVAS)."""
    page = Image.new("RGB", (CANVAS, CANVAS), "white")
    ImageDraw.Draw(page).text(
        (CANVAS // 2, CANVAS // 2), chr(code), font=font, embedded_color=True, fill="white", anchor="mm"
    )
    return page


def _coloured(page: Image.Image) -> bool:
    return bool((np.asarray(page) < 255).any())


def draw_glyphs() -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Pixels (N, 3, SIDE, SIDE) uint8 of all the glyphs in BLOCKS, labels (N,) int64, and the blocks that have any."""
    font, pixels, labels = find_font(), [], []
    for i, block in enumerate(BLOCKS.values()):
        for code in block:
            if _coloured(page := glyph(font, code)):  # a missing one is drawn white on white, or not at all
                small = page.resize((SIDE, SIDE), Image.Resampling.BOX)
                pixels.append(np.asarray(small).transpose(2, 0, 1))
                labels.append(i)
    present = sorted(set(labels))
    return np.stack(pixels), np.searchsorted(present, labels).astype(np.int64), [[*BLOCKS][i] for i in present]
