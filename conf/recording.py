"""Options of recordings, which several commands share (see config.py)."""

from dataclasses import dataclass

from conf.option import option


@dataclass
class Viewing:
    """recording"""

    rerun: bool = option(True, "make a recording for the rerun viewer; --no-rerun: make none")
    viewer: str = option(
        "auto",
        "where the recording is shown; window: in a window, web: on a web page on this machine,"
        " file: saved only, auto: in a window if there is a display, otherwise saved only",
        choices=("auto", "window", "web", "file"),
    )
    port: int | None = option(None, "port for viewer=web; default: a free one", low=1, high=65535)


@dataclass
class Recording(Viewing):
    """recording"""

    viz_steps: int = option(
        50,
        "states recorded, at most; they are even in log-SNR and include the first and the last",
        low=2,
    )
    track_samples: list[int] | None = option(
        None, "indices of the points whose paths are drawn, such as [0,10,20]; default: six points"
    )
    animation: str | None = option(
        "none",
        "also save the process as a short film; mp4 needs ffmpeg",
        choices=("none", "gif", "mp4"),
    )
    save_trajectory: bool = option(
        False,
        "also save the recorded states as trajectory.npz; `python scripts/animate.py trajectory.npz` makes a film",
    )


@dataclass
class Watching:
    """recording"""

    record: bool = option(
        False,
        "record in training.rrd how samples change while the network learns; they begin from the same noise",
    )
    viewer: str | None = option(
        None,
        "watch this recording live, in a window or on a web page on this machine; implies record=true",
        choices=("auto", "window", "web", "file"),
    )
    logger: str | None = option(
        None,
        "also log losses, figures and pictures with this package, which must be installed (pip"
        " install tensorboard); default: only loss.csv and the other files of the run folder",
        choices=("tensorboard", "wandb", "trackio"),
    )
    viz_save: bool = option(
        False,
        "for images: save grids of the denoising, and progress.gif, in viz/",
    )
    viz_live: bool = option(
        False,
        "for images: show these grids in a window while training; needs a display",
    )
    viz_interval: int = option(500, "optimizer steps between two grids", low=1)
    viz_num: int = option(8, "images in a grid", low=1)
    viz_t: int = option(
        -1,
        "step t from which a grid is denoised; -1: the last step, pure noise",
        low=-1,
    )
