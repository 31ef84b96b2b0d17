"""Where a recording goes: always into a file, then to a window or a web page of this machine."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

import rerun as rr

from runtime.atomic_file import temporary_path

VIEWERS = ("auto", "window", "web", "file")
PATIENCE_S = 20.0  # for rerun's program to start or to answer
SETTLED_S = 3.0  # a window that cannot open ends within this time, even if it listened before
STOP_S = 5.0  # for rerun's program to end by SIGTERM

# With this, rerun's program neither looks up its analytics host nor writes analytics files.
QUIET = {"CI": "1"}

# Other machines of the network must not see the recording.
LOOPBACK = "127.0.0.1"


@contextmanager
def recording(
    app_id: str,
    path: str | Path,
    viewer: str = "auto",
    *,
    port: int | None = None,
    live: bool = False,
) -> Iterator[rr.RecordingStream]:
    """Record with rerun into a file, and show the recording.

    The file is written under another name and renamed when it is complete. It is therefore whole,
    or it does not exist.

    Args:
        app_id: the name of the application in the viewer.
        path: the file.
        viewer: "window"; "web", a page on the loopback interface until Ctrl-C; "file", which shows
            nothing; or "auto", a window if there is a display. Where a window cannot open, the
            command that opens the file is printed.
        port: of the web page; by default a free one.
        live: whether to show the recording while it grows. A web page always does.

    Raises:
        ValueError: there is no such viewer.
        OSError: the file cannot be written, the port is in use, or rerun's program does not fit its
            library.
    """
    if viewer not in VIEWERS:
        raise ValueError(f"viewer must be one of {', '.join(VIEWERS)}; got {viewer!r}")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    temporary.touch()  # if the folder cannot be written to, Python's own message says so
    with _signals_as_exit():
        server = None
        rec = None
        written = False
        try:
            server = _server(viewer, port, live)
            rec = _stream(app_id, temporary, server)
            if server and live and viewer == "web":
                print(f"recording: watch it grow at  {server.page}", flush=True)
            rec.send_recording_name(f"{path.parent.name}/{path.stem}")
            yield rec
            _finish(rec, path)
            os.replace(temporary, path)
            written = True
            _show(path, viewer, server)
        except BaseException as error:
            if rec is not None:
                _abandon(rec)
            if isinstance(error, KeyboardInterrupt) and not written:
                print(f"recording: interrupted; {path} was not written", file=sys.stderr, flush=True)
            raise
        finally:
            temporary.unlink(missing_ok=True)
            if server and viewer == "web":  # a window remains open for its reader
                server.stop()


def _stream(app_id: str, file: Path, server: "_Server | None") -> rr.RecordingStream:
    """Return a stream into the file and, if there is one, to the server."""
    rr.set_strict_mode(True)  # otherwise bad data become an empty entity and a warning
    rec = rr.RecordingStream(app_id)
    rec.set_log_time_enabled(False)
    if server:
        rec.set_sinks(rr.FileSink(str(file)), rr.GrpcSink(server.address))
    else:
        rec.set_sinks(rr.FileSink(str(file)))
    return rec


def _finish(rec: rr.RecordingStream, path: Path) -> None:
    """Write everything that is left, and close the file.

    Raises:
        OSError: it cannot be written.
    """
    try:
        rec.flush()
    except RuntimeError as error:  # rerun writes the cause only to its log
        message = f"cannot write the recording {path}, most likely because the disk is full"
        raise OSError(message) from error
    rec.disconnect()


def _abandon(rec: rr.RecordingStream) -> None:
    """Disconnect a stream while its server still runs: otherwise rerun logs a transport error later."""
    with suppress(Exception):  # the cause of the end is already known
        rec.disconnect()


@contextmanager
def _signals_as_exit() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the program through every `finally`: no server or half file remains.

    SIGHUP comes when the terminal is closed. It stays ignored where it is (nohup).
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # handlers can only be set in the main thread
        return
    before = {}
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, _exit_on_signal)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _exit_on_signal(number: int, frame: object) -> NoReturn:
    sys.exit(128 + number)


def _show(path: Path, viewer: str, server: "_Server | None") -> None:
    """Show a complete recording, or print the command that does."""
    if server and viewer == "web":
        server.wait(path)
        return
    if server and server.process.poll() is None:
        print(f"recording: {path}, shown in the rerun viewer")
        return
    if server or viewer == "file":
        print(f"recording: open it with  rerun {path}")
        return
    if not _has_display():
        reason = "there is no display; " if viewer == "window" else ""
        print(f"recording: {reason}open it with  rerun {path}")
        return
    window = _start([*_program(), "--new", "--bind", LOOPBACK, str(path)])
    if _stays_open(window):
        print(f"recording: {path}, shown in the rerun viewer")
    else:
        print(f"recording: no window could be opened; try  rerun {path}  or viewer=web")


def _has_display() -> bool:
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


# ---------------------------------------------------------------- rerun's program


def _program() -> list[str]:
    """Return the command of rerun's viewer.

    Raises:
        OSError: there is none, or it has another version, which may misread what this one sends.
    """
    program = _program_path()
    try:
        answer = subprocess.run(
            [program, "--version"],
            env=os.environ | QUIET,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        message = "rerun's viewer is not installed here; viewer=file always works"
        raise OSError(message) from error
    words = answer.stdout.split()  # such as "rerun-cli 0.30.1"
    version = words[1] if len(words) > 1 else "of an unknown version"
    if version != rr.__version__:
        raise OSError(
            f"the rerun viewer is {version}, its library {rr.__version__}: install the same or use viewer=file"
        )
    return [program]


def _program_path() -> str:
    """Return the viewer of this Python's library, or the name of the one on the PATH."""
    name = "rerun.exe" if sys.platform == "win32" else "rerun"
    spec = importlib.util.find_spec("rerun_cli")
    if spec and spec.origin:
        beside_library = Path(spec.origin).with_name(name)
        if beside_library.exists():
            return str(beside_library)
    return name


