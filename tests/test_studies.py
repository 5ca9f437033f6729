"""`question-set` and `patch-filter`: what a model that knows colours must show, from the command line to the files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny_vlms
import torch
from command_line import run_here
from hooks_models import write_encoder
from PIL import Image
from sae_lens import StandardSAE, StandardSAEConfig
from sae_lens.saes.sae import SAEMetadata
from tiny_vlms import COLOURS, QUESTION

from sae_lens_meme.errors import ConfigError, DataError, ModelError
from sae_lens_meme.hooks import HookedVLM
from sae_lens_meme.studies import patch_filter, question_set

HOOK, GRID, SHOWN = "hook_decoder_resid.0", 4, 4
pytestmark = pytest.mark.whole
QUESTIONS = ["what is the colour of this ?", "is a cat the picture of this ?", "monday is the meme of what ?", "a ?"]


def part_coloured(n: int, seed: int) -> tuple[list[Image.Image], list[str], np.ndarray]:
    """Grey pictures of 4 x 4 patches, 4 of which have a colour; its name; and which they are."""
    rng = np.random.default_rng(seed)
    names = [list(COLOURS)[i % len(COLOURS)] for i in range(n)]
    pictures, where = [], np.zeros((n, GRID, GRID), bool)
    for i, name in enumerate(names):
        where[i].flat[rng.choice(GRID**2, SHOWN, replace=False)] = True
        mask = np.kron(where[i], np.ones((8, 8)))[..., None]
        pixels = mask * np.array(COLOURS[name]) + (1 - mask) * np.array([122, 116, 104]) + rng.normal(0, 4, (32, 32, 3))
        pictures.append(Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)))
    return pictures, names, where


def sae_with(W_enc: torch.Tensor, b_enc: torch.Tensor, hook: str = HOOK) -> StandardSAE:
    sae = StandardSAE(StandardSAEConfig(d_in=24, d_sae=len(b_enc), metadata=SAEMetadata(hook_name=hook)))
    with torch.no_grad():
        sae.W_enc.copy_(W_enc)
        sae.W_dec.copy_(W_enc.T)
        sae.b_enc.copy_(b_enc)
    return sae


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("studies")
    pictures, names, _ = part_coloured(128, seed=1)
    tiny_vlms.taught(base / "model", pictures, names, steps=120)
    for name, n, seed in (("pictures", 24, 2), ("references", 32, 6)):
        (base / name).mkdir()
        for row, picture in enumerate(part_coloured(n, seed)[0]):
            picture.save(base / name / f"{row:02}.png")
    (base / "sqs.yaml").write_text(json.dumps({"questions": QUESTIONS}))
    return base


class TestQuestionSet:
    @pytest.fixture(scope="class")
    def sae(self, folder: Path) -> Path:
        """Latents along what pictures do to the last position of a prompt, and along what questions do."""
        model = HookedVLM.from_pretrained(str(folder / "model"))
        pictures, cells = part_coloured(16, seed=3)[0], []
        for question in QUESTIONS:
            text = [f"<image>{question}"] * len(pictures)
            inputs = model.processor.both(images=pictures, text=text, return_tensors="pt")
            cells.append(model.run_with_cache(dict(inputs), names_filter=[HOOK])[1][HOOK][:, -1])
        x = torch.stack(cells, dim=1)
        mean = x.mean((0, 1))
        of_pictures, of_questions = ((x.mean(dim) - mean).svd().V[:, :2] for dim in (1, 0))
        directions = torch.cat([of_pictures, -of_pictures, of_questions, -of_questions], dim=1)
        sae_with(directions, -(mean @ directions)).save_model(folder / "question_sae")
        return folder / "question_sae"

    def test_one_command_tells_pictures_from_questions_beside_controls(self, folder: Path, sae: Path, tmp_path: Path):
        command: list[Any] = [
            "question-set",
            "--model",
            folder / "model",
            "--sae",
            sae,
            "--pictures",
            folder / "pictures",
        ]
        command += [
            "--questions",
            folder / "sqs.yaml",
            "--bootstrap",
            50,
            "--out",
            tmp_path,
            "--latents",
            0,
            "--max-new-tokens",
            1,
        ]
        ran = run_here(*command)
        assert ran.returncode == 0, ran.stderr
        found = json.loads((tmp_path / "question_set.json").read_text())
        first, changes = found["results"]
        assert first["numbers"]["n_pictures"] == 24
        assert first["numbers"]["permuted/n_visual"] == 0
        assert {"random/share_visual", "neurons/share_visual"} <= first["numbers"].keys()
        table = pd.read_parquet(tmp_path / "latents.parquet").set_index("latent")
        assert (table["class"].reindex([4, 6]) == "textual").all(), table["class"]
        assert (table.loc[[0, 2], "image_share_of_grid"] > table.loc[[4, 6], "image_share_of_grid"].max()).all()
        assert "of random directions" in first["verdict"]
        assert "changed_again" in changes["numbers"]
        assert changes["numbers"]["changed_again"] == 0
        assert set(pd.read_parquet(tmp_path / "answer_changes.parquet")["prompt"]) == set(QUESTIONS)
        assert (tmp_path / "_SUCCESS").exists()
        said = " ".join(ran.stdout.split())
        assert first["verdict"] in said
        written = (tmp_path / "latents.parquet").stat().st_mtime_ns
        again = run_here(*command)
        assert again.stdout == ran.stdout
        assert (tmp_path / "latents.parquet").stat().st_mtime_ns == written

    def test_what_cannot_be_asked_is_one_line(self, folder: Path, sae: Path, tmp_path: Path):
        given: Any = {"model": str(folder / "model"), "pictures": folder / "pictures", "progress": False}
        with pytest.raises(ConfigError, match=r"question-set\.latents: 8 is not one of 0 to 7"):
            question_set(sae, tmp_path / "out", latents=[8], **given)
        with pytest.raises(ModelError, match=r"hook_image_resid\.0: sees the picture before the question is asked"):
            question_set(sae, tmp_path / "out", hook="hook_image_resid.0", **given)
        tiny_vlms.save(tmp_path / "captioner", tiny_vlms.vit_gpt2)
        with pytest.raises(ModelError, match="takes no question about a picture; give a chat model"):
            question_set(sae, tmp_path / "out", **{**given, "model": str(tmp_path / "captioner")})
        with pytest.raises(DataError, match="no such folder; give a folder of pictures"):
            question_set(sae, tmp_path / "out", **{**given, "pictures": tmp_path / "nowhere"})


class TestPatchFilter:
    @pytest.fixture(scope="class")
    def sae(self, folder: Path) -> Path:
        """Latents that fire where a patch has a colour, and on the word for it; none fires on a grey patch."""
        model = HookedVLM.from_pretrained(str(folder / "model"))
        pictures, names, where = part_coloured(32, seed=4)
        text = [f"<image>{QUESTION} {name}" for name in names]
        inputs = dict(model.processor.both(images=pictures, text=text, return_tensors="pt"))
        x = model.run_with_cache(inputs, names_filter=[HOOK])[1][HOOK]
        kind = torch.zeros(x.shape[:2], dtype=torch.long)  # 0 a grey patch or another word, i + 1 the i-th colour
        number = torch.tensor([list(COLOURS).index(name) + 1 for name in names])
        kind[inputs["input_ids"] == tiny_vlms.IMAGE_ID] = (
            torch.from_numpy(where).flatten(1) * number[:, None]
        ).flatten()
        kind[:, -1] = number
        weight = torch.ones(x.shape[1])
        weight[-1] = 9  # there are few words
        given = weight[:, None] * torch.cat([x, torch.ones_like(x[..., :1])], dim=-1)
        wanted = weight[:, None] * torch.eye(5)[kind][..., 1:]
        fitted = torch.linalg.lstsq(given.flatten(0, 1), wanted.flatten(0, 1)).solution
        sae_with(fitted[:-1], fitted[-1] - 0.4).save_model(folder / "patch_sae")
        return folder / "patch_sae"

    def test_one_command_finds_the_patches_that_an_answer_needs(self, folder: Path, sae: Path, tmp_path: Path):
        encoder = write_encoder(tmp_path / "clip")
        command: list[Any] = [
            "patch-filter",
            "--model",
            folder / "model",
            "--sae",
            sae,
            "--pictures",
            folder / "pictures",
        ]
        command += [
            "--prompt",
            QUESTION,
            "--scorer",
            f"local-dir:{encoder}",
            "--grid",
            GRID,
            "--share",
            0.25,
            "--draws",
            2,
        ]
        ran = run_here(
            *command,
            "--references",
            folder / "references",
            "--rule",
            "paper",
            "--bootstrap",
            100,
            "--out",
            tmp_path / "out",
        )
        assert ran.returncode == 0, ran.stderr
        found = json.loads((tmp_path / "out" / "patch_filter.json").read_text())
        (result,) = found["results"]
        numbers = result["numbers"]
        assert numbers["whole_picture/outcome"] == 1
        assert numbers["keep_0.25/L0/outcome"] > 0.9
        assert numbers["keep_0.25/L0/minus_random_low"] > 0
        assert found["n_weights"] > 0
        assert found["chance_weight"] is not None
        assert "keep_0.25/SAE-V/minus_CLIP_score" in numbers
        assert "SAE-V: against random patches" in " ".join(ran.stdout.split())
        assert {"outcomes.parquet", "weights.parquet", "_SUCCESS"} <= set(os.listdir(tmp_path / "out"))
        table = pd.read_parquet(tmp_path / "out" / "outcomes.parquet")
        assert table["picture"].nunique() == 24
        rows = {row["measure"]: row["controls"] for row in result["table"]}
        assert set(rows["SAE-V, best 25%"]) == {"filter", "random", "CLIP score", "L0", "whole picture"}

    def test_without_weights_or_a_scorer_it_says_so(self, folder: Path, tmp_path: Path):
        sae_with(torch.zeros(24, 4), torch.full((4,), -1.0)).save_model(tmp_path / "sae")
        for name in ("red", "green"):
            (tmp_path / "named" / name).mkdir(parents=True)
        pictures, names, _ = part_coloured(8, seed=5)
        for row in (0, 1, 4, 5):
            pictures[row].save(tmp_path / "named" / names[row] / f"{row}.png")
        given: Any = {"model": str(folder / "model"), "pictures": tmp_path / "named"}
        given |= {"prompt": QUESTION, "grid": GRID, "shares": [0.5], "draws": 1, "bootstrap": 0, "progress": False}
        found = patch_filter(tmp_path / "sae", tmp_path / "out", **given)
        assert (found["n_pictures"], found["n_references"]) == (2, 2), "half of the pictures are references"
        assert found["outcome"] == "pictures whose answer names their folder"
        assert found["results"][0]["numbers"]["whole_picture/outcome"] == 1
        assert found["results"][0]["verdict"] == (
            "SAE-V: no latent has tokens enough of both modalities on the reference pictures, so that none has a weight. "
            "CLIP score: no --scorer was given."
        )
