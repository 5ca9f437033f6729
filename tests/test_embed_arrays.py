"""Arrays and a table become embeddings: every kind of file, every way in which they can be wrong."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from arrays import OUTLIER_SHARES, anisotropic, make_embeddings
from datasets import Array2D, Dataset, Features, load_from_disk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sae_lens import SAE
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_tensors

from sae_lens_meme.embed import embed_arrays
from sae_lens_meme.embed.arrays import read_array
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import BadTableError, DataError, MemeError, NonFiniteError, StorageError
from sae_lens_meme.train import train

N, D = 40, 6
RNG = np.random.default_rng(0)
IMAGE, TEXT = RNG.standard_normal((2, N, D)).astype(np.float32)
TABLE = "id,source,split,hate,kind,text\n" + "".join(
    f"m{i},{'a' if i % 2 else 'b'},{('train', 'val', 'test')[i % 3]},{'' if i % 4 == 0 else i % 2},{'cat' if i % 5 else ''},NA\n"
    for i in range(N)
)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    np.save(tmp_path / "image.npy", IMAGE)
    np.save(tmp_path / "text.npy", TEXT)
    (tmp_path / "rows.csv").write_text(TABLE)
    return {
        "image_embeds": tmp_path / "image.npy",
        "text_embeds": tmp_path / "text.npy",
        "table": tmp_path / "rows.csv",
    }


def test_fused_is_the_product_of_the_unit_vectors(files: dict[str, Path], tmp_path: Path):
    embeddings = embed_arrays(out=tmp_path / "e", **files)
    rows = [7, 0, 39]
    for row, fused in zip(rows, embeddings.take("hook_fused", rows), strict=True):
        image, text = IMAGE[row].astype(float), TEXT[row].astype(float)
        expected = [i / (image @ image) ** 0.5 * t / (text @ text) ** 0.5 for i, t in zip(image, text, strict=True)]
        np.testing.assert_allclose(fused, expected, rtol=1e-6)
    np.testing.assert_array_equal(embeddings.take("hook_image_embed", range(N)), IMAGE)


def test_missing_labels_are_null_and_captions_untouched(files: dict[str, Path], tmp_path: Path):
    embeddings = embed_arrays(out=tmp_path / "e", **files)
    hate, kind = embeddings.label("hate"), embeddings.label("kind")
    assert hate.known.tolist() == [i % 4 != 0 for i in range(N)]
    assert [int(v) for v in hate.values[hate.known]] == [i % 2 for i in range(N) if i % 4]
    assert kind.classes == ["cat"]
    assert kind.known.sum() == sum(i % 5 != 0 for i in range(N))
    assert embeddings.label_names == ("hate", "kind")
    assert set(embeddings.splits) == {"train", "validation", "test"}
    assert embeddings.texts is not None
    assert set(embeddings.texts) == {"NA"}


def test_the_layout_is_the_one_saelens_reads(files: dict[str, Path], tmp_path: Path):
    embed_arrays(out=tmp_path / "e", **files)
    dataset = load_from_disk(str(tmp_path / "e"))
    assert dataset.features["hook_fused"].shape == (1, D)
    assert dataset.with_format("torch")[:3]["hook_fused"].shape == (3, 1, D)


@pytest.mark.parametrize("kind", ["npy", "safetensors", "safetensors:vectors", "pt", "pt:vectors", "dataset"])
def test_every_kind_of_file_gives_the_same_matrix(tmp_path: Path, kind: str):
    path = tmp_path / f"x.{kind.split(':')[0]}"
    if kind == "npy":
        np.save(path, IMAGE)
    elif kind.startswith("safetensors"):
        save_file({"vectors": IMAGE} | ({"other": TEXT} if ":" in kind else {}), path)
    elif kind == "pt":
        torch.save(torch.from_numpy(IMAGE), path)
    elif kind == "pt:vectors":
        torch.save({"vectors": torch.from_numpy(IMAGE), "other": torch.zeros(2, 2)}, path)
    else:
        make_embeddings({"hook_fused": IMAGE}).dataset.save_to_disk(path)
    key = {"dataset": ":hook_fused"}.get(kind, ":vectors" if ":" in kind else "")
    np.testing.assert_array_equal(read_array(f"{path}{key}"), IMAGE)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64", "float8_e4m3fn", "int8", "uint8", "int64"])
@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_every_type_of_number_is_read(tmp_path: Path, kind: str, dtype: str):
    tensor = torch.from_numpy(np.abs(IMAGE) * 20).to(getattr(torch, dtype))
    path = tmp_path / f"x.{kind}"
    save_tensors({"x": tensor}, path) if kind == "safetensors" else torch.save(tensor, path)
    read = read_array(path)
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, tensor.float().numpy())


def test_the_key_follows_the_last_colon_of_what_is_no_file(tmp_path: Path):
    folder = tmp_path / "2026-01-01T10:00"
    folder.mkdir()
    np.save(folder / "x.npy", IMAGE)
    save_tensors({"a": torch.from_numpy(IMAGE), "b": torch.from_numpy(TEXT)}, folder / "x.safetensors")
    make_embeddings({"hook_fused": TEXT}).dataset.save_to_disk(folder / "d")
    np.testing.assert_array_equal(read_array(folder / "x.npy"), IMAGE)
    np.testing.assert_array_equal(read_array(f"{folder}/x.safetensors:b"), TEXT)
    np.testing.assert_array_equal(read_array(f"{folder}/d:hook_fused"), TEXT)
    with pytest.raises(DataError, match=r"C:/x\.npy: no such file"):
        read_array("C:/x.npy")
    with pytest.raises(DataError, match="without keys; leave out :a"):
        read_array(f"{folder}/x.npy:a")


def test_another_key_of_the_same_file_is_another_result(files: dict[str, Path], tmp_path: Path):
    save_tensors({"a": torch.from_numpy(IMAGE), "b": torch.from_numpy(TEXT)}, tmp_path / "x.safetensors")
    embed_arrays(out=tmp_path / "e", fused_embeds=f"{tmp_path}/x.safetensors:a", table=files["table"])
    with pytest.raises(MemeError, match="holds a different result"):
        embed_arrays(out=tmp_path / "e", fused_embeds=f"{tmp_path}/x.safetensors:b", table=files["table"])


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(3, 2, dtype=torch.complex64),
        torch.zeros(3, 2).to_sparse(),
        torch.zeros(3, 2, device="meta"),
        [torch.zeros(3, 2)],
        {"x": [1.0, 2.0]},
        {1: torch.zeros(3, 2), 2: torch.zeros(3, 2)},
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_matrix_of_real_numbers_is_one_line(tmp_path: Path, tensor: object):
    torch.save(tensor, tmp_path / "x.pt")
    with pytest.raises(DataError, match=r"x\.pt: ") as caught:
        read_array(tmp_path / "x.pt")
    assert "\n" not in str(caught.value)


def test_vectors_of_several_positions_are_not_flattened(tmp_path: Path):
    patches = Dataset.from_dict(
        {"x": np.zeros((4, 3, 2), np.float32)}, features=Features({"x": Array2D((3, 2), "float32")})
    )
    patches.save_to_disk(tmp_path / "d")
    with pytest.raises(DataError, match=r"has shape \(4, 3, 2\)"):
        read_array(f"{tmp_path}/d:x")


class Evil:
    def __reduce__(self):
        return (Path("/tmp/sae-lens-meme-was-here").touch, ())


@pytest.mark.parametrize("kind", ["pt", "npy"])
def test_a_file_that_would_run_code_is_refused(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path = tmp_path / f"evil.{kind}"
    if kind == "pt":
        torch.save({"x": Evil()}, path)
    else:
        np.save(path, np.array([Evil()], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"cannot be read as tensors only|holds more than plain numbers"):
        read_array(path)
    assert not Path("/tmp/sae-lens-meme-was-here").exists()
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(DataError):
        read_array(path)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"image_embeds": IMAGE[:30]}, DataError, r"hook_image_embed has 30 vectors and the table 40 rows"),
        ({"text_embeds": TEXT[:, :5]}, DataError, "image embeddings have 6 dimensions and text embeddings 5"),
        (
            {"image_embeds": np.where(np.arange(N)[:, None] == 3, np.nan, IMAGE)},
            NonFiniteError,
            r"row 3 \(id 'm3'\): holds nan",
        ),
        (
            {"image_embeds": IMAGE * (np.arange(N)[:, None] != 4)},
            DataError,
            r"row 4 \(id 'm4'\): the vector has norm 0",
        ),
        ({"image_embeds": IMAGE[:, None, None]}, DataError, r"has shape \(40, 1, 1, 6\)"),
        ({"image_embeds": IMAGE[:, :0]}, DataError, "hook_image_embed has vectors of 0 dimensions"),
        ({"table": TABLE.replace("m7,", "m6,")}, BadTableError, r"1 ids occur twice, the first are \['m6'\]"),
        (
            {"table": TABLE.replace(",val,", ",dev-ish,", 1)},
            BadTableError,
            "row 2: split 'dev-ish' is not one of train, validation, test",
        ),
        ({"table": TABLE.replace("id,", "name,", 1)}, BadTableError, r"has no column 'id'; it has 'name'"),
    ],
)
def test_bad_input_is_named(files: dict[str, Path], tmp_path: Path, change: dict, error: type[MemeError], message: str):
    for name, value in change.items():
        files[name].write_text(value) if isinstance(value, str) else np.save(files[name], value)
    with pytest.raises(error, match=message):
        embed_arrays(out=tmp_path / "e", **files)


@pytest.mark.parametrize("missing", ["NA", "n/a", "NaN", "null", "None", " ", "<NA>"])
def test_every_spelling_of_missing_is_missing(files: dict[str, Path], tmp_path: Path, missing: str):
    cells = [missing if i % 4 == 0 else str(i % 2) for i in range(N)]
    words = [missing if i % 5 == 0 else "cat" for i in range(N)]
    lines = [f"m{i},{number}.0,{number},{word}\n" for i, (number, word) in enumerate(zip(cells, words, strict=True))]
    files["table"].write_text("id,gaps,hate,kind\n" + "".join(lines).replace(f"{missing}.0", missing))
    embeddings = embed_arrays(out=tmp_path / "e", **files)
    for name in ("hate", "gaps"):
        label = embeddings.label(name)
        assert label.known.tolist() == [i % 4 != 0 for i in range(N)]
        assert label.classes == [0, 1]
    assert embeddings.label("kind").classes == ["cat"]


def test_truth_values_are_numbers_and_negative_levels_stay(files: dict[str, Path], tmp_path: Path):
    lines = [f"m{i},{i % 2 == 0},{i % 3 - 2 if i % 4 else 'null'},{-1 - i % 2},{i}\n" for i in range(N)]
    files["table"].write_text("id,review,sentiment,topic,Unnamed: 0\n" + "".join(lines))
    embeddings = embed_arrays(out=tmp_path / "e", **files)
    assert embeddings.label("review").classes == [0, 1]
    assert embeddings.label("sentiment").classes == [-2, -1, 0]
    assert embeddings.label("topic").classes == [-2, -1]
    assert embeddings.label_names == ("review", "sentiment", "topic")


def test_a_code_below_the_levels_is_refused_not_counted_as_a_class(files: dict[str, Path], tmp_path: Path):
    files["table"].write_text("id,hate\n" + "".join(f"m{i},{-1 if i == 7 else i % 2}\n" for i in range(N)))
    with pytest.raises(BadTableError, match="row 8: hate is -1, which is not one of its levels; leave it empty"):
        embed_arrays(out=tmp_path / "e", **files)


@pytest.mark.parametrize("spelling", ["Train", " VAL ", "dev", "TEST", "validation"])
def test_splits_are_read_whatever_their_case(files: dict[str, Path], tmp_path: Path, spelling: str):
    files["table"].write_text("id,split\n" + "".join(f"m{i},{spelling}\n" for i in range(N)))
    splits = {"train": "train", "test": "test"}
    expected = splits.get(spelling.strip().lower(), "validation")
    assert set(embed_arrays(out=tmp_path / "e", **files).splits) == {expected}


@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_bfloat16_is_read(tmp_path: Path, kind: str):
    x, path = torch.from_numpy(IMAGE).bfloat16(), tmp_path / f"x.{kind}"
    save_tensors({"x": x}, path) if kind == "safetensors" else torch.save(x, path)
    np.testing.assert_array_equal(read_array(path), x.float().numpy())


def test_a_colon_in_a_path_is_not_a_key(tmp_path: Path):
    folder = tmp_path / "2026-01-01T10:00"
    folder.mkdir()
    np.save(folder / "x.npy", IMAGE)
    torch.save({"v": torch.from_numpy(IMAGE), "w": torch.zeros(1, 1)}, folder / "x.pt")
    np.testing.assert_array_equal(read_array(folder / "x.npy"), IMAGE)
    np.testing.assert_array_equal(read_array(f"{folder}/x.pt:v"), IMAGE)
    with pytest.raises(DataError, match=r"^C:/data/x\.npy: no such file"):
        read_array("C:/data/x.npy")


@pytest.mark.parametrize(
    "value", [[1, 2], 3, torch.zeros(2, 2, dtype=torch.complex64), torch.zeros(2, 2).to_sparse(), {"a": 1}]
)
def test_a_tensor_file_without_a_matrix_is_named(tmp_path: Path, value: object):
    torch.save(value, tmp_path / "x.pt")
    with pytest.raises(DataError, match=r"x\.pt: holds"):
        read_array(tmp_path / "x.pt")


def test_a_parameter_is_a_matrix(tmp_path: Path):
    torch.save(torch.nn.Parameter(torch.from_numpy(IMAGE)), tmp_path / "x.pt")
    np.testing.assert_array_equal(read_array(tmp_path / "x.pt"), IMAGE)


def any_bytes_are_a_matrix_or_one_error(folder: Path, kind: str, data: bytes, at: int):
    """A sound file with other bytes in it, or only those."""
    path = folder / f"x.{kind}"
    whole = path.with_stem("whole")
    if not whole.exists():
        {"npy": np.save, "safetensors": lambda p, x: save_file({"x": x}, p)}.get(
            kind, lambda p, x: torch.save(torch.from_numpy(x), p)
        )(whole, IMAGE[:3])
    sound = whole.read_bytes()
    path.write_bytes(sound[: at % len(sound)] + data + sound[at % len(sound) + len(data) :] if at else data)
    try:
        found = read_array(path)
    except MemeError as error:
        message = str(error)
        if "\n" in message:
            raise AssertionError(message) from None
    else:
        assert found.ndim == 2
        assert found.dtype == np.float32


ANY = given(data=st.binary(max_size=40), at=st.integers(0, 2000))
TEMPORARY = [HealthCheck.function_scoped_fixture]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["npy", "safetensors", "pt"])
@settings(max_examples=100, deadline=None, suppress_health_check=TEMPORARY)
@ANY
def test_any_bytes_are_a_matrix_or_one_error(kind: str, data: bytes, at: int, tmp_path: Path):
    any_bytes_are_a_matrix_or_one_error(tmp_path, kind, data, at)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["npy", "safetensors", "pt"])
@settings(max_examples=10_000, deadline=None, suppress_health_check=TEMPORARY)
@ANY
def test_ten_thousand_times_any_bytes(kind: str, data: bytes, at: int, tmp_path: Path):
    any_bytes_are_a_matrix_or_one_error(tmp_path, kind, data, at)


def test_a_folder_that_is_no_dataset_is_named(tmp_path: Path):
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(StorageError, match="cannot be read as a dataset"):
        read_array(f"{tmp_path}:column")


def test_only_fused_vectors_are_enough(files: dict[str, Path], tmp_path: Path):
    embeddings = embed_arrays(out=tmp_path / "e", fused_embeds=files["image_embeds"], table=files["table"])
    assert embeddings.hooks == ("hook_fused",)


def test_one_side_alone_is_enough_to_train_on(files: dict[str, Path], tmp_path: Path):
    embed_arrays(tmp_path / "e", image_embeds=files["image_embeds"], table=files["table"])
    section = {"hook_name": "hook_image_embed", "epochs": 2, "train_batch_size_tokens": 8, "sae": {"d_sae": 12, "k": 2}}
    sae = train(section, out=tmp_path / "sae", embeddings=tmp_path / "e", progress=False)
    assert isinstance(sae, SAE)
    assert sae.cfg.metadata.hook_name == "hook_image_embed"


def test_rerun_is_byte_identical_and_other_arrays_are_refused(files: dict[str, Path], tmp_path: Path):
    embed_arrays(out=tmp_path / "e", **files)
    before = {p.name: p.read_bytes() for p in (tmp_path / "e").iterdir()}
    embed_arrays(out=tmp_path / "e", **files)
    assert {p.name: p.read_bytes() for p in (tmp_path / "e").iterdir()} == before
    np.save(files["image_embeds"], IMAGE + 1)
    with pytest.raises(MemeError, match="holds a different result"):
        embed_arrays(out=tmp_path / "e", **files)


def test_an_unfinished_or_foreign_folder_is_named(tmp_path: Path):
    with pytest.raises(MemeError, match="is not a result of 'embed'"):
        Embeddings.load(tmp_path)


def test_test_vectors_have_the_shape_of_real_ones():
    variance = anisotropic(2000, 64, np.random.default_rng(0)).astype(float).var(0)
    shares = np.sort(variance / variance.sum())[::-1]
    np.testing.assert_allclose(shares[:3], OUTLIER_SHARES, rtol=0.1)


def test_a_label_beyond_64_bits_and_an_id_with_a_nul_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32))
    for text, message in (
        (f"id,topic\na,1\nb,{2**63}\nc,2\n", rf"t\.csv, row 2: topic is {2**63}, which does not fit 64 bits"),
        ("id,topic\na,1\nb\0,1\nc,2\n", r"t\.csv, row 2: the id 'b\\x00' holds a NUL character"),
    ):
        (tmp_path / "t.csv").write_text(text)
        with pytest.raises(BadTableError, match=message):
            embed_arrays(out=tmp_path / "out", table=tmp_path / "t.csv", fused_embeds=tmp_path / "x.npy")
    (tmp_path / "t.csv").write_text(f"id,topic\na,1\nb,{2**63 - 1}\nc,2\n")
    found = embed_arrays(out=tmp_path / "out", table=tmp_path / "t.csv", fused_embeds=tmp_path / "x.npy")
    assert found.label("topic").classes == [1, 2, 2**63 - 1]
