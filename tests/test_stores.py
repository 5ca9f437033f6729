"""Results in object stores: the bytes of local ones, whatever upload fails, read back on another machine, never mixed."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import fsspec
import pytest
from seen_memes import EMBED
from test_storage import N_SHARDS, build

from sae_lens_meme.corpus import build_corpus, export_table, load_rows
from sae_lens_meme.dashboard import write_dashboard
from sae_lens_meme.embed import embed_corpus
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, StorageError
from sae_lens_meme.evaluators import evaluate
from sae_lens_meme.figures import Inputs, write_figures
from sae_lens_meme.pipeline import run
from sae_lens_meme.planted import write_planted
from sae_lens_meme.results import explain_latent
from sae_lens_meme.storage import StepFolder, fetched, read_finished, through_stores, url_of
from sae_lens_meme.storage.stores import CACHE, Store
from sae_lens_meme.sweep import sweep
from sae_lens_meme.train import train

pytestmark = pytest.mark.whole


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """A real S3 server on this machine."""
    for name in ("moto.server", "s3fs", "flask"):
        pytest.importorskip(name, reason=f"{name} is not installed; pip install s3fs 'moto[s3]' flask flask-cors")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patched.setenv(name, "none")
        patched.setenv("AWS_DEFAULT_REGION", "us-east-1")
        fsspec.filesystem("s3").mkdir("bucket")
        yield "s3://bucket"
    server.stop()


@pytest.fixture(params=["memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty folder, mirrored in `tmp_path / "one"`."""
    monkeypatch.setenv(CACHE, str(tmp_path / "one"))
    root = request.getfixturevalue("bucket") if request.param == "s3" else "memory://bucket"
    return f"{root}/{request.node.name}".replace("[", "-").replace("]", "")


def contents(url: str) -> dict[str, bytes]:
    fs, root = fsspec.core.url_to_fs(url)
    fs.invalidate_cache()
    return {path.partition(root.strip("/") + "/")[2]: fs.cat_file(path) for path in fs.find(root)}


def local(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path / "another"))


def test_a_store_holds_the_bytes_of_a_local_folder(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    build(tmp_path / "here")
    assert len(build(store)) == N_SHARDS
    assert contents(store) == local(tmp_path / "here")
    assert build(store) == []
    another_machine(tmp_path, monkeypatch)
    assert build(Path(store)) == [], "also by a Path, which has lost a slash"
    assert local(fetched(store)) == local(tmp_path / "here")
    assert read_finished(store, "embed")["facts"] == {"n": 4}


@contextmanager
def lost_put(lost: Callable[[Store, str], bool]) -> Iterator[None]:
    """What is done here fails at the file that is lost on its way to the store."""
    put = Store.put

    def failing(self: Store, name: str) -> None:
        if lost(self, name):
            raise StorageError("the connection was reset")
        put(self, name)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Store, "put", failing)
        with pytest.raises(StorageError, match="the connection was reset"):
            yield


