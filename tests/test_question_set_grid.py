# pyright: reportOptionalSubscript=false, reportOptionalMemberAccess=false, reportOperatorIssue=false, reportOptionalOperand=false
"""The question set on a model: a function with planted visual, textual and interaction latents, and its answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tiny_vlms
import torch
from sae_lens import StandardSAE, StandardSAEConfig
from scipy import sparse
from transformer_lens.hook_points import HookedRootModule, HookPoint

from sae_lens_meme.errors import ConfigError, DataError
from sae_lens_meme.evaluators.question_set import (
    answer_changes,
    ask,
    grid_items,
    grid_shares,
    hooked_answers,
    hooked_latents,
    read_questions,
    standard_question_set,
)
from sae_lens_meme.hooks import HookedVLM

PROMPTS = read_questions()
N = 120
RNG = np.random.default_rng(0)
PICTURES = [{"id": i, "shown": RNG.random(6) < 0.5} for i in range(N)]
ASKED = {prompt: RNG.random(6) < 0.5 for prompt in PROMPTS}
for k in range(6):  # each property is asked for by half of the questions
    for prompt, asked in zip(PROMPTS, np.random.default_rng(k).permutation([True, False] * 4), strict=True):
        ASKED[prompt][k] = asked


def model(pictures: Any, prompt: str) -> sparse.csr_matrix:
    """0-5 say what is shown, 6-11 what is asked, 12-17 that what is shown is asked or neither (exclusive or), 18 nothing, 19 all."""
    rows = []
    for picture in pictures:
        shown, asked = picture["shown"], ASKED[prompt]
        rows.append(np.concatenate([shown, asked, shown ^ asked, [False], [True]]).astype(float))
    return sparse.csr_matrix(np.array(rows) * 1.5)


@pytest.fixture(scope="module")
def grid() -> Any:
    return ask(model, PICTURES, PROMPTS, batch_size=7)


def test_a_grid_is_the_model_on_each_picture_and_prompt(grid: Any):
    dense = grid.cells.csr().toarray().reshape(N, len(PROMPTS), -1)
    for i, q in ((0, 0), (3, 7), (119, 2)):
        np.testing.assert_allclose(dense[i, q], model([PICTURES[i]], PROMPTS[q]).toarray()[0])


def test_shares_of_the_grid_are_those_of_a_two_way_analysis_of_variance(grid: Any):
    found, z = grid_shares(grid), grid.cells.csr().toarray().reshape(N, len(PROMPTS), -1).astype(float)
    for f in (0, 7, 13):
        table = z[:, :, f]
        total = ((table - table.mean()) ** 2).sum()
        image = len(PROMPTS) * ((table.mean(1) - table.mean()) ** 2).sum() / total
        text = N * ((table.mean(0) - table.mean()) ** 2).sum() / total
        np.testing.assert_allclose(found[:, f], [image, text, 1 - image - text], atol=1e-12)
    np.testing.assert_allclose(found[0, :6], 1)
    np.testing.assert_allclose(found[1, 6:12], 1)
    assert np.isnan(found[:, 18:]).all()  # silent, and always on


def test_planted_latents_get_their_class(grid: Any):
    result = standard_question_set(grid)
    table = result.table.set_index("latent")
    assert table["class"].reindex(range(6)).tolist() == ["visual"] * 6
    assert table["class"].reindex(range(6, 12)).tolist() == ["textual"] * 6
    assert table["class"].reindex(range(12, 18)).tolist() == ["cross-modal"] * 6
    assert table["reason"][19] == "is equally active in all four cells of every item"
    assert 18 not in table.index
    numbers = result.numbers
    assert (numbers["n_visual"], numbers["n_textual"], numbers["n_cross_modal"], numbers["n_undecided"]) == (6, 6, 6, 1)
    assert numbers["permuted/n_visual"] + numbers["permuted/n_textual"] == 0
    assert result.verdict == (
        "6 of 19 latents follow the picture, 6 the question, 6 need both together; with cells permuted 0 would follow one side."
    )
    assert {"permuted"} == set(result.rows()[0]["controls"])


def test_two_fixed_prompts_are_two_conditions():
    two = ask(model, PICTURES, PROMPTS[:2])
    cells, pair = grid_items(two, drawn=("image",))
    classes = standard_question_set(two, drawn=("image",)).table.set_index("latent")["class"]
    differs = ASKED[PROMPTS[0]] ^ ASKED[PROMPTS[1]]
    assert cells.aa.n_samples == len(set(pair.tolist())) == N // 2
    for k in range(6):
        assert classes[k] == "visual"
        if differs[k]:
            assert classes[6 + k] == "textual"
    with pytest.raises(DataError, match="8 prompts; fixed conditions are two"):
        grid_items(ask(model, PICTURES, PROMPTS), drawn=("image",))


def test_a_picture_is_in_one_pair_and_prompts_of_an_item_differ():
    def told(pictures: Any, prompt: str) -> np.ndarray:
        """Which picture, and which prompt."""
        which = np.array([picture["id"] + 1 for picture in pictures], float)
        return np.stack([which, np.full(len(pictures), PROMPTS.index(prompt) + 1.0)], axis=1)

    cells, pair = grid_items(ask(told, PICTURES, PROMPTS))
    aa, ab, ba, bb = (part.csr().toarray().astype(int) for part in cells)
    assert sorted({*aa[:, 0]} | {*ba[:, 0]}) == list(range(1, N + 1))
    assert len({*zip(pair, aa[:, 0], ba[:, 0], strict=True)}) == N // 2
    for one in range(N // 2):  # a pair sees each prompt once
        assert sorted([*aa[pair == one, 1], *ab[pair == one, 1]]) == list(range(1, 9))
    assert (ab[:, 0] == aa[:, 0]).all()
    assert (bb[:, 0] == ba[:, 0]).all()
    assert (aa[:, 1] == ba[:, 1]).all()
    assert (ab[:, 1] == bb[:, 1]).all()
    assert (aa[:, 1] != ab[:, 1]).all()


def answers(pictures: Any, prompt: str, ablated: int | None) -> list[str]:
    """It says whether the first property that is asked for is shown, read from that property's visual latent."""
    said = []
    for picture in pictures:
        shown = picture["shown"].copy()
        if ablated is not None and ablated < 6:
            shown[ablated] = False
        first = np.flatnonzero(ASKED[prompt])[0] if ASKED[prompt].any() else 0
        said.append("yes" if shown[first] else "no")
    return said


