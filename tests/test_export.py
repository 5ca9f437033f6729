"""The Neuronpedia folder: what its importer accepts, and what its pages then say."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from exported import complaints, inputs, measured, pictures, rows, write_arrays, write_seen
from PIL import Image
from sae_lens import SAE
from sae_lens.analysis import neuronpedia_integration

from sae_lens_meme.attributions import Attributions
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, StorageError
from sae_lens_meme.evaluators.latents import encode
from sae_lens_meme.evaluators.opened import sae_weights
from sae_lens_meme.export import ExportOptions, export, mark_sae
from sae_lens_meme.export.lift import _Classes
from sae_lens_meme.export.run import Run
from sae_lens_meme.storage import StepFolder, read_json

HOSTILE = (
    *("", "   ", "a\0b", r"a \u0000 b \\u0000 \ud800 \udc00", "\\", '"', "{}", "top", "\u202edesrever\u202c \u2066x"),
    *("\x1b[31mred", "word " * 10_000, "w" * 10_000, "שלום עולם", "👩‍👩‍👧 \U0001f600", "null", "NaN", "a\u2028b\nc\td"),
    None,
)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_seen(tmp_path_factory.mktemp("seen"))


@pytest.fixture(scope="module")
def made(seen: Path) -> Path:
    return export(seen / "evaluation", out=seen / "export", **inputs(seen))


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_arrays(tmp_path_factory.mktemp("arrays"))


@pytest.fixture(scope="module")
def of_arrays(arrays: Path) -> Path:
    return export(arrays / "evaluation", out=arrays / "export", **inputs(arrays))


def contents(folder: Path) -> dict[str, bytes]:
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != ".lock")
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


@pytest.mark.whole
def test_the_importer_takes_memes_with_pictures(made: Path):
    assert complaints(made) == []


@pytest.mark.whole
def test_the_importer_takes_memes_without_pictures(seen: Path, tmp_path: Path):
    assert complaints(export(seen / "evaluation", out=tmp_path / "a", **inputs(seen, pictures=False))) == []
    only_words = {name: path for name, path in inputs(seen).items() if name != "corpus"}
    assert complaints(export(seen / "evaluation", out=tmp_path / "b", **only_words)) == []


def test_the_importer_takes_arrays(of_arrays: Path):
    assert complaints(of_arrays) == []


def test_the_importer_takes_hostile_captions(tmp_path: Path):
    run = write_arrays(tmp_path, texts=HOSTILE)
    source = export(run / "evaluation", out=run / "export", **inputs(run))
    assert complaints(source) == []
    shown = "".join(token for row in rows(source, "activations") for token in row["tokens"])
    assert not {"\0", "\x1b", "\u202e", "\u2066"} & {*shown}
    assert "שלום" in shown
    assert "👩‍👩‍👧" in shown


@pytest.mark.whole
def test_four_thousand_latents_come_in_four_batches(tmp_path: Path):
    run = write_arrays(tmp_path, n=120, d=8, d_sae=4096, k=8)
    source = export(run / "evaluation", out=run / "export", **inputs(run))
    assert complaints(source) == []
    assert [path.name for path in sorted((source / "features").iterdir())] == [f"batch-{i}.jsonl.gz" for i in range(4)]
    assert [int(row["index"]) for row in rows(source, "features")] == list(range(4096))
    assert source.name == "0-meme-fused-topk-4k"


@pytest.mark.parametrize("which", ["made", "of_arrays"])
def test_every_row_has_the_keys_of_the_first_and_their_types(which: str, request: pytest.FixtureRequest):
    source = request.getfixturevalue(which)
    for kind in ("features", "activations", "explanations"):
        found = rows(source, kind)
        assert {frozenset(row) for row in found} <= {frozenset(found[0])} if found else kind == "explanations"
        for row in found:
            for name in ("maxValueTokenIndex", "topkCosSimIndices", "freq_hist_data_bar_heights", "zIndices"):
                assert all(type(value) is int for value in np.ravel(row.get(name, []), order="K").tolist())
            assert all(value is not None for value in row.values())
            assert isinstance(row["index"], str)
    ids = [row["id"] for kind in ("activations", "explanations") for row in rows(source, kind)]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("which", ["made", "of_arrays"])
def test_the_first_token_is_the_meme_and_holds_the_activation(which: str, request: pytest.FixtureRequest):
    source = request.getfixturevalue(which)
    run = source.parents[2].parent
    memes = Embeddings.load(run / "embeddings")
    dense = encode(SAE.load_from_disk(run / "sae"), memes).csr().toarray()
    place = {str(identity): i for i, identity in enumerate(memes.ids)}
    found = rows(source, "activations")
    assert found
    for row in found:
        assert row["tokens"][0] == f"⟦{row['dataSource']}⟧"
        assert row["maxValue"] == max(row["values"]) == row["values"][0]
        assert row["maxValueTokenIndex"] == 0
        assert min(row["values"]) >= 0
        assert len(row["tokens"]) == len(row["values"])
        assert "" not in row["tokens"]
        assert row["maxValue"] == pytest.approx(dense[place[row["dataSource"]], int(row["index"])], rel=1e-4)


def test_words_and_patches_are_coloured_by_their_attribution(seen: Path, made: Path):
    attributions = Attributions.load(seen / "attribution")
    latent = attributions.latents[0]
    wanted = attributions.rows_of(latent)
    found = [row for row in rows(made, "activations") if row["index"] == str(latent)]
    assert len(found) == len(wanted)
    for row, want in zip(found, wanted, strict=True):
        words, patches = want["words"], want["patch_scores"]
        n = len(words)
        assert row["tokens"][1 : 1 + n] == [f" {word}" for word in words]
        assert row["tokens"][1 + n :] == ["\n", *["■"] * 7] * 7
        scores = np.maximum(0, [*want["word_scores"], *patches])
        scores = scores / scores.max() * row["maxValue"]
        grid = np.array(row["values"][1 + n :]).reshape(7, 8)
        assert (grid[:, 0] == 0).all()
        np.testing.assert_allclose([*row["values"][1 : 1 + n], *grid[:, 1:].ravel()], scores, rtol=1e-4, atol=1e-12)
        positive = [pair for pair in want["interactions"] if pair["value"] > 0]
        assert len(row["zValues"]) == len(positive) == len(row["zIndices"][0]) == len(row["zIndices"][1])
        for word, patch, pair in zip(*row["zIndices"], positive, strict=True):
            assert row["tokens"][word] == f" {words[pair['word']]}"
            assert (patch - 1 - n) // 8 * 7 + (patch - 1 - n) % 8 - 1 == pair["patch"]
            assert row["tokens"][patch] == "■"


def test_top_memes_and_intervals(seen: Path, made: Path):
    found = rows(made, "activations")
    top = [row for row in found if row["binMin"] == -1]
    rest = [row for row in found if row["binMin"] != -1]
    assert {row["binContains"] for row in top} == {-1}
    largest = {row["index"]: row["maxActApprox"] for row in rows(made, "features")}
    assert all(row["binMax"] == largest[row["index"]] for row in top)
    assert rest
    for row in rest:
        assert 0 <= row["binMin"] < row["maxValue"] <= row["binMax"] * (1 + 1e-4)
        assert 0 < row["binContains"] <= 1


@pytest.mark.parametrize("which", ["made", "of_arrays"])
def test_statistics_of_a_latent(which: str, request: pytest.FixtureRequest):
    source = request.getfixturevalue(which)
    run = source.parents[2].parent
    sae = SAE.load_from_disk(run / "sae")
    dense = encode(sae, Embeddings.load(run / "embeddings")).csr().toarray()
    cosines = np.array((w := sae.W_dec.detach().numpy()) / np.linalg.norm(w, axis=1, keepdims=True))
    cosines = cosines @ cosines.T
    for latent, row in enumerate(rows(source, "features")):
        active = dense[:, latent][dense[:, latent] > 0]
        assert row["frac_nonzero"] == pytest.approx(len(active) / len(dense), rel=1e-4)
        assert sum(row["freq_hist_data_bar_heights"]) == len(active)
        assert len(row["freq_hist_data_bar_heights"]) == len(row["freq_hist_data_bar_values"]) == 50
        assert row["topkCosSimIndices"][0] == latent
        assert row["topkCosSimValues"][0] == 1
        nearest = np.argsort(-np.delete(cosines[latent], latent))[0]
        assert row["topkCosSimIndices"][1] == nearest + (nearest >= latent)
        assert row["topkCosSimValues"][1:] == sorted(row["topkCosSimValues"][1:], reverse=True)
        assert row["pos_str"]
        assert row["neg_str"]


def test_words_have_the_log_odds_by_which_naming_chooses_them(seen: Path, made: Path):
    naming = pd.read_parquet(seen / "evaluation" / "naming.parquet").set_index("latent")
    checked = 0
    for row in rows(made, "features"):
        chosen = naming.loc[int(row["index"])]
        if pd.notna(chosen["word"]):
            shown = dict(zip(row["pos_str"], row["pos_values"], strict=True))
            assert shown[chosen["word"]] == pytest.approx(chosen["word_log_odds"], rel=1e-3)
            checked += 1
        assert row["pos_values"] == sorted(row["pos_values"], reverse=True)
        assert min(row["pos_values"]) >= 0 >= max(row["neg_values"])
    assert checked > 5


def test_a_class_that_nothing_speaks_against_comes_first():
    """hate=1 is true of all memes on which the latent fires and of no others: its odds ratio is infinite, null in the table."""
    table = pd.DataFrame({"latent": 3, "concept": ["humor=2", "hate=1", "stance=0", "target=1"]}).assign(
        odds_ratio=pd.array([4.0, None, 0.5, None], "Float64"),
        q_global=pd.array([0.01, 1e-30, 0.01, 0.9], "Float64"),
        a=[20, 50, 5, 1], b=[5, 0, 10, 0], c=[10, 0, 10, 4], d=[10, 150, 10, 9],
    )  # fmt: skip
    classes = _Classes(table)
    (none, found) = classes.of(range(2, 4))
    assert none == ([], [])
    assert found.positive == [("hate=1", pytest.approx(np.log(50.5 * 150.5 / 0.5**2), rel=1e-4)), ("humor=2", 1.3863)]
    assert found.negative == [("stance=0", -0.69315)]
    assert "infinite comes first" in classes.note


def test_without_captions_classes_take_the_place_of_words(of_arrays: Path):
    shown = {text for row in rows(of_arrays, "features") for text in (*row["pos_str"], *row["neg_str"])}
    assert shown <= {"(none)", "hate=0", "hate=1"}
    assert "hate=1" in shown
    assert "classes" in json.loads((of_arrays / "source.jsonl").read_text())["notes"]


def test_explanations_are_the_names_that_hold(arrays: Path, of_arrays: Path):
    naming = pd.read_parquet(arrays / "evaluation" / "naming.parquet")
    held = naming[naming["holds"].fillna(False).astype(bool)]
    found = rows(of_arrays, "explanations")
    assert [int(row["index"]) for row in found] == held["latent"].tolist() != []
    assert [row["description"] for row in found] == held["name"].tolist()
    assert all("odds ratio" in row["notes"] and "always on" in row["notes"] for row in found)
    assert len({(row["umap_x"], row["umap_y"]) for row in found}) == len(found)


def test_pictures_are_small_webp_without_metadata(seen: Path, made: Path):
    shown, found = pictures(made), rows(made, "multimodal")
    assert {row["picture"] for row in found} == shown.keys()
    assert not any(name.name.startswith("features") for name in (made / "multimodal").iterdir())
    for content in shown.values():
        picture = Image.open(io.BytesIO(content))
        assert picture.format == "WEBP"
        assert max(picture.size) <= 192
        assert not picture.getexif()
        assert not {"exif", "xmp", "icc_profile"} & picture.info.keys()


def test_the_sidecar_has_signed_attributions_by_the_ids_of_the_rows(seen: Path, made: Path):
    sidecar, shown = rows(made, "multimodal"), rows(made, "activations")
    assert [row["id"] for row in sidecar] == [row["id"] for row in shown]
    assert [row["meme"] for row in sidecar] == [row["dataSource"] for row in shown]
    assert min(score for row in sidecar for score in row["word_scores"]) < 0
    assert {row["grid"] for row in sidecar} == {7}
    assert {tuple(row["box"]) for row in sidecar} != set()
    for row, place in zip(sidecar, (row["dataIndex"] for row in shown), strict=True):
        assert place == f"sha256:{Path(row['picture']).stem}"


def test_the_same_bytes_each_time_and_a_killed_run_resumes(
    seen: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from sae_lens_meme.export import step

    def stop(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(step, "activation_rows", stop)
        with pytest.raises(KeyboardInterrupt):
            export(seen / "evaluation", out=tmp_path / "again", **inputs(seen))
    assert not (tmp_path / "again" / "_SUCCESS").exists()
    export(seen / "evaluation", out=tmp_path / "again", **inputs(seen))
    assert contents(tmp_path / "again") == contents(seen / "export")


def test_saelens_opens_the_pages_of_the_exported_sae(made: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(neuronpedia_integration.webbrowser, "open", lambda url: True)
    sae = SAE.load_from_disk(made.parents[2] / "sae")
    assert sae.cfg.metadata.neuronpedia_id == f"{made.parent.name}/{made.name}"
    url = neuronpedia_integration.get_neuronpedia_quick_list(sae, [3, 5])
    listed = json.loads(unquote(url.split("&features=")[1]))
    assert listed == [{"modelId": made.parent.name, "layer": made.name, "index": str(i)} for i in (3, 5)]


def test_an_sae_is_marked_only_when_asked_and_stays_exportable(arrays: Path, tmp_path: Path):
    run = Path(shutil.copytree(arrays, tmp_path / "run"))
    before = (run / "sae" / "cfg.json").read_bytes()
    export(run / "evaluation", out=tmp_path / "a", **inputs(run))
    assert (run / "sae" / "cfg.json").read_bytes() == before
    mark_sae(run / "sae", "some-model/0-some-set")
    assert SAE.load_from_disk(run / "sae").cfg.metadata.neuronpedia_id == "some-model/0-some-set"
    export(run / "evaluation", out=tmp_path / "b", **inputs(run))
    measured(run, ["naming", "concept_alignment"])  # it is there already; that of another SAE would be refused


@pytest.mark.parametrize("metadata", [{}, {"neuronpedia_id": None}, None])
def test_a_marked_sae_is_the_same_however_its_config_is_written(tmp_path: Path, arrays: Path, metadata: Any):
    folder = Path(shutil.copytree(arrays / "sae", tmp_path / "sae"))
    (folder / "manifest.json").unlink(missing_ok=True)
    cfg = {key: value for key, value in read_json(folder / "cfg.json").items() if key != "metadata"}
    (folder / "cfg.json").write_text(json.dumps(cfg | ({} if metadata is None else {"metadata": metadata}), indent=2))
    before = sae_weights(folder)
    mark_sae(folder, "some-model/0-some-set")
    assert sae_weights(folder) == before
    (folder / "cfg.json").write_text(json.dumps(cfg | {"k": 1}))
    assert sae_weights(folder) != before


def test_a_result_of_train_stays_finished_when_its_sae_is_marked(arrays: Path, tmp_path: Path):
    with StepFolder(tmp_path / "run", "train", {}) as folder:
        for name in ("cfg.json", "sae_weights.safetensors"):
            folder.write(f"hook/{name}", lambda path, name=name: path.write_bytes((arrays / "sae" / name).read_bytes()))
        folder.finish(kept=1)
    mark_sae(tmp_path / "run" / "hook", "some-model/0-some-set")
    with StepFolder(tmp_path / "run", "train", {}) as folder:
        assert folder.complete
    assert read_json(tmp_path / "run" / "manifest.json")["facts"] == {"kept": 1}


def test_names_are_the_users_to_choose(arrays: Path, tmp_path: Path):
    options = ExportOptions(
        model="My-CLIP", source_set="mine", layer=3, url="https://memes.example/{id}", visibility="PUBLIC"
    )
    source = export(arrays / "evaluation", options, out=tmp_path / "out", **inputs(arrays))
    assert source.relative_to(tmp_path / "out") == Path("v1/My-CLIP/3-mine")
    assert complaints(source) == []
    assert all(row["dataSource"].startswith("https://memes.example/m") for row in rows(source, "activations"))
    assert read_json(source / "source.jsonl")["visibility"] == "PUBLIC"
    with pytest.raises(ConfigError, match="source_set"):
        ExportOptions(source_set="A B")
    with pytest.raises(ConfigError, match="url"):
        ExportOptions(url="https://memes.example")


def test_pairs_of_the_published_protocol_alone_are_not_measured(monkeypatch: pytest.MonkeyPatch):
    """Not: no class effect is significant."""
    monkeypatch.setattr(Run, "table", lambda run, name: pd.DataFrame({"protocol": ["published"], "q_global": [0.01]}))
    assert Run.__new__(Run).alignment is None


def test_results_of_another_sae_are_refused(arrays: Path, seen: Path, tmp_path: Path):
    with pytest.raises(StorageError, match="was not made from the SAE"):
        export(seen / "evaluation", out=tmp_path / "out", **inputs(arrays))
    with pytest.raises(StorageError, match="was not made from the embeddings"):
        export(
            seen / "evaluation",
            out=tmp_path / "out",
            sae=seen / "sae",
            embeddings=arrays / "embeddings",
            progress=False,
        )
    with pytest.raises(StorageError):
        export(arrays / "sae", out=tmp_path / "out", **inputs(arrays))
