"""Tables of a card in Markdown, with foreign text in them."""

from __future__ import annotations

from collections.abc import Sequence


def markdown_table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *body]
    return "\n".join(f"| {' | '.join(map(markdown_text, line))} |" for line in lines)


def markdown_text(text: str) -> str:
    """The user's text, such as a source's name: it cannot break a table, bring markup, or steer a terminal."""
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), ("|", "&#124;"), ("[", "&#91;"), ("`", "&#96;")):
        text = text.replace(character, entity)
    text = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(text.split())
