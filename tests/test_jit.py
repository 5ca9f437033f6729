"""Kernels compile where numba has no folder for its cache."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import sae_lens_meme

ROOT = Path(sae_lens_meme.__file__).parents[1]
KERNEL = "from sae_lens_meme.jit import njit\n\n\n@njit(nogil=True)\ndef double(x):\n    return 2 * x\n"
LOCATORS = "UserProvidedCacheLocator,ZipCacheLocator"  # neither applies: what a read-only installation leaves


def run(folder: Path, code: str, **environment: str) -> subprocess.CompletedProcess:
    (folder / "kernel.py").write_text(KERNEL)
    paths = os.pathsep.join([str(folder), str(ROOT)])
    settings = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA_")}
    return subprocess.run(
        [sys.executable, "-c", code], env=settings | {"PYTHONPATH": paths} | environment, capture_output=True, text=True
    )


def test_a_kernel_compiles_without_a_folder_for_its_cache(tmp_path: Path):
    done = run(tmp_path, "import kernel; print(kernel.double(21))", NUMBA_CACHE_LOCATOR_CLASSES=LOCATORS)
    assert done.stdout == "42\n", done.stderr


def test_a_kernel_is_cached_where_a_folder_can_be_written(tmp_path: Path):
    cache = tmp_path / "cache"
    assert run(tmp_path, "import kernel; kernel.double(21)", NUMBA_CACHE_DIR=str(cache)).returncode == 0
    assert list(cache.rglob("*.nbi"))


def test_every_kernel_is_compiled_through_the_one_decorator():
    sources = [p for p in (ROOT / "sae_lens_meme").rglob("*.py") if p.name != "jit.py"]
    words = ("from numba import njit", "numba.njit", "numba.jit")
    assert [p for p in sources if any(word in p.read_text() for word in words)] == []