def test_answers_change_where_the_ablated_latent_decides_them(grid: Any):
    result = answer_changes(answers, PICTURES, PROMPTS, [0, 12], grid=grid)
    table, numbers = result.table, result.numbers
    shown = np.mean([picture["shown"][0] for picture in PICTURES])
    for _, row in table[table["latent"] == 0].iterrows():
        decides = ASKED[row["prompt"]].any() and np.flatnonzero(ASKED[row["prompt"]])[0] == 0
        assert row["changed"] == pytest.approx(shown if decides else 0)
        assert row["low"] <= row["changed"] <= row["high"]
    assert numbers["latent_12/changed"] == numbers["changed_again"] == 0
    assert numbers["latent_0/changed"] == pytest.approx(table[table["latent"] == 0]["changed"].mean())
    assert numbers["latent_0/changed_low"] > 0
    assert {"matched", "again"} == set(result.rows()[0]["controls"])


def test_a_claim_about_answers_is_of_the_paired_difference_to_the_matched_latent():
    """Latent 0 changes every answer; 1, the only other that fires, what the case says; 2 fires nowhere."""

    def changes(n: int, matched: bool, **options: Any) -> Any:
        def answers_of(pictures: Any, prompt: str, latent: int | None) -> list[str]:
            return [str(latent == 0 or (latent == 1 and matched)) for _ in pictures]

        pictures = list(range(n))
        grid = ask(lambda pictures, prompt: np.array([[1.0, 1.0, 0.0]] * len(pictures)), pictures, ["a", "b"])
        return answer_changes(answers_of, pictures, ["a", "b"], [0, 2], grid=grid, **options)

    found = changes(40, matched=False)
    assert found.verdict is not None
    assert "for 1 of 1 latents" in found.verdict, "a latent that never fires has no match"
    numbers = found.numbers
    bound = 1 - 0.025 ** (1 / 40)
    assert numbers["latent_0/changed_low"] == pytest.approx(1 - bound)
    assert numbers["latent_0/changed_minus_matched_low"] == pytest.approx(1 - 2 * bound)
    assert numbers["latent_2/changed_high"] == pytest.approx(bound)
    assert numbers["latent_2/changed_minus_matched"] is None
    same = changes(40, matched=True)
    assert same.verdict is not None
    assert "for 0 of 1 latents" in same.verdict
    assert same.numbers["latent_0/changed_minus_matched_low"] < 0 < same.numbers["latent_0/changed_minus_matched_high"]
    for few in (changes(1, matched=False), changes(40, matched=False, n_bootstrap=0)):
        assert few.verdict is None
        assert few.numbers["latent_0/changed_low"] is None
        assert few.table["low"].isna().all()
    assert "1 pictures; an interval needs 20" in changes(1, matched=False).reasons["latent_0/changed_low"]


