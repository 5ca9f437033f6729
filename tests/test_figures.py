"""Figures show what the tables say, are drawn where they can be, and say in a sentence why where they cannot."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from arrays import anisotropic, make_embeddings
from datasets import Dataset, DatasetDict, Features, Image, Value
from evaluations import FEW
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image as Pillow
from tiny_sae import tiny_sae

from sae_lens_meme.embed import embed_arrays
from sae_lens_meme.errors import ConfigError, StorageError
from sae_lens_meme.evaluators import evaluate
from sae_lens_meme.figures import NAMES, Inputs, find, write_figures
from sae_lens_meme.figures.inputs import NotDrawn
from sae_lens_meme.figures.style import save
from sae_lens_meme.projection import project
from sae_lens_meme.storage import StepFolder, read_finished, read_json
from sae_lens_meme.train.step import read_log

N, D_SAE = 300, 24
ONLY = ["contest", "concept_alignment", "baselines", "influence", "reconstruction", "stability", "naming"]
IDS = [f"meme-{i}" for i in range(N)]
HOSTILE = "$x^2$ <b>"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SAE, embeddings, evaluation, attribution and corpus of arrays; one label value is hostile."""
    folder, rng = tmp_path_factory.mktemp("run"), np.random.default_rng(0)
    image, text = anisotropic(N, 16, rng), anisotropic(N, 16, rng)
    for name, x in (("image", image), ("text", text)):
        np.save(folder / f"{name}.npy", x)
    splits = [("train", "train", "train", "validation", "test")[i % 5] for i in range(N)]
    kinds = np.where(image[:, 3] > np.median(image[:, 3]), HOSTILE, "other")
    kinds[::7] = ""
    captions = ["cat" if value > np.median(text[:, 4]) else "dog rain" for value in text[:, 4]]
    table = pd.DataFrame({"id": IDS, "source": "a", "split": splits, "text": captions, "kind": kinds})
    table.to_csv(folder / "rows.csv", index=False)
    paths: Any = {
        "image_embeds": folder / "image.npy",
        "text_embeds": folder / "text.npy",
        "table": folder / "rows.csv",
    }
    memes = embed_arrays(folder / "embeddings", **paths)
    sae = tiny_sae(memes.take("hook_fused", np.arange(N)), d_sae=D_SAE, k=4)
    sae.save_model(folder / "sae")
    log = pd.DataFrame({"epoch": [1, 2], "validation_explained_variance": [0.1, 0.3], "train_explained_variance": [0.2, 0.4]})  # fmt: skip
    log.to_json(folder / "sae" / "training_log.jsonl", orient="records", lines=True)
    few = {name: FEW[name] for name in ONLY if name in FEW}
    tiny_sae(memes.take("hook_fused", np.arange(N)), d_sae=D_SAE, k=4, seed=1).save_model(folder / "other")
    options: Any = {"only": ONLY, "bootstrap": 5, "evaluators": few, "other_saes": [folder / "other"]}
    evaluate(folder / "sae", folder / "embeddings", out=folder / "evaluation", progress=False, **options)
    write_attribution(folder / "attribution")
    pictures = [Pillow.new("RGB", (40, 40), (i % 256, 120, 90)) for i in range(N)]
    described = {"source": ["a"] * N, "split": ["train"] * N, "text": captions, "text_origin": ["dataset"] * N}
    labels: Any = {"kind": [i % 2 for i in range(N)], "other": [i % 3 for i in range(N)]}
    features = Features({"id": Value("string"), "image": Image(), **dict.fromkeys(described, Value("string"))})
    features |= dict.fromkeys(labels, Value("int64"))
    columns = {"id": IDS, "image": pictures, **described, **labels}
    corpus = DatasetDict({"train": Dataset.from_dict(columns, features=Features(features))})
    with StepFolder(folder / "corpus", "corpus", {}) as step:
        corpus.save_to_disk(str(folder / "corpus"))
        step.finish()
    return folder


def write_attribution(folder: Path) -> None:
    rows = [
        {
            "latent": latent, "id": IDS[8 * latent + rank], "kind": "top", "rank": rank, "activation": 9.0 - rank - latent,
            "words": ["$cat", "dog"], "word_scores": [1.0 - latent, -0.5], "patch_scores": [float(i) for i in range(49)],
            "caption_local": 1.0, "image_local": 2.0, "meme_global": 3.0,
        }
        for latent in range(3)
        for rank in range(4)
    ]  # fmt: skip
    made = read_finished(folder.parent / "evaluation", "evaluate")["fingerprint"]
    with StepFolder(folder, "attribute", {part: made[part] for part in ("sae", "embeddings")}) as step:
        Dataset.from_list(rows).save_to_disk(str(folder))
        step.finish()


