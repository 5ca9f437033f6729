"""A result on disk survives a crash at any point, and never mixes with another one."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sae_lens_meme.errors import StorageError
from sae_lens_meme.storage import StepFolder, atomic_file, read_finished, read_manifest, to_json, write_text

N_SHARDS = 4
BUILD = f"""
import sys
from sae_lens_meme.storage import StepFolder
with StepFolder(sys.argv[1], "embed", {{"seed": 1}}) as folder:
    if not folder.complete:
        for i in range({N_SHARDS}):
            folder.write(f"shard-{{i}}.bin", lambda path, i=i: path.write_bytes(bytes([i]) * 1000))
        folder.finish(n=4)
"""


def build(path: Path, **kwargs: object) -> list[str]:
    """A small step; returns the shards that were made anew."""
    made = []
    with StepFolder(path, "embed", {"seed": 1, **kwargs.pop("fingerprint", {})}, **kwargs) as folder:
        for i in range(N_SHARDS):

            def write(temporary: Path, i: int = i) -> None:
                made.append(f"shard-{i}.bin")
                temporary.write_bytes(bytes([i]) * 1000)

            folder.write(f"shard-{i}.bin", write)
        folder.finish(n=4)
    return made


def contents(path: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(path.iterdir()) if p.name != ".lock"}


def test_second_run_makes_nothing_again(tmp_path: Path):
    assert len(build(tmp_path / "a")) == N_SHARDS
    before = contents(tmp_path / "a")
    assert build(tmp_path / "a") == []
    assert contents(tmp_path / "a") == before


@pytest.mark.parametrize("damage", ["delete", "truncate", "flip"])
def test_damaged_shard_is_made_again(tmp_path: Path, damage: str):
    build(tmp_path / "a")
    before, shard = contents(tmp_path / "a"), tmp_path / "a" / "shard-2.bin"
    if damage == "delete":
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes()[:-1] + (b"" if damage == "truncate" else b"!"))
    with StepFolder(tmp_path / "a", "embed", {"seed": 1}) as folder:
        assert not folder.complete
    assert build(tmp_path / "a") == ["shard-2.bin"]
    assert contents(tmp_path / "a") == before


def test_killed_at_every_rename_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The n-th `os.replace` fails, for every n; the next run heals it."""
    build(tmp_path / "whole")
    whole, replace = contents(tmp_path / "whole"), os.replace
    for n in range(1, 2 * N_SHARDS + 3):
        calls = 0

        def failing(source: str, target: str, limit: int = n) -> None:
            nonlocal calls
            calls += 1
            if calls == limit:
                raise OSError(28, "No space left on device")
            replace(source, target)

        folder = tmp_path / f"crash-{n}"
        with monkeypatch.context() as patched:
            patched.setattr(os, "replace", failing)
            with pytest.raises(StorageError, match="the disk is full"):
                build(folder)
        build(folder)
        assert contents(folder) == whole


def test_sigkill_then_rerun_is_identical(tmp_path: Path):
    """A real kill in the middle of a shard."""
    killer = BUILD.replace(
        "path.write_bytes(bytes([i]) * 1000)",
        "(path.write_bytes(b'half'), __import__('os').kill(__import__('os').getpid(), 9)) if i == 2 else path.write_bytes(bytes([i]) * 1000)",
    )
    killed = subprocess.run([sys.executable, "-c", killer, str(tmp_path / "a")], check=False)
    assert killed.returncode == -9
    with pytest.raises(StorageError, match="interrupted; run it again"):
        read_finished(tmp_path / "a", "embed")
    for out in ("a", "b"):
        subprocess.run([sys.executable, "-c", BUILD, str(tmp_path / out)], check=True)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_different_result_is_refused_and_kept(tmp_path: Path):
    build(tmp_path / "a")
    before = contents(tmp_path / "a")
    with pytest.raises(StorageError, match=r"holds a different result \(seed: 1 there, 2 now\); pass --overwrite"):
        build(tmp_path / "a", fingerprint={"seed": 2})
    assert contents(tmp_path / "a") == before
    build(tmp_path / "a", fingerprint={"seed": 2}, overwrite=True)
    assert read_finished(tmp_path / "a", "embed")["fingerprint"] == {"seed": 2}


