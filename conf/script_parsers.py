"""Arguments of the programs in scripts/, loss/ and benchmarks/board.py, and checks of them that need no torch.

`--help`, unknown arguments and missing files are answered before a program imports torch, which
takes seconds: scripts/repository.py and loss/root.py, which each program imports first, call
`check_arguments`.
"""

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from conf.flags import command_line
from conf.folders import check_checkpoint
from conf.messages import EXPECTED, sentence
from conf.option import did_you_mean
from conf.pictures import STYLES
from conf.store import checked, composed, register

NETWORK_PARTS = ("mhsa", "mhca", "down", "bottleneck", "upsample", "unet")
PARTS = ("time", *NETWORK_PARTS, "mnist")  # of visualize_components.py
MNIST_ROOT = "data/MNIST/mnist_images"  # that of images/__init__.py
SEARCHED_FIGURE = "error of epsilon"

BOARD_TASKS = ("samplers", "training", "few_steps", "posterior", "guidance")  # of benchmarks/board_tasks.py
BOARD_OPTIONS = {
    "tasks": f"some of {','.join(BOARD_TASKS)}; default: all that apply",
    "sampler": "a sampler, with the exact denoiser: tasks samplers, few_steps and guidance",
    "method": "a posterior method, with the exact denoiser: task posterior",
    "submit": "a folder of samples, TASK/NAME.npy; needs name=",
    "name": "the name of the submitted entry",
    "seconds": "of CPU that the submitted model took to train; the ratio to the yardstick is measured now",
    "example": "a new folder, into which an entry of real points is written, and what an entry may use",
    "check": "measure nothing but the board itself: how many of that many sets of real points tie, and planted faults",
    "page": "true: only write the page again, from the rows",
    "out": "folder of the rows; a page is then written there as well; default: benchmarks/board_rows and docs/board.md",
}
BOARD_MODES = ("sampler", "method", "submit", "example", "check", "page")  # of which a line has one at most
BOARD_BELONGS = {"seconds": "submit"}
BOARD_NUMBERS: dict[str, Callable[[str], float]] = {"seconds": float, "check": int}


def check_arguments(program: str, words: Sequence[str]) -> None:
    """End the program where its arguments ask for help or hold a mistake.

    program: the name of its file without `.py`, such as "share". Programs without a row in PROGRAMS
        check their arguments themselves.
    """
    if program not in PROGRAMS:
        return
    parser, check = PROGRAMS[program]
    args = parser().parse_args(words)
    try:
        check(args)
    except EXPECTED as error:
        sys.exit(f"error: {sentence('train', error)}")


def _parser(program: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--include",
        metavar="FILE",
        help="a Python file of yours that adds samplers, networks and more, as in include=FILE of the commands",
    )  # conf/include.py takes it out of the arguments before they are parsed
    return parser


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run",
        nargs="?",
        help="a run folder or checkpoint, also as checkpoint=RUN; default: the newest",
    )


# ---------------------------------------------------------------- scripts/


def animate() -> argparse.ArgumentParser:
    parser = _parser("scripts/animate.py", "Make a film of the states that save_trajectory=true has recorded.")
    parser.add_argument(
        "recorded",
        metavar="RECORDED.npz",
        type=Path,
        nargs="+",
        help="recorded states; several files are shown side by side",
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=Path,
        help="FILE.gif or FILE.mp4; default: RECORDED.gif",
    )
    parser.add_argument(
        "--names",
        metavar="NAME",
        nargs="+",
        help="names of several files in the film; default: their folders",
    )
    _add_style(parser, "background of the film")
    return parser


def export() -> argparse.ArgumentParser:
    parser = _parser(
        "scripts/export.py",
        "Export a trained model as a folder to share: its weights as safetensors, its options, and a model card.\n"
        "checkpoint=DIR samples from it on any machine.",
    )
    _add_run(parser)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        required=True,
        help="the folder, which must be new or empty",
    )
    return parser


def gallery() -> argparse.ArgumentParser:
    parser = _parser(
        "scripts/gallery.py",
        "Make a page about several runs, with their samples, films, verdicts and pages to play with.\n"
        "All files that it shows are copied beside it, so that any web site can serve them.",
    )
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="run folders or checkpoints; default: the newest run",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        default=Path("outputs/gallery"),
        help="folder of the page, which is replaced there; default: %(default)s",
    )
    return parser