def test_whatever_upload_fails_the_next_run_ends_the_same(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The n-th put, for every n; on the machine that was stopped and on another one. What is named is always there."""
    build(tmp_path / "here")
    for n in range(1, 2 * N_SHARDS + 4):
        puts = count(1)
        with lost_put(lambda at, name, puts=puts, limit=n: next(puts) == limit):
            build(f"{store}/{n}")
        found = contents(f"{store}/{n}")
        assert set(json.loads(found.get("manifest.json", b'{"files": {}}'))["files"]) <= found.keys()
        with pytest.raises(StorageError, match=r"interrupted; run it again|is not a result folder"):
            read_finished(f"{store}/{n}", "embed")
        if n % 2:
            monkeypatch.setenv(CACHE, str(tmp_path / f"another-{n}"))
        build(f"{store}/{n}")
        assert contents(f"{store}/{n}") == local(tmp_path / "here")


def test_a_different_result_is_refused_and_kept(store: str):
    build(store)
    before = contents(store)
    with pytest.raises(
        StorageError, match=r"different result \(seed: 1 there, 2 now\); pass --overwrite to replace it"
    ):
        build(store, fingerprint={"seed": 2})
    with pytest.raises(StorageError, match=r"holds a different result \(embed\)"), StepFolder(store, "ocr", {}):
        pass
    with pytest.raises(ConfigError, match="'train' is written to a folder of this machine only"):
        StepFolder(store, "train", {})
    assert contents(store) == before
    with pytest.raises(ZeroDivisionError), StepFolder(f"{store}/begun", "embed", {"seed": 7}):
        _ = 1 / 0
    build(f"{store}/begun")  # nothing was made, so nothing is in the way
    fs, root = fsspec.core.url_to_fs(f"{store}/thesis")
    fs.pipe_file(f"{root}/thesis.tex", b"years of work")
    with pytest.raises(StorageError, match=r"holds files that are not a result of 'embed' \('thesis.tex', ...\)"):
        build(f"{store}/thesis")


def test_overwrite_replaces_a_result_that_stays_until_the_new_one_is_whole(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    build(tmp_path / "new", fingerprint={"seed": 2})
    build(store)
    before = contents(store)
    with StepFolder(store, "embed", {"seed": 2}, overwrite=True) as folder:  # and ends without `finish`
        folder.write("shard-0.bin", lambda path: path.write_bytes(bytes(1000)))
    assert contents(store) == before
    assert len(build(store, fingerprint={"seed": 2}, overwrite=True)) == N_SHARDS - 1, "the first one was made"
    assert contents(store) == local(tmp_path / "new")
    another_machine(tmp_path, monkeypatch)
    assert build(store, fingerprint={"seed": 2}) == []


def test_a_file_that_has_changed_in_the_store_is_named(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    build(store)
    fs, root = fsspec.core.url_to_fs(store)
    fs.pipe_file(f"{root}/shard-2.bin", b"other")
    assert fetched(store).is_dir(), "this machine has it"
    another_machine(tmp_path, monkeypatch)
    with pytest.raises(StorageError, match=r"shard-2.bin: has changed since it was written"):
        fetched(store)


def test_no_two_addresses_share_a_mirror(memory: str):
    """`run 1` was read as `run+1`, whichever was opened last."""
    names = ["run_1", "run 1", "run+1", "run%201", "rün 1"]
    for seed, name in enumerate(names):
        build(f"{memory}/{name}", fingerprint={"seed": seed})
    found = {name: fetched(f"{memory}/{name}") for name in names}
    assert [read_finished(found[name], "embed")["fingerprint"]["seed"] for name in names] == [0, 1, 2, 3, 4]


def test_a_manifest_cannot_write_outside_the_mirror(store: str):
    build(store)
    fs, root = fsspec.core.url_to_fs(store)
    manifest = json.loads(fs.cat_file(f"{root}/manifest.json"))
    manifest["files"]["../../evil"] = "0" * 64
    fs.pipe_file(f"{root}/manifest.json", json.dumps(manifest).encode())
    with pytest.raises(StorageError, match=r"names a file '../../evil' that lies outside"):
        fetched(store)


@through_stores()
def step(*, out: str | Path, seed: int, overwrite: bool = False) -> Path:
    """A step that knows of no store; it holds a result of another step, and of the seed a file of its own."""
    with StepFolder(out, "embed", {"seed": seed}, overwrite=overwrite, keep=("inner",)) as folder:
        if not folder.complete:
            folder.write("data/a.bin", lambda path: path.write_bytes(bytes([seed]) * 100))
            folder.write(f"{seed}.bin", lambda path: path.write_bytes(b"x"))
            build(folder.home / "inner")
            folder.finish(n=2)
    return Path(out)


CALLS = ("put", "put_text", "copy", "remove")


def stopped_at(n: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Has the n-th change of a store fail; the calls are kept."""
    calls: list[str] = []

    def failing(change: Any, name: str) -> Any:
        def fail(self: Store, *given: Any) -> None:
            calls.append(name)
            if len(calls) == n:
                raise StorageError("the connection was reset")
            change(self, *given)

        return fail

    for name in ("put", "put_text", "copy", "remove"):
        monkeypatch.setattr(Store, name, failing(getattr(Store, name), name))
    return calls


@pytest.mark.parametrize("again_on", ["one", "another"])
def test_what_replaces_a_result_lies_beside_it_until_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again_on: str
):
    """Stopped at its n-th change of the store, for every n: the old result or the new one, or one that says it is neither."""
    monkeypatch.setenv(CACHE, str(tmp_path / "one"))
    files = {seed: local(step(out=tmp_path / str(seed), seed=seed)) for seed in (1, 2)}
    store, n, calls, seen = f"memory://replaced-{again_on}", 0, [""], list[str]()
    while len(calls) > n - 1:
        n += 1 if again_on == "one" else 4
        out = f"{store}/{n}"
        assert local(step(out=out, seed=1)) == contents(out) == files[1]
        with pytest.raises(
            StorageError, match=rf"^{out}: holds a different result \(seed: 1 there, 2 now\); pass --ov"
        ):
            step(out=out, seed=2)
        with monkeypatch.context() as patched, suppress(StorageError):
            calls = stopped_at(n, patched)
            step(out=out, seed=2, overwrite=True)
        with monkeypatch.context() as patched:
            patched.setenv(CACHE, str(tmp_path / f"reader-{n}"))
            seen.append(what_is_seen(out, files))
        monkeypatch.setenv(CACHE, str(tmp_path / again_on))
        step(out=out, seed=2, overwrite=True)
        assert contents(out) == files[2]
        monkeypatch.setenv(CACHE, str(tmp_path / "one"))
    assert "".join(seen) == re.fullmatch(r"o{2,}i{1,}n{1,}", "".join(seen))[0]  # type: ignore[index]


