"""Tables of evaluators by latent: whichever evaluator has a column `latent` appears on the page of each latent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sae_lens_meme.dashboard.numbers import clean, short

MOST_ROWS = 8
"""A table with more rows a latent is shown in a form of its own, or not on the page of a latent."""


@dataclass(frozen=True)
class ByLatent:
    """The rows of a table that are of one latent."""

    table: pd.DataFrame
    starts: np.ndarray
    """int64 [d_sae + 1]"""

    @classmethod
    def of(cls, table: pd.DataFrame | None, d_sae: int) -> ByLatent | None:
        """None where there is no table, or none by latent."""
        if table is None or "latent" not in table.columns or not pd.api.types.is_integer_dtype(table["latent"]):
            return None
        ordered = table.sort_values("latent", kind="stable", ignore_index=True)
        latents = ordered["latent"].to_numpy()
        return cls(ordered, np.searchsorted(latents, np.arange(d_sae + 1)))

    def rows(self, latent: int) -> list[dict[str, Any]]:
        """Cells as `short` has them, a dictionary per row."""
        columns = {
            name: values[self.starts[latent] : self.starts[latent + 1]] for name, values in self._columns.items()
        }
        return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]

    def first(self, latent: int) -> dict[str, Any] | None:
        found = self.rows(latent)
        return found[0] if found else None

    def column(self, name: str) -> list[Any]:
        """The cell of each latent's first row; None where it has no row, or there is no such column."""
        if name not in self._columns:
            return [None] * (len(self.starts) - 1)
        values = self._columns[name]
        return [
            values[start] if end > start else None for start, end in zip(self.starts[:-1], self.starts[1:], strict=True)
        ]

    @property
    def most_rows(self) -> int:
        return int(np.diff(self.starts).max(initial=0))

    @property
    def _columns(self) -> dict[str, list[Any]]:
        if "cells" not in self.__dict__:
            object.__setattr__(self, "cells", {name: _cells(self.table[name]) for name in self.table.columns})
        return self.__dict__["cells"]


def _cells(column: pd.Series) -> list[Any]:
    if isinstance(column.dtype, pd.CategoricalDtype) or column.dtype == object or column.dtype.kind not in "fiub":
        return [None if cell is None or cell is pd.NA or cell != cell else short(cell) for cell in column.tolist()]
    return [short(cell) for cell in column.tolist()]


def generic_columns(evaluation: dict[str, Any], tables: dict[str, ByLatent]) -> dict[str, list[list[str]]]:
    """Of each evaluator whose few rows a latent are shown as they are: its columns, each with its meaning."""
    return {
        name: [
            [clean(str(column)), clean(evaluation["results"][name]["columns"].get(column, ""))]
            for column in table.table.columns
            if column != "latent"
        ]
        for name, table in tables.items()
        if 0 < table.most_rows <= MOST_ROWS
    }
