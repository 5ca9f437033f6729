"""Every row of `benchmarks/` runs once on a small shape and finds the same numbers as the plain loop; times are not looked at."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sae_lens_meme.evaluators import evidence

pytestmark = pytest.mark.whole

ROOT = Path(__file__).parents[1]


def run(module: str, *arguments: str) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", module, "--quick", *arguments]
    found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr[-2000:]


@pytest.mark.slow
def test_every_row_agrees_with_its_loop(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    names = importlib.import_module("benchmarks.__main__").NAMES
    names = [name for name in names if name not in ("evaluate_whole", "report")]  # no loop beside them
    only = [argument for name in names for argument in ("--only", name)]
    run("benchmarks", *only, "--json", str(tmp_path / "rows.json"))
    rows = json.loads((tmp_path / "rows.json").read_text())
    jobs = " ".join(row["job"] for row in rows)
    for job in (
        "Fisher + BH",
        "best F1",
        "ablation + x5",
        "training step",
        "captions",
        "memes embedded",
        "latents back",
        "monosemanticity",
        "cross-modal",
    ):
        assert job in jobs
    assert all(row["ours_s"] > 0 for row in rows)
    beside = [row for row in rows if row["naive_s"] is not None]
    assert len(beside) > 10
    assert all(row["agreement"] and row["naive_s"] > 0 for row in beside)
    for job in ("Fisher + BH", "best F1", "ablation + x5", "monosemanticity", "cross-modal weights + item"):
        rival = next(row for row in rows if row["job"].startswith(job))
        assert rival["kindest_s"] > 0, "a loop alone flatters"
        assert rival["kindest"]


@pytest.mark.slow
def test_the_large_report_is_measured(tmp_path):
    run("benchmarks", "--only", "report", "--json", str(tmp_path / "rows.json"))
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["job"].startswith("report.html of") for row in rows[:2]] == [True, True]
    assert all("peak memory" in row["note"] for row in rows[:2])
    assert len(rows) == 6 or "not measured" in rows[2]["note"]


@pytest.mark.slow
def test_the_whole_evaluate_is_measured(tmp_path):
    run("benchmarks", "--only", "evaluate_whole", "--json", str(tmp_path / "rows.json"))
    whole, *parts = json.loads((tmp_path / "rows.json").read_text())
    assert 0 < sum(part["ours_s"] for part in parts) <= 1.01 * whole["ours_s"]


@pytest.mark.slow
def test_growth_measures_each_cell_in_a_process_of_its_own(tmp_path):
    run("benchmarks.growth", "--json", str(tmp_path / "rows.json"))
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [(row["n"], row["d_sae"]) for row in rows] == [(300, 64), (300, 128), (900, 64), (900, 128)]
    assert all(row["memory"] >= row["libraries"] > 0 and len(row["seconds"]) == 6 for row in rows)


def test_the_growth_table_goes_between_its_marks(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    growth, readme = importlib.import_module("benchmarks.growth"), tmp_path / "README.md"
    cell = {"n": 2000, "d_sae": 64, "k": 8, "memory": 2e9, "libraries": 5e8, "seconds": {"AUROC": 0.002}}
    readme.write_text(f"before\n{growth.START}\nold\n{growth.END}\nafter\n")
    for _ in range(2):
        growth.replace_table(readme, growth.markdown_of([cell]))
    lines = readme.read_text().splitlines()
    assert (lines[0], lines[1], lines[-2], lines[-1], len(lines)) == ("before", growth.START, growth.END, "after", 7)
    assert lines[4].replace(" ", "") == "|2,000|64|-|-|-|2ms|-|-|2.00GB|500MB|"
    readme.write_text("no place")
    with pytest.raises(ValueError, match="has no place for the table"):
        growth.replace_table(readme, "table")


def test_many_latents_have_k_different_ones_with_falling_rates(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    latents = importlib.import_module("benchmarks.data").make_many_latents(500, 40, 6)
    assert (np.diff(latents.indices, axis=1) > 0).all()
    fired = np.bincount(latents.indices.ravel(), minlength=40)
    assert fired[:5].sum() > 2 * fired[-5:].sum() > 0
    assert (latents.values > 0).all()


@pytest.mark.slow
def test_a_large_corpus_is_measured(tmp_path):
    run("benchmarks.corpus_scale", "--folder", str(tmp_path), "--kills", "1", "--json", str(tmp_path / "rows.json"))
    measured = json.loads((tmp_path / "rows.json").read_text())
    (row,) = measured["sizes"]
    assert row["memes"] == 400
    assert all(row[step]["memory"] > 1e8 and row[step]["cpu"] > 0 for step in ("corpus", "embed"))
    assert 380 < row["near"]["pictures"] <= 396, "four pictures are there twice"
    assert [len(row["killed"][step]) for step in ("corpus", "embed")] == [1, 1]
    assert row["killed"]["files"] > 10
    assert row["killed"]["differing"] == []
    assert all(measured["share"][part] > 0 for part in ("decoding", "hashing", "float32", "int8"))


@pytest.mark.slow
def test_the_sweep_runs(tmp_path):
    run("benchmarks.sweep", "--json", str(tmp_path / "rows.json"))
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["standardize"] for row in rows] == [True, False]
    assert all(0 < row["ever_fire"] <= row["d_sae"] and np.isfinite(row["raw"]) for row in rows)


@pytest.mark.parametrize(
    ("module", "function", "wrong"),
    [
        ("association", "benjamini_hochberg_by_concept", lambda log_p: np.exp(log_p)),
        ("thresholds", "best_f1", lambda ranked, codes: type("F1", (), {"f1": np.zeros((96, 4))})),
    ],
)
def test_a_wrong_number_fails_the_row(monkeypatch, module, function, wrong):
    monkeypatch.syspath_prepend(str(ROOT))
    row = importlib.import_module(f"benchmarks.{module}")
    row.run(quick=True)
    monkeypatch.setattr(row, function, wrong)
    with pytest.raises(AssertionError, match="Mismatched elements"):
        row.run(quick=True)


@pytest.mark.slow
def test_recovery_keeps_each_cell_and_goes_on_where_it_was(tmp_path):
    run("benchmarks.recovery", "--cells", str(tmp_path))
    cells = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "seed-0").iterdir()}
    oracle, controls = cells["architecture-oracle"], cells.pop("controls")
    assert oracle["saelens_mcc"] == pytest.approx(1, abs=1e-5)
    rivals = [cells["architecture-shuffled"], *controls.values()]
    assert all(oracle["planted_mcc"] > rival["planted_mcc"] for rival in rivals)
    assert len(controls) == 8
    kept = tmp_path / "seed-0" / "architecture-oracle.json"
    kept.write_text("{}\n")
    run("benchmarks.recovery", "--cells", str(tmp_path))
    assert kept.read_text() == "{}\n"


@pytest.fixture
def recovery(monkeypatch):
    """The report, and rows of three seeds in which one metric follows the truth and another goes against it."""
    monkeypatch.syspath_prepend(str(ROOT))
    report = importlib.import_module("benchmarks.recovery_report")
    rng, rows = np.random.default_rng(0), []
    for seed in range(3):
        for i, truth in enumerate(rng.permutation(np.linspace(0, 1, 42))):
            row = dict.fromkeys([*report.SHOWN, *report.METRICS], rng.random()) | {report.TRUTH: truth}
            row |= {"pairs": 100 - 50 * truth, "explained_variance": truth**3, "seed": seed}
            rows.append(row | {"axis": "architecture", "level": "oracle" if i == 0 else f"a{i}"})
        rows.append(rows[-1] | {"axis": "outliers", "level": "zscored-0.27", "pairs": 1e6})
        rows.append({report.TRUTH: 0.1, "axis": "controls", "level": "neurons", "seed": seed})
    return report, pd.DataFrame(rows)


def test_ranks_are_of_trained_dictionaries_each_once(recovery):
    report, rows = recovery
    assert len(report.dictionaries(rows)) == 3 * 41
    found = report.rank_correlations(rows)
    assert list(found.columns) == [0, 1, 2]
    assert report.rank_correlations(rows[rows["seed"] > 0].iloc[:50]).columns.tolist() == [1], "of 2 there are too few"
    np.testing.assert_allclose(found.loc["pairs"], -1)
    np.testing.assert_allclose(found.loc["explained_variance"], 1)


def test_the_tables_of_recovery_hold_means_and_what_is_not_known(recovery):
    report, rows = recovery
    tables = report.tables(rows)
    truth = rows.loc[rows["level"] == "a3", report.TRUTH]
    (line,) = [line for line in tables["recovery"].splitlines() if "| a3 |" in line]
    assert f"| {truth.mean():.3f} ± {truth.std():.3f} |" in line
    assert "| controls | neurons | 0.100 ± 0.000 | - | - |" in tables["recovery"]
    first, last = tables["recovery ranks"].splitlines()[2], tables["recovery ranks"].splitlines()[-1]
    assert first == "| held-out explained variance, z-scored | 1.00 | 1.00 to 1.00 |"
    assert last == "| significant latent x label pairs | -1.00 | -1.00 to -1.00 |"


def test_the_notes_cite_the_ranks_that_were_measured(monkeypatch):
    """The evaluators' notes say how far a metric follows the truth: as the committed table has it."""
    monkeypatch.syspath_prepend(str(ROOT))
    report = importlib.import_module("benchmarks.recovery_report")
    rows = pd.read_csv(ROOT / "benchmarks" / "recovery.csv")
    found = report.rank_correlations(rows)
    assert dict(evidence.RHO) == {metric: pytest.approx(found.loc[metric].mean(), abs=0.006) for metric in evidence.RHO}
    assert report.dictionaries(rows).groupby("seed").size().max() == evidence.N_DICTIONARIES >= 30
    assert found.shape[1] == evidence.N_SEEDS == 5


def test_a_metric_that_follows_the_truth_has_no_note():
    for metric, rho in evidence.RHO.items():
        said = evidence.tracking(metric, "It")
        assert (said == "") == (rho >= evidence.GUIDE), metric
        assert not said or f"correlation with recovery of the true factors is {rho:.2f}." in said