def reflow() -> argparse.ArgumentParser:
    parser = _parser(
        "scripts/reflow.py",
        "Straighten a trained flow: train it further on pairs of noise and sample (Liu, Gong and Liu 2023).\n"
        "The second flow is saved in RUN/reflow.",
    )
    parser.add_argument(
        "run",
        nargs="?",
        help="a run of schedule=flow, or its checkpoint; default: the newest run",
    )
    parser.add_argument(
        "--pairs",
        type=int,
        default=20_000,
        help="pairs of noise and sample; default: %(default)s",
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=2000,
        help="optimizer steps; default: %(default)s",
    )
    parser.add_argument(
        "--lr",
        type=float,
        default=4e-3,
        help="peak learning rate; default: %(default)s",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="seed of the pairs and of their order; default: %(default)s",
    )
    return parser


def search() -> argparse.ArgumentParser:
    parser = _parser(
        "scripts/search.py",
        "Search for options by training: python scripts/search.py runs/search lr=1e-3..3e-2 model.hidden=32,64\n"
        "searches the range LOW..HIGH of lr and the choices A,B of model.hidden with Optuna's TPE.\n"
        "Every other option holds for every trial. The same line again continues the search.",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder of the search")
    parser.add_argument(
        "options",
        nargs="+",
        metavar="OPTION=VALUES",
        help="options of train.py, searched or fixed",
    )
    parser.add_argument(
        "--figure",
        default=SEARCHED_FIGURE,
        help="number of metrics.json to minimise: loss, or a figure, which counts above its floor;"
        " default: %(default)s",
    )
    parser.add_argument(
        "--maximise",
        action="store_true",
        help="maximise the figure, for example recall, instead of minimising it",
    )
    parser.add_argument(
        "--cpu-seconds",
        type=float,
        default=math.inf,
        help="seconds of CPU that a training may take; default: any",
    )
    parser.add_argument(
        "--trials",
        type=int,
        default=20,
        help="trainings that this process begins; default: %(default)s",
    )
    return parser


def share() -> argparse.ArgumentParser:
    parser = _parser(
        "scripts/share.py",
        "Make an interactive page from a checkpoint: one HTML file that holds the network and runs it.",
    )
    _add_run(parser)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="the page; default: page.html in the run folder",
    )
    parser.add_argument(
        "--picture",
        type=Path,
        metavar="FILE",
        help="also save a PNG of the page, 1280x720 pixels, with an installed Chromium",
    )
    return parser


def visualize_components() -> argparse.ArgumentParser:
    parser = _parser(
        "scripts/visualize_components.py",
        "Make pictures of a network's parts, with random or trained weights, and of MNIST.",
    )
    parser.add_argument(
        "--device",
        default="cpu",
        help="cpu, cuda, cuda:1, mps ...; default: %(default)s",
    )
    parser.add_argument(
        "--outdir",
        default="artifacts",
        type=Path,
        metavar="DIR",
        help="folder of the pictures; default: %(default)s",
    )
    parser.add_argument(
        "--skip",
        nargs="*",
        default=[],
        choices=PARTS,
        metavar="PART",
        help=f"parts to skip, of {', '.join(PARTS)}",
    )
    parser.add_argument(
        "--mnist-root",
        metavar="DIR",
        help=f"folder of MNIST; default: {MNIST_ROOT}, if there is one",
    )
    parser.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="checkpoint or run folder of a model for images, whose weights replace random ones",
    )
    parser.add_argument(
        "--figures",
        default="png",
        metavar="FORMATS",
        help="file formats, such as png,pdf; default: %(default)s",
    )
    _add_style(parser, "background")
    return parser


# ---------------------------------------------------------------- benchmarks/


def board() -> argparse.ArgumentParser:
    options = "\n".join(f"  {name + '=':<10}{help}" for name, help in BOARD_OPTIONS.items())
    parser = _parser(
        "benchmarks/board.py",
        "Measure entries of the board, write their rows and the page docs/board.md.\n"
        "Without options, everything of moonwalk is measured.\n\n"
        f"options:\n{options}",
    )
    parser.add_argument("options", nargs="*", metavar="OPTION=VALUE", help="see above")
    return parser


def board_options(words: Sequence[str]) -> dict[str, str]:
    """The options of benchmarks/board.py by their names, from words such as tasks=samplers.

    Raises:
        ValueError: an unknown option, one without a value, or options that contradict each other.
    """
    found: dict[str, str] = {}
    for word in words:
        name, _, value = word.partition("=")
        if name not in BOARD_OPTIONS:
            raise ValueError(f"unknown option {name}{did_you_mean(name, BOARD_OPTIONS)}: see --help")
        if not value:
            raise ValueError(f"{name} needs a value, as in {name}=VALUE")
        found[name] = value

    _check_board_task_names(found.get("tasks"))
    modes = [name for name in BOARD_MODES if name in found]
    if len(modes) > 1:
        raise ValueError(f"{modes[0]}= and {modes[1]}= exclude each other: leave out one of them")
    if ("submit" in found) != ("name" in found):
        raise ValueError(
            "submit=FOLDER and name=NAME belong together: the folder of samples, and the name of the entry"
        )
    for name, needed in BOARD_BELONGS.items():
        if name in found and needed not in found:
            raise ValueError(f"{name}= belongs to {needed}=: leave it out, or give {needed}=")
    for name, read in BOARD_NUMBERS.items():
        if name in found:
            _check_positive(name, found[name], read)
    return found


