"""The options of recordings, which several commands share (see config.py)."""

from dataclasses import dataclass

from conf.option import free, option


@dataclass
class Viewing:
    """recording"""

    rerun: bool = option(True, "make a rerun recording (--no-rerun: none)")
    viewer: str = option(
        "auto",
        "where the recording goes: a window, a web page on this machine or a file; auto: a window if there is a"
        " display, else a file",
        choices=("auto", "window", "web", "file"),
    )
    port: int | None = option(None, "port for viewer=web; default: a free one", low=1, high=65535)


@dataclass
class Recording(Viewing):
    """recording"""

    viz_steps: int = option(50, "states recorded, at most: even in log-SNR, with the first and the last", low=2)
    track_samples: list[int] | None = option(None, "points with their paths in cyan, such as [0,10,20]; default: six")
    animation: str | None = option(
        "none", "also save the process as a short film; mp4 needs ffmpeg", choices=("none", "gif", "mp4")
    )
    save_trajectory: bool = option(
        False, "also save the recorded states as trajectory.npz, for `python scripts/animate.py trajectory.npz`"
    )


@dataclass
class Watching:
    """recording"""

    record: bool = free(False, "record how samples from the same noise change: training.rrd")
    viewer: str | None = free(
        None,
        "watch this recording live, in a window or a web page on this machine; implies record",
        choices=("auto", "window", "web", "file"),
    )
    logger: str | None = free(
        None,
        "also log losses, figures and pictures there; each is a package to install (pip install tensorboard); default:"
        " loss.csv and the run folder's other files alone",
        choices=("tensorboard", "wandb", "trackio"),
    )
    viz_save: bool = free(False, "save image grids of the denoising, and progress.gif, in viz/")
    viz_live: bool = free(False, "show these grids in a window while training; needs a display")
    viz_interval: int = free(500, "optimizer steps between grids", low=1)
    viz_num: int = free(8, "images in a grid", low=1)
    viz_t: int = free(-1, "the step t from which a grid is denoised; -1: the last, pure noise", low=-1)
