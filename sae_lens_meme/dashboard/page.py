"""The page itself: a template, the application beside it, and the parts of the data, inside the page or beside it."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from sae_lens_meme.dashboard.numbers import to_script
from sae_lens_meme.dashboard.words import Words
from sae_lens_meme.report.blocks import Block, blocks, heading, verdicts
from sae_lens_meme.report.page import rendered

VENDORED = ("preact.umd.js", "hooks.umd.js", "htm.umd.js")
APP = ("store.js", "charts.js", "memes.js", "list.js", "latent.js", "others.js", "main.js")
STYLE = "report.css"
NOTICE = "/*! Preact, (c) 2015-present Jason Miller, MIT licence. htm, (c) 2018 Google Inc., Apache licence 2.0. */\n"
_PARTS_HERE = "<!-- parts -->"


class Part(NamedTuple):
    """A piece of the data that the page reads on demand."""

    name: str
    make: Callable[[], Any]


def application() -> tuple[str, str]:
    """The script and the style of the page, as they stand in it."""
    here = files("sae_lens_meme.dashboard")
    vendored = "\n".join((here / "vendor" / name).read_text(encoding="utf-8").strip() for name in VENDORED)
    own = "\n".join((here / "app" / name).read_text(encoding="utf-8") for name in APP)
    script = f'{NOTICE}{vendored}\n(() => {{\n"use strict";\n{own}}})();\n'
    return script, (here / "app" / STYLE).read_text(encoding="utf-8")


def policy(script: str, style: str, beside: bool) -> str:
    """A Content-Security-Policy that allows this script, this style, pictures inside the page, and no request.

    Where parts lie beside the page, what this script loads is trusted too; nothing else on the page can load anything.
    """
    loads = " 'strict-dynamic'" if beside else ""
    return (
        f"default-src 'none'; script-src {_hash(script)}{loads}; style-src {_hash(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def write_page(
    path: Path,
    evaluation: dict[str, Any],
    words: Words,
    core: dict[str, Any],
    shown: dict[str, Any],
    parts: Iterable[Part] | None,
) -> None:
    """Write the page; `parts` go into it one after the other, None: they lie beside it."""
    script, style = application()
    page = rendered(
        "dashboard",
        "report",
        policy=policy(script, style, beside=parts is None),
        script=script,
        style=style,
        core=to_script(core),
        heading=heading(evaluation),
        verdicts=[words.shown(line) for line in verdicts(evaluation)],
        blocks=[_named(block, words) for block in blocks(evaluation)],
        **shown,
    )
    before, after = page.split(_PARTS_HERE)
    with open(path, "w", encoding="utf-8") as file:
        file.write(before)
        for part in parts or ():
            file.write(f'<script type="application/json" id="part-{part.name}">{to_script(part.make())}</script>\n')
        file.write(after)


def part_script(part: Part) -> str:
    """A part as a file of its own: `fetch` fails on file://, a script does not. As text, so that no key is special."""
    return f"saeLensMemePart({json.dumps(part.name)}, {to_script(to_script(part.make()))});\n"


def charts(evaluation: dict[str, Any], words: Words) -> list[dict[str, Any]]:
    """The sections that have an axis, with their rows; `block` is the place of the section's table on the page."""
    keys = ("value", "low", "high")
    of = {section["title"]: [] for section in evaluation["sections"]}
    for row in evaluation["table"]:
        of.setdefault(row["section"], []).append(row)
    shown = [section for section in evaluation["sections"] if of[section["title"]]]
    return [
        {
            "block": i,
            "title": words.shown(section["title"]),
            "axis": section["axis"],
            "rows": [
                {"measure": words.shown(row["measure"]), "controls": list(row["controls"].items())}
                | {key: row[key] for key in keys}
                for row in of[section["title"]]
            ],
        }
        for i, section in enumerate(shown)
        if section["axis"]
    ]


def _named(block: Block, words: Words) -> Block:
    rows = [[words.shown(row[0]), *row[1:]] for row in block.rows]
    return block._replace(title=words.shown(block.title), note=words.shown(block.note), rows=rows)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"
