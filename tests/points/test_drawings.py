"""Texts in any script, fonts, and pictures of any shape."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from matplotlib import get_data_path
from PIL import Image

from points import drawings
from points.fonts import find_face, missing_letters, sized_font

FONTS = Path(get_data_path(), "fonts", "ttf")
SERIF = str(FONTS / "DejaVuSerif.ttf")
SYMBOLS = str(FONTS / "cmsy10.ttf")  # mathematical symbols, and no letters


def centres(text, font=None):
    return drawings.text(1.0, text, font)[0].centres.numpy()


@pytest.mark.parametrize("text", ["HELLO", "café", "cafe\u0301", "Ελλάδα", "Москва", "مرحبا", "x\u200by", "½ €"])
def test_a_text_in_any_script_of_the_default_font_is_drawn(text):
    assert 100 < len(centres(text)) <= drawings.MAX_PIXELS


def test_an_accent_is_drawn_above_its_letter():
    plain, accented = centres("cafe"), centres("café")
    assert len(accented) > len(plain)


def test_both_spellings_of_an_accent_are_drawn_alike():
    assert centres("café").tolist() == centres("cafe\u0301").tolist()


def test_a_line_break_begins_a_line_below():
    assert np.ptp(centres("a\nb")[:, 1]) > np.ptp(centres("ab")[:, 1]) + 0.5


def test_a_font_file_changes_the_drawing():
    assert centres("HELLO", SERIF).shape != centres("HELLO").shape


@pytest.mark.parametrize(("text", "missing"), [("中文 A 中", ["中", "文"]), ("HELLO", []), ("a\u200d\ufe0f", [])])
def test_letters_that_a_font_lacks_are_found_once_each(text, missing):
    assert missing_letters(text, sized_font(find_face(None), 48)) == missing


@pytest.mark.parametrize(
    ("text", "font", "sentence"),
    [
        ("中文", None, r"the font DejaVu Sans has no 中 文; set dataset\.font= to a font that has them"),
        ("été", SYMBOLS, r"has no é; set dataset\.font="),
        ("\u200b", None, "no letter that can be drawn"),
        ("x", "no such font", "dataset.font=no such font is neither a file nor an installed font"),
        ("x", "-v", "dataset.font=-v is neither a file nor"),
        ("x", "", "dataset.font= is neither a file nor"),
        ("x", "a\0b", "is neither a file nor"),
        ("x", __file__, "is not a font that can be read"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_sentence(text, font, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        drawings.text(1.0, text, font)
    assert "\n" not in str(caught.value)


def test_the_sentence_about_missing_letters_names_an_installed_font_that_has_them():
    if not shutil.which("fc-list"):
        pytest.skip("fontconfig is not installed")
    has_e = subprocess.run(["fc-list", ":charset=e9", "family"], capture_output=True, text=True, check=True).stdout
    if not has_e.strip():
        pytest.skip("no installed font has é")
    with pytest.raises(ValueError, match=r"such as dataset\.font='.+'$") as caught:
        centres("é", SYMBOLS)
    family = str(caught.value).split("'")[-2]
    assert len(centres("é", family)) > 100


# ---------------------------------------------------------------- pictures


def picture(path, pixels):
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return drawings.picture(1.0, str(path))[0]


@pytest.mark.parametrize("size", [(20_000, 3), (3, 20_000), (20_000, 1), (1, 5000), (300, 300)])
def test_a_picture_of_any_shape_is_reduced(tmp_path, size):
    mixture = picture(tmp_path / "a.png", np.zeros(size))
    assert 3000 < len(mixture.centres) <= drawings.MAX_PIXELS


def test_a_reduced_picture_keeps_its_shape(tmp_path):
    width, height = np.ptp(picture(tmp_path / "a.png", np.zeros((900, 300))).centres.numpy(), 0)
    assert height / width == pytest.approx(3, rel=0.05)
