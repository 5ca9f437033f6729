"""Every way to install the package gives the same importable modules and data, and leaks none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import lazy_loader
import pytest

pytestmark = pytest.mark.whole

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
CHECK = """
import importlib.util
from importlib.metadata import version
from importlib.resources import files
import sae_lens_meme, sae_lens_meme.errors, sae_lens_meme.hooks.names as names, sae_lens_meme.labels
assert "build_corpus" in sae_lens_meme.__all__ and "find" in sae_lens_meme.hooks.__all__, "stubs are missing"
assert names.FUSED == "hook_fused"
assert (files("sae_lens_meme") / "configs" / "demo.yaml").is_file()
assert (files("sae_lens_meme") / "planted" / "encoder" / "config.json").is_file()
assert version("sae-lens-meme") == sae_lens_meme.__version__
assert importlib.util.find_spec("hooks") is None, "hooks leaks"
assert importlib.util.find_spec("configs") is None, "configs leaks"
assert importlib.util.find_spec("tests") is None, "tests leak"
print(sae_lens_meme.__file__)
"""


def run(*command: object, cwd: Path) -> str:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what git tracks, so that no build leaves anything in the real one."""
    copy = tmp_path / "checkout"
    skip = shutil.ignore_patterns(
        ".git", "*.egg-info", "build", "dist", "site", "__pycache__", ".venv", ".*_cache", "runs", "meme-demo"
    )
    shutil.copytree(ROOT, copy, symlinks=True, ignore=skip)
    return copy


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    (tmp_path / "elsewhere").mkdir()
    run(sys.executable, "-m", "venv", "--without-pip", "env", cwd=tmp_path / "elsewhere")
    (packages,) = (tmp_path / "elsewhere" / "env" / "lib").glob("python*/site-packages")
    needed = Path(lazy_loader.__file__).parent  # all that an import of the package needs
    shutil.copytree(needed, packages / needed.name)
    return tmp_path / "elsewhere"


def check(elsewhere: Path) -> Path:
    return Path(run("env/bin/python", "-I", "-c", CHECK, cwd=elsewhere).strip())


def pip(elsewhere: Path, *arguments: object) -> None:
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        "env/bin/python",
        "install",
        "-q",
        "--no-deps",
        *arguments,
        cwd=elsewhere,
    )


def test_pip_install(checkout: Path, elsewhere: Path):
    pip(elsewhere, checkout)
    assert elsewhere / "env" in check(elsewhere).parents


def test_pip_install_editable(checkout: Path, elsewhere: Path):
    pip(elsewhere, "-e", checkout)
    assert check(elsewhere).parents[1] == checkout


def test_uv_install_editable(checkout: Path, elsewhere: Path):
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed")
    run(uv, "pip", "install", "-q", "--no-deps", "--python", "env/bin/python", "-e", checkout, cwd=elsewhere)
    assert check(elsewhere).parents[1] == checkout


def test_sdist_then_wheel(checkout: Path, elsewhere: Path):
    run(
        sys.executable, "-m", "build", "-o", elsewhere / "dist", checkout, cwd=elsewhere
    )  # the wheel is built from the sdist
    (wheel,) = (elsewhere / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert len(names) == len(set(names))
    assert {name.split("/")[0] for name in names} == {"sae_lens_meme", wheel.name.split("-py3")[0] + ".dist-info"}
    pip(elsewhere, wheel)
    assert elsewhere / "env" in check(elsewhere).parents


def test_bare_checkout(checkout: Path, elsewhere: Path):
    code = "import sae_lens_meme.hooks.names as n; print(n.FUSED)"
    assert run(elsewhere / "env/bin/python", "-c", code, cwd=checkout).strip() == "hook_fused"


def test_the_package_list_is_complete():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = [
        Path(path) for path, _, files in os.walk(ROOT / "sae_lens_meme", followlinks=True) if "__init__.py" in files
    ]
    found = {str(path.relative_to(ROOT)).replace("/", ".") for path in folders} | {"sae_lens_meme.configs"}
    assert set(listed) == found


def test_hooks_refuses_to_be_a_top_level_package():
    done = subprocess.run([sys.executable, "-c", "import hooks"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "sae_lens_meme.hooks" in done.stderr
