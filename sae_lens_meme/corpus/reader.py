"""What a corpus reader is: a name, a function, and what the help and the dataset card say about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Reader(NamedTuple):
    """Reads one kind of source.

    `read(folder, bad=bad)` gives the rows; what cannot be used goes to `bad.add`. The name is the option of the
    command line, the key of a recipe and the keyword of `build_corpus`.
    """

    name: str
    read: Callable[..., list[Any]]
    help: str
    provenance: str = ""
    """Where such memes come from and on what terms, for the dataset card."""
    note: str = ""
    """How its labels were changed, for the dataset card."""
    takes: tuple[str, ...] = ()
    """Further options of the corpus that `read` takes by keyword."""
    kind: Any = None
    """The type of its option, where that is not a path."""
