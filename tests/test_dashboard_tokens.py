"""The report of an SAE on token rows: pictures once each, with the word or the patch that fires a latent, and its position."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import tiny_vlms
import transformers as hf
from chromium import chromium, opened
from command_line import run_here
from datasets import Dataset, Features, Image, Value
from hooks_models import topk_sae
from PIL import Image as Pictures
from sae_lens import SAE
from test_dashboard import parts_of

from sae_lens_meme.dashboard import DashboardOptions, ReportInputs, write_report
from sae_lens_meme.dashboard.doubts import missing
from sae_lens_meme.dashboard.tokens import told
from sae_lens_meme.embed import token_rows
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.evaluators.latents import encode
from sae_lens_meme.hooks import HookedVLM
from sae_lens_meme.hooks.patches import view_of
from sae_lens_meme.hooks.positions import SPECIAL, TEXT
from sae_lens_meme.hooks.vocabulary import spelled
from sae_lens_meme.provenance import training_rows_known
from sae_lens_meme.row_kind import TOKEN
from sae_lens_meme.steps import trained_saes

N, OPTIONS = 14, DashboardOptions(map="tsne", top=9, readings=0)
CAPTIONS = [f"a {tiny_vlms.WORDS[i % 4]} cat of monday" if i % 2 else "what is this picture ?" for i in range(N)]


def pictures(n: int = N) -> list[Pictures.Image]:
    """No two are alike, and none is a square."""
    rng = np.random.default_rng(1)
    return [Pictures.fromarray(rng.integers(0, 256, (6, 9, 3), dtype=np.uint8)).resize((90, 60)) for _ in range(n)]


def _png(picture: Pictures.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def inputs_of(maker: Callable[..., Any], hook: str, keep: list[str], folder: Path) -> ReportInputs:
    """Token rows of a tiny model of the real class, a random SAE on them, and no evaluator."""
    model = HookedVLM.from_pretrained(tiny_vlms.save(folder, maker))
    names = [f"meme {i}" for i in range(N)]
    rows = token_rows(model, hook, pictures(), CAPTIONS, keep=keep, table={"id": names})
    sae: Any = topk_sae(model.d(hook), hook, d_sae=12, k=3)
    columns = {"id": names, "text": CAPTIONS, "text_origin": ["dataset"] * N}
    features = Features({**dict.fromkeys(columns, Value("string")), "image": Image(decode=False)})
    shown = {**columns, "image": [{"bytes": _png(picture), "path": None} for picture in pictures()]}
    evaluation = {
        "sae": {"architecture": "topk", "training_architecture": None, "hook": hook, "d_in": sae.cfg.d_in, "d_sae": 12}
        | {"k": 3},
        "embeddings": {"model": "tiny", "rows": "tokens", "n_pictures": N, "splits": {"train": len(rows)}},
        **{"skipped": {}, "results": {}, "sections": [], "table": [], "warnings": []},
    }
    corpus = Dataset.from_dict(shown, features=features)
    return ReportInputs(evaluation, {}, encode(sae, rows), rows, sae.W_dec.detach().numpy(), corpus=corpus)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> ReportInputs:
    """Of a captioner: every word, and no patch."""
    return inputs_of(tiny_vlms.vit_gpt2, "hook_decoder_resid.0", ["text"], tmp_path_factory.mktemp("words"))


@pytest.fixture(scope="module")
def patches(tmp_path_factory: pytest.TempPathFactory) -> ReportInputs:
    """Of a vision tower: every patch, and no word."""
    return inputs_of(tiny_vlms.vit, "hook_image_resid.1", ["image"], tmp_path_factory.mktemp("patches"))


@pytest.fixture(scope="module")
def pages(words: ReportInputs, patches: ReportInputs, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("pages")
    evaluation = words.evaluation | {"skipped": {"naming": "these memes have too few words"}}
    both = {"words": replace(words, evaluation=evaluation), "patches": patches}
    return {name: write_report(inputs, OPTIONS, out=out / name, progress=False) for name, inputs in both.items()}


def strongest(inputs: ReportInputs, latent: int) -> list[tuple[str, int, float]]:
    """Item, position and activation, the largest first, each item once: a loop over what was embedded."""
    dense = inputs.latents.csr().toarray()[:, latent]
    best: dict[str, tuple[str, int, float]] = {}
    for row, value in zip(inputs.memes.dataset.remove_columns(list(inputs.memes.hooks)), dense, strict=True):
        if value > best.get(row["item"], ("", 0, 0.0))[2]:
            best[row["item"]] = (row["item"], row["position"], float(value))
    return sorted(best.values(), key=lambda found: -found[2])


@pytest.mark.parametrize("rows", ["words", "patches"])
def test_a_latent_shows_its_strongest_pictures_once_each(rows: str, pages: dict[str, Path], request: Any):
    inputs: ReportInputs = request.getfixturevalue(rows)
    parts = parts_of(pages[rows])
    search = parts["part-search"]
    for latent, page in enumerate(parts["part-latents-0"]):
        top = [i for i, kind in enumerate(page["memes"]["kind"]) if kind == "top"]
        at = [page["memes"]["at"][i] for i in top]
        expected = strongest(inputs, latent)[:9]
        assert [(search["id"][place], search["token"][place][0]) for place in at] == [
            (f"{item}@{position}", position) for item, position, _ in expected
        ]
        assert [page["memes"]["activation"][i] for i in top] == pytest.approx([x for *_, x in expected], rel=1e-3)
    n_pictures = len(set(search["picture"]))
    assert n_pictures <= N < len(search["id"])
    assert len(parts["part-pictures-0"]) == n_pictures, "a picture is stored once, however many of its tokens are shown"
    one = [search["picture"][i] for i, name in enumerate(search["id"]) if name.startswith("meme 3@")]
    assert len(set(one)) == 1


def test_a_word_is_where_the_caption_says_and_a_patch_where_the_picture_has_it(pages: dict[str, Path]):
    search = parts_of(pages["words"])["part-search"]
    for caption, (position, modality, word, start, end, box) in zip(search["caption"], search["token"], strict=True):
        assert (modality, box) == ("text", None)
        assert caption[start:end] == word == caption.split()[position - 1], "position 0 is the start"
    search = parts_of(pages["patches"])["part-search"]
    for position, modality, word, start, _, box in search["token"]:
        assert (modality, word, start) == ("image", None, None)
        row, column = divmod(position - 1, 4)  # position 0 is CLS
        assert box == [row / 4, column / 4, (row + 1) / 4, (column + 1) / 4]
    assert set(search["caption"]) <= set(CAPTIONS), "those of the corpus"


def test_no_word_of_the_page_speaks_of_memes(words: ReportInputs, pages: dict[str, Path]):
    html = re.sub(r"<(script|style)(?! type)[^>]*>.*?</\1>", "", pages["words"].read_text("utf-8"), flags=re.DOTALL)
    for named in ("sae-lens-meme", "meme ", '"memes":', "part-memes"):  # the package, ids, keys
        html = html.replace(named, "")
    assert re.findall(r".{30}\b[Mm]emes?\b.{30}", html) == []
    assert f"tokens of {N} pictures: {len(words.memes)} train" in html
    assert "these tokens have too few words" in html
    for text, said in {
        "2 memes of “meme”": "2 tokens of “meme”",
        "Memes with meme=1, sae-lens-meme": "Tokens with meme=1, sae-lens-meme",
    }.items():
        assert TOKEN.said(text) == said


def test_what_cannot_be_shown_is_said_in_a_line(words: ReportInputs, patches: ReportInputs, pages: dict[str, Path]):
    def lacks(inputs: ReportInputs) -> str:
        return str(told(TOKEN, missing(inputs)))

    assert " not " not in lacks(words)
    assert lacks(words) == parts_of(pages["words"])["core"]["told"]
    assert "Pictures are not shown: no corpus was given" in lacks(replace(words, corpus=None))
    bare = patches.memes.dataset.remove_columns(["token", "token_text", "token_start", "token_end", "token_box"])
    old = replace(patches, memes=Embeddings.from_dataset(bare), corpus=None)
    assert "Patches are not marked on the pictures: these rows were embedded without them" in lacks(old)
    assert "Captions are not shown: none of these pictures has one." in lacks(old)


VIEWS: list[tuple[Any, str, float]] = [
    (hf.ViTImageProcessor(), "whole", 1),
    (hf.CLIPImageProcessor(), "centre", 1),
    (hf.JanusImageProcessor(), "padded", 1),
    (hf.BitImageProcessor(size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224}), "centre", 224 / 256),
]


@pytest.mark.parametrize(("processor", "kind", "zoom"), VIEWS, ids=lambda value: type(value).__name__)
def test_what_a_processor_leaves_of_a_picture_is_found_by_asking_it(processor: Any, kind: str, zoom: float):
    view = view_of(lambda picture: processor(images=[picture], return_tensors="pt")["pixel_values"][0])
    assert view is not None
    assert (view.kind, view.zoom) == (kind, pytest.approx(zoom, abs=0.01))
    np.testing.assert_allclose(
        view.placed(np.array([[0, 0, 1, 0.5]])), [[0.5 - zoom / 2] * 2 + [0.5 + zoom / 2, 0.5]], atol=0.01
    )
    skewed = view_of(
        lambda picture: processor(images=[picture.crop((0, 0, 400, 256))], return_tensors="pt")["pixel_values"][0]
    )
    assert skewed is None, "a part that is not around the middle"


class Bytes:
    """A tokenizer of bytes, as GPT-2's: characters beyond ASCII are several tokens."""

    def decode(self, ids: list[int], **_: Any) -> str:
        return bytes(ids).decode("utf-8", "replace")

    def convert_ids_to_tokens(self, id: int) -> str:
        return f"<{id}>"