def what_is_seen(out: str, files: dict[int, dict[str, bytes]]) -> str:
    """old, new, or interrupted, by a reader who has the files that the manifest names."""
    try:
        found = local(fetched(out))
    except StorageError as error:
        return "i" if "interrupted; run it again to finish it" in str(error) else str(error)
    return next(name for name, seed in (("o", 1), ("n", 2)) if found.items() <= files[seed].items())


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(CACHE, str(tmp_path / "one"))
    return f"memory://{tmp_path.name}"


@through_stores()
def one_file(out: Any, seed: int, meanwhile: Callable[[], object] = lambda: None) -> None:
    with StepFolder(out, "train", {"seed": seed}) as folder:
        meanwhile()
        folder.write("seed.bin", lambda path: path.write_bytes(bytes([seed])))
        folder.finish()


def test_two_runs_of_a_machine_at_once_are_refused_in_a_store_too(memory: str):
    """The second took the mirror of the first, which had named nothing yet, and said that it had written its result."""

    def refused(run: Callable[[], object]) -> None:
        for _ in range(2):  # the first refusal removed the mirror, and the second run went on
            with pytest.raises(StorageError, match=f"^{memory}/.: another process is writing this result; wait"):
                run()

    with StepFolder(f"{memory}/e", "embed", {"seed": 1}) as folder:
        refused(lambda: build(f"{memory}/e", fingerprint={"seed": 2}))
        folder.write("seed.bin", lambda path: path.write_bytes(bytes([1])))
        folder.finish()
    one_file(f"{memory}/t", 1, lambda: refused(lambda: one_file(f"{memory}/t", 2)))
    for name in "et":
        assert contents(f"{memory}/{name}")["seed.bin"] == bytes([1])


