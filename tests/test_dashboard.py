"""The report without a browser: which numbers and sentences it holds, and that it can be without any of its inputs."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from arrays import make_embeddings
from datasets import Dataset, load_from_disk
from PIL import Image
from report_inputs import pictures_of, small_inputs
from seen_memes import write_memes

from sae_lens_meme.attribute import attribute
from sae_lens_meme.corpus import load_rows
from sae_lens_meme.dashboard import DashboardOptions, ReportInputs, write_dashboard, write_report
from sae_lens_meme.dashboard.concepts import choice, concept_pages, found, glance, used_for
from sae_lens_meme.dashboard.doubts import missing
from sae_lens_meme.dashboard.latents import LatentPages
from sae_lens_meme.dashboard.numbers import short, signed_bytes, to_script
from sae_lens_meme.dashboard.page import application, policy
from sae_lens_meme.dashboard.sentences import about, again, alike, drives, frequency, used
from sae_lens_meme.dashboard.step import data_uris
from sae_lens_meme.dashboard.verdicts import of_concept, of_name, uses
from sae_lens_meme.dashboard.words import Words, listed, several
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, StorageError
from sae_lens_meme.evaluators.run import evaluate
from sae_lens_meme.read import MemeReader
from sae_lens_meme.storage import read_json

QUICK = DashboardOptions(map="tsne")
WORDS = Words(make_embeddings({"hook_fused": np.eye(2, dtype=np.float32)}, labels={"hate": [0, 1], "humor": [0, 2]}))


class Everything(dict):
    """Every row of the embeddings is on the page."""

    def __missing__(self, row: int) -> int:
        return row


CHANGE = {
    "task": "hate",
    "class": "1",
    "kind": "ablation",
    "n": 100,
    "delta_all": -0.2,
    "delta_all_low": -0.25,
    "delta_all_high": -0.15,
    "delta_random": 0.01,
    "largest_random": 0.02,
    "delta_matched": 0.03,
}


def parts_of(page: Path) -> dict[str, Any]:
    """What the application reads, by its id."""
    found = re.findall(
        r'<script type="application/json" id="([\w-]+)">(.*?)</script>', page.read_text(encoding="utf-8")
    )
    return {name: json.loads(text) for name, text in found}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of every step on a small planted corpus."""
    base = write_memes(tmp_path_factory.mktemp("run"))
    evaluate(base / "sae", base / "embeddings", out=base / "evaluation", only=["naming"], bootstrap=0, progress=False)
    few = {"top": 3, "per_interval": 1, "pairs": 1, "latents": [0, 1, 2], "device": "cpu", "progress": False}
    attribute(base / "sae", base / "embeddings", base / "corpus", out=base / "attribution", **few)
    return base


def report_of(base: Path, out: Path, **given: Any) -> Path:
    folders = (base / "evaluation", base / "sae", base / "embeddings", base / "corpus", base / "attribution")
    return write_dashboard(*folders, out=out, progress=False, **{"map": "tsne", **given})


@pytest.mark.whole
def test_memes_of_attribute_are_shown_and_the_other_latents_have_some_too(folders: Path, tmp_path: Path):
    parts = parts_of(report_of(folders, tmp_path))
    dataset = load_from_disk(str(folders / "attribution"))
    assert isinstance(dataset, Dataset)
    rows = pd.DataFrame(dataset.to_list())
    pages, ids = parts["part-latents-0"], parts["part-search"]["id"]
    for latent in (0, 1, 2):
        shown = [ids[place] for place in pages[latent]["memes"]["at"]]
        mine = rows[rows["latent"] == latent]
        assert sorted(shown) == sorted(mine["id"])
        assert pages[latent]["memes"]["kind"][:3] == ["top"] * min(3, len(mine))
        words = dict(zip(shown, pages[latent]["memes"]["words"], strict=True))
        assert all(words[row.id] == list(row.words) for row in mine.itertuples())
    others = [page["memes"] for page in pages[3:] if page["memes"]["at"]]
    assert others
    assert not any("words" in memes for memes in others)


