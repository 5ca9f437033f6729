from __future__ import annotations

import numpy as np
import pytest
from arrays import make_embeddings
from datasets import Array2D, Dataset, Features, Value

from sae_lens_meme.config import read_concepts
from sae_lens_meme.embeddings import Embeddings, Label
from sae_lens_meme.errors import ConfigError
from sae_lens_meme.evaluators.concepts import DEFAULT_CONCEPTS, Concept, concepts_of, default_concepts

SENTIMENT = Label("sentiment", np.array([True, True, True, False]), np.array([-2, 0, 1, 0]))
STANCE = Label("stance", np.array([True, True, False, True]), np.array([1, 2, 0, 0]))
SPECIES = Label("species", np.array([True, True, False]), np.array(["cat", "dog", ""], dtype=object))


@pytest.mark.parametrize(
    ("text", "label", "true"),
    [
        ("sentiment>=1", SENTIMENT, [0, 0, 1, 0]),
        ("sentiment<=-1", SENTIMENT, [1, 0, 0, 0]),
        ("sentiment=0", SENTIMENT, [0, 1, 0, 0]),  # the missing one is stored as 0: it is not true
        ("sentiment!=0", SENTIMENT, [1, 0, 1, 0]),
        ("sentiment < 0", SENTIMENT, [1, 0, 0, 0]),
        ("stance=support", STANCE, [1, 0, 0, 0]),
        ("stance=2", STANCE, [0, 1, 0, 0]),
        ("stance=support|oppose", STANCE, [1, 1, 0, 0]),
        ("stance!=support|oppose", STANCE, [0, 0, 0, 1]),
        ("species=cat", SPECIES, [1, 0, 0]),
        ("species!=cat", SPECIES, [0, 1, 0]),
    ],
)
def test_truth(text, label, true):
    known, got = Concept.parse(text).truth(label)
    np.testing.assert_array_equal(known, label.known)
    np.testing.assert_array_equal(got, np.array(true, bool))


@pytest.mark.parametrize(
    ("op", "values", "message"),
    [
        ("==", ("1",), "op '==' is not one of = != >= <= > <"),
        ("=", (1,), r"values is \(1,\); give a tuple of texts"),
        ("=", 1, "values is 1; give"),
        ("=", "12", "values is '12'; give"),  # one class, not 1 or 2
        ("=", (), r"values is \(\); give"),  # true of no meme
    ],
)
def test_a_concept_that_is_made_by_hand_is_checked(op, values, message):
    with pytest.raises(ConfigError, match=f"concept 'x': {message}"):
        Concept("x", "stance", op, values)


def test_a_concept_may_have_a_name():
    concept = Concept.parse("against it: stance=oppose")
    assert (concept.name, concept.label, concept.values) == ("against it", "stance", ("oppose",))
    assert Concept.parse("ns:stance=1").label == "ns:stance"


