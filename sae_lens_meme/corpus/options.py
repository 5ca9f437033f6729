"""The options of a corpus: a folder for each reader, and how the sources become one corpus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, create_model

from sae_lens_meme.corpus.readers import READERS
from sae_lens_meme.corpus.skipped import OnBad
from sae_lens_meme.options import File, Options

Preset = Literal["all", "intervlm"]


class _Merging(Options):
    section: ClassVar[str] = "corpus"

    columns: dict[str, Any] | File | None = None
    """What the columns of --folder or --hub are, as a YAML file such as {text: caption, labels: {hate: is_hateful}}."""
    fine_grained: File | None = None
    """Fine-grained labels for --hmc: a file, or a folder of files, with gold_pc and gold_attack, joined by img."""
    preset: Preset = "all"
    """'all' keeps every labelled row; 'intervlm' keeps the published 19,820 + 1,007."""
    holdout: Annotated[float, Field(ge=0, lt=0.5)] = 0.1
    """Share of validation and of test rows for a source that has no split of its own."""
    near: Annotated[int, Field(ge=0, le=8)] = 4
    """Pictures are near duplicates, and one group, if their 64-bit perceptual hashes differ in at most this many bits."""
    dedupe: bool = False
    """Drop train memes that share picture, near picture, caption or group with validation or test, and validation memes that share one with test; they are listed in duplicates.jsonl."""
    on_bad: OnBad = "raise"
    """A row or picture that cannot be used: 'raise' stops, 'skip' lists it in bad_rows.jsonl."""


def corpus_options() -> type[CorpusOptions]:
    """`CorpusOptions` with a field for every reader that is registered now."""
    folder: Any = File | None  # pyright: ignore[reportOperatorIssue]
    fields: dict[str, Any] = {
        name: (reader.kind or folder, Field(default=None, description=reader.help)) for name, reader in READERS.items()
    }
    sources = create_model("Sources", __base__=Options, **fields)
    return create_model("CorpusOptions", __base__=(_Merging, sources))  # type: ignore[return-value]


if TYPE_CHECKING:

    class CorpusOptions(_Merging):
        def __getattr__(self, name: str) -> Any: ...


def __getattr__(name: str) -> Any:
    if name == "CorpusOptions":  # made when it is asked for: readers may have been added
        return corpus_options()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
