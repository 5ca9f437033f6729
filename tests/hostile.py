"""Memes that are wrong in ways that happen. An evaluator gives null with a reason, or raises one of our errors in one line.

@pytest.mark.parametrize("case", hostile.CASES)
def test_hostile_memes(case):
    hostile.check(Probes, case)
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from arrays import anisotropic, make_embeddings
from sae_lens import TopKSAE, TopKSAEConfig

from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import MemeError
from sae_lens_meme.evaluators import Evaluator, Result, Unavailable

N, D, D_SAE, K = 120, 8, 16, 3
CYCLE = ["train"] * 7 + ["validation"] * 4 + ["test"] * 4  # in turn, so that every class and source is in every split
ODD = ("a/b", "latents", "model/hate", "hate*[x]?", "[bold]", "<b>$x_1$</b>", " ", "ünï\u202ecode", "n\new")
"""Names of labels, classes and sources that mean something to a path, a pattern, a markup or a terminal."""


def _vectors() -> np.ndarray:
    return 20 * anisotropic(N, D, np.random.default_rng(0))


def _column(values: float | np.ndarray) -> np.ndarray:
    x = _vectors()
    x[:, 5] = values
    return x


def _with_row(value: float) -> np.ndarray:
    x = _vectors()
    x[3] = value
    return x


VECTORS: dict[str, Callable[[], np.ndarray]] = {
    "all rows alike": lambda: np.tile(_vectors()[:1], (N, 1)),
    "all zero": lambda: np.zeros((N, D), np.float32),
    "all alike but one": lambda: np.vstack([np.tile(_vectors()[:1], (N - 1, 1)), _vectors()[1:2]]),
    "every row twice": lambda: np.repeat(_vectors()[: N // 2], 2, axis=0),
    "three rows, repeated": lambda: np.tile(_vectors()[:3], (N // 3, 1)),
    "1e30": lambda: _vectors() * np.float32(1e30),
    "largest float32": lambda: np.sign(_vectors()) * np.finfo(np.float32).max,
    "one row of 1e30": lambda: _with_row(1e30),
    "denormal": lambda: _vectors() * np.float32(1e-40),
    "1e-25": lambda: _vectors() * np.float32(1e-25),
    "a constant dimension": lambda: _column(0.3),
    "a dimension of 4e-33": lambda: _column(4e-33),
    "a dimension that hardly varies": lambda: _column(7e-9 * np.random.default_rng(1).standard_normal(N)),
    "one dimension varies": lambda: np.where(np.arange(D) == 5, _vectors(), np.float32(0.3)),
    "a row of zeros": lambda: _with_row(0),
    "NaN": lambda: _with_row(np.nan),
    "infinity": lambda: _with_row(np.inf),
}


def _labels(**more: list[Any]) -> dict[str, list[Any]]:
    i = np.arange(N)
    return {"hate": [int(v) if v % 5 else None for v in i % 3], "humor": (i % 4).tolist(), **more}


def _only(rows: np.ndarray) -> dict[str, list[Any]]:
    """`hate` is known for these memes alone."""
    return _labels(hate=[j % 2 if rows[j] else None for j in range(N)])


_SPLIT = np.array([CYCLE[i % len(CYCLE)] for i in range(N)])
TABLES: dict[str, Callable[[], dict[str, Any]]] = {
    "labels known in no test row": lambda: {"labels": _only(_SPLIT != "test")},
    "labels known in train rows alone": lambda: {"labels": _only(_SPLIT == "train")},
    "labels known in no train row": lambda: {"labels": _only(_SPLIT != "train")},
    "labels of one class": lambda: {"labels": {"hate": [1] * N, "humor": [None] * N}},
    "a class of one row": lambda: {"labels": _labels(hate=[int(j == 0) for j in range(N)])},
    "test rows of one class": lambda: {
        "labels": _labels(hate=[j % 2 if _SPLIT[j] == "train" else 1 for j in range(N)])
    },
    "no labels": lambda: {"labels": {}},
    "a label a row": lambda: {"labels": {"hate": list(range(N))}},
    "odd names": lambda: {"labels": _labels(**{name: (np.arange(N) % 2).tolist() for name in ODD})},
    "odd classes": lambda: {"labels": {"hate": [ODD[j % len(ODD)] for j in range(N)]}},
    "odd sources": lambda: {"sources": [ODD[j % len(ODD)] for j in range(N)]},
    "a source a row": lambda: {"sources": [f"source {j}" for j in range(N)]},
    "train rows alone": lambda: {"splits": ["train"] * N},
    "test rows alone": lambda: {"splits": ["test"] * N},
    "one train row": lambda: {"splits": ["train"] + ["test"] * (N - 1)},
    "one test row": lambda: {"splits": ["test"] + ["train"] * (N - 1)},
    "no captions": lambda: {"texts": [None] * N},
    "one caption": lambda: {"texts": ["the same"] * N},
    "odd captions": lambda: {"texts": [(*ODD, "", None, "\x1b[31m")[j % 12] for j in range(N)]},
}
SAES = ("silent SAE", "dense SAE")
CASES = (*VECTORS, *TABLES, *SAES)


@cache
def embeddings(case: str) -> Embeddings:
    """N memes with both modalities, captions and two labels, which have this fault."""
    i = np.arange(N)
    table: dict[str, Any] = {
        "labels": _labels(),
        "sources": [("a", "b")[j % 2] for j in i],
        "splits": _SPLIT.tolist(),
        "texts": [f"word{j % 7} word{j % 4}" for j in i],
        **TABLES.get(case, dict)(),
    }
    fused = VECTORS.get(case, _vectors)()
    # picture and caption have the same fault; the product of 1e30 and 1e30 is no float32, so fused is of its own
    hooks = {"hook_image_embed": fused[::-1].copy(), "hook_text_embed": fused * np.float32(0.5), "hook_fused": fused}
    return make_embeddings(hooks, fusion="clip", **table)


@cache
def sae(case: str = "") -> TopKSAE:
    """A TopK SAE of random directions; silent: no latent ever fires; dense: all do where they can."""
    cfg = TopKSAEConfig(
        d_in=D,
        d_sae=D_SAE,
        k=D_SAE if case == "dense SAE" else K,
        apply_b_dec_to_input=False,
        rescale_acts_by_decoder_norm=False,
    )
    cfg.metadata.hook_name = "hook_fused"
    made, generator = TopKSAE(cfg), torch.Generator().manual_seed(0)
    with torch.no_grad():
        made.W_enc.copy_(torch.randn(D, D_SAE, generator=generator) / D**0.5)
        made.W_dec.copy_(0.7 * made.W_enc.T)
        made.b_enc.fill_(-1e9 if case == "silent SAE" else 0)
        made.b_dec.zero_()
    return made.eval()


def check(make: Callable[[Embeddings], Evaluator], case: str) -> Result | MemeError | Unavailable:
    """Every number is finite, or null with a reason; or one of our errors, in one line. Nothing warns."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", DeprecationWarning)  # of libraries, about libraries
            warnings.simplefilter("ignore", FutureWarning)
            result = make(embeddings(case)).evaluate(sae(case))
    except (MemeError, Unavailable) as error:
        message = str(error)
        if len(message) <= 10 or "\n" in message:
            raise AssertionError(f"not one line that says what is wrong: {message!r}") from error
        return error
    json.dumps(result.to_dict(), allow_nan=False)
    assert all(result.reasons[key] for key, value in result.numbers.items() if value is None)
    assert all(result.explain[key] for key in result.numbers)
    if result.table is not None:
        numeric = result.table.select_dtypes(np.number).to_numpy(dtype=np.float64, na_value=0.0)
        assert np.isfinite(numeric).all(), "NaN or infinity in the table: null is meant"
    for row in result.rows():
        assert any(v is not None for v in (row["value"], *row["controls"].values())), (
            f"a row of dashes: {row['measure']}"
        )
    assert result.verdict is None or not {"nan", "None"} & {*re.split("[^a-zA-Z]+", result.verdict)}
    return result
