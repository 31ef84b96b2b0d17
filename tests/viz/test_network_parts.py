"""scripts/visualize_components.py: pictures of the parts of a network, and its answers to mistakes."""

import contextlib
import io
import re
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, command, not_blank
from PIL import Image
from torch.optim.swa_utils import AveragedModel

sys.path.insert(0, str(ROOT / "scripts"))

import visualize_components

from images import MNIST_ROOT
from pipeline import build
from runtime import checkpoint_file
from viz.network_parts import stirred

NETWORKS = [
    *[f"{name}_head{head}.png" for name in ("mhsa", "mhca") for head in (0, 1)],
    *["downsample_block_channel0.png", "bottleneck_channel0.png", "upsample_block_channel0.png", "unet_io.png"],
]
TIME = ["time_embedding_heatmap.png", "time_embedding_first64.png"]
MNIST = ["mnist_grid.png", "mnist_label_hist.png"]
MODEL = {"channels": [8, 16], "blocks": 1, "patch": 1, "heads": 2, "attention_size": 8, "conditioning": "embedding"}


def make_digits(folder):
    """Make a folder like that of MNIST, with three digits and a file that does not belong there."""
    rng = np.random.default_rng(0)
    for label, count in (("0", 3), ("1", 5), ("7", 4)):
        (folder / label).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (28, 28), np.uint8)).save(folder / label / f"{i}.png")
    (folder / "notes.txt").write_text("hello")
    return folder


def save_checkpoint(path, *, dims=(1, 8, 8), classes=10, name="unet_small", dataset="digits", **model):
    """Save the checkpoint of an untrained network whose output is not zero."""
    model = {"name": name, "prediction": "v", **({**MODEL, **model} if "unet" in name else model)}
    process = {"schedule": "cosine", "num_timesteps": 40, "beta_start": None, "beta_end": None}
    config = {**process, "model": model, "dataset": {"name": dataset}, "seed": 0, "num_samples": None}
    torch.manual_seed(0)
    net, _ = build(config, dims, classes)
    normaliser = {"mean": torch.zeros(dims), "std": torch.ones(dims)}
    state = {"config": config, "normaliser": normaliser, "classes": [str(i) for i in range(classes)]}
    checkpoint_file.save(path, {**state, "ema": AveragedModel(stirred(net)).state_dict()})
    return path


def run_script(line, monkeypatch):
    """Run the script in this process. A process of its own would first load torch for seconds."""
    monkeypatch.setattr(sys, "argv", ["visualize_components.py", *line.split()])
    visualize_components.main()


# ---------------------------------------------------------------- the command


