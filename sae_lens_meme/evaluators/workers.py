"""Evaluating on workers: shards are encoded, and evaluators measured, wherever the engine runs."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from sae_lens import SAE
from sae_lens.constants import SAE_CFG_FILENAME, SAE_WEIGHTS_FILENAME

from sae_lens_meme.engines import Advance, EngineOptions, ShardEngine, engine_of
from sae_lens_meme.errors import ConfigError, DataError, NonFiniteError, ShardError
from sae_lens_meme.evaluators.base import Evaluator, Unavailable
from sae_lens_meme.evaluators.context import Context
from sae_lens_meme.evaluators.latents import SHARD, Active, Latents, encode_batches, joined
from sae_lens_meme.evaluators.opened import Opened
from sae_lens_meme.evaluators.result import Result
from sae_lens_meme.progress import progress_bar
from sae_lens_meme.storage import MANIFEST, sha256_file

CANNOT = (Unavailable, DataError, NonFiniteError)
"""What an evaluator raises that cannot run on these memes."""
Found = Result | Unavailable | DataError | NonFiniteError
Files = dict[str, UInt8[np.ndarray, " bytes"]]


def measured(context: Context, made: Mapping[str, Evaluator]) -> Iterator[Found]:
    """The evaluators one after the other, in this process."""
    for evaluator in made.values():
        try:
            yield evaluator.evaluate(context.sae, context.embeddings, context.latents)
        except CANNOT as error:
            yield error


@contextmanager
def evaluating(opened: Opened, open_there: Callable[[], Opened], options: EngineOptions) -> Iterator[Workers]:
    """This process, or workers that have opened the same.

    Raises:
        ConfigError: they have not, or as for `engine_of`.
    """
    here = options.engine == "local"
    with engine_of(options.engine, options, partial(_Worker, (lambda: opened) if here else open_there)) as engine:
        if unlike := [key for key, value in _facts(opened).items() if engine.facts.get(key) != value]:
            raise ConfigError(
                f"engine {options.engine}: {unlike[0]} of the workers is not that of this machine; they must see the same "
                "files under the same paths"
            )
        yield Workers(engine, opened, here)


class Workers:
    """What evaluates, seen from the process that writes the result."""

    def __init__(self, engine: ShardEngine, opened: Opened, here: bool):
        self._engine, self._opened = engine, opened
        self._trained: dict[Path, Any] = {}
        self.measure = None if here else self._measure
        """Measures many evaluators at once; None where this process measures them one after the other."""

    def encode(self, progress: bool) -> Latents:
        """The latents of all memes."""
        n = len(self._opened.memes)
        shards = [range(start, min(start + SHARD, n)) for start in range(0, n, SHARD)]
        with progress_bar("encode", n, show=progress and self.measure is not None) as advance:
            return joined(self._engine.map_shards(shards, advance), self._opened.sae)

    def trained(self, folder: Path, train: Callable[[Path], Any]) -> Any:
        """The SAE that `train(folder)` trains for comparison; it does so once."""
        if folder not in self._trained:
            self._trained[folder] = train(folder)
        return self._trained[folder]

    def _measure(self, context: Context, made: Mapping[str, Evaluator]) -> Iterator[Found]:
        """
        Raises:
            ShardError: of evaluators that no worker could measure, all of them named; the others are measured.
        """
        known = _parts(context) | {f"trained/{folder.name}": sae for folder, sae in self._trained.items()}
        names = {id(part): name for name, part in known.items()}
        tasks = [_sent(name, evaluator, names) for name, evaluator in made.items()]
        beside = _Beside(context.latents, {folder.name: _files(folder) for folder in self._trained})
        found, failed = self._engine.map_shards(tasks, size=lambda _: 1, beside=beside), []
        for name in made:
            try:
                yield next(found)
            except ShardError as error:
                failed.append(f"{name} {error}")
        if failed:
            raise ShardError(f"evaluate: {len(failed)} of {len(made)} evaluators not measured ({'; '.join(failed)})")


class _Beside(NamedTuple):
    """What all evaluators are measured with and the folders of the user do not hold."""

    latents: Latents
    trained: dict[str, Files]


class _Worker:
    """Encodes shards, and measures evaluators on the latents of all memes."""

    def __init__(self, open_: Callable[[], Opened]):
        self._opened = open_()
        self.facts = _facts(self._opened)
        self._context: Context | None = None
        self._parts: dict[str, Any] = {}

    def __call__(self, tasks: Iterable[range | tuple[bytes, _Beside]], advance: Advance) -> Iterator[Active | Found]:
        for task in tasks:
            if isinstance(task, range):
                rows = np.arange(task.start, task.stop)
                yield Active.concatenate(encode_batches(self._opened.sae, self._opened.memes, rows=rows))
                advance(len(task))
            else:
                yield self._measured(*task)

    def _measured(self, sent: bytes, beside: _Beside) -> Found:
        if self._context is None:  # what evaluators share, such as fitted directions, is made once a worker
            self._context = self._opened.context(beside.latents)
            self._parts = _parts(self._context)
        for name, files in beside.trained.items():
            if (part := f"trained/{name}") not in self._parts:
                self._parts[part] = _loaded(files)
        return next(measured(self._context, {"": _Unpickler(io.BytesIO(sent), self._parts).load()}))


def _facts(opened: Opened) -> dict[str, Any]:
    path = opened.memes.path
    return {**opened.fingerprint, "manifest of the embeddings": path and sha256_file(path / MANIFEST)}


def _parts(context: Context) -> dict[str, Any]:
    """What each worker has opened itself, by a name that means the same to all."""
    names = ("sae", "embeddings", "reference", "answer_key", "attributions", "embedding_probes", "directions")
    parts = {name: getattr(context, name) for name in names}
    parts |= {f"other_saes/{name}": sae for name, sae in context.other_saes.items()}
    return {name: part for name, part in parts.items() if part is not None}


def _sent(name: str, evaluator: Evaluator, names: Mapping[int, str]) -> bytes:
    """An evaluator on its way to a worker, in which what the worker has is only named."""
    try:
        _Pickler(made := io.BytesIO(), names).dump(evaluator)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"evaluator {name!r} cannot be sent to workers ({reason}); leave it out (--skip {name}) or take --engine local"
        ) from None
    return made.getvalue()


class _Pickler(pickle.Pickler):
    def __init__(self, file: Any, names: Mapping[int, str]):
        super().__init__(file, protocol=5)
        self._names = names

    def persistent_id(self, value: Any) -> str | None:
        return self._names.get(id(value))


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: Any, parts: Mapping[str, Any]):
        super().__init__(file)
        self._parts = parts

    def persistent_load(self, name: str) -> Any:
        return self._parts[name]


def _files(folder: Path) -> Files:
    return {name: np.fromfile(folder / name, np.uint8) for name in (SAE_CFG_FILENAME, SAE_WEIGHTS_FILENAME)}


def _loaded(files: Files) -> SAE[Any]:
    with TemporaryDirectory() as folder:
        for name, content in files.items():
            content.tofile(Path(folder) / name)
        return SAE.load_from_disk(folder)
