"""Memory of a recording per point, in a real process: what is kept are the recorded states, in float32."""

import subprocess
import sys

from conftest import QUIET, ROOT

FEW, MANY = 10_000, 300_000


def peak(points, folder):
    """Bytes that `python main.py` holds at most for so many points in 10 states."""
    words = [f"num_samples={points}", "viz_steps=10", "viewer=file"]
    code = (  # a small process between: the peak of a forked one begins at that of the process it was forked from
        "import resource, subprocess, sys; subprocess.run([sys.executable, *sys.argv[1:]], check=True, stdout=-3);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    line = [sys.executable, "-c", code, str(ROOT / "main.py"), *words]
    done = subprocess.run(line, cwd=folder, env=QUIET, capture_output=True, text=True, check=True)
    return int(done.stdout) * (1 if sys.platform == "darwin" else 1024)


def test_a_point_of_a_recording_takes_little_memory(tmp_path):
    growth = (peak(MANY, tmp_path) - peak(FEW, tmp_path)) / (MANY - FEW)
    print(f"{growth:.0f} bytes a point")
    assert 80 <= growth < 500  # 10 states of 2 float32 are 80; 1 GB for 1,000,000 points leaves 600