@pytest.fixture(scope="module")
def inputs(run: Path) -> Inputs:
    return Inputs(*(run / name for name in ("evaluation", "sae", "embeddings", "attribution", "corpus")))


def test_the_folders_of_a_run_are_found_below_one(run: Path, inputs: Inputs, tmp_path: Path):
    assert Inputs.of_run(run) == inputs
    assert Inputs.of_run(run, reveal=True).reveal
    (tmp_path / "embeddings").symlink_to(run / "embeddings")
    for step in ("evaluation", "sae"):
        (tmp_path / step).mkdir()
        (tmp_path / step / "image").symlink_to(run / step)
    of_one = Inputs.of_run(tmp_path, "image")
    assert of_one.evaluation == tmp_path / "evaluation" / "image"
    assert of_one.sae == tmp_path / "sae" / "image"
    assert of_one.embeddings == tmp_path / "embeddings"
    assert of_one.corpus is None, "it says so when a figure asks for pictures"


def axes_of() -> Any:
    figure = Figure()
    FigureCanvasAgg(figure)
    return figure.add_subplot()


def drawn(name: str, inputs: Inputs, **choice: object):
    axes = axes_of()
    find(name).draw(axes, inputs, **choice)
    return axes


@pytest.mark.slow
def test_every_figure_is_written_twice(inputs: Inputs, tmp_path: Path):
    reasons = write_figures(inputs, tmp_path / "figures", progress=False)
    assert reasons == dict.fromkeys(NAMES)
    assert {file.name for file in (tmp_path / "figures").iterdir()} == {f"{n}.{kind}" for n in NAMES for kind in ("png", "svg")}  # fmt: skip
    write_figures(inputs, tmp_path / "again", only=["contest", "heatmap"], progress=False)
    for file in (tmp_path / "again").iterdir():
        assert file.read_bytes() == (tmp_path / "figures" / file.name).read_bytes(), file.name


def test_a_figure_without_its_folder_says_what_to_give(run: Path, tmp_path: Path):
    reasons = write_figures(Inputs(run / "evaluation"), tmp_path, progress=False)
    assert reasons["contest"] is reasons["heatmap"] is reasons["density"] is None
    assert reasons["training"] == "it needs the folder of sae; give --sae"
    assert reasons["tokens"] == "it needs the folder of attribution; give --attribution"


def test_folders_of_another_run_are_refused(run: Path, tmp_path: Path):
    with pytest.raises(StorageError, match=r"evaluation: was not made from the SAE .*other; give the folder"):
        Inputs(run / "evaluation", sae=run / "other")
    shutil.copytree(run / "embeddings", tmp_path / "embeddings")
    shutil.copytree(run / "attribution", tmp_path / "attribution")
    for folder, change in (("embeddings", {"options": "others"}), ("attribution", {"sae": "another"})):
        manifest = read_json(path := tmp_path / folder / "manifest.json")
        path.write_text(json.dumps(manifest | {"fingerprint": manifest["fingerprint"] | change}))
    with pytest.raises(StorageError, match="was not made from the embeddings"):
        Inputs(run / "evaluation", embeddings=tmp_path / "embeddings")
    with pytest.raises(StorageError, match=r"attribution: was not made from the SAE of .*evaluation; run attribute"):
        Inputs(run / "evaluation", attribution=tmp_path / "attribution")


def test_what_cannot_be_drawn_is_an_error_where_nothing_is_left(run: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="no figure could be drawn: it needs the folder of sae"):
        write_figures(Inputs(run / "evaluation"), tmp_path, only=["training"], progress=False)
    with pytest.raises(ConfigError, match="did you mean 'contest'"):
        write_figures(Inputs(run / "evaluation"), tmp_path, only=["contets"], progress=False)


def test_saes_that_were_trained_together_have_one_log(tmp_path: Path):
    lines = [json.dumps({"sae": name, "epoch": 1, "loss": loss}) for name, loss in (("a", 0.5), ("b", 0.25))]
    (tmp_path / "training_log.jsonl").write_text("\n".join(lines))
    assert [record["loss"] for record in read_log(tmp_path / "b")] == [0.25]
    assert read_log(tmp_path / "c") == []
    of_run = Inputs(None, sae=tmp_path / "a")
    assert of_run.training_log["loss"].tolist() == [0.5]


