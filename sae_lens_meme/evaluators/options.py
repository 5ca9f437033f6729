"""The options of an evaluation: declared here once, read from Python, recipes and the command line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from typing_extensions import Self

from sae_lens_meme.engines import EngineOptions
from sae_lens_meme.errors import ConfigError
from sae_lens_meme.evaluators import registry
from sae_lens_meme.options import Count, File, Flag, Share


class EvaluateOptions(EngineOptions):
    """The section `evaluate` of a recipe, the options of the command, the keywords of `evaluate`."""

    section: ClassVar[str] = "evaluate"

    protocol: Literal["corrected", "published", "both"] = "both"
    """corrected, published (InterVLM's, fault for fault), or both."""
    concepts: Annotated[list[str] | None, Flag("--concept")] = None
    """A concept, e.g. 'hate=1', 'mocking: humor>=2'; repeatable. Default: InterVLM's 13, and every class of any other label."""
    tasks: Annotated[list[str] | None, Flag("--task")] = None
    """A label for probes and influence; repeatable. Default: every label with two classes or more."""
    only: list[str] | None = None
    """Run only this evaluator (all are listed above); repeatable."""
    skip: list[str] | None = None
    """Leave this evaluator out; repeatable."""
    hook: str | None = None
    """The hook to read, if the SAE's metadata names none."""
    converter: str | None = None
    """The format of an SAE of another project: dictionary_learning, intervlm, saev, ... (docs/importing.md); default: recognised from its files."""
    reference: File | None = None
    """Embeddings of the same memes by another encoder, for monosemanticity."""
    other_saes: Annotated[list[File] | None, Flag("--other-sae")] = None
    """Folder of an SAE of the same recipe with another seed, for stability; repeatable."""
    stability_seeds: Count = 0
    """How many SAEs of other seeds to train (each takes as long as 'train'); they are kept."""
    exclude_leaks: bool = False
    """Leave out test memes whose group (picture, near picture, caption, template) is also in train or validation, and validation memes whose group is in train."""
    share: Share = 0.5
    """Share of the memes that SAE-V's filter keeps."""
    answer_key: File | None = None
    """Folder with the factors of planted memes (factors.parquet), to score latents against."""
    attribution: File | None = None
    """The result of 'attribute', to see whether its words and regions are where the answer key puts each factor."""
    bootstrap: Count = 200
    """Resamples of the memes for intervals; 0 leaves the intervals out."""
    seed: Count = 0
    """Seed of permutations and resamples."""
    evaluators: Annotated[dict[str, dict[str, Any]], Field(default_factory=dict)]
    """Options of single evaluators, e.g. {influence: {n_random: 8}}; on the command line influence.n_random=8."""

    @classmethod
    def from_mapping(cls, given: Any) -> Self:
        """From a section of a recipe, in which a key may be an evaluator's name with options of its own."""
        if not isinstance(given, Mapping):
            return super().from_mapping(given)
        known = set(registry.names())
        own = {key: dict(value) for key, value in given.items() if key in known and isinstance(value, Mapping)}
        rest = {key: value for key, value in given.items() if key not in own}
        return super().from_mapping({**rest, **({"evaluators": own} if own else {})})

    def names(self) -> list[str]:
        """The evaluators that are left; `answer_key` only with a key, `attribution` only with an attribution.

        Raises:
            ConfigError: an unknown name, or none is left.
        """
        if "answer_key" in (self.only or ()) and self.answer_key is None:
            raise ConfigError("evaluator 'answer_key' needs --answer-key FOLDER")
        if "attribution" in (self.only or ()) and self.attribution is None:
            raise ConfigError("evaluator 'attribution' needs --attribution FOLDER")
        given = {"answer_key": self.answer_key, "attribution": self.attribution}
        names = [name for name in registry.chosen(self.only, self.skip) if given.get(name, "") is not None]
        if not names:
            raise ConfigError(f"no evaluator is left; there are {', '.join(registry.names())}")
        return names

    def check(self) -> None:
        """Also the options of single evaluators.

        Raises:
            ConfigError: one is wrong; the message names it.
        """
        for name, given in self.evaluators.items():  # also of those that do not run
            registry.find(name).Options(**given)
        for key, file in self.files().items():
            if not file.is_file():
                raise ConfigError(f"{key} is {file}, which is not a file")

    def files(self) -> dict[str, Path]:
        """Files named in the options of single evaluators, by `evaluator.option`.

        Raises:
            ConfigError: an option is wrong; the message names it.
        """
        made = {name: registry.find(name).Options(**self.evaluators.get(name, {})) for name in self.names()}
        return {f"{name}.{key}": value for name, own in made.items() for key, value in own if isinstance(value, Path)}

    def recorded(self) -> dict[str, Any]:
        """What `evaluation.json` and the fingerprint hold; paths are known by their content."""
        kept = ("protocol", "concepts", "tasks", "share", "stability_seeds", "bootstrap", "seed")
        found = {
            key: getattr(self, key) or None if key in ("concepts", "tasks") else getattr(self, key) for key in kept
        }
        own = {
            name: {key: str(value) if isinstance(value, Path) else value for key, value in given.items()}
            for name, given in self.evaluators.items()
        }
        found |= {"exclude_leaks": True} if self.exclude_leaks else {}
        found |= {"converter": self.converter} if self.converter else {}
        return {**found, "evaluators": self.names(), **({"options": own} if own else {})}


def evaluators_help() -> str:
    """The names that `only` and `skip` take."""
    return ", ".join(registry.names())
