"""Steering: the fast path is the spliced one; every arm is there; in a trained model the effect that must be there is found."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny_vlms
import torch
from command_line import run_here
from hooks_models import topk_sae, write_encoder
from PIL import Image
from sae_lens import (
    SAE,
    GatedSAE,
    GatedSAEConfig,
    JumpReLUSAE,
    JumpReLUSAEConfig,
    StandardSAE,
    StandardSAEConfig,
)
from sae_lens.saes.sae import SAEMetadata
from tiny_vlms import COLOURS, QUESTION, colour_pictures, made
from typer.testing import CliRunner

from sae_lens_meme.errors import ConfigError, DataError, ModelError
from sae_lens_meme.hooks import HookedMemeCLIP, HookedVLM
from sae_lens_meme.metrics.directions import unit_rows
from sae_lens_meme.steer import SteeredAnswers, SteerOptions, latent_set, steer, steer_pictures
from sae_lens_meme.steer.scores import arm_numbers, verdict_of, word_scores


def sae_of(kind: str, d_in: int, hook: str) -> SAE[Any]:
    if kind == "topk":
        return topk_sae(d_in, hook)
    classes: dict[str, Any] = {
        "standard": (StandardSAE, StandardSAEConfig),
        "jumprelu": (JumpReLUSAE, JumpReLUSAEConfig),
        "gated": (GatedSAE, GatedSAEConfig),
    }
    make, config = classes[kind]
    sae = make(config(d_in=d_in, d_sae=32, metadata=SAEMetadata(hook_name=hook)))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return sae


class TestFastPath:
    @pytest.mark.parametrize("kind", ["standard", "jumprelu", "gated", "topk"])
    @pytest.mark.parametrize("mode", ["set", "add", "scale"])
    def test_it_gives_what_the_spliced_sae_gives(self, kind: str, mode: Any):
        model = HookedVLM(*made(tiny_vlms.llava))
        batch = model.source.take(np.arange(4))  # type: ignore[union-attr]
        for hook in ("hook_image_resid.0", "hook_decoder_resid.0"):
            sae = sae_of(kind, model.d(hook), hook)
            for where in ("all", ["image"]):
                found = []
                for fast in (True, False):
                    with torch.no_grad(), latent_set(model, sae, {3: 2.0, 7: 0.5}, mode=mode, where=where, fast=fast):
                        found.append(model(batch))
                scale = max(1.0, float(found[1].abs().max()))
                torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-6 * scale)
                plain = model(batch)
                assert mode == "scale" or not torch.allclose(found[0], plain, atol=1e-3)

    def test_a_random_direction_goes_as_far_with_the_error_term_and_without(self):
        hook = "hook_decoder_resid.0"
        model = HookedVLM(*made(tiny_vlms.llava))
        batch = model.source.take(np.arange(2))  # type: ignore[union-attr]
        sae = sae_of("standard", 24, hook)
        _, cache = model.run_with_cache(batch, names_filter=[hook])
        x, z = cache[hook], sae.encode(cache[hook])
        direction = torch.randn(24, generator=torch.Generator().manual_seed(1))
        far = (2 - z[..., 3:4]) * sae.W_dec[3].norm() * direction / direction.norm()
        for error_term, base in ((True, x), (False, sae.decode(z))):
            seen: list[torch.Tensor] = []
            with torch.no_grad(), latent_set(model, sae, {3: 2.0}, use_error_term=error_term, direction=direction):
                handle = model.points["hook_decoder_resid.1"].register_forward_pre_hook(
                    lambda _module, args, seen=seen: seen.append(args[0])
                )
                model(batch)
                handle.remove()
            torch.testing.assert_close(seen[0], base + far, rtol=1e-4, atol=1e-5)

    def test_without_the_error_term_the_reconstruction_takes_its_place(self):
        hook = "hook_decoder_resid.0"
        model = HookedVLM(*made(tiny_vlms.llava))
        batch = model.source.take(np.arange(2))  # type: ignore[union-attr]
        sae = sae_of("standard", 24, hook)
        with torch.no_grad(), latent_set(model, sae, {3: 2.0}, use_error_term=False, pre_zero=True):
            seen = model(batch)
        alone = torch.zeros(32)
        alone[3] = 2
        by_hand = model.run_with_hooks(batch, fwd_hooks=[(hook, lambda x, hook: sae.decode(alone).expand_as(x))])
        torch.testing.assert_close(seen, by_hand, rtol=1e-4, atol=1e-5)

    def test_the_model_is_left_as_it_was(self):
        model = HookedVLM(*made(tiny_vlms.llava))
        batch = model.source.take(np.arange(2))  # type: ignore[union-attr]
        plain = model(batch)
        sae = sae_of("standard", 24, "hook_decoder_resid.0")
        for fast in (True, False):
            with pytest.raises(ZeroDivisionError), latent_set(model, sae, {0: 9.0}, fast=fast):
                raise ZeroDivisionError
            assert torch.equal(model(batch), plain)


@pytest.mark.parametrize(
    ("maker", "kinds"),
    [(tiny_vlms.llava, ("text", "image", "special", "generated")), (tiny_vlms.vit_gpt2, ("special", "generated"))],
    ids=["llava", "vit_gpt2"],
)
def test_steered_words_are_the_same_with_transformers_cache_and_without(maker: Any, kinds: tuple[str, ...]):
    """For each kind of position; what is set at generated ones leaves the first new word, which comes of the prompt alone."""
    model = HookedVLM(*made(maker))
    batch = model.source.take(np.arange(2))  # type: ignore[union-attr]
    batch = batch if model.vocabulary.image else {"pixel_values": batch["pixel_values"]}
    sae = sae_of("standard", 24, "hook_decoder_resid.0")
    how: dict[str, Any] = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
    plain = model.generate(batch, **how)[:, -4:]
    for kind in kinds:
        written = []
        for cached in (True, False):
            with latent_set(model, sae, {3: 80.0}, where=[kind]):
                written.append(model.generate(batch, use_cache=cached, **how)[:, -4:])
        assert torch.equal(*written), kind
        assert not torch.equal(written[0], plain), kind
        if kind == "generated":
            assert torch.equal(written[0][:, 0], plain[:, 0])


class TestWhatCannotReachTheText:
    """It raises, where a table would show 0."""

    @pytest.mark.parametrize(
        ("hook", "where", "match"),
        [
            ("hook_image_resid.2", "all", "reads block 1 of the tower, so an edit in a later one has no effect"),
            ("hook_image_resid.1", ["special"], "reads its patches without CLS"),
            ("hook_image_resid.0", ["generated"], "has no position of kind"),
        ],
    )
    def test_before_it_runs(self, hook: str, where: Any, match: str):
        model = HookedVLM(*made(tiny_vlms.llava))
        with (
            pytest.raises(ModelError, match=match),
            latent_set(model, sae_of("standard", 16, hook), {0: 1.0}, where=where),
        ):
            pass

    def test_where_no_position_was_of_that_kind(self):
        model = HookedVLM(*made(tiny_vlms.vit_gpt2))
        sae = sae_of("standard", 24, "hook_decoder_resid.0")
        batch = {"pixel_values": model.source.columns["pixel_values"]}  # type: ignore[union-attr]
        with (
            pytest.raises(ModelError, match="no position was of kind"),
            latent_set(model, sae, {0: 1.0}, where=["image"]),
        ):
            model.generate(batch, max_new_tokens=2)

    def test_a_tower_writes_nothing(self):
        model = HookedVLM(*made(tiny_vlms.vit))
        with pytest.raises(ModelError, match="writes nothing, so that no answer can be steered"):
            steer_pictures(
                *(model, sae_of("standard", 16, "hook_image_resid.0"), {"a": None}, {"b": None}),
                SteerOptions(model="", pictures=Path(), latents=[0]),
            )

    @pytest.mark.parametrize(
        ("values", "complaint"),
        [
            ({32: 1.0}, "give one or more of 0 to 31"),
            ({}, "give one or more of 0 to 31"),
            ({3.5: 1.0}, "give a number for each latent"),
            ({3: "a"}, "give a number for each latent"),
            ({3: float("nan")}, "not all are finite"),
        ],
    )
    def test_latents_and_values_that_there_are_not(self, values: Any, complaint: str):
        model = HookedVLM(*made(tiny_vlms.llava))
        sae = sae_of("standard", 16, "hook_image_resid.0")
        with pytest.raises(ConfigError, match=complaint), latent_set(model, sae, values):
            pass


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA of two blocks that has learned to name the colour of a picture, in a folder with its processor."""
    folder = tmp_path_factory.mktemp("steer")
    tiny_vlms.taught(folder / "model", *colour_pictures(64, seed=1))
    (folder / "pictures").mkdir()
    for row, picture in enumerate(colour_pictures(32, seed=2)[0]):
        picture.save(folder / "pictures" / f"{row:02}.png")
    colour_sae(folder).save_model(folder / "sae")
    return folder


