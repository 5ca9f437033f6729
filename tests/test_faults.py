"""What goes wrong costs nothing that was good, and is said in one line: replaced results, damage, full disks, bad recipes."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from sae_lens_meme import pipeline, storage
from sae_lens_meme.config import parse_yaml, read_yaml
from sae_lens_meme.errors import ConfigError, StorageError
from sae_lens_meme.storage import REPLACING, StepFolder, read_finished

FILES = {"a.bin": b"a", "parts/b.bin": b"b", "parts/c.bin": b"c"}


def build(path: Path, seed: int, files: dict[str, bytes] = FILES, **options: Any) -> None:
    with StepFolder(path, "embed", {"seed": seed}, **options) as folder:
        if not folder.complete:
            for name, content in files.items():
                folder.write(
                    name, lambda file, content=content: file.write_bytes(content * (seed + 1) if content else 1 / 0)
                )
            folder.finish(n=seed)


def contents(path: Path) -> dict[str, bytes]:
    files = (file for file in sorted(path.rglob("*")) if file.is_file() and file.name != ".lock")
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in files}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    build(tmp_path / "result", 1, {**FILES, "only-old.bin": b"o", "parts/old.bin": b"p"})
    return tmp_path / "result"


def test_a_result_stays_until_the_one_that_replaces_it_is_whole(old: Path):
    before = contents(old)
    with pytest.raises(ZeroDivisionError):
        build(old, 2, {**FILES, "z.bin": None}, overwrite=True)  # type: ignore[dict-item]
    assert {name: data for name, data in contents(old).items() if not name.startswith(REPLACING)} == before
    assert read_finished(old, "embed")["fingerprint"] == {"seed": 1}
    build(old, 1)  # the old result is asked for again: what was to replace it goes
    assert not (old / REPLACING).exists()


def test_a_refused_replacement_leaves_nothing(old: Path):
    before = contents(old)
    with pytest.raises(ZeroDivisionError), StepFolder(old, "embed", {"seed": 2}, overwrite=True):
        _ = 1 / 0
    assert contents(old) == before


def test_a_replacement_killed_at_any_rename_or_removal_is_finished_by_the_next_run(
    tmp_path: Path, old: Path, monkeypatch: pytest.MonkeyPatch
):
    """Before it is whole the old result can be read; afterwards the new one, as if there had been no old one."""
    build(tmp_path / "fresh", 2)
    fresh, replace, rmtree = contents(tmp_path / "fresh"), os.replace, shutil.rmtree
    for n in itertools.count(1):
        folder, calls = shutil.copytree(old, tmp_path / f"killed-{n}"), itertools.count(1)

        def killed(real: Any, *given: Any, calls: Any = calls, last: int = n) -> Any:
            if next(calls) == last:
                raise KeyboardInterrupt
            return real(*given)

        with monkeypatch.context() as patched:
            patched.setattr(os, "replace", partial(killed, replace))
            patched.setattr(shutil, "rmtree", partial(killed, rmtree))
            try:
                build(folder, 2, overwrite=True)
                break
            except KeyboardInterrupt:
                pass
        if (folder / storage.SUCCESS).exists():
            assert read_finished(folder, "embed")["fingerprint"]["seed"] in (1, 2)
        else:
            assert (folder / REPLACING / storage.SUCCESS).exists()
        build(folder, 2, overwrite=True)
        assert contents(folder) == fresh
    assert n > 12


def test_what_lives_in_the_folder_of_another_step_survives_a_replacement(old: Path):
    (old / "control").mkdir()
    (old / "control" / "weights.bin").write_bytes(b"w")
    build(old, 2, overwrite=True, keep=("control",))
    assert (old / "control" / "weights.bin").read_bytes() == b"w"


@pytest.mark.parametrize("damage", [b"", b"x", None], ids=["emptied", "flipped", "removed"])
def test_a_file_that_was_damaged_after_it_was_written_is_named(old: Path, damage: bytes | None):
    read_finished(old, "embed")
    file = old / "parts" / "b.bin"
    file.unlink() if damage is None else file.write_bytes(damage)
    storage.manifest._verified.clear()  # as in the next process
    what = "is missing, but" if damage is None else "has changed since"
    with pytest.raises(StorageError, match=rf"b\.bin: {what} 'embed' wrote it; run 'embed' again"):
        read_finished(old, "embed")


def test_damage_is_not_looked_for_where_that_is_asked(old: Path, monkeypatch: pytest.MonkeyPatch):
    (old / "a.bin").write_bytes(b"x")
    monkeypatch.setenv(storage.VERIFY, "0")
    read_finished(old, "embed")


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Also where a library says it in words of its own."""
    for error in (
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("write failed: No space left (os 28)"),
    ):
        with (
            pytest.raises(StorageError, match="the disk is full; free some space and run the same command again"),
            StepFolder(tmp_path / "a", "embed", {}),
        ):
            raise error
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1 << 30, 1 << 30, 0))
        with pytest.raises(StorageError, match="the disk is full"), StepFolder(tmp_path / "a", "embed", {}):
            raise RuntimeError("PytorchStreamWriter failed writing file data/0")
    with pytest.raises(RuntimeError, match="unrelated"), StepFolder(tmp_path / "a", "embed", {}):
        raise RuntimeError("unrelated")


