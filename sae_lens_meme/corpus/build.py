"""Builds a corpus (reads the sources, merges them, examines every picture, writes one `DatasetDict` on disk) and opens it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset, DatasetDict, Image, IterableDataset, concatenate_datasets

from sae_lens_meme.corpus.groups import find_links
from sae_lens_meme.corpus.leaks import deduplicate, dropped_counts
from sae_lens_meme.corpus.merge import INTERVLM_SPLITS, Chosen, choose, deal
from sae_lens_meme.corpus.options import corpus_options
from sae_lens_meme.corpus.pictures import picture_size
from sae_lens_meme.corpus.readers import READERS
from sae_lens_meme.corpus.rows import Row
from sae_lens_meme.corpus.skipped import BadRows, OnBad, place, require_every_class
from sae_lens_meme.corpus.survey import survey
from sae_lens_meme.corpus.write import BAD_ROWS, Plan, write_corpus
from sae_lens_meme.errors import BadImageError, ConfigError, DataError, StorageError
from sae_lens_meme.images import open_image
from sae_lens_meme.options import Positive, check_value
from sae_lens_meme.storage import StepFolder, open_dataset, read_finished, read_manifest, sha256_file

if TYPE_CHECKING:
    from sae_lens_meme.corpus.options import CorpusOptions

_SCHEMA = 4  # raise it when the same input gives another corpus


def build_corpus(
    out: str | Path,
    options: CorpusOptions | None = None,
    *,
    overwrite: bool = False,
    shard_size: int = 500,
    progress: bool = True,
    **given: Any,
) -> DatasetDict:
    """Build a corpus in `out` and load it; a finished one is loaded at once, a killed one is resumed.

    Args:
        options: see `CorpusOptions`; or give them by keyword: `build_corpus(out, folder=DIR, holdout=0.2)`.
        overwrite: replace a different corpus in `out`.
        shard_size: most memes per shard.

    Raises:
        ConfigError: no source, or an option has a wrong value.
        BadTableError: a table or a row of it is bad, or skipping would lose a whole class of a label.
        BadImageError: a picture is missing or damaged.
        StorageError: `out` is in use or holds something else.
    """
    if options is not None and given:
        raise ConfigError(f"corpus: {', '.join(given)}: give the options as one object or by keyword, not both")
    options = options or corpus_options()(**given)
    check_value("shard_size", shard_size, Positive)
    bad = BadRows(options.on_bad)
    rows = _read_sources(options, bad)
    chosen = choose(rows, preset=options.preset, bad=bad)
    require_every_class(chosen.given, bad.rows)
    with StepFolder(out, "corpus", _fingerprint(chosen, rows, options, shard_size), overwrite=overwrite) as step:
        if not step.complete:
            write_corpus(step, _plan(step, chosen, options, shard_size, bad, progress), progress=progress)
        _refuse_bad_rows(step.path, options.on_bad)
    return load_corpus(out)


def load_corpus(path: str | Path) -> DatasetDict:
    """Open a corpus that `build_corpus` has finished.

    Raises:
        StorageError: there is no finished corpus in this folder.
    """
    read_finished(path, "corpus")
    corpus = open_dataset(path)
    if not isinstance(corpus, DatasetDict):
        raise StorageError(f"{path}: is a dataset without splits, not a corpus; build it again")
    return corpus


def load_rows(path: str | Path) -> Dataset:
    """All memes of a finished corpus as one dataset, split after split.

    Raises:
        StorageError: there is no finished corpus in this folder.
    """
    return concatenate_datasets([rows for rows in load_corpus(path).values() if len(rows)])


def stream_corpus(path: str | Path, split: str = "train") -> IterableDataset:
    """The memes of a split one after the other, a file per shard, for corpora that are larger than memory.

    `shuffle(buffer_size=...)`, `map` and a DataLoader of several workers (one per shard) work on it as on any stream.

    Raises:
        StorageError: there is no finished corpus in this folder.
        ConfigError: it has no such split.
    """
    corpus = load_corpus(path)
    if split not in corpus:
        raise ConfigError(f"{path}: has no split {split!r}; it has {', '.join(map(str, corpus))}")
    return corpus[split].to_iterable_dataset(num_shards=len(corpus[split].cache_files))


def all_rows(corpus: Any) -> Dataset:
    """All memes of a corpus: its folder, a `DatasetDict` as `load_corpus` gives it, or one `Dataset`.

    Raises:
        StorageError: the folder is not a finished corpus.
        DataError: it has no column `id` or `image`.
    """
    if isinstance(corpus, (str, Path)):
        return load_rows(corpus)
    rows = concatenate_datasets([part for part in corpus.values() if len(part)]) if isinstance(corpus, dict) else corpus
    if missing := {"id", "image"} - set(getattr(rows, "column_names", ())):
        raise DataError(f"corpus: has no column {', '.join(sorted(missing))}; give memes with id and image")
    return rows


def require_memes(corpus: Path, ids: Iterable[str], known: Container[str]) -> None:
    """Raises DataError where an embedded meme is not among those that the corpus has."""
    if lacking := [identity for identity in ids if identity not in known]:
        raise DataError(
            f"{corpus}: meme {lacking[0]!r} of the embeddings is not in it ({len(lacking)} such memes); "
            "give the corpus that was embedded"
        )


def caption_of(meme: Mapping[str, Any]) -> str | None:
    """The caption of a row, None where the meme has none: MemeCLIP reads a missing caption as a word."""
    return None if meme["text_origin"] == "none" else meme["text"]


def _read_sources(options: CorpusOptions, bad: BadRows) -> list[Row]:
    sources = {name: path for name in READERS if (path := getattr(options, name, None)) is not None}
    if not sources:
        raise ConfigError(f"no source given; give at least one of {', '.join(READERS)}")
    _refuse_idle(options, sources)
    published = {source for source, _ in INTERVLM_SPLITS}
    if options.preset == "intervlm" and (other := next((name for name in sources if name not in published), None)):
        raise ConfigError(f"preset: 'intervlm' is the merge of PrideMM, HMC and Memotion; use 'all' with a {other}")
    rows = []
    for name, path in sources.items():
        reader = READERS[name]
        rows += reader.read(path, bad=bad, **{option: getattr(options, option) for option in reader.takes})
    return rows


def _refuse_idle(options: CorpusOptions, sources: Mapping[str, Any]) -> None:
    """An option that is given, and that none of the sources takes."""
    for option in {option for reader in READERS.values() for option in reader.takes}:
        users = [name for name, reader in READERS.items() if option in reader.takes]
        default = type(options).model_fields[option].default
        if getattr(options, option) != default and not sources.keys() & set(users):
            raise ConfigError(f"{option}: is an option of {' and '.join(users)}, but no {users[0]} is given")


def _plan(
    step: StepFolder, chosen: Chosen, options: CorpusOptions, shard_size: int, bad: BadRows, progress: bool
) -> Plan:
    """Examine the pictures, group what belongs together, and assign the splits."""
    step.reopen()
    looks = survey(step, list(chosen.given), shard_size, bad, progress=progress)
    links = find_links(list(chosen.given), looks, options.near)
    splits = deal(chosen.given, links.groups, options.holdout)
    splits = {split: [row for row in rows if looks[row].error is None] for split, rows in splits.items()}
    require_every_class((row for rows in splits.values() for row in rows), bad.rows)
    duplicates, dropped = None, dict(chosen.dropped)
    if options.dedupe:
        splits, duplicates = deduplicate(splits, links)
        dropped |= dropped_counts(duplicates)
    return Plan(
        splits, looks, links, options.preset, options.holdout, shard_size, bad.rows, dropped, duplicates, bad.notes
    )


def _fingerprint(chosen: Chosen, rows: Sequence[Row], options: CorpusOptions, shard_size: int) -> dict[str, Any]:
    """Tables by content, rows as they were read, pictures by name and size.

    Hashing the content of every picture costs as much as building; a picture that is replaced by
    another of exactly the same size is the price (`image_sha256` tells what was read).
    """
    digest = hashlib.sha256()
    for row, split in sorted(chosen.given.items(), key=lambda pair: pair[0].id):
        read = [row.id, row.source, row.split, split, row.text, row.text_origin, dict(row.labels), row.image, row.group]
        digest.update(json.dumps([*read, picture_size(row.picture)]).encode())
    tables = sorted({(row.source, row.file) for row in rows})
    return {
        "corpus_schema": _SCHEMA,
        "preset": options.preset,
        "holdout": options.holdout,
        "near": options.near,
        **({"dedupe": True} if options.dedupe else {}),
        "shard_size": shard_size,
        "tables": [[source, file.name, sha256_file(file)] for source, file in tables],
        "rows": digest.hexdigest(),
    }


def _refuse_bad_rows(path: Path, on_bad: OnBad) -> None:
    """A corpus that an earlier run finished with `skip` does not satisfy `raise`."""
    count = sum(read_manifest(path)["facts"]["skipped"].values())
    if on_bad == "raise" and count:
        first = json.loads((path / BAD_ROWS).read_text(encoding="utf-8").splitlines()[0])
        where = place(first["file"], first["row"], first["id"])
        raise BadImageError(f"{where}: {first['reason']} or pass --on-bad skip ({count} bad rows in all)")


class Pictures(Sequence[Any]):
    """The pictures of a corpus by row number, opened by `open_image`."""

    def __init__(self, rows: Dataset):
        self._rows = rows.select_columns(["id", "image"]).cast_column("image", Image(decode=False))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: Any) -> Any:
        meme = self._rows[row]
        return open_image(meme["image"]["bytes"], name=meme["id"])
