"""A corpus through the demo encoder: the numbers of open_clip, the bytes of an uninterrupted run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sae_lens_meme.corpus import build_corpus, load_corpus
from sae_lens_meme.embed import embed_corpus, from_corpus
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, StorageError
from sae_lens_meme.hooks import HookedMemeCLIP, load_towers
from sae_lens_meme.hooks.memeclip import MemeCLIPHeads
from sae_lens_meme.planted import write_planted

OPTIONS = {"model": "demo-encoder", "device": "cpu", "batch_size": 8, "workers": 0, "progress": False}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    paths = write_planted(folder / "planted", seed=3, scale=0.06, progress=False)
    build_corpus(folder / "corpus", pridemm=paths.pridemm, hmc=paths.hmc, memotion=paths.memotion, progress=False)
    return folder / "corpus"


@pytest.fixture(scope="module")
def embedded(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("embedded") / "e"
    embed_corpus(corpus, out=out, **OPTIONS)
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != ".lock"
    }


@torch.no_grad()
def test_embeddings_are_open_clips(corpus: Path, embedded: Path):
    embeddings, towers = Embeddings.load(embedded), load_towers("demo-encoder")
    rows = load_corpus(corpus)["train"].select([0, 5, 17])
    assert embeddings.ids[[0, 5, 17]].tolist() == rows["id"]
    pixels = torch.stack([towers.preprocess(image) for image in rows["image"]])
    image, text = towers.model.encode_image(pixels), towers.model.encode_text(towers.tokenize(list(rows["text"])))
    np.testing.assert_allclose(embeddings.take("hook_image_embed", [0, 5, 17]), image.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(embeddings.take("hook_text_embed", [0, 5, 17]), text.numpy(), rtol=1e-4, atol=1e-5)
    fused = torch.nn.functional.normalize(image, dim=-1) * torch.nn.functional.normalize(text, dim=-1)
    np.testing.assert_allclose(embeddings.take("hook_fused", [0, 5, 17]), fused.numpy(), rtol=1e-3, atol=1e-6)


def test_every_meme_once_with_its_labels(corpus: Path, embedded: Path):
    embeddings, rows = Embeddings.load(embedded), load_corpus(corpus)
    ids = [i for split in rows for i in rows[split]["id"]]
    assert embeddings.ids.tolist() == ids
    assert set(embeddings.label_names) == {
        "hate",
        "target",
        "stance",
        "humor",
        "offensive",
        "sentiment",
        "motivational",
        "sarcasm",
    }
    hate = [h for split in rows for h in rows[split]["hate"]]
    assert embeddings.label("hate").known.tolist() == [h is not None for h in hate]


def test_a_run_killed_between_shards_ends_with_the_same_bytes(
    corpus: Path, embedded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    columns, calls = from_corpus._columns, 0

    def killed(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return columns(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(from_corpus, "_columns", killed)
        with pytest.raises(KeyboardInterrupt):
            embed_corpus(corpus, out=tmp_path / "e", **OPTIONS)
    with pytest.raises(StorageError, match="the embed step was interrupted; run it again"):
        Embeddings.load(tmp_path / "e")
    first = (
        (tmp_path / "e" / next(n for n in contents(tmp_path / "e") if n.startswith("data-00000"))).stat().st_mtime_ns
    )
    embed_corpus(corpus, out=tmp_path / "e", **OPTIONS)
    assert contents(tmp_path / "e") == contents(embedded)
    kept = next(p for p in (tmp_path / "e").iterdir() if p.name.startswith("data-00000"))
    assert kept.stat().st_mtime_ns == first, "the finished shard was not made again"


def test_workers_change_nothing(corpus: Path, embedded: Path, tmp_path: Path):
    embed_corpus(corpus, out=tmp_path / "e", **{**OPTIONS, "workers": 2})
    assert contents(tmp_path / "e") == contents(embedded)


def test_another_dtype_is_another_result(corpus: Path, embedded: Path):
    with pytest.raises(StorageError, match=r'dtype: "float32" there, "bfloat16" now'):
        embed_corpus(corpus, out=embedded, **{**OPTIONS, "dtype": "bfloat16"})


def test_bfloat16_keeps_two_digits(corpus: Path, embedded: Path, tmp_path: Path):
    half = embed_corpus(corpus, out=tmp_path / "e", **{**OPTIONS, "dtype": "bfloat16"})
    full = Embeddings.load(embedded)
    for hook in ("hook_image_embed", "hook_text_embed"):
        a, b = (e.take(hook, range(len(full))).astype(float) for e in (half, full))
        cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        assert cosine.min() > 0.99


def test_memeclip_trains_its_heads_and_fuses_with_them(corpus: Path, tmp_path: Path):
    embeddings = embed_corpus(corpus, out=tmp_path / "e", fusion="memeclip", task="hate", **OPTIONS)
    assert embeddings.d_in("hook_fused") == 1024
    assert embeddings.facts["fusion"] == "memeclip"
    model = HookedMemeCLIP.from_embeddings(embeddings, heads=tmp_path / "e" / "heads.safetensors")
    assert isinstance(model.heads, MemeCLIPHeads)
    image, text = (torch.from_numpy(embeddings.take(hook, [3])) for hook in ("hook_image_embed", "hook_text_embed"))
    unit = [
        torch.nn.functional.normalize(0.2 * adapter(x) + 0.8 * x, dim=-1)
        for adapter, x in (
            (model.heads.img_adapter.fc, model.heads.image_map.proj(image)),
            (model.heads.text_adapter.fc, model.heads.text_map.proj(text)),
        )
    ]
    np.testing.assert_allclose(
        embeddings.take("hook_fused", [3]), (unit[0] * unit[1]).detach().numpy(), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fusion": "late"}, "embed.fusion is 'late', it must be 'clip' or 'memeclip'"),
        ({"heads": "x.ckpt"}, "belong to fusion memeclip"),
        ({"dtype": "int8"}, "embed.dtype is 'int8', it must be 'auto', 'float32'"),
    ],
)
def test_options_are_checked(corpus: Path, tmp_path: Path, options: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        embed_corpus(corpus, out=tmp_path / "e", **{**OPTIONS, **options})
