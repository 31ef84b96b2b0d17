"""Grids of the denoising while an image network learns: the same images under the same noise, again and again.

A column is one real image, noised to step t and taken back in a few deterministic steps (DDIM) by the averaged network.
"""

import re
from collections.abc import Callable, Sequence
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

from images.sets import ImageSet
from loader import epochs_of, steps_of
from loss.moments import Moment
from pipeline import Pipeline
from runtime.atomic_file import atomic_file
from runtime.randomness import generator
from samplers.ancestral import ddim
from samplers.steps import State
from schedule import evenly, step_of
from viz.films.film_files import write
from viz.image_grids import Sheet, table_picture
from viz.scene import HELD_S

FOLDER, FILM = "viz", "progress.gif"
EVALUATIONS = 10  # of the network for one grid
GUESSES_AT = (1, 0.8, 0.5, 0.2)  # of the way: where the guesses shown come from
FRAMES_PER_S = 5
EVENTS_S = 0.05  # given to the window for each picture
WHAT = "each column: a real image, noised, and what the network makes of that"


def check(viz_t: int, num_timesteps: int, images: bool) -> None:
    """Raises ValueError where no grids can be drawn; before anything long begins."""
    if not images:
        raise ValueError("viz_save and viz_live draw grids of images; to watch points being learnt take record=true")
    if viz_t >= num_timesteps:
        raise ValueError(f"viz_t must be -1, the last step, or lie in 0..{num_timesteps - 1}; got {viz_t}")


class Grids:
    """Draws a grid every viz_interval optimizer steps and at the end of each epoch, as trained.config asks for it.

    With viz_save they are kept in FOLDER, and FOLDER/FILM is made of them at the end; with viz_live a window shows
    them.
    """

    def __init__(self, run_folder: Path, pipeline: Pipeline, data: ImageSet, begin: Moment, total: int) -> None:
        o = pipeline.config
        self.folder, self.total, self.sizes = run_folder / FOLDER, total, (len(data), o["batch_size"])
        self.save, self.every, self.show = o["viz_save"], o["viz_interval"], window() if o["viz_live"] else None
        self.picture = _painter(pipeline, data, o["viz_num"], o["viz_t"])
        self.saved, self.loss = kept(self.folder, begin.done, total, *self.sizes), begin.loss

    def after(self, moment: Moment) -> None:
        done, self.loss = moment.done, self.loss if moment.loss is None else moment.loss
        epoch = epochs_of(done - 1, *self.sizes) + 1  # in which this step began
        due = [f"it{done}"] if done % self.every == 0 else []
        due += ["end"] if epochs_of(done, *self.sizes) == epoch or done == self.total else []
        for name in due:
            pixels = self.picture(f"{'end of ' * (name == 'end')}epoch {epoch}, step {done:,}", self.loss)
            if self.save:
                self.folder.mkdir(exist_ok=True)
                self.saved.append(self.folder / f"denoise_progress_ep{epoch}_{name}.png")
                with atomic_file(self.saved[-1]) as file:
                    Image.fromarray(pixels).save(file, "PNG")
            if self.show:
                self.show(pixels)

    def close(self) -> None:
        if self.saved:
            stays = [1] * (len(self.saved) - 1) + [round(HELD_S * FRAMES_PER_S)]
            film = [(np.asarray(Image.open(path)), frames) for path, frames in zip(self.saved, stays)]
            print(f"progress:   {write(film, self.folder / FILM, FRAMES_PER_S)}")


def kept(folder: Path, start: int, total: int, num_rows: int, batch_size: int) -> list[Path]:
    """The grids that a resumed training has drawn up to step `start`, in their order; later ones are drawn again."""
    by_step = {}
    for path in folder.glob("denoise_progress_ep*_*.png"):
        if found := re.fullmatch(r"denoise_progress_ep(\d+)_(?:it(\d+)|end)", path.stem):
            step = int(found[2] or min(steps_of(int(found[1]), num_rows, batch_size), total))
            by_step[step, found[2] is None] = path
    return [by_step[when] for when in sorted(by_step) if when[0] <= start]


# ---------------------------------------------------------------- one grid


def _painter(
    pipeline: Pipeline, data: ImageSet, num: int, viz_t: int
) -> Callable[[str, float | None], NDArray[np.uint8]]:
    """A function of when it is and of the loss that draws the grid (H, W, 3) of the network as it then is."""
    scheduler = pipeline.scheduler
    x_0, *labels = data[:num]
    timesteps = evenly(scheduler.num_timesteps - 1 if viz_t == -1 else viz_t, 0, EVALUATIONS)
    eps = torch.randn(x_0.shape, generator=generator(pipeline.config["seed"], "grids"))
    x_t = scheduler.add_noise(x_0, torch.tensor(timesteps[0]), eps)
    label = labels[0] if pipeline.classes else None
    names = [] if label is None else [pipeline.classes[i] for i in label.tolist()]
    shown = sorted({int(np.abs(np.array(timesteps) - share * timesteps[0]).argmin()) for share in GUESSES_AT})
    rows = ["real image", f"x_t: after {step_of(timesteps[0])} steps"]
    rows += [f"guess of x_0\nat step {step_of(timesteps[i])}" for i in shown] + ["result"]
    sheet = None

    def picture(when: str, loss: float | None) -> NDArray[np.uint8]:
        nonlocal sheet
        states = denoised(pipeline, x_t, label, timesteps)
        images = torch.stack([x_0, x_t, *(states[i].x_0.cpu() for i in shown), states[-1].x_t.cpu()])
        title = f"{when}{'' if loss is None else f', loss {loss:.4f}'}\n{WHAT}"
        tiles = table_picture(images.numpy())
        sheet = sheet or Sheet(tiles, title, rows, names)
        return sheet.turn(tiles, title)

    return picture


def denoised(pipeline: Pipeline, x_t: Tensor, label: Tensor | None, timesteps: Sequence[int]) -> list[State]:
    """The states of a DDIM from x_t at timesteps[0]. Leaves the network, and all random numbers, as they were."""
    net, training, device = pipeline.net, pipeline.net.training, pipeline.device
    net.eval()
    denoise = partial(pipeline.denoiser(), label=None if label is None else label.to(device))
    states = list(ddim(denoise, pipeline.scheduler, x_t.to(device), timesteps=timesteps))
    net.train(training)
    return states


# ---------------------------------------------------------------- a window


def window() -> Callable[[NDArray[np.uint8]], None] | None:
    """A function that shows a picture (H, W, 3) in matplotlib's window; None, and a line that says so, without one."""
    try:
        figure = plt.figure("moonwalk: denoising")
        able = plt.get_backend().lower() in map(str.lower, backend_registry.list_builtin(BackendFilter.INTERACTIVE))
    except Exception:  # every toolkit raises what it likes where its display does not answer
        figure, able = None, False
    if figure is None or not able:
        plt.close("all")
        print("viz_live: no window can be opened here (no display?); viz_save=true keeps the grids as files")
        return None
    return partial(_show, figure)


def _show(figure: Figure, pixels: NDArray[np.uint8]) -> None:
    if not plt.fignum_exists("moonwalk: denoising"):  # the person has closed it
        return
    if not figure.axes:
        height, width = pixels.shape[:2]
        figure.set_size_inches(width / figure.dpi, height / figure.dpi)
        figure.add_axes((0, 0, 1, 1), frameon=False, xticks=[], yticks=[]).imshow(pixels)
        plt.show(block=False)
    figure.axes[0].images[0].set_data(pixels)
    figure.canvas.draw()
    figure.canvas.start_event_loop(EVENTS_S)  # plt.pause would push the window in front of all others each time
