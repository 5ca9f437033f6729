"""Workers as actors of a Ray cluster; the only module that imports Ray.

A worker that dies costs its shard, which goes to another; a shard that fails three times is given up and the others go on.
"""

from __future__ import annotations

import os
import platform
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from threadpoolctl import threadpool_info

from sae_lens_meme import __version__
from sae_lens_meme.engines import Advance, ClusterOptions, MakeWorker
from sae_lens_meme.errors import ConfigError, MemeError, ShardError
from sae_lens_meme.storage import VERIFY, first_difference

INSTALL = 'engine ray needs Ray, which is not installed; pip install "sae-lens-meme[ray]"'
FAILURES, DEATHS = 3, 10
"""Exceptions and dead workers after which a shard is given up: an exception comes again, a node may die of anything."""
AHEAD = 4
"""Finished shards a worker that wait for an earlier one, at most."""
PATIENCE = 60.0
"""Seconds without any worker after which it is said what they wait for."""
MEMORY = 2 * 1024**3
"""Of a worker on a CPU, for the default number of workers."""


@contextmanager
def ray_engine(options: ClusterOptions, make_worker: MakeWorker) -> Iterator[RayEngine]:
    ray = _imported()
    ours = not ray.is_initialized()
    if ours:
        _connect(ray, options.address)
    engine = RayEngine(ray, options, make_worker)
    try:
        engine.load()
        yield engine
    finally:
        engine.close()
        if ours:
            ray.shutdown()


def _imported() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would ask in the terminal, and tell others
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # what is not asked for any more is no news
    try:
        import ray
    except ImportError:
        raise ConfigError(INSTALL) from None
    return ray


def _connect(ray: Any, address: str | None) -> None:
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", configure_logging=True)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)[:200]
        raise ConfigError(
            f"engine ray: no cluster at {address or 'this machine'} ({reason}); start one with `ray start --head`"
        ) from None


def versions() -> dict[str, str]:
    """Of what computes the numbers."""
    packages = ("torch", "numpy", "open_clip_torch", "datasets", "sae-lens", "scipy", "scikit-learn", "numba", "pandas")
    return {"sae_lens_meme": __version__, **{name: version(name) for name in packages}}


class Actor:
    """One worker in a process of the cluster."""

    def load(self, make_worker: MakeWorker, here: str) -> dict[str, Any]:
        if os.path.isdir(here):  # paths may be relative to where the command was given
            os.chdir(here)
        os.environ[VERIFY] = (
            "0"  # the driver has compared every file with its hash; `facts` tell that these are the same
        )
        self._worker = make_worker()
        return {
            "host": platform.node(),
            "hardware": _hardware(),
            "versions": versions(),
            "facts": dict(self._worker.facts),
        }

    def run(self, task: Any, *beside: Any) -> Any:
        return next(iter(self._worker([(task, *beside) if beside else task], lambda n: None)))


def _threads() -> int:
    """Of torch in this process, or what it would have."""
    if torch := sys.modules.get("torch"):
        return torch.get_num_threads()
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # OpenMP takes a number a level: 8,2
    return int(given) if given.isdecimal() and int(given) else os.cpu_count() or 1


