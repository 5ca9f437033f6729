"""What a study leaves in its folder: one JSON file with all numbers and their controls, and one table per result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sae_lens_meme.evaluators.result import Result
from sae_lens_meme.storage import StepFolder, to_json


def write_study(folder: StepFolder, name: str, facts: Mapping[str, Any], results: Mapping[str, Result]) -> None:
    """Write `name` and the tables, and finish; `results` are by the file name of their table."""
    found = [{**one.to_dict(), "sections": one.sections(), "table": one.rows()} for one in results.values()]
    folder.write_text(name, to_json({**facts, "results": found}))
    for file, one in results.items():
        if (table := one.table) is not None:
            folder.write_table(file, table)
    folder.finish(verdict=[one.verdict for one in results.values()])
