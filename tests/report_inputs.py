"""What a report is made of, in memory: small memes with real evaluations, hostile ones, and as many as are wanted."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from arrays import make_embeddings
from datasets import Dataset, Features, Image, Value
from evaluations import small_context, small_memes
from PIL import Image as Pictures

from sae_lens_meme.attribute.choose import choose_memes
from sae_lens_meme.attribute.options import AttributeOptions
from sae_lens_meme.attributions import FEATURES, Attributions
from sae_lens_meme.dashboard import ReportInputs
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.evaluators.content import content_of
from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.evaluators.run import run_evaluators

FEW = AttributeOptions(top=6, per_interval=2)
SHOWN = (
    *("reconstruction", "concept_alignment", "influence", "monosemanticity", "question_set", "naming", "stability"),
)
"""Evaluators whose tables the report reads; the contest, which takes longest, is drawn."""


@cache
def small_inputs() -> ReportInputs:
    """400 memes and 24 latents with the evaluators' own tables, pictures and attributions."""
    x, memes = small_memes()
    context = small_context(x, memes)
    run_evaluators(context, list(SHOWN))
    tables = {name: result.table for name, result in context.results.items() if result.table is not None}
    tables["contest"] = _contest()
    latents = context.latents
    return ReportInputs(
        evaluation=content_of(context),
        tables=tables,
        latents=latents,
        memes=memes,
        decoder=context.sae.W_dec.detach().numpy(),
        corpus=pictures_of(memes),
        attribution=attributions(latents, memes),
        sae=context.sae,
    )


def pictures_of(memes: Embeddings) -> Any:
    """A corpus with a picture in one colour for each meme; that of row 3 is damaged."""
    texts = memes.texts if memes.texts is not None else [None] * len(memes)
    features = Features(
        {name: Value("string") for name in ("id", "text", "text_origin")} | {"image": Image(decode=False)}
    )
    rows = {
        "id": [str(name) for name in memes.ids],
        "text": ["" if text is None else text for text in texts],
        "text_origin": ["none" if text is None else "dataset" for text in texts],
        "image": [{"bytes": _picture(i) if i != 3 else b"GIF89a", "path": None} for i in range(len(memes))],
    }
    return Dataset.from_dict(rows, features=features)


def attributions(latents: Latents, memes: Embeddings, looked_into: list[int] | None = None) -> Attributions:
    """As `attribute` writes them, with drawn scores: of each latent that is looked into (default all but the last)."""
    chosen = list(range(latents.d_sae - 1)) if looked_into is None else looked_into
    table = choose_memes(latents, memes, chosen, np.arange(len(memes)), FEW)
    rng = np.random.default_rng(0)
    rows = []
    for pair in table.to_dict("records"):
        text = None if memes.texts is None else memes.texts[pair["row"]]
        words = (text or "").split()
        top = pair["kind"] == "top"
        rows.append(
            {
                "latent": pair["latent"],
                "id": str(memes.ids[pair["row"]]),
                "kind": pair["kind"],
                "rank": pair["rank"],
                "interval": None if top else pair["interval"],
                **{name: None if top else pair[name] for name in ("interval_low", "interval_high", "interval_share")},
                "activation": pair["activation"],
                "pre_activation": pair["activation"],
                "words": words,
                "word_scores": rng.normal(size=len(words)).tolist(),
                "patch_scores": rng.normal(size=49).tolist(),
                "interactions": [{"word": w, "patch": (7 * w + 3) % 49, "value": 0.1} for w in range(len(words))],
                **dict.fromkeys(("caption_local", "image_local", "meme_global"), pair["activation"]),
            }
        )
    return Attributions(Dataset.from_list(rows, features=FEATURES), {"latents": chosen, "grid": 7, "view": "whole"})


