"""Concepts: predicates on one label, true, false, or unknown where the label is missing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any

import numpy as np
from jaxtyping import Int, UInt8
from pydantic import Field

from sae_lens_meme.embeddings import Embeddings, Label
from sae_lens_meme.errors import ConfigError, DataError
from sae_lens_meme.evaluators.base import Unavailable
from sae_lens_meme.labels import LEVELS, level
from sae_lens_meme.metrics.association import FALSE, TRUE, UNKNOWN
from sae_lens_meme.metrics.fisher import one_a_group
from sae_lens_meme.metrics.resampling import permutation_within

MAX_CLASSES = 10
"""A label with more classes than this (an author, a date) gives no concepts by itself."""

MISSING_CODE = -1
"""InterVLM's number for a missing label. Its comparison `sentiment <= -1` is true of it."""

_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "=": np.equal,
    "!=": np.not_equal,
    ">=": np.greater_equal,
    "<=": np.less_equal,
    ">": np.greater,
    "<": np.less,
}


@dataclass(frozen=True)
class Concept:
    """A predicate such as `hate=1`, `offensive>=2`, `stance=support`, `target=individual|community`.

    It may be given a name: `mocking: humor>=2`.

    Raises:
        ConfigError: an unknown op, or values that are not a tuple of texts.
    """

    name: str
    label: str
    op: str
    values: tuple[str, ...]
    """As written: numbers, names of levels, or classes of a label of strings."""

    def __post_init__(self) -> None:
        if self.op not in _COMPARE:
            raise ConfigError(f"concept {self.name!r}: op {self.op!r} is not one of {' '.join(_COMPARE)}")
        several = isinstance(self.values, (tuple, list)) and len(self.values) > 0
        if not several or not all(isinstance(value, str) for value in self.values):
            raise ConfigError(
                f"concept {self.name!r}: values is {self.values!r}; give a tuple of texts, as in ('1', '2')"
            )

    @classmethod
    def parse(cls, text: str) -> Concept:
        """From `LABEL OP VALUE` or `NAME: LABEL OP VALUE`, OP one of = != >= <= > <; `|` between values of = and !=.

        Raises:
            ConfigError: the text is not of that form.
        """
        match = re.fullmatch(r"\s*(?:([^=!<>]+?)\s*:\s+)?([^=!<>]+?)\s*(!=|>=|<=|=|>|<)\s*([^=!<>]+?)\s*", text)
        if match is None:
            raise ConfigError(
                f"concept {text!r} is not LABEL OP VALUE with OP one of {' '.join(_COMPARE)}, as in hate=1"
            )
        name, label, op, values = match.groups()
        return cls(name or f"{label}{op}{values}", label, op, tuple(value.strip() for value in values.split("|")))

    def truth(self, label: Label) -> tuple[np.ndarray, np.ndarray]:
        """`(known, true)`, bool [n_samples] each; true is False where the label is missing.

        Raises:
            ConfigError: the label has no such value; the message lists what there is.
        """
        return label.known, self._matches(label, label.values) & label.known

    def published_truth(self, label: Label) -> np.ndarray:
        """As InterVLM's code has it: missing is a number like any other, bool [n_samples]."""
        if label.values.dtype == object:
            return self.truth(label)[1]
        return self._matches(label, np.where(label.known, label.values, MISSING_CODE))

    def _matches(self, label: Label, values: np.ndarray) -> np.ndarray:
        if label.values.dtype == object and self.op not in ("=", "!="):
            raise ConfigError(
                f"concept {self.name!r}: label {label.name!r} holds words, which {self.op} cannot compare"
            )
        if len(self.values) > 1 and self.op not in ("=", "!="):
            raise ConfigError(f"concept {self.name!r}: several values go with = and != only")
        wanted = [self._value(label, text) for text in self.values]
        results = [_COMPARE[self.op](values, value) for value in wanted]
        combine = np.logical_and if self.op == "!=" else np.logical_or
        return np.asarray(combine.reduce(results), dtype=bool)

    def _value(self, label: Label, text: str) -> int | str:
        if label.values.dtype == object:
            value: int | str | None = text
        elif re.fullmatch(r"[+-]?\d{1,18}", text):
            value = int(text)
        else:
            value = level(label.name, text)
        compares_order = self.op not in ("=", "!=") and value is not None
        if (
            compares_order
            or value in label.classes
            or (label.values.dtype != object and value in LEVELS.get(label.name, {}))
        ):
            return value  # type: ignore[return-value]
        raise ConfigError(f"concept {self.name!r}: label {label.name!r} has no {text!r}; it has {_known_values(label)}")


