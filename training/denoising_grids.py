"""Grids of images that show how a network learns to denoise: each time the same noised images.

A column is one real image, noised to step t and denoised in a few deterministic steps (DDIM) by the
averaged network.
"""

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.backends.registry import BackendFilter, backend_registry
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from images.sets import ImageSet
from loader import epochs_in_steps, steps_in_epochs
from loss.moments import Callback, Moment
from pipeline import Pipeline
from runtime.atomic_file import atomic_file
from runtime.randomness import generator
from samplers.ancestral import ddim
from samplers.steps import State
from schedule import evenly_spaced, step_from_t
from viz.films.film_files import write
from viz.image_grids import Sheet, table_picture
from viz.scene import HELD_S

FOLDER = "viz"
FILM = "progress.gif"
EVALUATIONS = 10  # of the network for one grid
SHOWN_AT = (1, 0.8, 0.5, 0.2)  # predictions of x_0 are shown at these shares of the first t
FRAMES_PER_S = 5
WINDOW = "moonwalk: denoising"
EVENTS_S = 0.05  # seconds for the window's events after each picture
CAPTION = "each column: a real image, noised, and what the network makes of that"


def check(viz_t: int, num_timesteps: int, images: bool) -> None:
    """Raises ValueError where no grids can be drawn; called before anything long begins."""
    if not images:
        raise ValueError("viz_save and viz_live draw grids of images; to watch points being learnt take record=true")
    last = num_timesteps - 1
    if viz_t > last:
        raise ValueError(f"viz_t must be -1, the last step, or lie in 0..{last}; got {viz_t}")


class Grids(Callback):
    """Draws a grid every viz_interval optimizer steps and at the end of each epoch.

    With viz_save the grids are kept in FOLDER, and at the end become the film FOLDER/FILM. With
    viz_live a window shows them.

    saved: the paths of the grids that are kept.
    """

    def __init__(self, run_folder: Path, pipeline: Pipeline, data: ImageSet, begin: Moment, total: int) -> None:
        config = pipeline.config
        self.folder = run_folder / FOLDER
        self.total = total
        self.interval = config["viz_interval"]
        self.sizes = (len(data), config["batch_size"])
        self.painter = GridPainter(pipeline, data, config["viz_num"], config["viz_t"])
        self.save = config["viz_save"]
        self.show = window(config["viz_save"]) if config["viz_live"] else None
        self.saved = saved_grids(self.folder, begin.done, total, *self.sizes)
        self.loss = begin.loss

    def after(self, moment: Moment) -> None:
        if moment.loss is not None:
            self.loss = moment.loss
        done = moment.done
        epoch = epochs_in_steps(done - 1, *self.sizes) + 1  # in which this step began
        if done % self.interval == 0:
            self._draw(f"epoch {epoch}, step {done:,}", f"denoise_progress_ep{epoch}_it{done}.png")
        if epochs_in_steps(done, *self.sizes) == epoch or done == self.total:
            when = f"end of epoch {epoch}, step {done:,}"
            self._draw(when, f"denoise_progress_ep{epoch}_end.png")

    def _draw(self, when: str, name: str) -> None:
        pixels = self.painter.picture(when, self.loss)
        if self.save:
            path = self.folder / name
            self.folder.mkdir(exist_ok=True)
            with atomic_file(path) as file:
                Image.fromarray(pixels).save(file, "PNG")
            self.saved.append(path)
        if self.show:
            self.show(pixels)

    def close(self) -> None:
        if not self.saved:
            return
        frames = [1] * len(self.saved)
        frames[-1] = round(HELD_S * FRAMES_PER_S)
        film = [(np.asarray(Image.open(path)), count) for path, count in zip(self.saved, frames)]
        print(f"progress:   {write(film, self.folder / FILM, FRAMES_PER_S)}")


def saved_grids(folder: Path, start: int, total: int, num_rows: int, batch_size: int) -> list[Path]:
    """The grids that a resumed training has drawn up to step `start`, in their order.

    Later ones are drawn again.
    """
    paths = {}
    for path in folder.glob("denoise_progress_ep*_*.png"):
        found = re.fullmatch(r"denoise_progress_ep(\d+)_(?:it(\d+)|end)", path.stem)
        if not found:
            continue
        epoch, step = found.groups()
        at_end = step is None
        if at_end:
            step = min(steps_in_epochs(int(epoch), num_rows, batch_size), total)
        paths[int(step), at_end] = path
    return [paths[key] for key in sorted(paths) if key[0] <= start]