def test_a_result_that_was_left_out_is_named(inputs: Inputs):
    with pytest.raises(NotDrawn, match="no result of probes"):
        inputs.table("probes")


def test_the_contest_shows_the_table(inputs: Inputs):
    axes = drawn("contest", inputs, estimator="auroc", targets="labels")
    table = inputs.table("contest")
    rows = table[(table.estimator == "auroc") & (table.targets == "labels") & (table.target == "all")]
    rows = rows.dropna(subset="value").sort_values("value", ascending=False)
    points = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"]
    assert points == pytest.approx(rows["value"].tolist())
    assert [tick.get_text() for tick in axes.get_yticklabels()][rows["units"].tolist().index("sae")] == "SAE"


def test_the_contest_draws_one_number_of_units(inputs: Inputs):
    """As README calls it: without k."""
    axes, one = drawn("contest", inputs), drawn("contest", inputs, k=1)
    assert axes.get_xlabel() == one.get_xlabel() == "probe on 1 unit(s), AUROC"
    units = [tick.get_text() for tick in axes.get_yticklabels()]
    assert len(units) == len(set(units)) == len(one.get_yticklabels())


def test_the_contest_puts_the_least_absorbed_first():
    rows: Any = {"units": ["pca", "sae"], "value": [0.4, 0.1], "k": [np.nan, np.nan], "estimator": "absorbed"}
    rows |= {"targets": "planted", "target": "all", "n_targets": 3, "low": np.nan, "high": np.nan}
    axes = drawn("contest", one_table(pd.DataFrame(rows)), estimator="absorbed")
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["SAE", "PCA"]


def test_the_heat_map_shows_the_auroc_of_its_cell(inputs: Inputs):
    axes = drawn("heatmap", inputs)
    shown = axes.images[0].get_array()
    table = inputs.table("concept_alignment").set_index(["protocol", "concept", "latent"])
    latents = [int(tick.get_text()) for tick in axes.get_xticklabels()]
    concepts = sorted(inputs.table("concept_alignment")["concept"].unique())
    for i, concept in enumerate(concepts):
        for j, latent in enumerate(latents):
            expected = table.loc[("corrected", concept, latent), "auroc"]
            assert (
                np.isnan(expected)
                if np.ma.is_masked(shown[i, j])
                else shown[i, j] == pytest.approx(expected, nan_ok=True)
            )


def one_table(table: pd.DataFrame) -> Any:
    """Inputs of a figure that reads one table."""
    return SimpleNamespace(table=lambda name: table)


def pairs(**columns: list[Any]) -> pd.DataFrame:
    """A row of `concept_alignment` per latent, all of one concept unless it is given."""
    first = next(iter(columns.values()))
    return pd.DataFrame({"latent": range(len(first)), "concept": "hate=1", "protocol": "corrected"} | columns)


def test_the_heat_map_chooses_latents_on_validation_memes():
    chose = [0.1, 0.9, 0.2, 0.8, 0.7, 0.3]
    table = pairs(log10_p=[-30.0, -1, -20, -2, -3, 0], f1_validation=chose, auroc=chose, q_global=chose)
    shown = drawn("heatmap", one_table(table))
    assert [tick.get_text() for tick in shown.get_xticklabels()] == ["1", "3", "4"]
    unchosen = drawn("heatmap", one_table(table.assign(f1_validation=np.nan)))
    assert [tick.get_text() for tick in unchosen.get_xticklabels()] == ["0", "2", "4"], "then by p, the smallest first"


def test_the_strongest_latents_are_those_of_the_heat_map():
    evidence = [-1.0, -9, -20, -2, -3, 0]
    table = pairs(log10_p=evidence, f1_validation=[np.nan] * 6, auroc=[0.5] * 6, q_global=[0.5] * 6)
    table = table.assign(auroc_low=0.4, auroc_high=0.6, threshold_split=None)
    of = one_table(table)
    of.called = str
    axes = drawn("top_latents", of, n=3)
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["2", "1", "4"], "by p, as nothing else chose"
    for figure in (axes, drawn("heatmap", of)):
        assert "flattering" in figure.get_title(loc="left"), "the memes shown had a part in the choice"
    other = table.assign(concept="rare", auroc=np.nan)
    of = one_table(pd.concat([other, table]))
    assert find("top_latents").panels(of) == [{"concept": "hate=1"}], "a concept of no test meme stops no other"
    for name in ("heatmap", "top_latents"):
        with pytest.raises(NotDrawn, match="no pair has an AUROC on test memes"):
            drawn(name, one_table(other), **({"concept": "rare"} if name == "top_latents" else {}))


