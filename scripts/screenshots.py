"""The README's pictures of the report, docs/report-*.png, from a folder that `demo` wrote.

python scripts/screenshots.py meme-demo

It needs Chromium and playwright (of the extra `dev`).
"""

from __future__ import annotations

import argparse
import io
import shutil
from pathlib import Path

from PIL import Image

MOST_BYTES = 300_000
DOCS = Path(__file__).parents[1] / "docs"
COVERED, REGIONS = "main .strong[aria-pressed=false]", "text=Regions on all memes"
VIEWS = {
    # name: what follows the path of the page, what is clicked, what is scrolled to, light or dark
    "run": ("", [], "#glance", "light"),
    "latent": ("#latent={latent}", [], ".answers", "light"),
    "memes": ("#latent={latent}", [COVERED, REGIONS], ".cards", "dark"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path, help="the folder that `sae-lens-meme demo` wrote")
    parser.add_argument("--latent", type=int, help="default: the first of the run's table")
    given = parser.parse_args()
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        raise SystemExit("no Chromium here; install chromium, chromium-browser or google-chrome")
    page = (given.demo / "report" / "report.html").resolve().as_uri()
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, headless=True, args=["--no-sandbox", "--disable-gpu"])
        latent = given.latent
        for name, (fragment, clicked, target, scheme) in VIEWS.items():
            tab = browser.new_page(viewport={"width": 1100, "height": 760}, color_scheme=scheme)
            tab.goto(page + fragment.format(latent=latent))
            tab.wait_for_selector(target)
            for selector in clicked:
                tab.locator(selector).first.click()
            tab.locator(target).first.evaluate("e => e.scrollIntoView()")
            tab.wait_for_timeout(1000)
            if latent is None:
                latent = int(tab.locator(".glance tr:not(:has(.poor)) td a").first.inner_text())
            _save(tab.screenshot(), DOCS / f"report-{name}.png")
            tab.close()
        browser.close()


def _save(screenshot: bytes, path: Path) -> None:
    """In as many colours as fit into the size."""
    picture = Image.open(io.BytesIO(screenshot)).convert("RGB")
    for colours in (256, 128, 64):
        picture.quantize(colours).save(path, optimize=True)
        if path.stat().st_size <= MOST_BYTES:
            print(f"{path}: {path.stat().st_size:,} bytes")
            return
    raise SystemExit(f"{path}: {path.stat().st_size:,} bytes; make the window smaller")


if __name__ == "__main__":
    main()
