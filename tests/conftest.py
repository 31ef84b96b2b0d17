"""What several tests share: commands as a person types them, and one small trained run."""

import os
import signal
import subprocess
import sys
from pathlib import Path

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


def command(line: str, cwd: Path) -> subprocess.CompletedProcess:
    """Run `python LINE` in the folder `cwd`, the script taken from the repository."""
    script, *words = line.split()
    return _run([script if script == "-m" else str(ROOT / script), *words], cwd)


def python(code: str, cwd: Path) -> subprocess.CompletedProcess:
    """Run a few lines of Python in the folder `cwd`, with the repository's modules."""
    return _run(["-c", code], cwd)


def not_blank(picture: Path) -> bool:
    return imread(picture)[..., :3].std() > 0.02


def _run(words: list[str], cwd: Path) -> subprocess.CompletedProcess:
    environment = {**QUIET, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1800,
        stdin=subprocess.DEVNULL,
    )


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
