"""Image files of every mode, orientation and depth, and the one size and one scale of a folder."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from images.decoding import DEFAULT_SIDE, LARGE_SIDE, Levels, Reading, plan_reading, read_image
from images.sets import MNISTDataset, held_out_images, make_images

LOSSY = 12  # levels by which JPEG and WebP may change an even colour


def saved(path, image, **options):
    """Save an image, a Pillow image or an array, and make its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(path, **options)
    return path


# ---------------------------------------------------------------- modes

FORMATS = ("png", "tif", "jpg", "gif", "webp", "bmp", "pgm")
# A colour in each mode of at most 8 bits, the same in grey or RGB, and the formats that hold the mode.
MODES = {
    "1": (1, [255], "png tif jpg gif webp bmp pgm"),
    "L": (70, [70], "png tif jpg gif webp bmp pgm"),
    "LA": ((0, 0), [255], "png tif webp"),
    "P": (3, [9, 60, 200], "png tif gif webp"),
    "PA": ((3, 0), [255], "tif webp"),
    "RGB": ((9, 60, 200), [9, 60, 200], "png tif jpg gif webp bmp pgm"),
    "RGBA": ((0, 100, 0, 255), [0, 100, 0], "png tif gif webp"),
    "RGBa": ((0, 0, 0, 0), [255, 255, 255], "webp"),
    "RGBX": ((9, 60, 200, 0), [9, 60, 200], "tif jpg webp"),
    "CMYK": ((0, 0, 0, 155), [100, 100, 100], "tif jpg webp"),
    "YCbCr": ((100, 128, 128), [100, 100, 100], "tif jpg webp"),
    "HSV": ((0, 255, 255), [255, 0, 0], "webp"),
    "LAB": ((128, 128, 128), [119, 119, 119], "tif webp"),
}


def in_mode(mode, value):
    image = Image.new(mode, (6, 4), value)
    if mode in ("P", "PA"):
        image.putpalette([0] * 9 + [9, 60, 200])
    return image


@pytest.mark.parametrize(("mode", "kind"), [(mode, kind) for mode, row in MODES.items() for kind in row[2].split()])
def test_a_file_of_every_mode_shows_its_colour(tmp_path, mode, kind):
    value, colour, _ = MODES[mode]
    pixels = read_image(saved(tmp_path / f"a.{kind}", in_mode(mode, value)))
    assert pixels.dtype == np.uint8 and pixels.shape[1:] == (4, 6)
    assert pixels.shape[0] in (len(colour), 3)  # WebP and GIF may hold grey as colours
    expected = np.broadcast_to(np.array(colour), 3) if len(pixels) == 3 else colour
    tolerance = LOSSY if kind in ("jpg", "webp") else 2
    assert np.abs(pixels[:, 2, 2].astype(int) - expected).max() <= tolerance


def test_every_mode_that_a_format_holds_is_in_the_table(tmp_path):
    held = set()
    for mode in MODES:
        for kind in FORMATS:
            try:
                saved(tmp_path / f"a.{kind}", in_mode(mode, MODES[mode][0]))
            except (OSError, ValueError, KeyError):
                continue
            held.add((mode, kind))
    listed = {(mode, kind) for mode, row in MODES.items() for kind in row[2].split()}
    assert listed <= held


# ---------------------------------------------------------------- more than 8 bits

RAMP = np.linspace(0, 1, 24).reshape(4, 6)
WIDE = {
    "I;16 png": ("png", np.uint16, 4095),
    "I;16 tif": ("tif", np.uint16, 300),
    "I tif": ("tif", np.int32, 70_000),
    "F tif": ("tif", np.float32, 1.0),
    "F tif, small": ("tif", np.float32, 1e-5),
}


def wide(path, kind, top, low=0.0):
    dtype = WIDE[kind][1]
    values = low + RAMP * (top - low)
    return saved(path, values.astype(dtype) if dtype == np.float32 else np.rint(values).astype(dtype))


@pytest.mark.parametrize("kind", WIDE)
def test_a_file_of_more_than_8_bits_is_not_black(tmp_path, kind):
    path = wide(tmp_path / f"a.{WIDE[kind][0]}", kind, WIDE[kind][2])
    assert Image.open(path).mode[0] in "IF"
    assert np.abs(read_image(path)[0] - 255 * RAMP).max() <= 1


