"""The evaluators, by name, in the order in which they run and are shown; nothing is imported before it is needed."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from sae_lens_meme.options import check_keys

if TYPE_CHECKING:
    from sae_lens_meme.evaluators.base import Evaluator

GROUP = "sae_lens_meme.evaluators"
"""Entry points of other packages: `name = "package.module:Class"`."""

_places: dict[str, str | type[Evaluator]] = {
    # name: module, and class; later ones may read the results of earlier ones
    "contest": "contest:Contest",
    "reconstruction": "reconstruction:Reconstruction",
    "stock_evals": "stock_evals:StockEvals",
    "concept_alignment": "concept_alignment:ConceptAlignment",
    "cross_concept": "cross_concept:CrossConcept",
    "baselines": "baselines:Baselines",
    "probes": "probes:Probes",
    "confounders": "confounders:Confounders",
    "influence": "influence:Influence",
    "subgroups": "subgroups:Subgroups",
    "monosemanticity": "monosemanticity:Monosemanticity",
    "superposition": "superposition:Superposition",
    "cross_modal": "cross_modal:CrossModal",
    "question_set": "question_set:QuestionSet",
    "naming": "naming:Naming",
    "stability": "stability:Stability",
    "answer_key": "answer_key:AnswerKeyScores",
    "attribution": "attribution:AttributionHits",
}


def register(evaluator: type[Evaluator]) -> type[Evaluator]:
    """Add an evaluator (a decorator): `evaluate`, its `--help`, the page, `explain` and the conformance suite then include it."""
    _places[evaluator.name] = evaluator
    return evaluator


def unregister(name: str) -> None:
    """Take out what `register` added."""
    del _places[name]


def names() -> list[str]:
    """Every registered name, those of other packages included."""
    return list(dict.fromkeys([*_places, *(found.name for found in entry_points(group=GROUP))]))


def find(name: str) -> type[Evaluator]:
    """The class of that name.

    Raises:
        ConfigError: there is none; the message gives the nearest known name.
    """
    check_keys("evaluators", [name], names())
    place = _places.get(name)
    if place is None:
        (found,) = entry_points(group=GROUP, name=name)
        place = found.load()
    if isinstance(place, str):
        module, _, cls = place.partition(":")
        place = getattr(import_module(f"sae_lens_meme.evaluators.{module}"), cls)
    return place


def chosen(only: list[str] | None, skip: list[str] | None) -> list[str]:
    """The names that are left, in their order.

    Raises:
        ConfigError: an unknown name, or none is left.
    """
    check_keys("evaluators", [*(only or []), *(skip or [])], names())
    return [name for name in names() if name in (only or names()) and name not in (skip or [])]
