"""When a film shows which state of a process."""

import numpy as np

from metrics.scene import Process, Scene

NEARLY = 0.05  # seconds too early that a state may be shown


def playing(scene: Scene, process: Process, seconds: float) -> int:
    """Which state a process shows after so many seconds: of those that have begun, or nearly, the last."""
    return max(0, int(np.searchsorted(scene.seconds(process), seconds + NEARLY, "right")) - 1)


def noise_words(step: int) -> str:
    return f"noise level: {step} forward steps"
