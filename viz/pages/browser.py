"""An installed Chromium without a window, driven over a pipe by the DevTools protocol: no port, nothing to install."""

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
FLAGS = "--headless=new --no-sandbox --disable-dev-shm-usage --hide-scrollbars --remote-debugging-pipe"
SOFTWARE_GL = "--use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader"
PATIENCE = 300  # seconds that a page may take until it is drawn


def chromium() -> str | None:
    """The path of an installed Chromium or Chrome; None where there is none."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class Browser:
    """A browser that lives inside `with`. A session is a page of it, as the protocol calls it."""

    def __init__(self, program: str, profile: str | Path) -> None:
        theirs, self.write_end = os.pipe()
        self.read_end, theirs_out = os.pipe()
        line = f'exec "$0" {FLAGS} {SOFTWARE_GL} --user-data-dir="$1" 3<&{theirs} 4>&{theirs_out}'
        self.process = subprocess.Popen(  # bash: other shells take descriptors of one digit only
            ["bash", "-c", line, program, str(profile)],
            pass_fds=(theirs, theirs_out),
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for end in (theirs, theirs_out):
            os.close(end)
        self.count, self.rest = 0, b""

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(200)
        for end in (self.write_end, self.read_end):
            os.close(end)

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """The result of a method of the protocol. Raises RuntimeError where it fails, OSError when the browser ends."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": params} | ({"sessionId": session} if session else {})
        os.write(self.write_end, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self.count:
            pass
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            if not (more := os.read(self.read_end, 1 << 16)):
                raise OSError("chromium ended")
            self.rest += more
        first, _, self.rest = self.rest.partition(b"\0")
        return json.loads(first)

    def open(self, url: str, width: int = 1280, height: int = 800) -> str:
        """A session with the page of that address, in a window of so many pixels."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", session, **size)
        self.call("Page.navigate", session, url=url)
        self.wait(session, "document.readyState == 'complete'")  # before, a picture of it may be refused
        return session

    def value(self, session: str, expression: str) -> Any:
        """What an expression of JavaScript gives in the page, or the promise that it is."""
        options = {"expression": expression, "awaitPromise": True, "returnByValue": True}
        return self.call("Runtime.evaluate", session, **options)["result"].get("value")

    def wait(self, session: str, until: str) -> bool:
        """Wait until an expression of JavaScript is true in the page; False where it has not become so in time."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            with suppress(RuntimeError):  # a page that is just being replaced knows no expressions
                if self.value(session, until):
                    return True
            time.sleep(0.3)
        return False

    def png(self, session: str) -> bytes:
        """What the window shows of the page."""
        return base64.b64decode(self.call("Page.captureScreenshot", session, format="png")["data"])


def picture_of(url: str, until: str, width: int = 1280, height: int = 720) -> bytes:
    """The PNG of a page in a window of so many pixels, as soon as the expression `until` is true in it.

    Raises:
        ValueError: no Chromium is installed, or it has not drawn the page.
    """
    if (program := chromium()) is None:
        raise ValueError(f"a picture of a page needs an installed browser: one of {', '.join(PROGRAMS)}")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile, Browser(program, profile) as browser:
        session = browser.open(url, width, height)
        if not browser.wait(session, until):
            raise ValueError(f"{program} has not drawn the page within {PATIENCE} s")
        browser.value(session, "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return browser.png(session)