def test_answers_that_vary_by_themselves_are_told():
    rng = np.random.default_rng(0)
    result = answer_changes(lambda pictures, *_: rng.choice(["a", "b"], len(pictures)).tolist(), PICTURES, PROMPTS, [1])
    assert result.numbers["changed_again"] == pytest.approx(0.5, abs=0.1)
    assert result.numbers["latent_1/changed_matched"] is None
    assert result.verdict is None


def test_wrong_questions_and_grids_are_refused(tmp_path: Any, grid: Any):
    assert len(PROMPTS) == 8
    for text, message in (
        ("questions: 3", "is 3; give a list"),
        ("questions: [a]", "two questions or more"),
        ("asks: [a, b]", "unknown key 'asks'"),
    ):
        (tmp_path / "q.yaml").write_text(text)
        with pytest.raises(ConfigError, match=message):
            read_questions(tmp_path / "q.yaml")
    with pytest.raises(DataError, match="3 rows of latents for 7 pictures"):
        ask(lambda pictures, prompt: np.zeros((3, 2)), PICTURES, PROMPTS, batch_size=7)
    with pytest.raises(DataError, match="1 pictures x 8 prompts"):
        standard_question_set(ask(model, PICTURES[:1], PROMPTS))
    with pytest.raises(DataError, match="2 answers for 120 pictures"):
        answer_changes(lambda *_: ["a", "b"], PICTURES, PROMPTS, [0])
    with pytest.raises(DataError, match="the grid is 120 x 8, not 3 x 8"):
        answer_changes(answers, PICTURES[:3], PROMPTS, [0], grid=grid)


class Reader(HookedRootModule):
    """A picture token, then the prompt's; the last position holds both and where they differ, of which the first is the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.hook_resid = HookPoint()
        self.setup()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        picture, prompt = x[:, :1, :6], x[:, 1:, :6]
        last = torch.cat([picture, prompt, (picture - prompt).abs()], dim=-1)
        first = torch.cat([picture, torch.zeros_like(picture), torch.zeros_like(picture)], dim=-1)
        read = self.hook_resid(torch.cat([first, last], dim=1))
        return read[:, -1, 12]


@pytest.fixture(scope="module")
def reader() -> Any:
    sae = StandardSAE(StandardSAEConfig(d_in=18, d_sae=18))
    with torch.no_grad():
        sae.W_enc.copy_(torch.eye(18))
        sae.W_dec.copy_(torch.eye(18))
    sae.cfg.metadata.hook_name = "hook_resid"
    model = Reader()

    def inputs_of(pictures: Any, prompt: str) -> torch.Tensor:
        shown = torch.tensor(np.array([picture["shown"] for picture in pictures])).float()
        return torch.stack([shown, torch.tensor(ASKED[prompt]).float().expand(len(pictures), -1)], dim=1)

    def answer(inputs: torch.Tensor) -> list[str]:
        return ["yes" if found > 0.5 else "no" for found in model(inputs)]

    return model, sae, inputs_of, answer


def test_a_hooked_model_answers_the_question_set(reader: Any):
    """At the last position latents are visual, textual or both together; at the picture's own the question is not known."""
    model, sae, inputs_of, answer = reader
    classes = standard_question_set(ask(hooked_latents(model, sae, inputs_of), PICTURES, PROMPTS)).table.set_index(
        "latent"
    )["class"]
    assert classes.reindex(range(6)).tolist() == ["visual"] * 6
    assert classes.reindex(range(6, 12)).tolist() == ["textual"] * 6
    assert classes.reindex(range(12, 18)).tolist() == ["cross-modal"] * 6
    at_picture = grid_shares(ask(hooked_latents(model, sae, inputs_of, position=0), PICTURES, PROMPTS))
    np.testing.assert_array_equal(at_picture[1:, :6], 0.0)
    found = answer_changes(hooked_answers(model, sae, inputs_of, answer), PICTURES, PROMPTS, [0, 12])
    expected = [np.mean([picture["shown"][0] != ASKED[prompt][0] for picture in PICTURES]) for prompt in PROMPTS]
    table = found.table
    assert table[table["latent"] == 12]["changed"].tolist() == pytest.approx(expected)
    assert found.numbers["latent_0/changed"] == 0  # what is read is made before the hook
    assert not model.hook_resid.fwd_hooks


