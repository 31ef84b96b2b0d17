"""Crashes, kills and damage at length: `python -m tests.campaigns.soak` (see crashes.py).

Any failure ends it with a traceback. Otherwise it prints how much was tried.
"""

import tempfile
import time
from collections import Counter
from pathlib import Path

import torch

from tests.campaigns.crashes import KINDS, crash, crash_points, damage, forked, kills, spawned

KILLS = 8  # of each kind of training, both forked and spawned
TRUNCATIONS = 600
FLIPS = 500
REPORT_EVERY = 8  # a resumed training makes its pictures after every so many crash points


def main() -> None:
    torch.set_num_threads(1)
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        points, whole = crash_points(place)
        for how in ("killed", "disk full", "power cut"):
            found = Counter()
            for at in range(1, points + 1):
                found[crash(place, whole, at, how, report=at % REPORT_EVERY == 0)] += 1
            print(f"{how} at {points} points: {dict(found)}", flush=True)

        refused, right = damage(whole / "last.pt", TRUNCATIONS, FLIPS, seed=0)
        print(
            f"{TRUNCATIONS} truncations, {FLIPS} flips: {refused} refused, {right} with the right content",
            flush=True,
        )

        for start in (forked, spawned):
            for kind in KINDS:
                killed = kills(place, kind, KILLS, seed=1, start=start)
                print(
                    f"{kind}, {start.__name__}: {killed} kills; every run ended in the same bits",
                    flush=True,
                )
    print(f"no failure after {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()