@pytest.mark.whole
def test_a_memes_page_says_what_read_says(folders: Path, tmp_path: Path):
    parts = parts_of(report_of(folders, tmp_path, readings=12))
    ids = parts["part-search"]["id"]
    pages = [page for i in range(-(-len(ids) // 64)) for page in parts[f"part-memes-{i}"]]
    read = [place for place, page in enumerate(pages) if page["reading"] is not None]
    assert len(read) == parts["core"]["n_read"] == 12
    reader = MemeReader(folders / "sae", folders / "embeddings", folders / "evaluation", device="cpu")
    corpus = load_rows(folders / "corpus")
    row = {name: i for i, name in enumerate(corpus["id"])}[ids[read[0]]]
    picture = io.BytesIO()
    corpus[row]["image"].save(picture, "PNG")
    said, page = reader.read(picture.getvalue(), corpus[row]["text"]), pages[read[0]]["reading"]
    shown = [(latent["latent"], latent["decided_by"], latent["evidence"]) for latent in page["latents"]]
    assert shown == [(found.latent, found.sides.decided_by, found.name.evidence) for found in said.latents]
    assert {side for _, side, _ in shown} <= {"picture", "caption", "both", "either"}
    assert len(page["decisions"]) == len(said.decisions) > 0
    for mine, theirs in zip(page["decisions"], said.decisions, strict=True):
        assert mine["label"] == theirs.label
        assert mine["decided"] == Words(reader.embeddings).level(theirs.label, theirs.decided)
        assert mine["carriers"] == [[carrier.latent, short(carrier.contribution)] for carrier in theirs.carriers]
        numbers = (mine["probability"], mine["without"], *mine["random"])
        assert numbers == pytest.approx((theirs.probability, theirs.without, *theirs.without_random), abs=1e-3)


@pytest.mark.slow
def test_what_is_done_is_not_done_again_and_a_killed_run_ends_the_same(folders: Path, tmp_path: Path, monkeypatch: Any):
    from sae_lens_meme.dashboard import step

    whole = report_of(folders, tmp_path / "whole", single_file_mb=0)
    made = {path.name: path.read_bytes() for path in (tmp_path / "whole").rglob("*") if path.is_file()}
    when = whole.stat().st_mtime_ns
    assert report_of(folders, tmp_path / "whole", single_file_mb=0).stat().st_mtime_ns == when
    with monkeypatch.context() as patched:
        patched.setattr(step, "data_uris", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            report_of(folders, tmp_path / "killed", single_file_mb=0)
    report_of(folders, tmp_path / "killed", single_file_mb=0)
    assert made == {path.name: path.read_bytes() for path in (tmp_path / "killed").rglob("*") if path.is_file()}


def test_folders_that_do_not_belong_together_are_refused(folders: Path, tmp_path: Path):
    with pytest.raises(StorageError, match="was not made from the SAE"):
        write_dashboard(folders / "evaluation", folders / "sae_text", folders / "embeddings", out=tmp_path / "a")
    with pytest.raises(StorageError, match="holds the result of 'embed', not of 'evaluate'"):
        write_dashboard(folders / "embeddings", folders / "sae", folders / "embeddings", out=tmp_path / "b")
    with pytest.raises(ConfigError, match="did you mean 'pixels'"):
        report_of(folders, tmp_path / "c", pixel=3)
    given = (folders / "evaluation", folders / "sae", folders / "embeddings")
    shutil.copytree(folders / "attribution", tmp_path / "attribution")
    manifest = read_json(path := tmp_path / "attribution" / "manifest.json")
    path.write_text(json.dumps(manifest | {"fingerprint": manifest["fingerprint"] | {"embeddings": "others"}}))
    with pytest.raises(StorageError, match=r"attribution: was not made from the embeddings of .*; run attribute again"):
        write_dashboard(*given, attribution=tmp_path / "attribution", out=tmp_path / "d")


WITHOUT = {
    "pictures": ({"corpus": None}, "Pictures are not shown"),
    "attribution": ({"attribution": None}, "Words and regions are not marked"),
}


@pytest.mark.parametrize("what", WITHOUT)
def test_what_was_not_given_is_said_in_one_sentence(tmp_path: Path, what: str):
    changed, sentence = WITHOUT[what]
    page = write_report(replace(small_inputs(), **changed), QUICK, out=tmp_path, progress=False)
    assert sentence in page.read_text(encoding="utf-8")
    assert parts_of(page)["core"]["missing"][what].startswith(sentence)


def test_memes_without_captions_labels_and_tables(tmp_path: Path):
    inputs = small_inputs()
    bare = Embeddings.from_dataset(inputs.memes.dataset.remove_columns(["text", "hate", "humor", "always"]))
    evaluation = inputs.evaluation | {"skipped": {"naming": "no captions and no labels"}}
    page = write_report(
        ReportInputs(evaluation, {}, inputs.latents, bare, inputs.decoder), QUICK, out=tmp_path, progress=False
    )
    core = parts_of(page)["core"]
    assert core["missing"]["naming"] == (
        "The report cannot say what latents are called, because no captions and no labels; "
        "to change that, give the memes captions or labels and evaluate again."
    )
    assert {"pictures", "captions", "labels", "attribution", "influence", "concept_alignment"} <= core["missing"].keys()
    assert core["latents"]["name"] == [None] * 24
    answers = parts_of(page)["part-latents-0"][0]["answers"]
    assert [tone for _, _, tone in answers] == ["unknown", "fact", "unknown", "unknown", "unknown", "unknown"]


def test_what_the_evaluation_left_out_needs_no_other_memes():
    inputs = small_inputs()
    tables = {name: table for name, table in inputs.tables.items() if name != "influence"}
    assert missing(replace(inputs, tables=tables))["influence"].endswith(
        "to change that, evaluate it (--only influence)."
    )


def test_it_says_which_memes_chose_a_latent():
    inputs = small_inputs()
    table = inputs.tables["concept_alignment"]
    name = str(table["concept"].iloc[0])
    mine = table["concept"] == name

    def told(table: pd.DataFrame) -> tuple[str, str]:
        pages = concept_pages(LatentPages(replace(inputs, tables=inputs.tables | {"concept_alignment": table}), QUICK))
        return choice(pages), next(page["sentence"] for page in pages if page["name"] == name)

    usual = (
        "Each latent was chosen on validation memes; all numbers are of test memes, which had no part in the choice."
    )
    assert told(table)[0] == usual
    on_train = told(table.assign(threshold_split=table["threshold_split"].mask(mine, "train")))
    assert on_train[0].startswith("Each latent was chosen on train and validation memes;")
    assert "it was chosen by its F1 on the train memes." in on_train[1]
    by_q = told(table.assign(f1_validation=table["f1_validation"].mask(mine)))
    assert by_q[0] == f"{usual} Not so for 1 concept: there it was chosen by q over memes with the test memes among them, which flatters its numbers."  # fmt: skip
    assert "it was chosen by q, as there are only test memes, which flatters it." in by_q[1]
    assert told(table.assign(f1_validation=np.nan))[0].startswith("Each latent was chosen by q")


def test_the_published_protocol_alone_measures_no_held_out_memes():
    inputs = small_inputs()
    table = inputs.tables["concept_alignment"].assign(protocol="published")
    inputs = replace(inputs, tables=inputs.tables | {"concept_alignment": table})
    assert concept_pages(LatentPages(inputs, QUICK)) == []
    assert "concept_alignment.protocol=both" in missing(inputs)["concept_alignment"]


def test_of_dead_latents_none_is_most_about_a_concept():
    """Not: there are too few test memes to say."""
    inputs = small_inputs()
    measured = ["f1_validation", "f1_test", "auroc", "auroc_low", "auroc_high", "q_global"]
    table = inputs.tables["concept_alignment"].assign(**dict.fromkeys(measured, np.nan))
    latents = replace(inputs.latents, values=np.zeros_like(inputs.latents.values))
    pages = LatentPages(replace(inputs, latents=latents, tables={"concept_alignment": table}), QUICK)
    lines = glance(pages, concept_pages(pages))
    assert lines == found(lines, pages) == []


def test_an_influence_without_random_steps_is_shown():
    inputs = small_inputs()
    table = inputs.tables["influence"].drop(columns=["delta_random", "delta_orthogonal"])
    effects = LatentPages(replace(inputs, tables=inputs.tables | {"influence": table}), QUICK).effects
    assert effects is not None
    rows = [row for latent in range(inputs.latents.d_sae) for row in effects.rows(latent)]
    assert rows
    assert not any(use.beats for use in uses(rows)), "a change without its control"


def test_the_latent_of_a_concept_is_chosen_on_validation_memes_alone():
    inputs = small_inputs()
    order = [page["latents"] for page in concept_pages(LatentPages(inputs, QUICK))]
    table = inputs.tables["concept_alignment"].copy()
    measured = ["f1_test", "auroc", "auroc_low", "auroc_high", "f1_always_on"]
    table[measured] = np.random.default_rng(0).random((len(table), len(measured)))
    changed = replace(inputs, tables=inputs.tables | {"concept_alignment": table})
    assert [page["latents"] for page in concept_pages(LatentPages(changed, QUICK))] == order
    chosen = table[table["protocol"] == "corrected"].groupby("concept", observed=True)["f1_validation"].max()
    first = [page["rows"][0] for page in concept_pages(LatentPages(inputs, QUICK))]
    assert sorted(short(f1) for f1 in chosen) == sorted(row[10] for row in first)


def test_the_glance_has_a_line_a_concept_with_its_controls():
    latents = LatentPages(small_inputs(), QUICK)
    pages = concept_pages(latents)
    lines = glance(latents, pages)
    assert [line["key"] for line in lines] == latents.concept_names
    assert [line["concept"] for line in lines] == [latents.words(name) for name in latents.concept_names]
    for line, page in zip(lines, pages, strict=True):
        best = dict(zip(("f1_test", "f1_always_on"), page["rows"][0][8:10], strict=True))
        assert line["beats"] == (best["f1_test"] > best["f1_always_on"])
        assert line["found"] == (float(line["auroc"].split("(")[1].split(" ")[0]) > 0.5)
        assert line["sure"] == ("none found" if not line["found"] else "clearly" if line["beats"] else "weakly")


@pytest.mark.parametrize(
    ("changed", "tone"),
    [
        ({}, "good"),
        ({"largest_random": 0.16}, "poor"),  # the interval's nearer end is 0.15
        ({"delta_matched": 0.16}, "poor"),
        ({"delta_all_low": -0.25, "delta_all_high": 0.01}, "poor"),
        ({"delta_all_low": None, "delta_all_high": None}, "poor"),
        ({"delta_all": None}, "unknown"),
        ({"kind": "steering"}, "unknown"),
    ],
)
def test_a_latent_is_used_where_every_control_is_beaten(changed: dict[str, Any], tone: str):
    assert used([CHANGE | changed], WORDS).tone == tone


def test_the_first_page_and_a_latents_page_name_the_label_and_agree():
    """One definition of use: what the page of a latent says of a label is what the first page says of its concept."""
    other, unused = CHANGE | {"task": "humor", "class": "2"}, CHANGE | {"delta_matched": 0.2}
    assert used_for("hate=1", [CHANGE], WORDS) == "hate: yes (hate=yes −0.200, controls 0.030)"
    assert used_for("hate=1", [CHANGE, other], WORDS).endswith("; also used by humor")
    assert used([CHANGE, other], WORDS).text.startswith("Those of hate and humor. ")
    assert used_for("hate=1", [unused, other], WORDS).startswith(
        "hate: no (hate=yes −0.200, controls 0.200); used by humor"
    )
    assert used([unused, other], WORDS).text.startswith("That of humor, not hate. ")
    assert used([unused], WORDS).text.startswith("None of 1 label: it is not shown to move more than the controls. ")
    assert used_for("stance=0", [CHANGE], WORDS) == "stance: not measured; used by hate"


def test_the_chart_of_edits_has_the_same_definition_of_use():
    latents = LatentPages(small_inputs(), QUICK)
    assert latents.effects is not None
    for latent in range(latents.d_sae):
        effects = latents.effects.rows(latent)
        drawn = [row[-1] for row in latents.page(latent, Everything())["effects"]]
        kinds = [row["kind"] for row in effects]
        ablated = [beats for beats, kind in zip(drawn, kinds, strict=True) if kind == "ablation"]
        assert ablated == [use.beats for use in uses(effects)]


NAMED = {
    "name": "cat",
    "kind": "word",
    "n": 50,
    "auroc": 0.7,
    "auroc_low": 0.6,
    "auroc_high": 0.8,
    "q": 0.0,
    "holds": True,
}


@pytest.mark.parametrize(
    ("naming", "concept", "word", "reason"),
    [
        (NAMED, None, "good name", "says on held-out memes which of them fire"),
        (NAMED | {"holds": False}, None, "unsupported name", "not shown to say better than chance"),
        (NAMED | {"auroc": 0.55}, None, "weak name", "AUROC under 0.6"),
        (NAMED | {"auroc": None, "holds": None}, None, "untested name", "no test"),
        ({"name": None, "reason": "none fits"}, None, "no name", "none fits"),
        (None, None, "no name", "were not named"),
        (NAMED, {"f1_test": 0.8, "f1_always_on": 0.7}, "good name", "held-out memes"),
        (NAMED | {"name": "hate=0"}, {"f1_test": 0.6, "f1_always_on": 0.7}, "weak name", "does not find the memes with hate=no"),
        (NAMED, {"f1_test": None, "f1_always_on": 0.7}, "weak name", "finds those with cat was not measured"),
    ],
)  # fmt: skip
def test_a_name_has_one_verdict_with_its_reason(naming: Any, concept: Any, word: str, reason: str):
    verdict = of_name(naming, concept, WORDS)
    assert verdict.word == word
    assert reason in verdict.reason
    assert about(naming, verdict, WORDS).tone == ("unknown" if naming is None else verdict.tone)


def test_sentences_carry_the_control_and_the_doubt():
    def said(row: dict[str, Any]) -> Any:
        return about(row, of_name(row, None, WORDS), WORDS)

    assert "guessing gives 0.5; q below 1e-300" in said(NAMED).text
    assert "From the name to the latent: AUROC" in said(NAMED).text, "there are two"
    assert said(NAMED | {"holds": False}).tone == "poor"
    assert said(NAMED | {"auroc": None, "holds": None}).tone == "unknown"
    assert said({"name": None, "reason": "none fits"}).text == "Nothing that we could name: none fits."
    assert "dead" in frequency(0, 10, 0.0).text
    assert "dense" in frequency(2, 10, 1.0).text
    assert "dense" not in frequency(1, 10, 1.0).text
    assert drives({"class": None, "reason": "fires on 3 memes"}).text == "Not known: fires on 3 memes."


def test_whether_a_latent_reappears_is_not_said_of_a_dead_one():
    row = {"alive": True, "stable": False, "mean_cosine": 0.3}
    assert again(row).text.startswith(
        "No: the cosine of its decoder with its partner is 0.300 on average over other runs (0 in one without"
    )
    alone = again(row | {"mean_cosine": None})
    assert (alone.tone, "cosine" in alone.text) == ("poor", False)
    assert alone.text.startswith("No: no latent of another SAE is left to be its partner.")
    dead = again({"alive": False, "stable": None, "mean_cosine": None})
    assert dead == again(None)._replace(text="Not measured: it is dead, and only living latents are compared.")
    assert again(None).text == "Not measured: no SAE with another seed was compared."


@pytest.mark.parametrize(
    ("low", "f1", "said"),
    [
        (None, 1.0, ("not measured", "unknown")),
        (0.5, 1.0, ("none found", "poor")),
        (0.6, 0.1, ("weakly", "fact")),
        (0.6, 1.0, ("clearly", "good")),
    ],
)
def test_a_concept_without_an_interval_is_not_measured(low: float | None, f1: float, said: tuple[str, str]):
    assert of_concept({"auroc": 1.0, "auroc_low": low, "f1_test": f1, "f1_always_on": 0.2}) == said


def test_memes_look_alike_side_by_side():
    picture = {"reference": "hook_image_embed", "ms": 0.5, "chance_within_source": 0.3, "q": 0.01}
    caption = picture | {"reference": "hook_text_embed", "q": 0.4}
    assert alike([picture, caption]).text.startswith("Pictures: yes, mean cosine 0.500 (chance within source 0.300")
    assert "; Captions: not shown, mean cosine" in alike([picture, caption]).text
    tones = [alike(rows).tone for rows in ([picture], [picture, caption], [caption], [])]
    assert tones == ["good", "fact", "poor", "unknown"]


def test_levels_are_shown_by_name_and_strangers_codes_are_left():
    labels = {"stance": [0, 1, 2, 1], "humor": [0, 1, 2, 3], "hate": [0, 1, 7, 1], "topic": ["a", "b", "a", "b"]}
    words = Words(make_embeddings({"hook_fused": np.eye(4, dtype=np.float32)}, labels=labels))
    shown = {
        "stance=1": "stance=support",
        "humor>=2": "humor ≥ very funny",
        "stance!=0": "stance ≠ neutral",
        "stance=1|2": "stance=support or oppose",
        "stance=support": "stance=support",
        "the classifier of humor=2 flags 4% of stance=0, source=a": "the classifier of humor=very funny flags 4% of "
        "stance=neutral, source=a",
        "hate=1": "hate=1",  # 7 is no level of hate: these codes are somebody else's
        "topic=a": "topic=a",
        "target=1": "target=1",  # no label of these memes
        "mystance=1": "mystance=1",
        "stance=9": "stance=9",
    }
    assert {text: words.shown(text) for text in shown} == shown
    assert words.changed(["stance=1", "topic=a", "stance=1"]) == [["stance=1", "stance=support"]]


def test_counts_agree_with_their_nouns():
    assert [several(n, "latent") for n in (0, 1, 2, 1200)] == ["0 latents", "1 latent", "2 latents", "1,200 latents"]
    assert several(1, "latent is", "latents are") == "1 latent is"
    assert [listed(parts) for parts in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "none",
        "a",
        "a and b",
        "a, b and c",
    ]


def test_pictures_are_small_and_carry_no_metadata():
    corpus = pictures_of(small_inputs().memes)
    uris = data_uris(corpus, [0, None, 3, 5], pixels=32)
    assert [uri is None for uri in uris] == [False, True, True, False], "none, and one that is damaged"
    data = base64.b64decode(str(uris[0]).partition(",")[2])
    picture = Image.open(io.BytesIO(data))
    assert (picture.format, picture.size) == ("WEBP", (32, 24))
    assert b"secret" not in data
    assert not {"exif", "icc_profile", "xmp", "comment"} & picture.info.keys()


def test_nothing_inside_a_script_ends_it():
    text = to_script({"</script><!--": "\u2028\u2029&<>"})
    assert not {"<", ">", "&", "\u2028", "\u2029"} & set(text)
    assert json.loads(text) == {"</script><!--": "\u2028\u2029&<>"}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.123456, 0.1235),
        (1e-300, 1e-300),
        (np.nan, None),
        (np.inf, None),
        (pd.NA, None),
        (np.int64(7), 7),
        ("\ud800", "?"),
    ],
)
def test_short_numbers(value: Any, shown: Any):
    assert short(value) == shown


def test_scores_keep_their_signs_and_proportions():
    scores = np.array([-1.0, 0.5, 0.0, 0.25])
    back = np.frombuffer(base64.b64decode(signed_bytes(scores.tolist())), dtype=np.int8) / 127
    np.testing.assert_allclose(back, scores, atol=1 / 127)
    assert signed_bytes([]) == ""


def test_the_policy_allows_this_script_and_no_request():
    script, style = application()
    for beside in (False, True):
        said = dict(part.strip().split(" ", 1) for part in policy(script, style, beside).split(";"))
        assert said["default-src"] == "'none'"
        assert said["img-src"] == "data:"
        assert "unsafe" not in " ".join(said.values())
    assert "</script" not in script
    assert "</style" not in style
