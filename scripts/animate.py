"""Films of what was recorded: `python scripts/animate.py trajectory.npz [ANOTHER.npz ...] [--out FILE.gif|FILE.mp4]`.

`python inference.py save_trajectory=true` and `python main.py save_trajectory=true` write trajectory.npz. Of several,
such as those of two checkpoints or of two samplers, the reverse processes run side by side.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, Python only knows scripts/

from viz import style
from viz.films import animate, beside
from viz.films.trajectory import load_scene


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a film of what was recorded with save_trajectory=true.")
    parser.add_argument("recorded", metavar="RECORDED.npz", type=Path, nargs="+", help="several: side by side")
    parser.add_argument("--out", metavar="FILE", type=Path, help="FILE.gif or FILE.mp4; default: RECORDED.gif")
    parser.add_argument("--names", metavar="NAME", nargs="+", help="of several; default: those of their folders")
    parser.add_argument("--style", choices=style.STYLES, default="light", help="ground of the film")
    args = parser.parse_args()
    style.use(args.style)
    try:
        print(film(args.recorded, args.names, args.out or args.recorded[0].with_suffix(".gif")))
    except (OSError, ValueError) as error:
        sys.exit(str(error))


def film(recorded: list[Path], names: list[str] | None, out: Path) -> Path:
    """Of one trajectory everything in it; of several their reverse processes, named by `names` or their folders."""
    if len(recorded) == 1:
        return animate(load_scene(recorded[0]), out)
    names = names or [str(path.parent) for path in recorded]
    if len(set(names)) < len(recorded) or len(names) != len(recorded):
        raise ValueError(f"{len(recorded)} trajectories need as many names, all different: give them by --names A B")
    return beside(dict(zip(names, map(load_scene, recorded))), out)


if __name__ == "__main__":
    main()