def _blas_threads() -> int:
    """Of numpy and scipy in this process: not torch's number where a core runs two threads, or torch's was set later."""
    return max((pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"), default=1)


def _environment() -> dict[str, str]:
    """Of the workers: a sum over other parts has other last bits, so that they have as many threads as this process."""
    openmp = {"OMP_NUM_THREADS": str(_threads()), "OMP_WAIT_POLICY": "PASSIVE"}
    return openmp | {"OPENBLAS_NUM_THREADS": str(_blas_threads())}


def _hardware() -> str:
    torch: Any = sys.modules.get("torch")  # a worker that has not imported it does not compute with it
    if torch is None:
        return platform.machine()
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()} with {_blas_threads()} BLAS threads"


@dataclass(eq=False)
class _Shard:
    place: int
    task: Any
    failures: list[str] = field(default_factory=list)
    deaths: int = 0


class RayEngine:
    """Actors that are loaded and alike; one that dies is replaced."""

    def __init__(self, ray: Any, options: ClusterOptions, make_worker: MakeWorker):
        resources = ray.cluster_resources()
        gpus, cores = int(resources.get("GPU", 0)), int(resources.get("CPU", 1))
        widest = max((int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]), default=0)
        threads = min(_threads(), widest or 1)  # a worker that wants more cores than a node has never starts
        fitting = min(cores // threads, int(resources.get("memory", 0) // MEMORY))
        self.ray, self.n = ray, options.actors or gpus or max(1, fitting)
        share = 1 if gpus else max(1, min(threads, cores // self.n))
        alike = {"env_vars": _environment()}
        self._class = ray.remote(Actor).options(num_gpus=1 if gpus else 0, num_cpus=share, runtime_env=alike)
        self._make_worker, self._first = make_worker, {}
        self._hardware: set[str] = set()
        self._in_a_row = 0
        self.idle: list[Any] = []
        self.loading: dict[Any, Any] = {}
        self._actors: list[Any] = []

    def load(self) -> None:
        """Until the first is ready; the others may still load while it works."""
        for _ in range(self.n):
            self.start()
        while not self.idle:
            self.loaded(self.wait([]))

    def wait(self, running: list[Any]) -> Any:
        """Until one of these shards is computed, or a worker has loaded its model."""
        every = [*running, *self.loading]
        ready, _ = self.ray.wait(every, num_returns=1, timeout=None if running else PATIENCE)
        if not ready:
            there, free = (
                cores.get("CPU", 0) for cores in (self.ray.cluster_resources(), self.ray.available_resources())
            )
            print(
                f"note: no worker is ready after {PATIENCE:g} s: they load the model still, or wait for a free place in the "
                f"cluster (CPUs: {free:g} free of {there:g}; `ray status` says who has them)",
                file=sys.stderr,
            )
            ready, _ = self.ray.wait(every, num_returns=1)
        return ready[0]

    def close(self) -> None:
        """The cluster may be somebody's, who goes on with it."""
        for actor in self._actors:
            self.ray.kill(actor)

    @property
    def facts(self) -> Mapping[str, Any]:
        return self._first["facts"]

    def start(self) -> None:
        actor = self._class.remote()
        self._actors.append(actor)
        self.loading[actor.load.remote(self._make_worker, os.getcwd())] = actor

    def loaded(self, ref: Any) -> None:
        """An actor has loaded its model, or has failed to: then another is started, unless it would fail as well."""
        actor = self.loading.pop(ref)
        try:
            told = self.ray.get(ref)
        except self.ray.exceptions.RayTaskError as error:
            if isinstance(cause := _cause(error), MemeError):
                raise cause from None
            raise ShardError(
                f"engine ray: a worker cannot start ({_told(cause)}); every node needs this package and sees the same folders"
            ) from None
        except self.ray.exceptions.RayError:
            self.died()
            return
        self._compare(told)
        self.idle.append(actor)

    def died(self) -> None:
        self._in_a_row += 1
        if self._in_a_row > DEATHS + 3 * self.n:
            raise ShardError(
                f"engine ray: {self._in_a_row} workers died one after the other and none finished a shard; look at `ray status` "
                "and at their memory, or ask for fewer with --actors"
            )
        self.start()

    def worked(self) -> None:
        self._in_a_row = 0

    def _compare(self, told: dict[str, Any]) -> None:
        """Raises ConfigError where the bytes of this worker would be others."""
        self._first = self._first or told
        for what, here, there in (
            ("version of", versions(), told["versions"]),
            ("", self._first["facts"], told["facts"]),
        ):
            if (difference := first_difference(here, there)) is not None:
                name, mine, theirs = difference
                raise ConfigError(
                    f"engine ray: {f'{what} {name}'.strip()} is {theirs} on {told['host']} and {mine} on "
                    f"{self._first['host'] if not what else 'this machine'}; the bytes would differ: make them the same"
                )
        if told["hardware"] not in self._hardware and self._hardware:
            others = ", ".join(sorted(self._hardware))
            print(
                f"note: worker on {told['host']} has {told['hardware']}, others {others}: last bits may differ",
                file=sys.stderr,
            )
        self._hardware.add(told["hardware"])

    def map_shards(
        self,
        tasks: Iterable[Any],
        advance: Advance = lambda n: None,
        size: Callable[[Any], int] = len,
        beside: Any = None,
    ) -> Iterator[Any]:
        more = () if beside is None else (self.ray.put(beside),)  # in the memory that the workers of a machine share
        return _Results(self, [_Shard(i, task) for i, task in enumerate(tasks)], advance, size, more)


class _Results:
    """Iterator of results in the order of the tasks; an iterator that raises can go on, which a generator cannot."""

    def __init__(
        self,
        engine: RayEngine,
        shards: list[_Shard],
        advance: Advance,
        size: Callable[[Any], int],
        beside: tuple[Any, ...],
    ):
        self._engine, self._advance, self._size, self._beside = engine, advance, size, beside
        self._waiting, self._n, self._next = deque(shards), len(shards), 0
        self._running: dict[Any, tuple[Any, _Shard]] = {}
        self._done: dict[int, Any] = {}

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._next == self._n:
            raise StopIteration
        while self._next not in self._done:
            self._submit()
            self._collect()
        self._submit()  # before the driver writes what it is given now
        found = self._done.pop(self._next)
        self._next += 1
        if isinstance(found, ShardError):
            raise found
        return found

    def _submit(self) -> None:
        engine = self._engine
        while engine.idle and self._waiting and self._waiting[0].place < self._next + AHEAD * engine.n:
            actor, shard = engine.idle.pop(0), self._waiting.popleft()
            self._running[actor.run.remote(shard.task, *self._beside)] = actor, shard

    def _collect(self) -> None:
        """Wait for one shard or one worker."""
        engine, ray = self._engine, self._engine.ray
        ready = engine.wait(list(self._running))
        if ready in engine.loading:
            engine.loaded(ready)
            return
        actor, shard = self._running.pop(ready)
        try:
            self._done[shard.place] = ray.get(ready)
        except ray.exceptions.RayTaskError as error:
            shard.failures.append(_told(_cause(error)))
            self._again(shard, len(shard.failures) >= FAILURES, f"failed {FAILURES} times: {shard.failures[-1]}")
            engine.idle.append(actor)
        except ray.exceptions.RayError:  # the worker, its node, or what it had computed is lost
            shard.deaths += 1
            self._again(shard, shard.deaths >= DEATHS, f"{DEATHS} workers died of it")
            engine.died()
        else:
            engine.worked()
            self._advance(self._size(shard.task))
            engine.idle.append(actor)

    def _again(self, shard: _Shard, given_up: bool, why: str) -> None:
        if given_up:
            self._done[shard.place] = ShardError(why)
        else:
            self._waiting.appendleft(shard)


def _cause(error: Any) -> BaseException:
    """What was raised in the worker."""
    return error.cause if error.cause is not None else error


def _told(error: BaseException) -> str:
    text = " ".join(str(error).split()).partition(" traceback:")[0][:200]
    return text if isinstance(error, MemeError) else f"{type(error).__name__}: {text}"
