"""Make films of recorded states: `python scripts/animate.py trajectory.npz [ANOTHER.npz ...] [--out
FILE]`.

`python inference.py save_trajectory=true` and `python main.py save_trajectory=true` write
trajectory.npz. The film of several files, for example of two checkpoints or two samplers, shows
their reverse processes side by side.
"""

if __name__ == "__main__":
    import repository  # noqa: F401  (first, so that Python finds the other folders)

import sys
from pathlib import Path

from conf import script_parsers
from conf.messages import in_one_line
from viz import style
from viz.films import animate, beside
from viz.films.trajectory import load_scene


def main() -> None:
    args = script_parsers.animate().parse_args()

    style.use(args.style)
    out = args.out or args.recorded[0].with_suffix(".gif")
    try:
        print(make_film(args.recorded, args.names, out))
    except (OSError, ValueError) as error:
        sys.exit(in_one_line(error))


def make_film(recorded: list[Path], names: list[str] | None, out: Path) -> Path:
    """A film of everything in one file, or of the reverse processes in several files.

    names: names of several files; None: the folders of the files.

    Raises:
        ValueError: two names are equal, or there are more or fewer names than files.
    """
    if len(recorded) == 1:
        return animate(load_scene(recorded[0]), out)

    names = names or [str(path.parent) for path in recorded]
    if len(set(names)) < len(recorded) or len(names) != len(recorded):
        raise ValueError(f"{len(recorded)} trajectories need as many names, all different: give them by --names A B")
    scenes = {name: load_scene(path) for name, path in zip(names, recorded)}
    return beside(scenes, out)


if __name__ == "__main__":
    main()
