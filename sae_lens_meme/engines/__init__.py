"""Shards over workers: in this process, or on a Ray cluster. The steps do not know which, and neither do their bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, Protocol

from sae_lens_meme.errors import ConfigError
from sae_lens_meme.options import Options, Positive

Advance = Callable[[int], None]
Kind = Literal["local", "ray"]
NOT_RECORDED = {"engine", "address", "actors"}
"""Options that change no byte of a result."""


class ClusterOptions(Options):
    """Which cluster, where one is asked for."""

    address: str | None = None
    """ray: the cluster: auto, ray://HOST:10001, ...; default one that runs on this machine, else one that is started."""
    actors: Positive | None = None
    """ray: how many workers; default one a GPU. Without GPUs each has as many threads as this process (OMP_NUM_THREADS), and
    the default is so many as cores and memory (2 GB each) allow."""


class EngineOptions(ClusterOptions):
    """Where shards are computed. It changes no byte of a result."""

    engine: Kind = "local"
    """local: this process. ray: workers of a Ray cluster (the extra ray installs it), which see the same folders."""


class Worker(Protocol):
    """Computes shards one after the other; a shard depends on nothing but its task and `facts`."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """JSON values that decide the bytes, such as a hash of the weights: the same for all workers, or it is an error."""
        ...

    def __call__(self, tasks: Iterable[Any], advance: Advance) -> Iterator[Any]:
        """One result a task, in their order; `advance(n)` says that n more memes are done."""
        ...


MakeWorker = Callable[[], Worker]
"""Loads the model, once a worker. Ray sends it to other machines: a `functools.partial` of a class and its arguments."""


class ShardEngine(Protocol):
    """Workers that are ready."""

    @property
    def facts(self) -> Mapping[str, Any]: ...

    def map_shards(
        self, tasks: Iterable[Any], advance: Advance = ..., size: Callable[[Any], int] = ..., beside: Any = None
    ) -> Iterator[Any]:
        """One result a task, in their order; `size(task)` is how many memes it is of.

        `beside` is a large value that all of them are computed with: a worker is given `(task, beside)`, and each machine
        has it once.

        Raises:
            ShardError: of a shard that fails on every worker, in its turn; the next call of `next` goes on with the others.
        """
        ...


@contextmanager
def engine_of(kind: Kind, cluster: ClusterOptions, make_worker: MakeWorker) -> Iterator[ShardEngine]:
    """The engine that is asked for.

    Raises:
        ConfigError: Ray is not installed, there is no such cluster, workers differ in a version or in `facts`, or a cluster
            is described and not asked for.
    """
    if kind == "local":
        for name, given in cluster.model_dump(include=set(ClusterOptions.model_fields)).items():
            if given is not None:
                raise ConfigError(
                    f"{name} {given!r} is of a cluster, which nobody asked for: add --engine ray (ocr: --run-on ray) or leave it out"
                )
        yield _Local(make_worker())
        return
    from sae_lens_meme.engines.on_ray import ray_engine

    with ray_engine(cluster, make_worker) as engine:
        yield engine


class _Local:
    def __init__(self, worker: Worker):
        self._worker = worker

    @property
    def facts(self) -> Mapping[str, Any]:
        return self._worker.facts

    def map_shards(
        self,
        tasks: Iterable[Any],
        advance: Advance = lambda n: None,
        size: Callable[[Any], int] = len,
        beside: Any = None,
    ) -> Iterator[Any]:
        return self._worker(tasks if beside is None else ((task, beside) for task in tasks), advance)