def colour_sae(folder: Path, hook: str = "hook_image_resid.1") -> SAE[Any]:
    """Latent i fires on the i-th colour and adds what its pictures have over all; 28 more are random."""
    model = HookedVLM.from_pretrained(str(folder / "model")).tower()
    pictures, names = colour_pictures(32, seed=3)
    pixels = model.processor.image_processor(images=pictures, return_tensors="pt")["pixel_values"]
    _, cache = model.run_with_cache({"pixel_values": pixels}, names_filter=[hook])
    x = cache[hook][:, 1:].mean(1)
    means = torch.stack([x[[name == colour for name in names]].mean(0) for colour in COLOURS])
    directions = means - means.mean(0)
    sae = StandardSAE(StandardSAEConfig(d_in=16, d_sae=32, metadata=SAEMetadata(hook_name=hook)))
    generator = torch.Generator().manual_seed(0)
    others = (
        torch.nn.functional.normalize(torch.randn(28, 16, generator=generator), dim=-1) * directions.norm(dim=-1).mean()
    )
    with torch.no_grad():
        sae.W_dec.copy_(torch.cat([directions, others]))
        sae.W_enc.copy_((sae.W_dec / sae.W_dec.norm(dim=-1, keepdim=True) ** 2).T)
        sae.b_enc.fill_(-0.5)
        sae.b_dec.copy_(means.mean(0))
    return sae


