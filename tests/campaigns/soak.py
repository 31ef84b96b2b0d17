"""Hours of bad luck in minutes: `python tests/campaigns/soak.py` tries crashes, kills and damage (see crashes.py).

Any failure ends it with a traceback; otherwise it prints how much was tried.
"""

import sys
import tempfile
import time
from collections import Counter
from itertools import product
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # run as a script, Python only knows scripts/

from tests.campaigns.crashes import KINDS, crash, crash_points, damage, forked, kills, spawned  # noqa: E402  # pyright: ignore

KILLS, TRUNCATIONS, FLIPS = 8, 600, 500  # kills of each kind of training, in forks and of commands


def main() -> None:
    torch.set_num_threads(1)
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        points, whole = crash_points(place)
        for how in ("killed", "disk full", "power cut"):
            found = Counter(crash(place, whole, at, how, report=at % 8 == 0) for at in range(1, points + 1))
            print(f"{how} at {points} points: {dict(found)}", flush=True)
        refused, right = damage(whole / "last.pt", TRUNCATIONS, FLIPS, seed=0)
        print(
            f"{TRUNCATIONS} truncations, {FLIPS} flips: {refused} refused, {right} with the right content", flush=True
        )
        for start, kind in product((forked, spawned), KINDS):
            killed = kills(place, kind, KILLS, seed=1, start=start)
            print(f"{kind}, {start.__name__}: {killed} kills; every run ended in the same bits", flush=True)
    print(f"all well after {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()