def test_a_step_that_fails_leaves_in_the_store_what_it_named(memory: str, monkeypatch: pytest.MonkeyPatch):
    """Nothing, where it made nothing; never a file of which no manifest says whose it is."""
    with pytest.raises(ZeroDivisionError), StepFolder(f"{memory}/refused", "embed", {"seed": 1}):
        _ = 1 / 0
    assert contents(f"{memory}/refused") == {}
    with lost_put(lambda at, name: name == "manifest.json" and at.exists("shard-0.bin")):  # which is not named yet
        build(f"{memory}/first")
    assert contents(f"{memory}/first") == {}
    with suppress(ZeroDivisionError), StepFolder(f"{memory}/begun", "embed", {"seed": 1}) as folder:
        folder.write("a.bin", lambda path: path.write_bytes(b"a"))
        folder.write("b.bin", lambda path: path.write_bytes(bytes(1 // 0)))
    assert contents(f"{memory}/begun").keys() == {"manifest.json", "a.bin"}, "the next run goes on from here"


def test_what_a_killed_run_did_not_name_is_not_in_another_result(memory: str, tmp_path: Path):
    with StepFolder(memory, "embed", {"seed": 7}):  # and ends without a word
        pass
    fs, root = fsspec.core.url_to_fs(memory)
    fs.pipe_file(f"{root}/half.bin", b"put, and not named")
    build(memory)
    assert contents(memory) == local(tmp_path / "one" / "memory" / tmp_path.name)
    assert "half.bin" not in contents(memory)


def test_a_bucket_is_never_made(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A slip in its name made another one."""
    monkeypatch.setenv(CACHE, str(tmp_path))
    for write in (build, lambda out: one_file(out, 1)):
        with pytest.raises(
            StorageError, match=r"s3://buckte/.*: the store cannot be used \(The specified bucket does not"
        ):
            write("s3://buckte/e")
    assert fsspec.filesystem("s3").ls("") == ["bucket"]


def test_where_nothing_can_be_put_nothing_is_begun(memory: str, monkeypatch: pytest.MonkeyPatch):
    """A bucket that is not there was noticed after hours of training."""

    def refused(*_: object) -> None:
        raise StorageError("no such bucket")

    with monkeypatch.context() as patched:
        patched.setattr(Store, "put_text", refused)
        with pytest.raises(StorageError, match="no such bucket"):
            one_file(f"{memory}/a", 1, lambda: pytest.fail("it was begun"))
    one_file(f"{memory}/a", 1)
    assert contents(f"{memory}/a").keys() == {"manifest.json", "_SUCCESS", "seed.bin"}


def test_an_upload_that_fails_is_taken_back(memory: str, monkeypatch: pytest.MonkeyPatch):
    for n in (4, 7):  # the first two find out whether anything can be put
        with monkeypatch.context() as patched:
            stopped_at(n, patched)
            with pytest.raises(
                StorageError, match=r"the connection was reset.*; the whole result is in .*, and the same command"
            ):
                step(out=memory, seed=1)
        assert contents(memory) == {}
    step(out=memory, seed=1)
    before = contents(memory)
    with monkeypatch.context() as patched:
        stopped_at(3, patched)
        with pytest.raises(StorageError, match="the connection was reset"):
            step(out=memory, seed=2, overwrite=True)
    assert contents(memory) == before


@pytest.mark.parametrize("made", [0, 1])
def test_a_result_of_another_machine_is_not_replaced_unasked(
    memory: str, made: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Although a run of this machine began in the empty store, and failed."""

    @through_stores()
    def failing(*, out: str | Path) -> None:
        with StepFolder(out, "embed", {"seed": 1}) as folder:
            for i in range(made):
                folder.write(f"{i}.bin", lambda path: path.write_bytes(b"x"))
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError):
        failing(out=memory)
    assert contents(memory) == {}
    if made:
        begun = rf"{memory} \(begun on this machine, not in the store yet\): holds a different result"
        with pytest.raises(StorageError, match=begun):
            step(out=memory, seed=3)
    monkeypatch.setenv(CACHE, str(tmp_path / "another"))
    step(out=memory, seed=2)
    before = contents(memory)
    monkeypatch.setenv(CACHE, str(tmp_path / "one"))
    for seed in (1, 3):
        with pytest.raises(StorageError, match=rf"{memory}: holds a different result \(seed: 2 there, {seed} now\)"):
            step(out=memory, seed=seed)
    assert contents(memory) == before
    step(out=memory, seed=3, overwrite=True)
    assert "3.bin" in contents(memory)


def test_a_result_that_another_machine_finished_meanwhile_stays(
    memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    @through_stores()
    def slow(*, out: str | Path, seed: int) -> None:
        with StepFolder(out, "embed", {"seed": seed}, keep=("inner",)) as folder:
            folder.write("mine.bin", lambda path: path.write_bytes(b"x"))
            with monkeypatch.context() as patched:
                patched.setenv(CACHE, str(tmp_path / "another"))
                step(out=memory, seed=2)
            folder.finish()

    with pytest.raises(StorageError, match=rf"another run has finished a result .* made is in {tmp_path}/one"):
        slow(out=memory, seed=1)
    assert contents(memory) == local(tmp_path / "another" / "memory" / tmp_path.name)
    assert "2.bin" in contents(memory)


def evaluated(store: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps that follow, each on a machine that has seen nothing."""
    asked: dict[str, Any] = {"only": ["stability"], "stability_seeds": 1, "bootstrap": 5, "progress": False}
    for base in (store, here):
        monkeypatch.setenv(CACHE, str(here / "fourth"))
        evaluate(f"{base}/sae", f"{base}/e", out=f"{base}/evaluation", **asked)
        monkeypatch.setenv(CACHE, str(here / "fifth"))
        page = write_dashboard(f"{base}/evaluation", f"{base}/sae", f"{base}/e", out=f"{base}/report", progress=False)
        assert page.is_file()
    for name in ("evaluation", "report"):
        assert contents(f"{store}/{name}") == local(here / name)
    assert local(fetched(f"{store}/evaluation/seed_1")) == local(here / "evaluation/seed_1")


def test_corpus_and_embeddings_in_a_store(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Built, embedded, and trained on, each as by another machine."""
    paths = write_planted(tmp_path / "planted", scale=0.02, progress=False)
    sources = {"pridemm": paths.pridemm, "hmc": paths.hmc, "memotion": paths.memotion}
    for out in (tmp_path / "corpus", f"{store}/corpus"):
        build_corpus(out, **sources, shard_size=20, progress=False)
    assert contents(f"{store}/corpus") == local(tmp_path / "corpus")
    another_machine(tmp_path, monkeypatch)
    assert load_rows(f"{store}/corpus")["id"] == load_rows(tmp_path / "corpus")["id"]
    embed_corpus(f"{store}/corpus", f"{store}/e", **EMBED)
    embed_corpus(tmp_path / "corpus", tmp_path / "e", **EMBED)
    assert contents(f"{store}/e") == local(tmp_path / "e")
    monkeypatch.setenv(CACHE, str(tmp_path / "third"))
    there, here = Embeddings.load(f"{store}/e"), Embeddings.load(tmp_path / "e")
    assert (there.fingerprint, there.ids.tolist()) == (here.fingerprint, here.ids.tolist())
    recipe = {"epochs": 1, "train_batch_size_tokens": 16, "sae": {"d_sae": 8, "k": 2}}
    for base in (store, tmp_path):
        train(recipe, embeddings=f"{base}/e", out=f"{base}/sae", progress=False)
    assert contents(f"{store}/sae") == local(tmp_path / "sae")
    if store.startswith("memory"):  # the same code takes them to S3
        evaluated(store, tmp_path, monkeypatch)
    with pytest.raises(ConfigError, match="the workers of a sweep train in the folder of the result"):
        sweep(recipe, embeddings=f"{store}/e", out=f"{store}/sweep", grid=["sae.k=1,2"], engine="ray")
    with pytest.raises(ConfigError, match="fusion memeclip writes to a folder of this machine only"):
        embed_corpus(f"{store}/corpus", f"{store}/m", fusion="memeclip", **EMBED)


@pytest.mark.parametrize(
    ("folder", "url"),
    [
        ("s3://bucket/a/b/", "s3://bucket/a/b"),
        (Path("s3://bucket/a"), "s3://bucket/a"),
        ("memory://x", "memory://x"),
        ("C:/memes", None),
        ("C:\\memes", None),
        ("/tmp/s3:/x", None),
        ("runs/a", None),
        ("a:b", None),
    ],
)
def test_what_is_an_address(folder: str | Path, url: str | None):
    assert url_of(folder) == url


def test_a_folder_of_this_machine_may_end_in_a_colon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name in ("run:", "s3:"):
        (tmp_path / name).mkdir()
    assert url_of(Path("run:/E")) is None
    assert url_of(Path("s3://bucket")) == "s3://bucket"  # whatever else left a folder of that name
    assert url_of(Path("nosuch://bucket")) == "nosuch://bucket"  # a slip, not a folder to be made here
    assert build(Path("run:/E"))
    assert not build(tmp_path / "run:" / "E")  # the same folder


@pytest.mark.parametrize("scheme", ["file", "local"])
def test_the_address_of_a_folder_of_this_machine_is_refused(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It was a folder of the same name below the current one."""
    monkeypatch.chdir(tmp_path)
    for folder in (f"{scheme}:///a/E", Path(f"{scheme}:///a/E"), f"{scheme}://a/E"):
        with pytest.raises(
            ConfigError, match=f"E: {scheme} is no store; give the path of the folder without {scheme}:$"
        ):
            build(folder)
        with pytest.raises(ConfigError, match="is no store"):
            Embeddings.load(folder)
    assert not list(tmp_path.iterdir())


def test_a_path_that_datasets_would_cut_is_refused_before_the_work(tmp_path: Path):
    for folder in (tmp_path / "p::x" / "E", "memory://a::b/E"):
        with pytest.raises(ConfigError, match=r"E: holds '::', .* give the folder another name"):
            StepFolder(folder, "embed", {})
        with pytest.raises(ConfigError, match="holds '::'"):
            Embeddings.load(folder)
    assert not list(tmp_path.iterdir())


SMALL = {
    "embed": {"planted": {"n_samples": 300, "n_factors": 6, "d_in": 8, "active": 1}},
    "train": {"epochs": 1, "train_batch_size_tokens": 64, "sae": {"d_sae": 8, "k": 2}},
    "evaluate": {"only": ["reconstruction", "answer_key"], "bootstrap": 2},
}


def test_a_recipe_runs_into_a_store(memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It ended in a traceback after `train`, and left a folder `memory:` here."""
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(json.dumps(SMALL))
    run("small.yaml", out=memory)
    assert {name for name in contents(memory) if name.count("/") == 1 and name.endswith("_SUCCESS")} == {
        f"{step}/_SUCCESS" for step in ("embeddings", "sae", "evaluation", "report")
    }
    explain_latent(f"{memory}/evaluation", 3)
    key = f"{memory}/embeddings/answer_key"
    found = sweep(
        SMALL["train"], embeddings=f"{memory}/embeddings", out="sweep", grid=["sae.k=1"], seeds=1, answer_key=key
    )
    assert found.content["headline"] == "MCC"
    with pytest.raises(ConfigError, match=f"{memory}/figures: this is written to a folder of this machine only"):
        write_figures(Inputs(f"{memory}/evaluation"), f"{memory}/figures", only=["density"])
    with pytest.raises(ConfigError, match=r"rows\.csv: this is written to a folder of this machine only"):
        export_table("nowhere", f"{memory}/rows.csv")
    assert not list(tmp_path.glob("memory*"))


def test_what_cannot_be_reached_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(CACHE, str(tmp_path))
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(ConfigError, match="gs://bucket/x: needs gcsfs; pip install gcsfs"):
        Embeddings.load("gs://bucket/x")
    with pytest.raises(StorageError, match=r"nosuch://x: the store cannot be used \(Protocol not known: nosuch"):
        Embeddings.load("nosuch://x")
    with pytest.raises(StorageError, match=r"memory://nothing/here: is not a result folder"):
        Embeddings.load("memory://nothing/here")
    with pytest.raises(ConfigError, match=r"is no address of a folder; write it without empty parts and \.\."):
        Embeddings.load("memory://a/../../etc")
    monkeypatch.chdir(tmp_path)
    for folder in ("s3://", "s3:///run", Path("s3://")):  # s3://$BUCKET without such a variable was a folder s3: here
        with pytest.raises(ConfigError, match="names no bucket; write s3://BUCKET/FOLDER"):
            StepFolder(folder, "embed", {})


def test_a_local_folder_asks_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Store, "__init__", lambda *_: pytest.fail("a store was opened"))
    build(tmp_path / "a")
    assert fetched(tmp_path / "a") == tmp_path / "a"
    read: Any = read_finished(tmp_path / "a", "embed")
    assert read["facts"] == {"n": 4}