def test_the_difference_is_named_down_to_its_key(tmp_path: Path):
    build(tmp_path / "a", fingerprint={"config": {"sae": {"d_sae": 64, "k": 8}, "lr": 0.1}})
    with pytest.raises(StorageError, match=r"\(config.sae.k: 8 there, 9 now\)"):
        build(tmp_path / "a", fingerprint={"config": {"sae": {"d_sae": 64, "k": 9}, "lr": 0.1}})


def test_overwrite_never_removes_a_result_that_lies_in_another(tmp_path: Path):
    build(tmp_path / "a")
    with StepFolder(tmp_path / "a" / "of_it", "evaluate", {}) as inside:
        inside.write_text("numbers.json", "{}")
        inside.finish()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(StorageError, match=r"would remove the result of 'evaluate' in .*of_it.*move it elsewhere"):
        build(tmp_path / "a", fingerprint={"seed": 2}, overwrite=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    for options in ({"keep": ("of_it",)}, {"own": ("evaluate",)}):
        with StepFolder(tmp_path / "a", "embed", {"seed": str(options)}, overwrite=True, **options) as folder:
            folder.finish()
        assert (tmp_path / "a" / "of_it").exists() == ("keep" in options)


def test_overwrite_never_removes_the_result_of_another_step(tmp_path: Path):
    build(tmp_path / "a")
    before = contents(tmp_path / "a")
    folder = StepFolder(tmp_path / "a", "train", {}, overwrite=True)
    with pytest.raises(StorageError, match="holds the result of 'embed', not of 'train'"), folder:
        pass
    assert contents(tmp_path / "a") == before


def test_a_run_refused_before_it_made_anything_leaves_nothing_in_the_way(tmp_path: Path):
    with pytest.raises(ZeroDivisionError), StepFolder(tmp_path / "a", "embed", {"seed": 7}):
        _ = 1 / 0
    build(tmp_path / "a")
    assert read_finished(tmp_path / "a", "embed")["fingerprint"] == {"seed": 1}


def test_a_run_refused_before_it_made_anything_leaves_no_folder(tmp_path: Path):
    (tmp_path / "mine").mkdir()
    for place in ("a", "b/c", "mine/d", "mine"):
        with pytest.raises(ZeroDivisionError), StepFolder(tmp_path / place, "embed", {}):
            _ = 1 / 0
    assert list(tmp_path.rglob("*")) == [tmp_path / "mine"]
    with StepFolder(tmp_path / "a", "embed", {}) as folder:
        folder.write("x.bin", lambda path: path.write_bytes(b"x"))
    with pytest.raises(ZeroDivisionError), StepFolder(tmp_path / "a", "embed", {}):
        _ = 1 / 0
    assert (tmp_path / "a" / "x.bin").exists()


def test_a_file_that_cannot_be_there_is_named_as_it_was_given(tmp_path: Path):
    for place, message in (("", "is a folder; name a file in it"), ("no/such.txt", "there is no folder '.*no'")):
        with pytest.raises(StorageError, match=f"{message}") as caught:
            write_text(tmp_path / place, "x")
        assert ".writing-" not in str(caught.value)


def test_a_strangers_folder_is_refused(tmp_path: Path):
    (tmp_path / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(StorageError, match="holds files that are not a result of 'embed'"):
            build(tmp_path, overwrite=overwrite)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_two_runs_at_once_are_refused(tmp_path: Path):
    with (
        StepFolder(tmp_path / "a", "embed", {}),
        pytest.raises(StorageError, match="another process is writing"),
        StepFolder(tmp_path / "a", "embed", {}),
    ):
        pass


@pytest.mark.parametrize("reason", [errno.EACCES, errno.EROFS])
def test_what_is_finished_is_read_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int
):
    build(tmp_path / "finished")
    build(tmp_path / "begun")
    (tmp_path / "begun" / "_SUCCESS").unlink()
    opened = os.open

    def read_only(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(reason, os.strerror(reason), str(path))
        return opened(path, flags, *rest, **options)

    monkeypatch.setattr(os, "open", read_only)
    with StepFolder(tmp_path / "finished", "embed", {"seed": 1}) as folder:
        assert folder.complete
    for name, seed in (("finished", 2), ("begun", 1)):
        with pytest.raises(StorageError, match=f"{name}: nothing can be written there.*choose another --out"):
            StepFolder(tmp_path / name, "embed", {"seed": seed}).__enter__()


def test_the_wrong_kind_of_result_is_named(tmp_path: Path):
    build(tmp_path / "a")
    with pytest.raises(
        StorageError, match="holds the result of 'embed', not of 'corpus'; give the folder that 'corpus' wrote"
    ):
        read_manifest(tmp_path / "a", "corpus")
    with pytest.raises(StorageError, match="is not a result of 'corpus'"):
        read_manifest(tmp_path / "nothing", "corpus")


def test_a_newer_schema_is_refused(tmp_path: Path):
    build(tmp_path / "a")
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    (tmp_path / "a" / "manifest.json").write_text(json.dumps({**manifest, "schema": 99}))
    with pytest.raises(StorageError, match="has schema 99, this release reads up to 1; upgrade"):
        read_manifest(tmp_path / "a")


def test_a_failing_write_leaves_the_old_file(tmp_path: Path):
    (tmp_path / "good.txt").write_text("good")
    with pytest.raises(UnicodeEncodeError), atomic_file(tmp_path / "good.txt") as temporary:
        temporary.write_text("half" + "\ud800")
    assert [p.name for p in tmp_path.iterdir()] == ["good.txt"]
    assert (tmp_path / "good.txt").read_text() == "good"


def test_mode_follows_the_umask(tmp_path: Path):
    old = os.umask(0o027)
    try:
        with atomic_file(tmp_path / "a") as temporary:
            temporary.write_text("x")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_json_is_strict():
    with pytest.raises(ValueError, match="Out of range float"):
        to_json({"f1": float("nan")})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", "is not valid JSON"),
        (b"[" * 100_000, "is not valid JSON"),
        (b"9" * 10_000, "is not valid JSON"),
        (b"[]", "names no schema"),
        (b'{"schema": true, "step": "embed", "fingerprint": {}, "files": {}, "facts": {}}', "names no schema"),
        (b'{"schema": 1, "step": "embed", "fingerprint": {}, "files": []}', r"files is \[\], not a dict"),
        (b'{"schema": 1, "step": null}', "step is None, not a str"),
    ],
)
def test_a_damaged_manifest_is_one_line(tmp_path: Path, content: bytes, message: str):
    (tmp_path / "manifest.json").write_bytes(content)
    for read in (read_finished, lambda path, step: StepFolder(path, step, {}).__enter__()):
        with pytest.raises(StorageError, match=message) as caught:
            read(tmp_path, "embed")
        assert "\n" not in str(caught.value)


