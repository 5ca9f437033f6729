"""Shared helpers live in plain modules of this folder (`arrays.py`, ...)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hypothesis import settings

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # bytes are compared, and they are a CPU's
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, before torch is imported
if "PYTEST_XDIST_WORKER" in os.environ:  # one worker a core: threads of theirs would wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))
# a run draws what the run before drew: where it fails, a change made it fail
settings.register_profile("same", derandomize=True)
settings.load_profile("same")
