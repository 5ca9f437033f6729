# pyright: reportOptionalSubscript=false, reportOptionalMemberAccess=false, reportOperatorIssue=false, reportOptionalOperand=false
"""The question set on a model: a function with planted visual, textual and interaction latents, and its answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import sparse

from sae_lens_meme.errors import ConfigError, DataError
from sae_lens_meme.evaluators.question_set import (
    answer_changes,
    ask,
    grid_cells,
    grid_shares,
    read_questions,
    standard_question_set,
)

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
    cells = grid_cells(two, drawn=("image",))
    classes = standard_question_set(two, drawn=("image",)).table.set_index("latent")["class"]
    differs = ASKED[PROMPTS[0]] ^ ASKED[PROMPTS[1]]
    assert cells.aa.n_samples == N // 2
    for k in range(6):
        assert classes[k] == "visual"
        if differs[k]:
            assert classes[6 + k] == "textual"
    with pytest.raises(DataError, match="8 prompts; fixed conditions are two"):
        grid_cells(ask(model, PICTURES, PROMPTS), drawn=("image",))


def test_a_picture_is_in_one_pair_and_prompts_of_an_item_differ():
    def told(pictures: Any, prompt: str) -> np.ndarray:
        """Which picture, and which prompt."""
        which = np.array([picture["id"] + 1 for picture in pictures], float)
        return np.stack([which, np.full(len(pictures), PROMPTS.index(prompt) + 1.0)], axis=1)

    aa, ab, ba, bb = (part.csr().toarray().astype(int) for part in grid_cells(ask(told, PICTURES, PROMPTS)))
    assert sorted([*aa[:, 0], *ba[:, 0]]) == list(range(1, N + 1))
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
