"""Pages in a real headless Chromium, with everything that it says or asks for written down.

def test_x(browser):
    with opened(browser, page) as (tab, heard): ...
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless browser; the test is skipped where there is none."""
    path = next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )
    if path is None:
        pytest.skip("no Chromium here (chromium, chromium-browser or google-chrome)")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, headless=True, args=list(FLAGS))
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, page: Path, fragment: str = "", **context: Any) -> Iterator[tuple[Any, list[str]]]:
    """A tab on the page, and a list that gets every console message, error, dialog and foreign request."""
    heard: list[str] = []
    own = page.resolve().parent.as_uri()
    with browser.new_context(accept_downloads=True, reduced_motion="reduce", **context) as window:
        tab = window.new_page()
        tab.on("console", lambda message: heard.append(f"console {message.type}: {message.text}"))
        tab.on("pageerror", lambda error: heard.append(f"error: {error}"))
        tab.on("dialog", lambda dialog: (heard.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        tab.on(
            "request",
            lambda request: None if request.url.startswith((own, "data:", "blob:")) else heard.append(request.url),
        )
        tab.on("requestfailed", lambda request: heard.append(f"failed: {request.url}"))
        tab.goto(page.resolve().as_uri() + fragment)
        yield tab, heard


PAINTED = """async () => {
  const painted = () => performance.getEntriesByName("first-contentful-paint")[0];
  while (!painted()) await new Promise((done) => requestAnimationFrame(done));
  return painted().startTime;
}"""
LOADED = "performance.getEntriesByType('navigation')[0].loadEventEnd"
"""Milliseconds since the page was asked for."""
FILTER = """async () => {
  const frame = () => new Promise((done) => requestAnimationFrame(done));
  const box = document.getElementById("search");
  const times = [];
  for (const text of ["w", "word1", "word12", "word123", "hate"]) {
    await frame();
    const started = performance.now();
    Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value").set.call(box, text);
    box.dispatchEvent(new Event("input", { bubbles: true }));
    await frame();
    await frame();
    times.push(performance.now() - started);
  }
  return times.sort((a, b) => a - b)[2];
}"""
"""The median time from a key until the browser has drawn the frame after it, of five keys."""
