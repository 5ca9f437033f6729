"""A table of latents for a notebook: sorted by a click without a script, pictures blurred until hovered over."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class Column(NamedTuple):
    """A column: what it sorts by, and what it shows."""

    title: str
    keys: Sequence[Any]
    cells: Sequence[str]


def latents_html(
    columns: Sequence[Column], memes: Sequence[Sequence[str]], pictures: Mapping[str, tuple[str, str]], note: str
) -> str:
    """HTML without scripts: radio buttons give the rows of a flex box their order.

    Where styles are stripped, as on GitHub, it is a plain table, and the pictures stay blurred: a sharp one is the
    background of its blurred image and nothing but a style shows it.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("sae_lens_meme.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    ranks = np.array([_ranks(column.keys) for column in columns]).reshape(len(columns), -1)
    rows = [
        {"order": ranks[:, i].tolist(), "cells": [c.cells[i] for c in columns], "memes": memes[i]}
        for i in range(len(memes))
    ]
    id = hashlib.sha256(repr((columns, memes)).encode()).hexdigest()[:8]
    return environment.get_template("latents.html.jinja").render(
        id=f"latents-{id}", titles=[c.title for c in columns], rows=rows, pictures=pictures, note=note
    )


def _ranks(keys: Sequence[Any]) -> np.ndarray:
    """Place of each row: numbers from the largest down, text from a to z, what is missing last."""
    import pandas as pd  # the command line imports this module, and takes a second less without

    series: Any = pd.Series(list(keys))
    text = not pd.api.types.is_numeric_dtype(series) and series.map(lambda x: isinstance(x, str)).any()
    series = series.where(series.notna(), None) if text else pd.to_numeric(series, errors="coerce")
    return series.rank(method="first", ascending=bool(text), na_option="bottom").to_numpy(int) - 1