Concepts = Annotated[tuple[str | Concept, ...] | None, Field(strict=False)]
"""The option `concepts` of an evaluator; None: the default ones."""

DEFAULT_CONCEPTS: tuple[Concept, ...] = tuple(
    Concept.parse(text)
    for text in (
        "hate=1",
        "hate=0",
        "offensive>=2",
        "offensive=0",
        "stance=support",
        "stance=oppose",
        "humor>=2",
        "humor=0",
        "sentiment>=1",
        "sentiment<=-1",
        "sarcasm>=2",  # twisted and worse: the label keeps its four levels here, InterVLM merges the first two
        "motivational=1",
        "target=community",
    )
)
"""InterVLM's thirteen."""


def concepts_of(embeddings: Embeddings, concepts: Iterable[str | Concept] | None = None) -> tuple[Concept, ...]:
    """The concepts given, parsed and checked against the labels there are; else `default_concepts`.

    Raises:
        ConfigError: a concept twice, a label that is not there, or a value that the label does not have.
    """
    if concepts is None:
        return default_concepts(embeddings)
    parsed = tuple(c if isinstance(c, Concept) else Concept.parse(c) for c in concepts)
    for i, concept in enumerate(parsed):
        if concept.name in [other.name for other in parsed[:i]]:
            raise ConfigError(f"concept {concept.name!r} is given twice")
        if concept.label not in embeddings.label_names:
            there = ", ".join(embeddings.label_names) or "none"
            raise ConfigError(
                f"concept {concept.name!r}: there is no label {concept.label!r}; these embeddings have {there}"
            )
        concept.truth(embeddings.label(concept.label))
    if not parsed:
        raise ConfigError("concepts is empty; leave it out for the default ones")
    return parsed


def default_concepts(embeddings: Embeddings) -> tuple[Concept, ...]:
    """Those of DEFAULT_CONCEPTS whose label is there, and every class of every other label of 2 to 10 classes.

    Raises:
        ConfigError: no label allows a concept.
    """
    defaults = tuple(c for c in DEFAULT_CONCEPTS if c.label in embeddings.label_names and _fits(c, embeddings))
    rest = [name for name in embeddings.label_names if name not in {c.label for c in defaults}]
    concepts = _named_apart(defaults + tuple(c for name in rest for c in _one_a_class(embeddings.label(name))))
    if not concepts:
        there = ", ".join(embeddings.label_names) or "none"
        raise ConfigError(f"no label has 2 to {MAX_CLASSES} classes (labels: {there}); give embeddings with labels")
    return concepts


def require_concepts(embeddings: Embeddings, concepts: Iterable[str | Concept] | None) -> None:
    """Raises Unavailable where none are requested and no label allows one: that is not the user's fault."""
    if concepts is None:
        try:
            default_concepts(embeddings)
        except ConfigError as error:
            raise Unavailable(str(error)) from None


def _fits(concept: Concept, embeddings: Embeddings) -> bool:
    """Someone else's table may have a label called `hate` that holds words."""
    label = embeddings.label(concept.label)
    return label.values.dtype != object and bool(label.known.any())


def _one_a_class(label: Label) -> list[Concept]:
    classes = label.classes
    if not 2 <= len(classes) <= MAX_CLASSES:
        return []
    return [Concept(f"{label.name}={value}", label.name, "=", (str(value),)) for value in classes]


