"""Results in object stores: the bytes of local ones, whatever upload fails, read back on another machine, never mixed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from seen_memes import EMBED
from test_storage import N_SHARDS, build

from sae_lens_meme.corpus import build_corpus, load_rows
from sae_lens_meme.embed import embed_corpus
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, StorageError
from sae_lens_meme.planted import write_planted
from sae_lens_meme.storage import StepFolder, fetched, read_finished, url_of
from sae_lens_meme.storage.stores import CACHE, Store
from sae_lens_meme.train import train


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


def test_whatever_upload_fails_the_next_run_ends_the_same(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The n-th put, for every n; on the machine that was stopped and on another one. What is named is always there."""
    build(tmp_path / "here")
    put = Store.put
    for n in range(1, 2 * N_SHARDS + 4):
        calls = 0

        def failing(self: Store, name: str, limit: int = n) -> None:
            nonlocal calls
            calls += 1
            if calls == limit:
                raise StorageError("the connection was reset")
            put(self, name)

        with monkeypatch.context() as patched:
            patched.setattr(Store, "put", failing)
            with pytest.raises(StorageError, match="the connection was reset"):
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
    for overwrite in (False, True):
        with pytest.raises(
            StorageError, match=r"holds a different result \(seed: 1 there, 2 now\); .*remove it or choose"
        ):
            build(store, fingerprint={"seed": 2}, overwrite=overwrite)
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


def test_a_file_that_has_changed_in_the_store_is_named(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    build(store)
    fs, root = fsspec.core.url_to_fs(store)
    fs.pipe_file(f"{root}/shard-2.bin", b"other")
    assert fetched(store).is_dir(), "this machine has it"
    another_machine(tmp_path, monkeypatch)
    with pytest.raises(StorageError, match=r"shard-2.bin: has changed since it was written"):
        fetched(store)


def test_a_manifest_cannot_write_outside_the_mirror(store: str):
    build(store)
    fs, root = fsspec.core.url_to_fs(store)
    manifest = json.loads(fs.cat_file(f"{root}/manifest.json"))
    manifest["files"]["../../evil"] = "0" * 64
    fs.pipe_file(f"{root}/manifest.json", json.dumps(manifest).encode())
    with pytest.raises(StorageError, match=r"names a file '../../evil' that lies outside"):
        fetched(store)


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
    for name, embeddings in (("a", f"{store}/e"), ("b", tmp_path / "e")):
        train(recipe, embeddings=embeddings, out=tmp_path / name, progress=False)
    assert local(tmp_path / "a") == local(tmp_path / "b")
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


def test_a_local_folder_asks_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Store, "__init__", lambda *_: pytest.fail("a store was opened"))
    build(tmp_path / "a")
    assert fetched(tmp_path / "a") == tmp_path / "a"
    read: Any = read_finished(tmp_path / "a", "embed")
    assert read["facts"] == {"n": 4}
