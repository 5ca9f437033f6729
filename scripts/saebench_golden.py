"""Numbers of SAEBench's own functions on small arrays, for tests/test_contest.py.

In an environment of its own, because sae-bench pins numpy below 2:

    python -m venv saebench && saebench/bin/pip install sae-bench==0.6.0
    saebench/bin/python scripts/saebench_golden.py tests/saebench_golden.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import sae_bench.evals.scr_and_tpp.main as ablation
import sae_bench.evals.sparse_probing.probe_training as probing
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

D_IN, D_SAE, PER_CLASS = 6, 20, 20
KS, NS = (1, 2, 5), (1, 2, 5)
TIE, TARGET, BIASED = "male / female", "professor / nurse", "male_professor / female_nurse"
"""SAEBench's names of the probe for what is removed, for what should stay, and of the probe that learned both."""


def main(path: Path) -> None:
    torch.randperm = torch.arange  # SAEBench draws its negative examples: here it takes the first ones
    probing.LogisticRegression = partial(LogisticRegression, tol=1e-8)  # the default stops 1e-3 from the optimum
    rng = np.random.default_rng(0)
    found = {"k_sparse": k_sparse(rng), "tpp": tpp(rng), "scr": scr(rng)}
    path.write_text(json.dumps(found, separators=(",", ":")) + "\n")


def k_sparse(rng: np.random.Generator) -> dict[str, Any]:
    """Units by mean difference, and scikit-learn's probe on them."""
    labels = {split: rng.integers(0, 2, 80) for split in ("train", "test")}
    acts = {}
    for split, y in labels.items():
        strength = np.linspace(0, 2, D_SAE) * y[:, None]
        acts[split] = rounded(np.maximum(rng.standard_normal((80, D_SAE)) + strength - 0.5, 0))
    x, y = ({split: torch.tensor(values[split]) for split in values} for values in (acts, labels))
    y = {split: values.int() for split, values in y.items()}
    chosen, accuracy, auroc = {}, {}, {}
    for k in KS:
        mask = probing.get_top_k_mean_diff_mask(x["train"], y["train"], k)
        few = {split: probing.apply_topk_mask_reduce_dim(values, mask) for split, values in x.items()}
        probe, accuracy[k] = probing.train_sklearn_probe(few["train"], y["train"], few["test"], y["test"])
        chosen[k] = np.flatnonzero(~mask.numpy()).tolist()
        auroc[k] = roc_auc_score(labels["test"], probe.decision_function(few["test"].numpy()))
    inputs = {"acts": listed(acts), "labels": listed(labels)}
    return inputs | {"chosen": chosen, "accuracy": accuracy, "auroc": auroc}


def tpp(rng: np.random.Generator) -> dict[str, Any]:
    """Three classes, a probe of each, given."""
    towards = np.eye(3, D_IN) * 2
    noise = 0.2 * rng.standard_normal((3, D_IN))
    sae, probes = dictionary(rng), dict(zip("abc", [(rounded(w), -1.0) for w in towards + noise], strict=True))
    data = {
        split: {
            name: rounded(rng.standard_normal((PER_CLASS, D_IN)) + shift)
            for name, shift in zip("abc", towards, strict=True)
        }
        for split in ("train", "test")
    }
    effects, accuracies, clean = ablated(sae, probes, data, list("abc"), perform_scr=False)
    scores, _ = ablation.create_tpp_plotting_dict(accuracies, clean)
    total = {n: scores[f"tpp_threshold_{n}_total_metric"] for n in NS}
    return recorded(sae, probes, data) | {"effects": effects, "clean": clean, "tpp": total}


