"""scripts/visualize_components.py as a person runs it: all pictures are made, none is blank, errors are clear."""

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


def tree(folder):
    """A folder like MNIST's, of three digits, with a stray file."""
    rng = np.random.default_rng(0)
    for label, count in (("0", 3), ("1", 5), ("7", 4)):
        (folder / label).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (28, 28), np.uint8)).save(folder / label / f"{i}.png")
    (folder / "notes.txt").write_text("hello")
    return folder


def saved(path, *, dims=(1, 8, 8), classes=10, name="unet_small", dataset="digits", **model):
    """A checkpoint of an untrained network whose output is not zero."""
    model = {"name": name, "prediction": "v", **({**MODEL, **model} if "unet" in name else model)}
    process = {"schedule": "cosine", "num_timesteps": 40, "beta_start": None, "beta_end": None}
    config = {**process, "model": model, "dataset": {"name": dataset}, "seed": 0, "num_samples": None}
    torch.manual_seed(0)
    net, _ = build(config, dims, classes)
    normaliser = {"mean": torch.zeros(dims), "std": torch.ones(dims)}
    state = {"config": config, "normaliser": normaliser, "classes": [str(i) for i in range(classes)]}
    checkpoint_file.save(path, {**state, "ema": AveragedModel(stirred(net)).state_dict()})
    return path


def script(line, monkeypatch):
    """Run it here and not as a process of its own, which would first load torch for seconds."""
    monkeypatch.setattr(sys, "argv", ["visualize_components.py", *line.split()])
    visualize_components.main()


