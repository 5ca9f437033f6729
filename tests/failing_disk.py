"""A disk that is full at the n-th write of a run: every way in which a step, or a library for it, brings bytes to a file.

The standard library opens some files by a name of its own for `open`, and Arrow, torch and safetensors write outside of
Python: what writes there is in `WRITES`.
"""

from __future__ import annotations

import builtins
import errno
import gzip
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.csv
import pyarrow.parquet
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from datasets.arrow_writer import ArrowWriter
from matplotlib.figure import Figure
from PIL import Image
from safetensors import SafetensorError


def _full(*_: Any) -> Exception:
    return OSError(errno.ENOSPC, "No space left on device")


def _of_torch(*_: Any) -> Exception:
    return RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0")


def _of_safetensors(*_: Any) -> Exception:
    return SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


WRITES: list[tuple[Any, str, Callable[..., Exception]]] = [
    (os, "replace", _full),
    (os, "fsync", _full),
    (os, "mkdir", _full),
    (tempfile, "mkstemp", _full),
    (Path, "write_text", _full),
    (Path, "write_bytes", _full),
    (shutil, "copyfile", _full),
    (json, "dump", _full),
    (ArrowWriter, "finalize", _full),
    (pd.DataFrame, "to_parquet", _full),
    (pyarrow.parquet, "write_table", _full),
    (pyarrow.csv, "write_csv", _full),
    (Image.Image, "save", _full),
    (Figure, "savefig", _full),
    (gzip.GzipFile, "write", _full),
    (zipfile.ZipFile, "writestr", _full),
    (safetensors.torch, "serialize_file", _of_safetensors),
    (safetensors.numpy, "serialize_file", _of_safetensors),
    (torch, "save", _of_torch),
]


class Disk:
    """Counts the writes, and has the n-th fail (None: none)."""

    def __init__(self, full_at: int | None):
        self.full_at, self.failed, self.writes = full_at, "", list[str]()
        self._open = builtins.open

    def edges(self) -> list[int]:
        """Every write, from 1; of pieces that go into one file one after the other the first, one within, the last."""
        names = [None, *self.writes, None]
        whole = [n for n in range(1, len(names) - 1) if not names[n - 1] == names[n] == names[n + 1]]
        within = [n for n in whole if names[n] == names[n + 1] and n + 1 not in whole]
        return sorted({*whole, *(n + 1 for n in within)})

    def guard(self, real: Any, name: str, error: Callable[..., Exception]) -> Any:
        def write(*given: Any, **options: Any) -> Any:
            if name == "mkdir" and os.path.isdir(given[0]):  # asks whether it is there, and writes nothing
                return real(*given, **options)
            self._count(name, error)
            return None if name == "fsync" else real(*given, **options)  # nothing here loses power

        return write

    def open(self, file: Any, mode: str = "r", *given: Any, **options: Any) -> Any:
        if not set(mode) & set("wxa+"):
            return self._open(file, mode, *given, **options)
        self._count("open", _full)
        opened = self._open(file, mode, *given, **options)
        opened.write = self.guard(opened.write, f"open {len(self.writes)}", _full)
        return opened

    def _count(self, name: str, error: Callable[..., Exception]) -> None:
        self.writes.append(name)
        if len(self.writes) == self.full_at:
            self.failed = name
            raise error()


@contextmanager
def disk(full_at: int | None = None) -> Iterator[Disk]:
    """While it lasts, nothing is free on the disk once a write has failed: torch does not say why it did."""
    made, usage = Disk(full_at), shutil.disk_usage
    with pytest.MonkeyPatch.context() as patched:
        for owner, name, error in WRITES:
            patched.setattr(owner, name, made.guard(getattr(owner, name), name, error))
        patched.setattr(builtins, "open", made.open)
        patched.setattr(shutil, "disk_usage", lambda path: usage(path)._replace(free=0) if made.failed else usage(path))
        yield made