def _named_apart(concepts: tuple[Concept, ...]) -> tuple[Concept, ...]:
    """Class `b=c` of label `a` and class `c` of label `a=b` would have one name: such names are quoted."""
    times = Counter(concept.name for concept in concepts)
    return tuple(c if times[c.name] == 1 else replace(c, name=f"{c.label!r}={c.values[0]!r}") for c in concepts)


def _known_values(label: Label) -> str:
    levels = {} if label.values.dtype == object else LEVELS.get(label.name, {})
    words = [f"{value} ({name})" for value, name in levels.items()] or [str(value) for value in label.classes]
    return ", ".join(words[:20]) + (", ..." if len(words) > 20 else "") or "no value at all"


Codes = UInt8[np.ndarray, "n concepts"]


@dataclass(frozen=True, eq=False)
class ConceptLabels:
    """What each concept says about each meme, under both protocols."""

    names: tuple[str, ...]
    known: Codes
    """UNKNOWN where the label is missing."""
    published: Codes
    """FALSE or TRUE for every meme, as InterVLM's code counts them."""
    sources: Int[np.ndarray, " n"]
    splits: np.ndarray
    groups: Int[np.ndarray, " n"] | None = None
    """As `Embeddings.groups`; None: every meme its own."""
    by_id: Int[np.ndarray, " n"] | None = None
    """As `Embeddings.by_id`; None: the order of the rows."""

    @classmethod
    def of(cls, embeddings: Embeddings, concepts: tuple[Concept, ...]) -> ConceptLabels:
        known = np.empty((len(embeddings), len(concepts)), np.uint8)
        published = np.empty_like(known)
        for c, concept in enumerate(concepts):
            label = embeddings.label(concept.label)
            is_known, is_true = concept.truth(label)
            known[:, c] = np.where(is_known, np.where(is_true, TRUE, FALSE), UNKNOWN)
            published[:, c] = np.where(concept.published_truth(label), TRUE, FALSE)
        if len(embeddings) == 0:
            raise DataError("these embeddings have no memes")
        names, of = tuple(c.name for c in concepts), embeddings
        return cls(names, known, published, of.strata, of.splits, of.groups, of.by_id)

    def codes(self, protocol: str) -> Codes:
        return self.published if protocol == "published" else self.known

    def strata(self, protocol: str) -> Int[np.ndarray, " n"]:
        """One stratum per source (or what `within` gave); the published protocol knows none."""
        return np.zeros_like(self.sources) if protocol == "published" else self.sources

    def within(self, strata: Int[np.ndarray, " n"]) -> ConceptLabels:
        """The same, compared and permuted within other strata than sources."""
        return replace(self, sources=strata)

    def permuted(self, generator: np.random.Generator) -> ConceptLabels:
        """All labels of a group given to another of the same source: what association remains is the source's or chance."""
        order = permutation_within(self.sources, generator, groups=self.groups)
        return replace(self, known=self.known[order], published=self.published[order])

    @cached_property
    def one_a_group(self) -> list[Int[np.ndarray, " n"] | None]:
        """Weights of draws of one meme per group; one draw of all memes where each is its own."""
        return one_a_group(self.groups)

    def test_codes(self) -> Codes:
        """UNKNOWN outside the test rows."""
        return _only(self.known, self.splits == "test")

    def threshold_codes(self) -> tuple[Codes, list[str | None]]:
        """UNKNOWN outside the rows that choose a threshold, and the split of these rows for each concept.

        They are the validation rows; for a concept that is true of no validation meme, the train rows.
        """
        codes, splits = np.zeros_like(self.known), []
        for c in range(len(self.names)):
            usable = (s for s in ("validation", "train") if (self.known[self.splits == s, c] == TRUE).any())
            splits.append(next(usable, None))
            if splits[-1] is not None:
                codes[:, c] = _only(self.known[:, c], self.splits == splits[-1])
        return codes, splits


def _only(codes: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return np.where(rows if codes.ndim == 1 else rows[:, None], codes, np.uint8(UNKNOWN))
