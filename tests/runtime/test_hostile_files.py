"""Files that ask for more than they hold end in one sentence, and cost no memory."""

import io
import json
import os
import pickle
import re
import zipfile

import numpy as np
import pytest
import torch
from conftest import command, started, untrained
from torch.optim.swa_utils import AveragedModel

from conf.groups import MLP, Moons
from pipeline import Pipeline
from runtime import checkpoint_file
from viz.films.trajectory import load_scene

MEGABYTES = 300  # that a refusal may take above what Python and torch take

# Prints the sentence, and by how many megabytes the peak of the memory grew.
MEASURED = """
import json, resource, sys
from pathlib import Path
import torch
from pipeline import Pipeline
from training import state
from viz.films.trajectory import load_scene

read = load_scene if sys.argv[1].endswith("npz") else lambda path: Pipeline.load(path, "cpu")
unit = 2**20 if sys.platform == "darwin" else 2**10
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
try:
    read(Path(sys.argv[1]))
    said = None
except ValueError as error:
    said = str(error)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
print(json.dumps([said, after - before]))
"""


def expanded(count):
    return lambda path: checkpoint_file.save(
        path, {"w": torch.zeros(1 << 16).view(-1, 1)[:, :1].expand(1 << 16, count)}
    )


def meta(path):
    checkpoint_file.save(path, {"w": torch.empty(10**12, device="meta")})


def sparse(path):
    places = torch.tensor([[0, 1], [2, 3]])
    w = torch.sparse_coo_tensor(places, torch.ones(2), (10**6, 10**6), check_invariants=True)
    checkpoint_file.save(path, {"w": w})


def holds_itself(path):
    part = {}
    part["part"] = part
    checkpoint_file.save(path, {"config": part})


def doubled(path):
    """60 lists, each of which holds the one before twice, would be 2^60 values if they were written out."""
    part = ["x"]
    for _ in range(15):
        part = [part, part]
    checkpoint_file.save(path, {"config": [part, part, part]})


def byte_array(path):
    checkpoint_file.save(path, {"config": bytearray(10)})


def compressed(path):
    plain = path.with_name("plain.zip")
    checkpoint_file.save(plain, {"w": torch.zeros(1 << 28)})
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    plain.unlink()


def rewritten(path, change):
    """The same archive with another pickle."""
    with zipfile.ZipFile(path) as source:
        members = {name: source.read(name) for name in source.namelist()}
    with zipfile.ZipFile(path, "w") as target:
        for name, content in members.items():
            target.writestr(name, change(content) if name.endswith("data.pkl") else content)


def claims_more(path):
    """A storage of 1,000 numbers says that it holds 2^30."""
    checkpoint_file.save(path, {"w": torch.zeros(1000)})
    old = pickle.dumps(1000, 2)[2:-1]
    new = pickle.dumps(1 << 30, 2)[2:-1]
    rewritten(path, lambda content: content.replace(old, new))


