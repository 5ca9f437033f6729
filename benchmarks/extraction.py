"""From pictures and captions to embeddings on a CPU: one by one, and the package's embed step."""

from __future__ import annotations

import json
import tempfile
from copy import deepcopy
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image

from benchmarks import naive
from benchmarks.measure import Row, median_time, seconds, timed
from sae_lens_meme.corpus import build_corpus
from sae_lens_meme.embed import embed_corpus
from sae_lens_meme.embed.encoder import Encoder, _cast, _workers
from sae_lens_meme.embed.options import EmbedOptions
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.hooks import HookedMemeCLIP
from sae_lens_meme.hooks.names import FUSED, IMAGE_EMBED, TEXT_EMBED

GOAL_RATIO = 4
N_CAPTIONS = 32
SENTENCE = "when the code runs at last and nobody knows why it did so on a monday morning before coffee"


def run(quick: bool) -> list[Row]:
    """ViT-L/14 has random weights here, which cost as much as trained ones; `--quick` takes the demo encoder."""
    model = HookedMemeCLIP.from_pretrained("demo-encoder" if quick else "ViT-L-14/random")
    n, n_naive = (12, 4) if quick else (16, 8)
    with tempfile.TemporaryDirectory() as folder:
        return [*_captions(model, quick), *_memes(model, Path(folder), n, n_naive)]


def _memes(model: HookedMemeCLIP, folder: Path, n: int, n_naive: int) -> list[Row]:
    rows = _write_memes(folder / "memes", n)
    build_corpus(folder / "corpus", folder=folder / "memes", holdout=0, progress=False)
    assert model.towers.weights_sha256  # hashed once, outside the timing, as the weights are loaded once
    naive.embed(model.towers, *rows[0])
    each, alone = timed(lambda: [naive.embed(model.towers, *row) for row in rows[:n_naive]])
    naive_s = each * n / n_naive
    image, text = (np.stack(side) for side in zip(*alone, strict=True))
    out = []
    cosines = {torch.float32: 0.999999, torch.bfloat16: 0.999, torch.int8: 0.99}
    models = [model, deepcopy(model), deepcopy(model)]  # bfloat16 and int8 change the weights
    for (dtype, cosine), own in zip(cosines.items(), models, strict=True):
        batch = 8 if n > 8 else 4  # larger ones fall out of cache
        encoder = Encoder(_cast(own, dtype, "cpu"), "cpu", dtype, batch, _workers(EmbedOptions(), "cpu"))
        target = folder / f"{dtype}"
        ours_s, embeddings = timed(lambda e=encoder, t=target: embedded(folder / "corpus", t, e))
        first = [{i: at for at, i in enumerate(embeddings.ids)}[f"memes/{path.name}"] for path, _ in rows[:n_naive]]
        same = " and ".join(
            _require_cosine(hook, embeddings.take(hook, first), alone, cosine)
            for hook, alone in ((IMAGE_EMBED, image), (TEXT_EMBED, text))
        )
        _require_cosine(FUSED, embeddings.take(FUSED, first), _unit(image) * _unit(text), cosine)
        name = str(dtype).removeprefix("torch.")
        met = naive_s / ours_s >= GOAL_RATIO
        note = f"{seconds(each / n_naive)} against {seconds(ours_s / n)} a meme, decoding to Arrow"
        out.append(
            Row(
                f"{n} memes embedded, {name}, batches of {batch}",
                *(naive_s, ours_s, f"≥ {GOAL_RATIO}x", met, same, f"{n_naive} of {n} memes", note),
            )
        )
    return out


def embedded(corpus: Path, out: Path, encoder: Encoder) -> Embeddings:
    """The `embed` step with a model that is loaded already."""
    with patch.object(Encoder, "load", lambda options: encoder):
        return embed_corpus(corpus, out, batch_size=encoder.batch_size, progress=False)


def _captions(model: HookedMemeCLIP, quick: bool) -> list[Row]:
    towers, captions = model.towers, _write_captions(N_CAPTIONS)
    repeats = 1 if quick else 3
    batch = torch.no_grad()(lambda: towers.model.encode_text(towers.tokenize(captions)).numpy())
    batch()
    naive_s, alone = timed(lambda: np.stack([naive.embed_caption(towers, caption) for caption in captions]))
    ours_s, together = median_time(batch, repeats)
    same = _require_cosine("text", together, alone, 0.999999)
    return [Row(f"{N_CAPTIONS} captions, float32, one batch", naive_s, ours_s, "none", None, same)]


def _write_memes(folder: Path, n: int) -> list[tuple[Path, str]]:
    """Noise pictures of the size of web images, JPEG, and a table."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for i, caption in enumerate(_write_captions(n)):
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        path = folder / f"{i:03}.jpg"
        coarse.resize((640, 480), Image.Resampling.BICUBIC).save(path)
        rows.append((path, caption))
    lines = [json.dumps({"file_name": path.name, "text": caption}) for path, caption in rows]
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return rows


def _write_captions(n: int) -> list[str]:
    rng = np.random.default_rng(1)
    words = SENTENCE.split()
    return [" ".join(rng.permutation(words)[: rng.integers(5, len(words))]) for _ in range(n)]


def _require_cosine(what: str, ours: np.ndarray, naive: np.ndarray, smallest: float) -> str:
    cosine = float((_unit(ours) * _unit(naive)).sum(axis=1).min())
    assert cosine >= smallest, f"{what}: cosine {cosine} between ours and the loop's, expected at least {smallest}"
    return f"{what} to cosine 1 - {max(1 - cosine, 0):.0e}"


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
