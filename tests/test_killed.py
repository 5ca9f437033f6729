"""Real SIGKILLs at random moments of corpus, embed and train: what the next runs make is byte for byte the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.whole,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither fork nor SIGKILL"),
]


def killed_runs(folder: Path, n_runs: int, n_kills: int) -> None:
    here = Path(__file__).parent
    program = (
        "import sys; from pathlib import Path; sys.path.insert(1, sys.argv[1]); from killed_runs import main; main"
    )
    command = [sys.executable, "-c", f"{program}(Path(sys.argv[2]), {n_runs}, {n_kills})", str(here), str(folder)]
    done = subprocess.run(command, cwd=here.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    print(f"{n_runs} runs: {found}")
    assert found["differing"] == []
    assert found["files"] > 20
    assert found["killed"] >= 0.6 * n_runs * n_kills  # the others came after the end


def test_five_kills_leave_the_same_bytes(tmp_path: Path):
    killed_runs(tmp_path, 1, 5)


@pytest.mark.slow
def test_a_hundred_kills_of_twenty_runs_leave_the_same_bytes(tmp_path: Path):
    killed_runs(tmp_path, 20, 7)
