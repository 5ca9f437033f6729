"""The table of latents in a notebook: what it says, how it is sorted without a script, and what is seen unasked."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from arrays import anisotropic
from chromium import chromium, opened
from datasets import Dataset, DatasetDict, Features, Image, Value
from PIL import Image as Pillow
from tiny_sae import tiny_sae

from sae_lens_meme import as_embeddings, measure
from sae_lens_meme.errors import ConfigError, DataError

N = 120
X = anisotropic(N, 12, np.random.default_rng(0))
HOSTILE = '<script>alert("x")</script>'
IDS = [HOSTILE, *(f"m{i}" for i in range(1, N))]
TABLE = {
    "id": IDS,
    "split": [("train", "train", "validation", "test")[i % 4] for i in range(N)],
    "text": ["cat" if v > np.median(X[:, 4]) else "dog rain" for v in X[:, 4]],
}


@pytest.fixture(scope="module")
def found() -> Any:
    sae = tiny_sae(X, d_sae=16, k=3)
    memes = as_embeddings(TABLE, fused=X)
    return measure(sae, memes, only=["reconstruction", "naming"], bootstrap=0, hook="hook_fused", progress=False)


def corpus() -> DatasetDict:
    rng = np.random.default_rng(0)
    cells = []
    for _ in range(N):
        file = io.BytesIO()
        Pillow.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(file, "PNG")
        cells.append({"bytes": file.getvalue(), "path": None})
    cells[7] = {"bytes": b"broken", "path": None}
    features = Features({"id": Value("string"), "image": Image(decode=False)})
    rows = Dataset.from_dict({"id": IDS, "image": cells}, features=features).cast_column("image", Image())
    return DatasetDict({"train": rows.select(range(60)), "test": rows.select(range(60, N))})


def test_rows_are_the_latents_that_fire_most_on_held_out_memes(found: Any):
    frame = found.latent_table(n=5).frame
    test = np.flatnonzero(found.embeddings.splits == "test")
    dense = np.asarray(found.latents.csr()[test].todense())
    fires = (dense > 0).mean(0)
    assert frame["latent"].tolist() == np.argsort(-fires, kind="stable")[:5].tolist()
    np.testing.assert_allclose(frame["fires"], fires[frame["latent"]])
    first = dense[:, frame["latent"][0]]
    np.testing.assert_allclose(frame["mean activation"][0], first[first > 0].mean(), rtol=1e-5)
    order = test[np.argsort(-first, kind="stable")[: (first > 0).sum()]]
    wanted = [IDS[order[round(place * (len(order) - 1))]] for place in (0, 0.25, 0.5, 0.75)]
    assert frame["memes"][0] == list(dict.fromkeys(wanted))


def test_a_name_is_shown_only_where_it_held_on_memes_that_did_not_choose_it():
    sae = tiny_sae(X, d_sae=16, k=3)
    fires = sae.encode(torch.from_numpy(X)).detach().numpy() > 0
    texts = ["cat" if fire else "dog rain" for fire in fires[:, np.abs(fires.mean(0) - 0.4).argmin()]]
    for without in ([], ["test", "validation"]):
        splits = ["train" if split in without else split for split in TABLE["split"]]
        memes = as_embeddings(TABLE | {"split": splits, "text": texts}, fused=X)
        again = measure(sae, memes, only=["naming"], bootstrap=0, hook="hook_fused", progress=False)
        table, shown = again["naming"].table.set_index("latent"), again.latent_table(n=16)
        frame = shown.frame.set_index("latent")
        held = table.index[table["holds"].eq(True).fillna(False) & (table["auroc"] >= 0.6).fillna(False)]
        named = frame.index[frame["name"].notna()]
        assert set(named) == set(held)
        assert frame.loc[named, "name"].tolist() == table.loc[named, "name"].tolist()
        assert frame.drop(named)[["AUROC", "low", "high"]].isna().all(axis=None)
        assert bool(len(held)) != bool(without), "some names hold, and without held-out memes none can"
        assert (f"most of the {N} memes" in shown.note) == bool(without)


def test_everything_is_escaped_and_no_script_is_needed(found: Any):
    shown = found.latent_table(n=16)._repr_html_()
    assert "<script" not in shown
    assert shown.count("<tr style") == 16
    assert "latent" in str(found.latent_table(n=2))
    with pytest.raises(ConfigError, match="n is 0, it must be 1 or more"):
        found.latent_table(n=0)
    with pytest.raises(DataError, match="corpus: has no column image; give memes with id and image"):
        found.latent_table(Dataset.from_dict({"id": IDS}))


def test_where_styles_are_stripped_pictures_stay_blurred(found: Any):
    shown = found.latent_table(corpus(), n=4)._repr_html_()
    images = re.findall(r'<img [^>]*src="data:image/webp;base64,([^"]+)"', re.sub(r'style="[^"]*"', "", shown))
    assert images
    for image in images:
        pixels = np.asarray(Pillow.open(io.BytesIO(base64.b64decode(image))).convert("L"), dtype=float)
        assert np.abs(np.diff(pixels, axis=1)).max() < 30, "noise of neighbouring pixels is gone"


def test_a_click_sorts_and_pointing_shows_the_picture(found: Any, tmp_path: Path):
    table = found.latent_table(corpus(), n=16)
    page = tmp_path / "page.html"
    page.write_text(f"<!doctype html><meta charset=utf-8>{table._repr_html_()}", encoding="utf-8")

    def order(tab: Any) -> list[int]:
        rows = tab.locator("tbody tr").all()
        return [int(row.locator("td").first.inner_text()) for row in sorted(rows, key=lambda r: r.bounding_box()["y"])]

    with chromium() as browser, opened(browser, page) as (tab, heard):
        assert order(tab) == table.frame["latent"].tolist()
        tab.get_by_text("mean activation", exact=True).click()
        strongest = table.frame.sort_values("mean activation", ascending=False, kind="stable")["latent"]
        assert order(tab) == strongest.tolist()
        tab.get_by_text("fires on", exact=True).click()
        assert order(tab) == table.frame["latent"].tolist()
        meme = tab.locator(".meme").first
        assert meme.locator("img").evaluate("e => getComputedStyle(e).opacity") == "1"
        meme.hover()
        assert meme.locator("img").evaluate("e => getComputedStyle(e).opacity") == "0"
        assert not heard