def test_16_bits_in_the_other_order_of_bytes_are_read(tmp_path):
    big = Image.fromarray(np.rint(RAMP * 4095).astype(">u2"))
    path = saved(tmp_path / "a.tif", big)
    assert Image.open(path).mode == "I;16B"
    assert np.abs(read_image(path)[0] - 255 * RAMP).max() <= 1


@pytest.mark.parametrize("kind", WIDE)
def test_all_files_of_a_folder_have_one_scale(tmp_path, kind):
    suffix, _, top = WIDE[kind]
    dark = wide(tmp_path / "0" / f"dark.{suffix}", kind, top / 2)
    bright = wide(tmp_path / "0" / f"bright.{suffix}", kind, top)
    reading = plan_reading([dark, bright])
    assert reading.levels == pytest.approx(Levels(0, top), rel=1e-6)
    assert read_image(dark, reading).max() == pytest.approx(127.5, abs=1)
    assert read_image(bright, reading).max() == 255


def test_a_folder_of_more_than_8_bits_says_its_scale(tmp_path, capsys):
    for i in (0, 1):
        wide(tmp_path / str(i) / "a.png", "I;16 png", 1000 * (i + 1))
    data = MNISTDataset(tmp_path)
    assert capsys.readouterr().out == (
        "scaled 2 images of more than 8 bits from 0 (black) to 2000 (white), their lowest and highest value\n"
    )
    assert data.pixels[1].max() == 255


def test_a_part_of_a_folder_has_the_scale_of_the_whole(tmp_path):
    for i in (0, 1):
        wide(tmp_path / str(i) / "a.png", "I;16 png", 1000 * (i + 1))
    highest = [make_images("images", n_samples=1, seed=seed, root=tmp_path).pixels.max() for seed in range(8)]
    assert {int(value) for value in highest} == {128, 255}


def test_held_out_images_have_the_scale_of_the_training(tmp_path):
    for folder, top in (("a", 1000), ("a_test", 500)):
        for label in "01":
            wide(tmp_path / folder / label / "a.png", "I;16 png", top)
    root = str(tmp_path / "a")
    _, unseen = held_out_images(make_images("images", n_samples=None, seed=0, root=root), "images", root=root)
    assert int(unseen.pixels.max()) in (127, 128)


def test_a_scale_that_files_declare_is_used(tmp_path):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[340], tags[341] = 0, 4095  # SMinSampleValue, SMaxSampleValue
    path = saved(tmp_path / "a.tif", np.full((4, 6), 2048, np.uint16), tiffinfo=tags)
    reading = plan_reading([path])
    assert reading.levels == Levels(0, 4095)
    assert reading.lines[0].endswith("from 0 (black) to 4095 (white), as their files declare")
    assert read_image(path, reading)[0, 0, 0] == 128


