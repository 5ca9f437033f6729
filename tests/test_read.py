"""Reading one meme: the latents of the batch pipeline bit for bit, and what is said of them."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import PIL.Image
import pytest
from arrays import anisotropic, make_embeddings
from command_line import run_here as run
from rich.console import Console
from seen_memes import save_sae, write_memes

from sae_lens_meme.corpus import caption_of, load_rows
from sae_lens_meme.embed import embed_arrays
from sae_lens_meme.embed.from_corpus import Pictures
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import BadImageError, BadTableError, ConfigError, DataError
from sae_lens_meme.evaluators import Latents, evaluate
from sae_lens_meme.evaluators.classifiers import Probe
from sae_lens_meme.evaluators.latents import encode
from sae_lens_meme.evaluators.opened import load_sae
from sae_lens_meme.evaluators.probes.compute import scores
from sae_lens_meme.images import small_webp
from sae_lens_meme.ocr import ENGINES, Engine, Line
from sae_lens_meme.planted import write_planted_vectors
from sae_lens_meme.read import MemeReader, ReadOptions, read_meme
from sae_lens_meme.read.decisions import Score, decide
from sae_lens_meme.read.names import Measured
from sae_lens_meme.read.vectors import VectorReader, verdict
from sae_lens_meme.report.reading import carried, print_reading, reading_html
from sae_lens_meme.results import read_step

FEW = {"n_attributed": 2, "n_swaps": 16, "n_random": 5, "device": "cpu"}


@pytest.fixture(scope="module")
def memes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_memes(tmp_path_factory.mktemp("memes"))
    evaluate(
        folder / "sae",
        folder / "embeddings",
        out=folder / "evaluation",
        only=["naming", "probes"],
        bootstrap=0,
        progress=False,
    )
    row = load_rows(folder / "corpus")[0]
    row["image"].convert("RGB").save(folder / "meme.png")
    (folder / "caption.txt").write_text(row["text"])
    return folder


@pytest.fixture(scope="module")
def reader(memes: Path) -> MemeReader:
    return MemeReader(memes / "sae", memes / "embeddings", memes / "evaluation", **FEW)


@pytest.fixture(scope="module")
def reading(memes: Path, reader: MemeReader) -> Any:
    return reader.read(memes / "meme.png", (memes / "caption.txt").read_text())


def check_latents(reader: MemeReader, corpus: Path, most: int) -> None:
    """Of the first memes of a corpus, from the bytes of their pictures."""
    rows = load_rows(corpus)
    captions = rows.select_columns(["text", "text_origin"])
    batch, n = encode(reader.sae, reader.embeddings), min(most, len(rows))
    pictures = Pictures(rows)._rows
    for i in range(n):
        one = reader.latents_of(pictures[i]["image"]["bytes"], caption_of(captions[i]))
        expected = batch.rows(np.array([i])).csr()
        assert np.array_equal(one.csr().indices, expected.indices), i
        assert np.array_equal(one.csr().data, expected.data), i


@pytest.mark.whole
@pytest.mark.parametrize("sae", ["sae", "sae_image", "sae_text"])
def test_latents_are_those_of_the_batch_pipeline_bit_for_bit(memes: Path, sae: str):
    reader = MemeReader(memes / sae, memes / "embeddings", **FEW)
    check_latents(reader, memes / "corpus", 1000 if sae == "sae" else 40)


@pytest.mark.slow
def test_latents_of_a_thousand_memes_are_those_of_the_batch_pipeline(tmp_path: Path):
    write_memes(tmp_path, scale=0.17)
    reader = MemeReader(tmp_path / "sae", tmp_path / "embeddings", **FEW)
    assert len(reader.embeddings) >= 1000
    check_latents(reader, tmp_path / "corpus", 1000)


def test_a_training_meme_is_read_as_the_pipeline_has_it(memes: Path, reader: MemeReader, reading: Any):
    batch = encode(load_sae(memes / "sae"), Embeddings.load(memes / "embeddings"))
    values = batch.csr()[0].toarray()[0]
    assert reading.n_active == np.count_nonzero(values)
    assert [latent.activation for latent in reading.latents] == sorted(values[values > 0].tolist(), reverse=True)[:10]
    assert all(values[latent.latent] == latent.activation for latent in reading.latents)
    train = batch.csr()[reader.embeddings.rows("train")].toarray()
    for latent in reading.latents:
        column = train[:, latent.latent]
        assert latent.firing_rate == pytest.approx((column > 0).mean())
        assert latent.stronger_than == pytest.approx((column[column > 0] < latent.activation).mean())
    assert reading.neighbours[0].id == reader.embeddings.ids[0], "the meme itself is the nearest train meme"
    assert reading.neighbours[0].similarity == pytest.approx(1)
    assert [latent.seen is not None for latent in reading.latents] == [i < 2 for i in range(len(reading.latents))]
    seen = reading.latents[0].seen
    assert seen.words == (memes / "caption.txt").read_text().split()
    assert len(seen.patch_scores) == 49
    assert seen.pre_activation == pytest.approx(reading.latents[0].activation, abs=1e-4)


def test_each_label_has_a_decision_that_adds_up(reader: MemeReader, reading: Any):
    assert [d.label for d in reading.decisions] == [task.name for task, _ in reader.probes]
    for decision in reading.decisions:
        assert 0 <= decision.probability <= 1
        assert decision.margin >= -1e-9, "the class with the largest probability"
        assert [c.contribution for c in decision.carriers] == sorted(
            (c.contribution for c in decision.carriers), reverse=True
        )


def latents(values: dict[int, float]) -> Latents:
    indices = np.array([list(values)], np.int32)
    return Latents(indices, np.array([list(values.values())], np.float32), d_sae=8)


def test_contributions_are_exact_and_the_control_takes_out_others():
    rng = np.random.default_rng(0)
    probe = Probe("hate", (0, 1), rng.normal(size=(1, 8)), np.array([0.3]), normalise=True)
    meme = latents({0: 1.0, 2: 2.0, 3: 0.5, 5: 1.5, 6: 1.0, 7: 0.7})
    found = decide(probe, meme, np.array([0, 0, 0, 1]), Score(0.8, 0.5), ReadOptions(n_carriers=2, n_random=30))
    dense = meme.csr().toarray().astype(float)
    p = probe.predict_proba(dense)[0]
    assert found.probability == pytest.approx(p.max())
    assert found.decided == int(p.argmax())
    assert found.prevalence == (0.75 if found.decided == 0 else 0.25)
    sign = 1 if found.decided == 1 else -1
    each = sign * probe.coef[0] * dense[0] / np.linalg.norm(dense)
    assert found.margin == pytest.approx(each.sum() + sign * 0.3)
    assert found.margin == pytest.approx(abs(probe.logits(dense)[0, 0]))
    best = np.argsort(-each)[:2]
    assert [c.latent for c in found.carriers] == best.tolist()
    assert [c.contribution for c in found.carriers] == pytest.approx(each[best])
    dense[0, best] = 0
    assert found.without == pytest.approx(probe.predict_proba(dense)[0, found.decided])
    low, median, high = found.without_random
    assert low <= median <= high
    assert median > found.without, "the carriers matter more than others"
    assert found.evidence == "AUROC on held-out memes 0.80 (no interval; permuted labels 0.50)"


@pytest.mark.parametrize(
    ("score", "evidence"),
    [
        (
            Score(0.52, 0.51, 0.44, 0.6),
            "no evidence: AUROC on held-out memes 0.52 (0.44 to 0.60; permuted labels 0.51)",
        ),
        (Score(0.8, 0.72, 0.7, 0.9), "no evidence: AUROC on held-out memes 0.80 (0.70 to 0.90; permuted labels 0.72)"),
        (Score(0.8, None, 0.7, 0.9), "AUROC on held-out memes 0.80 (0.70 to 0.90)"),
    ],
)
def test_a_probe_whose_interval_holds_chance_is_no_evidence(score: Score, evidence: str):
    probe = Probe("hate", (0, 1), np.ones((1, 8)), np.zeros(1))
    found = decide(probe, latents({0: 1.0}), np.array([0, 1]), score, ReadOptions())
    assert found.evidence == evidence
    assert (found.auroc, found.auroc_low, found.auroc_high) == (score.auroc, score.low, score.high)


def test_the_probe_that_is_read_is_the_one_that_was_measured(memes: Path, reader: MemeReader):
    """At the C that validation memes chose: fitted at another its scores are of another probe."""
    table = pd.read_parquet(memes / "evaluation" / "probes.parquet")
    table = table[table["space"] == "latents"].set_index("task")
    assert set(table["C"]) != {1.0}
    for task, probe in reader.probes:
        assert table.loc[task.name, "C"] == probe.C
        held_out = probe.predict_proba(reader.latents.csr()[task.held_out])
        found, _ = scores(
            probe.classes, held_out, task.label.values[task.held_out], reader.embeddings.strata[task.held_out]
        )
        assert found["log_loss"] == pytest.approx(table.loc[task.name, "log_loss"], abs=1e-6)


def test_the_interval_of_a_probe_is_that_of_the_evaluation():
    rows = [("hate", "latents", 0.8, 10.0), ("hate", "latents_permuted", 0.5, 10.0)]
    table = pd.DataFrame(rows, columns=["task", "space", "auroc_within_source", "C"])
    key = "hate/latents/auroc_within_source"
    content = {"results": {"probes": {"numbers": {key: 0.8, f"{key}_low": 0.7, f"{key}_high": 0.9}}}}
    measured = Measured.of_tables(None, table, content)
    assert measured.probe("hate") == Score(0.8, 0.5, 0.7, 0.9)
    assert measured.penalty("hate") == 10
    assert (measured.probe("humor"), measured.penalty("humor")) == (Score(None, None), 1)
    assert Measured.of_tables(None, table).probe("hate") == Score(0.8, 0.5)


def test_more_than_two_classes_are_decided_against_the_runner_up():
    probe = Probe("humor", (0, 1, 2), np.eye(3, 8), np.array([0.0, 0.1, 0.0]), normalise=False)
    found = decide(probe, latents({0: 3.0, 1: 2.0}), np.array([0, 1, 2]), Score(None, None), ReadOptions())
    assert (found.decided, found.runner_up) == (0, 1)
    assert found.margin == pytest.approx(3.0 - 2.1)
    assert [(c.latent, c.contribution) for c in found.carriers] == [(0, 3.0)]
    assert found.evidence == "how good this probe is on held-out memes is known only with --evaluation"


def test_a_meme_without_active_latents_is_decided_by_the_bias():
    probe = Probe("hate", (0, 1), np.ones((1, 8)), np.array([-1.0]), normalise=True)
    nothing = Latents(np.zeros((1, 2), np.int32), np.zeros((1, 2), np.float32), 8)
    found = decide(probe, nothing, np.array([0, 1]), Score(0.4, 0.5), ReadOptions())
    assert (found.decided, found.carriers, found.without_random) == (0, [], [])
    assert found.margin == found.bias == 1.0
    assert found.without == found.probability
    assert found.evidence.startswith("no evidence: AUROC on held-out memes 0.40")


@pytest.mark.parametrize(
    ("captions", "pictures", "side"),
    [(1.0, 0.2, "picture"), (0.2, 0.7, "caption"), (0.5, 0.5, "both"), (0.9, 0.8, "either"), (0.69, 0.0, "both")],
)
def test_a_side_decides_what_survives_the_other_sides(captions: float, pictures: float, side: str):
    assert verdict(captions, pictures, 0.7) == side


def test_an_sae_of_one_side_is_decided_by_it(memes: Path):
    for sae, side in (("sae_image", "picture"), ("sae_text", "caption")):
        found = read_meme(memes / "meme.png", sae=memes / sae, embeddings=memes / "embeddings", caption="a cat", **FEW)
        assert {latent.sides.decided_by for latent in found.latents} == {side}
        assert found.hook == {"sae_image": "hook_image_embed", "sae_text": "hook_text_embed"}[sae]
        assert any("No evaluation was given" in note for note in found.notes)


def test_the_hook_that_is_given_is_read_where_the_sae_names_none():
    x = anisotropic(20, 4, np.random.default_rng(0))
    memes = make_embeddings({"hook_image_embed": x, "hook_fused": x})
    sae: Any = SimpleNamespace(cfg=SimpleNamespace(metadata=SimpleNamespace(hook_name=None)))
    options = ReadOptions(hook="hook_image_embed")
    assert VectorReader(sae, memes, None, None, options).hook == "hook_image_embed"  # pyright: ignore[reportArgumentType]


def test_names_say_how_good_they_are(memes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SAE_LENS_MEME_VERIFY", "0")  # the table is one that no step wrote
    row = {"auroc": 0.8, "auroc_low": 0.7, "auroc_high": 0.9, "q": 0.001, "holds": True, "reason": None}
    table = pd.DataFrame(
        [
            {"latent": 0, "name": "cat", **row},
            {"latent": 1, "name": "dog", **row, "holds": False, "q": 0.4},
            {"latent": 2, "name": None, **dict.fromkeys(row), "reason": "it fires on 3 memes"},
            {"latent": 3, "name": "tea", **row, "holds": None},
        ]
    )
    folder = tmp_path / "evaluation"
    shutil.copytree(memes / "evaluation", folder)
    table.to_parquet(folder / "naming.parquet")
    measured = Measured(folder, {})
    assert measured.name(0).evidence == "AUROC 0.80 (0.70 to 0.90) on held-out memes, q 0.001"
    assert measured.name(0).holds
    assert measured.name(1).evidence == "no evidence: AUROC 0.80 (0.70 to 0.90) on held-out memes, q 0.4"
    assert (measured.name(2).name, measured.name(2).evidence) == (None, "no evidence: it fires on 3 memes")
    assert measured.name(3).evidence == "no evidence: the held-out memes allow no test of the name"
    assert not any(measured.name(i).holds for i in (1, 2, 3))


def test_an_evaluation_of_another_sae_is_refused(memes: Path):
    with pytest.raises(DataError, match="is of another sae than the one given; evaluate again"):
        MemeReader(memes / "sae_image", memes / "embeddings", memes / "evaluation", **FEW)


def test_what_is_no_picture_is_refused(reader: MemeReader, tmp_path: Path):
    (tmp_path / "m.png").write_text("<html>")
    with pytest.raises(BadImageError, match="is HTML, not a readable"):
        reader.read(tmp_path / "m.png", "a caption")


def test_a_caption_that_cannot_be_written_is_refused(reader: MemeReader, memes: Path):
    with pytest.raises(BadTableError, match=r"udce9' is half a character"):
        reader.read(memes / "meme.png", "caf\udce9")


def test_arrays_cannot_be_read(tmp_path: Path, memes: Path):
    np.save(tmp_path / "x.npy", anisotropic(20, 8, np.random.default_rng(0)))
    pd.DataFrame({"id": [f"m{i}" for i in range(20)]}).to_csv(tmp_path / "t.csv", index=False)
    save_sae(tmp_path / "sae", embed_arrays(tmp_path / "e", table=tmp_path / "t.csv", fused_embeds=tmp_path / "x.npy"))
    with pytest.raises(DataError, match="made from arrays, so there are no pictures and no model to run"):
        MemeReader(tmp_path / "sae", tmp_path / "e")


def test_planted_vectors_cannot_be_read(tmp_path: Path):
    vectors = write_planted_vectors(tmp_path / "v", n_samples=60, n_factors=6, d_in=8, active=1)
    save_sae(tmp_path / "sae", vectors)
    with pytest.raises(DataError, match="made from planted vectors, so there are no pictures and no model to run"):
        MemeReader(tmp_path / "sae", tmp_path / "v")


def test_a_missing_caption_is_read_from_the_picture(memes: Path, reader: MemeReader, monkeypatch: pytest.MonkeyPatch):
    lines = [("a  cat", 0.9), ("qzx", 0.2), ("reads", 0.8)]
    engine = Engine(lambda: lambda pixels: [Line(*line, pieces=()) for line in lines], "numpy", "")
    monkeypatch.setitem(ENGINES, "rapidocr", engine)
    found = reader.read(memes / "meme.png")
    assert (found.caption, found.caption_from) == ("a cat reads", "picture")
    assert found.latents == reader.read(memes / "meme.png", "a cat reads").latents
    lines.clear()
    assert (found := reader.read(memes / "meme.png")).caption is None
    assert found.caption_from == "none"
    assert found.latents == reader.read(memes / "meme.png", "").latents
    blank = reader.read(memes / "meme.png", "  \n")
    assert (blank.caption, blank.caption_from, blank.notes) == (None, "none", found.notes)


def test_without_an_ocr_library_the_message_says_what_to_do(
    memes: Path, reader: MemeReader, monkeypatch: pytest.MonkeyPatch
):
    def missing() -> Any:
        raise ImportError("No module named 'rapidocr'")

    monkeypatch.setitem(ENGINES, "rapidocr", ENGINES["rapidocr"]._replace(load=missing))
    with pytest.raises(ConfigError, match=r"No module named 'rapidocr'.*pip install rapidocr.*pass --caption TEXT"):
        reader.read(memes / "meme.png")


HOSTILE = "<script>alert(1)</script>\"' onload=x \u202e {{ 7*7 }} </style>"


def test_the_page_runs_nothing_and_hides_what_may_hurt(reading: Any):
    hurt = dataclasses.replace(
        reading,
        caption=HOSTILE,
        latents=(
            dataclasses.replace(
                reading.latents[0],
                name=dataclasses.replace(reading.latents[0].name, name=HOSTILE, evidence=HOSTILE),
                seen=dataclasses.replace(reading.latents[0].seen, words=[HOSTILE] * len(reading.latents[0].seen.words)),
            ),
        ),
        neighbours=(dataclasses.replace(reading.neighbours[0], id=HOSTILE, caption=HOSTILE),),
        decisions=(dataclasses.replace(reading.decisions[0], label=HOSTILE, decided=HOSTILE),),
        notes=(HOSTILE,),
    )
    page = reading_html(hurt.to_dict(), b"WEBP", (96, 64))
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in page
    assert "\u202e" not in page
    found = Parsed(page)
    assert found.tags == Parsed(reading_html(reading.to_dict(), b"WEBP", (96, 64))).tags, "no tag of a foreign text"
    assert not {"script", "a", "iframe", "link", "form"} & found.tags
    assert not [name for name in found.attributes if name.startswith("on")]
    assert found.links == ["data:image/webp;base64,V0VCUA=="]
    assert page.count('<rect class="') == 49
    assert re.search(r'<g class="hidden"><image href', page)
    shown = re.sub(r'<span class="(?:dim )?caption hidden">.*?</span>', "", page, flags=re.DOTALL)
    assert shown.count("alert(1)") == 6, "name, evidence, label, decision, id and note, but no caption and no word"


class Parsed(HTMLParser):
    """The tags, attributes and links of a page."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: list[str | None] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value for name, value in attrs if name in ("href", "src")]


