"""Imports go one way: read from the sources, not from a promise."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
TABLE = [
    [re.findall(r"`([\w.]+)`", cell) for cell in line.split("|")[2:4]]
    for line in (ROOT / "docs" / "architecture.md").read_text().split("| layer |")[1].splitlines()
    if "`" in line and line.startswith("|")
]
RANK = {name: rank for rank, (names, _) in enumerate(TABLE) for name in names}
EXCLUDED = {name: set(excluded) for names, excluded in TABLE for name in names}


def layer(relative: Path) -> str:
    """The name in the table: that of a module which has a row of its own, else that of its package."""
    dotted = ".".join(relative.with_suffix("").parts)
    return dotted if dotted in RANK else relative.parts[0].removesuffix(".py")


def modules() -> list[tuple[str, Path]]:
    """Every module of the package; `sae_lens_meme/hooks` is a link, which `rglob` does not follow."""
    folder = ROOT / "sae_lens_meme"
    found = [(layer(path.relative_to(folder)), path) for path in folder.rglob("*.py") if path != folder / "__init__.py"]
    return found + [("hooks", path) for path in (ROOT / "hooks").rglob("*.py")]


@functools.cache
def nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text())))


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    parts = [name.split(".")[1:] for name in names if name.startswith("sae_lens_meme.")]
    return {".".join(p[:2]) if ".".join(p[:2]) in RANK else p[0] for p in parts}


def test_every_module_has_a_layer():
    assert {name for name, _ in modules()} == RANK.keys()


def allowed(name: str, path: Path) -> set[str]:
    if name == "hooks":
        return {"errors", "hooks"}
    package = name.split(".")[0]
    below = {other for other in RANK if RANK[other] < RANK[name]} - EXCLUDED[name]
    own = {other for other in RANK if RANK[other] <= RANK[name] and other.split(".")[0] == package}
    # a public name, imported when it is asked for
    lazily = {"evaluators.run", "evaluators.measure"} if path.name == "__init__.py" else set()
    return below | own | lazily


def test_imports_go_down():
    found = {
        path: {other for other in imported(path) if other in RANK} - allowed(name, path) for name, path in modules()
    }
    upward = {str(path.relative_to(ROOT)): sorted(others) for path, others in found.items() if others}
    assert upward == {}, "docs/architecture.md does not allow these imports"


def test_only_one_module_of_hooks_imports_transformer_lens():
    users = [
        p.name
        for p in (ROOT / "hooks").glob("*.py")
        if "import transformer_lens" in (t := p.read_text()) or "from transformer_lens" in t
    ]
    assert users == ["lens.py"]


def test_no_two_public_classes_share_a_name():
    """But for `Options`, of which each evaluator has its own."""
    found: dict[str, set[Path]] = {}
    for _, path in modules():
        for node in nodes(path):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found.setdefault(node.name, set()).add(path)
    assert {name: paths for name, paths in found.items() if len(paths) > 1 and name != "Options"} == {}
