"""`evaluation.json` is what its schema says, and the schema refuses what it should."""

from __future__ import annotations

import copy
import json
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest

from sae_lens_meme.evaluators import find, names
from sae_lens_meme.evaluators.content import SCHEMA

TEXT = (files("sae_lens_meme") / "evaluators" / "evaluation.schema.json").read_text(encoding="utf-8")
VALIDATOR = jsonschema.Draft202012Validator(json.loads(TEXT))


def check_evaluation(text: str) -> None:
    """Strict JSON, of the schema; every null has its reason, every number its explanation."""
    content = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    VALIDATOR.validate(content)
    assert content["schema"] == SCHEMA
    for name, result in content["results"].items():
        assert name in names()
        for key, value in result["numbers"].items():
            assert (value is None) == (key in result["reasons"]), f"{name}: {key}"
            assert result["explain"][key], f"{name}: nothing says what {key} is"


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(json.loads(TEXT))


MINIMAL = {
    "schema": SCHEMA,
    "sae": dict.fromkeys(("architecture", "training_architecture", "hook"), "topk")
    | {"d_in": 4, "d_sae": 8, "k": None},
    "embeddings": {"n_samples": 1, "splits": {"test": 1}, "fingerprint": "0"},
    "options": {},
    "skipped": {},
    "results": {
        "probes": {"name": "probes", "numbers": {"a": None}, "reasons": {"a": "why"}, "explain": {"a": "rows"}}
    },
    "table": [],
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("results/probes/numbers/a", "0.5"),
        ("results/probes/reasons/a", ""),
        ("results/probes/extra", 1),
        ("schema", 1),
        ("sae/d_in", 0),
        ("table", {}),
    ],
)
def test_it_refuses(path, value):
    VALIDATOR.validate(MINIMAL)
    wrong = copy.deepcopy(MINIMAL)
    *parents, last = path.split("/")
    node = wrong
    for parent in parents:
        node = node[parent]
    node[last] = value
    assert not VALIDATOR.is_valid(wrong)


def test_the_documentation_lists_every_evaluator_as_it_describes_itself():
    """`python scripts/evaluator_table.py` writes the rows."""
    document = (Path(__file__).parents[1] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    for name in names():
        assert f"| `{name}` | {find(name).question} | {find(name).control} |" in document, name
    assert f"Schema {SCHEMA}" in document
