"""Foreign text in an export: whatever it is, the importer can store it and a page can show it."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_lens_meme.attributions import GRID
from sae_lens_meme.export.activations import activation_rows, tokens_of
from sae_lens_meme.export.examples import Example
from sae_lens_meme.export.names import ExportNames, source_set
from sae_lens_meme.export.text import LONGEST_TOKEN, clean, line, number, token

NAMES = ExportNames("m", "set", 0, "r", "creator")
ANY = st.text(st.characters(), max_size=80) | st.from_regex(r"(\\u(0000|d800|DC00)|\\|.){0,9}", fullmatch=True)
SURROGATES = st.lists(st.sampled_from(["\ud800", "\udc00", "a", "\\", "u0000", "\0", "\u202e"])).map("".join)


@given(ANY | SURROGATES)
def test_no_text_breaks_the_importer(text: str):
    written = line({"token": token(text), "text": clean(text)})
    row = json.loads(written.decode("utf-8"))
    assert written.count(b"\n") == 1
    assert b"\\u0000" not in written
    assert not re.search(r"\\u(d[89a-f])", written.decode(), re.IGNORECASE)
    assert "\0" not in row["text"]
    assert 0 < len(row["token"]) <= LONGEST_TOKEN


@given(st.text(st.characters(categories=["L", "M", "N", "P", "S", "Zs"], exclude_characters="\\"), max_size=60))
def test_plain_text_of_any_script_stays_as_it_is(text: str):
    assert clean(text) == text
    assert not text or token(text) == text


def test_direction_is_not_reversed():
    assert not {"\u202e", "\u202b", "\u2067", "\u2069"} & {*clean("a\u202eb\u202bc\u2067d\u2069e")}


@pytest.mark.parametrize(("text", "shown"), [("a\0b", "a␀b"), (r"\u0000", "⧵u0000"), ("", ""), ("\ud83d", "�")])
def test_what_cannot_be_stored_is_shown(text: str, shown: str):
    assert clean(text) == shown


SCORES = st.floats(-1e6, 1e6, width=32)


@st.composite
def examples(draw: st.DrawFn) -> Example:
    words = draw(st.lists(st.text(min_size=1, max_size=4), max_size=5))
    patches = draw(st.just([]) | st.lists(SCORES, min_size=GRID**2, max_size=GRID**2))
    pairs = st.tuples(st.integers(0, max(len(words) - 1, 0)), st.integers(0, GRID**2 - 1), SCORES)
    return Example(
        *(3, draw(st.text(min_size=1, max_size=9)), draw(st.sampled_from(["top", "quantile"])), 0, (0.1, 0.2, 0.5)),
        draw(st.floats(1e-30, 1e30)),
        words,
        draw(st.just([]) | st.lists(SCORES, min_size=len(words), max_size=len(words))),
        patches,
        draw(st.lists(pairs, max_size=4)) if words and patches else [],
    )


@given(examples())
def test_every_example_is_a_row_that_a_page_can_show(example: Example):
    (row,) = activation_rows([example], NAMES, lambda _: example.activation, lambda meme: (meme, "sha256:0"))
    json.loads(line(row))
    assert len(row["tokens"]) == len(row["values"])
    assert row["values"][0] == row["maxValue"] == max(row["values"]) > 0
    assert min(row["values"]) == row["minValue"] >= 0
    assert len(row["zIndices"][0]) == len(row["zIndices"][1]) == len(row["zValues"])
    assert all(value > 0 for value in row["zValues"])
    assert all(row["tokens"][place] == "■" for place in row["zIndices"][1])
    assert row["tokens"] == tokens_of(example)


def test_memes_that_are_called_as_sources_of_neuronpedia_are():
    example = Example(0, "top", "top", 0, None, 1.0, [], [], [], [])
    (row,) = activation_rows([example], NAMES, lambda _: 1.0, lambda meme: (meme, "sha256:0"))
    assert row["dataSource"] == "meme top"


@pytest.mark.parametrize(
    ("hook", "d_sae", "name"),
    [
        ("hook_fused", 4096, "meme-fused-topk-4k"),
        ("hook_image_embed", 100, "meme-image-topk-100"),
        ("blocks.3.hook_Z", 8192, "meme-blocks.3.hook-z-topk-8k"),
    ],
)
def test_a_set_is_named_after_hook_architecture_and_size(hook: str, d_sae: int, name: str):
    assert source_set(hook, "topk", d_sae) == name


def test_numbers_have_five_digits():
    assert [number(x) for x in (1 / 3, 1e-12, 12345678)] == [0.33333, 1e-12, 12346000.0]