def test_half_a_character_marks_the_whole_one():
    text = "a café 🐈 !"
    ids = [0, *text.encode()]
    tags = np.array([SPECIAL, *[TEXT] * (len(ids) - 1)])
    found = spelled(Bytes(), ids, tags, {0})
    assert (found.text, found.words[0], found.starts[0]) == (text, "\0", None)
    marked = {found.words[i] for i in range(1, len(ids))}
    assert marked == {*"acfé🐈!", "<32>"}, "a space has no word of its own"
    cat = [i for i, word in enumerate(found.words) if word == "🐈"]
    assert {(found.starts[i], found.ends[i]) for i in cat} == {(7, 8)}


@pytest.mark.whole
class TestInABrowser:
    @pytest.fixture(scope="class")
    def browser(self):
        with chromium() as started:
            yield started

    def test_one_command_leads_from_pictures_to_words(self, browser: Any, tmp_path: Path):
        """The recipe vit-gpt2.yaml on a tiny model of its class: nothing is changed but the model, the pictures and sizes."""
        given = tmp_path / "given"
        given.mkdir()
        for i, picture in enumerate(pictures()):
            picture.save(given / f"{i}.png")
        lines = [{"file_name": f"{i}.png", "split": ("train", "validation", "test")[i % 3]} for i in range(N)]
        (given / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
        hook, captioner = "hook_decoder_resid.0", tiny_vlms.made(tiny_vlms.vit_gpt2)[0]
        strangers = [0, 1, 3, *range(20, 64)]  # ids that the tokenizer has no words for
        captioner.generation_config.update(suppress_tokens=strangers, min_new_tokens=4)
        model = tiny_vlms.save(tmp_path / "model", tiny_vlms.vit_gpt2, captioner)
        sizes = ["train.train_batch_size_tokens=8", "train.sae.d_sae=12", "evaluate.only=[reconstruction]"]
        sizes += ["evaluate.bootstrap=5", f"embed.hook={hook}", f"train.hook_name={hook}", "dashboard.map=tsne"]
        out = tmp_path / "out"
        ran = run_here("run", "vit-gpt2.yaml", "--out", out, f"corpus.folder={given}", f"embed.model={model}", *sizes)
        assert ran.returncode == 0, ran.stderr
        rows = Embeddings.load(out / "embeddings").dataset
        sae = SAE.load_from_disk(out / "sae")
        assert sae.cfg.metadata.hook_name == hook
        assert training_rows_known(sae, Embeddings.load(out / "embeddings")) is None
        printed = (out / "evaluation" / "evaluation.txt").read_text()
        assert f"tokens of {N} pictures: " in printed.replace("\n", " ")
        assert not re.search(r"\bmemes?\b", printed)
        assert trained_saes(out / "sae")[out / "sae"].endswith(" validation tokens")
        with opened(browser, out / "report" / "report.html", "#latents") as (tab, heard):
            tab.get_by_role("button", name="Random").click()
            tab.get_by_role("button", name="Next alive").click()
            tab.wait_for_selector(".card")
            tab.locator(".cards").first.scroll_into_view_if_needed()
            tab.wait_for_selector(".card img")
            card = tab.locator(".card").first
            assert "blur" in card.locator("img").evaluate("e => getComputedStyle(e).filter")
            assert re.fullmatch(r"word ▒+, position \d+", card.locator(".where").inner_text())
            assert not re.search(r"[a-z]", card.locator(".caption span[aria-hidden=true]").inner_text())
            card.get_by_role("button", name="Show").click()
            assert card.locator("img").evaluate("e => getComputedStyle(e).filter") == "none"
            word, position = re.fullmatch(r"word (\S+), position (\d+)", card.locator(".where").inner_text()).groups()  # type: ignore[union-attr]
            row = rows[rows["id"][:].index(unquote(card.get_by_text("This token").get_attribute("href").split("=")[1]))]
            assert (row["token"], row["position"]) == (word, int(position))
            assert card.locator("mark").inner_text() == word
            assert card.locator(".caption").inner_text() == row["token_text"]
            card.get_by_text("This token").click()
            tab.locator("h1:visible", has_text="Token").wait_for()
            assert "word ▒" in tab.locator(".where").inner_text()
        assert heard == []

    def test_a_patch_is_framed_where_it_lies(self, browser: Any, pages: dict[str, Path]):
        page, parts = pages["patches"], parts_of(pages["patches"])
        latent = int(np.argmax(parts["core"]["latents"]["fires"]))
        place = parts["part-latents-0"][latent]["memes"]["at"][0]
        top, left, bottom, right = parts["part-search"]["token"][place][-1]
        with opened(browser, page, f"#latent={latent}") as (tab, heard):
            tab.wait_for_selector(".card")
            tab.locator(".cards").first.scroll_into_view_if_needed()
            tab.wait_for_selector(".card img")
            card = tab.locator(".card").first
            drawn, picture = card.locator(".patch").last.bounding_box(), card.locator(".picture").bounding_box()
            found = [drawn["x"] - picture["x"], drawn["y"] - picture["y"], drawn["width"], drawn["height"]]
            size = [picture["width"], picture["height"]]
            shares = [left, top, right - left, bottom - top]
            assert found == pytest.approx([share * size[i % 2] for i, share in enumerate(shares)], abs=4)
            assert re.fullmatch(r"framed patch, position \d+", card.locator(".where").inner_text())
            assert "The 9 pictures that fire it most" in tab.locator("main:visible").inner_text()
        assert heard == []