def _start(command: list[str]) -> subprocess.Popen:
    """Start a program in a session of its own, which Ctrl-C in this terminal does not reach."""
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=os.environ | QUIET,
    )


def _watchdog(group: int) -> subprocess.Popen:
    """Start a shell that ends a process group as soon as this process has ended, even by SIGKILL.

    It waits for the end of a pipe that only this process can write to.
    """
    script = "cat > /dev/null; kill -s TERM -- -$1; sleep $2; kill -s KILL -- -$1"
    return subprocess.Popen(
        ["sh", "-c", script, "watchdog", str(group), str(STOP_S)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _stays_open(window: subprocess.Popen) -> bool:
    """Return False if a window ends at once, for example because its display does not exist."""
    try:
        window.wait(SETTLED_S)
    except subprocess.TimeoutExpired:
        return True
    return False


# ---------------------------------------------------------------- a viewer that receives data live


def _server(viewer: str, port: int | None, live: bool) -> "_Server | None":
    """Return the viewer that receives the data while they are logged, if there is one.

    Where a window cannot open, a line says so, and the recording goes on without it.
    """
    if viewer == "web":
        web_port = _free_port() if port is None else _checked_port(port)
        return _Server(["--serve-web", "--web-viewer-port", str(web_port)], web_port)
    if not live or viewer == "file" or not _has_display():
        return None
    try:
        return _Server([])
    except OSError as error:
        print(f"recording: {error}")
        return None


class _Server:
    """Rerun's program as a window or the server of a web page, listening on the loopback interface.

    Args:
        options: of the program.
        web_port: the port of the web page; None for a window.

    Raises:
        OSError: the program does not start, or its window closes at once.
    """

    def __init__(self, options: Sequence[str], web_port: int | None = None) -> None:
        port = _free_port()
        self.web_port = web_port
        self.address = f"rerun+http://{LOOPBACK}:{port}/proxy"
        self.process = _start([*_program(), *options, "--bind", LOOPBACK, "--port", str(port)])
        self.watchdog = None
        try:
            if web_port is not None and os.name == "posix":
                self.watchdog = _watchdog(self.process.pid)
            self._await_ports([port] if web_port is None else [port, web_port])
            if web_port is None and not _stays_open(self.process):
                raise OSError("no window could be opened; viewer=file always works")
        except BaseException:  # Ctrl-C, too, must not leave a process behind
            self.stop()
            raise

    def _await_ports(self, ports: Sequence[int]) -> None:
        """Wait until the program listens on all of these ports.

        Raises:
            OSError: it has ended, or takes longer than PATIENCE_S.
        """
        end = time.monotonic() + PATIENCE_S
        while not all(_listens(port) for port in ports):
            if self.process.poll() is not None or time.monotonic() > end:
                raise OSError("the rerun viewer did not start; viewer=file always works")
            time.sleep(0.1)

    @property
    def page(self) -> str:
        """The address for a browser."""
        address = self.address.replace("+", "%2B")
        return f"http://{LOOPBACK}:{self.web_port}?url={address}"

    def wait(self, path: Path) -> None:
        """Print the address, and wait for Ctrl-C or until the server ends."""
        try:  # this includes the print: Ctrl-C may come as soon as the address can be read
            print(f"recording: {path}, shown at  {self.page}  (Ctrl-C ends it)", flush=True)
            self.process.wait()
        except KeyboardInterrupt:
            print()

    def stop(self) -> None:
        """End the program with everything that it has started."""
        if self.watchdog is not None:
            self.watchdog.kill()
            self.watchdog.communicate()
            self.watchdog = None
        if self.process.poll() is not None:
            return
        self._signal("SIGTERM")
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._signal("SIGKILL")
            self.process.wait()

    def _signal(self, name: str) -> None:
        """Send a signal to the process group; where there are none, end the process."""
        if os.name == "posix":
            os.killpg(self.process.pid, getattr(signal, name))
        else:
            self.process.kill()


# ---------------------------------------------------------------- ports


def _free_port() -> int:
    with socket.create_server((LOOPBACK, 0)) as server:
        _, port = server.getsockname()
        return port


def _checked_port(port: int) -> int:
    """Return the port.

    Raises:
        OSError: it is in use.
    """
    try:
        socket.create_server((LOOPBACK, port)).close()
    except OSError as error:
        reason = error.strerror
        raise OSError(f"port {port} cannot be used ({reason}): choose another one") from error
    return port


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex((LOOPBACK, port)) == 0
