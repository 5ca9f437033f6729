"""Names of levels in place of their codes, wherever the page shows a label; data and links keep the codes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from sae_lens_meme.dashboard.numbers import clean
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.labels import LEVELS
from sae_lens_meme.report.blocks import visible

_SIGNS = {"=": "=", "!=": " ≠ ", ">=": " ≥ ", "<=": " ≤ ", ">": " > ", "<": " < "}


class Words:
    """For labels of these memes whose levels are all known ones; other labels' codes may mean something else."""

    def __init__(self, memes: Embeddings):
        self.kind = memes.row_kind
        self._levels = {
            name: levels
            for name, levels in LEVELS.items()
            if name in memes.label_names and set(memes.label(name).classes) <= levels.keys()
        }
        names = "|".join(map(re.escape, self._levels))
        self._pattern = re.compile(rf"(?<!\w)({names})(!=|>=|<=|=|>|<)([-\w]+(?:\|[-\w]+)*)") if names else None

    def level(self, label: str, value: Any) -> str:
        """The name of one value of a label; the value itself where it has none."""
        levels, text = self._levels.get(label, {}), str(value)
        named = {str(code): name for code, name in levels.items()} | {name: name for name in levels.values()}
        return named[text].replace("_", " ") if text in named else text

    def shown(self, text: str) -> str:
        """The text with `stance=1` as `stance=support`, and `humor>=2` as `humor ≥ very funny`."""
        if self._pattern is None:
            return text
        return self._pattern.sub(self._named, text)

    def __call__(self, text: str) -> str:
        """As `shown`, safe to print."""
        return visible(self.shown(text))

    def changed(self, texts: Iterable[str]) -> list[list[str]]:
        """Pairs of each text and how it is shown, where that differs."""
        pairs = {text: clean(self.shown(text)) for text in texts}
        return [[clean(text), shown] for text, shown in pairs.items() if clean(text) != shown]

    def _named(self, match: re.Match[str]) -> str:
        label, sign, values = match.groups()
        return f"{label}{_SIGNS[sign]}{' or '.join(self.level(label, value) for value in values.split('|'))}"


def several(n: int, one: str, more: str | None = None) -> str:
    """`1 latent`, `2 latents`."""
    return f"{n:,} {one if n == 1 else more or one + 's'}"


def listed(parts: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else "none"