HOSTILE = {
    "expanded to 10^13": (expanded(10**13 // (1 << 16)), "claims 39,"),
    "expanded to 3e9": (expanded(3 * 10**9 // (1 << 16)), "bytes of tensors, which is more than it has"),
    "meta": (meta, "is no plain tensor"),
    "sparse": (sparse, "is no plain tensor"),
    "holds itself": (holds_itself, "or holds itself"),
    "doubled": (doubled, "the same parts too many times"),
    "byte array": (byte_array, "is no plain tensor, number or text|of type bytearray"),
    "claims more": (claims_more, "has other bytes for it"),
}


def refusal_of(path):
    with pytest.raises(ValueError, match=r"a\.(pt|npz)") as error:
        load_scene(path) if path.suffix == ".npz" else checkpoint_file.load(path)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_a_file_asks_for_is_bounded_by_what_it_holds(kind, tmp_path):
    make, reason = HOSTILE[kind]
    make(tmp_path / "a.pt")
    assert re.search(reason, refusal_of(tmp_path / "a.pt"))


def network(path, **changes):
    """A checkpoint of a small network, whose options are then changed."""
    pipeline = untrained(Moons(), MLP(hidden=8, layers=1))
    state = {"config": pipeline.config, "classes": [], "ema": AveragedModel(pipeline.net).state_dict()}
    state["normaliser"] = {"mean": pipeline.normaliser.mean, "std": pipeline.normaliser.std}
    checkpoint_file.save(path, state)
    assert Pipeline.load(path, "cpu").num_parameters == pipeline.num_parameters
    for name, value in changes.items():
        (pipeline.config if name in pipeline.config else pipeline.config["model"])[name] = value
    checkpoint_file.save(path, state)


NETWORKS = {
    "wide": ({"hidden": 30_000}, r"inputs\.weight is of shape \(8, .*\), and here of shape \(30000, "),
    "deep": ({"layers": 10**9}, "its network needs more than"),
    "of many steps": ({"num_timesteps": 10**10}, "num_timesteps must be at most 1,000,000"),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_network_that_does_not_fit_its_weights_is_refused(kind, tmp_path):
    changes, reason = NETWORKS[kind]
    network(tmp_path / "a.pt", **changes)
    with pytest.raises(ValueError, match=reason):
        Pipeline.load(tmp_path / "a.pt", "cpu")


@pytest.mark.slow
@pytest.mark.parametrize("kind", NETWORKS)
def test_a_network_larger_than_its_weights_is_refused_before_it_is_made(kind, tmp_path):
    changes, reason = NETWORKS[kind]
    network(tmp_path / "a.pt", **changes)
    said, megabytes = measured(tmp_path / "a.pt")
    assert re.search(reason, said)
    assert megabytes < MEGABYTES


def measured(path):
    done = started(["-c", MEASURED, str(path)], path.parent)
    assert not done.returncode, done.stderr
    said, megabytes = json.loads(done.stdout.splitlines()[-1])
    assert said and "\n" not in said and str(path) in said
    return said, megabytes


def test_a_training_does_not_make_the_network_of_such_a_checkpoint_either(run, tmp_path):
    state = checkpoint_file.load(run)
    state["config"]["model"]["hidden"] = 4096
    (tmp_path / "run").mkdir()
    checkpoint_file.save(tmp_path / "run" / "last.pt", state)
    done = command("train.py resume=run", tmp_path)
    assert done.returncode == 1
    assert "holds another network: module.inputs.weight" in done.stderr


@pytest.mark.slow
def test_a_compressed_archive_is_not_unpacked(tmp_path):
    compressed(tmp_path / "a.pt")
    assert (tmp_path / "a.pt").stat().st_size < 10_000_000
    said, megabytes = measured(tmp_path / "a.pt")
    assert "is compressed" in said
    assert megabytes < MEGABYTES


def trajectory(path, kind):
    """Write a file of that kind, and return why it is refused."""
    if kind == "compressed":
        np.savez_compressed(path, forward=np.zeros((10**7, 2)))
        return "is compressed"
    header = {"shape": (10**9, 2), "fortran_order": False, "descr": "<f8" if kind == "claims more" else "|S0"}
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, header)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("forward.npy", content.getvalue() + bytes(80))
    return "claims more bytes for forward.npy"


TRAJECTORIES = ("compressed", "claims more", "of nothing")


@pytest.mark.parametrize("kind", TRAJECTORIES)
def test_a_trajectory_that_asks_for_more_than_it_holds_is_refused(kind, tmp_path):
    reason = trajectory(tmp_path / "a.npz", kind)
    assert reason in refusal_of(tmp_path / "a.npz")


@pytest.mark.slow
@pytest.mark.parametrize("kind", TRAJECTORIES)
def test_a_trajectory_takes_no_more_memory_than_its_file(kind, tmp_path):
    reason = trajectory(tmp_path / "a.npz", kind)
    said, megabytes = measured(tmp_path / "a.npz")
    assert reason in said
    assert megabytes < 100


def test_pipes_are_not_opened(tmp_path):
    for name in ("a.pt", "a.npz"):
        os.mkfifo(tmp_path / name)
        assert "not a file" in refusal_of(tmp_path / name)


def test_the_latest_checkpoint_passes_over_what_cannot_be_read(tmp_path, capsys):
    for i, name in enumerate(("good", "hostile", "pipe", "link", "forbidden")):
        path = tmp_path / "outputs" / name / "a.pt"
        path.parent.mkdir(parents=True)
        if name == "pipe":
            os.mkfifo(path)
        elif name == "link":
            path.symlink_to("nowhere.pt")
        elif name == "hostile":
            meta(path)
        else:
            checkpoint_file.save(path, {"step": 3})
        os.utime(path, (i, i), follow_symlinks=False)
    path.chmod(0)
    found, state = checkpoint_file.load_newest(tmp_path)
    printed = capsys.readouterr().out.splitlines()
    if os.geteuid() == 0:  # whom nothing is forbidden
        assert found == path
        path.unlink()
        found, state = checkpoint_file.load_newest(tmp_path)
        printed = ["passed over", *capsys.readouterr().out.splitlines()]
    assert found.parent.name == "good" and state["step"] == 3
    assert len(printed) == 4 and all(line.startswith("passed over") for line in printed)
