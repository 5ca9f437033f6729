"""The disk is full at the n-th write of each step: one line, nothing left over, nothing lost, and the next run ends the same."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import pytest
from failing_disk import disk
from small_steps import FILES, STEPS, write_world
from test_train_resume import contents

from sae_lens_meme import storage
from sae_lens_meme.errors import StorageError
from sae_lens_meme.evaluators.opened import sae_weights
from sae_lens_meme.storage import read_finished, read_manifest

pytestmark = pytest.mark.whole


@pytest.fixture(scope="module")
def memes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("memes"))


class Results:
    """One of the steps: its result, and another one."""

    def __init__(self, name: str, memes: Path, folder: Path):
        self.name, self.step, self.memes, self.folder = name, STEPS[name], memes, folder
        self.write(folder / "other", 2)  # first, so that no compiler writes its cache into the one that is counted
        self.other = contents(folder / "other")
        with disk() as counted:
            self.write(folder / "whole", 1)
        self.writes, self.whole = counted.edges(), contents(folder / "whole")
        self.fingerprint = read_manifest(folder / "whole")["fingerprint"]
        assert len(self.writes) > 10
        assert self.other != self.whole

    def write(self, out: Path, seed: int, overwrite: bool = False) -> None:
        self.step.write(self.memes, out, seed, overwrite=overwrite)

    def fails_at(self, n: int, replaced: bool) -> None:
        """The n-th write fails, of a new result or of one that replaces another."""
        out = self.folder / f"{n}-{replaced}"
        if replaced:
            shutil.copytree(self.folder / "other", out)
        said = ""
        with disk(n) as failing:
            try:
                self.write(out, 1, overwrite=replaced)
            except StorageError as error:
                said = str(error)
        where = f"{self.name}, write {n} ({failing.failed})"
        if replaced and not failing.failed:  # what a sweep has trained is not trained again: there are fewer writes
            assert contents(out) == self.whole, where
            return
        assert "the disk is full; free some space" in said, where
        assert "\n" not in said, where
        files = contents(out)
        assert not [file for file in files if ".writing-" in file or ".partial-" in file], where
        assert not list(Path(tempfile.gettempdir()).iterdir()), where
        storage.manifest._verified.clear()  # as in another process
        if replaced and (out / storage.SUCCESS).exists():
            manifest = read_finished(out, read_manifest(out)["step"])
            kept = {file: data for file, data in files.items() if not file.startswith(storage.REPLACING)}
            assert kept == (self.whole if manifest["fingerprint"] == self.fingerprint else self.other), where
        elif replaced:  # only between the renames that put the new one in its place
            assert (out / storage.REPLACING / storage.SUCCESS).exists(), where
        self.write(out, 1, overwrite=replaced)
        assert contents(out) == self.whole, where
        shutil.rmtree(out)


@pytest.fixture(autouse=True)
def no_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))


LONG = {"attribute", "dashboard", "export"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if n in LONG else []) for n, step in STEPS.items() if step.spread],
)
def test_a_full_disk_costs_nothing(name: str, memes: Path, tmp_path: Path):
    results = Results(name, memes, tmp_path)
    last, spread = len(results.writes) - 1, STEPS[name].spread
    for i in range(spread):
        results.fails_at(results.writes[i * last // (spread - 1)], replaced=i % 2 == 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", STEPS)
def test_a_disk_that_is_full_at_any_write_costs_nothing(name: str, memes: Path, tmp_path: Path):
    results = Results(name, memes, tmp_path)
    for i, n in enumerate(results.writes):
        for replaced in (False, True) if i % 5 == 0 or not STEPS[name].long else (False,):
            results.fails_at(n, replaced)
    print(f"{name}: {len(results.writes)} writes")


def _file_fails_at(name: str, memes: Path, out: Path, n: int) -> None:
    before = contents(out)
    with disk(n) as failing, pytest.raises((OSError, StorageError)) as caught:
        FILES[name](memes, out, 1)
    where = f"{name}, write {n} ({failing.failed})"
    assert "\n" not in str(caught.value), where
    assert contents(out) == before, where  # the bytes of a new file are those of the old one
    assert not list(Path(tempfile.gettempdir()).iterdir()), where


@pytest.mark.parametrize("name", [name for name in FILES if name != "describe"])  # whose figure is one of `figures`
def test_a_full_disk_leaves_the_files_that_there_are(name: str, memes: Path, tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    with disk() as counted:
        FILES[name](memes, out, 1)
    writes = counted.edges()
    assert len(writes) > 5
    within = [n for n in writes if counted.writes[n - 1].startswith("open ")]  # a piece of a file that is begun
    _file_fails_at(name, memes, out, min(within, default=writes[len(writes) // 2]))


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_a_disk_that_is_full_at_any_write_of_a_file_leaves_none_in_part(name: str, memes: Path, tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    with disk() as counted:
        FILES[name](memes, out, 1)
    for n in counted.edges():
        _file_fails_at(name, memes, out, n)
    print(f"{name}: {len(counted.edges())} writes")


def test_a_damaged_sae_is_not_taken_for_another_one(tmp_path: Path):
    STEPS["train"].write(tmp_path, tmp_path / "sae", 1)
    weights = tmp_path / "sae" / "sae_weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    storage.manifest._verified.clear()
    with pytest.raises(
        StorageError, match=r"sae_weights\.safetensors: has changed since 'train' wrote it; run 'train'"
    ):
        sae_weights(tmp_path / "sae")


def test_the_config_of_an_sae_has_its_keys_in_order(tmp_path: Path):
    """SAELens writes them in the order of a set, which is another in each process."""
    STEPS["train"].write(tmp_path, tmp_path / "sae", 1)
    written = (tmp_path / "sae" / "cfg.json").read_text()
    assert written == json.dumps(json.loads(written), sort_keys=True)
