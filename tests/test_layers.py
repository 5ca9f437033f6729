"""Imports go one way: read from the sources, not from a promise."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = [
    {"jit"},
    {"errors", "labels", "__init__", "progress", "metrics"},
    {"storage", "images", "options", "device"},
    {"config"},
    {"shards", "embeddings", "hooks"},
    {"corpus", "planted", "standardize", "provenance"},
    {"embed"},
    {"train"},
    {"evaluators"},
    {"report"},
    {"figure"},
    {"evaluate"},
    {"select"},
    {"pipeline"},
    {"cli"},
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}


def modules() -> list[tuple[str, Path]]:
    ours = [(p.relative_to(ROOT / "sae_lens_meme"), p) for p in (ROOT / "sae_lens_meme").rglob("*.py")]
    return [(relative.parts[0].removesuffix(".py"), path) for relative, path in ours]


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("sae_lens_meme.")}


def test_every_module_has_a_layer():
    assert {name for name, _ in modules()} <= RANK.keys()


@pytest.mark.parametrize(("name", "path"), modules(), ids=lambda value: str(value).replace(str(ROOT), ""))
def test_imports_go_down(name: str, path: Path):
    allowed = {other for other in RANK if RANK[other] < RANK[name]} | {name}
    if name == "hooks":
        allowed = {"errors", "hooks"}
    if name == "evaluators":
        allowed -= {"train", "embed", "corpus", "planted"}
    upward = {other for other in imported(path) if other in RANK} - allowed
    assert not upward, f"{path} imports {sorted(upward)}, which lies above or beside it"


def test_only_one_module_of_hooks_imports_transformer_lens():
    users = [
        p.name
        for p in (ROOT / "hooks").glob("*.py")
        if "import transformer_lens" in (t := p.read_text()) or "from transformer_lens" in t
    ]
    assert users == ["lens.py"]
