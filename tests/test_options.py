"""Options and values from YAML: what is accepted, what is refused and what the message says."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from sae_lens_meme.errors import ConfigError
from sae_lens_meme.options import Options, Positive, check_value


class Sowing(Options):
    """Options of this test."""

    section = "sow"
    rows: Annotated[int | float, Field(gt=0)] = 3
    depth: Positive = 1
    crop: Literal["rye", "oats"] = "rye"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"row": 1}, "sow: unknown key 'row'; did you mean 'rows'?"),
        ({"rows": 0}, "sow.rows is 0, it must be above 0"),
        ({"rows": True}, "sow.rows is True, it must be a number"),
        ({"rows": "1e1"}, "sow.rows is '1e1', it must be a number (YAML reads 1e1 as text: write 10.0 or 1.0e+1)"),
        ({"depth": 0}, "sow.depth is 0, it must be 1 or more"),
        ({"depth": 1.5}, "sow.depth is 1.5, it must be an integer"),
        ({"crop": "1e-3"}, "sow.crop is '1e-3', it must be 'rye' or 'oats'"),
    ],
)
def test_refused_options(given: dict[str, Any], message: str):
    with pytest.raises(ConfigError) as error:
        Sowing(**given)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("key", "said"),
    [(True, "YAML reads on, yes, off and no as true and false; known keys"), (1, "known keys"), (None, "known keys")],
)
def test_a_key_that_is_not_text_is_unknown(key: Any, said: str):
    with pytest.raises(ConfigError, match=f"^sow: unknown key {key!r}; {said}: crop, depth, rows$"):
        Sowing.from_mapping({key: 3})


@pytest.mark.parametrize(
    ("value", "expected"),
    [([5, None], tuple[int | None, ...]), (1, float), (None, int | None), ("bos", int | Literal["bos"]), (3, Any)],
)
def test_values_of_yaml(value: Any, expected: Any):
    check_value("x", value, expected)


@pytest.mark.parametrize(
    ("value", "expected", "message"),
    [
        (True, int, "x is True, it must be an integer"),
        (float("nan"), float, "x is nan, it must be a finite number"),
        (float("inf"), float | None, "x is inf, it must be a finite number"),
        ("mos", int | Literal["bos"], "x is 'mos', it must be an integer or 'bos'"),
        ("1e-3", bool, "x is '1e-3', it must be a boolean"),
        ([1, "b"], list[int], "x.1 is 'b', it must be an integer"),
    ],
)
def test_refused_values(value: Any, expected: Any, message: str):
    with pytest.raises(ConfigError) as error:
        check_value("x", value, expected)
    assert str(error.value) == message
