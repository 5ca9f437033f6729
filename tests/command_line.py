"""The command line as a person has it, and the same in the process of the test, where SAELens is imported already."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from sae_lens_meme.cli import main

CLI = [sys.executable, "-m", "sae_lens_meme.cli"]
Done = subprocess.CompletedProcess[str]


def run(*arguments: object, cwd: Path | None = None) -> Done:
    """In a process of its own: some ten seconds of processor time for the imports alone."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "110"}
    command = [*CLI, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=environment)


def run_here(*arguments: object, cwd: Path | None = None) -> Done:
    """The same in this process."""
    command, out, err = ["sae-lens-meme", *map(str, arguments)], io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patched, redirect_stdout(out), redirect_stderr(err):
        patched.setattr(sys, "argv", command)
        patched.setenv("COLUMNS", "110")
        if cwd is not None:
            patched.chdir(cwd)
        with pytest.raises(SystemExit) as ended:
            main()
    return subprocess.CompletedProcess(command, int(ended.value.code or 0), out.getvalue(), err.getvalue())