class ColourScorer:
    """Pictures and words by colour; other words have an axis of their own."""

    def images(self, pictures: Any) -> np.ndarray:
        shown = np.stack([np.asarray(picture).mean((0, 1)) for picture in pictures])
        known = np.array(list(COLOURS.values()))
        return np.eye(5)[np.linalg.norm(shown[:, None] - known, axis=-1).argmin(1)]

    def texts(self, words: Any) -> np.ndarray:
        return np.eye(5)[[list(COLOURS).index(word) if word in COLOURS else 4 for word in words]]


def options(folder: Path, **changes: Any) -> SteerOptions:
    given = {"latents": [1, 3], "values": [2.0, 0.0], "prompt": QUESTION, "bootstrap": 200, "top": 4}
    return SteerOptions(model=str(folder / "model"), pictures=folder / "pictures", **{**given, **changes})


@pytest.fixture(scope="module")
def found(trained: Path) -> SteeredAnswers:
    model = HookedVLM.from_pretrained(str(trained / "model"))
    sae: Any = SAE.load_from_disk(trained / "sae")
    pictures, names = colour_pictures(32, seed=4)
    shown = {f"{row:02} {name}": picture for row, (picture, name) in enumerate(zip(pictures, names, strict=True))}
    references = {str(row): picture for row, picture in enumerate(colour_pictures(32, seed=5)[0])}
    return steer_pictures(model, sae, shown, references, options(trained), ColourScorer(), progress=False)


