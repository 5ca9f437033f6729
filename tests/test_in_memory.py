"""From arrays and a table to a result, without a folder: the same numbers as through folders."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from arrays import anisotropic
from datasets import Array2D, ClassLabel, Dataset, Features, Value
from datasets import Image as ImageFeature
from evaluations import FEW
from PIL import Image
from tiny_sae import tiny_sae

from sae_lens_meme import Embeddings, as_embeddings, embed_arrays, measure
from sae_lens_meme.errors import BadTableError, ConfigError, DataError, NonFiniteError
from sae_lens_meme.evaluators import evaluate
from sae_lens_meme.evaluators.opened import load_sae
from sae_lens_meme.labels import SPLITS

N = 300
RNG = np.random.default_rng(0)
IMAGE, TEXT = anisotropic(N, 16, RNG), anisotropic(N, 16, RNG)
HATE = [None if i % 7 == 0 else int(IMAGE[i, 4] > np.median(IMAGE[:, 4])) for i in range(N)]
KIND = [None if i % 9 == 0 else ("cat", "dog")[i % 2] for i in range(N)]
SPLIT = [("train", "train", "train", "validation", "test")[i % 5] for i in range(N)]
COLUMNS = {"id": [f"m{i}" for i in range(N)], "split": SPLIT, "hate": HATE, "kind": KIND}
ONLY: Any = {"only": ["contest", "reconstruction"], "bootstrap": 5, "evaluators": {"contest": FEW["contest"]}}


def same_memes(one: Any, other: Any) -> None:
    assert one.hooks == other.hooks
    assert one.label_names == other.label_names
    for hook in one.hooks:
        np.testing.assert_array_equal(one.take(hook, np.arange(N)), other.take(hook, np.arange(N)))
    for name in one.label_names:
        a, b = one.label(name), other.label(name)
        np.testing.assert_array_equal(a.known, b.known)
        np.testing.assert_array_equal(a.values[a.known], b.values[b.known])
    assert one.splits.tolist() == other.splits.tolist()
    assert one.ids.tolist() == other.ids.tolist()


@pytest.fixture(scope="module")
def from_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("memory")
    np.save(folder / "image.npy", IMAGE)
    np.save(folder / "text.npy", TEXT)
    pd.DataFrame(COLUMNS).astype({"hate": "Int64"}).to_csv(folder / "rows.csv", index=False)
    paths: Any = {"image_embeds": folder / "image.npy", "text_embeds": folder / "text.npy"}
    embed_arrays(folder / "embeddings", table=folder / "rows.csv", **paths)
    tiny_sae(as_embeddings(image=IMAGE, text=TEXT).take("hook_fused", np.arange(N)), d_sae=24, k=4).save_model(folder / "sae")  # fmt: skip
    return folder


def tables() -> dict[str, Any]:
    frame = pd.DataFrame(COLUMNS)  # `hate` is float64 with NaN here, as pandas has it
    levels = Features(
        {name: Value("string") for name in ("id", "split", "kind")} | {"hate": ClassLabel(names=["no", "yes"])}
    )
    dataset = Dataset.from_dict(COLUMNS, features=levels)  # a missing code stays missing
    return {
        "pandas": frame,
        "columns": COLUMNS,
        "rows": frame.astype({"hate": "Int64"}).astype(object).where(frame.notna(), None).to_dict("records"),
        "pyarrow": pa.table(COLUMNS),
        "dataset": dataset,
        "dataset in another order": dataset.select(range(N - 1, -1, -1)).select(range(N - 1, -1, -1)),
    }


@pytest.mark.parametrize("kind", tables())
def test_every_kind_of_table_is_the_file(kind: str, from_disk: Path):
    same_memes(as_embeddings(tables()[kind], image=IMAGE, text=TEXT), Embeddings.load(from_disk / "embeddings"))


def test_a_polars_frame_is_the_file(from_disk: Path):
    polars = pytest.importorskip("polars", reason="polars is not installed")
    same_memes(as_embeddings(polars.DataFrame(COLUMNS), image=IMAGE, text=TEXT), Embeddings.load(from_disk / "embeddings"))  # fmt: skip


@pytest.mark.parametrize(
    "given", [torch.from_numpy(IMAGE), IMAGE[:, None, :], IMAGE.astype(np.float64), torch.from_numpy(IMAGE).requires_grad_()]
)  # fmt: skip
def test_arrays_and_tensors_of_any_precision(given: Any):
    np.testing.assert_array_equal(as_embeddings(image=given).take("hook_image_embed", np.arange(N)), IMAGE)


def test_half_precision_tensors_are_widened():
    half = torch.from_numpy(IMAGE).bfloat16()
    np.testing.assert_array_equal(as_embeddings(fused=half).take("hook_fused", np.arange(N)), half.float().numpy())


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (torch.ones(2, 3, dtype=torch.complex64), "holds a torch.complex64 tensor of layout torch.strided; give a dense"),
        (torch.eye(3).to_sparse(), "tensor of layout torch.sparse_coo; give a dense one of real numbers"),
        (torch.ones(2, 3, device="meta"), "is not a matrix "),
        (np.ma.array(np.ones((2, 3)), mask=[[1, 0, 0], [0, 0, 0]]), "has masked values; fill them"),
        (np.ones((2, 3), "m8[s]"), r"has shape \(2, 3\) and type timedelta64\[s\]; a matrix"),
        (np.ones((2, 3), "M8[s]"), "type datetime64"),
        (np.ones((2, 3), "c8"), "type complex64"),
        (np.ones((2, 3), bool), "type bool"),
        ([[1, 2], [1]], "is not a matrix .*; give one vector a meme, all of one width"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("error")
def test_what_is_no_matrix_of_real_numbers_is_one_line(vectors: Any, message: str):
    with pytest.raises(DataError, match=f"^hook_fused: .*{message}") as caught:
        as_embeddings(fused=vectors)
    assert "\n" not in str(caught.value)


def test_a_duration_in_a_file_is_no_number(tmp_path: Path):
    np.save(tmp_path / "x.npy", np.ones((2, 3), "m8[s]"))
    (tmp_path / "t.csv").write_text("id\na\nb\n")
    with pytest.raises(DataError, match=r"type timedelta64\[s\]; a matrix"):
        embed_arrays(tmp_path / "e", table=tmp_path / "t.csv", fused_embeds=tmp_path / "x.npy")


def test_labels_are_tensors_or_masked_arrays_too():
    hate = [0, 1, 1, 0]
    masked = np.ma.array([9, 1, 1, 0], mask=[1, 0, 0, 0])
    memes = as_embeddings({"hate": torch.tensor(hate), "kind": masked}, fused=IMAGE[:4])
    assert memes.label("hate").values.tolist() == hate
    assert memes.label("kind").known.tolist() == [False, True, True, True]
    assert memes.label("kind").classes == [0, 1]
    unmasked = as_embeddings(fused=np.ma.array(IMAGE))
    np.testing.assert_array_equal(unmasked.take("hook_fused", np.arange(N)), IMAGE)


def test_a_named_index_is_a_column():
    frame = pd.DataFrame(COLUMNS)
    for table in (frame.set_index("id"), frame.set_index("id", drop=False), frame.set_index(["id", "split"])):
        memes = as_embeddings(table, fused=IMAGE)
        assert memes.ids.tolist() == COLUMNS["id"]
        assert memes.splits.tolist() == SPLIT
    unnamed = frame.set_index(pd.Index(range(5, N + 5)))
    assert as_embeddings(unnamed, fused=IMAGE).label_names == ("hate", "kind")


def test_without_a_split_memes_are_held_out_and_groups_stay_together():
    groups = [f"template {i // 3}" for i in range(N)]
    memes = as_embeddings({"group": groups}, fused=IMAGE, holdout=0.2)
    shares = [len(memes.rows(split)) / N for split in SPLITS]
    np.testing.assert_allclose(shares, (0.6, 0.2, 0.2), atol=0.1)
    splits = pd.DataFrame({"group": groups, "split": memes.splits})
    assert (splits.groupby("group")["split"].nunique() == 1).all()
    again = as_embeddings({"group": groups[:60]}, fused=IMAGE[:60], holdout=0.2)
    assert again.splits.tolist() == memes.splits[:60].tolist(), "a split depends on no other meme"


@pytest.mark.parametrize("missing", [None, "", " ", "NA", "nan", "None"])
def test_memes_without_a_group_are_split_each_for_itself(missing: str | None):
    alone = as_embeddings(fused=IMAGE).splits.tolist()
    assert as_embeddings({"group": [missing] * N}, fused=IMAGE).splits.tolist() == alone
    some = as_embeddings({"group": [missing if i % 2 else "a" for i in range(N)]}, fused=IMAGE).splits.tolist()
    assert some[1::2] == alone[1::2]
    assert len(set(some[::2])) == 1


def test_a_missing_source_is_one_source_however_it_is_spelled():
    cells = ["a", None, "", " ", "NA", "nan", "None"]
    table = {"source": cells, "hook_fused": IMAGE[: len(cells), None]}
    kinds = Features({"source": Value("string"), "hook_fused": Array2D((1, 16), "float32")})
    for memes in (as_embeddings({"source": cells}, fused=IMAGE[: len(cells)]), Embeddings.from_dataset(Dataset.from_dict(table, features=kinds))):  # fmt: skip
        assert memes.sources.tolist() == ["a"] + ["all"] * 6
    kinds["source"] = ClassLabel(names=["a", "NA"])
    coded = Embeddings.from_dataset(Dataset.from_dict(table | {"source": [0, 1, -1, None, 0, 0, 0]}, features=kinds))
    assert coded.sources.tolist() == ["a", "all", "all", "all", "a", "a", "a"]


def test_the_result_is_that_of_the_folders(from_disk: Path, tmp_path: Path):
    written = evaluate(from_disk / "sae", from_disk / "embeddings", out=tmp_path / "E", progress=False, **ONLY)
    memes = as_embeddings(pd.DataFrame(COLUMNS), image=IMAGE, text=TEXT)
    found = measure(from_disk / "sae", memes, progress=False, **ONLY)
    for name, result in written["results"].items():
        assert found[name].numbers == result["numbers"]
    assert found.content["table"] == written["table"]
    assert found.rows["measure"].tolist() == [row["measure"] for row in written["table"]]
    assert found["contest"].verdict in " ".join(str(found).split())


def test_a_notebook_shows_tables_and_no_foreign_tag(from_disk: Path):
    hostile = "<script>alert(1)</script>"
    table = {**COLUMNS, "kind": [hostile if i % 2 else "dog" for i in range(N)]}
    found = measure(from_disk / "sae", as_embeddings(table, image=IMAGE, text=TEXT), progress=False, **ONLY)
    shown = found._repr_html_()
    assert "<table>" in shown
    assert "<script" not in shown
    assert "<html" not in shown


def test_the_figure_is_drawn(from_disk: Path, tmp_path: Path):
    memes = as_embeddings(COLUMNS, image=IMAGE, text=TEXT)
    found = measure(from_disk / "sae", memes, progress=False, **ONLY)
    assert found.figure(tmp_path / "contest.png").read_bytes()[:4] == b"\x89PNG"
    assert [axes.get_title(loc="left") for axes in found.figure().axes], "without a path a matplotlib figure"
    plain = measure(from_disk / "sae", memes, progress=False, only=["reconstruction"])
    with pytest.raises(ConfigError, match="reconstruction: has no figure"):
        plain.figure(tmp_path / "none.png")
    with pytest.raises(ConfigError, match="no result of 'contest': it has reconstruction"):
        plain["contest"]


def test_an_sae_is_not_its_own_other_seed(from_disk: Path, tmp_path: Path):
    """Neither itself, nor a copy with other norms; nor is one of the others counted twice."""
    memes = as_embeddings(COLUMNS, image=IMAGE, text=TEXT)
    sae, scaled = (load_sae(from_disk / "sae", "hook_fused") for _ in range(2))
    scaled.W_dec.data *= torch.rand(24, 1) + 1  # as other conventions scale it
    other = tiny_sae(memes.take("hook_fused", np.arange(N)), d_sae=24, k=4, seed=1)
    ask: Any = {"only": ["stability"], "bootstrap": 0, "progress": False}
    for copy in (sae, scaled):
        with pytest.raises(
            ConfigError, match=r"^other SAE 'a': is the SAE that is evaluated, with which it would agree"
        ):
            measure(sae, memes, other_saes={"b": other, "a": copy}, **ask)
    with pytest.raises(ConfigError, match=r"^other SAE 'a': is 'b', with which"):
        measure(sae, memes, other_saes={"b": other, "a": other}, **ask)
    with pytest.raises(ConfigError, match=r"^other SAE 'sae': is the SAE that is evaluated"):
        evaluate(from_disk / "sae", from_disk / "embeddings", out=tmp_path / "E", other_saes=[from_disk / "sae"], **ask)
    assert not (tmp_path / "E").exists()
    assert measure(sae, memes, other_saes={"b": other}, **ask)["stability"].numbers


def test_an_sae_is_left_as_it_was():
    memes = as_embeddings(COLUMNS, fused=IMAGE)
    sae = tiny_sae(IMAGE, d_sae=24, k=4)
    sae.cfg.metadata.hook_name = None
    with pytest.raises(ConfigError, match="this SAE names no hook; pass hook=, one of hook_fused"):
        measure(sae, memes, only=["reconstruction"])
    assert measure(sae, memes, only=["reconstruction"], hook="hook_fused", progress=False)["reconstruction"].numbers
    assert sae.cfg.metadata.hook_name is None


@pytest.mark.parametrize(
    ("table", "vectors", "error", "message"),
    [
        (None, {}, DataError, "no vectors were given"),
        (3, {"fused": IMAGE}, BadTableError, "table: is a int; give a DataFrame"),
        ({"id": ["a", "a"]}, {"fused": IMAGE[:2]}, BadTableError, "1 ids occur twice"),
        ({"id": ["a"]}, {"fused": IMAGE[:2]}, DataError, "2 vectors and the table 1 rows"),
        ({"id": ["a", "b"], "split": ["train", "tset"]}, {"fused": IMAGE[:2]}, BadTableError, "row 2: split 'tset'"),
        ({"hate": [0, "x", 1.5]}, {"fused": IMAGE[:3]}, BadTableError, "give each column values of one kind"),
        ({"hate": [0], "kind": [1, 2]}, {"fused": IMAGE[:2]}, BadTableError, "cannot be read"),
        (None, {"fused": [[1.0, np.nan]]}, NonFiniteError, "row 0"),
        (None, {"fused": [1.0, 2.0]}, DataError, r"hook_fused: has shape \(2,\)"),
        (None, {"fused": [["a"]]}, DataError, "a matrix"),
        (None, {"image": IMAGE, "text": TEXT[:, :8]}, DataError, "16 dimensions and text embeddings 8"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(table: Any, vectors: Any, error: type, message: str):
    with pytest.raises(error, match=message) as caught:
        as_embeddings(table, **vectors)
    assert "\n" not in str(caught.value)


BYTES = [cell.encode() for cell in ("a", "b")]


@pytest.mark.parametrize("name", ["id", "split", "text", "group", "source", "hate", "sentiment"])
def test_bytes_are_neither_names_nor_captions_nor_labels(name: str, tmp_path: Path):
    """Such a column would be left out without a word."""
    table = pa.table({"id": ["a", "b"], name: BYTES} if name != "id" else {"id": BYTES})
    message = rf"column '{name}' holds bytes; write text, or leave it out$"
    with pytest.raises(DataError, match=f"^table: {message}"):
        as_embeddings(table, fused=IMAGE[:2])
    with pytest.raises(DataError, match=f"^table: {message}"):  # as Parquet has UUIDs
        as_embeddings(table.set_column(table.column_names.index(name), name, pa.array(BYTES, pa.binary(1))), fused=IMAGE[:2])  # fmt: skip
    pq.write_table(table, tmp_path / "t.parquet")
    np.save(tmp_path / "x.npy", IMAGE[:2])
    with pytest.raises(DataError, match=rf"t\.parquet: {message}"):
        embed_arrays(tmp_path / "e", table=tmp_path / "t.parquet", fused_embeds=tmp_path / "x.npy")
    kinds = Features({name: Value("binary"), "hook_fused": Array2D((1, 16), "float32")})
    with pytest.raises(DataError, match=f"^embeddings: {message}"):
        Embeddings.from_dataset(Dataset.from_dict({name: BYTES, "hook_fused": IMAGE[:2, None]}, features=kinds))


@pytest.mark.parametrize("column", ["Split", " split", "ID", "Hate", "TEXT "])
def test_a_column_that_is_called_almost_as_ours_is_named(column: str, tmp_path: Path):
    name = column.strip().lower()
    table = {"id": ["a", "b"], "topic": [0, 1], column: ["train", "test"]}
    if name == "id":
        del table["id"]
    message = rf"the header has '{column}' for '{name}'; rename it$"
    with pytest.raises(BadTableError, match=f"^table: {message}"):
        as_embeddings(table, fused=IMAGE[:2])
    pd.DataFrame(table).to_csv(tmp_path / "t.csv", index=False)
    np.save(tmp_path / "x.npy", IMAGE[:2])
    with pytest.raises(BadTableError, match=rf"t\.csv: {message}"):
        embed_arrays(tmp_path / "e", table=tmp_path / "t.csv", fused_embeds=tmp_path / "x.npy")
    kinds = Features({column: Value("string"), "hook_fused": Array2D((1, 16), "float32")})
    with pytest.raises(DataError, match=rf"^embeddings: there is a column '{column}' for '{name}'; rename it$"):
        Embeddings.from_dataset(Dataset.from_dict({column: ["a", "b"], "hook_fused": IMAGE[:2, None]}, features=kinds))


def test_all_columns_that_are_called_almost_as_ours_are_named_at_once():
    table = {"ID": ["a", "b"], "Split": ["train"] * 2, "Hate": [0, 1]}
    found = "'ID' for 'id' and 'Split' for 'split' and 'Hate' for 'hate'; rename it$"
    with pytest.raises(BadTableError, match=f"^table: the header has {found}"):
        as_embeddings(table, fused=IMAGE[:2])
    with pytest.raises(DataError, match=f"^embeddings: there is a column {found}"):
        Embeddings.from_dataset(Dataset.from_dict(table))


def test_other_bytes_are_left_out(tmp_path: Path):
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2)).save(buffer, "PNG")
    drawn = [None, buffer.getvalue()]
    columns = {"id": ["a", "b"], "image": [b"?", b"?"], "jpg": drawn, "phash": [b"12345678"] * 2, "hate": [0, 1]}
    assert as_embeddings(columns, fused=IMAGE[:2]).label_names == ("hate",)
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    np.save(tmp_path / "x.npy", IMAGE[:2])
    memes = embed_arrays(tmp_path / "e", table=tmp_path / "t.parquet", fused_embeds=tmp_path / "x.npy")
    assert memes.label_names == ("hate",)
    kinds = Features({"jpg": Value("binary"), "png": ImageFeature(), "hook_fused": Array2D((1, 16), "float32")})
    columns = {"jpg": drawn, "png": [{"bytes": drawn[1], "path": None}] * 2, "hook_fused": IMAGE[:2, None]}
    assert Embeddings.from_dataset(Dataset.from_dict(columns, features=kinds)).label_names == ()


def test_byte_strings_of_numpy_are_text_and_what_arrow_cannot_hold_is_one_line():
    split, text = np.array(["train", "test"], dtype="S5"), np.char.encode(["é", "b"], "utf-8")
    memes = as_embeddings({"split": split, "text": text, "hate": [0, 1]}, fused=IMAGE[:2])
    assert memes.splits.tolist() == ["train", "test"]
    assert memes.texts is not None
    assert memes.texts.tolist() == ["é", "b"]
    with pytest.raises(BadTableError, match="table: cannot be read"):
        as_embeddings({"text": np.array([b"\xff", b"b"])}, fused=IMAGE[:2])
    with pytest.raises(BadTableError, match="Python int too large"):
        as_embeddings({"user": [2**63, 1]}, fused=IMAGE[:2])


def test_an_sae_is_trained_in_memory(tmp_path: Path):
    from sae_lens_meme.train import train

    memes = as_embeddings(COLUMNS, image=IMAGE, text=TEXT)
    recipe = {"epochs": 2, "train_batch_size_tokens": 50, "sae": {"d_sae": 24, "k": 4}}
    sae: Any = train(recipe, embeddings=memes, progress=False)
    kept: Any = train(recipe, embeddings=memes, out=tmp_path / "sae", progress=False)
    torch.testing.assert_close(sae.W_dec, kept.W_dec, rtol=0, atol=0)
    assert measure(sae, memes, progress=False, only=["reconstruction"], bootstrap=0)["reconstruction"].numbers


def test_figures_are_drawn_of_what_is_in_memory(from_disk: Path, tmp_path: Path):
    from sae_lens_meme.evaluators.opened import load_sae
    from sae_lens_meme.figures import Inputs, write_figures

    only: Any = {"only": ["concept_alignment", "reconstruction"], "bootstrap": 0}
    memes = as_embeddings(COLUMNS, image=IMAGE, text=TEXT)
    found = measure(load_sae(from_disk / "sae", "hook_fused"), memes, progress=False, **only)
    evaluate(from_disk / "sae", from_disk / "embeddings", out=tmp_path / "E", progress=False, hook="hook_fused", **only)
    names = ["heatmap", "density", "decoder_map", "training"]
    reasons = write_figures(Inputs(found), tmp_path / "memory", only=names, progress=False)
    folders = Inputs(tmp_path / "E", from_disk / "sae", from_disk / "embeddings")
    write_figures(folders, tmp_path / "folders", only=names, progress=False)
    assert reasons.pop("training") == "it needs the training log; give the folder of the SAE"
    assert set(reasons.values()) == {None}
    for name in reasons:
        assert (tmp_path / "memory" / f"{name}.png").read_bytes() == (tmp_path / "folders" / f"{name}.png").read_bytes()


def test_what_was_measured_in_memory_is_saved_as_the_steps_save_it(from_disk: Path, tmp_path: Path):
    """So that the export, the report and every command read it."""
    from sae_lens_meme.dashboard import write_dashboard
    from sae_lens_meme.evaluators.opened import load_sae
    from sae_lens_meme.export import export

    memes = as_embeddings(COLUMNS, image=IMAGE, text=TEXT)
    sae = load_sae(from_disk / "sae", "hook_fused")
    sae.cfg.metadata.hook_name = None
    sae.W_enc.data = sae.W_enc.data.T.contiguous().T  # as a tied one: no view that safetensors writes
    saved = measure(sae, memes, progress=False, hook="hook_fused", **ONLY).save(tmp_path / "run")
    assert sae.cfg.metadata.hook_name is None
    kept: Any = {"sae": saved / "sae", "embeddings": saved / "embeddings"}
    same_memes(Embeddings.load(saved / "embeddings"), memes)
    evaluate(**kept, out=tmp_path / "E", progress=False, **ONLY)
    for name in ("numbers.parquet", "contest.parquet", "latents.safetensors", "evaluation.png"):
        assert (saved / "evaluation" / name).read_bytes() == (tmp_path / "E" / name).read_bytes()
    evaluate(**kept, out=saved / "evaluation", progress=False, hook="hook_fused", **ONLY)  # done already
    assert list(export(saved / "evaluation", **kept, out=tmp_path / "export", progress=False, model="mine").iterdir())
    assert write_dashboard(saved / "evaluation", **kept, out=tmp_path / "report", progress=False)