def test_the_axis_says_which_memes_chose():
    scores = [0.1, 0.5, 0.2]
    table = pairs(f1_validation=scores, f1_test=scores).assign(threshold_split="train")
    of = one_table(table)
    of.content = {"results": {"concept_alignment": {"numbers": {}}}}
    assert drawn("winners_curse", of).get_xlabel() == "F1 on train memes, which chose"


def test_pairs_of_the_published_protocol_alone_are_not_drawn():
    table = pairs(log10_p=[-9.0], q_global=[0.001], f1_validation=[0.5], f1_test=[np.nan], auroc=[0.9])
    of = one_table(table.assign(protocol="published"))
    for name in ("f1", "heatmap", "top_latents", "winners_curse"):
        with pytest.raises(NotDrawn, match="protocol=both"):
            drawn(name, of)
    assert find("decoder_map")._concepts(of) is None, "not: no latent has a concept"


def test_a_decoder_row_has_the_concept_of_its_smallest_p():
    concepts = ["weak", "strong", "nothing"] * 2
    table = pairs(concept=concepts, log10_p=[-2.5, -30, -0.1] * 2, q_global=[0.01, 1e-28, 0.8] * 2)
    table["latent"] = [0, 0, 0, 1, 1, 1]
    assert find("decoder_map")._concepts(one_table(table)) == {0: "strong", 1: "strong"}


def test_the_best_latent_was_chosen_on_validation_memes(inputs: Inputs):
    axes = drawn("f1", inputs)
    table = inputs.table("concept_alignment")
    table = table[(table.protocol == "corrected")].dropna(subset=["f1_validation", "f1_test"])
    best = [rows.loc[rows.f1_validation.idxmax()] for _, rows in table.groupby("concept", sort=False)]
    points = next(line for line in axes.lines if line.get_label() == "best latent")
    assert points.get_xdata().tolist() == pytest.approx([row.f1_test for row in best])


def test_the_loss_of_the_chosen_is_told_apart_from_the_shift_between_the_splits(inputs: Inputs):
    title = drawn("winners_curse", inputs).get_title(loc="left").replace("\n", " ")
    lost, selection, shift = (float(number) for number in re.findall(r"-?\d\.\d{3}", title))
    numbers: Any = pd.Series(inputs.content["results"]["concept_alignment"]["numbers"], dtype=float)
    numbers = numbers[numbers.index.str.startswith("corrected/")]
    ends = [f"/best_winners_curse{part}" for part in ("", "_selection", "_shift")]
    expected = [numbers[numbers.index.str.endswith(end)].mean() for end in ends]
    assert [lost, selection, shift] == pytest.approx(expected, abs=5e-4)
    assert f"{selection:.3f} by selection, {shift:.3f} by the shift between the splits" in title


def test_latents_without_a_match_keep_their_place():
    table = pd.DataFrame({"alive": [True] * 100 + [False], "seed_1/cosine": [0.99] * 10 + [np.nan] * 91})
    axes = drawn("stability", one_table(table))
    assert axes.lines[0].get_xdata().tolist() == pytest.approx([rank / 100 for rank in range(1, 11)])
    assert axes.get_xlim() == (0, 1)


def test_the_title_counts_latents_above_their_control(inputs: Inputs):
    axes = drawn("influence", inputs)
    table = inputs.table("influence")
    rows = table[(table.kind == "ablation") & table.published & (table["head"] == "probe") & (table.n_active > 0)]
    share = (rows.delta_all.abs() > rows.delta_random.abs()).mean()
    assert f"{share:.0%} of the" in axes.get_title(loc="left"), "of two classes"


def test_a_label_of_many_classes_is_not_above_its_control_by_choice():
    """Nothing but noise: four classes and four random steps; a quarter of the latents is silent."""
    rng = np.random.default_rng(0)
    n, classes = 1000, 4
    delta, random = rng.standard_normal((n, classes)), np.abs(rng.standard_normal((4, n, classes))).mean(0)
    published = np.abs(delta).argmax(1)[:, None] == np.arange(classes)
    fires = np.repeat(np.arange(n) % 4 > 0, classes)
    table = pd.DataFrame({"latent": np.repeat(np.arange(n), classes), "delta_all": delta.ravel() * fires})
    table = table.assign(delta_random=random.ravel() * fires, n_active=fires, published=published.ravel())
    table = table.assign(task="a", kind="ablation", multiplier=0.0, route="latent", head="probe")
    title = drawn("influence", one_table(table)).get_title(loc="left").replace("\n", " ")
    assert 40 <= int(re.findall(r"(\d+)%", title)[0]) <= 55


