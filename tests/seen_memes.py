"""A small planted corpus, its embeddings by the demo encoder, and SAEs on them, as folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_sae import tiny_sae

from sae_lens_meme.corpus import build_corpus
from sae_lens_meme.embed import embed_corpus
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.planted import write_planted

EMBED = {"model": "demo-encoder", "device": "cpu", "batch_size": 8, "workers": 0, "progress": False}


def write_memes(folder: Path, scale: float = 0.03, **embedded: Any) -> Path:
    """`planted`, `corpus`, `embeddings` (by other options of `embed`, where they are given), and `sae`, `sae_image`, `sae_text`, one on each hook."""
    paths = write_planted(folder / "planted", seed=3, scale=scale, progress=False)
    sources = {"pridemm": paths.pridemm, "hmc": paths.hmc, "memotion": paths.memotion}
    build_corpus(folder / "corpus", **sources, progress=False)
    embeddings = embed_corpus(folder / "corpus", folder / "embeddings", **EMBED, **embedded)
    for name, hook in {"sae": "hook_fused", "sae_image": "hook_image_embed", "sae_text": "hook_text_embed"}.items():
        save_sae(folder / name, embeddings, hook)
    return folder


def save_sae(folder: Path, embeddings: Embeddings, hook: str = "hook_fused") -> None:
    x = embeddings.take(hook, range(len(embeddings)))
    tiny_sae(x, d_sae=24, k=6, hook=hook).save_model(str(folder))