def png_of_16_bits(path, values):
    """Write colours (H, W, 3 or 4) of 16 bits, which Pillow cannot write."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    whole = b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + whole)
    return path


def test_colours_of_16_bits_are_not_black(tmp_path):
    colours = np.stack([RAMP, RAMP / 2, 0 * RAMP], 2)
    pixels = read_image(png_of_16_bits(tmp_path / "a.png", np.rint(200 * colours)))
    assert np.abs(pixels.transpose(1, 2, 0) - 255 * colours).max() <= 1


def test_transparent_colours_of_16_bits_are_white(tmp_path):
    colours = np.stack([RAMP, RAMP, RAMP, RAMP > 0.5], 2) * 65535
    pixels = read_image(png_of_16_bits(tmp_path / "a.png", np.rint(colours)))
    assert (pixels[:, RAMP <= 0.5] == 255).all()
    assert np.abs(pixels[0, RAMP > 0.5] - 255 * RAMP[RAMP > 0.5]).max() <= 1


def test_an_image_with_values_that_are_not_finite_is_damaged(tmp_path, capsys):
    values = RAMP.astype(np.float32)
    saved(tmp_path / "0" / "a.tif", values)
    saved(tmp_path / "0" / "b.tif", np.where(RAMP > 0.5, np.nan, values).astype(np.float32))
    assert len(MNISTDataset(tmp_path)) == 1
    assert "skipped 1 damaged images" in capsys.readouterr().out


@pytest.mark.parametrize(("mode", "value"), [("L", 7), ("I;16", 300), ("F", 0.5), ("RGB", (4, 4, 4))])
def test_a_constant_set_is_refused(tmp_path, mode, value):
    for name in "ab":
        saved(tmp_path / "0" / f"{name}.tif", Image.new(mode, (6, 4), value))
    with pytest.raises(ValueError, match=r"every pixel of the 2 images in .* has the same value") as caught:
        make_images("images", n_samples=None, seed=0, root=str(tmp_path))
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- orientation

UPRIGHT = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10
# What a camera stores, so that EXIF's instruction makes it upright again.
STORED = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: np.transpose,
    6: np.rot90,
    7: lambda a: np.rot90(a, 2).T,
    8: lambda a: np.rot90(a, -1),
}


def turned(path, pixels, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    quality = {"quality": 100} if path.suffix == ".jpg" else {}
    return saved(path, np.ascontiguousarray(STORED[orientation](pixels)), exif=exif, **quality)


@pytest.mark.parametrize("kind", ["png", "jpg", "tif"])
@pytest.mark.parametrize("orientation", STORED)
def test_an_image_is_turned_upright(tmp_path, kind, orientation):
    pixels = read_image(turned(tmp_path / f"a.{kind}", UPRIGHT, orientation))
    assert pixels.shape == (1, 4, 6)
    assert np.abs(pixels[0].astype(int) - UPRIGHT).max() <= (3 if kind == "jpg" else 0)


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_an_image_of_more_than_8_bits_is_turned_upright(tmp_path, orientation, dtype):
    pixels = read_image(turned(tmp_path / "a.tif", UPRIGHT.astype(dtype), orientation))
    assert np.abs(pixels[0] - UPRIGHT * (255 / 230)).max() <= 1


@pytest.mark.parametrize("kind", ["png", "jpg", "tif"])
def test_turned_images_of_one_upright_size_keep_it(tmp_path, kind):
    paths = [turned(tmp_path / f"{i}.{kind}", UPRIGHT, i) for i in STORED]
    reading = plan_reading(paths)
    assert reading.side is None
    assert reading.lines == ("turned 7 images upright, as their EXIF orientation says",)


# ---------------------------------------------------------------- size


@pytest.mark.parametrize(
    ("sizes", "size", "side"),
    [
        ([(6, 4), (6, 4)], None, None),
        ([(6, 4), (4, 6)], None, DEFAULT_SIDE),
        ([(LARGE_SIDE, 9)], None, None),
        ([(LARGE_SIDE + 1, 9)], None, DEFAULT_SIDE),
        ([(6, 4), (4, 6)], 8, 8),
        ([(8, 8)], 8, None),
    ],
)
def test_the_size_of_a_folder(tmp_path, sizes, size, side):
    paths = [saved(tmp_path / f"{i}.png", Image.new("L", each)) for i, each in enumerate(sizes)]
    assert plan_reading(paths, size).side == side


def test_resized_images_are_announced_with_the_option(tmp_path):
    paths = [saved(tmp_path / f"{w}.png", Image.new("L", (w, 5))) for w in (9, 7)]
    line = "images of 7x5 pixels to 9x5 are resized and cropped to 32x32; dataset.size=N takes another size"
    assert plan_reading(paths).lines == (line,)


@pytest.mark.parametrize("kind", ["png", "jpg", "tif"])
def test_a_resized_image_is_the_middle_of_its_file(tmp_path, kind):
    # Left third white, middle third a ramp from top to bottom, right third white.
    middle = np.tile(np.linspace(0, 250, 300)[:, None], (1, 300))
    page = np.concatenate([np.full((300, 300), 255), middle, np.full((300, 300), 255)], 1).astype(np.uint8)
    pixels = read_image(saved(tmp_path / f"a.{kind}", page), Reading(side=10))
    expected = middle.reshape(10, 30, 10, 30).mean((1, 3))
    assert np.abs(pixels[0, :, 1:9] - expected[:, 1:9]).max() <= 6


def test_a_folder_of_mixed_sizes_is_read_and_held_out_images_have_its_size(tmp_path):
    rng = np.random.default_rng(0)
    for folder, sizes in (("a", [(40, 50), (50, 40)]), ("a_test", [(64, 64), (64, 64)])):
        for i, size in enumerate(sizes):
            saved(tmp_path / folder / str(i) / "0.jpg", rng.integers(256, size=(*size, 3)).astype(np.uint8))
    root = str(tmp_path / "a")
    data, unseen = held_out_images(make_images("images", n_samples=None, seed=0, root=root), "images", root=root)
    assert data.dims == unseen.dims == (3, DEFAULT_SIDE, DEFAULT_SIDE)
