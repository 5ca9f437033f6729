"""Every command line that the README and the docs show is one that the command line takes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from sae_lens_meme.cli import build_app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
GROUP: Any = get_command(build_app())


def shown(page: Path) -> Iterator[str]:
    """Commands in blocks and in single backquotes, continued lines joined."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in re.findall(r"^(?:\$ )?(sae-lens-meme .*)$", text, re.MULTILINE):
        yield line.split("#")[0]
    yield from re.findall(r"`(sae-lens-meme [^`]*)`", text.replace("\n", " "))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_flags_exist(page: Path):
    for line in shown(page):
        name, *words = line.split()[1:]
        known = GROUP.params if name.startswith("--") else GROUP.commands[name].params
        flags = {flag for param in known for flag in param.opts} | {"--help"}
        asked = [
            word.split("=")[0] for word in ([name, *words] if name.startswith("--") else words) if word.startswith("--")
        ]
        assert [flag for flag in asked if flag not in flags] == [], line


def test_most_commands_are_shown():
    names = {line.split()[1] for page in PAGES for line in shown(page)}
    assert len(names & GROUP.commands.keys()) >= 12
