"""The viewer of recordings: where it listens, how it ends, and what a real browser shows."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import rerun as rr
from conftest import QUIET, ROOT, command, python, started
from PIL import Image

from viz import viewer
from viz.colours import NOISE_STOPS, TRACKED
from viz.pages.browser import Browser

LINUX = sys.platform.startswith("linux")
MAIN = [sys.executable, str(ROOT / "main.py"), "viewer=web", "num_samples=300", "num_timesteps=40"]


@contextmanager
def served(folder):
    """`python main.py viewer=web` in a folder, once it serves: the process and the address that it printed."""
    process = subprocess.Popen(
        MAIN,
        cwd=folder,
        env=QUIET,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    with process.stdout:
        for line in process.stdout:
            if found := re.search(r"http://127\.0\.0\.1:\d+\S*", line):
                break
        else:
            pytest.fail("no address was printed")
        try:
            yield process, found[0]
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(200)


def children(pid):
    return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def programs(pid, name):
    """The children of a process that run the program of that name."""
    return [child for child in children(pid) if Path(f"/proc/{child}/comm").read_text().strip() == name]


def listening(pid):
    """Addresses, as /proc writes them, on which a process listens."""
    sockets = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
    lines = [line for name in ("tcp", "tcp6") for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()]
    rows = [line.split() for line in lines]
    return [row[1].split(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets]


class EndedPage(NamedTuple):
    """A page that was served and ended by a signal."""

    signal: signal.Signals
    addresses: list[str]
    exit_code: int
    started: list[int]
    outputs: Path


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(signal.SIGINT, id="SIGINT"),
        pytest.param(signal.SIGTERM, id="SIGTERM", marks=pytest.mark.slow),
    ],
)
def ended_page(request, tmp_path_factory):
    if not LINUX:
        pytest.skip("looks into /proc")
    folder = tmp_path_factory.mktemp("page")
    with served(folder) as (process, _):
        (server,) = programs(process.pid, "rerun")
        addresses = listening(server)
        started = children(process.pid)
        process.send_signal(request.param)
        return EndedPage(request.param, addresses, process.wait(200), started, folder / "outputs")


def test_the_page_is_served_on_loopback_only(ended_page):
    assert len(ended_page.addresses) == 2
    assert set(ended_page.addresses) == {"0100007F"}  # 127.0.0.1


def test_ctrl_c_ends_a_page_well_and_sigterm_with_its_number(ended_page):
    assert ended_page.exit_code == (0 if ended_page.signal == signal.SIGINT else 128 + signal.SIGTERM)


def test_an_ended_page_leaves_no_process(ended_page):
    assert not [pid for pid in ended_page.started if os.path.exists(f"/proc/{pid}")]


def test_an_ended_page_leaves_its_recording(ended_page):
    assert [p.name for p in ended_page.outputs.iterdir()] == ["forward.rrd"]


@pytest.mark.slow  # the quick one is that of an ended page
@pytest.mark.skipif(os.name != "posix", reason="these signals are POSIX")
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGKILL])
def test_rerun_ends_with_a_run_whose_terminal_is_closed_or_that_is_killed(number, tmp_path):
    with served(tmp_path) as (process, address):
        ports = [int(port) for port in re.findall(r"(?:127\.0\.0\.1|localhost):(\d+)", address)]
        assert len(ports) == 2 and all(map(viewer._listens, ports))
        begun = children(process.pid) if LINUX else []
        process.send_signal(number)
        assert process.wait(200) == (-number if number == signal.SIGKILL else 128 + number)
        end = time.monotonic() + 200
        while any(map(viewer._listens, ports)) or any(os.path.exists(f"/proc/{pid}") for pid in begun):
            assert time.monotonic() < end, "rerun goes on serving"
            time.sleep(0.1)


@pytest.mark.skipif(not LINUX, reason="looks into /proc")
def test_a_mistake_after_the_server_started_leaves_neither_process_nor_file(tmp_path):
    before = {*children(os.getpid())}  # One of them is the process that tests fork their commands from.
    with pytest.raises(ValueError, match="a mistake"), viewer.recording("test", tmp_path / "a.rrd", "web") as _:
        begun = {*children(os.getpid())} - before
        raise ValueError("a mistake")
    assert begun
    assert not [pid for pid in begun if os.path.exists(f"/proc/{pid}")]
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def port_in_use(tmp_path_factory):
    """The command with a port that is in use, the port, and the folder."""
    folder = tmp_path_factory.mktemp("port")
    with socket.create_server(("127.0.0.1", 0)) as occupied:
        port = occupied.getsockname()[1]
        return command(f"main.py viewer=web port={port}", folder), port, folder


INTERRUPTED = """
import numpy as np, rerun as rr, sys
from viz.viewer import recording
try:
    with recording("x", "x.rrd", "web") as rec:
        for i in range(30):
            rec.set_time("i", sequence=i)
            rec.log("points", rr.Points2D(np.random.randn(20_000, 2)))
        raise KeyboardInterrupt
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_ctrl_c_while_a_recording_is_sent_ends_with_one_clean_line(tmp_path):
    done = started(["-c", INTERRUPTED], tmp_path)
    assert done.returncode == 130
    assert done.stderr == "recording: interrupted; x.rrd was not written\n"
    assert not list(tmp_path.iterdir())