def test_the_influence_of_dead_latents_is_not_drawn():
    table = pd.DataFrame({"kind": ["ablation"], "route": "latent", "head": "probe", "n_active": 0})
    assert find("influence").panels(one_table(table.assign(kind="steering", multiplier=2.0))) == [
        {"kind": "steering", "multiplier": 2.0}
    ], "no ablation was measured"
    with pytest.raises(NotDrawn, match="no latent fires"):
        drawn("influence", one_table(table.assign(delta_random=0.0, delta_all=0.0, task="a", latent=0)))


def test_the_modalities_of_one_latent_are_those_of_its_top_memes():
    rows = pd.DataFrame({"latent": [7, 7, 8], "kind": ["top", "quantile", "top"], "caption_local": [1.0, 2.0, 3.0]})
    of: Any = SimpleNamespace(attributions=rows, called=lambda latent: f"latent {latent}")
    axes = drawn("modalities", of, latent=7)
    assert axes.get_title(loc="left") == "1 top memes of latent 7"
    assert axes.lines[0].get_xdata().tolist() == [1.0]
    assert drawn("modalities", of).get_title(loc="left") == "2 top memes of 2 latents"


def test_pairs_that_pass_are_counted_as_their_protocol_does():
    table = pd.DataFrame({"baseline": ["sae", "sae"], "protocol": ["corrected", "published"]})
    table = table.assign(share_of_tests_global=[0.1, 0.2], share_of_tests_concept=[0.3, 0.4])
    of = one_table(table)
    of.content = {"options": {"options": {"baselines": {"alpha": 0.01}}}}
    axes = drawn("protocols", of)
    assert [bar.get_width() for bar in axes.patches] == [0.1, 0.4]
    assert axes.get_title(loc="left") == "Pairs with q < 0.01: no measure of quality"
    of.content = {"options": {}}
    assert "q < 0.05" in drawn("protocols", of).get_title(loc="left")


def test_dead_latents_are_counted(inputs: Inputs):
    latents, rows = inputs.latents, inputs.latents.csr()
    dead = sum(rows[:, [i]].nnz == 0 for i in range(latents.d_sae))
    assert drawn("density", inputs).get_title(loc="left") == f"{dead} of {D_SAE} latents never fire"


def test_a_latent_without_captions_among_its_strongest_memes_stops_no_other():
    rows = pd.DataFrame({"latent": [0, 0, 1], "kind": ["top", "quantile", "top"], "rank": 0})
    rows["words"], rows["word_scores"] = [[], ["cat"], ["dog"]], [[], [9.0], [1.0]]
    assert find("tokens").panels(SimpleNamespace(attributions=rows)) == [{"latent": 1}]


def test_words_are_coloured_by_their_score(inputs: Inputs):
    axes = drawn("tokens", inputs, latent=0)
    words = {text.get_text(): text.get_bbox_patch().get_facecolor() for text in axes.texts}
    red, blue = words[r"\$cat"], words["dog"]
    assert red[0] > red[2], "the latent fires less without it"
    assert blue[2] > blue[0]
    assert len(axes.texts) == 2 * 4


def test_pictures_are_blurred_unless_asked_for(inputs: Inputs):
    rng = np.random.default_rng(0)
    noise = Pillow.fromarray(rng.integers(0, 256, (160, 160, 3), dtype=np.uint8))
    rows, places = inputs._pictures
    sharp = Inputs(inputs.evaluation, attribution=inputs.attribution, corpus=inputs.corpus)
    sharp.__dict__["_pictures"] = ([{"image": noise}] * len(rows), places)
    blurred, shown = (drawn("top_memes", sharp, latent=0, reveal=reveal) for reveal in (False, True))
    assert np.std(blurred.images[0].get_array()) < 0.2 * np.std(shown.images[0].get_array())
    assert blurred.get_title(loc="left").endswith("blurred")


def test_the_three_strongest_regions_are_outlined(inputs: Inputs):
    axes = drawn("top_memes", inputs, latent=1, n=1)
    corners = [(round((p.get_x() - 0.02) * 7 / 0.96), round((p.get_y() - 0.02) * 7 / 0.96)) for p in axes.patches]
    assert corners == [(6, 6), (5, 6), (4, 6)]  # scores rise from the first patch to the last


