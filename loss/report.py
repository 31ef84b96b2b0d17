"""Make a page about all runs of a sweep or search: `python loss/report.py FOLDER [--out FILE]`.

The page shows the options in which the runs differ, their samples, their figures beside the floors,
and their losses. A click on a heading sorts the runs. The page is a single HTML file.
"""

if __name__ == "__main__":
    import root  # noqa: F401  (first, so that Python finds the other folders)

import sys

from conf import script_parsers
from conf.messages import in_one_line
from loss.runs import runs
from runtime.atomic_file import atomic_file
from viz.pages.sweep_page import counted, sweep_page, title_of

BYTES_PER_MEGABYTE = 1e6


def main() -> None:
    args = script_parsers.report().parse_args()

    try:
        found = runs(args.folder)
        out = args.out or args.folder / "report.html"
        out.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(out) as file:
            file.write(sweep_page(title_of(args.folder, found), found).encode())
        size = out.stat().st_size / BYTES_PER_MEGABYTE
        print(f"{out} ({size:.1f} MB), {counted(found)}")
    except (OSError, ValueError) as error:
        sys.exit(in_one_line(error))


if __name__ == "__main__":
    main()
