"""A headless Chromium for tests of pages, over its remote debugging pipe."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cosim.machine import process

SECONDS = 40.0
"""Deadline of every answer."""

# What a browser does for its own sake would be refused by the network, or counted as the page's.
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--hide-scrollbars", "--remote-debugging-pipe"),
)


class Chromium:
    """One page in a browser: messages of its console, its requests, its document."""

    def __init__(self, send: int, receive: int) -> None:
        self._send, self._receive = send, receive
        self._number = 0
        self._pending = b""
        self._session: str | None = None
        self.console: list[Any] = []
        """Errors, warnings and uncaught exceptions."""
        self.requests: list[str] = []
        """The address of every request."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The answer to one command of the DevTools protocol."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._send, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + SECONDS
        while True:
            answer = self._next(deadline)
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result
            self._event(answer)

    def open(self, path: Path, *, width: int, scheme: str = "light", height: int = 900) -> None:
        """Load a file into a viewport of ``width``, for a reader who prefers ``scheme``."""
        phone = width < 500
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)
        self.call("Page.navigate", url=path.as_uri())
        deadline = time.monotonic() + SECONDS
        while self.evaluate("document.readyState") != "complete":
            assert time.monotonic() < deadline, "the page does not load"
            time.sleep(0.02)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """The whole page as a PNG file."""
        answer = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(answer["data"]))

    def pdf(self) -> bytes:
        """The page as it is printed, on A4."""
        answer = self.call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69)
        return base64.b64decode(answer["data"])

    def _next(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._pending:
            left = deadline - time.monotonic()
            assert left > 0, f"Chromium gave no answer in {SECONDS} s"
            if select.select([self._receive], [], [], left)[0]:
                data = os.read(self._receive, 1 << 20)
                assert data, "Chromium is gone"
                self._pending += data
        line, _, self._pending = self._pending.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

    def _event(self, message: dict[str, Any]) -> None:
        match message.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])
            case "Runtime.exceptionThrown" | "Runtime.consoleAPICalled" | "Log.entryAdded":
                self.console.append(message["params"])


@contextmanager
def chromium() -> Iterator[Chromium]:
    """A browser with a profile of its own, gone at the end whatever happens."""
    program = shutil.which("chromium")
    assert program is not None, "chromium is not installed: run scripts/setup --tests"
    profile = tempfile.mkdtemp(prefix="cosim-chromium-")
    to_browser, send = os.pipe()
    receive, from_browser = os.pipe()
    # Chromium reads its commands at descriptor 3 and answers at descriptor 4.
    script = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
    argv = ["bash", "-c", script, "bash", program, *_FLAGS, f"--user-data-dir={profile}"]
    child = process.spawn(argv, pass_fds=(to_browser, from_browser))
    try:
        os.close(to_browser)
        os.close(from_browser)
        yield Chromium(send, receive)
    finally:
        # It leads a group of its own: its helpers go with it.
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        process.end(child)
        os.close(send)
        os.close(receive)
        shutil.rmtree(profile, ignore_errors=True)
