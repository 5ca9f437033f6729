"""What the first page says in plain sentences: what to distrust, who is treated worse, what it cannot show."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from report_inputs import small_inputs

from sae_lens_meme.dashboard import DashboardOptions, ReportInputs
from sae_lens_meme.dashboard.concepts import concept_pages, found, glance
from sae_lens_meme.dashboard.doubts import doubts, missing, still_rising, treated_worse
from sae_lens_meme.dashboard.latents import LatentPages

QUICK = DashboardOptions(map="tsne")


def with_numbers(**numbers: dict[str, Any]) -> ReportInputs:
    """The small inputs, with these numbers of evaluators and no others."""
    inputs = small_inputs()
    results = {
        name: {"numbers": numbers.get(name, {}), "verdict": None, "columns": found["columns"]}
        for name, found in (inputs.evaluation["results"] | {name: {"columns": {}} for name in numbers}).items()
    }
    return replace(inputs, evaluation=inputs.evaluation | {"results": results, "warnings": []})


def said(inputs: ReportInputs) -> str:
    latents = LatentPages(inputs, QUICK)
    return "\n".join(doubts(inputs, latents, glance(latents, concept_pages(latents))))


def difference(units: str, low: float, high: float) -> dict[str, float]:
    return {f"labels/auroc/sae_minus_{units}_low": low, f"labels/auroc/sae_minus_{units}_high": high}


def test_controls_that_the_sae_does_not_beat_are_named():
    numbers = difference("neurons", -0.2, -0.1) | difference("pca", -0.1, 0.1) | difference("random_k", 0.1, 0.2)
    text = said(with_numbers(contest=numbers | difference("linear_probe", -0.3, -0.2)))
    assert "do better than the SAE: in the best single unit for a label, dense neurons lead it." in text
    assert "do as well as the SAE: in the best single unit for a label, dense PCA cannot be told from it." in text
    assert "random directions of equal sparsity" not in text
    assert "probe" not in text, "the ceiling is no rival"
    assert "Simpler units" not in said(with_numbers(contest=difference("neurons", 0.1, 0.2)))


def test_weak_controls_and_judges_are_named():
    share = "share_of_tests_global"
    counts = {f"corrected/sae/{share}": 0.06, f"corrected/random_topk/{share}": 0.25}
    text = said(with_numbers(baselines=counts | {"ica/converged": 0}, monosemanticity={"reference_is_independent": 0}))
    assert "of random directions 25% of the pairs with a concept are significant, of the SAE's latents 6%" in text
    assert "ICA did not converge" in text
    assert "not independent evidence" in text
    fine = {f"corrected/sae/{share}": 0.25, f"corrected/random_topk/{share}": 0.06, "ica/converged": 1}
    text = said(with_numbers(baselines=fine, monosemanticity={"reference_is_independent": 1}))
    assert "random directions" not in text
    assert "ICA" not in text
    assert "not independent evidence" not in text


def test_warnings_come_first_and_name_levels():
    inputs = with_numbers()
    inputs.evaluation["warnings"] = ["No memes are held out", "hate=1 is rare."]
    assert said(inputs).splitlines()[:2] == ["No memes are held out.", "hate=yes is rare."]


@pytest.mark.parametrize(
    ("last", "rises"),
    [(0.889, False), (0.95, True)],
)
def test_an_sae_that_still_learns_is_said_to_have_not_converged(last: float, rises: bool):
    log = [{"validation_explained_variance": 0.8 + 0.005 * epoch} for epoch in range(19)]
    inputs = replace(with_numbers(), training=[*log, {"validation_explained_variance": last}])
    assert still_rising(inputs.training) == pytest.approx(last - log[17]["validation_explained_variance"])
    assert ("The SAE had not converged" in said(inputs)) == rises


def test_a_short_or_foreign_log_says_nothing():
    assert still_rising([]) is None
    assert still_rising([{"validation_explained_variance": 0.1}] * 3) is None
    assert still_rising([{"loss": 0.1}] * 30) is None


def test_names_latents_and_labels_are_counted():
    inputs = with_numbers()
    naming = inputs.tables["naming"].assign(name="cat", kind="word", auroc=0.55, holds=True)
    naming.loc[naming["latent"] == 0, "auroc"] = 0.9
    naming.loc[naming["latent"] == 1, "holds"] = False
    stability = inputs.tables["stability"].assign(stable=inputs.tables["stability"]["latent"] < 6)
    probes = pd.DataFrame([("latents", "hate", 30), ("latents", "humor", 300), ("embedding", "hate", 30)])
    probes.columns = ["space", "task", "n_held_out"]
    changed = replace(inputs, tables=inputs.tables | {"naming": naming, "stability": stability, "probes": probes})
    text, dead = said(changed), int((LatentPages(changed, QUICK).firing == 0).sum())
    assert f"Of {24 - dead} latents that fire, 1 has a good name, {22 - dead} have a weak name" in text
    assert "1 has an unsupported name" in text
    assert "75% of 24 latents do not reappear" in text
    assert "Few held-out memes have a label, and its numbers are rough: hate (30 memes)." in text


def audit(*rows: dict[str, Any]) -> ReportInputs:
    plain = {
        "question": "hate=1", "subgroup": "humor=2", "n_ablated": 0, "q": 0.5, "fpr_gap": 0.1, "fpr_gap_within_source": None, "fpr_subgroup": 0.3,
        "fpr_background": 0.2, "n_subgroup_negative": 40, "closed": None, "closed_matched": None, "latents": "",
    }  # fmt: skip
    return replace(
        small_inputs(), tables=small_inputs().tables | {"subgroups": pd.DataFrame([plain | row for row in rows])}
    )


def test_who_is_treated_worse_is_said_with_both_rates_and_the_latents_that_carry_it():
    worse = {"q": 0.001, "fpr_gap": 0.5, "fpr_subgroup": 0.7}
    taken = {"n_ablated": 5, "closed": 0.3, "closed_matched": 0.01, "latents": "3, 4"}
    inputs = audit(worse, worse | {"fpr_gap": -0.5, "subgroup": "source=b"}, worse | taken, {"subgroup": "source=c"})
    words = LatentPages(inputs, QUICK).words
    (sentence,) = treated_worse(inputs, words)
    assert sentence.startswith("Memes with humor=very funny are treated worse: where hate=yes is not true of them")
    assert "of 70% (of 40 test memes), and of 20%" in sentence
    assert (
        "latents that carry most of it (3, 4) the gap of 0.50 shrinks by 0.30, without as many like them by 0.01"
        in sentence
    )


def test_a_group_is_treated_worse_where_it_is_within_source():
    """Simpson: 75 % and 2 % of the group are flagged where 95 % and 20 % of the others are, yet pooled it is 68 % of 28 %."""
    better = {"q": 1e-7, "fpr_gap": 0.4, "fpr_gap_within_source": -0.19, "fpr_subgroup": 0.68, "fpr_background": 0.28}
    inputs = audit(better, better | {"fpr_gap": -0.1, "fpr_gap_within_source": 0.21, "subgroup": "humor=1"})
    words = LatentPages(inputs, QUICK).words
    (sentence,) = treated_worse(inputs, words)
    assert "Memes with humor=" in sentence
    assert "very funny" not in sentence
    assert "among memes of one source the gap is 0.21; q" in sentence
    (none,) = treated_worse(audit(better), words)
    assert none.startswith("No group is shown to be treated worse")


def test_where_no_group_is_shown_to_be_treated_worse_it_says_so():
    words = LatentPages(small_inputs(), QUICK).words
    assert treated_worse(audit({}, {}), words) == [
        "No group is shown to be treated worse: of 2 comparisons none has q under 0.05 and more wrong flags in the group than outside."
    ]
    mirrored = audit({}, {"subgroup": "humor=3", "fpr_gap": -0.1})
    once = {"results": {"subgroups": {"numbers": {"n_pairs": 1}}}}
    assert "of 1 comparison none has" in treated_worse(replace(mirrored, evaluation=once), words)[0]
    assert treated_worse(audit({"fpr_gap": None}), words) == ["Nothing can be said: no group has enough memes."]
    assert treated_worse(small_inputs(), words) == []
    assert "For 1 of 2 pairs of classifier and group it is not known" in said(audit({}, {"fpr_gap": None}))


def test_what_was_not_done_is_one_sentence_with_why_and_what_would_help():
    inputs = small_inputs()
    skipped = {
        "confounders": "too few memes share a picture",
        "contest/shuffled_data": "it is foreign",
        "subgroups": "no labels.",
    }
    found = missing(replace(inputs, evaluation=inputs.evaluation | {"skipped": skipped}))
    assert found["evaluate confounders"] == (
        "The report cannot say whether a latent tells apart memes that share picture or caption, because too few memes share a "
        "picture; to change that, add such memes, or give pairs of ids (`evaluate confounders.pairs=FILE`)."
    )
    assert found["subgroups"].startswith(
        "The report cannot say whether some memes are treated worse, because no labels; to"
    )
    assert found["evaluate contest/shuffled_data"] == (
        "The report cannot say what contest with shuffled data gives, because it is foreign."
    )
    assert all(sentence.count(". ") == 0 for sentence in found.values())


def test_what_was_found_counts_what_the_table_shows():
    latents = LatentPages(small_inputs(), QUICK)
    line = {"found": True, "sure": "clearly", "driven": "the picture", "uses": True}
    lines = [line, line | {"sure": "weakly", "uses": False}, line | {"found": False, "sure": "none found"}]
    said = found(lines, latents)
    assert said[0] == "Of 3 concepts, a latent tells 1 clearly and 1 weakly; for 1 none was found."
    assert said[1] == "Of 2 such latents, the picture drives 2, the caption drives 0 and both together drive 0."
    assert said[2] == "The classifier of the concept's own label uses 1 of 2 such latents."
    good = [verdict.word for verdict in latents.verdicts].count("good name")
    assert said[3].startswith(f"{good} of ")
    assert found([], replace_tables(latents)) == []
    rare = line | {"found": False, "sure": "not measured", "concept": "rare"}
    said = found([*lines, rare], latents)
    assert said[0] == (
        "Of 4 concepts, a latent tells 1 clearly and 1 weakly; for 1 none was found; 1 has too few test memes to say."
    )
    inputs = with_numbers()
    text = "\n".join(doubts(inputs, latents, [line | {"concept": "common"}, rare]))
    assert "Too few test memes say whether a latent is about 1 of 2 concepts: rare." in text
    assert "No latent is found" not in text


def replace_tables(latents: LatentPages) -> LatentPages:
    """The same without any table."""
    return LatentPages(replace(latents.inputs, tables={}), QUICK)