def _check_board_task_names(tasks: str | None) -> None:
    for task in (tasks or "").split(","):
        if tasks is not None and task not in BOARD_TASKS:
            raise ValueError(f"the task {task!r} is unknown; choose some of {', '.join(BOARD_TASKS)}")


def _check_positive(name: str, value: str, read: Callable[[str], float]) -> None:
    try:
        is_right = 0 < read(value) < math.inf
    except ValueError:
        is_right = False
    if not is_right:
        kind = "whole number" if read is int else "number"
        raise ValueError(f"{name} needs a {kind} above 0; got {value}")


# ---------------------------------------------------------------- loss/


def plot() -> argparse.ArgumentParser:
    parser = _parser("loss/plot.py", "Plot the training loss of one or several runs.")
    parser.add_argument("runs", nargs="*", metavar="RUN", help="run folders; default: the newest")
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="the picture; default: loss.png in the run folder, or for several runs outputs/losses.png",
    )
    _add_style(parser, "background of the picture")
    return parser


def report() -> argparse.ArgumentParser:
    parser = _parser(
        "loss/report.py",
        "Make a page about all runs of a sweep or search: the options in which they differ, their samples,\n"
        "their figures beside the floors, and their losses. The page is a single HTML file.",
    )
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        type=Path,
        help="folder of the runs, such as outputs/train/<time>",
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=Path,
        help="the page; default: FOLDER/report.html",
    )
    return parser


def _add_style(parser: argparse.ArgumentParser, help: str) -> None:
    parser.add_argument("--style", choices=STYLES, default="light", help=f"{help}; default: %(default)s")


# ---------------------------------------------------------------- checks


def _check_board(args: argparse.Namespace) -> None:
    folder = board_options(args.options).get("submit")
    if folder and not Path(folder).is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")


def _check_films(args: argparse.Namespace) -> None:
    for path in args.recorded:
        if not path.exists():
            raise FileNotFoundError(f"there is no {path}; save_trajectory=true makes one")


def _check_runs(args: argparse.Namespace) -> None:
    for run in args.runs or [None]:
        check_checkpoint(run)


def _check_run(args: argparse.Namespace) -> None:
    run = args.run
    check_checkpoint(run.removeprefix("checkpoint=") if run else None)


def _check_export(args: argparse.Namespace) -> None:
    _check_run(args)
    check_out_is_free(args.out)


def check_out_is_free(out: Path) -> None:
    """Raises ValueError where the folder holds something already, or is no folder."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out}: that is a file; name a new folder")
    if out.is_dir() and any(out.iterdir()):
        raise ValueError(f"--out {out}: that folder is not empty; name a new one")


def _check_parts(args: argparse.Namespace) -> None:
    if args.checkpoint:
        check_checkpoint(args.checkpoint)
    if args.mnist_root and not Path(args.mnist_root).is_dir():
        raise FileNotFoundError(f"there is no folder {args.mnist_root}")


def _check_search(args: argparse.Namespace) -> None:
    """Check the names of all options, with the first of the values that each is searched over."""
    register("train")
    words = []
    for word in args.options:
        name, _, values = word.partition("=")
        first = values.partition("..")[0]
        if not first.startswith("["):
            first = first.partition(",")[0]
        words.append(f"{name}={first}")
    checked(composed("train", command_line(words).overrides))


def _check_losses(args: argparse.Namespace) -> None:
    for run in args.runs:
        if not Path(run).exists():
            raise FileNotFoundError(f"there is no loss to plot at {run}")


def _check_folder(args: argparse.Namespace) -> None:
    if not args.folder.is_dir():
        raise FileNotFoundError(f"there is no folder {args.folder}; it is one that holds runs")


# The parser of each program, and the check of what it has parsed.
PROGRAMS: dict[str, tuple[Callable[[], argparse.ArgumentParser], Callable[[argparse.Namespace], None]]] = {
    "animate": (animate, _check_films),
    "board": (board, _check_board),
    "export": (export, _check_export),
    "gallery": (gallery, _check_runs),
    "plot": (plot, _check_losses),
    "reflow": (reflow, _check_run),
    "report": (report, _check_folder),
    "search": (search, _check_search),
    "share": (share, _check_run),
    "visualize_components": (visualize_components, _check_parts),
}
