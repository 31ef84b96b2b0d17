"""What several tests share: commands as a person types them, and one small trained run."""

import atexit
import functools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from matplotlib.image import imread

ROOT = Path(__file__).resolve().parent.parent
os.environ["OMP_NUM_THREADS"] = "1"  # two test processes with two threads each would only wait for each other
torch.set_num_threads(1)
for name in (
    "SIGINT",
    "SIGHUP",
):  # ignored below nohup and behind &, which programs that are started here would inherit
    if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) is signal.SIG_IGN:
        signal.signal(getattr(signal, name), signal.SIG_DFL)
# no display: a recording becomes a file
QUIET = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY", "HYDRA_FULL_ERROR")}


def started(line: str | list[str], cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    """Run `python LINE` in the folder `cwd`, the script taken from the repository, as a person starts it: the
    interpreter has imported nothing yet."""
    return subprocess.run(
        [sys.executable, *_words(line)],
        cwd=cwd,
        env={**QUIET, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=1800,
        stdin=subprocess.DEVNULL,
    )


def command(line: str | list[str], cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    """The same for seconds less: a process of its own, but forked from one that has imported torch (warm.py)."""
    if not hasattr(os, "fork"):
        return started(line, cwd, **environment)
    with TemporaryDirectory() as folder:
        outputs = [Path(folder, name) for name in ("stdout", "stderr")]
        for path in outputs:
            path.touch()
        words, environment = _words(line), {**QUIET, "PYTHONPATH": str(ROOT), **environment}
        request = {"words": words, "folder": str(cwd), "environment": environment, "outputs": [*map(str, outputs)]}
        print(json.dumps(request), file=_warm().stdin, flush=True)
        code = int(_warm().stdout.readline())
        return subprocess.CompletedProcess(words, code, *(path.read_text() for path in outputs))


def python(code: str, cwd: Path) -> subprocess.CompletedProcess:
    """Run a few lines of Python in the folder `cwd`, with the repository's modules; forked as a command is."""
    return command(["-c", code], cwd)


def _words(line: str | list[str]) -> list[str]:
    script, *words = line.split() if isinstance(line, str) else line
    return [str(ROOT / script) if script.endswith(".py") else script, *words]


@functools.cache
def _warm() -> subprocess.Popen:
    """One for each process of tests, until that ends."""
    line = [sys.executable, str(ROOT / "tests" / "warm.py")]
    process = subprocess.Popen(line, env=QUIET, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(process.wait)  # after the next line: its CPU seconds count as those of the tests
    atexit.register(process.kill)
    return process


def not_blank(picture: Path) -> bool:
    return imread(picture)[..., :3].std() > 0.02


SMALL = "num_samples=2000 batch_size=256 model.hidden=32 num_timesteps=50"
NO_EVALUATION = "eval_samples=0"


@pytest.fixture(scope="session")
def workplace(tmp_path_factory):
    """A folder in which `python train.py` has been run once, for 300 steps."""
    folder = tmp_path_factory.mktemp("workplace")
    done = command(f"train.py {SMALL} max_steps=300 checkpoint_every=100 eval_samples=500", folder)
    assert done.returncode == 0, done.stderr
    (folder / "train.txt").write_text(done.stdout)
    return folder


@pytest.fixture(scope="session")
def run(workplace):
    """The run folder of that training."""
    (folder,) = (workplace / "outputs" / "train").iterdir()
    return folder
