"""Engines: the same bytes in this process and on a Ray cluster, through workers that die, shards that fail, unlike workers."""

from __future__ import annotations

import ast
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ray_workers import Squares, broken, older, unlike, write_squares
from seen_memes import EMBED, write_memes
from test_attribute import FEW
from threadpoolctl import threadpool_limits

from sae_lens_meme.attribute import attribute
from sae_lens_meme.corpus import build_corpus, load_rows
from sae_lens_meme.embed import embed_corpus
from sae_lens_meme.engines import ClusterOptions, engine_of, on_ray
from sae_lens_meme.errors import ConfigError, ShardError, StorageError
from sae_lens_meme.evaluators import evaluate
from sae_lens_meme.ocr import read_captions
from sae_lens_meme.planted import write_planted_vectors
from sae_lens_meme.storage import read_finished
from sae_lens_meme.sweep import sweep
from sae_lens_meme.train import train

pytestmark = pytest.mark.whole
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two workers' worth of a machine."""
    ray = pytest.importorskip("ray", reason="ray is not installed; pip install 'sae-lens-meme[ray]'")
    environment = {"env_vars": {"PYTHONPATH": str(Path(__file__).parent)}}  # for ray_workers
    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    ray.init(address="local", num_cpus=2, runtime_env=environment, **quiet)
    yield ray
    ray.shutdown()


@pytest.fixture(scope="module")
def memes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_memes(tmp_path_factory.mktemp("memes"), scale=0.06)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_one_module_knows_of_ray():
    users = {
        path.name
        for path in (ROOT / "sae_lens_meme").rglob("*.py")
        if re.search(r"^\s*(import|from) ray\b", path.read_text(), re.MULTILINE)
    }
    assert users == {"on_ray.py"}
    tree = ast.parse((ROOT / "sae_lens_meme/engines/on_ray.py").read_text())
    assert not [n for n in tree.body if isinstance(n, ast.Import) and n.names[0].name == "ray"], (
        "only when it is asked for"
    )


def test_without_ray_it_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r'Ray, which is not installed; pip install "sae-lens-meme\[ray\]"'):
        write_squares(tmp_path / "out", tmp_path / "orders", 1)


@pytest.mark.parametrize(("option", "value"), [("actors", 2), ("address", "auto")])
def test_a_cluster_that_is_described_must_be_asked_for(tmp_path: Path, option: str, value: Any):
    """`evaluate --actors 2` without `--engine ray` took one process and said nothing."""
    with pytest.raises(
        ConfigError, match=f"{option} {value!r} is of a cluster, which nobody asked for: add --engine ray"
    ):
        write_squares(tmp_path / "out", tmp_path / "orders", 1, "local", **{option: value})


@pytest.mark.parametrize("actors", [1, 2])
def test_shards_of_workers_that_are_killed_are_the_same_bytes(cluster: Any, tmp_path: Path, actors: int):
    write_squares(tmp_path / "here", tmp_path / "orders", 9, "local")
    for order in ("kill-0-a", "kill-4-a", "kill-4-b")[: 3 * (actors - 1)]:
        (tmp_path / "orders" / order).touch()
    write_squares(tmp_path / "there", tmp_path / "orders", 9, actors=actors)
    assert not list((tmp_path / "orders").iterdir())
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


@pytest.mark.slow
def test_twenty_kills_in_forty_shards(cluster: Any, tmp_path: Path):
    write_squares(tmp_path / "here", tmp_path / "orders", 40, "local")
    for i, task in enumerate(random.Random(0).choices(range(40), k=20)):
        (tmp_path / "orders" / f"kill-{task}-{i}").touch()
    write_squares(tmp_path / "there", tmp_path / "orders", 40, actors=2)
    assert not list((tmp_path / "orders").iterdir())
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