def test_the_working_directory_is_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for out in (".", "", tmp_path):
        with pytest.raises(StorageError, match="is the working directory"), StepFolder(out, "select", {}):
            pass


BOMB = "a0: &a0 [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9)
)
REFUSED = {
    "a: &a [*a]": "a value holds itself, line 1",
    "a: &a\n  b:\n    c: *a": "a value holds itself",
    "[" * 3000 + "]" * 3000: "nested more than 50 levels deep",
    "a: " + "[" * 60 + "]" * 60: "nested more than 50 levels deep",
    BOMB: "aliases stand for more than 100,000 values",
    "train: {}\nembed: {}\ntrain: {}": "key 'train' occurs twice, again in line 3",
    "? [a]\n: 1": "a key is not plain text",
    "a: 2024-13-45": "month must be in 1",
    "a: !!python/object/apply:os.system ['true']": "could not determine a constructor",
}


@pytest.mark.parametrize("text", REFUSED, ids=range(len(REFUSED)))
def test_a_recipe_that_is_a_trap_is_one_line(tmp_path: Path, text: str):
    (tmp_path / "recipe.yaml").write_text(text)
    start = time.perf_counter()
    with pytest.raises(ConfigError, match=REFUSED[text]):
        read_yaml(tmp_path / "recipe.yaml")
    assert time.perf_counter() - start < 10


def test_a_recipe_may_use_aliases():
    assert parse_yaml("a: &a {b: 1}\nc: {<<: *a, d: 2}\ne: [*a, *a]") == {
        "a": {"b": 1},
        "c": {"b": 1, "d": 2},
        "e": [{"b": 1}, {"b": 1}],
    }


BAD_VALUES = {
    "corpus: 5": "corpus: is int",
    "out: [1, 2]": r"out is \[1, 2\], it must be a path",
    "embed: {workers: -1}": "embed.workers is -1, it must be 0 or more",
    "embed: {batch_size: 1000000000000}": "it must be 2147483647 or less",
    "corpus: {planted: {scale: .nan}}": "scale is nan, it must be a finite number",
    "corpus: {planted: {seed: 100000000000000000000}}": "seed is 100000000000000000000, it must be 2147483647 or less",
    "train: {epochs: 1.0e+12}": "epochs is 1000000000000.0, it must be 1000000 or less",
    "train: {lr: 1.0e+23}": r"lr is 1e\+23, it must be 100 or less",
    "train: {lr: .inf}": "lr is inf, it must be a finite number",
    "train: {training_tokens: 1000000000000}": "it must be 100000000000 or less",
    "train: {n_batches_in_buffer: -3}": "it must be 1 or more",
    "train: {sae: {d_sae: 1000000000000, k: 4}}": "it must be 16777216 or less",
    "evaluate: {bootstrap: .nan}": "bootstrap is nan, it must be an integer",
    "evaluate: {contest: {ks: [-1]}}": "contest.ks is -1",
}


@pytest.mark.parametrize("given", BAD_VALUES)
def test_a_value_out_of_range_is_one_line_before_any_work(tmp_path: Path, given: str):
    recipe = {"corpus": {"planted": {"scale": 0.02}}, "train": {"sae": {"d_sae": 64, "k": 4}}}
    for section, value in parse_yaml(given).items():
        recipe[section] = {**recipe.get(section, {}), **value} if isinstance(value, dict) else value
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    with pytest.raises(ConfigError, match=BAD_VALUES[given]):
        pipeline.run(tmp_path / "recipe.yaml", out=None if "out" in recipe else tmp_path / "run")
    assert [file.name for file in tmp_path.iterdir()] == ["recipe.yaml"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to one process")
def test_ctrl_c_in_the_first_moment_prints_no_traceback():
    """While the imports run; where this process ignores SIGINT, as one in the background does, the child does not."""
    command = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from sae_lens_meme.__main__ import main; print('go', flush=True); main()"
    )
    for _ in range(3):  # Python drops an interrupt that strikes within a callback of its own
        child = subprocess.Popen([sys.executable, "-c", command, "--help"], stdout=-1, stderr=-1, text=True)
        assert child.stdout is not None
        assert child.stdout.readline() == "go\n"
        time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=120)
        if child.returncode == 130:
            break
    assert child.returncode == 130, said
    assert "Traceback" not in said
    assert "interrupted" in said