def refused(line, words, monkeypatch, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as stopped:
        script(f"{line} --outdir {tmp_path / 'out'}", monkeypatch)
    sentence = stopped.value.code  # sys.exit(sentence) prints it on stderr, and exits with 1
    assert isinstance(sentence, str) and re.search(words, sentence) and "\n" not in sentence
    assert sorted(tmp_path.rglob("*")) == before


# ---------------------------------------------------------------- pictures


def test_every_picture_is_written_and_none_is_blank(tmp_path):
    tree(tmp_path / MNIST_ROOT)  # found by itself
    done = command("scripts/visualize_components.py --device cpu", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    files = [*TIME, *NETWORKS, *MNIST]
    assert sorted(p.name for p in (tmp_path / "artifacts").iterdir()) == sorted(files)
    assert [line for line in done.stdout.splitlines() if "ignored" not in line] == [f"artifacts/{f}" for f in files]
    assert done.stdout.count("ignored 1 files outside the class folders") == 1
    assert all(not_blank(tmp_path / "artifacts" / name) for name in files)
    for name in ("mhsa", "mhca"):
        one, other = ((tmp_path / "artifacts" / f"{name}_head{head}.png").read_bytes() for head in (0, 1))
        assert one != other


def test_a_trained_network_is_drawn_from_its_run_folder(tmp_path, monkeypatch, capsys):
    (tmp_path / "run").mkdir()
    saved(tmp_path / "run" / "mine.pt", conditioning="cross_attention")
    script(f"--checkpoint {tmp_path / 'run'} --skip time mnist down bottleneck --outdir {tmp_path / 'a'}", monkeypatch)
    files = [tmp_path / "a" / name for name in NETWORKS if name.split("_")[0] not in ("downsample", "bottleneck")]
    assert capsys.readouterr().out.splitlines() == [str(path) for path in files]
    assert all(not_blank(path) for path in files)


def test_a_trained_networks_parts_are_what_runs_in_it(tmp_path):
    path = saved(tmp_path / "a.pt", conditioning="cross_attention")
    parts = visualize_components.network_parts(list(visualize_components.NETWORKS), torch.device("cpu"), path)
    assert list(parts) == list(visualize_components.NETWORKS)
    assert all(part.origin.startswith("trained weights, label") for part in parts.values())
    assert parts["mhsa"].weights().shape == (2, 16, 16) and parts["mhca"].weights().shape == (2, 16, 5)
    torch.testing.assert_close(parts["down"].output(), parts["bottleneck"].given[0])  # one follows on the other
    torch.testing.assert_close(parts["bottleneck"].output(), parts["upsample"].given[0])


def test_what_a_trained_network_lacks_is_named_and_has_random_weights(tmp_path, capsys):
    path = saved(tmp_path / "a.pt", dims=(3, 8, 8), classes=0, channels=[8], attention_size=0)
    parts = visualize_components.network_parts(list(visualize_components.NETWORKS), torch.device("cpu"), path)
    said = capsys.readouterr().out.splitlines()
    lacks = {"mhsa": "self-attention", "mhca": "cross-attention", "down": "downsampling", "upsample": "upsampling"}
    for name, part in parts.items():
        named = [line for line in said if line.startswith(f"{name} has random weights because the model has no")]
        assert len(named) == (name in lacks) and all(lacks[name] in line for line in named)
        assert part.origin.startswith("random" if name in lacks else "trained")
    assert said[0].startswith("using a sample in place of an image")  # digits are grey, and this network is for colours


def test_a_trained_block_is_drawn_on_a_gradient_and_on_a_real_input(tmp_path):
    parts = visualize_components.network_parts(
        ["down", "upsample", "unet"], torch.device("cpu"), saved(tmp_path / "a.pt")
    )
    for name in ("down", "upsample"):
        gradient, real = parts[name].on_gradient(), parts[name]
        ramp = gradient.given[0][0, 0]
        torch.testing.assert_close(ramp[0], torch.linspace(-1, 1, ramp.shape[1]))  # channel 0 rises to the right
        assert (ramp == ramp[:1]).all() and ramp.shape == real.given[0].shape[2:]
        assert gradient.output().shape[1:] == real.output().shape[1:]
        assert not torch.equal(gradient.output()[0], real.output()[0])
    x_t, t, _ = parts["unet"].given
    assert t[0] == t[1] and (x_t[0, 0] == x_t[0, 0, :1]).all() and len(parts["unet"].x_0) == len(t) == 5


def test_titles_say_what_is_random():
    origins = {name: part.origin for name, part in visualize_components.random_parts(torch.device("cpu")).items()}
    assert (
        all("random weights" in origin for origin in origins.values())
        and "random weights and context" in origins["mhca"]
    )


def test_skipped_pictures_are_not_made(tmp_path, monkeypatch):
    script(f"--outdir {tmp_path} --skip mhsa mhca down bottleneck upsample unet mnist", monkeypatch)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(TIME)


def test_without_mnist_its_pictures_are_skipped_with_a_message(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    script("--skip time mhsa mhca down bottleneck upsample unet", monkeypatch)
    (line,) = capsys.readouterr().out.splitlines()
    assert "skipped mnist_grid.png and mnist_label_hist.png" in line and "prepare_mnist.py" in line
    assert not list(tmp_path.iterdir())


def test_another_folder_of_images(tmp_path, monkeypatch, capsys):
    root = tree(tmp_path / "mine")
    script(f"--mnist-root {root} --outdir {tmp_path} --skip {' '.join(visualize_components.PARTS[:-1])}", monkeypatch)
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
def test_a_mistake_is_answered_in_one_sentence(line, words, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.pt").write_text("hello")
    saved(tmp_path / "points.pt", dims=(2,), classes=0, name="mlp", hidden=8, layers=1, frequencies=1)
    state = checkpoint_file.load(saved(tmp_path / "whole.pt"))
    state["config"]["model"]["channels"] = [8, 24]  # torch's message about that has many lines
    checkpoint_file.save(tmp_path / "other.pt", state)
    refused(line.format(here=tmp_path), words, monkeypatch, tmp_path)


def test_a_mistake_as_the_shell_sees_it(tmp_path):
    saved(tmp_path / "points.pt", dims=(2,), classes=0, name="mlp", hidden=8, layers=1, frequencies=1)
    done = command("scripts/visualize_components.py --checkpoint points.pt --skip mnist", tmp_path)
    assert done.returncode == 1 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and "points" in done.stderr


def test_an_outdir_that_is_a_file_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("hello")
    with pytest.raises(SystemExit, match="file"):
        script(f"--outdir {tmp_path / 'file'} --skip mnist", monkeypatch)


@pytest.mark.parametrize(("line", "words"), [("--skip moon", "invalid choice: 'moon'"), ("--help", "parts to skip")])
def test_argparse_answers(line, words, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stopped:
        script(line, monkeypatch)
    out, err = capsys.readouterr()
    assert words in " ".join((out + err).split())
    assert stopped.value.code == (0 if line == "--help" else 2)
