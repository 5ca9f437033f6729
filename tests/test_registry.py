"""One class and one registration: a new evaluator is everywhere where the others are."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from arrays import anisotropic
from conformance import check_evaluator
from evaluations import small_memes
from tiny_sae import tiny_sae

from sae_lens_meme import options
from sae_lens_meme.cli import main
from sae_lens_meme.embed import embed_arrays
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError
from sae_lens_meme.evaluators import Evaluator, Latents, Quantity, Result, Section, find, names, register, unregister
from sae_lens_meme.evaluators import registry as registry_module

LOUDEST = Quantity("loudest", "the largest activation of any latent on any meme")


class Loudness(Evaluator):
    """The loudest latent."""

    name = "loudness"
    question = "how loud the loudest latent is"
    control = "silence"

    class Options(options.Options):
        at_least: float = 0.0
        """Quieter activations are taken for silence."""

    def measure(self, sae: Any, embeddings: Embeddings, latents: Latents) -> Result:
        largest = float(latents.values.max())
        measure = LOUDEST(largest if largest >= self.options.at_least else None, reason="all are silent")
        table = pd.DataFrame({"latent": np.arange(latents.d_sae)})
        columns, section = {"latent": "index of the latent"}, Section("Loudness", "nothing stands beside it")
        return Result(self.name, section, (measure.row("loudest activation"),), table, columns, "It is loud.")


@pytest.fixture
def loudness() -> Iterator[type[Evaluator]]:
    yield register(Loudness)
    unregister("loudness")


def command(*arguments: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", ["sae-lens-meme", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
    captured = capsys.readouterr()
    return int(ended.value.code or 0), captured.out + captured.err


def test_it_is_in_every_place(loudness, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert "loudness" in command("evaluate", "--help", capsys=capsys)[1]
    x = anisotropic(60, 8, np.random.default_rng(0))
    np.save(tmp_path / "x.npy", x)
    splits = ["train", "validation", "test"] * 20
    pd.DataFrame({"id": range(60), "split": splits}).to_csv(tmp_path / "rows.csv", index=False)
    embed_arrays(tmp_path / "E", fused_embeds=str(tmp_path / "x.npy"), table=tmp_path / "rows.csv")
    tiny_sae(x, d_sae=12, k=3).save_model(tmp_path / "S")
    folders = ("--sae", tmp_path / "S", "--embeddings", tmp_path / "E", "--out", tmp_path / "V")
    status, printed = command("evaluate", *folders, "--only", "loudness", capsys=capsys)
    assert (status, "It is loud." in printed) == (0, True)
    evaluation = json.loads((tmp_path / "V" / "evaluation.json").read_text())
    assert evaluation["results"]["loudness"]["numbers"]["loudest"] > 0
    assert [row["measure"] for row in evaluation["table"]] == ["loudest activation"]
    assert "loudest activation" in (tmp_path / "V" / "evaluation.html").read_text()
    assert "loudest activation" in (tmp_path / "V" / "evaluation.txt").read_text()
    assert len(pd.read_parquet(tmp_path / "V" / "loudness.parquet")) == 12
    assert "the largest activation" in command("explain", tmp_path / "V", "loudness/*", capsys=capsys)[1]
    assert "loudness" in command("explain", tmp_path / "V", capsys=capsys)[1]
    silent = command(
        "evaluate", *folders, "--only", "loudness", "--overwrite", "loudness.at_least=1.0e+9", capsys=capsys
    )
    assert silent[0] == 0
    assert "all are silent" in silent[1]
    wrong = command("evaluate", *folders, "--overwrite", "loudness.at_last=1.0", capsys=capsys)
    assert wrong[0] == 2
    assert "loudness: unknown key 'at_last'; did you mean 'at_least'?" in wrong[1]


def test_it_conforms(loudness):
    x, embeddings = small_memes()
    check_evaluator(find("loudness"), tiny_sae(x, d_sae=24, k=4), embeddings)


def test_one_of_another_package_comes_by_its_entry_point(monkeypatch: pytest.MonkeyPatch):
    entry = EntryPoint("loudness", f"{__name__}:Loudness", registry_module.GROUP)
    monkeypatch.setattr(registry_module, "entry_points", lambda group, name=None: [entry])
    assert names()[-1] == "loudness"
    assert find("loudness").__name__ == "Loudness"


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="evaluators: unknown key 'probs'; did you mean 'probes'"):
        find("probs")
