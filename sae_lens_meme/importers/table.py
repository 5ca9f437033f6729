"""Formats by their names: a module of this folder with a converter, `NAME_loader`, and `recognises`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from sae_lens_meme.errors import ConfigError
from sae_lens_meme.importers.options import FORMATS, STEP
from sae_lens_meme.importers.stock import Loaded


class Format(NamedTuple):
    """A converter in the sense of `SAE.load_from_disk(converter=...)`, and how its files are recognised."""

    load: Callable[..., Loaded]
    recognises: Callable[[Path], bool]

    @property
    def options(self) -> list[str]:
        """What it takes besides a path: its keyword-only arguments."""
        parameters = inspect.signature(self.load).parameters.values()
        return [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]


def find(name: str) -> Format:
    """A format by its name.

    Raises:
        ConfigError: there is none; the message names all.
    """
    if name not in FORMATS:
        raise ConfigError(f"converter is {name!r}, it must be one of {', '.join(sorted(FORMATS))}")
    module = name.replace("-", "_")
    found = import_module(f"sae_lens_meme.importers.{module}")
    return Format(getattr(found, f"{module}_loader"), found.recognises)


def converter_of(path: str | Path) -> str | None:
    """The project that wrote the SAE, recognised by names and first bytes of its files; None for a stock SAE or if unrecognised."""
    return next((name for name in FORMATS if find(name).recognises(Path(path))), None)


def options_for(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, all of which this format takes.

    Raises:
        ConfigError: it does not take one; the message names the formats that do.
    """
    for option in given:
        if option not in find(name).options:
            others = ", ".join(other for other in FORMATS if option in find(other).options)
            raise ConfigError(f"{STEP}: {option} is an option of {others}, not of {name}")
    return given
