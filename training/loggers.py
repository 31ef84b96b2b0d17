"""Where teams look: a training's tables, figures and pictures for TensorBoard, Weights & Biases or trackio as well.

Their packages are optional, and imported only where a training asks for one.
"""

import hashlib
import importlib
import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from loss.log import EXCESS_NAME, NAME
from loss.moments import Moment

PROJECT = "moonwalk"
KEYS = {"value": "", "floor": " (floor)"}  # of a figure


class Board(Protocol):
    """Numbers and pictures by the optimizer step to which they belong."""

    def numbers(self, step: int, values: Mapping[str, float]) -> None: ...

    def picture(self, step: int, name: str, path: Path) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in the run folder's tensorboard/: `tensorboard --logdir outputs`."""

    def __init__(self, folder: Path, config: Mapping[str, Any], start: int) -> None:
        writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter
        self.writer = writer(str(folder / "tensorboard"), purge_step=start + 1 if start else None)
        if not start:
            self.writer.add_text("options", f"```\n{json.dumps(config, indent=1, default=str)}\n```")

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def picture(self, step: int, name: str, path: Path) -> None:
        with Image.open(path) as image:
            self.writer.add_image(name, np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        self.writer.close()


class Hosted:
    """wandb, or trackio, which has the same functions. A training that is resumed goes on in its run there."""

    def __init__(self, package: str, folder: Path, config: Mapping[str, Any]) -> None:
        self.package = importlib.import_module(package)
        name = hashlib.blake2b(bytes(folder.absolute()), digest_size=6).hexdigest()
        own: dict[str, Any] = {"id": name, "name": folder.name, "dir": str(folder)}
        if package == "trackio":  # knows a run by its name, and would open its page and watch the machine
            own = {"name": f"{folder.name}-{name}", "embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
        try:
            self.run = self.package.init(project=PROJECT, config=dict(config), resume="allow", **own)
        except Exception as error:  # no account, no network: each has errors of its own
            raise ValueError(f"logger={package} could not begin: {' '.join(str(error).split())}") from error

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def picture(self, step: int, name: str, path: Path) -> None:
        self.run.log({name: self.package.Image(str(path))}, step=step)

    def close(self) -> None:
        self.run.finish()


def check(logger: str | None) -> None:
    """Raises ValueError where the package of a logger is not installed."""
    if logger and not importlib.util.find_spec(logger):
        raise ValueError(f"logger={logger} needs a package that is not installed: `pip install {logger}`")


def board(logger: str, folder: Path, config: Mapping[str, Any], start: int) -> Board:
    """What `logger` names, begun. Raises ValueError where it cannot begin, without an account, say."""
    return TensorBoard(folder, config, start) if logger == "tensorboard" else Hosted(logger, folder, config)


class Follower:
    """Hands on every new row of loss.csv and excess.csv; at the end what the evaluation left in the run folder.

    A watcher that is called after those that write the tables, and after the one that appends to `grids`, pictures of
    the progress.
    """

    def __init__(self, folder: Path, board: Board, start: int, grids: Sequence[Path] = ()) -> None:
        self.folder, self.board, self.done = folder, board, start
        self.grids, self.shown = grids, len(grids)
        self.tables = [_begun(path) for path in (folder / NAME, folder / EXCESS_NAME) if path.exists()]

    def after(self, moment: Moment) -> None:
        self.done = moment.done
        for names, file in self.tables:
            for line in file:
                step, *values = map(float, line.split(","))
                self.board.numbers(int(step), dict(zip(names, values)))
        for path in self.grids[self.shown :]:
            self.board.picture(self.done, "pictures/progress", path)
        self.shown = len(self.grids)

    def close(self) -> None:
        for _, file in self.tables:
            file.close()

    def end(self) -> None:
        """Figures and pictures of the evaluation, where the training came to it; then nothing more."""
        path = self.folder / "metrics.json"
        found = json.loads(path.read_bytes()) if path.exists() else {}
        if found.get("steps") == self.done:
            rows = found.get("figures", {})
            figures = {f"figures/{name}{of}": row[key] for name, row in rows.items() for key, of in KEYS.items()}
            self.board.numbers(self.done, {"final loss": found["loss"], "cpu_seconds": found["cpu_seconds"], **figures})
            for picture in sorted(self.folder.glob("*.png")):
                self.board.picture(self.done, f"pictures/{picture.stem}", picture)
        self.board.close()


def _begun(path: Path) -> tuple[list[str], Any]:
    """The columns behind the step, under the names that they get, and the file, to be read on behind its last row."""
    file = path.open(encoding="utf-8")
    _, *columns = file.readline().strip().split(",")
    file.seek(0, 2)
    return [f"excess by step/{name}" if name[1:].isdigit() else name for name in columns], file