class TestATrainedModel:
    def test_it_names_colours_and_steered_it_names_the_latents(self, found: SteeredAnswers):
        answers = found.answers
        plain = answers[answers.arm == "plain"]
        assert (plain.word == plain.picture.str.split().str[1]).mean() > 0.95
        for latent, colour in ((1, "green"), (3, "white")):
            mine = answers[(answers.arm == "steered") & (answers.latent == latent) & (answers.strength == 2)]
            assert (mine.word == colour).mean() > 0.95, mine.word.value_counts()

    def test_every_arm_is_there_at_every_strength(self, found: SteeredAnswers):
        once, each = ["plain", "SAE attached, nothing set"], ["steered", "random latent", "random direction"]
        for latent in (1, 3):
            mine = found.scores[found.scores.latent == latent]
            expected = [(arm, None) for arm in once] + [(arm, strength) for strength in (2, 0) for arm in each]
            rows = zip(mine.arm, mine.strength, strict=True)
            assert [(arm, None if pd.isna(strength) else strength) for arm, strength in rows] == expected
            control = mine[mine.arm == "random latent"].control.unique()
            assert len(control) == 1
            assert control[0] not in (1, 3)
            assert abs(found.firing[int(control[0])]["rate"] - found.firing[latent]["rate"]) < 0.25

    def test_scores_tell_the_latent_from_its_controls(self, found: SteeredAnswers):
        numbers = found.scores.set_index(["latent", "arm", "strength"])
        for latent in (1, 3):
            steered = numbers.loc[(latent, "steered", 2.0)]
            assert steered.score > 0.95
            assert 0 <= steered.chance < 0.6
            assert steered.over_chance == pytest.approx(steered.score - steered.chance)
            assert steered.over_chance_low <= steered.over_chance <= steered.over_chance_high
            assert steered.changed == pytest.approx(0.75, abs=0.05), "a quarter had this colour before"
            for arm in ("random latent", "random direction"):
                assert numbers.loc[(latent, arm, 2.0)].over_chance_high < steered.over_chance_low
        attached = found.scores[found.scores.arm == "SAE attached, nothing set"]
        assert (attached.changed == 0).all(), "with the error term nothing changes"
        for latent, p in ((1, 2 / 12), (3, 1 / 12)):  # 11 other latents fire, one of them on green pictures as well
            assert numbers.loc[(latent, "steered", 2.0)].p == p
        few = "fewer than 20 other latents cannot tell it from chance"
        assert all(few in sentence for sentence in found.verdict), (
            "of four colours a random word is the latent's by luck"
        )
        assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["scores"][0]["arm"] == "plain"

    def test_without_the_error_term_what_the_sae_loses_is_in_an_arm_of_its_own(self, trained: Path):
        model = HookedVLM.from_pretrained(str(trained / "model"))
        sae: Any = SAE.load_from_disk(trained / "sae")
        shown = dict(enumerate(colour_pictures(8, seed=4)[0]))
        with torch.no_grad():
            sae.W_enc[:, :] = 0  # it reconstructs nothing but its bias
            sae.b_enc[5:9] = 1
        asked = options(trained, error_term=False, latents=[5], values=[0.0])
        lost: Any = steer_pictures(model, sae, shown, shown, asked, progress=False)
        scores = lost.scores.set_index("arm")
        assert scores.loc["SAE attached, nothing set"].changed > 0.5
        assert scores.loc["steered"].reason == "no scorer was given"
        assert "so nothing says whether they follow the latent" in lost.verdict[0]

    @pytest.mark.parametrize("maker", [tiny_vlms.vit_gpt2, tiny_vlms.git], ids=lambda maker: maker.__name__)
    def test_a_captioner_is_asked_nothing_and_its_decoder_is_read_as_it_writes(
        self, maker: Callable[..., Any], tmp_path: Path
    ):
        model = HookedVLM.from_pretrained(tiny_vlms.save(tmp_path, maker))
        sae = sae_of("standard", 24, "hook_decoder_resid.0")
        shown = dict(enumerate(colour_pictures(4, seed=4)[0]))
        asked = SteerOptions(model="", pictures=tmp_path, latents=[3], values=[50.0], where=["generated"])
        found = steer_pictures(model, sae, shown, shown, asked, progress=False)
        assert 0 < found.firing[3]["rate"] < 1
        assert len(found.answers) == 4 * 5
        assert found.scores.changed.max() > 0

    def test_a_latent_that_fires_nowhere_has_no_pictures_and_no_score(self, trained: Path):
        model = HookedVLM.from_pretrained(str(trained / "model"))
        sae: Any = SAE.load_from_disk(trained / "sae")
        with torch.no_grad():
            sae.b_enc[9] = -100
        shown = dict(enumerate(colour_pictures(4, seed=4)[0]))
        asked = options(trained, latents=[9], values=[1.0])
        scores = steer_pictures(model, sae, shown, shown, asked, ColourScorer(), progress=False).scores
        assert scores.score.isna().all()
        assert set(scores.reason) == {"the latent fires on no reference picture"}


