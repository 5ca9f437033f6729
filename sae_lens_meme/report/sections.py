"""All sections of the printed table, in the order of the evaluators."""

from __future__ import annotations

from typing import Any

from sae_lens_meme.report.concepts import ANSWERS, BEST, CONCEPTS
from sae_lens_meme.report.influence import INFLUENCE, PROBES
from sae_lens_meme.report.latents import MONOSEMANTICITY, NAMES, STABILITY
from sae_lens_meme.report.modalities import CROSS_MODAL, FILTER, QUESTION_SET
from sae_lens_meme.report.reconstruction import RECONSTRUCTION, STOCK
from sae_lens_meme.report.section import Row

SECTIONS = (
    RECONSTRUCTION,
    STOCK,
    CONCEPTS,
    BEST,
    PROBES,
    INFLUENCE,
    MONOSEMANTICITY,
    CROSS_MODAL,
    FILTER,
    QUESTION_SET,
    NAMES,
    STABILITY,
    ANSWERS,
)
NOTES = {section.title: section.note for section in SECTIONS}


def report_rows(evaluation: dict[str, Any]) -> list[Row]:
    """The rows of the printed table, from the content of `evaluation.json`.

    A row has `section`, `measure`, `value` (None where undefined), `low`, `high` (95 % interval or None), and
    `controls`: what the same measure gives where there is nothing to find, or for a trivial rival.
    """
    return [row for section in SECTIONS for row in section.rows(section.title, evaluation)]
