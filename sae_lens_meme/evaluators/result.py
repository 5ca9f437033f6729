"""What an evaluator returns: flat numbers, a reason for each that is undefined, and a tidy table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd

Number = float | int | None


@dataclass(frozen=True, eq=False)
class Result:
    """The result of one evaluator.

    Raises:
        ValueError: a number is NaN or infinite, or None without a reason. That is a fault of the evaluator.
    """

    name: str
    """The evaluator's name, and the first part of its keys."""
    numbers: dict[str, Number]
    """Flat: `group/number`; None where undefined."""
    reasons: dict[str, str] = field(default_factory=dict)
    """For every None in `numbers`: why."""
    table: pd.DataFrame | None = None
    """Tidy; null where undefined."""
    explain: dict[str, str] = field(default_factory=dict)
    """Pattern of keys or columns (`corrected/*`, `*_low`) -> rows used, split, control."""

    def __post_init__(self) -> None:
        for key, value in self.numbers.items():
            if value is None and key not in self.reasons:
                raise ValueError(f"{self.name}: {key} is undefined and no reason is given")
            if value is not None and not math.isfinite(value):
                raise ValueError(f"{self.name}: {key} is {value}; an undefined number is None with a reason")

    def explanation(self, key: str) -> str:
        """Of a number or a column: every line of `explain` whose pattern matches it."""
        return explanation(self.explain, key)

    def joined(self, prefix: str, other: Result) -> Result:
        """This result with the numbers of another under `prefix/`; the table stays."""
        return replace(
            self,
            numbers=self.numbers | {f"{prefix}/{key}": value for key, value in other.numbers.items()},
            reasons=self.reasons | {f"{prefix}/{key}": reason for key, reason in other.reasons.items()},
            explain=self.explain | {f"{prefix}/{pattern}": line for pattern, line in other.explain.items()},
        )

    def to_log_dict(self, prefix: str = "") -> dict[str, float]:
        """A fresh flat dict of floats for logging; undefined numbers are left out."""
        return {f"{prefix}{key}": float(value) for key, value in self.numbers.items() if value is not None}

    def to_dict(self) -> dict[str, Any]:
        """Strict JSON values; the table is left to Parquet."""
        return {
            "name": self.name,
            "numbers": {key: _plain(value) for key, value in self.numbers.items()},
            "reasons": dict(self.reasons),
            "explain": dict(self.explain),
        }


def explanation(explain: Mapping[str, str], key: str) -> str:
    """The lines whose pattern (shell style, `*` matches anything) matches the key; what is said last is most specific."""
    return "; ".join(line for pattern, line in reversed(list(explain.items())) if fnmatchcase(key, pattern))


def defined(value: Any) -> Number:
    """A Python number, or None for NaN and infinity (to go with a reason)."""
    if value is None or not math.isfinite(value):
        return None
    return _plain(value)


def nullable(column: np.ndarray) -> Any:
    """A flat column for a table, in which NaN is a null; whole numbers as they are."""
    flat = np.ascontiguousarray(column).ravel()
    if flat.dtype.kind == "i":
        return flat
    return pd.arrays.FloatingArray(flat.astype(np.float64), np.isnan(flat))


def _plain(value: Any) -> Number:
    """numpy scalars are not JSON."""
    if value is None:
        return None
    return int(value) if isinstance(value, Integral) else float(value)
