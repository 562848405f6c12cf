"""A headless Chromium that tests look at pages with, spoken to over a pair of pipes."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "chrome-headless-shell",
    "headless_shell",
)

_LOADED = (
    "new Promise(done => document.readyState === 'complete' ? done(1) "
    ": addEventListener('load', () => done(1)))"
)


def chromium() -> str | None:
    """The browser's path, None where there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Tab:
    """One page of the browser: what it holds, what it asked for, what went wrong in it."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._rest = b""
        self._id = 0
        self._session: str | None = None
        self.requests: list[str] = []
        self.complaints: list[str] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of one call of the browser's protocol."""
        self._id += 1
        message: dict[str, Any] = {"id": self._id, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._id:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def open(self, path: Path, *, width: int = 1280, dark: bool = False, ratio: int = 1) -> None:
        """Loads a file as a window of that width shows it."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=ratio,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", media="screen", features=[scheme])
        self.requests.clear()
        self.complaints.clear()
        self.send("Page.navigate", url=path.resolve().as_uri())
        self.run(_LOADED)

    def run(self, script: str) -> Any:
        """What an expression gives; a promise is awaited."""
        answer = self.send(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"]["description"])
        return answer["result"].get("value")

    def screenshot(self, selector: str | None = None) -> bytes:
        """A PNG of the whole page, or of the first element that matches."""
        box = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector or 'html')}); "
            "const r = e.getBoundingClientRect(); return {x: r.x + scrollX, y: r.y + scrollY, "
            "width: r.width, height: r.height, scale: 1}; })()"
        )
        if selector is None:
            box["height"] = self.run("document.documentElement.scrollHeight")
        shot = self.send("Page.captureScreenshot", clip=box, captureBeyondViewport=True)
        return base64.b64decode(shot["data"])

    def _read(self) -> dict[str, Any]:
        """The next message; events are noted and returned like answers."""
        while b"\0" not in self._rest:
            more = os.read(self._from, 1 << 20)
            if not more:
                raise RuntimeError("the browser closed its pipe")
            self._rest += more
        text, self._rest = self._rest.split(b"\0", 1)
        message = json.loads(text)
        params = message.get("params", {})
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif message.get("method") == "Log.entryAdded":
            self.complaints.append(params["entry"]["text"])
        elif message.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(params["exceptionDetails"]["text"])
        return message


@contextmanager
def browser(path: str, profile: Path) -> Iterator[Tab]:
    """Starts the browser and ends it.

    Args:
        path: of the browser.
        profile: an empty folder for what it stores.
    """
    command = [
        path,
        "--headless",
        "--disable-gpu",
        "--no-first-run",
        "--remote-debugging-pipe",
        f"--user-data-dir={profile}",
        # Chromium refuses to sandbox itself for root, whom containers run as.
        *(["--no-sandbox"] if os.geteuid() == 0 else []),
    ]
    ours = [*os.pipe(), *os.pipe()]
    # The browser reads from 3 and writes to 4; high numbers cannot collide with these.
    high = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 10) for number in ours]
    for number in ours:
        os.close(number)
    browser_reads, we_write, we_read, browser_writes = high
    silent = os.open(os.devnull, os.O_RDWR)
    actions = [
        (os.POSIX_SPAWN_DUP2, browser_reads, 3),
        (os.POSIX_SPAWN_DUP2, browser_writes, 4),
        (os.POSIX_SPAWN_DUP2, silent, 2),
    ]
    process = os.posix_spawn(path, command, os.environ, file_actions=actions)
    for number in (browser_reads, browser_writes, silent):
        os.close(number)
    try:
        yield Tab(we_write, we_read)
    finally:
        os.close(we_write)  # the browser ends once nobody can speak to it
        os.close(we_read)
        os.waitpid(process, 0)
