"""The site builds strictly, asks for nothing from a network, and holds every command and every public name."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.whole

ROOT = Path(__file__).parents[1]
if importlib.util.find_spec("material") is None or importlib.util.find_spec("mkdocstrings") is None:
    pytest.skip('mkdocs is not installed: pip install -e ".[docs]"', allow_module_level=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


class Loaded(HTMLParser):
    """What a browser fetches to show a page: not the links, which a reader follows."""

    def __init__(self, page: Path):
        super().__init__()
        self.addresses: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        names = ["src", "srcset", "poster", "data"] + (["href"] if tag == "link" else [])
        self.addresses += [value for name in names if (value := given.get(name))]


def test_no_page_loads_anything_from_elsewhere(site: Path):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        for address in Loaded(page).addresses:
            assert not re.match(r"(\w+:)?//", address), (page, address)
            file = (site if address.startswith("/") else page.parent) / address.split("?")[0].lstrip(
                "/"
            )  # / on 404.html
            assert address.startswith("data:") or file.exists(), (page, address)
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?https?:|@import ['\"]?https?:", sheet.read_text(encoding="utf-8")), sheet
    assert not [page for page in pages if 'class="mermaid"' in page.read_text()], "Material fetches mermaid"


def test_every_command_has_its_own_help(site: Path):
    from typer.main import get_command

    from sae_lens_meme.cli import build_app

    commands = get_command(build_app()).commands  # type: ignore[attr-defined]
    for name, command in commands.items():
        page = (site / "commands" / f"{name}.html").read_text(encoding="utf-8")
        flags = [flag for p in command.params if p.param_type_name == "option" for flag in p.opts]
        assert [flag for flag in flags if f"{flag}" not in page] == []
    index = (site / "commands" / "index.html").read_text(encoding="utf-8")
    assert "--version" in index
    assert all(f'href="{name}.html"' in index for name in commands)
    assert "Seed of permutations and resamples." in (site / "commands" / "evaluate.html").read_text(encoding="utf-8")


def test_every_public_name_is_in_the_reference(site: Path):
    import sae_lens_meme
    from sae_lens_meme import evaluators, export, figures, hooks, importers, read, train

    for module in (sae_lens_meme, evaluators, export, figures, hooks, importers, read, train):
        page = (site / "api" / f"{module.__name__}.html").read_text(encoding="utf-8")
        headings = set(re.findall(r'<h[23] id="[\w.]*?(\w+)"', page))
        assert set(module.__all__) <= headings, module.__name__
    page = (site / "api" / "sae_lens_meme.evaluators.html").read_text(encoding="utf-8")
    assert [name for name in evaluators.names() if f"{evaluators.find(name).__name__}" not in page] == []


def hook() -> Any:
    spec = importlib.util.spec_from_file_location("docs_site", ROOT / "scripts" / "docs_site.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_notebook_becomes_a_page_with_the_output_it_was_saved_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    png = base64.b64encode(b"\x89PNG picture").decode()
    outputs = [
        {"output_type": "stream", "name": "stdout", "text": "F1 0.99\n"},
        {"output_type": "display_data", "data": {"image/png": png}, "metadata": {}},
    ]
    code = {"cell_type": "code", "id": "b", "source": "raise SystemExit", "outputs": outputs, "metadata": {}}
    cells = [
        {"cell_type": "markdown", "id": "a", "source": "# Memes to latents", "metadata": {}},
        {**code, "execution_count": 1},
    ]
    folder = tmp_path / "docs" / "notebooks"
    folder.mkdir(parents=True)
    (folder / "1-latents.ipynb").write_text(
        json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
    )
    site = hook()
    monkeypatch.setattr(site, "ROOT", tmp_path)
    made = site.notebooks()
    (picture,) = (name for name in made if name.endswith(".png"))
    assert made[picture] == b"\x89PNG picture"
    page = made["notebooks/1-latents.md"]
    assert page.startswith("# Memes to latents")
    assert "F1 0.99" in page
    assert f"]({picture.removeprefix('notebooks/')})" in page
    nav = [site.filled(entry, list(made)) for entry in ({"Notebooks": ["notebooks/*"]}, {"Commands": ["commands/*"]})]
    assert nav == [{"Notebooks": ["notebooks/1-latents.md"]}, None]


def test_links_of_the_repository_become_links_of_the_site():
    links = hook().site_links
    assert links("[a](../benchmarks/README.md#one) ![b](contest.png)", "tour.md") == (
        "[a](benchmarks.md#one) ![b](contest.png)"
    )
    assert links("![g](../docs/growth.png)", "benchmarks.md") == "![g](growth.png)"
    assert links("[t](docs/tried.md) [w](https://example.org/docs/x.md)", "changelog.md") == (
        "[t](tried.md) [w](https://example.org/docs/x.md)"
    )
    assert links("[n](../nowhere.md)", "tour.md") == "[n](../nowhere.md)"  # which the strict build refuses
