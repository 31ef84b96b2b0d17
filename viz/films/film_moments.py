"""What a film shows at which moment."""

import numpy as np
from numpy.typing import NDArray

from viz.scene import Process, Scene

NEARLY = 0.05  # seconds too early that a state may be shown


def playing(scene: Scene, process: Process, second: float) -> int:
    """Which state a process shows after so many seconds: of those that have begun, or nearly, the last; at 0 the first,
    although on the clock the next ones, of hardly less noise, may follow at once."""
    if second <= 0:
        return 0
    return max(0, int(np.searchsorted(scene.seconds(process), second + NEARLY, "right")) - 1)


def between(seconds: NDArray, of: NDArray, second: float) -> NDArray:
    """What is known of each state, (S, ...), after so many seconds, where the states stand at `seconds` (S,), rising.

    Between two states it changes evenly; before the first and after the last it is theirs.
    """
    later = int(np.clip(np.searchsorted(seconds, second), 1, max(1, len(of) - 1)))
    if len(of) < 2 or second >= seconds[later]:
        return of[min(later, len(of) - 1)]
    share = max(0.0, (second - seconds[later - 1]) / (seconds[later] - seconds[later - 1]))
    return of[later - 1] + share * (of[later] - of[later - 1])


def noise_words(step: int) -> str:
    return f"noise level: {step} forward steps"