def test_a_centre_view_covers_the_square_that_the_model_sees(reading: Any):
    page = reading_html({**reading.to_dict(), "view": "centre"}, b"WEBP", (140, 70))
    first = re.search(r'<rect class="\w+" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"', page)
    assert first is not None
    assert [float(n) for n in first.groups()] == [35, 0, 10, 10]


def test_the_page_holds_no_metadata_of_the_file():
    picture = PIL.Image.new("RGB", (800, 400), "red")
    picture.info["comment"] = b"my address"
    webp, size = small_webp(picture)
    assert size == (384, 192)
    assert b"my address" not in webp
    assert PIL.Image.open(io.BytesIO(webp)).size == size


def test_the_terminal_shows_latents_decisions_and_neighbours(reading: Any):
    file = io.StringIO()
    print_reading(reading.to_dict(), Console(file=file, width=140, force_jupyter=False))
    text = file.getvalue()
    for part in (*(str(latent.latent) for latent in reading.latents), "hate", "humor", reading.neighbours[0].id):
        assert part in text
    assert "no evidence" in text


def test_every_cell_stands_under_its_heading(reading: Any):
    file, first = io.StringIO(), reading.latents[0]
    print_reading(reading.to_dict(), Console(file=file, width=300, force_jupyter=False))
    lines = file.getvalue().splitlines()
    head = next(line for line in lines if line.startswith("latent "))
    row = lines[lines.index(head) + 2]
    cells = {"fires on": f"{first.firing_rate:.1%}", "stronger than": f"{first.stronger_than:.0%}"}
    cells |= {"evidence": first.name.evidence, "decided by": first.sides.decided_by}
    assert [heading for heading, cell in cells.items() if not row[head.index(heading) :].startswith(cell)] == []


