"""A headless browser for tests: Chromium, driven over the WebDriver protocol with what Python has itself."""

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

DRIVER = shutil.which("chromedriver")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MISSING = (
    ""
    if DRIVER and BROWSER
    else "no chromium with its chromedriver is installed: apt-get install chromium chromium-driver"
)


class Browser:
    """One window, in which pages are opened and scripts are run."""

    def __init__(self, address: str) -> None:
        self.address = address
        wanted = {
            "goog:chromeOptions": {
                "binary": BROWSER,
                "args": [
                    "--headless=new",
                    "--no-sandbox",
                    "--disable-gpu",
                    "--disable-dev-shm-usage",
                    "--hide-scrollbars",
                ],
            },
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        made = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self.address += f"/session/{made['sessionId']}"

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        data = json.dumps(body if body is not None else {}).encode() if method == "POST" else None
        asked = urllib.request.Request(self.address + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked, timeout=120) as answer:
            return json.load(answer)["value"]

    def devtools(self, command: str, **params: Any) -> Any:
        """A command of the DevTools protocol."""
        return self._ask("POST", "/goog/cdp/execute", {"cmd": command, "params": params})

    def look(self, width: int, height: int = 900, theme: str = "light") -> None:
        """Set the size of the window and the theme of the system."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])

    def open(self, page: Path, ready: str = "document.documentElement.dataset.drawn === 'all'") -> None:
        """Open a file, and wait until an expression is true: that its charts are drawn, unless another is given."""
        self._ask("POST", "/url", {"url": page.resolve().as_uri()})
        self.until(ready)

    def until(self, condition: str, seconds: float = 60.0) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while True:
            with suppress(HTTPError):  # the page is just being loaded anew
                if self.run(f"return {condition}"):
                    return
            assert time.monotonic() < end, f"not true within {seconds:g} s: {condition}"
            time.sleep(0.05)

    def run(self, script: str, *args: Any) -> Any:
        """Run a script in the page, and return its result."""
        return self._ask("POST", "/execute/sync", {"script": script, "args": list(args)})

    def complaints(self) -> list[str]:
        """What the console has said since the last call."""
        return [entry["message"] for entry in self._ask("POST", "/se/log", {"type": "browser"})]

    def requests(self) -> list[str]:
        """The addresses that were asked for since the last call."""
        entries = (json.loads(e["message"])["message"] for e in self._ask("POST", "/se/log", {"type": "performance"}))
        return [e["params"]["request"]["url"] for e in entries if e["method"] == "Network.requestWillBeSent"]

    def picture(self, path: Path) -> None:
        """Write what the whole page looks like as PNG."""
        made = self.devtools("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(made["data"]))

    def close(self) -> None:
        """End the window."""
        self._ask("DELETE", "")


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser, which is ended afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    driver = subprocess.Popen([str(DRIVER), f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with socket.socket() as trial:
                if trial.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        window = Browser(f"http://127.0.0.1:{port}")
        try:
            yield window
        finally:
            window.close()
    finally:
        driver.terminate()
        driver.wait(30)
