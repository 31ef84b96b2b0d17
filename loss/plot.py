"""Plot the training loss of one or several runs: `python loss/plot.py [RUN ...] [--out FILE]`."""

if __name__ == "__main__":
    import root  # noqa: F401  (first, so that Python finds the other folders)

import sys
from pathlib import Path

from conf import script_parsers
from conf.messages import in_one_line
from loss.log import LOSS_FILE
from runtime.checkpoint_file import OUTPUT_FOLDERS, files_newest_first
from viz import style
from viz.evaluation_pictures import save_losses

PICTURE_OF_SEVERAL = "outputs/losses.png"


def newest_run() -> Path:
    """The folder below outputs/ and runs/ whose loss.csv was written last.

    Raises:
        FileNotFoundError: there is none.
    """
    found = files_newest_first(LOSS_FILE)
    if not found:
        folders = " or ".join(OUTPUT_FOLDERS)
        raise FileNotFoundError(f"no run yet below {folders}: run `python train.py` first, or name one")
    return found[0].parent


def main() -> None:
    args = script_parsers.plot().parse_args()

    style.use(args.style)
    try:
        folders = [Path(run) for run in args.runs] or [newest_run()]
        picture = args.out
        if picture is None:
            picture = folders[0] / "loss.png" if len(folders) == 1 else PICTURE_OF_SEVERAL
        print(save_losses(picture, {str(folder): folder for folder in folders}))
    except (OSError, ValueError) as error:
        sys.exit(in_one_line(error))


if __name__ == "__main__":
    main()
