"""Options as flags of a command: names, types, defaults and help come from the class that declares them.

Also what else a command may be looked for as: `Commands` suggests it.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from sae_lens_meme.options import Flag, Options

Out = Annotated[Path, typer.Option("--out", help="Folder for the result.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a different result that is already there.")]
SAEFolder = Annotated[Path, typer.Option("--sae", help="An SAE folder, of this package or of SAELens.")]
EmbeddingsFolder = Annotated[Path, typer.Option("--embeddings", help="The result of 'embed'.")]
Hook = Annotated[str | None, typer.Option(help="The hook to read, if the SAE's metadata names none.")]


class Commands(TyperGroup):
    """Suggests one command for an unknown one: what it is also called, else the nearest name."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0]
        if name not in self.commands and not name.startswith("-"):
            found = self._nearest(name)
            ctx.fail(f"No such command {name!r}." + (f" Did you mean {found!r}?" if found else ""))
        return super().resolve_command(ctx, args)

    def _nearest(self, name: str) -> str | None:
        of = {also: known for known, command in self.commands.items() for also in _also(command.callback)}
        of |= {known: known for known in self.commands}
        near = difflib.get_close_matches(name.lower(), of, n=1)
        return of[near[0]] if near else None


def also_called(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorates a command: words by which a user may look for it. They are suggestions, not names."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        command.also_called = names  # type: ignore[attr-defined]  # typer's wrappers keep it
        return command

    return decorate


def _also(command: Callable[..., Any] | None) -> tuple[str, ...]:
    return getattr(command, "also_called", ())


def flags_of(*classes: type[Options]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorates a command that takes `**given`: each field of the classes becomes a flag of it.

    Fields that are mappings are left out: on the command line these are `key.option=value` arguments.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(command, eval_str=True)
        own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        added = [_parameter(name, field) for cls in classes for name, field in _fields(cls) if _is_flag(field)]
        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in [*own, *added]]

        @functools.wraps(command)
        def flagged(**values: Any) -> Any:
            return command(**values)

        flagged.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        flagged.__annotations__ = {p.name: p.annotation for p in parameters}
        return flagged

    return decorate


def _fields(cls: type[Options]) -> list[tuple[str, Any]]:
    """Those that the class itself declares, then those of its parent, and so on."""
    declared = [inspect.get_annotations(base) for base in cls.__mro__]
    depth = {name: next(i for i, names in enumerate(declared) if name in names) for name in cls.model_fields}
    return sorted(cls.model_fields.items(), key=lambda item: depth[item[0]])


def given_to(cls: type[Options], values: dict[str, Any]) -> dict[str, Any]:
    """Of the values of a command those that belong to the class and were given; an empty list was not."""
    kept = {name: value for name, value in values.items() if name in cls.model_fields}
    return {name: value for name, value in kept.items() if value not in (None, [])}


def _is_flag(field: Any) -> bool:
    return not _is_mapping(_plain(field.annotation))


def _is_mapping(kind: Any) -> bool:
    return kind is dict or typing.get_origin(kind) is dict


def _parameter(name: str, field: Any) -> inspect.Parameter:
    flag = next((m.name for m in field.metadata if isinstance(m, Flag)), None)
    kind, default = _plain(field.annotation), field.default
    if kind is bool and default is False:  # what is off by default has no --no-...
        flag = flag or f"--{name.replace('_', '-')}"
    option = typer.Option(*([flag] if flag else []), help=field.description)
    if field.is_required():  # the class says that it is missing, where the other flags ask for it
        kind, default = kind | None, None
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option])


def _plain(annotation: Any) -> Any:
    """Without the constraints: the class checks them, with its own message."""
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return _plain(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        kinds = [_plain(kind) for kind in typing.get_args(annotation)]
        return typing.Union[tuple(kind for kind in kinds if not _is_mapping(kind))]  # noqa: UP007
    return list[_plain(*typing.get_args(annotation))] if origin is list else annotation
