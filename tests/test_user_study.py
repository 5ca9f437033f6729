# pyright: reportOptionalSubscript=false, reportAttributeAccessIssue=false, reportOptionalMemberAccess=false, reportOperatorIssue=false, reportOptionalOperand=false
"""sae-for-vlm's metric benchmark in its own format, with users who are known to follow a metric."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from sae_lens_meme.cli import build_app
from sae_lens_meme.errors import BadTableError, ConfigError, DataError
from sae_lens_meme.evaluators.user_study import (
    SPARSITY,
    UserStudy,
    compare_with_users,
    monosemanticity_of,
    read_scores,
    user_agreement,
)

N, PICTURES, D = 60, 200, 6


def study(folder: Path, n_pairs: int = 300, right: float = 0.8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Users prefer the neuron of larger MS in `right` of the pairs; returns activations and embeddings."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((PICTURES, D))
    directions = rng.standard_normal((N, D))
    focus = rng.uniform(0, 2, N)
    activations = np.maximum(vectors @ directions.T * focus + rng.standard_normal((PICTURES, N)) - 1, 0).T
    ms = np.array([monosemanticity_of(vectors)(a) for a in activations])
    x, y = np.array([rng.choice(N, 2, replace=False) for _ in range(n_pairs)]).T
    follows = rng.random(n_pairs) < right
    chosen = np.where((ms[x] > ms[y]) == follows, x, y)
    pairs = pd.DataFrame({"k_x": x, "k_y": y, "R_user": chosen})
    pairs["MS_x_dino"], pairs["MS_y_dino"] = ms[x], ms[y]
    pairs.to_csv(folder / "pairs.csv", index=False)
    images = pd.DataFrame(
        [[f"n0{j}.jpg" for j in np.argsort(-a)[:16]] for a in activations], columns=[f"x_{i}" for i in range(1, 17)]
    )
    images.insert(0, "k", np.arange(N))
    images.to_csv(folder / "top16_images.csv", index=False)
    table = pd.DataFrame(activations, columns=[f"a_{i}" for i in range(1, PICTURES + 1)])
    table.insert(0, "k", np.arange(N))
    table.to_csv(folder / "activations.csv", index=False)
    np.save(folder / "dinov2.npy", vectors.astype(np.float32))
    return activations, vectors


def test_monosemanticity_is_the_loop_over_pairs_of_pictures():
    rng = np.random.default_rng(0)
    a, e = np.maximum(rng.standard_normal(30), -0.2), rng.standard_normal((30, 4))
    e[3] = 0
    unit = np.divide(e, np.linalg.norm(e, axis=1, keepdims=True), out=np.zeros_like(e), where=e.any(1, keepdims=True))
    scaled = (a - a.min()) / (a.max() - a.min())
    pairs = [(scaled[n] * scaled[m], unit[n] @ unit[m]) for n, m in combinations(range(30), 2)]
    expected = sum(w * s for w, s in pairs) / sum(w for w, _ in pairs)
    assert monosemanticity_of(e)(a) == pytest.approx(expected, abs=1e-12)
    assert np.isnan(monosemanticity_of(e)(np.ones(30)))


def test_agreement_is_the_share_of_pairs_in_which_the_metric_prefers_what_users_chose(tmp_path: Path):
    study(tmp_path)
    read = UserStudy.read(tmp_path)
    scores = {name: value for name, value in read.published["MS dino"].items() if name != read.x[0]}
    found = user_agreement(read, {"MS": scores, "even": dict.fromkeys(read.neurons, 1.0)})
    agreed, known = 0, 0
    for x, y, chose_x in zip(read.x, read.y, read.chose_x, strict=True):
        if x in scores and y in scores:
            known += 1
            agreed += (x if scores[x] > scores[y] else y) == (x if chose_x else y)
    assert found.numbers["MS/n_scored"] == known < len(read)
    assert found.numbers["MS/agreement"] == pytest.approx(agreed / known)
    assert found.numbers["even/agreement"] == 0.5  # all ties
    table = found.table[found.table["metric"] == "MS"]
    assert table["n_pairs"].sum() == known
    assert np.average(table["agreement"].astype(float).fillna(0), weights=table["n_pairs"]) == pytest.approx(
        agreed / known
    )


def test_intervals_hold_the_truth_although_pairs_share_neurons(tmp_path: Path):
    """Neurons have a taste that the metric does not know: pairs that share one agree together."""
    rng, held, simple = np.random.default_rng(0), 0, 0
    draws, n, n_pairs = 150, 40, 200
    for _ in range(draws):
        metric, taste = rng.standard_normal(n), 1.5 * rng.standard_normal(n)
        x, y = np.array([rng.choice(n, 2, replace=False) for _ in range(n_pairs)]).T
        chose_x = metric[x] + taste[x] > metric[y] + taste[y]
        names = np.array([f"n{i}" for i in range(n)])
        one = UserStudy(tmp_path, names[x], names[y], chose_x, {}, {})
        found = user_agreement(one, {"m": dict(zip(names.tolist(), metric.tolist(), strict=True))})
        truth = 0.5 + np.arctan(1 / 1.5) / np.pi
        low, high, p = (found.numbers[f"m/agreement{end}"] for end in ("_low", "_high", ""))
        held += low <= truth <= high
        simple += abs(p - truth) <= 1.96 * np.sqrt(p * (1 - p) / n_pairs)
    assert held / draws > 0.9
    assert simple / draws < 0.85


def differences(n_pairs: int, shared: bool) -> Any:
    """A metric that is right of every pair beside a sparsity that is right of half of them, or of none."""
    x, y = (np.array([f"{side}{i}" for i in range(n_pairs)]) for side in "xy")
    right = dict.fromkeys(x.tolist(), 1.0) | dict.fromkeys(y.tolist(), 0.0)
    sparse = {name: -value if shared or i % 2 else value for i, (name, value) in enumerate(right.items())}
    one = UserStudy(Path(), x, y, np.ones(n_pairs, bool), {}, {})
    return user_agreement(one, {SPARSITY: sparse, "MS": right})


def test_few_pairs_and_equal_ones_have_no_interval_of_the_difference():
    for n, shared, reason in ((1, True, "1 pairs; it needs 20"), (40, True, "it is the same in every pair")):
        found = differences(n, shared)
        assert found.numbers["MS/minus_sparsity"] == 1
        assert found.numbers["MS/minus_sparsity_low"] is None
        assert found.reasons["MS/minus_sparsity_low"] == reason
        assert "not known whether more than by preferring" in found.verdict
    assert ", more than by preferring" in differences(40, shared=False).verdict


def test_a_negative_dyadic_variance_is_not_an_interval_of_no_width():
    """All pairs share one neuron: residuals of its pairs add up to 0, and so does the dyadic variance."""
    n = 40
    x, y = np.full(n, "a"), np.array([f"b{i}" for i in range(n)])
    chose_x = (np.arange(n) % 2 == 0) | (np.arange(n) % 4 == 3)
    scores = {"a": 0.5} | {name: float(i % 2) for i, name in enumerate(y.tolist())}
    one = UserStudy(Path(), x, y, chose_x, {}, {})
    numbers = user_agreement(one, {SPARSITY: dict.fromkeys(scores, 0.0), "MS": scores}).numbers
    assert numbers["MS/minus_sparsity"] == 0.25
    half = 1.96 * np.sqrt(0.75 * 0.25 / n)
    assert numbers["MS/minus_sparsity_low"] == pytest.approx(0.25 - half, abs=1e-4)


def test_the_command_compares_published_scores_embeddings_and_given_ones(tmp_path: Path):
    study(tmp_path / "study")
    pd.DataFrame({"k": np.arange(N), "score": np.random.default_rng(1).random(N)}).to_csv(
        tmp_path / "noise.csv", index=False
    )
    asked = ["user-study", str(tmp_path / "study"), "--out", str(tmp_path / "out")]
    asked += ["--embeds", str(tmp_path / "study" / "dinov2.npy"), "--scores", str(tmp_path / "noise.csv")]
    result = CliRunner().invoke(build_app(), asked)
    assert result.exit_code == 0, result.output + str(result.exception)
    numbers = json.loads((tmp_path / "out" / "user_study.json").read_text())["numbers"]
    assert numbers["MS_dinov2/agreement"] == pytest.approx(numbers["MS_dino/agreement"], abs=0.01)
    assert numbers["MS_dino/agreement"] == pytest.approx(0.8, abs=0.06)
    assert numbers["MS_dino/minus_sparsity_low"] > 0
    assert numbers["noise/agreement_low"] < 0.5 < numbers["noise/agreement_high"]
    assert "MS dino and users agree on" in result.output
    table = pd.read_parquet(tmp_path / "out" / "user_study.parquet")
    assert set(table["metric"]) == {"MS dino", "MS dinov2", "noise", "fires on fewer pictures"}


def broken(folder: Path, file: str, text: Any) -> Path:
    study(folder, n_pairs=5)
    (folder / file).write_text(text((folder / file).read_text()))
    return folder


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("pairs.csv", lambda t: t.replace("R_user", "choice"), r"pairs.csv: has no column 'R_user'"),
        ("pairs.csv", lambda t: "k_x,k_y,R_user\n1,2,3\n", r"line 2: R_user is '3', it must be one of the two neurons, '1' or '2'"),
        ("pairs.csv", lambda t: "k_x,k_y,R_user\n1,1,1\n", "line 2: k_x and k_y are both '1'; a pair is of two neurons"),
        ("pairs.csv", lambda t: "k_x,k_y,R_user,MS_x_a,MS_y_a\n1,2,x,.1,.2\n3,1,y,.3,.4\n", "neuron '1' has two scores in 'MS_y_a'"),
        ("pairs.csv", lambda t: "k_x,k_y,R_user,MS_x_a,MS_y_a\n1,2,k_x,much,.2\n", "line 2: 'MS_x_a' is 'much', not a number"),
        ("activations.csv", lambda t: t + "99,1,2\n", "line 62: neuron '99' has no 200 finite activations"),
        ("activations.csv", lambda t: t + t.splitlines()[3] + "\n", "line 62: neuron '2' is also on line 4"),
        ("pairs.csv", lambda t: "k_x,k_y,R_user,R_user\n1,2,1,2\n", "a column occurs twice .'R_user'.; remove one"),
        ("pairs.csv", lambda t: "k_x,k_y,R_user,MS_x_a,MS_y_a\n1,2,x,inf,.2\n", "line 2: 'MS_x_a' is 'inf', not a finite"),
        ("top16_images.csv", lambda t: "neuron\n1\n", "top16_images.csv: has no column 'k'"),
    ],
)  # fmt: skip
def test_broken_files_are_named_with_their_line(tmp_path: Path, file: str, text: Any, message: str):
    folder = broken(tmp_path, file, text)
    with pytest.raises(BadTableError, match=message):
        dict(UserStudy.read(folder).activations())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("mine.csv", "k,score\n1,1\n1,2\n", "line 3: neuron '1' has a score already"),
        ("mine.csv", "k,score\nx,1\n", "'mine' has no score of any neuron of .*pairs.csv, such as "),
        ("MS dino.csv", "k,score\n1,1\n", "there is a metric 'MS dino' already; rename the file"),
        ("mine.npy", np.ones((PICTURES, D)) * 1j, "must be numbers .pictures, d.; it is complex128"),
    ],
)
def test_a_metric_of_ones_own_is_whole_and_its_own(tmp_path: Path, name: str, content: Any, message: str):
    study(tmp_path, n_pairs=5)
    np.save(tmp_path / name, content) if name.endswith("npy") else (tmp_path / name).write_text(content)
    given = {"embeds" if name.endswith("npy") else "scores": [tmp_path / name]}
    with pytest.raises((BadTableError, ConfigError), match=message):
        compare_with_users(tmp_path, tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


def test_what_is_missing_is_said(tmp_path: Path):
    with pytest.raises(BadTableError, match=r"pairs.csv: cannot be read"):
        UserStudy.read(tmp_path)
    study(tmp_path)
    read = UserStudy.read(tmp_path)
    assert len(read.top_images["0"]) == 16
    with pytest.raises(DataError, match="there is no metric"):
        user_agreement(read, {})
    with pytest.raises(DataError, match="3 embeddings for activations on 200 pictures"):
        monosemanticity_of(np.ones((3, 2)))(next(read.activations())[1])
    (tmp_path / "s.csv").write_text("k,score\n1,\n2,0.5\n")
    assert np.isnan(read_scores(tmp_path / "s.csv")["1"])