def test_a_hook_without_rows_of_pictures_is_refused(reader: Any):
    model, sae, _, _ = reader
    with pytest.raises(DataError, match=r"hook_resid gives \(1, 2, 18\) for 120 pictures"):
        hooked_latents(model, sae, lambda *_: torch.zeros(1, 2, 6))(PICTURES, PROMPTS[0])


@pytest.mark.parametrize("maker", [tiny_vlms.llava, tiny_vlms.paligemma], ids=lambda maker: maker.__name__)
def test_a_chat_model_answers_the_question_set(maker: Any):
    """LLaVA's image positions cannot know the question that follows; PaliGemma attends to it from the picture."""
    hf, rows = tiny_vlms.made(maker)
    model, hook = HookedVLM(hf), "hook_decoder_resid.0"
    generator = torch.Generator().manual_seed(0)
    pictures = list(torch.randn(12, 3, 32, 32, generator=generator))
    words = {prompt: torch.randint(3, 39, (6,), generator=generator) for prompt in PROMPTS}
    before = rows.columns["input_ids"][0, : 1 + tiny_vlms.N_PATCHES]

    def inputs_of(batch: Any, prompt: str) -> dict[str, torch.Tensor]:
        ids = torch.cat([before, words[prompt]]).expand(len(batch), -1)
        types = {"token_type_ids": torch.zeros_like(ids)} if "token_type_ids" in rows.columns else {}
        return {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "pixel_values": torch.stack(list(batch)),
            **types,
        }

    def answer(inputs: dict[str, torch.Tensor]) -> list[str]:
        return [str(row.tolist()) for row in model.generate(inputs, max_new_tokens=3, do_sample=False)]

    sae = StandardSAE(StandardSAEConfig(d_in=24, d_sae=40))
    with torch.no_grad():
        sae.W_enc.copy_(torch.randn(24, 40, generator=generator))
        sae.W_dec.copy_(10 * torch.randn(40, 24, generator=generator))
    sae.cfg.metadata.hook_name = hook
    last = grid_shares(ask(hooked_latents(model, sae, inputs_of), pictures, PROMPTS))
    image = grid_shares(ask(hooked_latents(model, sae, inputs_of, position=tiny_vlms.N_PATCHES), pictures, PROMPTS))
    assert np.nanmax(last[1]) > 0.1
    if maker is tiny_vlms.llava:
        assert np.nanmax(image[1:]) < 1e-9
    else:
        assert np.nanmax(image[1:]) > 1e-9
    numbers = answer_changes(hooked_answers(model, sae, inputs_of, answer), pictures, PROMPTS[:2], range(4)).numbers
    assert numbers["changed_again"] == 0
    assert any(numbers[f"latent_{f}/changed"] for f in range(4))
