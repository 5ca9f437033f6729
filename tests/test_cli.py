"""The command line: what a person types, what comes back, and one line for every mistake."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import filelock
import numpy as np
import pandas as pd
import pytest
import torch
from arrays import anisotropic
from command_line import CLI, run, run_here
from datasets import load_from_disk
from test_evaluation_schema import check_evaluation
from tiny_sae import tiny_sae

import sae_lens_meme
from sae_lens_meme.cli import main
from sae_lens_meme.errors import ConfigError, DataError, StorageError
from sae_lens_meme.export import mark_sae
from sae_lens_meme.select import select_memes


def here(arguments: tuple[object, ...], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """The same in this process, where SAELens is imported already: exit status, stdout, stderr."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", ["sae-lens-meme", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,000 x 512 vectors of the shape of real ones, and a table."""
    folder, rng = tmp_path_factory.mktemp("arrays"), np.random.default_rng(0)
    for name in ("A", "B"):
        np.save(folder / f"{name}.npy", anisotropic(1000, 512, rng))
    rows = [
        f"{i},{'ab'[i % 2]},{('train', 'train', 'train', 'validation', 'test')[i % 5]},{'' if i % 7 == 0 else rng.integers(2)},{['cat', 'dog', 'bird'][i % 3]}"
        for i in range(1000)
    ]
    (folder / "rows.csv").write_text("\n".join(["id,source,split,hate,kind", *rows]) + "\n")
    (folder / "rows.npy").write_text("id,source\n")
    return folder


@pytest.fixture(scope="module")
def results(arrays: Path) -> Path:
    """embed -> train -> evaluate as the contract writes them, no step by hand."""
    for arguments in (
        ("embed", "--image-embeds", "A.npy", "--text-embeds", "B.npy", "--table", "rows.csv", "--out", "E"),
        ("train", "demo.yaml", "--embeddings", "E", "--out", "S", "sae.k=16", "sae.d_sae=256", "epochs=3"),
        ("evaluate", "--sae", "S", "--embeddings", "E", "--out", "V", "--bootstrap", "20"),
    ):
        done = run_here(*arguments, cwd=arrays)
        assert done.returncode == 0, done.stderr
    return arrays


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]):
    assert here(("--version",), capsys) == (0, f"sae-lens-meme {sae_lens_meme.__version__}\n", "")


def test_a_pipe_that_is_not_utf8_takes_every_caption(monkeypatch: pytest.MonkeyPatch):
    out = io.TextIOWrapper(raw := io.BytesIO(), encoding="cp1252", newline="\n")
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr("sae_lens_meme.cli.build_app", lambda: lambda **_: print("café 猫"))
    with pytest.raises(SystemExit) as ended:
        main()
    out.flush()
    assert (ended.value.code, raw.getvalue()) == (0, b"caf\xe9 \\u732b\n")


@pytest.mark.parametrize("terminal", [False, True])
def test_the_bars_of_datasets_are_drawn_in_a_terminal_only(terminal: bool, monkeypatch: pytest.MonkeyPatch):
    """`select` drew them into every log."""
    monkeypatch.delenv(name := "HF_DATASETS_DISABLE_PROGRESS_BARS", raising=False)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    seen = []
    monkeypatch.setattr("sae_lens_meme.cli.build_app", lambda: lambda **_: seen.append(os.environ.get(name)))
    with pytest.raises(SystemExit):
        main()
    assert seen == [None if terminal else "1"]


def test_a_step_needs_no_place_to_print_to():
    """`>&-` in a shell, pythonw on Windows: sys.stdout is None."""
    code = "import sys; sys.stdout = None; from sae_lens_meme.steps import console; console.print('found')"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_help_is_there_in_a_second():
    started = time.perf_counter()
    done = run("--help")
    assert time.perf_counter() - started < 5, "a heavy import has crept into the command line"
    assert done.returncode == 0
    for command in ("demo", "corpus", "embed", "train", "evaluate", "run"):
        assert command in done.stdout
        assert run(command, "--help").returncode == 0


def test_importing_the_command_line_imports_nothing_heavy():
    code = (
        "import sys, sae_lens_meme.cli; print(sorted({'torch', 'datasets', 'sae_lens', 'pandas'} & set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.whole
def test_the_contract_on_arrays(results: Path):
    import pandas as pd
    import sae_lens

    evaluation = json.loads((results / "V" / "evaluation.json").read_text())
    assert {row["section"] for row in evaluation["table"]} >= {"Reconstruction, held-out memes"}
    concepts = pd.read_parquet(results / "V" / "concept_alignment.parquet")
    assert {
        "latent",
        "concept",
        "protocol",
        "n",
        "a",
        "b",
        "c",
        "d",
        "odds_ratio",
        "p",
        "q_concept",
        "q_global",
        "auroc",
        "threshold",
    } <= set(concepts)
    assert {"f1_validation", "f1_test", "precision_test", "recall_test", "f1_always_on"} <= set(concepts)
    assert {*concepts["protocol"]} == {"corrected", "published"}
    assert {"hate=1", "kind=cat"} <= {*concepts["concept"]}, "labels that are not among the eight count as well"
    influence = pd.read_parquet(results / "V" / "influence.parquet")
    assert {"latent", "task", "class", "kind", "multiplier", "delta_all", "delta_active", "n_active"} <= set(influence)
    assert {*influence["kind"]} == {"ablation", "steering"}
    sae = sae_lens.SAE.load_from_disk(results / "S")
    assert (sae.cfg.architecture(), sae.cfg.d_in, sae.cfg.d_sae, sae.cfg.k) == ("topk", 512, 256, 16)


def test_every_number_of_the_table_is_in_the_json_with_a_control(results: Path):
    evaluation = json.loads((results / "V" / "evaluation.json").read_text())
    numbers = {value for result in evaluation["results"].values() for value in result["numbers"].values()}
    for row in evaluation["table"]:
        assert row["value"] in numbers, row["measure"]
        assert numbers.issuperset(row["controls"].values()), row["measure"]
    page = (results / "V" / "evaluation.html").read_text()
    assert "corrected protocol" in page
    assert "http" not in page.replace("http-equiv", ""), "the page must need no network"


def test_a_second_evaluate_does_nothing_and_prints_the_same(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(results)
    before = {p: p.stat().st_mtime_ns for p in (results / "V").rglob("*") if p.is_file() and p.name != ".lock"}
    arguments = ("evaluate", "--sae", "S", "--embeddings", "E", "--out", "V", "--bootstrap", "20")
    status, printed, _ = here(arguments, capsys)
    assert status == 0
    assert len(printed.splitlines()) <= 26
    assert "Open V/evaluation.html" in printed
    assert "corrected protocol" not in printed
    assert "corrected protocol" in here((*arguments, "--full"), capsys)[1]
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_select_keeps_the_best_share_of_the_train_memes(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(results)
    arguments = ("select", "--sae", "S", "--embeddings", "E", "--share", "0.25", "--out", "K")
    status, printed, _ = here(arguments, capsys)
    assert (status, "550 memes" in printed) == (0, True)
    kept, whole = load_from_disk("K"), load_from_disk("E")
    assert {s: kept["split"].count(s) for s in ("train", "validation", "test")} == {
        "train": 150,
        "validation": 200,
        "test": 200,
    }
    scores = dict(zip(kept["id"], kept["cross_modal_score"], strict=True))
    assert kept.features.keys() - whole.features.keys() == {"cross_modal_score"}
    dropped = set(whole["id"]) - set(kept["id"])
    status, _, _ = here((*arguments[:5], "--share", "1", "--out", "K1"), capsys)
    all_scores = dict(zip(*(load_from_disk("K1")[name] for name in ("id", "cross_modal_score")), strict=True))
    lowest = min(scores[meme] for meme, split in zip(kept["id"], kept["split"], strict=True) if split == "train")
    assert max(all_scores[meme] for meme in dropped) <= lowest
    before = {p: p.stat().st_mtime_ns for p in Path("K").iterdir()}
    assert here(arguments, capsys)[0] == 0
    assert {p: p.stat().st_mtime_ns for p in Path("K").iterdir()} == before, "what is done is not done again"
    status, _, error = here((*arguments, "--by", "clip"), capsys)
    assert (status, "K: holds a different result (selection.by" in error) == (2, True)


def test_an_sae_with_a_page_on_neuronpedia_selects_the_same_memes(results: Path, tmp_path: Path):
    sae = shutil.copytree(results / "S", tmp_path / "S")
    select_memes(sae, results / "E", out=tmp_path / "K")
    before = (tmp_path / "K" / "manifest.json").stat().st_mtime_ns
    mark_sae(sae, "some-model/0-some-set")
    select_memes(sae, results / "E", out=tmp_path / "K")
    assert (tmp_path / "K" / "manifest.json").stat().st_mtime_ns == before, "a marked SAE is the same SAE"
    (sae / "cfg.json").unlink()
    with pytest.raises(StorageError, match="is not an SAE folder"):
        select_memes(sae, results / "E", out=tmp_path / "K")


def test_a_selection_that_fails_or_runs_twice_leaves_nothing_half_written(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    sources = (results / "S", results / "E")
    with monkeypatch.context() as patched:
        patched.setattr("datasets.Dataset.save_to_disk", full)
        with pytest.raises(StorageError, match="the disk is full"):
            select_memes(*sources, out=tmp_path / "K")
    assert not [path for path in tmp_path.rglob("*") if ".writing" in path.name]
    with (
        filelock.FileLock(tmp_path / "K" / ".lock", timeout=0),
        pytest.raises(StorageError, match="another process is writing this select result"),
    ):
        select_memes(*sources, out=tmp_path / "K")
    assert len(select_memes(*sources, out=tmp_path / "K", share=0.25)) == 550


def test_a_selection_that_cannot_tell_memes_apart_is_refused(results: Path, tmp_path: Path):
    for given, message in (
        ({"share": float("nan")}, "share is nan; give the share"),
        ({"delta": float("nan")}, "delta is nan; give an activation, 0 or more"),
        ({"delta": 1e9}, r"no latent is active above delta \(1e\+09\) on any train meme; lower it"),
    ):
        with pytest.raises((ConfigError, DataError), match=message):
            select_memes(results / "S", results / "E", out=tmp_path / "K", **given)
        assert not (tmp_path / "K").exists()


def test_explain_says_what_a_number_is(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(results)
    status, printed, _ = here(("explain", "V", "hate/latents/auroc"), capsys)
    assert status == 0
    assert re.search(r"probes/hate/latents/auroc 0\.\d+", printed)
    assert "known test rows" in " ".join(printed.split())
    status, printed, _ = here(("explain", "V"), capsys)
    assert status == 0
    assert len(printed.splitlines()) < 40, "without a pattern an index"
    assert re.search(r"probes +\d+ numbers: .*hate", printed)
    status, _, error = here(("explain", "V", "hate/auroc"), capsys)
    assert (status, "no number matches 'hate/auroc'" in error) == (2, True)


def test_explain_says_what_was_measured_of_a_latent(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(results)
    status, printed, _ = here(("explain", "V", "--latent", "3"), capsys)
    table = pd.read_parquet("V/naming.parquet").set_index("latent")
    assert status == 0
    assert re.search(rf"^ +concept_support {table['concept_support'][3]}  ", printed, re.MULTILINE)
    n = int((pd.read_parquet("V/concept_alignment.parquet")["latent"] == 3).sum())
    assert re.search(rf"concept_alignment +{n} rows\n +give the pattern '\w+' to print them", printed)
    _, printed, _ = here(("explain", "V", "concept_alignment", "--latent", "3"), capsys)
    assert len(re.findall(r"^ +concept ", printed, re.MULTILINE)) == n
    for latent in ("4096", "-1"):
        status, _, error = here(("explain", "V", "--latent", latent), capsys)
        assert (status, bool(re.search(rf"--latent {latent}: the SAE has \d+ latents", error))) == (2, True)
    status, _, error = here(("explain", "V", "probes", "--latent", "3"), capsys)
    assert (status, "'probes' is not an evaluator with a table of latents; these are: " in error) == (2, True)


def test_evaluation_json_is_of_its_schema(results: Path):
    check_evaluation((results / "V" / "evaluation.json").read_text())
    numbers = pd.read_parquet(results / "V" / "numbers.parquet")
    assert numbers["value"].isna().eq(numbers["reason"].notna()).all()
    assert (numbers["explain"].str.len() > 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "nope.yaml"), "nope.yaml: no such file; recipes that come with the package: clip-patches.yaml, crowded.yaml"),
        (("run", "demo.yaml", "--out", "o", "trian.sae.k=3"), "unknown key 'trian'; did you mean 'train'?"),
        (("run", "demo.yaml", "--out", "o", "corpus.planted.sede=1"), "corpus.planted: unknown key 'sede'; did you mean 'seed'?"),
        (("run", "demo.yaml", "--out", "o", "evaluate"), "override 'evaluate' is not KEY=VALUE"),
        (("embed", "--out", "o"), "give either a CORPUS or arrays"),
        (("embed", "--out", "o", "--image-embeds", "A.npy"), "arrays need --table"),
        (("embed", "nowhere", "--out", "o"), "nowhere: is not a result of 'corpus'"),
        (("corpus", "--out", "o"), "give"),
        (("train", "demo.yaml", "--out", "o"), "give --embeddings (cached) or --corpus (live)"),
        (("train", "demo.yaml", "--embeddings", "E", "--out", "o", "sae.expansion=8"), "unknown key 'expansion'"),
        (("train", "demo.yaml", "--embeddings", "E", "--out", "o", "sae.k=999"), "k is 999, it must lie between 1 and d_sae 128"),
        (("train", "demo.yaml", "--embeddings", "E", "--out", "o", "sae.d_in=7"), "d_in is 7, the activations at the hook have 512"),
        (("train", "demo.yaml", "--embeddings", "E", "--out", "o", "lr=1e-3"), "1.0e-3"),
        (("train", "demo.yaml", "--embeddings", "E", "--out", "o-lr", "lr=-1.0"), "lr is -1.0, it must be above 0"),
        (("train", "demo.yaml", "--embeddings", "E", "--out", "o-scheduler", "lr_scheduler_name=foo"), "Unsupported scheduler: foo"),
        (("train", ".", "--embeddings", "E", "--out", "o"), ".: is a folder; recipes that come with the package: clip-patches.yaml, crowded.yaml"),
        (("train", "demo.yaml", "--embeddings", "E", "--out", "V", "--overwrite"), "V: holds the result of 'evaluate', not of 'train'"),
        (("run", "demo.yaml", "--out", "o", "train.sae.k=[1"), "the value is not plain YAML"),
        (("run", "demo.yaml", "--out", "o", "embed=5"), "embed: is int, not a mapping of options"),
        (("run", "demo.yaml", "--out", "o", "embed.batch_size=foo"), "embed.batch_size is 'foo', it must be an integer"),
        (("run", "demo.yaml", "--out", "o", "evaluate.protocol=foo"), "evaluate.protocol is 'foo', it must be 'corrected', 'published' or 'both'"),
        (("run", "demo.yaml", "--out", "o", "corpus="), "corpus: the section is missing"),
        (("embed", "--out", "/proc/nowhere", "--fused-embeds", "A.npy", "--table", "rows.csv"), "/proc/nowhere: No such file or directory"),
        (("embed", "--out", "o2", "--fused-embeds", "rows.npy", "--table", "rows.csv"), "rows.npy: is not a .npy file"),
        (("evaluate", "--sae", "E", "--embeddings", "E", "--out", "o"), "E: is not an SAE folder (no cfg.json)"),
        (("evaluate", "--sae", "S", "--embeddings", "S", "--out", "o"), "holds the result of 'train', not of 'embed'; give the folder that 'embed' wrote"),
        (("evaluate", "--sae", "S", "--embeddings", "E", "--out", "o", "--only", "probe"), "unknown key 'probe'; did you mean 'probes'?"),
        (("evaluate", "--sae", "S", "--embeddings", "E", "--out", "o", "--concept", "hat=1"), "'hat=1'"),
        (("evaluate", "--sae", "S", "--embeddings", "E", "--out", "o", "--seed", "-1"), "evaluate.seed is -1, it must be 0 or more"),
        (("evaluate", "--sae", "S", "--embeddings", "E", "--out", "o", "--share", "1.5"), "evaluate.share is 1.5, it must be less than 1"),
        (("evaluate", "--sae", "S", "--embeddings", "E", "--out", "o", "--bootstrap", "2.5"), "error: --bootstrap is '2.5', it must be an integer; see sae-lens-meme evaluate --help"),
        (("evaluate", "--sae", "S", "--embeddings", "E", "--out", "o", "--share", "half"), "error: --share is 'half', it must be a number; see sae-lens-meme evaluate --help"),
        (("select", "--sae", "S", "--embeddings", "E", "--out", "V"), "V: holds the result of 'evaluate', not of 'select'"),
        (("embed", "C", "--resize", "stretch", "--out", "o"), "'stretch' is not one of 'crop', 'squash', 'pad'; see sae-lens-meme embed --help"),
        ((), "error: no command is given; see sae-lens-meme --help"),
        (("evaluate", "--sae"), "error: Option '--sae' requires an argument; see sae-lens-meme evaluate --help"),
        (("embedd",), "No such command 'embedd'. Did you mean 'embed'?"),
        (("report",), "No such command 'report'. Did you mean 'dashboard'? See sae-lens-meme --help"),
        (("rport",), "Did you mean 'dashboard'?"),
        (("eval", "E"), "Did you mean 'evaluate'?"),
        (("upload", "E"), "Did you mean 'export'?"),
        (("grid-search",), "No such command 'grid-search'; see sae-lens-meme --help"),
        (("embed", "C", "--rezise", "crop", "--out", "o"), "No such option: --rezise"),
        (("explain", "S"), "S: holds the result of 'train', not of 'evaluate'; give the folder that 'evaluate' wrote"),
    ],
)  # fmt: skip
def test_a_mistake_gives_one_line(
    results: Path,
    arguments: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(results)
    status, _, error = here(arguments, capsys)
    assert status == 2, error
    assert len(error.strip().splitlines()) == 1, error
    assert message in error


def test_text_of_the_data_is_shown_not_interpreted_by_the_terminal(tmp_path: Path):
    """Escape sequences, C1 controls and bidirectional overrides in names of files and hooks."""
    bad, shown = "\x1b]0;x\x07\x9b31m\u202e", r"\u001b]0;x\u0007\u009b31m\u202e"
    for arguments in (("corpus", "--folder", bad), ("import", "dictionary_learning", f"{bad}.pt")):
        done = run_here(*arguments, "--out", "o", cwd=tmp_path)
        assert done.returncode == 2
        assert shown in done.stderr
        assert done.stderr.rstrip("\n").isprintable()
    x = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)
    tiny_sae(x, d_sae=8, k=2, hook=bad).save_model(tmp_path / "given")
    (tmp_path / "given" / "activation_scaler.json").write_text('{"scaling_factor": 2.0}')
    done = run_here("import", "auto", "given", "--out", "o", cwd=tmp_path)
    assert f"reads {shown}" in done.stdout


@pytest.mark.whole
def test_ctrl_c_says_how_to_go_on_and_the_run_goes_on(results: Path):
    arguments = ("train", "demo.yaml", "--embeddings", "E", "--out", "C", "sae.d_sae=256", "epochs=2000")
    with subprocess.Popen(
        [*CLI, *arguments], cwd=results, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as started:
        deadline = time.monotonic() + 120
        while not (results / "C" / "training_log.jsonl").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        os.kill(started.pid, signal.SIGINT)
        _, errors = started.communicate(timeout=60)
    assert started.returncode == 130
    assert errors.strip().splitlines()[-1] == "interrupted; run the same command again to resume"
    assert "Traceback" not in errors
    assert "it/s" not in errors, "a progress bar does not belong into a log"
    assert list((results / "C" / "checkpoints").iterdir())


@pytest.mark.slow
def test_a_recipe_with_several_hooks_runs_to_the_end(results: Path):
    (results / "hooks.yaml").write_text(
        "embed: {table: rows.csv, image_embeds: A.npy, text_embeds: B.npy}\n"
        "train: {epochs: 1, hook_names: {image: hook_image_embed, fused: hook_fused}, sae: {d_sae: 32, k: 4}}\n"
        "evaluate: {bootstrap: 5, only: [reconstruction]}\n"
    )
    done = run_here("run", "hooks.yaml", "--out", "H", cwd=results)
    assert done.returncode == 0, done.stderr
    assert all((results / "H" / "evaluation" / name / "evaluation.json").exists() for name in ("image", "fused"))
    several = run_here("evaluate", "--sae", "H/sae", "--embeddings", "E", "--out", "o", cwd=results)
    assert several.returncode == 2
    assert "give one of H/sae/image, H/sae/fused" in several.stderr


def test_debug_shows_the_traceback(tmp_path: Path):
    done = run("--debug", "run", "nope.yaml", cwd=tmp_path)
    assert done.returncode != 0
    assert "Traceback" in done.stderr


@pytest.mark.whole
def test_memes_that_are_all_training_memes_are_evaluated_with_reasons(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Nothing is held out: held-out numbers are null and say why; nothing is taken from the training rows instead."""
    monkeypatch.chdir(results)
    table = (results / "rows.csv").read_text().replace(",validation,", ",train,").replace(",test,", ",train,")
    (results / "train_only.csv").write_text(table)
    for arguments in (
        ("embed", "--image-embeds", "A.npy", "--text-embeds", "B.npy", "--table", "train_only.csv", "--out", "E2"),
        ("evaluate", "--sae", "S", "--embeddings", "E2", "--out", "V2", "--bootstrap", "0", "--skip", "baselines"),
    ):
        status, _, error = here(arguments, capsys)
        assert status == 0, error
    found = json.loads((results / "V2" / "evaluation.json").read_text())["results"]
    for name, key in (("probes", "hate/latents/auroc"), ("reconstruction", "held_out/explained_variance")):
        assert found[name]["numbers"][key] is None
        assert found[name]["reasons"][key]


@pytest.mark.parametrize("named", [True, False], ids=["names its hook", "names none"])
@pytest.mark.slow
def test_an_sae_made_elsewhere_is_evaluated(
    results: Path, named: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """A stock SAELens SAE without any metadata of a training run."""
    from sae_lens import TopKSAE, TopKSAEConfig

    monkeypatch.chdir(results)
    torch.manual_seed(0)
    sae = TopKSAE(TopKSAEConfig(d_in=512, d_sae=64, k=8))
    torch.nn.init.normal_(sae.W_enc)
    sae.cfg.metadata.hook_name = "hook_fused" if named else None
    out = f"stock-{named}"
    sae.save_model(out)
    arguments = (
        "evaluate",
        "--sae",
        out,
        "--embeddings",
        "E",
        "--out",
        f"V-{out}",
        "--bootstrap",
        "0",
        "--skip",
        "influence",
    )
    if not named:
        status, _, error = here(arguments, capsys)
        assert status == 2
        assert "this SAE names no hook; pass --hook" in error
        arguments += ("--hook", "hook_fused")
    status, printed, error = here(arguments, capsys)
    assert status == 0, error
    assert "training rows of this SAE are not known" in " ".join(printed.split())
    full = (results / f"V-{out}" / "evaluation.txt").read_text()
    assert "shuffled data could not be measured: this SAE was not trained by `train`" in " ".join(full.split())
    numbers = json.loads((results / f"V-{out}" / "evaluation.json").read_text())["results"]["stock_evals"]["numbers"]
    assert numbers["hate/ce_loss_with_sae"] is not None, (
        "spliced; the labels are random, so that no share of a gain is defined"
    )


def test_live_memeclip_without_trained_heads_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ("train", "demo.yaml", "--corpus", tmp_path, "--fusion", "memeclip", "--out", tmp_path / "o")
    status, _, error = here(arguments, capsys)
    assert status == 2
    assert "fusion memeclip and --heads CHECKPOINT go together" in error
    assert len(error.strip().splitlines()) == 1


def test_overwrite_reaches_the_planted_memes(tmp_path: Path):
    from sae_lens_meme import pipeline

    for seed in (0, 1):
        section = {"planted": {"seed": seed, "scale": 0.02}}
        pipeline.corpus_section(section, tmp_path, overwrite=seed == 1)
    assert json.loads((tmp_path / "planted" / "manifest.json").read_text())["fingerprint"]["seed"] == 1


def test_every_option_of_a_step_is_a_flag_with_its_help(capsys: pytest.CaptureFixture[str]):
    from sae_lens_meme.evaluators import EvaluateOptions

    printed = " ".join(here(("evaluate", "--help"), capsys)[1].split())
    for name, field in EvaluateOptions.model_fields.items():
        if name != "evaluators":
            flag = next((m.name for m in field.metadata if hasattr(m, "name")), f"--{name.replace('_', '-')}")
            assert flag in printed, name
    for name in ("reconstruction", "answer_key"):
        assert name in printed, "--only takes names that the help lists"


def test_a_step_that_is_piped_shows_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    from sae_lens_meme import progress

    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    with progress.progress_bar("embed", 10) as advance:
        advance(4)
        advance(6, "the last")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("embed: 4 of 10 memes, about")
    assert "embed: 10 of 10 memes (the last)" in lines[1]
