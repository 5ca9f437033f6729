"""Reads a dataset on the Hugging Face Hub by its name, as data: code in its repository is never run."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

from sae_lens_meme.corpus.columns import Columns
from sae_lens_meme.corpus.folder import read_tables
from sae_lens_meme.corpus.layout import Found
from sae_lens_meme.corpus.rows import Reader, Row
from sae_lens_meme.corpus.skipped import BadRows
from sae_lens_meme.errors import BadTableError, ConfigError

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def read_hub(name: str, columns: Columns = None, bad: BadRows | None = None) -> list[Row]:
    """The rows of all splits of a dataset, read from the Arrow files that `datasets` keeps in its cache.

    Args:
        name: `owner/name`.
        columns: see `sae_lens_meme.corpus.columns.column_map`.

    Raises:
        ConfigError: `name` does not have this form.
        BadTableError: it cannot be loaded, or a row is bad and `bad` raises.
    """
    if not _NAME.fullmatch(str(name)):
        raise ConfigError(f"hub is {str(name)!r}; give the name of a dataset as owner/name, or a folder with --folder")
    found = [(split, Path(file["filename"])) for split, part in _load(name).items() for file in part.cache_files]
    if not found:
        raise BadTableError(f"{name}: has no files in the cache of `datasets`; download it and read it with --folder")
    return read_tables(found, _common(found), columns, bad, source=name.replace("/", "--"))


def _load(name: str) -> Any:
    import datasets

    refuse: dict[str, Any] = {}
    if "trust_remote_code" in inspect.signature(datasets.load_dataset).parameters:  # before datasets 4
        refuse["trust_remote_code"] = False
    try:
        found = datasets.load_dataset(name, **refuse)
    except Exception as error:  # of the network, of the Hub, of Arrow
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise BadTableError(
            f"hub {name}: cannot be loaded ({reason}); check the name and the network, or give a copy with --folder"
        ) from None
    return found if isinstance(found, dict) else {None: found}


def _common(found: list[Found]) -> Path:
    """The folder that holds all files: a picture that a table only names is looked for below it, and nowhere else."""
    first = found[0][1].parent
    return next(folder for folder in (first, *first.parents) if all(path.is_relative_to(folder) for _, path in found))


READER = Reader(
    "hub",
    read_hub,
    help="A dataset of the Hugging Face Hub: OWNER/NAME. Its own code is never run.",
    takes=("columns",),
    kind=str | None,
)
