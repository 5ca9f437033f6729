"""Reading embeddings: one memory-mapped row per meme, one column per hook, ids and labels beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from datasets import Array2D, ClassLabel, Dataset, Image, concatenate_datasets

from sae_lens_meme.errors import DataError, StorageError
from sae_lens_meme.hook_columns import distinct, is_bytes, matrix_of, require_finite, require_layout
from sae_lens_meme.labels import (
    SPLITS,
    beyond_64_bits,
    is_label_column,
    is_missing,
    label_values,
    missing_code,
    misspelled,
    read_split,
    respelled,
    source_of,
)
from sae_lens_meme.row_kind import RowKind, kind_of_rows
from sae_lens_meme.storage import fetched, open_dataset, read_finished, require_here, sha256_json

LEFT_OUT = "left out"
"""What `Embeddings.splits` says about a meme that is in none."""


@dataclass(frozen=True)
class Label:
    """One label column. `values[i]` means something only where `known[i]`."""

    name: str
    known: np.ndarray  # bool [n_samples]
    values: np.ndarray  # int64 or object (strings) [n_samples]

    @property
    def classes(self) -> list[Any]:
        """The values that occur, sorted."""
        return np.unique(self.values[self.known]).tolist()


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of n_samples memes at one or more hooks.

    Load them with `Embeddings.load(folder)`; `from_dataset` takes any dataset whose hook columns
    have SAELens' cached-activation layout, `Array2D((1, d), "float32")`.
    """

    dataset: Dataset
    facts: dict[str, Any] = field(default_factory=dict)  # model, fusion, preprocessing, ... as `embed` wrote them
    fingerprint: str = ""
    path: Path | None = None
    left_out: frozenset[int] = frozenset()
    """Rows that are in no split, see `without_contaminated`."""

    @classmethod
    def load(cls, folder: str | Path) -> Embeddings:
        """Open the result of `embed`; from an object store it is copied to this machine first.

        Raises:
            StorageError: the folder is not a finished result of `embed`.
            DataError: it is no path.
        """
        if not isinstance(folder, (str, Path)):
            raise DataError(
                f"embeddings: a {type(folder).__name__} is no folder; Embeddings.from_dataset(dataset) or as_embeddings(...) "
                "makes embeddings of what is in memory"
            )
        folder = fetched(folder)
        manifest = read_finished(folder, "embed")
        dataset = open_dataset(folder)
        if not isinstance(dataset, Dataset):
            raise StorageError(f"{folder}: is a dataset of several splits, not one of embeddings; run embed again")
        require_layout(dataset, str(folder))
        return cls(dataset, manifest["facts"], sha256_json(manifest["fingerprint"]), Path(folder))

    @classmethod
    def from_dataset(cls, dataset: Dataset, **facts: Any) -> Embeddings:
        if found := misspelled(dataset.column_names):
            raise DataError(f"embeddings: there is a column {respelled(found)}; rename it")
        require_layout(dataset, "embeddings")
        return cls(dataset, facts, str(dataset._fingerprint))

    @classmethod
    def concatenate(cls, parts: Sequence[Embeddings]) -> Embeddings:
        """Embeddings of disjoint sets of memes as one; nothing is copied, what is on disk stays there.

        Raises:
            DataError: a meme is in two parts, or the parts do not have the same columns.
        """
        if len(parts) == 1:
            return parts[0]
        for part in parts[1:]:
            if part.dataset.features != parts[0].dataset.features:
                other = set(part.dataset.column_names) ^ set(parts[0].dataset.column_names)
                raise DataError(
                    f"embeddings cannot be joined: {', '.join(sorted(other)) or 'a column'} is not the same in all parts"
                )
            if part.facts != parts[0].facts:
                raise DataError("embeddings cannot be joined: they were made by different models or options")
        dataset = concatenate_datasets([part.dataset for part in parts])
        fingerprint = sha256_json([part.fingerprint for part in parts])
        left_out = np.flatnonzero(np.concatenate([part.splits == LEFT_OUT for part in parts]))
        joined = cls(dataset, parts[0].facts, fingerprint, left_out=frozenset(left_out.tolist()))
        ids, counts = np.unique(joined.ids, return_counts=True)
        if len(ids) and counts.max() > 1:
            raise DataError(f"embeddings cannot be joined: id {str(ids[counts.argmax()])!r} is in more than one part")
        return joined

    def __len__(self) -> int:
        return len(self.dataset)

    @cached_property
    def row_kind(self) -> RowKind:
        """Whether a row is a meme or a token of a picture, and what it is called."""
        return kind_of_rows(self.dataset.column_names)

    @cached_property
    def hooks(self) -> tuple[str, ...]:
        return tuple(name for name, kind in self.dataset.features.items() if isinstance(kind, Array2D))

    def d_in(self, hook: str) -> int:
        """The width of the embeddings at `hook`."""
        self._require_hook(hook)
        return self._widths[hook]

    @cached_property
    def ids(self) -> np.ndarray:
        return self._strings("id")

    @cached_property
    def sources(self) -> np.ndarray:
        """The source data set of each meme (one constant for those of which the table names none), str [n_samples]."""
        if "source" not in self.dataset.column_names:
            return np.full(len(self), source_of(None))
        return self._strings("source", source_of)

    @cached_property
    def strata(self) -> np.ndarray:
        """The source of each meme as a code 0, 1, ..., int64 [n_samples]: memes are compared within these."""
        return np.unique(self.sources, return_inverse=True)[1].astype(np.int64)

    @cached_property
    def groups(self) -> np.ndarray:
        """The group of each meme as a code 0, 1, ..., int64 [n_samples], in the order of their first memes.

        Memes of one group (copies of a picture, a template, a pair that differs in one thing) are not independent evidence:
        they are drawn, moved and split together. From the column `group`; a meme without one is its own.
        """
        if "group" not in self.dataset.column_names:
            return np.arange(len(self))
        cells, place = distinct(self._column("group"))
        unnamed = -1 if isinstance(self.dataset.features["group"], ClassLabel) else None
        alone = np.array([is_missing(cell) or cell == unnamed for cell in cells], dtype=bool)[place]
        return pd.factorize(np.where(alone, -1 - np.arange(len(self)), place))[0].astype(np.int64)

    @cached_property
    def by_id(self) -> np.ndarray:
        """Row numbers in the order of the ids, int64 [n_samples]: a result that uses it ignores the order of rows."""
        return np.argsort(self.ids, kind="stable")

    @cached_property
    def splits(self) -> np.ndarray:
        """The split of each meme (train where the table has no such column; LEFT_OUT), str [n_samples].

        Raises:
            DataError: a meme has none, or one of another name than `labels.SPLIT_NAMES` lists.
        """
        if "split" not in self.dataset.column_names:
            return np.full(len(self), "train")
        names, place = np.unique(self._strings("split"), return_inverse=True)
        splits = [read_split(name) for name in names]
        if None in splits:
            row = int(np.flatnonzero(place == splits.index(None))[0])
            unknown = [str(name) for name, split in zip(names, splits, strict=True) if split is None]
            raise DataError(
                f"embeddings, row {row} (id {str(self.ids[row])!r}): split is {', '.join(map(repr, unknown[:5]))}, "
                f"none of {', '.join(SPLITS)} (rows are counted from 0); name the split of every meme, or leave the column out"
            )
        found = np.array(splits, dtype=np.str_)[place]
        found[sorted(self.left_out)] = LEFT_OUT
        return found

    @cached_property
    def contaminated(self) -> np.ndarray:
        """Rows of test memes whose group is also in train or validation, and of validation memes whose group is in train.

        Ascending, int64. Whatever was trained or chosen on a copy of a meme has seen it.
        """
        earlier, found = np.empty(0, np.int64), []
        for split in SPLITS:
            rows = self.rows(split)
            found.append(rows[np.isin(self.groups[rows], earlier)])
            earlier = np.union1d(earlier, self.groups[rows])
        return np.sort(np.concatenate(found))

    def without_contaminated(self) -> Embeddings:
        """The same memes, of which the `contaminated` ones are in no split; nothing is copied."""
        return replace(self, left_out=frozenset(self.contaminated.tolist()))

    def as_evaluated(self, fingerprint: Mapping[str, Any]) -> Embeddings:
        """With the splits of an evaluation, by the fingerprint of its manifest: `--exclude-leaks` left memes out."""
        return self.without_contaminated() if fingerprint.get("options", {}).get("exclude_leaks") else self

    @cached_property
    def texts(self) -> np.ndarray | None:
        """Captions (None where a meme has none), object [n_samples]; None without such a column."""
        if "text" not in self.dataset.column_names:
            return None
        return np.array(self._column("text").to_pylist(), dtype=object)

    def rows(self, split: str) -> np.ndarray:
        """Row numbers of a split, ascending, int64."""
        if split not in SPLITS:
            raise DataError(f"split {split!r} is not one of {', '.join(SPLITS)}")
        return np.flatnonzero(self.splits == split)

    def held_out(self) -> tuple[str | None, np.ndarray]:
        """Name and rows of the test split, else of the validation split, else `(None, no rows)`."""
        for split in ("test", "validation"):
            if len(rows := self.rows(split)):
                return split, rows
        return None, np.empty(0, dtype=np.int64)

    def export_cached(self, folder: str | Path, split: str = "train") -> Path:
        """Write the rows of one split as a folder for SAELens' own runners: their `cached_activations_path`.

        The folder that `embed` writes holds every split; a stock runner that reads it trains on the test memes as well.

        Raises:
            DataError: there are no such rows.
            ConfigError: `folder` lies in a store.
            StorageError: there is something at `folder`.
        """
        require_here(folder)
        folder, rows = Path(folder), self.rows(split)
        if not len(rows):
            raise DataError(f"{self.path or 'embeddings'}: no rows of split {split!r} to export")
        if folder.exists():
            raise StorageError(f"{folder}: is there already; choose another folder")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.parent) as made:
            self.dataset.select(rows).save_to_disk(Path(made) / "split")
            (Path(made) / "split").rename(folder)
        return folder

    @cached_property
    def label_names(self) -> tuple[str, ...]:
        kinds = self.dataset.features
        pictures = [name for name, kind in kinds.items() if isinstance(kind, Image) or is_bytes(kind)]
        return tuple(n for n in kinds if is_label_column(n) and n not in self.hooks and n not in pictures)

    def label(self, name: str) -> Label:
        """A label column, read by the rule of `labels.label_values`.

        Raises:
            DataError: there is no such label (the message names those there are), or a code stands for missing.
        """
        if name not in self.label_names:
            raise DataError(
                f"label {name!r} is not in these embeddings; they have {', '.join(self.label_names) or 'none'}"
            )
        cells, place = distinct(self._column(name))
        kind = self.dataset.features[name]
        if (large := beyond_64_bits(cells)) is not None:
            raise DataError(f"{name} is {cells[large]}, which does not fit 64 bits; renumber the classes")
        values = label_values(name, cells, kind.names if isinstance(kind, ClassLabel) else None)
        if (code := missing_code(name, values)) is not None:
            rows = int((place == values.index(code)).sum())
            raise DataError(
                f"{name} is {code} in {rows:,} of {len(self):,} rows, which is not one of its levels; write null where it is missing"
            )
        text = any(isinstance(value, str) for value in values)
        known = np.array([value is not None for value in values], dtype=bool)
        filled = [("" if text else 0) if value is None else value for value in values]
        return Label(name, known[place], np.array(filled, dtype=object if text else np.int64)[place])

    def take(self, hook: str, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """The embeddings of these rows in this order, float32 [len(rows), d_in] (a copy)."""
        rows = np.asarray(rows, dtype=np.int64)
        out = np.empty((len(rows), self.d_in(hook)), dtype=np.float32)
        chunks = self._chunks[hook]
        starts = np.cumsum([0, *(len(chunk) for chunk in chunks)])
        owner = np.searchsorted(starts, rows, side="right") - 1
        for i in np.unique(owner):
            mine = owner == i
            out[mine] = chunks[i][rows[mine] - starts[i]]
        return out

    def batches(
        self, hook: str, rows: np.ndarray | None = None, batch_size: int = 4096
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Batches of `(rows, embeddings float32 [batch, d_in])` in the order of `rows` (default all)."""
        rows = np.arange(len(self)) if rows is None else np.asarray(rows)
        for start in range(0, len(rows), batch_size):
            part = rows[start : start + batch_size]
            yield part, self.take(hook, part)

    def require_finite(self, hook: str, rows: np.ndarray | None = None) -> None:
        """Check the embeddings of these rows (default all).

        Raises:
            NonFiniteError: one is NaN or infinite; the message names the first such meme.
        """
        for part, batch in self.batches(hook, rows):
            require_finite(batch, hook, self.ids, part)

    @cached_property
    def _widths(self) -> dict[str, int]:
        """`Dataset.features` is a deep copy: 3 ms, which each batch of training would pay."""
        features = self.dataset.features
        return {hook: int(features[hook].shape[-1]) for hook in self.hooks}

    @cached_property
    def _chunks(self) -> dict[str, list[np.ndarray]]:
        return {hook: [matrix_of(chunk, self.d_in(hook)) for chunk in self._column(hook).chunks] for hook in self.hooks}

    @cached_property
    def _flat(self) -> Dataset:
        return self.dataset if self.dataset._indices is None else self.dataset.flatten_indices()

    def _column(self, name: str) -> pa.ChunkedArray:
        return self._flat.data.column(name)

    def _strings(self, name: str, read: Callable[[Any], str] = str) -> np.ndarray:
        if name not in self.dataset.column_names:
            raise DataError(
                f"these embeddings have no column {name!r}; they have {', '.join(self.dataset.column_names)}"
            )
        cells, place = distinct(self._column(name))
        if isinstance(kind := self.dataset.features[name], ClassLabel):
            cells = [kind.names[code] if code is not None and code >= 0 else None for code in cells]
        texts = [read(cell) for cell in cells]
        # numpy's own strings are as wide as the longest of them and drop zeros at their end
        plain = all(len(text) < 1000 and not text.endswith("\0") for text in texts)
        return np.array(texts, dtype=np.str_ if plain else object)[place]

    def _require_hook(self, hook: str) -> None:
        if hook not in self.hooks:
            raise DataError(f"hook {hook!r} is not in these embeddings; they have {', '.join(self.hooks) or 'none'}")