def test_no_sentence_is_cut_in_a_terminal_of_110_characters(reading: Any):
    file, found = io.StringIO(), reading.to_dict()
    print_reading(found, Console(file=file, width=110, force_jupyter=False))
    said = [carried(decision) for decision in found["decisions"]] + [d["evidence"] for d in found["decisions"]]
    assert [word for sentence in said for word in sentence.split() if word not in file.getvalue()] == []


def test_the_command_prints_json_and_writes_a_page(memes: Path, tmp_path: Path):
    common = ("--sae", "sae", "--embeddings", "embeddings", "--caption", "a cat", "--n-attributed", "1")
    (tmp_path / "m.html").write_text("<!doctype html>of an earlier run")
    found = run("read", "meme.png", *common, "--json", "--page", str(tmp_path / "m.html"), cwd=memes)
    assert found.returncode == 0, found.stderr
    told = json.loads(found.stdout)
    assert (told["caption"], told["caption_from"]) == ("a cat", "given")
    assert len(told["latents"]) == 6
    assert re.match("<!doctype html>(?!of an)", (tmp_path / "m.html").read_text())
    picture = (memes / "meme.png").read_bytes()
    lost = run("read", "meme.png", *common, "--page", "meme.png", cwd=memes)
    assert lost.returncode == 2
    assert "--page meme.png: is there already and is not a page" in lost.stderr
    assert (memes / "meme.png").read_bytes() == picture
    wrong = run("read", "nothing.png", *common, cwd=memes)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert re.fullmatch(r"error: image 'nothing.png' does not exist or is not a file; check the path\n", wrong.stderr)


