"""The column map: which column of the user's table holds what, as a dict or a small YAML file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sae_lens_meme.config import read_yaml
from sae_lens_meme.corpus.tables import Table
from sae_lens_meme.errors import BadTableError, ConfigError
from sae_lens_meme.labels import (
    FIELDS,
    LABELS,
    LEVELS,
    class_values,
    fits_64_bits,
    is_label_column,
    misspelled,
    respelled,
)
from sae_lens_meme.options import check_keys

Columns = Mapping[str, Any] | str | Path | None

ONLY_IF_NAMED = ("source", "group")
"""In tables of memes `source` tends to be the address that a picture came from, and `group` the people it is about."""


@dataclass(frozen=True)
class LabelColumn:
    """Where a label is: its column, and what each spelling stands for (default: the label's levels)."""

    column: str
    values: Mapping[str, int] | None = None


@dataclass(frozen=True)
class ColumnMap:
    """Which column holds what; None where the table does not have it."""

    image: str
    id: str | None = None
    text: tuple[str, ...] = ()  # the first that is not missing
    split: str | None = None
    source: str | None = None
    group: str | None = None  # memes with one value belong together
    labels: Mapping[str, LabelColumn] = field(default_factory=dict)
    pictures: str | None = None  # the folder of the pictures
    unread: tuple[str, ...] = ()  # columns of the table that are not used, although nobody said so

    def used(self) -> list[str]:
        return [self.image, *self.read()]

    def read(self) -> list[str]:
        """All columns but that of the picture."""
        fields = [self.id, *self.text, self.split, self.source, self.group]
        return [name for name in fields if name is not None] + [label.column for label in self.labels.values()]


def column_map(columns: Columns, table: Table) -> ColumnMap:
    """Turn the user's map into a `ColumnMap`; columns that have our names are used unless the map says otherwise.

    Args:
        columns: `{id: ..., image: ..., text: ..., split: ..., source: ..., group: ..., labels: {hate: column}}`, or the path of
            a YAML file that holds it; a label may also be `{column: ..., values: {spelling: integer}}`, and
            `pictures` names the folder of the pictures, from the table's own.
            None (YAML `null`) leaves a column of our name unused; `source` and `group` (memes
            with one value belong together) are used only where the map names them.

    Raises:
        ConfigError: an unknown key (names the nearest one) or a wrong value.
        BadTableError: the table lacks a column that the map names, or has one that is called as we would but for upper case
            or spaces, of which the map says nothing (of a label: where the map names no labels at all).
    """
    given = _load(columns)
    _check(given)
    fields = _own_fields(table) | {name: given[name] for name in FIELDS if name in given}
    labels = {name: name for name in LABELS if name in table.columns} | (given.get("labels") or {})
    if fields.get("image") is None:
        found = ", ".join(map(repr, table.columns))
        raise BadTableError(
            f"{table.path.name}: no column is named 'image' or 'file_name'; map one with image: ..., the table has {found}"
        )
    ours = FIELDS if given.get("labels") else (*FIELDS, *LABELS)  # who names labels wants no others
    free = {*ours} - {*fields, *labels, *ONLY_IF_NAMED}
    text = fields.pop("text", None)
    result = ColumnMap(
        labels={name: _label(name, value, table) for name, value in labels.items() if value is not None},
        text=() if text is None else (text,),
        pictures=given.get("pictures"),
        **{name: column for name, column in fields.items() if column is not None},
    )
    table.require(result.used())
    for name in result.read():
        if name in table.pictures:
            raise BadTableError(
                f"{table.path.name}: column {name!r} holds pictures, not text; write text, or map it with image: {name}"
            )
    rest = [name for name in table.columns if name not in result.used()]
    _refuse_misspelled(table, misspelled(rest, free))
    plain = [name for name in rest if (name in FIELDS or is_label_column(name)) and not name.startswith("__")]
    return replace(result, unread=tuple(name for name in plain if name not in {*given, *labels}))


def _refuse_misspelled(table: Table, names: Mapping[str, str]) -> None:
    if names:
        labels = ", ".join(f"{name}: {json.dumps(column)}" for column, name in names.items() if name in LABELS)
        fields = [f"{name}: {json.dumps(column)}" for column, name in names.items() if name in FIELDS]
        mapped = ", ".join([*fields, *([f"labels: {{{labels}}}"] if labels else [])])
        raise BadTableError(
            f"{table.path.name}: the header has {respelled(names)}; rename it, or say in the column map {mapped} (null: not read)"
        )


def _own_fields(table: Table) -> dict[str, Any]:
    fields: dict[str, Any] = {name: name for name in FIELDS if name in table.columns and name not in ONLY_IF_NAMED}
    if "image" not in fields and "file_name" in table.columns:  # the ImageFolder convention
        fields["image"] = "file_name"
    if "image" not in fields and len(table.pictures) == 1:
        fields["image"] = next(iter(table.pictures))
    return fields


def _load(columns: Columns) -> Mapping[str, Any]:
    loaded = {} if columns is None else columns if isinstance(columns, Mapping) else read_yaml(columns)
    if set(loaded) == {"columns"} and isinstance(loaded["columns"], Mapping):
        loaded = loaded["columns"]
    return loaded


def _check(given: Mapping[str, Any]) -> None:
    for key in given:
        if key in LABELS:
            raise ConfigError(f"columns: {key} is a label; write it below labels:")
    check_keys("columns", given, (*FIELDS, "pictures", "labels"))
    for key, value in given.items():
        if key != "labels" and not (value is None or isinstance(value, str)):
            what = "a folder" if key == "pictures" else "one column"
            raise ConfigError(f"columns: {key} is {value!r}; give the name of {what}")
    if not isinstance(given.get("labels") or {}, Mapping):
        raise ConfigError(f"columns: labels is {given['labels']!r}; give a map such as hate: is_hateful")


def _label(name: Any, value: Any, table: Table) -> LabelColumn:
    if not isinstance(name, str) or not name.isidentifier() or not is_label_column(name):
        raise ConfigError(f"columns: {name!r} cannot be the name of a label; choose another, such as 'topic'")
    if isinstance(value, str):
        return LabelColumn(value, _class_values(name, value, table))
    if not isinstance(value, Mapping) or not isinstance(value.get("column"), str) or set(value) - {"column", "values"}:
        raise ConfigError(f"columns: label {name} is {value!r}; give a column, or {{column: ..., values: {{yes: 1}}}}")
    values = value.get("values")
    if values is None:
        return LabelColumn(value["column"], _class_values(name, value["column"], table))
    if not isinstance(values, Mapping) or not all(type(number) is int for number in values.values()):
        raise ConfigError(f"columns: values of label {name} are {values!r}; map each spelling to an integer")
    if (large := next((number for number in values.values() if not fits_64_bits(number)), None)) is not None:
        raise ConfigError(f"columns: label {name}: {large} does not fit 64 bits; choose a smaller number")
    if any(isinstance(spelling, bool) for spelling in values):
        raise ConfigError(
            f"columns: label {name}: YAML reads an unquoted yes, no, true or false as a truth value; quote it"
        )
    return LabelColumn(value["column"], {str(spelling): number for spelling, number in values.items()})


def _class_values(label: str, column: str, table: Table) -> Mapping[str, int] | None:
    """What the names of a column of classes stand for; None for any other column."""
    names = table.classes.get(column)
    if names is None:
        return None
    values = {name: value for name, value in zip(names, class_values(label, names), strict=True) if value is not None}
    if (
        no := next((name for name, value in values.items() if value not in LEVELS.get(label, {value})), None)
    ) is not None:
        raise BadTableError(
            f"{table.path.name}: the class {no!r} of column {column!r} is code {values[no]}, which is no level of {label};"
            f" say in the column map labels: {{{label}: {{column: {column}, values: {{{no}: ...}}}}}}, or name the label otherwise"
        )
    return values
