"""One headless Chromium that opens HTML pages, driven by its DevTools protocol over pipes."""

import base64
import json
import os
import select
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium")
WIDTHS = (360, 800, 1400)  # pixels: a phone, a tablet and a desktop
SCHEMES = ("light", "dark")  # colours that a reader may prefer
PATIENCE = 900.0  # seconds; this limit only ends a wait that would never end

# Start the browser, which reads commands from its file 3, and writes answers to its file 4.
_LAUNCH = """
import os, sys
to_read, to_write = map(int, sys.argv[1:3])
for given, number in ((to_read, 100), (to_write, 101), (100, 3), (101, 4)):
    os.dup2(given, number)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """A browser with one page. Use it in a with block.

    Args:
        profile: an empty folder for the browser's files.

    Attributes:
        errors: texts of the errors of scripts, and of failed requests, since the page was opened.
    """

    def __init__(self, profile: Path) -> None:
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"]
        options += [f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCH, str(to_read), str(to_write), CHROMIUM, *options],
            pass_fds=(to_read, to_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        self._rest, self._sent, self._session = b"", 0, ""
        self.errors: list[str] = []

    def __enter__(self) -> "Browser":
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        self._session = ""
        self.call("Browser.close")
        self._process.wait(PATIENCE)
        os.close(self._read)
        os.close(self._write)

    def call(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Call a method of the protocol, and return its result."""
        self._sent += 1
        message = {"id": self._sent, "method": method, "params": arguments}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._sent:
                assert "error" not in answer, answer["error"]
                return dict(answer["result"])

    def open(self, page: Path) -> None:
        """Open a page, and wait until it is loaded."""
        self.errors.clear()
        self.call("Page.navigate", url=page.as_uri())
        while self.evaluate("document.readyState + location.href") != f"complete{page.as_uri()}":
            pass

    def look(self, width: int, scheme: str) -> None:
        """Set the width of the window in pixels, and the colours that the reader prefers."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=False,
        )
        preferred = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=preferred)

    def evaluate(self, script: str) -> Any:
        """Evaluate JavaScript in the page, and return its value."""
        done = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def screenshot(self, file: Path) -> None:
        """Write the whole page into a PNG file."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(shot["data"]))

    def _next(self) -> dict[str, Any]:
        """Read the next message, and keep the errors of the page."""
        while b"\0" not in self._rest:
            assert select.select([self._read], [], [], PATIENCE)[0], "the browser does not answer"
            part = os.read(self._read, 2**20)
            assert part, "the browser has ended"
            self._rest += part
        text, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        if message.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
            self.errors.append(json.dumps(message["params"]))
        return message
