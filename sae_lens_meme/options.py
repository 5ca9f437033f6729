"""Options: declared once as a class, read strictly from Python, YAML and the command line.

A docstring under a field is its help. An unknown key is refused with the nearest known one, a wrong value with what
is allowed; both as one `ConfigError`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import Self

from sae_lens_meme.errors import ConfigError

Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
"""A number of draws, resamples or SAEs, or a seed."""
Positive = Annotated[int, Field(ge=1, le=2**31 - 1)]
Share = Annotated[float, Field(gt=0, lt=1)]
File = Annotated[Path, Field(strict=False)]
"""A path; text is one too."""

_STRICT = ConfigDict(strict=True, arbitrary_types_allowed=True, allow_inf_nan=False)


class Flag(NamedTuple):
    """In a field's annotation: its name on the command line, where it differs from the field's."""

    name: str


class Options(BaseModel):
    """Base of every set of options: frozen, closed, strictly typed.

    Raises:
        ConfigError: an unknown key or a value of the wrong type or range.
    """

    model_config = ConfigDict(
        _STRICT, frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=()
    )
    section: ClassVar[str] = "options"
    """What a message calls these options: the section of a recipe, or the evaluator."""

    def __init__(self, **given: Any):
        check_keys(self.section, given, type(self).model_fields)
        try:
            super().__init__(**given)
        except ValidationError as error:
            raise ConfigError(_message(self.section, error, depth=1)) from None

    @classmethod
    def of(cls, options: Self | None, given: Mapping[str, Any]) -> Self:
        """The options of a function that takes them as one object or by keyword.

        Raises:
            ConfigError: both are given, or as for the class.
        """
        if options is not None and given:
            raise ConfigError(
                f"{cls.section}: {', '.join(given)}: give the options as one object or by keyword, not both"
            )
        return options or cls(**given)

    @classmethod
    def from_mapping(cls, given: Any) -> Self:
        """From a section of a recipe.

        Raises:
            ConfigError: it is not a mapping, or as for the class.
        """
        if not isinstance(given, Mapping):
            raise ConfigError(f"{cls.section}: is {type(given).__name__}, not a mapping of options")
        check_keys(cls.section, given, cls.model_fields)
        return cls(**given)


def check_keys(where: str, given: Iterable[Any], known: Iterable[str]) -> None:
    """Refuse an unknown key and name the nearest known one."""
    known = list(known)
    for key in given:
        if key in known:
            continue
        near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(sorted(known)) or 'none'}"
        hint = f"YAML reads on, yes, off and no as true and false; {hint}" if isinstance(key, bool) else hint
        raise ConfigError(f"{where}: unknown key {key!r}; {hint}")


def check_value(where: str, value: Any, expected: Any) -> None:
    """Refuse a value that is not of a type, such as that of a field of a SAELens config. A list serves as a tuple.

    Raises:
        ConfigError: with the value, what it must be, and how to write a number like 1e-3 in YAML.
    """
    if isinstance(value, list) and "tuple" in str(expected):
        value = tuple(value)
    try:
        TypeAdapter(expected, config=None if _has_config(expected) else _STRICT).validate_python(value)
    except ValidationError as error:
        raise ConfigError(_message(where, error, depth=0)) from None


def _has_config(expected: Any) -> bool:
    return isinstance(expected, type) and (issubclass(expected, BaseModel) or hasattr(expected, "__dataclass_fields__"))


def _message(where: str, error: ValidationError, depth: int) -> str:
    """The first field that is wrong (`depth` 1: of several); every alternative of its type is named."""
    errors = error.errors(include_url=False)
    field = errors[0]["loc"][:depth]
    same = [e for e in errors if e["loc"][:depth] == field]
    name = ".".join([where, *map(str, errors[0]["loc"] if len(same) == 1 else field)])
    return f"{name} is missing" if errors[0]["type"] == "missing" else wrong_value(name, same)


def wrong_value(name: str, errors: Sequence[Any]) -> str:
    """What a value is and what it must be, of pydantic's errors on it: one, or one an alternative of its type."""
    value = errors[0]["input"]
    wanted = " or ".join(dict.fromkeys(_wanted(e["msg"]) for e in errors))
    wanted = re.sub(r"an integer or (?=a (finite )?number)", "", wanted)
    hint = _yaml_hint(value) if re.search("number|integer|above|or more", wanted) else ""
    return f"{name} is {value!r}, it must be {wanted}{hint}"


def _wanted(message: str) -> str:
    message = re.sub(r"^Input should be( a valid)? ", lambda m: "a " if m[1] else "", message)
    message = re.sub(r"^Value error, |, (unable to|got) .*", "", message)
    message = re.sub(r"^\w+ should have at least (\d+) items? .*", r"a list of \1 or more", message)
    message = "a path" if "not a valid path" in message else message
    message = re.sub(r"^a (integer|object|array)\b", r"an \1", message)
    message = re.sub(r"greater than or equal to (\S+)", r"\1 or more", message)
    message = re.sub(r"less than or equal to (\S+)", r"\1 or less", message)
    return message.replace("greater than", "above").replace("dictionary", "mapping")


def _yaml_hint(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", value):
        return ""
    mantissa, exponent = re.split("[eE]", value)
    mantissa = mantissa if "." in mantissa else f"{mantissa}.0"
    written = f"{mantissa}e{exponent}" if exponent[0] in "+-" else f"{mantissa}e+{exponent}"
    return f" (YAML reads {value} as text: write {float(value)!r} or {written})"
