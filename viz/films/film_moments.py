"""What a film shows at a given second."""

import numpy as np
from numpy.typing import NDArray

from viz.scene import Process, Scene

EARLY_S = 0.05  # a state may be shown so many seconds too early


def playing(scene: Scene, process: Process, second: float) -> int:
    """Return the index of the state that a process shows: the last that has begun.

    At second 0 it is the first state, although states of hardly less noise may follow at once.
    """
    if second <= 0:
        return 0
    begun = np.searchsorted(scene.seconds(process), second + EARLY_S, "right")
    return max(0, int(begun) - 1)


def between(seconds: NDArray, of: NDArray, second: float) -> NDArray:
    """Interpolate linearly between states.

    Args:
        seconds: (S,), rising: when each state is shown.
        of: (S, ...), what is known of each state.
        second: the moment. Before the first state and after the last, their values are returned.

    Returns:
        The values (...) at that moment.
    """
    last = len(of) - 1
    later = int(np.clip(np.searchsorted(seconds, second), 1, max(1, last)))
    if last < 1 or second >= seconds[later]:
        return of[min(later, last)]
    earlier = later - 1
    share = (second - seconds[earlier]) / (seconds[later] - seconds[earlier])
    share = max(0.0, share)
    return of[earlier] + share * (of[later] - of[earlier])


def noise_words(step: int) -> str:
    """Return the noise level in words, after `step` forward steps."""
    return f"noise level: {step} forward steps"