def test_json_is_utf8_whatever_the_pipe_is(memes: Path, reading: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sae_lens_meme.read.read_meme", lambda *_, **__: dataclasses.replace(reading, caption="猫"))
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw := io.BytesIO(), encoding="cp1252"))
    read_step(memes / "meme.png", memes / "sae", memes / "embeddings", {}, as_json=True)
    sys.stdout.flush()
    assert json.loads(raw.getvalue().decode("utf-8"))["caption"] == "猫"


def test_an_unusual_meme_is_called_so(reader: MemeReader, memes: Path):
    noise = np.random.default_rng(0).integers(0, 255, (72, 72, 3), dtype=np.uint8)
    PIL.Image.fromarray(noise).save(memes / "noise.png")
    found = reader.read(memes / "noise.png", "qwertz uiop")
    assert -1 <= found.fidelity <= 1
    assert found.fidelity_rank is not None
    assert any("of the held-out memes better" in note for note in found.notes) == (found.fidelity_rank < 0.05)


def test_no_hook_is_left_on_the_sae(reader: MemeReader, reading: Any):
    assert reading.latents[0].seen is not None
    assert not any(module._forward_hooks for module in reader.sae.modules())


def test_objects_in_memory_are_read_as_their_folders(memes: Path):
    caption = (memes / "caption.txt").read_text()
    from_folders = read_meme(
        memes / "meme.png", sae=memes / "sae", embeddings=memes / "embeddings", caption=caption, **FEW
    )
    sae, embeddings = load_sae(memes / "sae"), Embeddings.load(memes / "embeddings")
    objects = read_meme(memes / "meme.png", sae=sae, embeddings=embeddings, caption=caption, **FEW)
    assert objects.to_dict() == from_folders.to_dict()
    with pytest.raises(DataError, match="an evaluation can only be checked against the folder of its SAE"):
        MemeReader(sae, embeddings, memes / "evaluation", **FEW)
