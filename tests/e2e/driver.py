"""What drives the browser tests: a real server in its own process, and pages that remember their complaints."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, Page

ROOT = Path(__file__).resolve().parents[2]
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
QUIETER = ("--disable-component-update", "--disable-sync", "--autoplay-policy=no-user-gesture-required")
WATCH = """
addEventListener("securitypolicyviolation", (event) => {
  console.error("policy violated: " + event.violatedDirective + " " + event.blockedURI);
});
window.grown = [];
new MutationObserver(() => {
  const text = document.querySelector("[aria-busy] .prose")?.textContent;
  if (text && window.grown.at(-1) !== text) window.grown.push(text);
}).observe(document, { subtree: true, childList: true, characterData: true });
"""


class Server:
    """The app of tests/e2e/app.py under `prefix`; its rooms survive in one SQLite file."""

    def __init__(self, folder: Path, prefix: str = "/", app: str = "tests.e2e.app") -> None:
        self._app = app
        self.database, self.prefix = folder / "rooms.db", prefix
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.origin = f"http://127.0.0.1:{self.port}"
        self.tokens: dict[str, str] = {}
        self.process: subprocess.Popen[str] | None = None
        self.log = folder / "server.log"

    @property
    def base(self) -> str:
        return self.origin + (self.prefix if self.prefix != "/" else "")

    def start(self) -> Server:
        command = [sys.executable, "-m", self._app, str(self.database), str(self.port), self.prefix]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.log.read_text()
        self.tokens = json.loads(line)["tokens"]
        return self

    def kill(self) -> None:
        """As a crash does it: nothing is said, nothing is finished."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        if self.process is not None:
            self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        process, self.process = self.process, None
        assert process is not None
        os.kill(process.pid, how)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        finally:
            assert process.stdout is not None
            process.stdout.close()


class Pages:
    """Opens pages and remembers what they complained about and whom they asked."""

    def __init__(self, browser: Browser, **settings: Any) -> None:
        self._settings = settings
        self._browser = browser
        self._contexts: list[BrowserContext] = []
        self.complaints: list[str] = []
        self.expected: tuple[str, ...] = ()

    def open(
        self, server: Server, path: str, who: str | None, *, width: int = 1000, height: int = 800, script: str = ""
    ) -> Page:
        """`path` is "" or "supervisor", with an optional room after a question mark; `script` runs before the page."""
        context = self._browser.new_context(viewport={"width": width, "height": height}, **self._settings)
        context.set_default_timeout(15_000)
        context.add_init_script(WATCH + script)
        self._contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: self._complain(said.type, said.text))
        page.on("pageerror", lambda error: self._complain("error", str(error)))
        page.on("request", lambda request: self._asked(server, request.url))
        page.on("websocket", lambda link: self._asked(server, link.url.replace("ws", "http", 1)))
        name, _, room = path.partition("?")
        page.goto(f"{server.base}/{name}{self.fragment(server, who, room)}")
        return page

    @staticmethod
    def fragment(server: Server, who: str | None, room: str = "") -> str:
        told = [f"token={server.tokens.get(who, who)}" if who else "", f"room={room}" if room else ""]
        return "#" + "&".join(filter(None, told)) if any(told) else ""

    def _complain(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"} and not any(known in text for known in self.expected):
            self.complaints.append(f"{kind}: {text}")

    def _asked(self, server: Server, url: str) -> None:
        parts = urlsplit(url)
        if f"{parts.scheme}://{parts.netloc}" != server.origin:
            self.complaints.append(f"asked somebody else: {url}")
        if "rk1." in url or "token=" in parts.query:
            self.complaints.append(f"a token in an address: {url}")

    def close(self) -> None:
        for context in self._contexts:
            context.close()
