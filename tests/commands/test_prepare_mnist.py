"""scripts/prepare_mnist.py, with small files in place of MNIST's."""

import gzip
import hashlib
import socket
import struct
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest
from conftest import ROOT, command

sys.path.insert(0, str(ROOT / "scripts"))

import prepare_mnist
from prepare_mnist import fetch, prepare, read_idx, write_tree

from conf.groups import MNIST
from images import MNIST_ROOT
from images.sets import MNISTDataset, held_out_images

COUNTS = {"train": 30, "t10k": 20}


def idx(array):
    return struct.pack(f">HBB{array.ndim}i", 0, 8, array.ndim, *array.shape) + array.tobytes()


def small(count, seed):
    """Images (count, 28, 28) of noise, and labels that hold each digit."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 28, 28), np.uint8), rng.permutation(np.arange(count) % 10).astype(np.uint8)


TRAIN, TEST = small(30, 0), small(20, 1)


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A folder of idx files with the right names, and a script that takes them for the genuine ones."""
    folder = tmp_path / "source"
    folder.mkdir()
    files = dict(zip(prepare_mnist.SHA256, map(idx, (*TRAIN, *TEST))))
    for name, content in files.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))
    monkeypatch.setattr(prepare_mnist, "COUNTS", COUNTS)
    monkeypatch.setattr(prepare_mnist, "SHA256", {n: hashlib.sha256(c).hexdigest() for n, c in files.items()})
    return folder


def script(line, cwd):
    done = command(f"scripts/prepare_mnist.py {line}", cwd)
    assert done.stderr.count("\n") <= 1, done.stderr
    return done.returncode, done.stdout + done.stderr


def holds(folder, images, labels):
    """Whether that tree holds these images under their labels and indices, and nothing else."""
    order = labels.argsort(kind="stable")
    data = MNISTDataset(folder)
    names = [f"{i:05d}.png" for i in order]
    return (
        np.array_equal(data.pixels[:, 0], images[order])
        and np.array_equal(data.labels, labels[order])
        and [path.name for path in sorted(folder.glob("*/*"))] == names
    )


# ---------------------------------------------------------------- the whole way


def test_idx_files_become_a_tree_to_learn_from_and_one_that_is_held_out(source, tmp_path):
    out = tmp_path / "new" / "mnist"
    prepare(str(source), f"{out}/")
    assert holds(out, *TRAIN)
    assert holds(tmp_path / "new" / "mnist_test", *TEST)


def test_the_held_out_tree_is_found_beside_the_other(source, tmp_path):
    out = tmp_path / "mnist"
    prepare(str(source), out)
    data, unseen = held_out_images(MNISTDataset(out), "mnist", root=out)
    assert (len(data), len(unseen)) == (30, 20)


def test_the_script_says_how_many_images_it_has_written(source, tmp_path, capsys):
    prepare(str(source), tmp_path / "mnist")
    assert "30 images\n" in capsys.readouterr().out


def test_trees_that_are_complete_are_not_written_again(source, tmp_path, capsys):
    prepare(str(source), tmp_path / "mnist")
    capsys.readouterr()
    prepare("a source that is not even looked at", tmp_path / "mnist")
    assert capsys.readouterr().out.count("already complete") == 2


