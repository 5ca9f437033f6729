"""Numbers and texts on their way into the page: short, strict JSON that can stand inside HTML."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

_UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def short(value: Any) -> Any:
    """Four significant digits, the precision of a half float; None where it is undefined; text as it is."""
    if value is None or value is pd.NA:
        return None
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        number = float(value)
        if not np.isfinite(number):
            return None
        rounded = float(f"{number:.4g}")
        return int(rounded) if rounded.is_integer() and abs(rounded) < 2**53 else rounded
    return clean(str(value))


def shorts(values: Iterable[Any]) -> list[Any]:
    return [short(value) for value in values]


def clean(text: str) -> str:
    """Without lone surrogates, which no encoding of a page can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def to_script(value: Any) -> str:
    """JSON that no parser of HTML or JavaScript reads as anything else."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return "".join(_UNSAFE.get(c, c) for c in text) if any(c in text for c in _UNSAFE) else text


def signed_bytes(numbers: Sequence[float] | None) -> str:
    """Numbers as signed bytes, the largest magnitude at 127, in base64."""
    values = np.nan_to_num(np.asarray(numbers or [], dtype=np.float64))
    scale = np.abs(values).max(initial=0.0)
    scaled = np.zeros(values.shape) if scale == 0 else values / scale * 127
    return base64.b64encode(scaled.round().astype(np.int8).tobytes()).decode("ascii")
