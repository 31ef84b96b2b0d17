"""Where a recording goes: always into a file; then, as `viewer` says, into a window or a web page on this machine."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import rerun as rr

VIEWERS = ("auto", "window", "web", "file")
PATIENCE_S = 20.0


@contextmanager
def recording(app_id: str, path: str | Path, viewer: str = "auto") -> Iterator[rr.RecordingStream]:
    """A rerun recording that ends as the file `path` and is then shown.

    The file is written under another name and renamed when it is complete: it is whole or does not exist.

    Args:
        viewer: "window"; "web", served on the loopback interface until Ctrl-C; "file", only written; or "auto", a
            window where there is a display, else a file. Where a window cannot open, the command that opens the
            file is printed.

    Raises:
        ValueError: no such viewer.
        OSError: the file cannot be written, or no port is free.
    """
    if viewer not in VIEWERS:
        raise ValueError(f"viewer must be one of {', '.join(VIEWERS)}; got {viewer!r}")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.touch()  # says in Python's own words when the folder cannot be written to
    rr.set_strict_mode(True)  # otherwise bad data become an empty entity and a warning
    rec = rr.RecordingStream(app_id)
    rec.set_log_time_enabled(False)
    server = _WebServer() if viewer == "web" else None
    try:
        live = [rr.GrpcSink(server.address)] if server else []
        rec.set_sinks(rr.FileSink(str(unfinished)), *live)
        yield rec
        rec.flush()
        rec.disconnect()
        os.replace(unfinished, path)
        if server:
            server.wait(path)
        else:
            _show(path, viewer)
    finally:
        unfinished.unlink(missing_ok=True)
        if server:
            server.stop()


def _show(path: Path, viewer: str) -> None:
    if viewer == "file" or not _has_display():
        missing = "there is no display; " if viewer == "window" else ""
        print(f"recording: {missing}open it with  rerun {path}")
    elif not _stays_open([_rerun(), str(path)]):
        print(f"recording: no window could be opened; try  rerun {path}  or viewer=web")
    else:
        print(f"recording: {path}, shown in the rerun viewer")


def _has_display() -> bool:
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _rerun() -> str:
    """The viewer that came with this Python, also where its environment is not activated."""
    beside = Path(sys.executable).with_name("rerun.exe" if sys.platform == "win32" else "rerun")
    return str(beside) if beside.exists() else "rerun"


def _stays_open(command: list[str], seconds: float = 3.0) -> bool:
    """Start a program that outlives this one; False where it ends at once (a display that points nowhere, say)."""
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
    except OSError:
        return False
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return True
    return False


class _WebServer:
    """`rerun --serve-web` on the loopback interface. It runs in a process group of its own, ended as a whole."""

    def __init__(self) -> None:
        self.port, self.web_port = _free_ports(2)
        self.address = f"rerun+http://127.0.0.1:{self.port}/proxy"
        self.process = subprocess.Popen(
            [_rerun(), "--serve-web", "--bind", "127.0.0.1", "--port", str(self.port),
             "--web-viewer-port", str(self.web_port)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        end = time.monotonic() + PATIENCE_S
        while not (_listens(self.port) and _listens(self.web_port)):
            if self.process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise OSError("the web viewer did not start; viewer=file always works")
            time.sleep(0.1)

    def wait(self, path: Path) -> None:
        """Tell the address and stay until Ctrl-C or until the server ends."""
        page = f"http://127.0.0.1:{self.web_port}?url={self.address.replace('+', '%2B')}"
        print(f"recording: {path}, shown at  {page}  (Ctrl-C ends it)", flush=True)
        try:
            self.process.wait()
        except KeyboardInterrupt:
            print()

    def stop(self) -> None:
        if self.process.poll() is not None:
            return
        if os.name == "posix":
            os.killpg(self.process.pid, signal.SIGTERM)  # the pip wrapper alone would leave the server behind
        else:
            self.process.terminate()
        self.process.wait()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0