@pytest.mark.parametrize(
    ("text", "concepts"),
    [
        ("concepts: [hate=1, stance=support]", ["hate=1", "stance=support"]),
        ("concepts:\n  mocking: humor>=2\n  cat: species=cat\n", ["mocking: humor>=2", "cat: species=cat"]),
    ],
)
def test_concepts_from_yaml(text, concepts, tmp_path):
    (tmp_path / "concepts.yaml").write_text(text)
    assert read_concepts(tmp_path / "concepts.yaml") == concepts


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("concept: [hate=1]", "unknown key 'concept'; did you mean 'concepts'"),
        ("concepts: hate=1", "give a list such as"),
        ("concepts: []", "give a list such as"),
        ("concepts: [1]", "give a list such as"),
    ],
)
def test_what_is_no_file_of_concepts(text, message, tmp_path):
    (tmp_path / "concepts.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_concepts(tmp_path / "concepts.yaml")


def test_the_published_protocol_counts_missing_as_negative_but_for_one_comparison():
    np.testing.assert_array_equal(Concept.parse("sentiment>=1").published_truth(SENTIMENT), [False, False, True, False])
    np.testing.assert_array_equal(Concept.parse("sentiment=0").published_truth(SENTIMENT), [False, True, False, False])
    np.testing.assert_array_equal(Concept.parse("sentiment<=-1").published_truth(SENTIMENT), [True, False, False, True])
    np.testing.assert_array_equal(Concept.parse("species!=cat").published_truth(SPECIES), [False, True, False])


@pytest.mark.parametrize("text", ["hate", "=1", "hate==1", "hate=", "hate~1", "", "hate=>1", "a=b=c"])
def test_what_is_not_a_concept(text):
    with pytest.raises(ConfigError, match="is not LABEL OP VALUE"):
        Concept.parse(text)


@pytest.mark.parametrize(
    ("text", "label", "message"),
    [
        ("stance=against", STANCE, r"has no 'against'; it has 0 \(neutral\), 1 \(support\), 2 \(oppose\)"),
        ("stance=7", STANCE, "has no '7'"),
        ("species=horse", SPECIES, "has no 'horse'; it has cat, dog"),
        ("species>=cat", SPECIES, "holds words, which >= cannot compare"),
        ("stance>=1|2", STANCE, "several values go with = and != only"),
        ("stance>=much", STANCE, "has no 'much'"),
        ("stance=" + "9" * 5000, STANCE, "has no '999"),
        ("species=nan", SPECIES, "has no 'nan'; it has cat, dog"),
        ("species=NA", SPECIES, "has no 'NA'; it has cat, dog"),
        ("stance=NA", STANCE, "has no 'NA'"),
    ],
)
def test_a_value_that_is_not_there(text, label, message):
    with pytest.raises(ConfigError, match=message):
        Concept.parse(text).truth(label)


def test_the_thirteen_have_printable_names_that_parse_back():
    assert len(DEFAULT_CONCEPTS) == 13
    assert all(Concept.parse(c.name) == c for c in DEFAULT_CONCEPTS)


X = np.zeros((6, 4), np.float32)


def test_defaults_are_those_whose_label_is_there_then_every_class_of_other_labels():
    embeddings = make_embeddings({"hook_fused": X}, labels={"hate": [0, 1, None, 0, 1, 1], "mood": [0, 1, 2, 0, 1, 2]})
    assert [c.name for c in default_concepts(embeddings)] == ["hate=1", "hate=0", "mood=0", "mood=1", "mood=2"]


def table(**labels: list[str | None]) -> Embeddings:
    features = {
        "id": Value("string"),
        **{name: Value("string") for name in labels},
        "hook_fused": Array2D((1, 4), "float32"),
    }
    columns = {"id": list("abcdef"), **labels, "hook_fused": X[:, None]}
    return Embeddings.from_dataset(Dataset.from_dict(columns, features=Features(features)))


def test_other_tables_have_one_concept_a_class():
    embeddings = table(species=["cat", "dog", None, "cat", "cat", "dog"], constant=["a"] * 6)
    assert [c.name for c in default_concepts(embeddings)] == ["species=cat", "species=dog"]


def test_a_foreign_label_of_the_same_name_is_used_as_it_is():
    embeddings = table(hate=["yes", "no", None, "yes", "no", "no"])
    assert [c.name for c in concepts_of(embeddings)] == ["hate=no", "hate=yes"]
    assert concepts_of(embeddings, ["hate=yes"])[0].truth(embeddings.label("hate"))[1].sum() == 2


def test_errors_of_a_set_of_concepts():
    embeddings = table(species=["cat", "dog", None, "cat", "cat", "dog"])
    with pytest.raises(ConfigError, match="there is no label 'breed'; these embeddings have species"):
        concepts_of(embeddings, ["breed=cat"])
    with pytest.raises(ConfigError, match="'species=cat' is given twice"):
        concepts_of(embeddings, ["species=cat", "species = cat"])
    with pytest.raises(ConfigError, match="concepts is empty"):
        concepts_of(embeddings, [])
    with pytest.raises(ConfigError, match="no label has 2 to 10 classes"):
        concepts_of(table(constant=["a"] * 6))


def test_labels_whose_names_and_classes_run_together_are_told_apart():
    """Class `b=c` of label `a`, and class `c` of label `a=b`."""
    concepts = default_concepts(table(**{"a": ["b=c", "x"] * 3, "a=b": ["c", "y"] * 3}))
    assert [c.name for c in concepts] == ["'a'='b=c'", "a=x", "'a=b'='c'", "a=b=y"]


def test_names_that_are_markup_or_control_characters_are_kept_to_the_letter():
    odd = ["[bold]", "<script>", "n\new", "\u202e", "=", "a|b"]
    embeddings = table(species=odd)
    concepts = default_concepts(embeddings)
    assert {c.values[0] for c in concepts} == set(odd)
    label = embeddings.label("species")
    assert all(c.truth(label)[1].sum() == 1 for c in concepts)


def test_a_missing_value_is_no_class():
    embeddings = table(species=["cat", None, "dog", None, "cat", "dog"])
    assert [c.name for c in default_concepts(embeddings)] == ["species=cat", "species=dog"]
    known, true = Concept.parse("species!=cat").truth(embeddings.label("species"))
    assert (known.sum(), true.sum()) == (4, 2)
