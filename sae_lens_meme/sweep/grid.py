"""The settings of a grid: every combination of the values that were given."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import yaml

from sae_lens_meme.config import parse_yaml
from sae_lens_meme.errors import ConfigError

EXAMPLE = "e.g. --grid sae.k=16,32,64"


@dataclass(frozen=True)
class Setting:
    """One combination."""

    values: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Short, as people write it: `k=16 d_sae=512`."""
        return " ".join(f"{key.rpartition('.')[2]}={_text(value)}" for key, value in self.values.items())

    @property
    def folder(self) -> str:
        return re.sub(r"[^\w.=,-]+", "_", ",".join(f"{key}={_text(value)}" for key, value in self.values.items()))

    @property
    def overrides(self) -> list[str]:
        return [f"{key}={json.dumps(value)}" for key, value in self.values.items()]


def settings_of(grid: Sequence[str]) -> list[Setting]:
    """All combinations, in the order in which they were written.

    Raises:
        ConfigError: a part is not KEY=VALUE,VALUE, a key or a value occurs twice, or two folders would have one name.
    """
    axes: dict[str, list[Any]] = {}
    for part in grid:
        key, values = _axis(part)
        if key in axes:
            raise ConfigError(f"grid: {key} is given twice; write all its values in one, {EXAMPLE}")
        axes[key] = values
    found = [Setting(dict(zip(axes, values, strict=True))) for values in product(*axes.values())]
    folders = [setting.folder for setting in found]
    if len(set(folders)) < len(folders):
        raise ConfigError(f"grid: a value of {', '.join(axes)} is given twice; every setting is trained once")
    return found


def _axis(part: str) -> tuple[str, list[Any]]:
    key, equals, text = part.partition("=")
    if not equals or not key:
        raise ConfigError(f"grid: {part!r} is not KEY=VALUE,VALUE; {EXAMPLE}")
    if key == "seed":
        raise ConfigError("grid: seeds are not part of the grid; give their number with --seeds")
    try:
        values = parse_yaml(f"[{text}]")
    except yaml.YAMLError as error:
        raise ConfigError(f"grid: {part!r}: the values are not plain YAML ({' '.join(str(error).split())})") from None
    if not values or not isinstance(values, list):
        raise ConfigError(f"grid: {part!r} has no values; {EXAMPLE}")
    try:
        json.dumps(values, allow_nan=False)
    except (TypeError, ValueError):
        raise ConfigError(f"grid: {part!r}: a value is neither a number, a word nor a list of these") from None
    return key, values


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
