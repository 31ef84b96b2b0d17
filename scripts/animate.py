"""Make a film of what was recorded: `python scripts/animate.py trajectory.npz [--out FILE.gif|FILE.mp4]`.

`python inference.py save_trajectory=true` and `python main.py save_trajectory=true` write trajectory.npz.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, Python only knows scripts/

from viz.films import animate
from viz.films.trajectory import load_scene


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a film of what was recorded with save_trajectory=true.")
    parser.add_argument("recorded", metavar="RECORDED.npz", type=Path)
    parser.add_argument("--out", metavar="FILE", type=Path, help="FILE.gif or FILE.mp4; default: RECORDED.gif")
    args = parser.parse_args()
    try:
        print(animate(load_scene(args.recorded), args.out or args.recorded.with_suffix(".gif")))
    except (OSError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
