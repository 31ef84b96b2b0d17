"""One training in several processes ends in the same bits for 1, 2 and 4 of them, started by torchrun or by forks."""

import io
import json
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from conftest import QUIET, ROOT, command
from many import DIGITS, POINTS, SIGNALLED_IN, pipeline

import train
from conf.config import Train
from conf.groups import MLP, Moons
from loss.objective import training_loss
from model import build_model
from runtime import checkpoint_file
from schedule import LinearNoiseScheduler
from tests.campaigns.crashes import assert_same_run
from training import shards


def torchrun(count, *words, cwd, restarts=0):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    words = [f"--max-restarts={restarts}", *map(str, words)]
    environment = {**QUIET, "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
    return subprocess.run([*launch, *words], cwd=cwd, env=environment, capture_output=True, text=True, timeout=1800)


def started_by_torchrun(count, cwd):
    return torchrun(count, ROOT / "tests/many.py", "trainings", cwd=cwd)


def siblings(count, cwd):
    """The trainings of tests/many.py in forks of one process, which has imported torch: torchrun's part is played."""
    return command(f"tests/many.py siblings {count}", cwd, MPLBACKEND="agg")


# ---------------------------------------------------------------- the same bits


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The trainings of tests/many.py in this one process."""
    place = tmp_path_factory.mktemp("alone")
    with redirect_stdout(io.StringIO()):
        for name, options in {"points": POINTS, "digits": DIGITS}.items():
            assert pipeline(options, place / name) is None
    return place


class Together(NamedTuple):
    """The trainings of tests/many.py in several processes."""

    count: int
    place: Path
    printed: str
    found: list[dict]  # what each process found


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((2, siblings), id="2 siblings"),
        pytest.param((2, started_by_torchrun), id="2 by torchrun", marks=pytest.mark.slow),
        pytest.param((4, siblings), id="4 siblings", marks=pytest.mark.slow),
    ],
)
def together(request, tmp_path_factory):
    count, start = request.param
    place = tmp_path_factory.mktemp("together")
    done = start(count, place)
    assert done.returncode == 0, done.stderr
    return Together(
        count, place, done.stdout, [json.loads((place / f"{rank}.json").read_text()) for rank in range(count)]
    )


EACH_TRAINING = pytest.mark.parametrize("name", ["points", "digits"])


@EACH_TRAINING
def test_any_number_of_processes_ends_in_the_same_bits(name, together, alone):
    assert_same_run(alone / name, together.place / name)  # weights, average, optimizers, losses, loss.csv, excess.csv


@EACH_TRAINING
def test_any_number_of_processes_measures_the_same_figures(name, together, alone):
    here, there = (json.loads((place / name / "metrics.json").read_text()) for place in (alone, together.place))
    assert {**here, "seconds": 0, "cpu_seconds": 0} == {**there, "seconds": 0, "cpu_seconds": 0}


@EACH_TRAINING
def test_any_number_of_processes_leaves_the_same_files(name, together, alone):
    assert {p.name for p in (alone / name).iterdir()} == {p.name for p in (together.place / name).iterdir()}


def test_points_are_evaluated_at_the_end_of_a_training_in_several_processes(together):
    assert "figures" in json.loads((together.place / "points/metrics.json").read_text())


def test_only_the_first_process_prints(together):
    assert together.printed.count("start-up check") == 3
    assert together.printed.count("training summary") == 2


def test_the_other_processes_end_with_0(together):
    assert [each["points"] for each in together.found] == [None] + [0] * (together.count - 1)


def test_all_processes_stop_when_one_gets_a_signal(together):
    assert [each["stopped"] for each in together.found] == [143] * together.count


def test_the_checkpoint_after_a_signal_is_of_the_step_in_which_it_came(together):
    assert checkpoint_file.load(together.place / "stopped")["step"] == SIGNALLED_IN


def test_gradients_are_added_up_in_the_order_of_the_processes(together):
    assert all(each["in order"] for each in together.found)


def test_what_the_first_process_says_reaches_all(together):
    assert [each["of the first"] for each in together.found] == ["process 0"] * together.count


def test_processes_with_the_same_options_are_not_refused(together):
    assert [each["same"] for each in together.found] == [None] * together.count


def test_processes_with_different_options_are_refused(together):
    sentence = "process 1 has lr=1, the first lr=0: start all with the same options"
    assert [each["other"] for each in together.found] == [sentence] * together.count


def test_shards_that_cannot_be_shared_out_are_refused(together):
    words = (
        f"shards=9 cannot be shared out evenly among {together.count} processes; start 1 or 3 or 9 of them, or a new"
    )
    assert all(each["uneven"].startswith(words) for each in together.found)


# ---------------------------------------------------------------- deaths


@pytest.fixture(scope="module")
def died(tmp_path_factory):
    """The run folder of a training in two processes that died twice, and what the second ending said.

    Process 1 dies in step 8; torchrun starts both again, from step 5 on; it dies once more in step 13, after the
    checkpoint of step 10.
    """
    cwd = tmp_path_factory.mktemp("died")
    line = (
        "num_samples=170 batch_size=80 references=24 num_timesteps=20 warmup_steps=2 max_steps=20 checkpoint_every=5"
        " model.hidden=8 model.layers=2 model.frequencies=2 conditional=true eval_samples=0 shards=4"
    )
    done = torchrun(2, ROOT / "tests/many.py", "dies", 8, *line.split(), cwd=cwd, restarts=1)
    assert done.returncode == 1
    (folder,) = (cwd / "outputs/train").iterdir()
    return folder, done.stderr


@pytest.mark.slow
def test_the_death_of_a_process_ends_the_others_in_one_sentence(died):
    sentence = "another process of this training has ended, so none can go on; resume= goes on"
    assert died[1].count(sentence) == 2


@pytest.mark.slow
def test_a_training_that_died_keeps_its_last_checkpoint(died):
    assert checkpoint_file.load(died[0])["step"] == 10, died[1]


@pytest.mark.slow
def test_a_training_that_died_is_not_resumed_with_other_shards(died):
    folder, _ = died
    options = Train(Moons(), MLP(), resume=str(folder), shards=2)
    refused = pytest.raises(ValueError, match="was trained with shards=4, not shards=2, and keeps that: leave out")
    with redirect_stdout(io.StringIO()), refused:
        train.begin_or_resume(options, folder, {"resume", "shards"})


@pytest.mark.slow
def test_a_training_that_died_is_resumed_by_one_process_and_ends_in_the_same_bits(died, tmp_path):
    folder = Path(shutil.copytree(died[0], tmp_path / "resumed"))
    (tmp_path / "whole").mkdir()
    with redirect_stdout(io.StringIO()):
        train.begin_or_resume(Train(Moons(), MLP(), resume=str(folder)), folder, {"resume"})
        train.begin_or_resume(Train(**{**vars(POINTS), "max_steps": 20, "eval_samples": 0}), tmp_path / "whole", set())
    assert_same_run(tmp_path / "whole", folder)


# ---------------------------------------------------------------- refusals


@pytest.mark.slow  # the siblings above are refused for their options
def test_processes_with_different_data_are_refused_in_one_sentence(tmp_path):
    sentence = "the data of process 1 are not those of the first: give all the same"
    for rank in range(2):
        (tmp_path / str(rank)).mkdir()
        rows = "".join(f"{i},{i * i % 7 + rank}\n" for i in range(100))
        (tmp_path / str(rank) / "a.csv").write_text(rows)
    line = f"{sys.executable} {ROOT / 'train.py'} eval_samples=0 batch_size=64 dataset=file dataset.path=a.csv"
    (tmp_path / "train.sh").write_text(f"cd $RANK; exec {line}\n")
    done = torchrun(2, "--no-python", "bash", "train.sh", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.count(sentence) == 1, done.stderr
    assert not list((tmp_path / "0/outputs/train").iterdir()), "nobody leaves a folder"
    assert not (tmp_path / "1/outputs").exists()


@pytest.mark.slow
def test_an_error_of_one_process_is_reported_once_with_its_number(tmp_path):
    done = torchrun(2, ROOT / "tests/many.py", "fails", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("process 1: the data of this process cannot be read\n") == 1, done.stderr
    assert "another process of this training has ended" not in done.stderr


@pytest.mark.parametrize("line", ["inference.py", "train.py -m lr=1,2"])
def test_everything_else_is_refused_under_torchrun(line, tmp_path, monkeypatch):
    monkeypatch.setitem(QUIET, "WORLD_SIZE", "2")
    done = command(line, tmp_path)
    assert (done.returncode, done.stdout) == (1, "") and not list(tmp_path.iterdir())
    assert done.stderr == (
        "torchrun is for one training, with train.py and without -m: start everything else by python\n"
    )


# ---------------------------------------------------------------- parts of a batch, in this process


def batch_and_network(rows):
    g = torch.Generator().manual_seed(0)
    batch = torch.randn(rows, 2, generator=g), torch.arange(rows) % 50, torch.randn(rows, 2, generator=g), None
    torch.manual_seed(0)
    net = build_model("mlp", dims=(2,), num_timesteps=50, hidden=16, layers=2, frequencies=2)
    return batch, net, partial(training_loss, net, LinearNoiseScheduler(50))


@pytest.mark.parametrize("references", [0, 24])
@pytest.mark.parametrize("rows", [64, 50, 3])
@pytest.mark.parametrize("count", [1, 4, 7])
def test_parts_add_up_to_the_gradient_of_the_batch_and_one_part_is_it_to_the_bit(count, rows, references):
    batch, net, loss_of = batch_and_network(rows)
    (whole,) = shards.own_parts(batch, 1, references)
    loss = loss_of(*whole)
    plain = torch.autograd.grad(loss.stable.mean(), [*net.parameters()])
    means = shards.gradient(net, loss_of, shards.own_parts(batch, count, references), rows)
    torch.testing.assert_close(means, torch.stack([each.detach().mean() for each in loss]))
    for weight, expected in zip(net.parameters(), plain, strict=True):
        torch.testing.assert_close(weight.grad, expected, rtol=1e-4, atol=1e-6)
        assert count > 1 or torch.equal(weight.grad, expected)


def test_a_batch_that_can_be_cut_is_taken():
    shards.check(4, 1024)


@pytest.mark.parametrize(
    ("count", "batch_size", "words"),
    [
        (3, 1024, r"batch_size=1024 cannot be cut into shards=3 .* take batch_size=1023 or"),
        (8, 2, r"batch_size=2 cannot be cut into shards=8 equal parts; take batch_size=8$"),
    ],
)
def test_a_batch_that_cannot_be_cut_is_refused_with_what_could(count, batch_size, words):
    with pytest.raises(ValueError, match=words):
        shards.check(count, batch_size)