def hostile_inputs(texts: Sequence[str]) -> ReportInputs:
    """Every field that can come from data holds one of the texts, in turn."""
    inputs, text = small_inputs(), texts[0]
    turn = lambda i: texts[i % len(texts)]  # noqa: E731
    dataset = inputs.memes.dataset.map(
        lambda row, i: {"id": f"{turn(i)}{i}", "text": f"{turn(i)} {turn(i + 1)}", "source": turn(i)}, with_indices=True
    ).rename_column("hate", text)
    memes = Embeddings.from_dataset(dataset, **inputs.memes.facts)
    evaluation = dict(inputs.evaluation)
    evaluation["warnings"], evaluation["skipped"] = list(texts), dict(zip(texts, texts, strict=True))
    titles = {section["title"]: f"{turn(i)} {i}" for i, section in enumerate(evaluation["sections"])}
    evaluation["sections"] = [
        {"title": titles[section["title"]], "note": turn(i), "axis": turn(i)}
        for i, section in enumerate(evaluation["sections"])
    ]
    evaluation["table"] = [
        {**row, "section": titles[row["section"]], "measure": turn(i), "controls": {turn(i): 0.5}}
        for i, row in enumerate(evaluation["table"])
    ]
    evaluation["results"] = {
        name: {**result, "verdict": turn(i), "columns": {c: turn(k) for k, c in enumerate(result["columns"])}}
        for i, (name, result) in enumerate(evaluation["results"].items())
    }
    tables = {name: table.copy() for name, table in inputs.tables.items()}
    named = [turn(i) for i in range(len(tables["naming"]))]
    tables["naming"] = tables["naming"].assign(name=named, reason=named, word=named)
    for name, column in {"concept_alignment": "concept", "influence": "task", "contest": "target"}.items():
        values = tables[name][column].astype(str)
        kinds = list(dict.fromkeys(values))
        tables[name][column] = [f"{turn(kinds.index(value))}{value}" for value in values]
    corpus, seen = pictures_of(memes), attributions(inputs.latents, memes)
    return replace(inputs, evaluation=evaluation, tables=tables, memes=memes, corpus=corpus, attribution=seen)


def many_inputs(n: int, d_sae: int, k: int, d_in: int = 64) -> ReportInputs:
    """Drawn numbers in tables that have the columns of the real ones."""
    small, rng = small_inputs(), np.random.default_rng(0)
    words = np.array([f"word{i}" for i in range(500)])
    texts = [" ".join(row) for row in words[rng.integers(0, 500, (n, 12))]]
    indices = np.sort(rng.random((n, d_sae), dtype=np.float32).argpartition(k, axis=1)[:, :k], axis=1).astype(np.int32)
    latents = Latents(indices, rng.exponential(1, (n, k)).astype(np.float32), d_sae)
    vectors = rng.standard_normal((n, d_in)).astype(np.float32)
    memes = make_embeddings({"hook_fused": vectors}, texts=texts, labels={"hate": (np.arange(n) % 2).tolist()})
    tables = {
        name: pd.concat([_drawn(small.tables[name], i, rng) for i in range(-(-d_sae // small.latents.d_sae))])
        .query("latent < @d_sae")
        .reset_index(drop=True)
        for name in ("naming", "concept_alignment", "influence", "question_set", "stability", "monosemanticity")
    }
    decoder = rng.standard_normal((d_sae, d_in)).astype(np.float32)
    return ReportInputs(small.evaluation, tables, latents, memes, decoder, corpus=pictures_of(memes))


def _contest() -> pd.DataFrame:
    units = ("sae", "neurons", "permuted_labels")
    rows = [("labels", "auroc", name, "hate=1", value) for name, value in zip(units, (0.7, 0.8, 0.5), strict=True)]
    return pd.DataFrame(rows, columns=["targets", "estimator", "units", "target", "value"])


def _drawn(table: pd.DataFrame, i: int, rng: np.random.Generator) -> pd.DataFrame:
    moved = table.assign(latent=table["latent"] + i * small_inputs().latents.d_sae)
    return moved.assign(q_global=rng.random(len(table))) if "q_global" in table else moved


def _picture(i: int) -> bytes:
    file = io.BytesIO()
    colour = (37 * i % 256, 91 * i % 256, 151 * i % 256)
    Pictures.new("RGB", (64, 48), colour).save(file, "JPEG", comment=b"secret comment")
    return file.getvalue()