# ---------------------------------------------------------------- one grid


class GridPainter:
    """Draws a grid of the network as it is now: images, x_t, predictions of x_0 and results.

    The images and their noise are the same in every grid.
    """

    def __init__(self, pipeline: Pipeline, data: ImageSet, num: int, viz_t: int) -> None:
        self.pipeline = pipeline
        scheduler = pipeline.scheduler
        first = scheduler.num_timesteps - 1 if viz_t == -1 else viz_t
        self.timesteps = evenly_spaced(first, 0, EVALUATIONS)

        self.x_0, *labels = data[:num]
        eps = torch.randn(self.x_0.shape, generator=generator(pipeline.config["seed"], "grids"))
        self.x_t = scheduler.add_noise(self.x_0, torch.tensor(first), eps)
        self.label = labels[0] if pipeline.classes else None

        steps = np.array(self.timesteps)
        self.shown = sorted({int(np.abs(steps - share * first).argmin()) for share in SHOWN_AT})
        self.sheet: Sheet | None = None

    def picture(self, when: str, loss: float | None) -> NDArray[np.uint8]:
        """The grid (H, W, 3). Its title says `when` it was drawn, and the loss at that time."""
        states = denoised(self.pipeline, self.x_t, self.label, self.timesteps)
        predictions = [states[i].x_0.cpu() for i in self.shown]
        images = torch.stack([self.x_0, self.x_t, *predictions, states[-1].x_t.cpu()])
        tiles = table_picture(images.numpy())

        loss_text = "" if loss is None else f", loss {loss:.4f}"
        title = f"{when}{loss_text}\n{CAPTION}"
        if self.sheet is None:
            self.sheet = Sheet(tiles, title, self._row_names(), self._column_names())
        return self.sheet.turn(tiles, title)

    def _row_names(self) -> list[str]:
        names = ["real image", f"x_t: after {step_from_t(self.timesteps[0])} steps"]
        for i in self.shown:
            names.append(f"x_0 prediction\nat step {step_from_t(self.timesteps[i])}")
        return [*names, "result"]

    def _column_names(self) -> list[str]:
        if self.label is None:
            return []
        return [self.pipeline.classes[i] for i in self.label.tolist()]


def denoised(pipeline: Pipeline, x_t: Tensor, label: Tensor | None, timesteps: Sequence[int]) -> list[State]:
    """The states of a DDIM from x_t at timesteps[0].

    The network, and all generators of random numbers, stay as they were.
    """
    net = pipeline.net
    device = pipeline.device
    training = net.training
    net.eval()
    if label is not None:
        label = label.to(device)
    denoise = partial(pipeline.denoiser(), label=label)
    states = list(ddim(denoise, pipeline.scheduler, x_t.to(device), timesteps=timesteps))
    net.train(training)
    return states


# ---------------------------------------------------------------- a window


def window(saved: bool = False) -> Callable[[NDArray[np.uint8]], None] | None:
    """A function that shows a picture (H, W, 3) in a window of matplotlib.

    Where no window can be opened, it prints a line that says so and returns None.

    saved: whether the grids are kept as files anyway; otherwise the line says how.
    """
    figure = None
    interactive = False
    with suppress(Exception):  # without a display, each toolkit raises errors of its own
        figure = plt.figure(WINDOW)
        names = backend_registry.list_builtin(BackendFilter.INTERACTIVE)
        interactive = plt.get_backend().lower() in [name.lower() for name in names]
    if figure is None or not interactive:
        plt.close("all")
        advice = "the grids are files in the run folder" if saved else "viz_save=true keeps the grids as files"
        tqdm.write(f"viz_live: no window can be opened here (no display?); {advice}")
        return None
    return partial(_show, figure)


def _show(figure: Figure, pixels: NDArray[np.uint8]) -> None:
    if not plt.fignum_exists(WINDOW):  # the user has closed it
        return
    if not figure.axes:
        height, width = pixels.shape[:2]
        figure.set_size_inches(width / figure.dpi, height / figure.dpi)
        figure.add_axes((0, 0, 1, 1), frameon=False, xticks=[], yticks=[]).imshow(pixels)
        plt.show(block=False)
    figure.axes[0].images[0].set_data(pixels)
    figure.canvas.draw()
    figure.canvas.start_event_loop(EVENTS_S)  # plt.pause would raise the window above all others
