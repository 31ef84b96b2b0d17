"""Plot the training loss of one or several runs: `python loss/plot.py [RUN ...] [--out FILE]`."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, Python only knows loss/

from loss.log import NAME
from runtime.checkpoint_file import FOLDERS, newest_first
from viz import style
from viz.evaluation_pictures import save_losses

OF_SEVERAL = "outputs/losses.png"  # no run's own picture


def newest_run() -> Path:
    """The folder below outputs/ and runs/ whose loss.csv was written last."""
    found = newest_first(NAME)
    if not found:
        raise FileNotFoundError(f"no run yet below {' or '.join(FOLDERS)}: run `python train.py` first, or name one")
    return found[0].parent


def main() -> None:
    parser = argparse.ArgumentParser(description="Plot the training loss of one or several runs.")
    parser.add_argument("runs", nargs="*", metavar="RUN", help="run folders; default: the newest")
    default = f"loss.png in the run folder; of several runs {OF_SEVERAL}"
    parser.add_argument("--out", metavar="FILE", help=f"the picture; default: {default}")
    parser.add_argument("--style", choices=style.STYLES, default="light", help="default: %(default)s")
    args = parser.parse_args()
    try:
        runs = [Path(run) for run in args.runs] or [newest_run()]
        default = runs[0] / "loss.png" if len(runs) == 1 else OF_SEVERAL
        style.use(args.style)
        print(save_losses(args.out or default, {str(run): run for run in runs}))
    except (OSError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
