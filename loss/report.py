"""One page about all runs of a sweep or a search: `python loss/report.py FOLDER [--out FILE]`.

Options in which the runs differ, sample pictures, figures beside their floors, losses; sorted by a click. The page is
one HTML file that needs nothing beside it.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, Python only knows loss/

from loss.runs import runs
from runtime.atomic_file import atomic_file
from viz.pages.sweep_page import counted, sweep_page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="what holds the runs, such as outputs/train/<time>")
    parser.add_argument("--out", metavar="FILE", type=Path, help="the page; default: FOLDER/report.html")
    args = parser.parse_args()
    try:
        found = runs(args.folder)
        out = args.out or args.folder / "report.html"
        out.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(out) as file:
            file.write(sweep_page(f"Sweep {args.folder}", found).encode())
        print(f"{out} ({out.stat().st_size / 1e6:.1f} MB), {counted(found)}")
    except (OSError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