@pytest.mark.slow
def test_a_driver_that_is_killed_again_and_again_ends_with_the_same_bytes(tmp_path: Path):
    """Forty shards, in which twenty workers are killed, and the driver after a few new shards, whenever that is."""
    pytest.importorskip("ray", reason="ray is not installed; pip install 'sae-lens-meme[ray]'")
    write_squares(tmp_path / "here", tmp_path / "orders", 40, "local")
    draw, out, kills = random.Random(1), tmp_path / "there", 0
    for i, task in enumerate(draw.choices(range(40), k=20)):
        (tmp_path / "orders" / f"kill-{task}-{i}").touch()
    (tmp_path / "orders/slowly").touch()
    command = [sys.executable, "-m", "tests.ray_workers", str(out), str(tmp_path / "orders"), "40"]
    while True:
        made, more = len(list(out.glob("data-*"))), draw.randint(1, 9)
        with open(tmp_path / "log.txt", "w") as log:
            driver = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
        while driver.poll() is None and len(list(out.glob("data-*"))) < made + more:
            time.sleep(0.02)
        if driver.poll() is None:
            time.sleep(draw.uniform(0, 0.5))
            driver.kill()
        if driver.wait() != -signal.SIGKILL:
            break
        kills += 1
        with pytest.raises(StorageError, match="the squares step was interrupted"):
            read_finished(out, "squares")
    assert driver.returncode == 0, (tmp_path / "log.txt").read_text()
    assert kills >= 4
    assert [order.name for order in (tmp_path / "orders").iterdir()] == ["slowly"]
    assert contents(out) == contents(tmp_path / "here")


def test_a_shard_that_fails_three_times_is_named_and_the_others_go_on(cluster: Any, tmp_path: Path):
    write_squares(tmp_path / "here", tmp_path / "orders", 6, "local")
    (tmp_path / "orders/fail-1").touch()
    (tmp_path / "orders/fail-4").touch()
    named = r"2 of 6 shards could not be made \(data-00001-of-00006.arrow failed 3 times: ValueError: no 1; data-00004"
    with pytest.raises(ShardError, match=named) as error:
        write_squares(tmp_path / "there", tmp_path / "orders", 6, actors=1)
    assert "\n" not in str(error.value)
    assert len(list((tmp_path / "there").glob("data-*.arrow"))) == 4
    with pytest.raises(StorageError, match="the squares step was interrupted"):
        read_finished(tmp_path / "there", "squares")
    for order in (tmp_path / "orders").iterdir():
        order.unlink()
    write_squares(tmp_path / "there", tmp_path / "orders", 6, actors=1)
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (unlike, r"weights is \d+ on .* and \d+ on .*; the bytes would differ: make them the same"),
        (older, r"version of sae_lens_meme is 0.0.9 on .* and 0.1.0 on this machine"),
        (broken, "AttributeError: 'ConfigError' object has no attribute 'missing'"),
    ],
)
def test_workers_that_would_give_other_bytes_are_refused(cluster: Any, tmp_path: Path, make: Any, message: str):
    (tmp_path / "orders").mkdir()
    (tmp_path / "orders/kill-1-a").touch()  # so that another worker comes
    with pytest.raises((ConfigError, ShardError), match=message) as error:
        write_squares(tmp_path / "out", tmp_path / "orders", 6, make=make, actors=1)
    assert "\n" not in str(error.value)


