"""The memory of a real process for each point of a recording. The recorded states, in float32, are all that is kept."""

import subprocess
import sys

import pytest
from conftest import QUIET, ROOT

FEW, MANY = 10_000, 300_000

# Runs a command and prints its peak memory. The peak of a forked process begins at that of its parent, so the parent
# must be small.
PEAK = (
    "import resource, subprocess, sys; subprocess.run([sys.executable, *sys.argv[1:]], check=True, stdout=-3);"
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
)


def peak(points, folder):
    """The peak memory, in bytes, of `python main.py` for so many points in 10 states."""
    words = [f"num_samples={points}", "viz_steps=10", "viewer=file"]
    line = [sys.executable, "-c", PEAK, str(ROOT / "main.py"), *words]
    done = subprocess.run(line, cwd=folder, env=QUIET, capture_output=True, text=True, check=True)
    return int(done.stdout) * (1 if sys.platform == "darwin" else 1024)


@pytest.mark.slow  # two new interpreters, one of which records 300,000 points
def test_a_point_of_a_recording_takes_little_memory(tmp_path):
    growth = (peak(MANY, tmp_path) - peak(FEW, tmp_path)) / (MANY - FEW)
    print(f"{growth:.0f} bytes a point")
    # 10 states of 2 float32 numbers take 80 bytes. With 1 GB for 1,000,000 points, 600 would be left.
    assert 80 <= growth < 500
