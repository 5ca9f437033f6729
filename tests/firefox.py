"""Firefox by WebDriver BiDi, the protocol that it speaks itself: no driver program is needed."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

SECONDS = 120
EVENTS = ("log.entryAdded", "network.beforeRequestSent", "browsingContext.userPromptOpened")


class Tab:
    """One tab; `heard` gets every console message, error, dialog and request that is not for the page's own files."""

    def __init__(self, socket: Any):
        self._socket, self._numbers, self._events = socket, itertools.count(1), []
        self.heard: list[str] = []
        self._own = ""
        self.ask("session.new", capabilities={})
        self.ask("session.subscribe", events=list(EVENTS))
        self._context = self.ask("browsingContext.getTree")["contexts"][0]["context"]

    def open(self, page: Path, fragment: str = "") -> None:
        self._own = page.resolve().parent.as_uri()
        url = page.resolve().as_uri() + fragment
        self.ask("browsingContext.navigate", context=self._context, url=url, wait="complete")

    def evaluate(self, expression: str) -> Any:
        """The value of an expression, awaited, by way of JSON."""
        code = f"(async () => JSON.stringify((await ({expression})) ?? null))()"
        target = {"context": self._context}
        answer = self.ask("script.evaluate", expression=code, target=target, awaitPromise=True)
        assert answer["type"] == "success", answer["exceptionDetails"]["text"]
        return json.loads(answer["result"]["value"])

    def wait(self, condition: str) -> None:
        """Until it holds; the test fails after 30 seconds."""
        until = f"(async () => {{ for (let i = 0; i < 600 && !({condition}); i++) await new Promise((d) => setTimeout(d, 50)); return !!({condition}); }})()"
        assert self.evaluate(until), condition

    def ask(self, method: str, **params: Any) -> Any:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=SECONDS))
            if message.get("id") == number:
                assert message["type"] == "success", message
                return message["result"]
            self._hear(message)

    def _hear(self, message: dict[str, Any]) -> None:
        what = message.get("params", {})
        if message.get("method") == "network.beforeRequestSent":
            url = what["request"]["url"]
            self.heard += [] if url.startswith((self._own, "data:", "blob:", "about:")) else [url]
        elif message.get("method") == "log.entryAdded":
            self.heard.append(f"{what['level']}: {what['text']}")
        elif message.get("method") == "browsingContext.userPromptOpened":
            self.heard.append(f"dialog: {what['message']}")


@contextmanager
def firefox() -> Iterator[Tab]:
    """A headless Firefox with an empty profile; the test is skipped where there is none."""
    program = shutil.which("firefox-esr") or shutil.which("firefox")
    if program is None:
        pytest.skip("no Firefox here (firefox-esr or firefox)")
    client = pytest.importorskip("websockets.sync.client", reason="websockets is not installed")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [program, "--headless", "--no-remote", "--profile", profile, "--remote-debugging-port", "0"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        try:
            assert process.stderr is not None
            said = (re.search(r"WebDriver BiDi listening on (ws://\S+)", line) for line in process.stderr)
            address = next(match[1] for match in said if match)
            with client.connect(f"{address}/session", max_size=None, open_timeout=SECONDS) as socket:
                yield Tab(socket)
        finally:
            process.terminate()
            process.wait(SECONDS)
