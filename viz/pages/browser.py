"""An installed Chromium without a window, driven over a pipe by the DevTools protocol.

It needs neither a port nor another package.
"""

import base64
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = "--headless=new --no-sandbox --disable-dev-shm-usage --hide-scrollbars"
PIPE = "--remote-debugging-pipe"
SOFTWARE_GL = "--use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader"
PATIENCE = 300  # seconds until a page must be drawn
ENDING_S = 200  # seconds until the browser must have ended
PHONE_WIDTH = 600  # narrower windows are those of a phone
TWO_FRAMES = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


def chromium() -> str | None:
    """Return the path of an installed Chromium or Chrome, or None."""
    for program in PROGRAMS:
        path = shutil.which(program)
        if path is not None:
            return path
    return None


class Browser:
    """A browser that runs inside of a `with` block.

    A session is a page of the browser, as the protocol calls it.

    Args:
        program: the path of Chromium.
        profile: a folder for its files.
    """

    def __init__(self, program: str, profile: str | Path) -> None:
        commands, self.write_end = os.pipe()
        self.read_end, answers = os.pipe()
        # Chromium reads commands from descriptor 3 and writes answers to 4. The shell is bash,
        # because others redirect descriptors of one digit only.
        redirected = f"3<&{commands} 4>&{answers}"
        line = f'exec "$0" {FLAGS} {PIPE} {SOFTWARE_GL} --user-data-dir="$1" {redirected}'
        self.process = subprocess.Popen(
            ["bash", "-c", line, program, str(profile)],
            pass_fds=(commands, answers),
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(commands)
        os.close(answers)
        self.count = 0  # of calls so far
        self.rest = b""  # what has been read of later answers

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(ENDING_S)
        os.close(self.write_end)
        os.close(self.read_end)

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol, and return its result.

        Raises:
            RuntimeError: the method has failed.
            OSError: the browser has ended.
        """
        self.count += 1
        message: dict[str, Any] = {"id": self.count, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self.write_end, json.dumps(message).encode() + b"\0")
        answer = self._next()
        while answer.get("id") != self.count:  # others are events
            answer = self._next()
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        """Return the next message of the browser, which ends with a zero byte."""
        while b"\0" not in self.rest:
            more = os.read(self.read_end, 1 << 16)
            if not more:
                raise OSError("chromium ended")
            self.rest += more
        first, _, self.rest = self.rest.partition(b"\0")
        return json.loads(first)

    def open(self, url: str, width: int = 1280, height: int = 800) -> str:
        """Open a page in a window of that many pixels, and return its session."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        session = attached["sessionId"]
        self.call(
            "Emulation.setDeviceMetricsOverride",
            session,
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < PHONE_WIDTH,
        )
        self.call("Page.navigate", session, url=url)
        # Before that, a picture of the page may be refused.
        self.wait(session, "document.readyState == 'complete'")
        return session

    def value(self, session: str, expression: str) -> Any:
        """Return the value of a JavaScript expression in a page; a promise is awaited."""
        answer = self.call(
            "Runtime.evaluate",
            session,
            expression=expression,
            awaitPromise=True,
            returnByValue=True,
        )
        return answer["result"].get("value")

    def wait(self, session: str, until: str) -> bool:
        """Wait until a JavaScript expression is true in a page.

        Returns:
            False if it has not become true within PATIENCE seconds.
        """
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            with suppress(RuntimeError):  # while a page is being replaced, expressions fail
                if self.value(session, until):
                    return True
            time.sleep(0.3)
        return False

    def png(self, session: str) -> bytes:
        """Return the PNG of what the window shows of a page."""
        return base64.b64decode(self.call("Page.captureScreenshot", session, format="png")["data"])


def picture_of(url: str, until: str, width: int = 1280, height: int = 720) -> bytes:
    """Return the PNG of a page in a window of that many pixels.

    Args:
        url: of the page.
        until: a JavaScript expression that is true as soon as the page is complete.
        width, height: in pixels.

    Raises:
        ValueError: no Chromium is installed, or it has not drawn the page.
    """
    program = chromium()
    if program is None:
        programs = ", ".join(PROGRAMS)
        raise ValueError(f"a picture of a page needs an installed browser: one of {programs}")
    folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    with folder as profile, Browser(program, profile) as browser:
        session = browser.open(url, width, height)
        if not browser.wait(session, until):
            raise ValueError(f"{program} has not drawn the page within {PATIENCE} s")
        browser.value(session, TWO_FRAMES)  # what has been computed is drawn by then
        return browser.png(session)
