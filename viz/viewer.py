"""Where a recording goes: always into a file; then, as `viewer` says, into a window or a web page on this machine."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import rerun as rr

from runtime.atomic_file import temporary_path

VIEWERS = ("auto", "window", "web", "file")
PATIENCE_S = 20.0
SETTLED_S = 3.0  # a window that cannot open has ended by then, though it may have listened for a moment
QUIET = {"CI": "1"}  # under which rerun's program neither looks up its analytics host nor writes its analytics files
LOOPBACK = "127.0.0.1"  # whoever shares the network must not see the recording


@contextmanager
def recording(
    app_id: str, path: str | Path, viewer: str = "auto", *, port: int | None = None, live: bool = False
) -> Iterator[rr.RecordingStream]:
    """A rerun recording that ends as the file `path` and is shown.

    The file is written under another name and renamed when it is complete: it is whole or does not exist.

    Args:
        viewer: "window"; "web", served on the loopback interface until Ctrl-C; "file", only written; or "auto", a
            window where there is a display, else a file. Where a window cannot open, the command that opens the
            file is printed.
        port: of the web page; by default a free one.
        live: show it while it grows (a web page always does), not only when it is whole.

    Raises:
        ValueError: no such viewer.
        OSError: the file cannot be written, the port is taken, or rerun's program does not fit its library.
    """
    if viewer not in VIEWERS:
        raise ValueError(f"viewer must be one of {', '.join(VIEWERS)}; got {viewer!r}")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    temporary.touch()  # says in Python's own words when the folder cannot be written to
    with _ending_politely():
        server = None
        try:
            server = _server(viewer, port, live)
            rec = _stream(app_id, temporary, server)
            if server and live and viewer == "web":
                print(f"recording: watch it grow at  {server.page}", flush=True)
            rec.send_recording_name(f"{path.parent.name}/{path.stem}")
            yield rec
            _finish(rec, path)
            os.replace(temporary, path)
            _show(path, viewer, server)
        finally:
            temporary.unlink(missing_ok=True)
            if server and viewer == "web":  # a window stays open for the person who looks at it
                server.stop()


def _stream(app_id: str, file: Path, server: "_Server | None") -> rr.RecordingStream:
    rr.set_strict_mode(True)  # otherwise bad data become an empty entity and a warning
    rec = rr.RecordingStream(app_id)
    rec.set_log_time_enabled(False)
    rec.set_sinks(rr.FileSink(str(file)), *([rr.GrpcSink(server.address)] if server else []))
    return rec


def _finish(rec: rr.RecordingStream, path: Path) -> None:
    try:
        rec.flush()
    except RuntimeError as error:  # rerun keeps the cause to its log
        raise OSError(f"cannot write the recording {path}, most likely because the disk is full") from error
    rec.disconnect()


@contextmanager
def _ending_politely() -> Iterator[None]:
    """Let SIGTERM end the program as an error does, through every `finally`: no server and no half file stays."""
    if threading.current_thread() is not threading.main_thread():  # only there may handlers be set
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _show(path: Path, viewer: str, server: "_Server | None") -> None:
    if server and viewer == "web":
        server.wait(path)
    elif server and server.process.poll() is None:
        print(f"recording: {path}, shown in the rerun viewer")
    elif server or viewer == "file" or not _has_display():
        missing = "there is no display; " if viewer == "window" and not _has_display() else ""
        print(f"recording: {missing}open it with  rerun {path}")
    elif not _stays_open(_start([*_program(), "--new", "--bind", LOOPBACK, str(path)])):
        print(f"recording: no window could be opened; try  rerun {path}  or viewer=web")
    else:
        print(f"recording: {path}, shown in the rerun viewer")


def _has_display() -> bool:
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


# ---------------------------------------------------------------- rerun's program


def _program() -> list[str]:
    """The viewer that came with this Python's library, else the one on the PATH.

    Raises:
        OSError: there is none, or it is of another version, which may misread what this one sends.
    """
    spec = importlib.util.find_spec("rerun_cli")
    name = "rerun.exe" if sys.platform == "win32" else "rerun"
    beside = Path(spec.origin).with_name(name) if spec and spec.origin else Path(name)
    program = str(beside) if beside.exists() else name
    try:
        said = subprocess.run(
            [program, "--version"], env=os.environ | QUIET, capture_output=True, text=True, timeout=PATIENCE_S
        ).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise OSError("rerun's viewer is not installed here; viewer=file always works") from error
    version = said.split()[1] if len(said.split()) > 1 else "of an unknown version"
    if version != rr.__version__:
        raise OSError(
            f"the rerun viewer is {version}, its library {rr.__version__}: install the same or use viewer=file"
        )
    return [program]


def _start(command: list[str]) -> subprocess.Popen:
    """A program in a session and process group of its own: Ctrl-C here does not reach it."""
    null = subprocess.DEVNULL
    return subprocess.Popen(
        command, stdin=null, stdout=null, stderr=null, start_new_session=True, env=os.environ | QUIET
    )


def _stays_open(window: subprocess.Popen) -> bool:
    """False where a window ends at once (a display that points nowhere, say)."""
    try:
        window.wait(SETTLED_S)
    except subprocess.TimeoutExpired:
        return True
    return False


# ---------------------------------------------------------------- a viewer that is fed while we log


def _server(viewer: str, port: int | None, live: bool) -> "_Server | None":
    """The viewer to send to while logging, if any; where a window cannot open, a line says so and we do without."""
    if viewer == "web":
        web_port = _free_port() if port is None else _checked_free(port)
        return _Server(["--serve-web", "--web-viewer-port", str(web_port)], web_port)
    if not live or viewer == "file" or not _has_display():
        return None
    try:
        return _Server([])
    except OSError as error:
        print(f"recording: {error}")
        return None


class _Server:
    """rerun's program, listening on the loopback interface for what we log: a window, or the server of a web page."""

    def __init__(self, options: list[str], web_port: int | None = None) -> None:
        port = _free_port()
        self.web_port, self.address = web_port, f"rerun+http://{LOOPBACK}:{port}/proxy"
        self.process = _start([*_program(), *options, "--bind", LOOPBACK, "--port", str(port)])
        awaited = [port] if web_port is None else [port, web_port]
        end = time.monotonic() + PATIENCE_S
        try:
            while not all(_listens(p) for p in awaited):
                if self.process.poll() is not None or time.monotonic() > end:
                    raise OSError("the rerun viewer did not start; viewer=file always works")
                time.sleep(0.1)
            if web_port is None and not _stays_open(self.process):
                raise OSError("no window could be opened; viewer=file always works")
        except BaseException:  # after Ctrl-C, too, no process may go on
            self.stop()
            raise

    @property
    def page(self) -> str:
        """The address for a browser."""
        return f"http://{LOOPBACK}:{self.web_port}?url={self.address.replace('+', '%2B')}"

    def wait(self, path: Path) -> None:
        """Print the address and stay until Ctrl-C or until the server ends."""
        try:  # from the print on: Ctrl-C may come as soon as the address can be read
            print(f"recording: {path}, shown at  {self.page}  (Ctrl-C ends it)", flush=True)
            self.process.wait()
        except KeyboardInterrupt:
            print()

    def stop(self) -> None:
        """End it with everything that it started."""
        if self.process.poll() is not None:
            return
        self._signal("SIGTERM")
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self._signal("SIGKILL")
            self.process.wait()

    def _signal(self, name: str) -> None:
        if os.name == "posix":
            os.killpg(self.process.pid, getattr(signal, name))
        else:
            self.process.kill()


def _free_port() -> int:
    with socket.create_server((LOOPBACK, 0)) as server:
        return server.getsockname()[1]


def _checked_free(port: int) -> int:
    try:
        socket.create_server((LOOPBACK, port)).close()
    except OSError as error:
        raise OSError(f"port {port} cannot be used ({error.strerror}): choose another one") from error
    return port


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex((LOOPBACK, port)) == 0
