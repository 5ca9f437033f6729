"""Reading latents back: a dense float32 tensor, and the package's top-k file."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from benchmarks.data import Shape, make_latents
from benchmarks.measure import Row, median_time, require_close, seconds
from sae_lens_meme.evaluators.latents import Latents

GOAL_SECONDS = 3 * 0.0003


def run(quick: bool) -> list[Row]:
    shape = Shape.of(quick)
    latents = make_latents(shape)
    with tempfile.TemporaryDirectory() as folder:
        dense, ours = Path(folder) / "latents.pt", Path(folder) / "latents.safetensors"
        torch.save(torch.from_numpy(latents.csr().toarray()), dense)
        latents.save(ours)
        repeats = 1 if quick else 7
        naive_s, z = median_time(lambda: torch.load(dense, weights_only=True), repeats)
        ours_s, loaded = median_time(lambda: Latents.load(ours), repeats)
        sizes = f"{dense.stat().st_size / 1e6:.0f} MB against {ours.stat().st_size / 1e6:.1f} MB"
    same = require_close("latents", loaded.csr().toarray(), z)
    goal, met = f"≤ {seconds(GOAL_SECONDS)}", ours_s <= GOAL_SECONDS
    return [Row("reading latents back", naive_s, ours_s, goal, met, same, note=f"{sizes}; both from the page cache")]
