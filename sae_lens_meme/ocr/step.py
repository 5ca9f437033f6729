"""The `ocr` step: every distinct picture is read once; captions that exist are left alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pandas as pd
from datasets import Dataset, Features, Value

from sae_lens_meme.corpus.build import Pictures, load_rows
from sae_lens_meme.engines import engine_of
from sae_lens_meme.errors import ConfigError, MemeError, StorageError
from sae_lens_meme.ocr.engines import find, read_lines, text_of
from sae_lens_meme.ocr.options import OcrOptions
from sae_lens_meme.ocr.words import Word, words_of
from sae_lens_meme.shards import write_computed
from sae_lens_meme.storage import MANIFEST, StepFolder, fetched, open_dataset, read_finished, sha256_file, sha256_json

STEP, ORIGIN = "ocr", "ocr"
SHARD = 64
"""Pictures a shard: about half a minute of work, the most that a kill can cost."""
FEATURES = Features(
    {
        "image_sha256": Value("string"),
        "ids": [Value("string")],  # of the memes that were asked for with this picture
        "text": Value("string"),  # null where nothing was read
        "problem": Value("string"),  # what the engine said where it failed
        "words": [
            {name: Value("string" if name == "word" else "float32") for name in Word._fields},
        ],
    }
)


def read_captions(
    corpus: str | Path,
    out: str | Path,
    options: OcrOptions | None = None,
    *,
    overwrite: bool = False,
    progress: bool = True,
    **given: Any,
) -> Captions:
    """Read the text on the pictures of a corpus; `embed(..., ocr=out)` takes it for captions that are missing.

    A killed run resumes at the first missing shard; the corpus is not changed.

    Args:
        corpus: the result of the `corpus` step.
        out: the result folder.
        options: see `OcrOptions`; or give them by keyword: `read_captions(corpus, out, memes="all")`.

    Raises:
        ConfigError: the engine is unknown or not installed, or the earlier result is of another engine.
        StorageError: a folder is not what it must be.
    """
    options = OcrOptions.of(options, given)
    engine, manifest = find(options.engine), read_finished(corpus, "corpus")
    fingerprint = {
        "corpus": sha256_json([manifest["fingerprint"], manifest["files"]]),
        "engine": [options.engine, engine.version],
        "memes": options.memes,
    }
    with StepFolder(out, STEP, fingerprint, overwrite=overwrite) as folder:
        if not folder.complete:
            _write(folder, Path(corpus), options, progress)
    return Captions.load(out)


@dataclass(frozen=True)
class Captions:
    """A finished result of `ocr`. Its texts are foreign text."""

    dataset: Dataset
    facts: dict[str, Any]
    """`engine`, `version`, `n_memes`, `n_pictures`, of these `n_read` with text and `n_failed` at which the engine failed."""
    fingerprint: str

    @classmethod
    def load(cls, folder: str | Path) -> Captions:
        """Open a folder.

        Raises:
            StorageError: it is not a finished result of `ocr`.
        """
        manifest = read_finished(folder, STEP)
        dataset = open_dataset(folder)
        if not isinstance(dataset, Dataset) or dataset.column_names != list(FEATURES):
            raise StorageError(f"{folder}: does not have the columns of a result of 'ocr'; run ocr again")
        fingerprint = sha256_json([manifest["fingerprint"], manifest["files"]])
        return cls(dataset, manifest["facts"], fingerprint)

    @cached_property
    def texts(self) -> dict[str, str | None]:
        """By `image_sha256` what was read, None where nothing was."""
        return dict(zip(self.dataset["image_sha256"][:], self.dataset["text"][:], strict=True))

    @property
    def words(self) -> pd.DataFrame:
        """A row per meme and word: id, word, confidence, and the box x0, y0, x1, y1 in pixels of the upright picture."""
        rows = [
            {"id": id, **word}
            for picture in self.dataset.select_columns(["ids", "words"]).to_list()
            for id in picture["ids"]
            for word in picture["words"]
        ]
        return pd.DataFrame(rows, columns=["id", *Word._fields])

    def fill(self, rows: Dataset) -> tuple[Dataset, str]:
        """Rows of a corpus with what was read where a caption is missing, and a sentence that counts them."""
        columns = rows.select_columns(["text", "text_origin", "image_sha256"])[:]
        texts, origins = list(columns["text"]), list(columns["text_origin"])
        missing = [i for i, origin in enumerate(origins) if origin == "none"]
        asked = [i for i in missing if columns["image_sha256"][i] in self.texts]
        filled = [i for i in asked if self.texts[columns["image_sha256"][i]] is not None]
        for i in filled:
            texts[i], origins[i] = self.texts[columns["image_sha256"][i]], ORIGIN
        order = rows.column_names
        rows = rows.remove_columns(["text", "text_origin"])
        rows = rows.add_column("text", texts, feature=Value("string"))  # pyright: ignore[reportCallIssue]
        rows = rows.add_column("text_origin", origins, feature=Value("string"))  # pyright: ignore[reportCallIssue]
        pictures = zip(self.dataset["image_sha256"][:], self.dataset["problem"][:], strict=True)
        bad = {sha256 for sha256, problem in pictures if problem is not None}
        failed = sum(columns["image_sha256"][i] in bad for i in asked)
        unread = f", failed at {failed:,}" if failed else ""
        unread += f", and {len(missing) - len(asked):,} were not given to it" if len(asked) < len(missing) else ""
        note = (
            f"{len(missing):,} of {len(texts):,} memes had no caption: OCR ({self.facts['engine']}) read one for "
            f"{len(filled):,}, found no text on {len(asked) - len(filled) - failed:,}{unread}"
        )
        return rows.select_columns(order), note


def _known(reuse: Path | None, engine: list[str]) -> dict[str, dict[str, Any]]:
    """What an earlier result says about pictures, by their hash."""
    if reuse is None:
        return {}
    earlier = read_finished(reuse, STEP)["fingerprint"]["engine"]
    if earlier != engine:
        raise ConfigError(
            f"reuse: {reuse} was read by {' '.join(earlier)}, not by {' '.join(engine)}; leave --reuse out, or use that engine"
        )
    return {row["image_sha256"]: row for row in Captions.load(reuse).dataset.to_list() if row["problem"] is None}


def _write(folder: StepFolder, corpus: Path, options: OcrOptions, progress: bool) -> None:
    pictures = _asked(load_rows(corpus), options.memes)
    parts = [pictures[start : start + SHARD] for start in range(0, len(pictures), SHARD)] or [[]]
    with engine_of(options.run_on, options, partial(_Worker, corpus, options)) as engine:
        write_computed(folder, FEATURES, parts, engine, unit="pictures", progress=progress)
    written = open_dataset(folder.path)
    folder.finish(
        engine=options.engine,
        version=find(options.engine).version,
        n_memes=sum(len(picture.ids) for picture in pictures),
        n_pictures=len(pictures),
        n_read=sum(text is not None for text in written["text"][:]),
        n_failed=sum(problem is not None for problem in written["problem"][:]),
    )


class _Worker:
    """An OCR engine over parts of the pictures of a corpus."""

    def __init__(self, corpus: Path, options: OcrOptions):
        engine = [options.engine, find(options.engine).version]
        self.facts = {"engine": engine, "corpus": sha256_file(fetched(corpus) / MANIFEST)}
        self._engine, self._known = options.engine, _known(options.reuse, engine)
        self._opened = Pictures(load_rows(corpus))

    def __call__(
        self, tasks: Iterable[list[_Picture]], advance: Callable[[int], None]
    ) -> Iterator[dict[str, list[Any]]]:
        for part in tasks:
            yield _columns(part, self._opened, self._engine, self._known, advance)


@dataclass
class _Picture:
    """A distinct picture: the first row that has it, and the memes."""

    sha256: str
    row: int
    ids: list[str]


def _asked(rows: Dataset, memes: str) -> list[_Picture]:
    """The distinct pictures in the order of the corpus."""
    columns = rows.select_columns(["id", "text_origin", "image_sha256"])[:]
    found: dict[str, _Picture] = {}
    for row, (id, origin, sha256) in enumerate(zip(*columns.values(), strict=True)):
        if memes == "all" or origin == "none":
            found.setdefault(sha256, _Picture(sha256, row, [])).ids.append(id)
    return list(found.values())


def _columns(
    part: list[_Picture],
    opened: Pictures,
    engine: str,
    known: Mapping[str, dict[str, Any]],
    advance: Callable[[int], None],
) -> dict[str, list[Any]]:
    """The columns of one shard."""
    rows = []
    for picture in part:
        if (row := known.get(picture.sha256)) is None:
            row = _read(opened[picture.row], engine)
        rows.append({**row, "image_sha256": picture.sha256, "ids": picture.ids})
        advance(1)
    return {name: [row[name] for row in rows] for name in FEATURES}


def _read(image: Any, engine: str) -> dict[str, Any]:
    """One picture at which an engine fails does not stop the others: the row says why."""
    try:
        lines = read_lines(image, engine)
    except (MemeError, MemoryError):
        raise
    except Exception as error:  # whatever a library makes of a strange picture
        reason = " ".join(str(error).split())[:200]
        return {"text": None, "problem": f"{type(error).__name__}: {reason}", "words": []}
    words = [word._asdict() for word in words_of(lines, *image.size)]
    return {"text": text_of(lines), "problem": None, "words": words}
