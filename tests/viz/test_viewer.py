"""Where recordings go: loopback only, ended politely, and seen in a real browser."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import rerun as rr
from conftest import QUIET, ROOT, command, python
from PIL import Image

from viz import viewer
from viz.colours import NOISE_STOPS, TRACKED
from viz.pages.browser import Browser

LINUX = sys.platform.startswith("linux")
MAIN = [sys.executable, str(ROOT / "main.py"), "viewer=web", "num_samples=300", "num_timesteps=40"]


@pytest.fixture
def page(tmp_path):
    """`python main.py viewer=web`, once it serves: the process and the address that it printed."""
    process = subprocess.Popen(
        MAIN, cwd=tmp_path, env=QUIET, stdout=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    for line in process.stdout:
        if found := re.search(r"http://127\.0\.0\.1:\d+\S*", line):
            break
    else:
        pytest.fail("no address was printed")
    yield process, found[0]
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        process.wait(200)


def children(pid):
    return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def listening(pid):
    """Addresses, as /proc writes them, on which a process listens."""
    sockets = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
    lines = [line for name in ("tcp", "tcp6") for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()]
    rows = [line.split() for line in lines]
    return [row[1].split(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets]


@pytest.mark.skipif(not LINUX, reason="looks into /proc")
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_the_page_is_on_loopback_only_and_leaves_no_orphan(page, ending, tmp_path):
    process, _ = page
    (server,) = children(process.pid)
    addresses = listening(server)
    assert len(addresses) == 2 and set(addresses) == {"0100007F"}  # 127.0.0.1
    process.send_signal(ending)
    assert process.wait(200) == (0 if ending == signal.SIGINT else 128 + signal.SIGTERM)
    assert not os.path.exists(f"/proc/{server}")
    assert [p.name for p in (tmp_path / "outputs").iterdir()] == ["forward.rrd"]


@pytest.mark.skipif(not LINUX, reason="looks into /proc")
def test_a_mistake_after_the_server_started_leaves_no_orphan(tmp_path):
    before = {*children(os.getpid())}  # the process that tests fork their commands from is one
    with pytest.raises(ValueError, match="a mistake"), viewer.recording("test", tmp_path / "a.rrd", "web") as _:
        (server,) = {*children(os.getpid())} - before
        raise ValueError("a mistake")
    assert not os.path.exists(f"/proc/{server}")
    assert not list(tmp_path.iterdir())


def test_a_port_in_use_is_named(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = command(f"main.py viewer=web port={port}", tmp_path)
    assert done.returncode == 1
    assert f"port {port} cannot be used" in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.rglob("*.rrd"))


@pytest.mark.skipif(os.name != "posix", reason="the stand-in is a shell script")
@pytest.mark.parametrize("script", ["echo rerun-cli 0.30.1", "exit 1"])
def test_a_viewer_of_another_version_is_refused(script, tmp_path, monkeypatch):
    program = tmp_path / "rerun"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(viewer.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(OSError, match=rr.__version__), viewer.recording("test", tmp_path / "a.rrd", "web"):
        pass
    assert not (tmp_path / "a.rrd").exists()
    with viewer.recording("test", tmp_path / "a.rrd", "file") as rec:  # as the sentence promises
        rec.log("x", rr.Points2D([[0, 0]]))
    assert (tmp_path / "a.rrd").exists()


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Makes a shell script of rerun's program, of the right version; the kernel names its processes to us."""
    monkeypatch.setattr(viewer.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    monkeypatch.setenv("DISPLAY", ":97")
    (tmp_path / "bin").mkdir()

    def make(script):
        program = tmp_path / "bin" / "rerun"
        program.write_text(f"#!/bin/sh\n[ $1 = --version ] && echo rerun-cli {rr.__version__} && exit\n{script}\n")
        program.chmod(0o755)

    yield make
    for child in map(int, (tmp_path / "started").read_text().split()) if (tmp_path / "started").exists() else ():
        os.kill(child, signal.SIGKILL)


@pytest.mark.skipif(os.name != "posix", reason="the stand-in is a shell script")
@pytest.mark.parametrize(
    ("script", "said"),
    [("exit 1", "no window could be opened; try  rerun "), ("exec sleep 100", ", shown in the rerun")],
)
def test_a_whole_recording_is_given_to_a_window(script, said, stand_in, tmp_path, capsys):
    stand_in(f"echo $$ > {tmp_path}/started; echo $* > {tmp_path}/asked; {script}" if "sleep" in script else script)
    with viewer.recording("test", tmp_path / "a.rrd", "window") as rec:
        rec.log("x", rr.Points2D([[0, 0]]))
    assert said in capsys.readouterr().out
    assert "sleep" not in script or (tmp_path / "asked").read_text() == f"--new --bind 127.0.0.1 {tmp_path}/a.rrd\n"


@pytest.mark.skipif(os.name != "posix", reason="the stand-in is a shell script")
def test_a_viewer_that_does_not_start_is_named_and_nothing_is_left(stand_in, tmp_path):
    stand_in("exit 3")
    says = pytest.raises(OSError, match="did not start; viewer=file always works")
    with says, viewer.recording("test", tmp_path / "a.rrd", "web"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]


def test_a_live_window_without_a_display_becomes_a_file(tmp_path, monkeypatch, capfd):
    """Whether rerun's program listens before it finds that there is no display depends on the machine."""
    monkeypatch.setenv("DISPLAY", ":97")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with viewer.recording("test", tmp_path / "a.rrd", "window", live=True) as rec:
        rec.log("x", rr.Points2D([[0, 0]]))
    said = capfd.readouterr().out
    assert "viewer=file always works" in said and "shown" not in said
    assert (tmp_path / "a.rrd").exists()


@pytest.mark.skipif(os.name != "posix", reason="sends itself a signal")
def test_ctrl_c_right_after_the_address_ends_well(tmp_path):
    """The signal comes while the address is being printed: later than that, but before `wait`, is no other code."""
    code = (
        "import os, signal, sys, rerun as rr; from viz.viewer import recording\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "class Terminal:\n"
        "    def write(self, text):\n"
        "        sys.__stdout__.write(text)\n"
        "        self.said = text if text.strip() else self.said\n"
        "    def flush(self):\n"
        "        sys.__stdout__.flush()\n"
        "        if 'Ctrl-C' in self.said: self.said = ''; os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.stdout = Terminal()\n"
        "with recording('test', 'a.rrd', 'web') as rec: rec.log('x', rr.Points2D([[0, 0]]))\n"
    )
    done = python(code, tmp_path)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert "http://127.0.0.1" in done.stdout and [p.name for p in tmp_path.iterdir()] == ["a.rrd"]


# ---------------------------------------------------------------- what rerun's program says to others

SERVED = """
import sys, time
from viz.viewer import recording
for name in ("first.rrd", "second.rrd"):  # it looks for its host only from its second start on
    try:
        with recording("test", name, "web"):
            time.sleep(2)
            raise LookupError
    except LookupError:
        pass
"""


def served_in_a_fresh_home(home, before=()):
    """Serve a page twice for a short while, in a home of its own; `before` stands before the command."""
    env = {k: v for k, v in QUIET.items() if k not in ("CI", "XDG_CONFIG_HOME", "XDG_DATA_HOME")}
    done = subprocess.run(
        [*before, sys.executable, "-c", SERVED], cwd=home, env={**env, "HOME": str(home), "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=1800,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not LINUX, reason="elsewhere a home is found in other ways")
def test_no_analytics_are_written(tmp_path):
    served_in_a_fresh_home(tmp_path)
    assert not [str(p) for p in tmp_path.rglob("*") if "analytics" in p.name or p.name == "rerun"]


@pytest.mark.skipif(not LINUX or shutil.which("strace") is None, reason="needs strace")
def test_no_name_is_looked_up(tmp_path):
    trace = tmp_path / "trace"
    served_in_a_fresh_home(tmp_path, ["strace", "-f", "-qq", "-e", "trace=connect,sendto,sendmmsg", "-o", str(trace)])
    inet = [line for line in trace.read_text().splitlines() if "sa_family=AF_INET" in line]
    assert len(inet) > 2  # ours to the server
    assert not [line for line in inet if '"127.0.0.1"' not in line]


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX")
def test_a_killed_run_leaves_no_half_recording(tmp_path):
    code = (
        "import os, numpy as np; from viz.viewer import recording; from rerun_viz import log_forward_diffusion\n"
        "x = np.zeros((500, 2), 'f')\n"
        "with recording('test', 'a.rrd', 'file') as rec:\n"
        "    log_forward_diffusion(x, np.zeros((50, 500, 2), 'f'), [0], rec=rec)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    assert python(code, tmp_path).returncode == -9
    assert not (tmp_path / "a.rrd").exists()


# ---------------------------------------------------------------- a real browser


def picture(browser, session, path):
    path.write_bytes(browser.png(session))
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def pixels_near(picture, colour, within=12):
    return int((np.abs(picture - np.asarray(colour)).max(-1) <= within).sum())


def shows_the_scene(picture):
    """The dark stage, cyan tracked samples, and points in one of the colours of noise."""
    between = [np.linspace(a, b, 12) for a, b in pairwise(NOISE_STOPS)]
    points = max(pixels_near(picture, colour) for colour in np.concatenate(between))
    stage = pixels_near(picture, (13, 16, 22), within=3) / picture[..., 0].size
    return stage > 0.15 and pixels_near(picture, TRACKED, within=30) > 50 and points > 200


@pytest.mark.skipif(not LINUX or shutil.which("chromium") is None, reason="needs Debian's chromium")
def test_a_browser_shows_the_scene(page, tmp_path):
    with Browser(shutil.which("chromium"), tmp_path / "profile") as browser:
        session, end = browser.open(f"{page[1]}&renderer=webgl"), time.monotonic() + 300
        while not (seen := shows_the_scene(picture(browser, session, tmp_path / "page.png"))):
            if time.monotonic() > end:
                break
            time.sleep(2)
    assert seen, f"the page does not show the scene: look at {tmp_path / 'page.png'}"