def test_embed_on_two_workers_gives_the_bytes_of_one_process(
    cluster: Any, memes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(memes)
    embed_corpus("corpus", tmp_path / "e", engine="ray", actors=2, **EMBED)
    assert contents(tmp_path / "e") == contents(memes / "embeddings")


RECIPE = {"epochs": 2, "train_batch_size_tokens": 32, "sae": {"d_sae": 24, "k": 4}}
SEEN_BY_EACH_OTHER = ["concept_alignment", "confounders", "stability"]
"""One whose result another reads, with SAEs of other seeds; and one that cannot run on these memes."""


@pytest.mark.slow
def test_evaluate_on_a_worker_gives_the_bytes_of_one_process(cluster: Any, memes: Path, tmp_path: Path):
    train(RECIPE, embeddings=memes / "embeddings", out=tmp_path / "sae", progress=False)
    asked: dict[str, Any] = {"only": SEEN_BY_EACH_OTHER, "stability_seeds": 1, "bootstrap": 5, "progress": False}
    evaluate(tmp_path / "sae", memes / "embeddings", out=tmp_path / "here", **asked)
    found = evaluate(tmp_path / "sae", memes / "embeddings", out=tmp_path / "there", engine="ray", actors=1, **asked)
    assert contents(tmp_path / "there") == contents(tmp_path / "here")
    assert (list(found["results"]), list(found["skipped"])) == (["concept_alignment", "stability"], ["confounders"])


@pytest.mark.slow
def test_evaluate_on_workers_that_are_killed_gives_the_bytes_of_one_process(
    cluster: Any, memes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Every evaluator, on two workers; while one hands in a result the other, or it, is killed in the middle of its own."""
    psutil = pytest.importorskip("psutil", reason="psutil finds the workers' processes; pip install psutil")
    draw, killed, worked = random.Random(0), [0], on_ray.RayEngine.worked

    def kill(engine: Any) -> None:
        worked(engine)
        ours = psutil.Process().children(recursive=True)
        workers = [p for p in ours if p.name().startswith("ray::Actor") and p.status() != psutil.STATUS_ZOMBIE]
        if workers and draw.random() < 0.4:
            draw.choice(workers).kill()
            killed[0] += 1

    train(RECIPE, embeddings=memes / "embeddings", out=tmp_path / "sae", progress=False)
    asked: dict[str, Any] = {
        "stability_seeds": 1,
        "bootstrap": 5,
        "answer_key": memes / "planted/answer_key",
        "progress": False,
    }
    evaluate(tmp_path / "sae", memes / "embeddings", out=tmp_path / "here", **asked)
    monkeypatch.setattr(on_ray.RayEngine, "worked", kill)
    evaluate(tmp_path / "sae", memes / "embeddings", out=tmp_path / "there", engine="ray", actors=2, **asked)
    assert killed[0] >= 3
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


@pytest.mark.parametrize(("given", "threads"), [("3", 3), ("3,2", 3), ("0", 7), ("many", 7), ("", 7)])
def test_threads_where_torch_is_not_imported(monkeypatch: pytest.MonkeyPatch, given: str, threads: int):
    """`ocr --run-on ray` ended in a traceback with OMP_NUM_THREADS=3,2, which OpenMP takes, or 0."""
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr("os.cpu_count", lambda: 7)
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert on_ray._threads() == threads


class SmallNodes:
    """In place of Ray: two nodes of four cores, which are taken at first."""

    def __init__(self):
        self.asked: dict[str, Any] = {}

    def nodes(self) -> list[Any]:
        return [
            {"Alive": alive, "Resources": {"CPU": cores}} for alive, cores in ((True, 4.0), (True, 4.0), (False, 64.0))
        ]

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 8.0, "memory": 2.0**40}

    def available_resources(self) -> dict[str, float]:
        return {}

    def remote(self, _: type) -> SmallNodes:
        return self

    def options(self, **asked: Any) -> SmallNodes:
        self.asked = asked
        return self

    def wait(self, refs: list[Any], num_returns: int, timeout: float | None = None) -> tuple[list[Any], list[Any]]:
        return ([], refs) if timeout is not None else (refs[:1], refs[1:])


def test_workers_ask_for_what_a_node_has_and_say_what_they_wait_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """A worker of eight threads never started where nodes have four cores, and nothing said so."""
    monkeypatch.setattr(on_ray, "_threads", lambda: 8)
    engine = on_ray.RayEngine(ray := SmallNodes(), ClusterOptions(), Squares)  # type: ignore[arg-type]
    assert (engine.n, ray.asked["num_cpus"]) == (2, 4)
    assert ray.asked["runtime_env"]["env_vars"]["OMP_NUM_THREADS"] == "8"
    engine.loading = {"loading": None}
    assert engine.wait(["running"]) == "running"
    assert not capsys.readouterr().err
    assert engine.wait([]) == "loading"
    assert "note: no worker is ready after 60 s" in (told := capsys.readouterr().err)
    assert "(CPUs: 0 free of 8;" in told


def test_workers_have_the_threads_of_this_process(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A sum over other parts has other last bits."""
    monkeypatch.setattr(on_ray, "_threads", lambda: 3)  # torch's, which is not the number of numpy's
    make_worker = partial(Squares.of_threads, tmp_path)
    with threadpool_limits(1, "blas"), engine_of("ray", ClusterOptions(actors=1), make_worker) as engine:
        assert dict(engine.facts) == {"threads": "3", "blas": 1}


@pytest.mark.slow
def test_attribute_on_one_worker_gives_the_bytes_of_one_process(cluster: Any, memes: Path, tmp_path: Path):
    folders, asked = (memes / "sae", memes / "embeddings", memes / "corpus"), {**FEW, "latents": [0, 1, 2]}
    attribute(*folders, out=tmp_path / "here", **asked)
    attribute(*folders, out=tmp_path / "there", engine="ray", actors=1, **asked)
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


@pytest.mark.slow
def test_ocr_on_two_workers_gives_the_bytes_of_one_process(cluster: Any, memes: Path, tmp_path: Path):
    rows = load_rows(memes / "corpus").select(range(70))
    (tmp_path / "memes").mkdir()
    for i, image in enumerate(rows["image"]):
        image.save(tmp_path / "memes" / f"{i}.png")
    (tmp_path / "memes/metadata.csv").write_text("file_name\n" + "".join(f"{i}.png\n" for i in range(70)))
    build_corpus(tmp_path / "corpus", folder=tmp_path / "memes", progress=False)
    read_captions(tmp_path / "corpus", tmp_path / "here", progress=False)
    read_captions(tmp_path / "corpus", tmp_path / "there", run_on="ray", actors=2, progress=False)
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


@pytest.mark.slow
def test_a_sweep_on_two_workers_gives_the_bytes_of_one_process(cluster: Any, tmp_path: Path):
    write_planted_vectors(tmp_path / "v", n_samples=1000, n_factors=24, d_in=16, active=3)
    recipe = {"epochs": 2, "train_batch_size_tokens": 32, "sae": {"d_sae": 16, "k": 4}}
    asked: dict[str, Any] = {"embeddings": tmp_path / "v", "grid": ["sae.k=1,4"], "seeds": 2, "progress": False}
    sweep(recipe, out=tmp_path / "here", **asked)
    sweep(recipe, out=tmp_path / "there", engine="ray", actors=2, **asked)
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


@pytest.mark.slow
def test_a_killed_driver_resumes_at_the_missing_shards(memes: Path, tmp_path: Path):
    """It starts a cluster of its own, which dies with it."""
    pytest.importorskip("ray", reason="ray is not installed; pip install 'sae-lens-meme[ray]'")
    asked = ["embed", str(memes / "corpus"), "--model", "demo-encoder", "--device", "cpu", "--batch-size", "8"]
    command = [sys.executable, "-m", "sae_lens_meme.cli", *asked, "--out", str(tmp_path / "e")]
    command += ["--engine", "ray", "--actors", "1", "--address", "local"]
    driver = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    while driver.poll() is None and not (first := sorted((tmp_path / "e").glob("data-00000-of-*.arrow"))):
        time.sleep(0.05)
    driver.kill()
    assert driver.wait() == -signal.SIGKILL
    written = first[0].stat().st_mtime_ns
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert first[0].stat().st_mtime_ns == written, "the finished shard was not made again"
    assert contents(tmp_path / "e") == contents(memes / "embeddings")
