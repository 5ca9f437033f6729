"""A corpus through the demo encoder: the numbers of open_clip, the bytes of an uninterrupted run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from sae_lens_meme import hooks
from sae_lens_meme.corpus import build_corpus, caption_of, load_corpus, load_rows
from sae_lens_meme.corpus.build import Pictures
from sae_lens_meme.embed import EmbedOptions, embed_corpus, from_corpus
from sae_lens_meme.embed.encoder import Encoder
from sae_lens_meme.embed.int8 import Int8Linear
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, StorageError
from sae_lens_meme.hooks import HookedMemeCLIP, load_towers
from sae_lens_meme.hooks.memeclip import MemeCLIPHeads
from sae_lens_meme.planted import write_planted
from sae_lens_meme.steps import train_step

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


def test_int8_says_how_near_it_comes(corpus: Path, embedded: Path, tmp_path: Path):
    found = embed_corpus(corpus, out=tmp_path / "e", **{**OPTIONS, "dtype": "int8"})
    full, told = Embeddings.load(embedded), found.facts["cosine_to_float32"]
    for hook in ("hook_image_embed", "hook_text_embed"):
        a, b = (e.take(hook, range(len(full))).astype(float) for e in (found, full))
        cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        assert 0.98 < cosine.min() <= told[hook] + 1e-6
        assert cosine.min() < 1 - 1e-6, "it is not float32"
    assert found.facts["corpus_notes"][-1].startswith("embedded in int8: cosine distance to float32 at most ")
    rows = load_rows(corpus)
    read = Encoder.of_embeddings(found, "cpu").encode_meme(Pictures(rows)[0], caption_of(rows[0]))
    np.testing.assert_array_equal(read["hook_image_embed"][0], found.take("hook_image_embed", [0])[0])


def test_int8_products_are_exact_sums_of_rounded_numbers():
    rng = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(size, generator=rng) for size in ((3, 7, 64), (96, 64), (96,)))
    x[0, 0] = 0
    layer = Int8Linear(weight, bias)
    codes = [(m / m.abs().amax(-1, keepdim=True).clamp_min(1e-30) * 127).round().double() for m in (x, weight)]
    scales = [m.abs().amax(-1).double() / 127 for m in (x, weight)]
    exact = (codes[0] @ codes[1].T) * scales[0][..., None] * scales[1] + bias
    torch.testing.assert_close(layer(x).double(), exact, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layer(x)[0, 0], bias, rtol=0, atol=0)
    torch.testing.assert_close(layer(x), x @ weight.T + bias, rtol=0, atol=0.3)
    assert torch.equal(layer(x[1:2, 3:4]), layer(x)[1:2, 3:4]), "a row depends on no other"


def test_int8_computes_a_meme_alike_beside_any_others_and_with_any_threads():
    encoder = Encoder.load(EmbedOptions(model="demo-encoder", device="cpu", dtype="int8", batch_size=6))
    captions = ["", "a cat", "when the code runs at last and nobody knows why it does so on a monday"] * 2
    tokens, side = encoder.model.tokenize(captions), encoder.model.preprocess(PIL.Image.new("RGB", (9, 9))).shape[1]
    pixels = torch.rand(6, 3, side, side, generator=torch.Generator().manual_seed(0))
    threads, found = torch.get_num_threads(), []
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            found.append((encoder.encode_image(pixels), encoder.encode_text(tokens)))
    finally:
        torch.set_num_threads(threads)
    other = np.array([5, 4, 3, 2, 1, 0])
    found.append((encoder.encode_image(pixels.flip(0))[other], encoder.encode_text(tokens.flip(0))[other]))
    for image, text in found[1:]:  # up to the order of sums in the projection, which stays in float32
        np.testing.assert_allclose(image, found[0][0], rtol=0, atol=5e-6)
        np.testing.assert_allclose(text, found[0][1], rtol=0, atol=5e-6)
    blocks = [shared.block for shared in encoder.model.towers.model.transformer.resblocks]
    shapes: dict[int, list[tuple[torch.Size, torch.Size]]] = {i: [] for i in range(len(blocks))}
    for i, block in enumerate(blocks):  # each is called once for each thread
        block.register_forward_hook(lambda _, given, made, i=i: shapes[i].append((given[0].shape, made.shape)))
    encoder.encode_text(tokens[[0, 1]])
    *before, last = shapes.values()
    lengths = {shape[1] for calls in before for pair in calls for shape in pair} | {given[1] for given, _ in last}
    assert lengths == {16}, f"nothing is computed behind the end token, of {tokens.shape[1]}"
    assert sum(made[0] for _, made in last) == 2, "of each caption..."
    assert all(len(made) == 2 for _, made in last), "...the last block makes the end token alone"


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
        ({"dtype": "int4"}, "embed.dtype is 'int4', it must be 'auto', 'float32'"),
    ],
)
def test_options_are_checked(corpus: Path, tmp_path: Path, options: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        embed_corpus(corpus, out=tmp_path / "e", **{**OPTIONS, **options})


@pytest.fixture
def transparent(tmp_path: Path) -> Path:
    """Pictures whose hidden pixels differ from what is seen, as a corpus."""
    rng = np.random.default_rng(0)
    (tmp_path / "memes").mkdir()
    for i in range(12):
        pixels = rng.integers(0, 256, (40, 60, 4), dtype=np.uint8)
        pixels[:20, :, 3] = 0
        PIL.Image.fromarray(pixels).save(tmp_path / "memes" / f"{i}.png")
    lines = [f'{{"file_name": "{i}.png", "text": "caption {i}"}}' for i in range(12)]
    (tmp_path / "memes" / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    build_corpus(tmp_path / "corpus", folder=tmp_path / "memes", holdout=0, progress=False)
    return tmp_path / "corpus"


def test_live_training_sees_the_pictures_that_embed_sees(transparent: Path, tmp_path: Path):
    embeddings = embed_corpus(transparent, tmp_path / "e", resize="squash", **OPTIONS)
    seen: list[torch.Tensor] = []

    @hooks.register
    class Watching(HookedMemeCLIP):
        def compute(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor | None:
            seen.append(self.encode(inputs["pixels"], inputs["tokens"])["hook_image_embed"].detach())
            return super().compute(inputs)

    section = {"model_class_name": "Watching", "epochs": 1, "train_batch_size_tokens": 6, "sae": {"d_sae": 16, "k": 2}}
    try:
        train_step(section, out=tmp_path / "sae", corpus=transparent, model="demo-encoder", seen={"resize": "squash"})
    finally:
        hooks.unregister("Watching")
    found = torch.cat([x for x in seen if len(x) == len(embeddings)])[: len(embeddings)]
    np.testing.assert_allclose(found, embeddings.take("hook_image_embed", range(12)), rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError, match="--resize is of live training"):
        train_step(section, out=tmp_path / "s", embeddings=tmp_path / "e", seen={"resize": "pad"})


def test_options_come_as_one_object_or_by_keyword(corpus: Path, embedded: Path):
    before = contents(embedded)
    embed_corpus(corpus, embedded, EmbedOptions(model="demo-encoder", device="cpu", batch_size=8, workers=0))
    assert contents(embedded) == before
    with pytest.raises(ConfigError, match="embed: model: give the options as one object or by keyword, not both"):
        embed_corpus(corpus, embedded, EmbedOptions(), model="demo-encoder")
    with pytest.raises(ConfigError, match="unknown key 'modle'; did you mean 'model'"):
        embed_corpus(corpus, embedded, modle="demo-encoder")