@pytest.fixture(scope="module")
def space() -> tuple[np.ndarray, np.ndarray]:
    """33 latents' pictures and 3 words for each of 300 draws, that have nothing to do with each other."""
    rng = np.random.default_rng(0)
    return unit_rows(rng.normal(size=(33, 32))), rng.normal(size=(300, 3, 32))


def rows_of(
    words: dict[str, list[str]], vectors: dict[str, np.ndarray], means: np.ndarray, latent: int = 0
) -> list[dict[str, Any]]:
    """What `scores.json` says of the first latent of `means`, where each arm answers with these words."""
    rows, plain = [], words["SAE attached, nothing set"]
    for arm, said in words.items():
        cosines = word_scores(said, lambda asked: np.stack([vectors[word] for word in asked]), means)
        strength = None if said is plain else 1.0
        rows.append({"latent": latent, "arm": arm, "strength": strength, **arm_numbers(said, plain, cosines, 5, 0)})
    return rows


class TestTheVerdict:
    ARMS = ("steered", "random latent", "random direction")

    def test_answers_that_collapse_to_a_word_of_no_latent_are_seldom_claimed(self, space: Any):
        """An interval above those of two controls alone would claim three in ten: these intervals have no width."""
        means, drawn = space
        rows = []
        for draw, vectors in enumerate(drawn):
            words = {"SAE attached, nothing set": ["other"] * 10} | {arm: [arm] * 10 for arm in self.ARMS}
            rows += rows_of(words, dict(zip(self.ARMS, vectors, strict=True)) | {"other": means[-1]}, means, draw)
        sentences = verdict_of(pd.DataFrame(rows))
        assert len(sentences) == len(drawn)
        assert sum("they follow this latent" in sentence for sentence in sentences) < 0.08 * len(drawn)

    @pytest.mark.parametrize(
        ("n_others", "n_pictures", "said", "p"),
        [
            (32, 30, "they follow this latent", 1 / 33),
            (19, 30, "fewer than 20 other latents cannot tell it from chance", 1 / 20),
            (32, 4, "fewer than 5 pictures have a word, so nothing says", None),
            (0, 30, "no other latent fires on the reference pictures, so nothing says", None),
        ],
    )
    def test_a_planted_latent_is_claimed_where_there_is_enough_to_tell(
        self, space: Any, n_others: int, n_pictures: int, said: str, p: float | None
    ):
        table = pd.DataFrame(self._planted(space, n_others, n_pictures))
        assert said in verdict_of(table)[0]
        steered = table.set_index("arm").loc["steered"]
        assert steered.n_others == n_others
        assert pd.isna(steered.p) if p is None else steered.p == pytest.approx(p)
        assert pd.isna(steered.score_low) == (n_pictures < 5), "one picture drawn again and again has no spread"

    def test_a_sweep_says_at_how_many_strengths(self, space: Any):
        rows = self._planted(space, 32, 30)
        rows += [row | {"strength": 2.0, "p": 0.5} for row in rows if row["strength"]]
        assert verdict_of(pd.DataFrame(rows))[0].endswith(": they follow this latent (1 of 2 strengths).")
        assert "the first word of" in verdict_of(pd.DataFrame(rows))[0], "`changed` compares no more of an answer"

    def _planted(self, space: Any, n_others: int, n_pictures: int) -> list[dict[str, Any]]:
        means, (vectors, *_) = space
        known = dict(zip(self.ARMS, [means[0] + 0.1 * vectors[0], *vectors[1:]], strict=True)) | {"other": means[-1]}
        words = {"SAE attached, nothing set": ["other"] * n_pictures}
        words |= {arm: [arm] * n_pictures for arm in self.ARMS}
        return rows_of(words, known, means[: n_others + 1])


