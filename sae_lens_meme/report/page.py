"""The report as one self-contained page and as a part of one, and a table of latents for a notebook."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from jinja2 import ChoiceLoader, Environment, PackageLoader, PrefixLoader, StrictUndefined

from sae_lens_meme.report.blocks import blocks, cautions, heading, number, verdicts, visible


def report_html(evaluation: dict[str, Any]) -> str:
    """HTML without scripts or links; every text is escaped by the template."""
    return _rendered("page", evaluation)


def report_fragment(evaluation: dict[str, Any]) -> str:
    """The same tables for a notebook's cell."""
    return _rendered("fragment", evaluation)


def _rendered(template: str, evaluation: dict[str, Any]) -> str:
    return rendered(
        "report",
        template,
        heading=heading(evaluation),
        verdicts=verdicts(evaluation),
        cautions=cautions(evaluation),
        blocks=blocks(evaluation),
    )


def rendered(package: str, template: str, **values: Any) -> str:
    """A template of a package here, or `report/NAME` of this one: every text is escaped, a missing value is an error."""
    own, shared = (PackageLoader(f"sae_lens_meme.{name}") for name in (package, "report"))
    environment = Environment(
        loader=ChoiceLoader([own, PrefixLoader({"report": shared})]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {"visible": visible, "number": number, "median": median}
    return environment.get_template(f"{template}.html.jinja").render(**values)


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
    ranks = np.array([_ranks(column.keys) for column in columns]).reshape(len(columns), -1)
    rows = [
        {"order": ranks[:, i].tolist(), "cells": [c.cells[i] for c in columns], "memes": memes[i]}
        for i in range(len(memes))
    ]
    id = hashlib.sha256(repr((columns, memes)).encode()).hexdigest()[:8]
    titles = [column.title for column in columns]
    return rendered("report", "latents", id=f"latents-{id}", titles=titles, rows=rows, pictures=pictures, note=note)


def _ranks(keys: Sequence[Any]) -> np.ndarray:
    """Place of each row: numbers from the largest down, text from a to z, what is missing last."""
    import pandas as pd  # the command line imports this module, and takes a second less without

    series: Any = pd.Series(list(keys))
    text = not pd.api.types.is_numeric_dtype(series) and series.map(lambda x: isinstance(x, str)).any()
    series = series.where(series.notna(), None) if text else pd.to_numeric(series, errors="coerce")
    return series.rank(method="first", ascending=bool(text), na_option="bottom").to_numpy(int) - 1
