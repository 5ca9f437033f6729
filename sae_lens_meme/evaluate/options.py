"""What an evaluation is asked for."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sae_lens_meme.errors import ConfigError
from sae_lens_meme.options import check_keys

EVALUATORS = (
    "reconstruction",
    "stock_evals",
    "concept_alignment",
    "baselines",
    "probes",
    "influence",
    "monosemanticity",
    "cross_modal",
    "question_set",
    "naming",
    "stability",
    "answer_key",
)
"""In the order in which they run and are printed; later ones may read the results of earlier ones."""


@dataclass(frozen=True)
class Options:
    """Part of the fingerprint of a result."""

    protocol: str
    concepts: list[str] | None
    tasks: list[str] | None
    evaluators: list[str]
    share: float
    stability_seeds: int
    bootstrap: int
    seed: int

    def __post_init__(self) -> None:
        if self.protocol not in ("corrected", "published", "both"):
            raise ConfigError(f"protocol {self.protocol!r} is none of corrected, published, both")
        for name, value in (
            ("stability_seeds", self.stability_seeds),
            ("bootstrap", self.bootstrap),
            ("seed", self.seed),
        ):
            if value < 0:
                raise ConfigError(f"{name} is {value}; give 0 or more")
        if not 0 < self.share < 1:
            raise ConfigError(f"share is {self.share}; give the share of memes to keep, between 0 and 1")


def chosen(only: Collection[str] | None, skip: Collection[str] | None, has_answer_key: bool) -> list[str]:
    """The evaluators that are left.

    Raises:
        ConfigError: an unknown name, or none is left.
    """
    only, skip = listed(only), listed(skip) or []
    check_keys("evaluators", [*(only or []), *skip], EVALUATORS)
    if only and "answer_key" in only and not has_answer_key:
        raise ConfigError("evaluator 'answer_key' needs --answer-key FOLDER")
    names = [n for n in EVALUATORS if n in (only or EVALUATORS) and n not in skip]
    names = [n for n in names if n != "answer_key" or has_answer_key]
    if not names:
        raise ConfigError(f"no evaluator is left; there are {', '.join(EVALUATORS)}")
    return names


def listed(values: Collection[str] | None) -> list[str] | None:
    return list(values) if values else None