def test_one_command_writes_answers_scores_and_a_figure(trained: Path, tmp_path: Path):
    from sae_lens_meme.cli import build_app

    arguments = ["steer", "--model", trained / "model", "--sae", trained / "sae", "--pictures", trained / "pictures"]
    arguments += ["--latents", 2, "--value", 4, "--prompt", QUESTION, "--bootstrap", 50, "--out", tmp_path / "out"]
    ran = CliRunner().invoke(build_app(), list(map(str, arguments)))
    assert ran.exit_code == 0, ran.output
    assert "Latent 2 at 4:" in ran.output
    answers = pd.read_parquet(tmp_path / "out" / "answers.parquet")
    assert sorted(answers.arm.unique()) == sorted(
        ["plain", "SAE attached, nothing set", "steered", "random latent", "random direction"]
    )
    assert answers.picture.nunique() == 16, "half of the pictures are references"
    written = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert written["n_references"] == 16
    assert {"steering.png", "steering.svg", "_SUCCESS"} <= set(os.listdir(tmp_path / "out"))
    before = (tmp_path / "out" / "answers.parquet").stat().st_mtime_ns
    again = CliRunner().invoke(build_app(), list(map(str, arguments)))
    assert again.exit_code == 0
    assert (tmp_path / "out" / "answers.parquet").stat().st_mtime_ns == before


def test_a_clip_scores_words_with_the_pictures_of_a_latent(trained: Path, tmp_path: Path):
    """One command with a small CLIP; its scores are those of its own towers, asked by hand."""
    clip = f"local-dir:{write_encoder(tmp_path / 'clip')}"
    ran = run_here(
        *("steer", "--model", trained / "model", "--sae", trained / "sae", "--pictures", trained / "pictures"),
        *("--latents", 2, "--value", 4, "--prompt", QUESTION, "--bootstrap", 20, "--top", 4, "--others", 3),
        *("--scorer", clip, "--out", tmp_path / "out"),
    )
    assert ran.returncode == 0, ran.stderr
    written = json.loads((tmp_path / "out" / "scores.json").read_text())
    answers = pd.read_parquet(tmp_path / "out" / "answers.parquet")
    shown = sorted((trained / "pictures").iterdir())
    references = [Image.open(file) for file in shown if file.name not in set(answers.picture)]
    assert (written["scorer"], len(references)) == (clip, 16)
    towers = HookedMemeCLIP.from_pretrained(clip)
    with torch.no_grad():
        images = towers.encode_image(torch.stack([towers.preprocess(picture) for picture in references])).numpy()
    colours = [np.asarray(picture).mean((0, 1)) for picture in references]
    blue = [row for row, (red, green, _) in enumerate(colours) if max(red, green) < 100 and colours[row].argmax() == 2]
    steered = next(row for row in written["scores"] if row["arm"] == "steered")
    with torch.no_grad():
        said = unit_rows(towers.encode_text(towers.tokenize(list(answers[answers.arm == "steered"].word))).numpy())
    possible = [(said @ unit_rows(images[list(four)].mean(0))).mean() for four in combinations(blue, 4)]
    assert np.abs(np.array(possible) - steered["score"]).min() < 1e-5, "the mean picture of four blue ones"
    assert steered["over_chance"] == pytest.approx(steered["score"] - steered["chance"])
    for row in written["scores"]:
        assert row["score_low"] <= row["score"] <= row["score_high"]


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"latents": [1, 0, 1]}, ConfigError, "1 is given twice"),
        ({"latents": [99]}, ConfigError, "99 is none of 0 to 31"),
        ({"pictures": Path("nowhere")}, DataError, "no such folder"),
        ({"where": ["image", "wrong"]}, ConfigError, "'wrong' is not a kind of position"),
        ({"mode": "sett"}, ConfigError, "must be 'set', 'add' or 'scale'"),
    ],
)
def test_a_mistake_is_one_line(trained: Path, tmp_path: Path, change: dict[str, Any], error: Any, match: str):
    given = {"model": str(trained / "model"), "pictures": trained / "pictures", "latents": [0], "progress": False}
    with pytest.raises(error, match=match):
        steer(trained / "sae", tmp_path / "out", **{**given, **change})
