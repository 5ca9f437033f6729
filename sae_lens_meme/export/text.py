"""Foreign text and numbers in a form that Neuronpedia's importer and pages accept."""

from __future__ import annotations

import hashlib
import json
import math
import re
import unicodedata
from typing import Any

LONGEST_TOKEN = 64
_ESCAPE = re.compile(r"\\(?=u[0-9a-fA-F]{4})")
_NUL, _BACKSLASH, _UNKNOWN = "\u2400", "\u29f5", "\ufffd"


def clean(text: Any) -> str:
    """Text that survives the importer and moves nothing on a page.

    PostgreSQL stores no NUL and no half of a surrogate pair, and the importer's own replacement of NUL breaks a
    written-out escape. Characters that are not visible but reverse the direction of what follows, or control a
    terminal, are shown as U+FFFD.
    """
    shown = "".join(_shown(character) for character in str(text))
    return _ESCAPE.sub(_BACKSLASH, shown)


def token(text: Any) -> str:
    """A token of a page: clean, never empty, not endless."""
    found = clean(text)
    return (found if len(found) <= LONGEST_TOKEN else f"{found[: LONGEST_TOKEN - 1]}…") or _UNKNOWN


def _shown(character: str) -> str:
    if character == "\0":
        return _NUL
    kind = unicodedata.category(character)
    if kind == "Cs" or (kind == "Cc" and character not in "\n\t") or _directs(character):
        return _UNKNOWN
    return character


def _directs(character: str) -> bool:
    """Embeds, overrides or isolates a direction; letters of scripts from right to left do not."""
    return unicodedata.bidirectional(character) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


def clean_json(value: Any) -> Any:
    """A JSON value with clean text, and null for what is not a number."""
    if isinstance(value, dict):
        return {clean(key): clean_json(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [clean_json(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return clean(value) if isinstance(value, str) else value


def number(value: Any) -> float:
    """Five significant digits: a page shows fewer, and files stay small."""
    return float(f"{float(value):.5g}")


def numbers(values: Any) -> list[float]:
    return [number(value) for value in values]


def line(row: dict[str, Any]) -> bytes:
    """One row of a `.jsonl` file. Strict: NaN is not JSON."""
    return (json.dumps(row, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n").encode()


def identity(*parts: Any) -> str:
    """An id that is the same each time and unlike that of anything else."""
    return hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).hexdigest()[:24]