def test_a_port_in_use_is_named_in_one_line(port_in_use):
    done, port, _ = port_in_use
    assert done.returncode == 1
    assert f"port {port} cannot be used" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_port_in_use_leaves_no_recording(port_in_use):
    _, _, folder = port_in_use
    assert not list(folder.rglob("*.rrd"))


# ---------------------------------------------------------------- a shell script in place of rerun's program

POSIX = pytest.mark.skipif(os.name != "posix", reason="the program is replaced by a shell script")


@pytest.fixture(params=["echo rerun-cli 0.30.1", "exit 1"], ids=["another version", "failure"])
def wrong_program(request, tmp_path, monkeypatch):
    """Replace rerun's program by one that reports another version, or none."""
    program = tmp_path / "rerun"
    program.write_text(f"#!/bin/sh\n{request.param}\n")
    program.chmod(0o755)
    monkeypatch.setattr(viewer.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")


@POSIX
def test_a_viewer_of_another_version_is_refused_and_leaves_no_file(wrong_program, tmp_path):
    with pytest.raises(OSError, match=rr.__version__), viewer.recording("test", tmp_path / "a.rrd", "web"):
        pass
    assert not (tmp_path / "a.rrd").exists()


@POSIX
def test_a_file_can_be_recorded_without_a_viewer(wrong_program, tmp_path):
    with viewer.recording("test", tmp_path / "a.rrd", "file") as rec:
        rec.log("x", rr.Points2D([[0, 0]]))
    assert (tmp_path / "a.rrd").exists()


@pytest.fixture
def replace_program(tmp_path, monkeypatch):
    """A function that replaces rerun's program by a shell script of the right version.

    Processes that the script names in the file `started` are killed after the test.
    """
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


def record_in_a_window(folder):
    with viewer.recording("test", folder / "a.rrd", "window") as rec:
        rec.log("x", rr.Points2D([[0, 0]]))


@POSIX
def test_a_window_that_cannot_be_opened_is_reported(replace_program, tmp_path, capsys):
    replace_program("exit 1")
    record_in_a_window(tmp_path)
    assert "no window could be opened; try  rerun " in capsys.readouterr().out


def open_window(folder):
    """The shell script of a window that stays open, and notes its process and its arguments."""
    return f"echo $$ > {folder}/started; echo $* > {folder}/asked; exec sleep 100"


@POSIX
def test_a_window_that_was_opened_is_reported(replace_program, tmp_path, capsys):
    replace_program(open_window(tmp_path))
    record_in_a_window(tmp_path)
    assert ", shown in the rerun" in capsys.readouterr().out


@POSIX
def test_a_window_gets_the_whole_recording_on_loopback(replace_program, tmp_path):
    replace_program(open_window(tmp_path))
    record_in_a_window(tmp_path)
    assert (tmp_path / "asked").read_text() == f"--new --bind 127.0.0.1 {tmp_path}/a.rrd\n"


@POSIX
def test_a_viewer_that_does_not_start_is_an_error_and_leaves_no_file(replace_program, tmp_path):
    replace_program("exit 3")
    expected = pytest.raises(OSError, match="did not start; viewer=file always works")
    with expected, viewer.recording("test", tmp_path / "a.rrd", "web"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]


# ---------------------------------------------------------------- without a display, and Ctrl-C


def test_a_live_window_without_a_display_becomes_a_file(tmp_path, monkeypatch, capfd):
    # It depends on the machine whether rerun's program listens before it finds that there is no display.
    monkeypatch.setenv("DISPLAY", ":97")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with viewer.recording("test", tmp_path / "a.rrd", "window", live=True) as rec:
        rec.log("x", rr.Points2D([[0, 0]]))
    said = capfd.readouterr().out
    assert "viewer=file always works" in said
    assert "shown" not in said
    assert (tmp_path / "a.rrd").exists()


@pytest.mark.skipif(os.name != "posix", reason="sends itself a signal")
def test_ctrl_c_right_after_the_address_ends_well(tmp_path):
    """The signal comes while the address is being printed. No other code runs between that and `wait`."""
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
    assert "http://127.0.0.1" in done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["a.rrd"]


# ---------------------------------------------------------------- what rerun's program sends to others

SERVED = """
import sys, time
from viz.viewer import recording
for name in ("first.rrd", "second.rrd"):  # From its second start on, rerun looks for a host.
    try:
        with recording("test", name, "web"):
            time.sleep(2)
            raise LookupError
    except LookupError:
        pass
"""


STRACE = shutil.which("strace")


@pytest.fixture(scope="module")
def fresh_home(tmp_path_factory):
    """A new home directory in which a page has been served twice. With strace, its file `trace` has all connections."""
    if not LINUX:
        pytest.skip("elsewhere a home is found in other ways")
    home = tmp_path_factory.mktemp("home")
    trace = [STRACE, "-f", "-qq", "-e", "trace=connect,sendto,sendmmsg", "-o", str(home / "trace")] if STRACE else []
    env = {k: v for k, v in QUIET.items() if k not in ("CI", "XDG_CONFIG_HOME", "XDG_DATA_HOME")}
    done = subprocess.run(
        [*trace, sys.executable, "-c", SERVED],
        cwd=home,
        env={**env, "HOME": str(home), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr
    return home


@pytest.mark.slow
def test_no_analytics_are_written(fresh_home):
    assert not [str(p) for p in fresh_home.rglob("*") if "analytics" in p.name or p.name == "rerun"]


@pytest.mark.slow
@pytest.mark.skipif(STRACE is None, reason="needs strace")
def test_all_connections_are_to_loopback(fresh_home):
    inet = [line for line in (fresh_home / "trace").read_text().splitlines() if "sa_family=AF_INET" in line]
    assert len(inet) > 2  # our own to the server
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
    """Whether a picture has the dark ground, cyan tracked samples, and points in one of the colours of noise."""
    between = [np.linspace(a, b, 12) for a, b in pairwise(NOISE_STOPS)]
    points = max(pixels_near(picture, colour) for colour in np.concatenate(between))
    stage = pixels_near(picture, (13, 16, 22), within=3) / picture[..., 0].size
    return stage > 0.15 and pixels_near(picture, TRACKED, within=30) > 50 and points > 200


@pytest.mark.slow
@pytest.mark.skipif(not LINUX or shutil.which("chromium") is None, reason="needs Debian's chromium")
def test_a_browser_shows_the_scene(tmp_path):
    with served(tmp_path) as (_, address), Browser(shutil.which("chromium"), tmp_path / "profile") as browser:
        session = browser.open(f"{address}&renderer=webgl")
        end = time.monotonic() + 300
        while not (seen := shows_the_scene(picture(browser, session, tmp_path / "page.png"))):
            if time.monotonic() > end:
                break
            time.sleep(2)
    assert seen, f"the page does not show the scene: look at {tmp_path / 'page.png'}"
