"""Helpers and fixtures of all tests.

Functions are imported (`from conftest import command`); fixtures are asked for by their name as an argument.
"""

import atexit
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from conf.config import Train
from dataset import IMAGE_DATASETS, Normaliser, make_sets
from pipeline import Pipeline, build
from points.mixture import GaussianMixture
from registry import plugins
from training.noise import Noise

try:
    import fcntl
except ImportError:  # not on Windows, where each process of tests makes its own
    fcntl = None

ROOT = Path(__file__).resolve().parent.parent

# Two test processes with two threads each would only wait for each other.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

# Below nohup and behind &, a shell has these signals ignored, and every program that a test starts would inherit that.
for name in ("SIGINT", "SIGHUP"):
    if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) is signal.SIG_IGN:
        signal.signal(getattr(signal, name), signal.SIG_DFL)

# Without a display, a recording becomes a file.
QUIET = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY", "HYDRA_FULL_ERROR")}

SMALL = "num_samples=2000 batch_size=256 model.hidden=32 num_timesteps=50"
NO_EVALUATION = "eval_samples=0"
GAUSSIANS = "dataset=gaussians"  # their Bayes floor takes a tenth of the time that the moons' takes


# ---------------------------------------------------------------- commands


def started(line: str | list[str], cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    """Run `python LINE` in the folder `cwd` in a new interpreter, as a person starts it.

    The script is taken from the repository. The interpreter has imported nothing yet.
    """
    return subprocess.run(
        [sys.executable, *_words(line)],
        cwd=cwd,
        env={**QUIET, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=1800,
        stdin=subprocess.DEVNULL,
    )


class Background:
    """`python LINE` in a process that is forked from one that has imported torch (warm.py): 5 seconds of CPU less.

    The methods are those of subprocess.Popen.
    """

    def __init__(self, line: str | list[str], cwd: Path, prepared: str = "commands", **environment: str) -> None:
        self.prepared = prepared
        self.folder = TemporaryDirectory()
        self.args = _words(line)
        self.outputs = [Path(self.folder.name, name) for name in ("stdout", "stderr")]
        for path in self.outputs:
            path.touch()
        request = {
            "words": self.args,
            "folder": str(cwd),
            "environment": {**QUIET, "PYTHONPATH": str(ROOT), **environment},
            "outputs": [str(path) for path in self.outputs],
        }
        self.pid = int(_answer(prepared, begin=request))
        self.returncode: int | None = None
        self.printed: tuple[str, str] | None = None

    def poll(self) -> int | None:
        """The exit code; None while the process runs."""
        if self.returncode is None:
            answer = _answer(self.prepared, poll=self.pid)
            self.returncode = int(answer) if answer else None
        return self.returncode

    def communicate(self) -> tuple[str, str]:
        """What the process printed to stdout and stderr, once it has ended."""
        if self.returncode is None:
            self.returncode = int(_answer(self.prepared, wait=self.pid))
        if self.printed is None:
            self.printed = self.outputs[0].read_text(), self.outputs[1].read_text()
            self.folder.cleanup()
        return self.printed

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def begun(line: str | list[str], cwd: Path, **environment: str) -> Background | subprocess.Popen:
    """Begin `python LINE` in the folder `cwd`, and do not wait for its end."""
    if hasattr(os, "fork"):
        return Background(line, cwd, **environment)
    return subprocess.Popen(
        [sys.executable, *_words(line)],
        cwd=cwd,
        env={**QUIET, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def command(line: str | list[str], cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    """Run `python LINE` in the folder `cwd` to its end; forked from a process that has imported torch."""
    process = begun(line, cwd, **environment)
    printed = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, *printed)


WITHOUT_TORCH = """
import os, runpy, sys
def end(event, arguments):
    if event == "import" and arguments[0] == "torch":
        os.write(2, b"torch is imported")
        os._exit(75)
sys.addaudithook(end)
if "torch" in sys.modules:  # what the checks import has imported it
    end("import", ["torch"])
sys.argv = WORDS
sys.path.insert(0, os.path.dirname(WORDS[0]))
runpy.run_path(WORDS[0], run_name="__main__")
"""


def without_torch(line: str, cwd: Path) -> subprocess.CompletedProcess:
    """Run `python LINE` as `command` does, but forked from a process that has not imported torch.

    The import of torch ends it with exit code 75.
    """
    code = WITHOUT_TORCH.replace("WORDS", repr(_words(line)))
    if not hasattr(os, "fork"):
        return started(["-c", code], cwd)
    process = Background(["-c", code], cwd, prepared="hydra")
    printed = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, *printed)


def succeeded(line: str | list[str], cwd: Path, run: Callable = command) -> str:
    """Run a line that must end with exit code 0, by `command` or by `started`, and return what it printed."""
    done = run(line, cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


def python(code: str, cwd: Path) -> subprocess.CompletedProcess:
    """Run a few lines of Python in the folder `cwd`, with the repository's modules; forked as a command is."""
    return command(["-c", code], cwd)


def _words(line: str | list[str]) -> list[str]:
    script, *words = line.split() if isinstance(line, str) else line
    return [str(ROOT / script) if script.endswith(".py") else script, *words]


@functools.cache
def _warm(prepared: str) -> subprocess.Popen:
    """The process that commands are forked from: one for each process of tests, until that ends.

    prepared: what that process has imported: all that "commands" need, or what "hydra" needs.
    """
    line = [sys.executable, str(ROOT / "tests" / "warm.py"), prepared]
    process = subprocess.Popen(line, env=QUIET, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    # Functions run in reverse order: kill, then wait, so that its CPU seconds count as those of the tests.
    atexit.register(process.wait)
    atexit.register(process.kill)
    return process


def _answer(prepared: str, **request: object) -> str:
    """What warm.py answers to a request."""
    print(json.dumps(request), file=_warm(prepared).stdin, flush=True)
    return _warm(prepared).stdout.readline().strip()


# ---------------------------------------------------------------- what commands leave


def not_blank(picture: Path) -> bool:
    """Whether the pixels of a picture differ from each other."""
    return imread(picture)[..., :3].std() > 0.02


def column(path: Path, entity: str, component: str, clock: str = "step") -> tuple[np.ndarray, list[np.ndarray]]:
    """Read one component of one entity from a recording (.rrd).

    Returns:
        The times, in order (N,), and the values logged at each of them, N arrays. Times on a clock in seconds are
        nanoseconds.
    """
    from rerun.chunk import RrdReader  # takes long to import, and most tests read no recording

    times, values = [], []
    for chunk in RrdReader(path).stream().filter(content=entity, is_static=False, components=component):
        batch = chunk.to_record_batch()
        if clock not in batch.schema.names:
            continue
        times += batch.column(clock).to_numpy().tolist()
        values += batch.column(component).to_pylist()
    order = np.argsort(times)
    return np.array(times)[order], [np.array(values[i]) for i in order]


# ---------------------------------------------------------------- distributions and models


def gaussian(mean: torch.Tensor | list[float], variance: torch.Tensor | float) -> GaussianMixture:
    """One Gaussian with this mean (d,) and this variance, a number or (d,)."""
    return GaussianMixture(torch.as_tensor(mean)[None], variance)


def untrained(dataset: object, model: object, **options: object) -> Pipeline:
    """A pipeline whose network has learnt nothing.

    Args:
        dataset, model: their options, as in `untrained(Moons(), MLP(hidden=8, layers=1))`.
        options: those of train.py; by default 50 steps of the forward process and 2,000 rows of data.
    """
    config = asdict(Train(dataset=dataset, model=model, **{"num_timesteps": 50, "num_samples": 2000, **options}))
    data, _ = make_sets(n_samples=config["num_samples"], seed=0, **config["dataset"])
    labelled = config["conditional"] or config["dataset"]["name"] in IMAGE_DATASETS
    classes = list(data.classes) if labelled else []
    normaliser = Normaliser.fit_dataset(data)
    torch.manual_seed(0)
    net, scheduler = build(config, tuple(normaliser.mean.shape), len(classes))
    return Pipeline(net, scheduler, normaliser, config, classes).ready(torch.device("cpu"))


# ---------------------------------------------------------------- fixtures


@pytest.fixture
def own_rows():
    """What a test adds to the registries, and the modules that it includes, are gone after it."""
    tables = [*plugins.TABLES.values(), plugins.ADDED]
    before = [dict(table) for table in tables]
    path = [*sys.path]
    yield
    for table, rows in zip(tables, before):
        table.clear()
        table.update(rows)
    sys.path[:] = path
    for name in [name for name in sys.modules if name.startswith("include_")]:
        del sys.modules[name]


@pytest.fixture(autouse=True)
def seeded():
    """Begin every test with the same state of torch's global generator, in whatever order tests run."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def standard_normal():
    """The standard normal distribution in two dimensions, as a mixture of one Gaussian."""
    return gaussian([0.0, 0.0], 1.0)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """Lets the processes of tests share what is expensive: `made_once(name, make)` calls `make(folder)` in one of them.

    The others wait for it. Each gets a copy of that folder, into which it may write.
    """
    common = tmp_path_factory.getbasetemp()
    if fcntl and "PYTEST_XDIST_WORKER" in os.environ:
        common = common.parent

    def run_folder_path(name: str, make: Callable[[Path], object]) -> Path:
        original = common / f"{name}-original"
        with (common / f"{name}.lock").open("w") as lock:
            if fcntl:
                fcntl.flock(lock, fcntl.LOCK_EX)
            if not original.exists():
                unfinished = tmp_path_factory.mktemp(f"{name}-unfinished")
                make(unfinished)
                unfinished.rename(original)
        return Path(shutil.copytree(original, tmp_path_factory.mktemp(name), dirs_exist_ok=True))

    return run_folder_path


@pytest.fixture(scope="session")
def workplace(made_once):
    """A folder in which `python train.py` has been run once, for 300 steps, with what that printed in train.txt."""

    def make(folder):
        printed = succeeded(f"train.py {SMALL} max_steps=300 checkpoint_every=100 eval_samples=500", folder)
        (folder / "train.txt").write_text(printed)

    return made_once("workplace", make)


@pytest.fixture(scope="session")
def run(workplace):
    """The run folder of that training."""
    (folder,) = (workplace / "outputs" / "train").iterdir()
    return folder


def even_noise(dims, batch_size, batches="even"):
    """The noise of a training on data of these dimensions."""
    net = torch.nn.Linear(1, 1)
    normaliser = Normaliser(torch.zeros(dims), torch.ones(dims))
    pipeline = Pipeline(net, None, normaliser, {"t_power": 1.0, "label_dropout": 0.1, "batches": batches}, [])
    return Noise(pipeline, 0, batch_size)
