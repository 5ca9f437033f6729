"""From folders of memes to one Hugging Face `DatasetDict` on disk, one row a meme."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_NAMES = {
    "build": ("all_rows", "build_corpus", "caption_of", "load_corpus", "load_rows", "stream_corpus"),
    "columns": ("ColumnMap", "column_map"),
    "export": ("export_table",),
    "folder": ("read_folder",),
    "hmc": ("read_hmc",),
    "memotion": ("read_memotion",),
    "notes": ("corpus_notes",),
    "options": ("CorpusOptions",),
    "pridemm": ("read_pridemm",),
    "reader": ("Reader",),
    "readers": ("READERS",),
    "rows": ("Row", "parse_label", "safe_path"),
    "skipped": ("BadRow", "BadRows"),
    "tables": ("Table", "read_table"),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    """The options of the command line are read here, and it must not wait for `datasets`."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
