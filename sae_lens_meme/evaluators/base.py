"""The one shape of every evaluator: offline `evaluate` and SAELens' evaluator callable."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from typing_extensions import Self

from sae_lens_meme import options
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import DataError
from sae_lens_meme.evaluators.latents import Latents, encode, eval_mode, require_latents_of
from sae_lens_meme.evaluators.result import Result
from sae_lens_meme.evaluators.scaled import require_maps_to_itself, unscaled

if TYPE_CHECKING:
    from sae_lens_meme.evaluators.context import Context


class Unavailable(Exception):
    """An evaluator, or a control, cannot run on this SAE and these memes; the message says why."""


class Evaluator(ABC):
    """An evaluator of one SAE on memes it holds.

    An instance is what `SAETrainer(evaluator=...)`, `runner.evaluator` and
    `MultiSAETrainingRunnerConfig(evaluator=...)` take.

    A new evaluator is one subclass and one `evaluators.register(...)`.

    Args:
        embeddings: the memes; `evaluate` may be given others.
        hook: the hook to read, default the one the SAE names.
        options: fields of `Options`.

    Raises:
        ConfigError: an unknown option or a wrong value.
    """

    name: ClassVar[str]
    question: ClassVar[str]
    """The question it answers, in one line for the docs."""
    control: ClassVar[str]
    """The controls of its numbers, in one line for the docs."""
    needs_labels: ClassVar[bool] = False

    class Options(options.Options):
        """None of its own."""

    def __init__(self, embeddings: Embeddings, *, hook: str | None = None, **options: Any):
        self.embeddings, self.hook = require_embeddings(embeddings), hook
        self.options: Any = self.Options(**options)

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if "name" in cls.__dict__:
            if "Options" not in cls.__dict__:  # a message about its options names it, too
                place = {"__module__": cls.__module__, "__qualname__": f"{cls.__qualname__}.Options"}
                cls.Options = type("Options", (cls.Options,), place)
            cls.Options.section = cls.name

    @classmethod
    def from_context(cls, context: Context) -> Self:
        """Made for one evaluation, from its options and from what it has loaded.

        Raises:
            Unavailable: what it needs is not there.
        """
        return cls(context.embeddings, **context.options_of(cls))

    @abstractmethod
    def measure(self, sae: Any, embeddings: Embeddings, latents: Latents) -> Result:
        """The evaluator itself. It changes none of its arguments and gives the same result each time."""

    def evaluate(self, sae: Any, embeddings: Embeddings | None = None, latents: Latents | None = None) -> Result:
        """Measure the SAE.

        Args:
            sae: any SAELens SAE.
            embeddings: default the ones of the constructor.
            latents: one row per meme, if they have already been encoded.

        Raises:
            DataError: the embeddings, labels or latents do not allow it; the message says why.
            ModelError: as `require_maps_to_itself`.
        """
        embeddings = require_embeddings(self.embeddings if embeddings is None else embeddings)
        require_maps_to_itself(sae)
        with eval_mode(sae), same_threads():
            latents = encode(sae, embeddings, self.hook) if latents is None else latents
            require_latents_of(latents, embeddings)
            return self.measure(sae, embeddings, latents)

    def accumulator(self, sae: Any) -> Accumulator:
        """For memes that come in parts, or are encoded in several processes: `accumulate`, `merge`, `finish`."""
        return Accumulator(self, sae)

    def __call__(self, sae: Any, data_provider: Any, activation_scaler: Any) -> dict[str, float]:
        """SAELens' evaluator protocol: a fresh flat dict, keys `meme/<name>/...` (see `log_key`).

        The data provider is left untouched: it yields training batches without ids and labels.
        """
        found = self.evaluate(unscaled(sae, activation_scaler)).to_log_dict()
        return {self.log_key(key): value for key, value in found.items()}

    def log_key(self, key: str) -> str:
        """The name under which a number of the result is logged while training."""
        return f"meme/{self.name}/{key}"


@contextmanager
def same_threads() -> Iterator[None]:
    """numba's parallel loops raise the number of threads that torch uses after them, and with it other last bits."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def require_embeddings(embeddings: Any) -> Embeddings:
    """Raises DataError for what is none, such as a folder."""
    if not isinstance(embeddings, Embeddings):
        raise DataError(
            f"embeddings: a {type(embeddings).__name__} is given; make embeddings of it with Embeddings.load(folder), "
            "Embeddings.from_dataset(dataset) or as_embeddings(...)"
        )
    return embeddings


class Accumulator:
    """The parts seen so far; make one with `Evaluator.accumulator(sae)`.

    An accumulator may be made in each of several processes, given other memes in each, and pickled back or rebuilt
    from what `Latents.save` wrote; `merge` joins them. The result is that of one run over the parts in their order.
    """

    def __init__(self, evaluator: Evaluator, sae: Any):
        self.evaluator, self.sae = evaluator, require_maps_to_itself(sae)
        self.embeddings: list[Embeddings] = []
        self.latents: list[Latents] = []

    def accumulate(self, embeddings: Embeddings, latents: Latents | None = None) -> Accumulator:
        """Add memes that were not added before, encoded here unless their latents are given."""
        require_embeddings(embeddings)
        latents = encode(self.sae, embeddings, self.evaluator.hook) if latents is None else latents
        require_latents_of(latents, embeddings)
        self.embeddings.append(embeddings)
        self.latents.append(latents)
        return self

    def merge(self, other: Accumulator) -> Accumulator:
        """Add the parts of another accumulator of the same SAE, after those that are here."""
        self.embeddings += other.embeddings
        self.latents += other.latents
        return self

    def finish(self) -> Result:
        """The evaluator's result over all parts.

        Raises:
            DataError: there are no parts, a meme is in two of them, or they do not have the same columns.
        """
        if not self.embeddings:
            raise DataError(f"{self.evaluator.name}: nothing was accumulated; call accumulate(embeddings) first")
        embeddings, latents = Embeddings.concatenate(self.embeddings), Latents.concatenate(self.latents)
        return self.evaluator.evaluate(self.sae, embeddings, latents)
