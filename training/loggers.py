"""A training's tables, figures and pictures for TensorBoard, Weights & Biases or trackio as well.

Their packages are optional, and imported only where a training asks for one.
"""

import hashlib
import importlib
import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np
from PIL import Image

from loss.log import EXCESS_FILE, LOSS_FILE
from loss.moments import Callback, Moment

PROJECT = "moonwalk"


class Board(Protocol):
    """A place that shows numbers and pictures by the optimizer step to which they belong."""

    def numbers(self, step: int, values: Mapping[str, float]) -> None: ...

    def picture(self, step: int, name: str, path: Path) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in the folder tensorboard/ of a run: `tensorboard --logdir outputs`."""

    def __init__(self, folder: Path, config: Mapping[str, Any], start: int) -> None:
        writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter
        purge_step = start + 1 if start else None
        self.writer = writer(str(folder / "tensorboard"), purge_step=purge_step)
        if not start:
            options = json.dumps(config, indent=1, default=str)
            self.writer.add_text("options", f"```\n{options}\n```")

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def picture(self, step: int, name: str, path: Path) -> None:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        self.writer.add_image(name, pixels, step, dataformats="HWC")

    def close(self) -> None:
        self.writer.close()


class Hosted:
    """wandb, or trackio, which has the same functions. A resumed training continues its run."""

    def __init__(self, package: str, folder: Path, config: Mapping[str, Any]) -> None:
        self.package = importlib.import_module(package)
        identity = hashlib.blake2b(bytes(folder.absolute()), digest_size=6).hexdigest()
        own: dict[str, Any] = {"id": identity, "name": folder.name, "dir": str(folder)}
        if package == "trackio":  # knows a run by its name, and would watch the machine
            own = {
                "name": f"{folder.name}-{identity}",
                "embed": False,
                "auto_log_gpu": False,
                "auto_log_cpu": False,
            }
        try:
            options = dict(config)
            self.run = self.package.init(project=PROJECT, config=options, resume="allow", **own)
        except Exception as error:  # no account, no network: each package raises errors of its own
            reason = " ".join(str(error).split())
            raise ValueError(f"logger={package} could not begin: {reason}") from error

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
    """Make the board of that name.

    Raises:
        ValueError: it cannot begin, for example without an account.
    """
    if logger == "tensorboard":
        return TensorBoard(folder, config, start)
    return Hosted(logger, folder, config)


class Follower(Callback):
    """Copies each new row of loss.csv and excess.csv, and each new picture of `grids`, to a board.

    It must be called after the callbacks that write them. `end` adds what the evaluation leaves in
    the run folder.
    """

    def __init__(self, folder: Path, board: Board, start: int, grids: Sequence[Path] = ()) -> None:
        self.folder = folder
        self.board = board
        self.done = start
        self.grids = grids
        self.num_shown = len(grids)
        paths = [folder / LOSS_FILE, folder / EXCESS_FILE]
        self.tables = [_opened_at_end(path) for path in paths if path.exists()]

    def after(self, moment: Moment) -> None:
        self.done = moment.done
        for names, file in self.tables:
            for line in file:
                step, *values = map(float, line.split(","))
                self.board.numbers(int(step), dict(zip(names, values)))
        for path in self.grids[self.num_shown :]:
            self.board.picture(self.done, "pictures/progress", path)
        self.num_shown = len(self.grids)

    def close(self) -> None:
        for _, file in self.tables:
            file.close()

    def end(self) -> None:
        """Copy the figures and pictures of the evaluation, if there was one, and close the board."""
        path = self.folder / "metrics.json"
        metrics = json.loads(path.read_bytes()) if path.exists() else {}
        if metrics.get("steps") == self.done:
            values = {"final loss": metrics["loss"], "cpu_seconds": metrics["cpu_seconds"]}
            for name, row in metrics.get("figures", {}).items():
                values[f"figures/{name}"] = row["value"]
                values[f"figures/{name} (floor)"] = row["floor"]
            self.board.numbers(self.done, values)
            for picture in sorted(self.folder.glob("*.png")):
                self.board.picture(self.done, f"pictures/{picture.stem}", picture)
        self.board.close()


def _opened_at_end(path: Path) -> tuple[list[str], TextIO]:
    """The board's names for the columns of a table but the step, and the file.

    Only rows that are written later will be read from it.
    """
    file = path.open(encoding="utf-8")
    _, *columns = file.readline().strip().split(",")
    file.seek(0, 2)
    names = []
    for column in columns:
        of_one_step = column[1:].isdigit()  # t25, the excess at t = 25
        names.append(f"excess by step/{column}" if of_one_step else column)
    return names, file