def scr(rng: np.random.Generator) -> dict[str, Any]:
    """Four cells of target and tie, as many memes in each; a probe of the target, of the tie, and one that learned both."""
    sae = dictionary(rng)
    target, tie = np.eye(D_IN)[0], np.eye(D_IN)[1]
    probes = {TARGET: (rounded(target), 0.0), TIE: (rounded(tie), 0.0), BIASED: (rounded(target + 1.5 * tie), 0.0)}
    cells, data = {}, {}
    for split in ("train", "test"):
        cells[split] = {
            f"{t}{s}": rounded(rng.standard_normal((PER_CLASS, D_IN)) + (2 * t - 1) * target + (2 * s - 1) * tie)
            for t in (1, 0)
            for s in (1, 0)
        }
        of = cells[split]
        data[split] = {
            TARGET: np.concatenate([of["11"], of["10"]]),
            "nurse_data_only": np.concatenate([of["01"], of["00"]]),
            TIE: np.concatenate([of["11"], of["01"]]),
            "female_data_only": np.concatenate([of["10"], of["00"]]),
            BIASED: of["11"],
            "female_nurse_data_only": of["00"],
        }
    effects, accuracies, clean = ablated(sae, probes, data, list(probes), perform_scr=True)
    scores = ablation.get_scr_plotting_dict(accuracies, clean)
    removed = {n: scores[f"scr_dir1_threshold_{n}"] for n in NS}
    return recorded(sae, probes, cells) | {"effects": {TIE: effects[TIE]}, "clean": clean, "scr": removed}


def ablated(sae: Any, probes: Mapping, data: Mapping, classes: list[str], perform_scr: bool) -> tuple[dict, dict, dict]:
    """Effects of every unit, accuracies of every probe after ablation, and before."""
    made = {name: probe(*weights) for name, weights in probes.items()}
    acts = {split: {c: torch.tensor(x)[:, None] for c, x in of.items()} for split, of in data.items()}
    effects = ablation.get_all_node_effects_for_one_sae(sae, made, classes, perform_scr, acts["train"], 125)
    after = ablation.perform_feature_ablations(
        made, sae, 125, acts["test"], effects, list(NS), classes, 500, perform_scr
    )
    flat = {c: x[:, 0] for c, x in acts["test"].items()}
    clean = ablation.get_probe_test_accuracy(made, classes, flat, 500, perform_scr)
    return {c: e.tolist() for c, e in effects.items()}, after, clean


def dictionary(rng: np.random.Generator) -> Any:
    """What SAEBench asks of an SAE."""
    W_enc, W_dec = (torch.tensor(rounded(rng.standard_normal(shape))) for shape in ((D_IN, D_SAE), (D_SAE, D_IN)))
    return SimpleNamespace(
        W_enc=W_enc, W_dec=W_dec, encode=lambda x: (x @ W_enc - 0.5).relu(), decode=lambda acts: acts @ W_dec
    )


def probe(weights: np.ndarray, intercept: float) -> Any:
    made = probing.Probe(D_IN, torch.float32)
    with torch.no_grad():
        made.net.weight.copy_(torch.tensor(weights)[None])
        made.net.bias.fill_(intercept)
    return made


def rounded(x: np.ndarray) -> np.ndarray:
    """Short enough to be written, and the same in every version of numpy."""
    return np.round(x, 2).astype(np.float32)


def recorded(sae: Any, probes: Mapping, data: Mapping) -> dict[str, Any]:
    weights = {name: [*listed(w), b] for name, (w, b) in probes.items()}
    return {"W_dec": listed(sae.W_dec), "probes": weights, "acts": encoded(sae, data), "x": listed(data)}


def encoded(sae: Any, data: Mapping) -> dict[str, Any]:
    return {split: {c: listed(sae.encode(torch.tensor(x))) for c, x in of.items()} for split, of in data.items()}


def listed(x: Any) -> Any:
    """Numbers as short as float32 allows."""
    if isinstance(x, Mapping):
        return {key: listed(value) for key, value in x.items()}
    return [[round(v, 4) for v in row] if isinstance(row, list) else round(row, 4) for row in np.asarray(x).tolist()]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
