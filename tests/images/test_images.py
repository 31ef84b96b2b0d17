"""Image sets: bytes in memory, folder trees as people make them, and held-out images."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from images import emoji
from images.decoding import read_image
from images.sets import ImageSet, MNISTDataset, digits, held_out_images, make_images
from loader import ShuffledBatches, batches


def picture(path, value=0, mode="L", size=(6, 4), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path, **options)
    return path


@pytest.fixture
def tree(tmp_path):
    """Three classes of five images; every pixel of an image is 10 times its label plus its number."""
    for label, name in enumerate(["2", "9", "10"]):
        for i in range(5):
            picture(tmp_path / "tree" / name / f"{i}.png", 10 * label + i)
    return tmp_path / "tree"


def assert_refused(match, *args, error=ValueError, **options):
    """Reading a folder raises an error whose message matches and has one line."""
    with pytest.raises(error, match=match) as caught:
        MNISTDataset(*args, **options)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- image sets


def test_an_image_set_keeps_its_pixels_as_bytes():
    assert digits().pixels.dtype == torch.uint8


def test_an_image_set_knows_its_size_and_its_labels():
    data = digits()
    assert len(data) == 1797
    assert data.dims == (1, 8, 8)
    assert data.num_labels == 10


def test_an_image_set_has_no_exact_distribution():
    assert digits().mixture is None


def test_a_row_of_an_image_set_is_an_image_of_floats_and_a_label():
    image, label = digits()[3]
    assert image.dtype == torch.float32
    assert (image.shape, label.shape, label.dtype) == ((1, 8, 8), (), torch.int64)


def test_the_pixels_of_rows_reach_from_minus_1_to_1():
    everything, _ = digits()[:]
    assert (everything.min(), everything.max()) == (-1, 1)


def test_the_digits_of_scikit_learn_have_their_labels():
    _, labels = digits()[:]
    assert labels.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


@pytest.mark.parametrize(
    "index",
    [slice(2, 5), torch.tensor([2, 3, 4]), torch.arange(1797).sub(3).abs() < 2],
    ids=["slice", "numbers", "mask"],
)
def test_rows_are_the_same_however_they_are_asked_for(index):
    images, labels = digits()[index]
    assert images.shape == (3, 1, 8, 8)
    for row, i in enumerate((2, 3, 4)):
        assert torch.equal(images[row], digits()[i][0])
        assert labels[row] == digits()[i][1] == i  # The first ten digits of scikit-learn are 0 to 9.


def test_the_17_levels_of_digits_are_spread_over_the_bytes():
    assert digits().pixels.unique().tolist() == [round(255 * k / 16) for k in range(17)]


def test_rows_of_an_image_set_without_labels_are_images_alone():
    data = ImageSet(digits().pixels)
    assert [len(row) for row in (data[0], data[:3], data.subset(torch.arange(4))[0])] == [1, 1, 1]


def test_an_image_set_without_labels_has_none():
    assert ImageSet(digits().pixels).num_labels == 0


def test_pixels_must_be_bytes():
    with pytest.raises(ValueError, match="uint8"):
        ImageSet(torch.zeros(2, 1, 8, 8))


def test_a_data_loader_takes_image_sets_row_by_row():
    data = digits()
    images, labels = next(iter(DataLoader(data, batch_size=5)))
    assert torch.equal(images, data[:5][0])
    assert torch.equal(labels, data[:5][1])


def test_two_batches_of_a_data_loader_have_every_image_of_an_epoch():
    data = digits()
    stream = batches(DataLoader(data, sampler=ShuffledBatches(len(data), 1000, seed=0), batch_size=None))
    (first, first_labels), (second, second_labels) = next(stream), next(stream)
    assert (first.shape, second.shape) == ((1000, 1, 8, 8), (1000, 1, 8, 8))
    assert torch.equal(torch.cat([first_labels, second_labels[:797]]).bincount(), data.labels.bincount())
    assert torch.cat([first, second[:797]]).sum().isclose(data[:][0].sum())


# ---------------------------------------------------------------- sets by name


def test_an_equal_seed_chooses_equal_images():
    some = make_images("digits", n_samples=200, seed=1)
    assert len(some) == 200
    assert torch.equal(some.pixels, make_images("digits", n_samples=200, seed=1).pixels)


def test_another_seed_chooses_other_images():
    one, other = (make_images("digits", n_samples=200, seed=seed).pixels for seed in (1, 2))
    assert not torch.equal(one, other)


def test_images_are_chosen_without_replacement():
    # A few digits of scikit-learn are equal to each other.
    some = make_images("digits", n_samples=200, seed=1)
    assert len({image.numpy().tobytes() for image in some.pixels}) > 195


def some_of_a_tree(tree):
    """Two images of a folder for each of four seeds. Reading the damaged image would be an error."""
    (tree / "2" / "5.png").write_bytes(b"no image")
    options = {"root": tree, "on_bad_image": "error"}
    return [make_images("images", n_samples=2, seed=seed, **options) for seed in range(4)]


def test_only_the_chosen_images_of_a_folder_are_read(tree):
    assert all(torch.equal(data.pixels[:, 0, 0, 0] // 10, data.labels) for data in some_of_a_tree(tree))


def test_the_seed_chooses_images_of_a_folder(tree):
    assert len({tuple(data.pixels[:, 0, 0, 0].tolist()) for data in some_of_a_tree(tree)}) > 1


def whole_tree(tree):
    return make_images("images", n_samples=None, seed=0, root=str(tree), test_root=None, on_bad_image="skip")


def test_all_images_of_a_folder_have_their_labels(tree):
    data = whole_tree(tree)
    assert data.labels.bincount().tolist() == [5, 5, 5]
    assert torch.equal(data.pixels[:, 0, 0, 0] // 10, data.labels)


def test_the_first_rows_of_a_folder_are_of_several_classes(tree):
    assert len(whole_tree(tree).labels[:5].unique()) > 1


@pytest.mark.parametrize(
    ("name", "n", "options", "sentence"),
    [
        ("digit", 5, {}, "choose one of digits, mnist, emoji, images"),
        ("digits", 0, {}, "at least 1"),
        ("images", 5, {"root": None}, "needs dataset.root=DIR"),
        ("mnist", 5, {"on_bad_image": "ignore"}, "skip or error"),
    ],
)
def test_impossible_image_sets_are_refused(name, n, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        make_images(name, n_samples=n, seed=0, **options)


def test_without_an_emoji_font_a_sentence_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "NotoEmoji.ttf").write_text("no font")
    monkeypatch.setattr(emoji, "FOLDERS", (str(tmp_path),))
    monkeypatch.setenv("PATH", "")  # no fontconfig
    with pytest.raises(FileNotFoundError, match="install one, such as the package fonts-noto-color-emoji"):
        make_images("emoji", n_samples=10, seed=0)


@pytest.fixture
def emoji_font():
    try:
        return emoji.find_font()
    except FileNotFoundError:
        pytest.skip("no font of coloured emoji is installed")


def test_the_glyph_of_a_red_circle_is_red_in_the_middle(emoji_font):
    circle = np.asarray(emoji.glyph(emoji_font, 0x1F534))
    middle = slice(emoji.CANVAS // 2 - 5, emoji.CANVAS // 2 + 5)
    red, green, blue = circle[middle, middle].reshape(-1, 3).mean(0)
    assert red > 150 > 2 * max(green, blue) / 1.5


def test_the_glyph_of_a_face_has_a_white_corner(emoji_font):
    face = np.asarray(emoji.glyph(emoji_font, 0x1F600))
    assert (face[0, 0] == 255).all()


def test_the_classes_of_emoji_are_blocks_of_unicode(emoji_font):
    data = make_images("emoji", n_samples=300, seed=0)
    assert data.dims == (3, 32, 32)
    assert set(data.classes) <= {*emoji.BLOCKS}
    assert "Emoticons" in data.classes


def test_emoticons_are_mostly_yellow(emoji_font):
    data = make_images("emoji", n_samples=300, seed=0)
    faces = data.pixels[data.labels == data.classes.index("Emoticons")].float().mean((0, 2, 3))
    assert faces[0] > faces[1] > faces[2]


def test_mnist_that_was_never_prepared_says_how(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hint = "prepare_mnist.py --source FOLDER_OR_URL --out data/MNIST/mnist_images"
    with pytest.raises(FileNotFoundError, match=hint):
        make_images("mnist", n_samples=None, seed=0)


# ---------------------------------------------------------------- held out


def test_every_fifth_image_of_each_class_is_held_out():
    data = digits()
    _, unseen = held_out_images(data, "digits")
    shares = unseen.labels.bincount() / data.labels.bincount()
    assert (shares - 0.2).abs().max() < 0.01


def test_holding_out_loses_no_image():
    data = digits()
    train, unseen = held_out_images(data, "digits")
    assert len(train) + len(unseen) == len(data)
    together = torch.cat([train.pixels, unseen.pixels]).flatten(1).long()
    weights = torch.arange(1, 65)  # The weighted sum of its pixels tells an image from others.
    assert torch.equal((together @ weights).sort().values, (data.pixels.flatten(1).long() @ weights).sort().values)


def test_the_same_images_are_held_out_again():
    data = digits()
    assert torch.equal(held_out_images(data, "digits")[1].pixels, held_out_images(data, "digits")[1].pixels)


@pytest.mark.parametrize("n", [2, 3, 6])
def test_few_images_without_labels_can_be_held_out(n):
    train, unseen = held_out_images(ImageSet(digits().pixels[:n]), "digits")
    assert (len(train), len(unseen)) == (n - 1, 1)


def test_a_single_image_cannot_be_held_out():
    with pytest.raises(ValueError, match="one image"):
        held_out_images(digits(1), "digits")


@pytest.fixture
def sibling_folders(tree):
    """Beside the folder, the sibling `tree_test` with pixels of value 7, and the folder `elsewhere` with value 8."""
    for value, folder in ((7, tree.with_name("tree_test")), (8, tree.with_name("elsewhere"))):
        for name in ("2", "9", "10"):
            picture(folder / name / "0.png", value)


def test_without_a_test_folder_a_fifth_of_each_class_is_held_out(tree):
    data = make_images("images", n_samples=None, seed=0, root=tree)
    assert [len(part) for part in held_out_images(data, "images", root=tree)] == [12, 3]


def test_the_sibling_folder_is_the_test_folder(tree, sibling_folders):
    data = make_images("images", n_samples=None, seed=0, root=tree)
    train, unseen = held_out_images(data, "images", root=f"{tree}/")
    assert train is data
    assert unseen.pixels.unique().tolist() == [7]


def test_a_test_folder_can_be_named(tree, sibling_folders):
    data = make_images("images", n_samples=None, seed=0, root=tree)
    _, unseen = held_out_images(data, "images", root=tree, test_root=tree.with_name("elsewhere"))
    assert unseen.pixels.unique().tolist() == [8]


@pytest.mark.parametrize(
    ("names", "size", "sentence"),
    [(["2", "9"], (6, 4), "its classes are .*'2', '9'"), (["2", "9", "10"], (5, 4), r"\(1, 4, 5\), not \(1, 4, 6\)")],
)
def test_a_test_folder_of_another_kind_is_refused(tree, names, size, sentence):
    for name in names:
        picture(tree.with_name("test") / name / "0.png", size=size)
    with pytest.raises(ValueError, match=sentence):
        held_out_images(MNISTDataset(tree), "images", root=tree, test_root=tree.with_name("test"))


def test_a_missing_test_folder_is_refused(tree):
    with pytest.raises(FileNotFoundError, match="no folder nowhere"):
        held_out_images(MNISTDataset(tree), "images", root=tree, test_root="nowhere")


# ---------------------------------------------------------------- folder trees


def test_class_names_that_are_numbers_are_sorted_as_numbers(tree):
    assert MNISTDataset(tree).classes == ["2", "9", "10"]


def test_class_names_that_are_no_numbers_are_sorted_as_words(tmp_path):
    for name in ("dog", "10", "cat", "9"):
        picture(tmp_path / name / "a.png")
    assert MNISTDataset(tmp_path).classes == ["10", "9", "cat", "dog"]


def test_a_folder_is_read_class_by_class(tree):
    data = MNISTDataset(tree)
    assert data.labels.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert data.pixels[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 10, 11, 12, 13, 14, 20, 21, 22, 23, 24]


def test_images_of_a_folder_have_channel_height_and_width(tree):
    assert MNISTDataset(tree).dims == (1, 4, 6)


def test_reading_a_folder_of_images_prints_nothing(tree, capsys):
    MNISTDataset(tree)
    assert capsys.readouterr().out == ""


def test_other_files_are_ignored_and_counted(tree, capsys):
    (tree / "notes.txt").touch()
    picture(tree / "contact_sheet.png", size=(50, 50))
    (tree / "9" / "Thumbs.db").touch()
    (tree / "9" / "labels.csv").touch()
    (tree / "2" / ".DS_Store").touch()
    (tree / ".ipynb_checkpoints").mkdir()
    picture(tree / "10" / "more" / "0.png", 99)
    assert len(MNISTDataset(tree)) == 15
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    for what, example in (
        ("2 files outside the class folders", "contact_sheet.png"),
        ("2 files that are not images", "Thumbs.db"),
        ("2 hidden files or folders", ".ipynb_checkpoints"),
        ("1 folders inside class folders", "more"),
    ):
        assert any(what in line and example in line for line in lines), what


def test_a_missing_folder_is_refused(tmp_path):
    assert_refused(f"no folder {tmp_path}/none.*prepare_mnist.py", tmp_path / "none", error=FileNotFoundError)


def test_a_file_instead_of_a_folder_is_refused(tree):
    assert_refused("no folder", tree / "2" / "0.png", error=FileNotFoundError)


def test_a_folder_without_class_folders_is_refused(tree):
    assert_refused(r"2 holds no class folders.*2/0$", tree / "2")


def test_a_class_folder_without_images_is_refused(tree):
    (tree / "7").mkdir()
    (tree / "7" / "readme.txt").touch()
    assert_refused(r"tree/7 holds no images \(\.png", tree)


def test_grey_images_among_coloured_ones_are_refused(tree):
    picture(tree / "10" / "3.png", "red", "RGB")
    assert_refused(r"2/0\.png is grey but \S*10/3\.png is in colour; convert", tree)


def damage(path, how):
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "cut": whole[: len(whole) // 2], "text": b"<html>404</html>"}[how])


every_damage = pytest.mark.parametrize("how", ["empty", "cut", "text"])


@every_damage
def test_a_damaged_image_is_skipped(tree, how):
    damage(tree / "9" / "1.png", how)
    data = MNISTDataset(tree)
    assert data.labels.tolist() == [0] * 5 + [1] * 4 + [2] * 5
    assert data.pixels[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 10, 12, 13, 14, 20, 21, 22, 23, 24]


@every_damage
def test_a_skipped_image_is_named(tree, how, capsys):
    damage(tree / "9" / "1.png", how)
    MNISTDataset(tree)
    assert capsys.readouterr().out == f"skipped 1 damaged images: {tree}/9/1.png\n"


@every_damage
def test_a_damaged_image_can_be_an_error(tree, how):
    damage(tree / "9" / "1.png", how)
    assert_refused(r"9/1\.png is damaged \(.*on_bad_image=skip", tree, on_bad_image="error")


def test_a_class_of_damaged_images_is_refused(tree):
    for path in (tree / "9").iterdir():
        damage(path, "cut")
    assert_refused("tree/9 is damaged", tree)


def test_an_unknown_choice_for_damaged_images_is_refused(tree):
    assert_refused("skip or error, not 'no'", tree, on_bad_image="no")


# ---------------------------------------------------------------- kinds of image files


every_kind_of_file = pytest.mark.parametrize(
    ("name", "mode", "value", "pixel"),
    [
        ("a.png", "L", 7, [7]),
        ("a.PNG", "1", 1, [255]),
        ("a.png", "LA", (0, 0), [255]),
        ("a.png", "RGB", (1, 2, 3), [1, 2, 3]),
        ("a.png", "RGB", (9, 9, 9), [9, 9, 9]),
        ("a.png", "RGBA", (0, 0, 0, 0), [255, 255, 255]),
        ("a.png", "RGBA", (0, 100, 0, 255), [0, 100, 0]),
        ("a.bmp", "RGB", (1, 2, 3), [1, 2, 3]),
        ("a.gif", "L", 40, [40]),
        ("a.JPEG", "L", 40, [40]),
        ("a.jpg", "CMYK", (0, 0, 0, 255), [0, 0, 0]),
        ("a.webp", "RGB", (255, 255, 255), [255, 255, 255]),
    ],
)


@every_kind_of_file
def test_an_image_of_every_mode_and_format_is_read(tmp_path, name, mode, value, pixel):
    image = read_image(picture(tmp_path / "0" / name, value, mode))
    assert image.dtype == np.uint8
    assert image.shape == (len(pixel), 4, 6)
    assert image[:, 2, 2].tolist() == pixel


@every_kind_of_file
def test_the_extension_of_every_format_is_known(tmp_path, name, mode, value, pixel):
    picture(tmp_path / "0" / name, value, mode)
    assert len(MNISTDataset(tmp_path)) == 1


@pytest.mark.parametrize(("colour", "channels"), [((5, 5, 5), 1), ((5, 6, 5), 3)])
def test_a_palette_is_grey_when_its_colours_are(tmp_path, colour, channels):
    picture(tmp_path / "a.png", colour, "RGB")
    Image.open(tmp_path / "a.png").quantize(4).save(tmp_path / "b.png")
    image = read_image(tmp_path / "b.png")
    assert Image.open(tmp_path / "b.png").mode == "P"
    assert image[:, 0, 0].tolist() == list(colour[:channels])


def test_a_transparent_level_of_a_grey_image_is_white(tmp_path):
    assert read_image(picture(tmp_path / "a.png", 7, transparency=7))[:, 0, 0].tolist() == [255]
