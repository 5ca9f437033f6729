"""Reading YAML recipes: safe, closed (an unknown key is an error), with dotted overrides."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from sae_lens_meme.errors import ConfigError
from sae_lens_meme.options import check_keys


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A mapping from a YAML file; the name of a recipe of this package (`demo.yaml`) is enough.

    Raises:
        ConfigError: no such file, not YAML, or not a mapping.
    """
    file = recipe_path(path)
    try:
        value = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: is not plain YAML ({' '.join(str(error).split())})") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{file}: holds {type(value).__name__}, not a mapping of sections")
    return value


def read_concepts(path: str | Path) -> list[str]:
    """Concepts from a YAML file: under `concepts:` a list (`- hate=1`) or a mapping (`mocking: humor>=2`).

    Raises:
        ConfigError: the file holds something else.
    """
    given = read_yaml(path)
    check_keys(str(path), given, ("concepts",))
    concepts = given.get("concepts")
    if isinstance(concepts, dict):
        concepts = [f"{name}: {predicate}" for name, predicate in concepts.items()]
    if not isinstance(concepts, list) or not concepts or not all(isinstance(c, str) for c in concepts):
        raise ConfigError(
            f"{path}: concepts is {concepts!r}; give a list such as ['hate=1'] or a mapping such as {{mocking: humor>=2}}"
        )
    return concepts


def recipe_path(path: str | Path) -> Path:
    """The file itself, or the recipe of that name that comes with the package."""
    given = Path(path)
    if given.is_file():
        return given
    recipes = Path(str(files("sae_lens_meme") / "configs"))
    shipped = recipes / given.name
    if given.parent in (Path(), Path("configs")) and shipped.is_file():
        return shipped
    names = sorted(p.name for p in recipes.glob("*.yaml"))
    raise ConfigError(
        f"{path}: {'is a folder' if given.is_dir() else 'no such file'}; recipes that come with the package: {', '.join(names)}"
    )


def apply_overrides(config: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """A copy of `config` with `a.b=value` applied; values are read as YAML.

    Raises:
        ConfigError: an override that is not `key=value`, or that reaches into a plain value.
    """
    result = _copy(config)
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals or not path:
            raise ConfigError(f"override {override!r} is not KEY=VALUE, e.g. sae.k=32")
        *parents, last = path.split(".")
        node = result
        for parent in parents:
            child = node.setdefault(parent, {})
            if not isinstance(child, dict):
                raise ConfigError(f"override {override!r}: {parent!r} is the value {child!r}, not a section")
            node = child
        try:
            node[last] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            reason = " ".join(str(error).split())
            raise ConfigError(f"override {override!r}: the value is not plain YAML ({reason})") from None
    return result


def _copy(value: Any) -> Any:
    return {key: _copy(child) for key, child in value.items()} if isinstance(value, dict) else value
