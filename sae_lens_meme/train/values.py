"""Whether a value from YAML has the type that a config dataclass declares for its field."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal

from sae_lens_meme.errors import ConfigError


def field_types(config_class: type) -> dict[str, Any]:
    """The declared type of each field of a dataclass."""
    hints = typing.get_type_hints(config_class)
    return {field.name: hints[field.name] for field in fields(config_class)}  # type: ignore[arg-type]


def check_value(where: str, value: Any, expected: Any) -> None:
    """Refuse a value of another type.

    Raises:
        ConfigError: with the value and the type, and how YAML wants a number like 1e-3 written.
    """
    if _fits(value, expected):
        return
    hint = ""
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", value):
        hint = f" (YAML reads {value} as text: write {float(value)!r} or {_yaml_float(value)})"
    raise ConfigError(f"{where} is {value!r}, expected {_describe(expected)}{hint}")


def _fits(value: Any, expected: Any) -> bool:
    origin = typing.get_origin(expected)
    if expected is Any or isinstance(expected, typing.TypeVar):
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in typing.get_args(expected))
    if origin is Literal:
        return value in typing.get_args(expected)
    if expected in (None, type(None)):
        return value is None
    plain = origin or expected
    if plain in (int, float):  # bool is an int to Python, not to the reader of a config
        return not isinstance(value, bool) and isinstance(value, (int, float) if plain is float else int)
    if plain is tuple:  # YAML has lists only
        return isinstance(value, (list, tuple))
    return isinstance(value, plain) if isinstance(plain, type) and _is_yaml(plain) else True


def _is_yaml(kind: type) -> bool:
    return kind in (bool, str, list, dict) or kind is Mapping or issubclass(kind, Mapping)


def _yaml_float(text: str) -> str:
    """1e-3 -> 1.0e-3, which YAML reads as a number."""
    mantissa, exponent = re.split("[eE]", text)
    mantissa = mantissa if "." in mantissa else f"{mantissa}.0"
    return f"{mantissa}e{exponent}" if exponent[0] in "+-" else f"{mantissa}e+{exponent}"


def _describe(expected: Any) -> str:
    if typing.get_origin(expected) is Literal:
        return "one of " + ", ".join(repr(option) for option in typing.get_args(expected))
    return getattr(expected, "__name__", str(expected)) if isinstance(expected, type) else str(expected)