EVERY_FILE = [*TIME, *NETWORKS, *MNIST]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The command with a folder of digits where it looks for them, and its folder of pictures."""
    folder = tmp_path_factory.mktemp("components")
    make_digits(folder / MNIST_ROOT)
    done = command("scripts/visualize_components.py --device cpu", folder)
    assert done.returncode == 0, done.stderr
    return done, folder / "artifacts"


@pytest.mark.slow
def test_the_command_prints_no_warning(drawn):
    done, _ = drawn
    assert done.stderr == ""


@pytest.mark.slow
def test_the_command_writes_every_picture(drawn):
    _, artifacts = drawn
    assert sorted(p.name for p in artifacts.iterdir()) == sorted(EVERY_FILE)


@pytest.mark.slow
def test_the_command_names_every_picture_in_order(drawn):
    done, _ = drawn
    named = [line for line in done.stdout.splitlines() if "ignored" not in line]
    assert named == [f"artifacts/{name}" for name in EVERY_FILE]


@pytest.mark.slow
def test_the_command_says_once_what_it_ignores(drawn):
    done, _ = drawn
    assert done.stdout.count("ignored 1 files outside the class folders") == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY_FILE)
def test_no_picture_of_the_command_is_blank(drawn, name):
    _, artifacts = drawn
    assert not_blank(artifacts / name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mhsa", "mhca"])
def test_the_pictures_of_two_heads_differ(drawn, name):
    _, artifacts = drawn
    one, other = ((artifacts / f"{name}_head{head}.png").read_bytes() for head in (0, 1))
    assert one != other


# ---------------------------------------------------------------- the parts of a trained network


@pytest.mark.slow
def test_a_trained_network_is_drawn_from_its_run_folder(tmp_path, monkeypatch, capsys):
    (tmp_path / "run").mkdir()
    save_checkpoint(tmp_path / "run" / "mine.pt", conditioning="cross_attention")
    line = f"--checkpoint {tmp_path / 'run'} --skip time mnist down bottleneck --outdir {tmp_path / 'a'}"
    run_script(line, monkeypatch)
    files = [tmp_path / "a" / name for name in NETWORKS if name.split("_")[0] not in ("downsample", "bottleneck")]
    assert capsys.readouterr().out.splitlines() == [str(path) for path in files]
    assert all(not_blank(path) for path in files)


def parts_of(path, names=None):
    """The parts of the network of a checkpoint, with their inputs."""
    names = names or list(visualize_components.NETWORK_PARTS)
    return visualize_components.network_parts(names, torch.device("cpu"), path)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """The parts of a network with cross-attention."""
    path = tmp_path_factory.mktemp("parts") / "a.pt"
    return parts_of(save_checkpoint(path, conditioning="cross_attention"))


def test_a_trained_network_has_every_part(parts):
    assert list(parts) == list(visualize_components.NETWORK_PARTS)


def test_titles_of_trained_parts_name_the_label(parts):
    assert all(part.origin.startswith("trained weights, label") for part in parts.values())


@pytest.mark.parametrize(("name", "shape"), [("mhsa", (2, 16, 16)), ("mhca", (2, 16, 5))])
def test_weights_of_attention_have_heads_queries_and_keys(parts, name, shape):
    assert parts[name].weights().shape == shape


@pytest.mark.parametrize(("name", "following"), [("down", "bottleneck"), ("bottleneck", "upsample")])
def test_the_output_of_a_trained_part_is_the_input_of_the_next(parts, name, following):
    torch.testing.assert_close(parts[name].output(), parts[following].given[0])


LACKING = {"mhsa": "self-attention", "mhca": "cross-attention", "down": "downsampling", "upsample": "upsampling"}


@pytest.fixture(scope="module")
def lacking_parts(tmp_path_factory):
    """The parts of a network for colours that lacks some of them, and the lines that are printed about it."""
    path = tmp_path_factory.mktemp("lacking") / "a.pt"
    save_checkpoint(path, dims=(3, 8, 8), classes=0, channels=[8], attention_size=0)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        parts = parts_of(path)
    return parts, printed.getvalue().splitlines()


def test_parts_that_a_trained_network_lacks_are_named(lacking_parts):
    parts, printed = lacking_parts
    for name in parts:
        named = [line for line in printed if line.startswith(f"{name} has random weights because the model has no")]
        assert len(named) == (name in LACKING)
        assert all(LACKING[name] in line for line in named)


def test_parts_that_a_trained_network_lacks_have_random_weights(lacking_parts):
    parts, _ = lacking_parts
    for name, part in parts.items():
        assert part.origin.startswith("random" if name in LACKING else "trained")


def test_without_a_suitable_image_a_sample_is_used(lacking_parts):
    # Digits are grey, and this network is for colours.
    _, printed = lacking_parts
    assert printed[0].startswith("using a sample in place of an image")


@pytest.fixture(scope="module")
def blocks(tmp_path_factory):
    """Two blocks of a trained network, and the whole of it."""
    path = tmp_path_factory.mktemp("blocks") / "a.pt"
    return parts_of(save_checkpoint(path), ["down", "upsample", "unet"])


every_block = pytest.mark.parametrize("name", ["down", "upsample"])


@every_block
def test_the_gradient_that_a_block_is_drawn_on_rises_to_the_right(blocks, name):
    ramp = blocks[name].on_gradient().given[0][0, 0]
    torch.testing.assert_close(ramp[0], torch.linspace(-1, 1, ramp.shape[1]))
    assert (ramp == ramp[:1]).all()


@every_block
def test_the_gradient_that_a_block_is_drawn_on_has_the_size_of_its_input(blocks, name):
    assert blocks[name].on_gradient().given[0].shape[2:] == blocks[name].given[0].shape[2:]


@every_block
def test_the_output_for_a_gradient_has_the_shape_of_that_for_a_real_input(blocks, name):
    assert blocks[name].on_gradient().output().shape[1:] == blocks[name].output().shape[1:]


@every_block
def test_the_output_for_a_gradient_differs_from_that_for_a_real_input(blocks, name):
    assert not torch.equal(blocks[name].on_gradient().output()[0], blocks[name].output()[0])


def test_the_network_is_drawn_on_a_gradient_and_on_images_at_five_steps(blocks):
    x_t, t, _ = blocks["unet"].given
    assert t[0] == t[1]
    assert (x_t[0, 0] == x_t[0, 0, :1]).all()
    assert len(blocks["unet"].x_0) == len(t) == 5


# ---------------------------------------------------------------- random parts, and choices


@pytest.fixture(scope="module")
def random_origins():
    return {name: part.origin for name, part in visualize_components.random_parts(torch.device("cpu")).items()}


def test_titles_of_random_parts_say_so(random_origins):
    assert all("random weights" in origin for origin in random_origins.values())


def test_the_title_of_random_cross_attention_says_that_its_context_is_random(random_origins):
    assert "random weights and context" in random_origins["mhca"]


def test_skipped_pictures_are_not_made(tmp_path, monkeypatch):
    run_script(f"--outdir {tmp_path} --skip mhsa mhca down bottleneck upsample unet mnist", monkeypatch)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(TIME)


def test_without_mnist_its_pictures_are_skipped_with_a_message(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run_script("--skip time mhsa mhca down bottleneck upsample unet", monkeypatch)
    (line,) = capsys.readouterr().out.splitlines()
    assert "skipped mnist_grid.png and mnist_label_hist.png" in line
    assert "prepare_mnist.py" in line
    assert not list(tmp_path.iterdir())


def test_images_of_a_chosen_folder_are_drawn(tmp_path, monkeypatch, capsys):
    root = make_digits(tmp_path / "mine")
    line = f"--mnist-root {root} --outdir {tmp_path} --skip {' '.join(visualize_components.PARTS[:-1])}"
    run_script(line, monkeypatch)
    assert all(not_blank(tmp_path / name) for name in MNIST)


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--mnist-root nowhere", r"there is no folder nowhere"),
        ("--mnist-root {here}/empty", r"holds no class folders"),
        ("--checkpoint nowhere.pt", r"no checkpoint at nowhere\.pt"),
        ("--checkpoint {here}/text.pt", r"text\.pt is damaged or no checkpoint"),
        ("--checkpoint {here}/points.pt", r"checkpoint of points"),
        ("--checkpoint {here}/other.pt", r"holds another network"),
        ("--device quantum", r"device=quantum cannot be used here; try device=cpu"),
    ],
)
def test_a_mistake_is_answered_in_one_sentence_and_leaves_no_file(line, words, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.pt").write_text("hello")
    save_points(tmp_path / "points.pt")
    state = checkpoint_file.load(save_checkpoint(tmp_path / "whole.pt"))
    state["config"]["model"]["channels"] = [8, 24]  # torch's own message about that has many lines.
    checkpoint_file.save(tmp_path / "other.pt", state)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as stopped:
        run_script(f"{line.format(here=tmp_path)} --outdir {tmp_path / 'out'}", monkeypatch)
    sentence = stopped.value.code  # sys.exit(sentence) prints it on stderr and exits with 1.
    assert isinstance(sentence, str)
    assert re.search(words, sentence)
    assert "\n" not in sentence
    assert sorted(tmp_path.rglob("*")) == before


def save_points(path):
    """Save the checkpoint of a network for points."""
    save_checkpoint(path, dims=(2,), classes=0, name="mlp", hidden=8, layers=1, frequencies=1)


def test_a_mistake_ends_the_command_with_1_and_one_line_on_stderr(tmp_path):
    save_points(tmp_path / "points.pt")
    done = command("scripts/visualize_components.py --checkpoint points.pt --skip mnist", tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "points" in done.stderr


def test_an_outdir_that_is_a_file_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("hello")
    with pytest.raises(SystemExit, match="file"):
        run_script(f"--outdir {tmp_path / 'file'} --skip mnist", monkeypatch)


@pytest.mark.parametrize(
    ("line", "words", "code"), [("--skip moon", "invalid choice: 'moon'", 2), ("--help", "parts to skip", 0)]
)
def test_argparse_answers_an_unknown_choice_and_help(line, words, code, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stopped:
        run_script(line, monkeypatch)
    out, err = capsys.readouterr()
    assert words in " ".join((out + err).split())
    assert stopped.value.code == code