def test_a_folder_that_a_killed_run_left_half_written_is_removed(tmp_path: Path):
    build(tmp_path / "a")
    before = contents(tmp_path / "a")
    (tmp_path / "a" / ".writing-x").mkdir()
    (tmp_path / "a" / ".writing-x" / "shard").write_bytes(b"half")
    build(tmp_path / "a")
    assert contents(tmp_path / "a") == before


WITHOUT_POSIX = """
import sys
import datasets, huggingface_hub, numba, open_clip, sae_lens, statsmodels, typer  # theirs may ask for what they like
POSIX = {"fcntl", "grp", "pwd", "resource", "termios"}

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in POSIX:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

for name in POSIX:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Missing())
import importlib, pkgutil, sae_lens_meme
for module in pkgutil.walk_packages(sae_lens_meme.__path__, "sae_lens_meme."):
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        if error.name != "gradio":  # an extra
            raise
"""


@pytest.mark.slow
def test_every_module_is_imported_without_what_windows_lacks():
    done = subprocess.run([sys.executable, "-c", WITHOUT_POSIX], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_folders_are_not_opened_on_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    opened = os.open

    def as_windows_does(path: str, flags: int, *rest: int, **options: int) -> int:
        if os.path.isdir(path):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, flags, *rest, **options)

    with monkeypatch.context() as patched:
        patched.setattr("sae_lens_meme.storage.files.os.open", as_windows_does)
        patched.setattr("sae_lens_meme.storage.files.sys.platform", "win32")
        with atomic_file(tmp_path / "a.txt") as temporary:
            temporary.write_text("whole")
    assert (tmp_path / "a.txt").read_text() == "whole"
