"""Grids of the denoising while an image network learns: the same images under the same noise, again and again.

A column is one real image, noised to step t and taken back in a few deterministic steps (DDIM) by the averaged network.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from images.sets import ImageSet
from runtime.randomness import generator
from runtime.trained import Trained
from sampler import State, ddim
from schedule import NoiseScheduler
from viz import films as animation
from viz.image_grids import Sheet, table_picture

FOLDER, FILM = "viz", "progress.gif"
EVALUATIONS = 10  # of the network for one grid
GUESSES_AT = (1, 0.8, 0.5, 0.2)  # of the way: where the guesses shown come from
FRAMES_PER_S = 5
EVENTS_S = 0.05  # given to the window for each picture
WHAT = "each column: a real image, noised, and what the network makes of that"

# grid(done, loss): to be called after every optimizer step; loss is the mean of the last steps, where one is due
Grid = Callable[[int, float | None], None]


def check(config: dict[str, Any], images: bool) -> None:
    """Raises ValueError where no grids can be drawn as `config` asks; before anything long begins."""
    if not (config["viz_save"] or config["viz_live"]):
        return
    if not images:
        raise ValueError("viz_save and viz_live draw grids of images; to watch points being learnt take record=true")
    if config["viz_t"] >= config["num_timesteps"]:
        last = config["num_timesteps"] - 1
        raise ValueError(f"viz_t must be -1, the last step, or lie in 0..{last}; got {config['viz_t']}")


@contextmanager
def drawn(run_folder: Path, trained: Trained, data: ImageSet, steps_per_epoch: int, total: int) -> Iterator[Grid]:
    """What a training of `total` steps calls on its way; without viz_save or viz_live it does nothing.

    With viz_save it ends in FOLDER/FILM, made of all grids that were saved, also where the training is broken off.
    """
    config, saved = trained.config, []
    if not (config["viz_save"] or config["viz_live"]):
        yield lambda done, loss: None
        return
    picture = _painter(trained, data)
    show = window() if config["viz_live"] else None
    last_loss = None

    def grid(done: int, loss: float | None) -> None:
        nonlocal last_loss
        last_loss = loss or last_loss
        epoch = -(-done // steps_per_epoch)
        due = [f"it{done}"] if done % config["viz_interval"] == 0 else []
        due += ["end"] if done % steps_per_epoch == 0 or done == total else []
        for name in due:
            pixels = picture(f"{'end of ' * (name == 'end')}epoch {epoch}, step {done:,}", last_loss)
            if config["viz_save"]:
                saved.append(run_folder / FOLDER / f"denoise_progress_ep{epoch}_{name}.png")
                saved[-1].parent.mkdir(exist_ok=True)
                Image.fromarray(pixels).save(saved[-1])
            if show:
                show(pixels)

    try:
        yield grid
    finally:
        if saved:
            pictures = [np.asarray(Image.open(path)) for path in saved]
            print(f"progress:   {animation.write(pictures, run_folder / FOLDER / FILM, FRAMES_PER_S)}")


# ---------------------------------------------------------------- one grid


def _painter(trained: Trained, data: ImageSet) -> Callable[[str, float | None], NDArray[np.uint8]]:
    """A function of when it is and of the loss that draws the grid (H, W, 3) of the network as it then is."""
    config, scheduler = trained.config, trained.scheduler
    x_0, *label = data[: config["viz_num"]]
    timesteps = timesteps_below(scheduler, config["viz_t"])
    eps = torch.randn(x_0.shape, generator=generator(config["seed"], "grids"))
    x_t = scheduler.add_noise(x_0, torch.tensor(timesteps[0]), eps)
    label = label[0] if trained.classes else None
    names = [trained.classes[i] for i in label.tolist()] if trained.classes else []
    shown = sorted({int(np.abs(np.array(timesteps) - share * timesteps[0]).argmin()) for share in GUESSES_AT})
    rows = ["real image", f"x_t: noised {timesteps[0] + 1} times"]
    rows += [f"guess of x_0\nat {timesteps[i] + 1} noisings" for i in shown] + ["result"]
    sheet = None

    def picture(when: str, loss: float | None) -> NDArray[np.uint8]:
        nonlocal sheet
        states = denoised(trained, x_t, label, timesteps)
        images = torch.stack([x_0, x_t, *(states[i].x_0.cpu() for i in shown), states[-1].x_t.cpu()])
        title = f"{when}{'' if loss is None else f', loss {loss:.4f}'}\n{WHAT}"
        tiles = table_picture(images.numpy())
        sheet = sheet or Sheet(tiles, title, rows, names)
        return sheet.turn(tiles, title)

    return picture


def timesteps_below(scheduler: NoiseScheduler, viz_t: int) -> list[int]:
    """At most EVALUATIONS distinct steps from viz_t (-1: T - 1) down to 0, evenly spaced."""
    first = scheduler.num_timesteps - 1 if viz_t == -1 else viz_t
    return sorted(set(np.linspace(first, 0, EVALUATIONS).round().astype(int).tolist()), reverse=True)


def denoised(trained: Trained, x_t: Tensor, label: Tensor | None, timesteps: Sequence[int]) -> list[State]:
    """The states of a DDIM from x_t at timesteps[0]. Leaves the network, and all random numbers, as they were."""
    net, training = trained.net, trained.net.training
    device = next(net.parameters()).device
    net.eval()
    denoise = partial(trained.denoise(), label=None if label is None else label.to(device))
    states = list(ddim(denoise, trained.scheduler, x_t.to(device), timesteps=timesteps))
    net.train(training)
    return states


# ---------------------------------------------------------------- a window


def window() -> Callable[[NDArray[np.uint8]], None] | None:
    """A function that shows a picture (H, W, 3) in matplotlib's window; None, and a line that says so, without one."""
    import matplotlib.pyplot as plt
    from matplotlib.backends import BackendFilter, backend_registry

    try:
        figure = plt.figure("moonwalk: denoising")
        able = plt.get_backend().lower() in map(str.lower, backend_registry.list_builtin(BackendFilter.INTERACTIVE))
    except Exception:  # every toolkit raises what it likes where its display does not answer
        able = False
    if not able:
        plt.close("all")
        print("viz_live: no window can be opened here (no display?); viz_save=true keeps the grids as files")
        return None

    def show(pixels: NDArray[np.uint8]) -> None:
        if not plt.fignum_exists(figure.number):  # the person has closed it
            return
        if not figure.axes:
            height, width = pixels.shape[:2]
            figure.set_size_inches(width / figure.dpi, height / figure.dpi)
            figure.add_axes((0, 0, 1, 1), frameon=False, xticks=[], yticks=[]).imshow(pixels)
            plt.show(block=False)
        figure.axes[0].images[0].set_data(pixels)
        figure.canvas.draw()
        figure.canvas.start_event_loop(EVENTS_S)  # plt.pause would push the window in front of all others each time

    return show