@pytest.mark.parametrize(("view", "middle", "top"), [("whole", 40, 160), ("centre", 160, 160), ("padded", 40, 0)])
def test_a_picture_shows_what_its_patches_divide(inputs: Inputs, view: str, middle: int, top: int):
    """A picture of 400 x 100 whose middle 100 columns are white: how much of the panel is white along and across."""
    wide = np.full((100, 400, 3), (255, 0, 0), dtype=np.uint8)
    wide[:, 150:250] = 255
    rows, places = inputs._pictures
    of_view = Inputs(inputs.evaluation, attribution=inputs.attribution, corpus=inputs.corpus)
    of_view.__dict__ |= {"view": view, "_pictures": ([{"image": Pillow.fromarray(wide)}] * len(rows), places)}
    shown = np.asarray(drawn("top_memes", of_view, latent=0, n=1, reveal=True).images[0].get_array())
    white = shown[..., 1] > 128
    assert white[80].sum() == pytest.approx(middle, abs=2)
    assert white[:20, 80].sum() * 8 == pytest.approx(top, abs=2)


def test_what_the_patches_divide_is_that_of_the_attribution(inputs: Inputs, tmp_path: Path):
    made = read_finished(inputs.evaluation, "evaluate")["fingerprint"]
    with StepFolder(
        tmp_path / "attribution", "attribute", {part: made[part] for part in ("sae", "embeddings")}
    ) as step:
        step.finish(view="centre")
    assert Inputs(inputs.evaluation, attribution=tmp_path / "attribution").view == "centre"
    assert inputs.view == "whole"


def test_foreign_text_is_no_mathematics(inputs: Inputs):
    axes = drawn("f1", inputs)
    axes.figure.canvas.draw()
    assert any(r"\$x^2\$ <b>" in tick.get_text() for tick in axes.get_yticklabels())


def test_the_memes_of_the_map_are_those_of_the_evaluation(tmp_path: Path):
    memes = make_embeddings(
        {"hook_fused": np.eye(8)}, splits=["train"] * 4 + ["test"] * 4, labels={"group": ["a"] * 5 + list("bcd")}
    )
    with StepFolder(tmp_path, "evaluate", {"options": {"exclude_leaks": True}}) as step:
        step.finish()
    assert Inputs(tmp_path, embeddings=memes).memes.held_out()[1].tolist() == [5, 6, 7], (
        "row 4 is a copy of train memes"
    )


def test_long_and_hostile_names_are_drawn_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Each of 70 classes has its colour, and what stands out of the figure is not cut."""
    values = [rf"$\nothing$ {i} {'long ' * 20}" for i in range(70)]
    memes = make_embeddings({"hook_fused": np.eye(80)}, splits=["test"] * 80, labels={"kind": (values * 2)[:80]})
    of: Any = SimpleNamespace(memes=memes, content={"sae": {"hook": "hook_fused"}}, seed=0)
    monkeypatch.setattr(find("memes_map"), "project", lambda x, seed: x[:, :2])
    axes = drawn("memes_map", of, space="h")
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert len(texts) == 70
    assert max(len(line) for text in texts for line in text.splitlines()) < 45
    axes.get_legend().remove()
    axes.set_title("a title of which the half does not fit " * 4, loc="left")
    axes.figure.set_size_inches(3, 2)
    save(axes.figure, tmp_path / "wide.png", "png")
    assert Pillow.open(tmp_path / "wide.png").width > 3 * axes.figure.dpi * 1.5


@pytest.mark.whole
def test_a_projection_keeps_neighbours():
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((4, 20)) * 5
    x = np.repeat(centres, 20, axis=0) + 0.1 * rng.standard_normal((80, 20))
    points = project(x)
    for i in range(80):
        nearest = np.argsort(((points - points[i]) ** 2).sum(axis=1))[:10]
        assert set(nearest // 20) == {i // 20}
    np.testing.assert_array_equal(points, project(x))


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_few_points_are_placed_by_principal_components(n: int):
    x = np.random.default_rng(0).standard_normal((n, 7))
    points = project(x)
    assert points.shape == (n, 2)
    if n == 5:
        scores = (x - x.mean(0)) @ np.linalg.svd(x - x.mean(0))[2].T
        np.testing.assert_allclose(np.abs(points), np.abs(scores[:, :2]), atol=1e-9)
