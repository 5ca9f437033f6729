"""Reading YAML recipes: safe, closed (an unknown key is an error), with dotted overrides."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from sae_lens_meme.errors import ConfigError
from sae_lens_meme.options import check_keys

MAX_DEPTH, MAX_VALUES = 50, 100_000
QUESTIONS = "sqs.yaml"
"""Shipped with the recipes but not a recipe: the Standard Question Set."""


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A mapping from a YAML file; the name of a recipe of this package (`demo.yaml`) is enough.

    Raises:
        ConfigError: no such file, not YAML, or not a mapping.
    """
    file = recipe_path(path)
    try:
        value = parse_yaml(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: is not plain YAML ({' '.join(str(error).split())})") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{file}: holds {type(value).__name__}, not a mapping of sections")
    return value


def parse_yaml(text: str) -> Any:
    """`yaml.safe_load` that refuses what a recipe never holds: a key twice, a value that holds itself, a flood of aliases.

    Raises:
        yaml.YAMLError: says which, and on which line.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _measure_node(node, {}, ())
        return loader.construct_document(node)
    except RecursionError:
        raise yaml.YAMLError(f"it is nested more than {MAX_DEPTH} levels deep") from None
    except ValueError as error:  # a date that is none, a number beyond the digits that Python reads
        raise yaml.YAMLError(str(error)) from None
    finally:
        loader.dispose()


def _measure_node(node: yaml.Node, sizes: dict[int, int], above: tuple[int, ...]) -> int:
    """How many values this one is when every alias is written out."""
    if id(node) in above:
        raise yaml.YAMLError(f"a value holds itself, line {node.start_mark.line + 1}")
    if len(above) > MAX_DEPTH:
        raise yaml.YAMLError(f"it is nested more than {MAX_DEPTH} levels deep, line {node.start_mark.line + 1}")
    if id(node) not in sizes:
        within, parts = (*above, id(node)), node.value if isinstance(node, yaml.CollectionNode) else ()
        if isinstance(node, yaml.MappingNode):
            _refuse_repeated_keys(node)
            parts = [part for pair in node.value for part in pair]
        sizes[id(node)] = 1 + sum(_measure_node(part, sizes, within) for part in parts)
    if sizes[id(node)] > MAX_VALUES:
        raise yaml.YAMLError(f"its aliases stand for more than {MAX_VALUES:,} values, line {node.start_mark.line + 1}")
    return sizes[id(node)]


def _refuse_repeated_keys(node: yaml.MappingNode) -> None:
    seen: set[tuple[str, str]] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise yaml.YAMLError(f"a key is not plain text, line {key.start_mark.line + 1}")
        if (name := (key.tag, key.value)) in seen and key.tag != "tag:yaml.org,2002:merge":
            raise yaml.YAMLError(f"key {key.value!r} occurs twice, again in line {key.start_mark.line + 1}")
        seen.add(name)


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
    names = sorted(p.name for p in recipes.glob("*.yaml") if p.name != QUESTIONS)
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
            node[last] = parse_yaml(text)
        except yaml.YAMLError as error:
            reason = " ".join(str(error).split())
            raise ConfigError(f"override {override!r}: the value is not plain YAML ({reason})") from None
    return result


def _copy(value: Any) -> Any:
    return {key: _copy(child) for key, child in value.items()} if isinstance(value, dict) else value