@pytest.mark.parametrize("spelling", ["{}", "{}.gz", "dotted", "dotted.gz"])
@pytest.mark.parametrize("as_url", [False, True])
def test_a_file_is_found_in_every_spelling_packed_or_not_in_a_folder_or_at_a_url(tmp_path, spelling, as_url):
    content, name = idx(TRAIN[1]), "train-labels-idx1-ubyte"
    file = tmp_path / spelling.replace("dotted", "train-labels.idx1-ubyte").format(name)
    file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)
    assert fetch(tmp_path.as_uri() if as_url else str(tmp_path), name) == content
    assert np.array_equal(read_idx(content), TRAIN[1])


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path):
    """A web server of the folder tmp_path, with its address in `url`."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path)) as server:
        server.url = f"http://127.0.0.1:{server.server_port}"
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_a_web_server_is_a_source(source, server, tmp_path):
    prepare(f"{server.url}/source/", tmp_path / "out")
    assert holds(tmp_path / "out", *TRAIN)


def test_a_web_server_that_lacks_the_files_is_named(server, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds neither train-images-idx3-ubyte nor train-images\.idx3"):
        prepare(server.url, tmp_path / "out")


def test_a_web_server_that_does_not_answer_is_named(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(OSError, match=r"could not be read from http.*refused"):
        prepare(f"http://127.0.0.1:{port}", tmp_path / "out")


# ---------------------------------------------------------------- interruptions


def test_an_interrupted_run_goes_on_and_keeps_the_images_that_are_there(tmp_path, monkeypatch):
    write = prepare_mnist._write
    written = []

    def interrupted(image, path):
        if len(written) == 11:
            raise KeyboardInterrupt
        written.append(path)
        write(image, path)

    monkeypatch.setattr(prepare_mnist, "_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_tree(*TRAIN, tmp_path)
    times = {path: path.stat().st_mtime_ns for path in written}
    monkeypatch.setattr(prepare_mnist, "_write", write)
    assert write_tree(*TRAIN, tmp_path) == 19
    assert times == {path: path.stat().st_mtime_ns for path in written}
    assert holds(tmp_path, *TRAIN)


def test_a_half_written_image_never_has_its_name(tmp_path, monkeypatch):
    def half(image, file, *_, **__):
        file.write_bytes(b"\x89PNG")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(prepare_mnist.Image.Image, "save", half)
        write_tree(*TRAIN, tmp_path)
    assert list(tmp_path.glob("*/[!.]*")) == []
    assert write_tree(*TRAIN, tmp_path) == 30
    assert holds(tmp_path, *TRAIN)
    assert list(tmp_path.glob("*/.*")) == []


def test_a_missing_image_is_written_again(source, tmp_path, capsys):
    prepare(str(source), tmp_path / "out")
    next((tmp_path / "out" / "3").iterdir()).unlink()
    capsys.readouterr()
    prepare(str(source), tmp_path / "out")
    assert capsys.readouterr().out.count("already complete") == 1
    assert holds(tmp_path / "out", *TRAIN)


# ---------------------------------------------------------------- mistakes


def test_other_images_in_out_are_not_mixed_with(source, tmp_path):
    prepare(str(source), tmp_path / "out")
    image = next((tmp_path / "out" / "3").iterdir())
    (tmp_path / "out" / "4" / image.name).write_bytes(image.read_bytes())
    with pytest.raises(ValueError, match=rf"already holds other images, such as 4/{image.name}; choose another"):
        prepare(str(source), tmp_path / "out")


def test_a_source_that_lacks_a_file_is_named_and_leaves_nothing(source, tmp_path):
    (source / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"source holds neither t10k-labels-idx1-ubyte nor t10k-labels\.idx1"):
        prepare(str(source), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("how", ["cut", "turned"])
def test_a_damaged_gzip_is_named_and_leaves_nothing(source, tmp_path, how):
    path = source / "train-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[:-500] if how == "cut" else whole[:300] + bytes(300) + whole[600:])
    with pytest.raises(
        ValueError, match=r"train-images-idx3-ubyte.gz is truncated or damaged \(.*\); download it again"
    ):
        prepare(str(source), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_refuses_what_is_not_mnist(source, tmp_path):
    code, words = script(f"--source {source}", tmp_path)
    assert code == 1
    assert words.startswith("train-images-idx3-ubyte is not MNIST's: its sha256 is ")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("source", ["nowhere", "file:///nowhere"])
def test_the_command_refuses_a_source_that_is_not_there(tmp_path, source):
    code, words = script(f"--source {source}", tmp_path)
    assert code == 1
    assert words.startswith(f"{source} holds neither train-images-idx3-ubyte nor ")


def test_an_unknown_kind_of_url_is_refused(tmp_path):
    with pytest.raises(OSError, match="could not be read from gopher://x: unknown url type"):
        prepare("gopher://x", tmp_path)


def test_a_folder_that_cannot_be_written_is_named(source, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"file/out cannot be written: Not a directory$"):
        prepare(str(source), tmp_path / "file" / "out")


def test_help_names_a_default_that_is_where_mnist_is_looked_for(tmp_path):
    code, words = script("--help", tmp_path)
    assert code == 0
    assert f"default: {MNIST_ROOT}" in " ".join(words.split())


def test_the_option_of_mnist_has_the_same_default():
    assert MNIST().root == MNIST_ROOT  # conf imports nothing of ours, so it repeats the folder
