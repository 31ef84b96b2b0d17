"""Memory of a recording per point, in a real process: what is kept are the recorded states, in float32."""

import os
import subprocess
import sys

from conftest import QUIET, ROOT

FEW, MANY = 10_000, 300_000


def peak(points, folder):
    """Bytes that `python main.py` holds at most for so many points in 10 states."""
    words = [f"num_samples={points}", "viz_steps=10", "viewer=file"]
    with subprocess.Popen([sys.executable, ROOT / "main.py", *words], cwd=folder, env=QUIET, stdout=-3) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def test_a_point_of_a_recording_takes_little_memory(tmp_path):
    growth = (peak(MANY, tmp_path) - peak(FEW, tmp_path)) / (MANY - FEW)
    print(f"{growth:.0f} bytes a point")
    assert 80 <= growth < 500  # 10 states of 2 float32 are 80; 1 GB for 1,000,000 points leaves 600
