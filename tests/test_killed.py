"""Real SIGKILLs at random moments of corpus, embed and train: what the next runs make is byte for byte the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither fork nor SIGKILL")


def killed_runs(folder: Path, n_runs: int, n_kills: int) -> None:
    command = [sys.executable, str(Path(__file__).with_name("killed_runs.py")), folder, str(n_runs), str(n_kills)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["differing"] == []
    assert found["files"] > 20
    assert found["killed"] >= 0.9 * n_runs * n_kills


def test_five_kills_leave_the_same_bytes(tmp_path: Path):
    killed_runs(tmp_path, 1, 5)


@pytest.mark.slow
def test_a_hundred_kills_of_twenty_runs_leave_the_same_bytes(tmp_path: Path):
    killed_runs(tmp_path, 20, 5)
