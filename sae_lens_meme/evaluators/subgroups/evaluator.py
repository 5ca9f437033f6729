"""Auditing and bias: which subgroups a classifier treats worse, which latents carry the gap, and what is left without them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from sae_lens_meme import options
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.evaluators.base import Evaluator
from sae_lens_meme.evaluators.classifiers import ReadsProbes, tasks_of
from sae_lens_meme.evaluators.latents import Latents, decoder_rows_or_none, hook_of
from sae_lens_meme.evaluators.result import Result
from sae_lens_meme.evaluators.subgroups.audits import AuditedMemes, audits, effects_of, permuted, q_of, worst_of
from sae_lens_meme.evaluators.subgroups.quantities import COLUMNS
from sae_lens_meme.evaluators.subgroups.questions import questions_of, subgroups_of
from sae_lens_meme.evaluators.subgroups.report import FIRST, SubgroupReport
from sae_lens_meme.metrics.threads import in_threads


class Subgroups(ReadsProbes, Evaluator):
    """Subgroup, BPSN and BNSP AUROC and the gap in false positives, and the latents that carry the gap.

    Args:
        fitted: the probes; give `Influence` the same ones and they are fitted once.
        options: fields of `Options`.
    """

    name = "subgroups"
    question = "whether a probe treats the memes of a subgroup worse, and which latents carry the difference"
    control = "membership permuted within source, latents of equal firing rate"
    needs_labels = True

    class Options(options.Options):
        tasks: Sequence[str] | None = None
        """Labels whose probes are audited; default every label with 2 to 20 classes."""
        columns: Sequence[str] | None = None
        """Labels whose values are subgroups, or source; default source and every label with 2 to 10 values."""
        words: Mapping[str, list[str]] | None = None
        """Further subgroups by what captions say, e.g. {women: [woman, women, girl]}."""
        min_support: options.Positive = 20
        """Positives and negatives that a number needs in and outside the subgroup; below, single memes decide it."""
        ablated: Annotated[tuple[options.Positive, ...], Field(strict=False, min_length=1)] = (1, 5, 10)
        """How many of the strongest latents are set to zero."""
        n_matched: options.Count = 20
        """Draws of as many latents of equal firing rate; 0 for none."""
        n_permutations: options.Count = 10
        """Draws of permuted membership; 0 for none."""
        alpha: options.Share = 0.05
        """A gap counts where its q is below."""
        n_bootstrap: options.Count = 200
        """Resamples of the test memes for the 95 % intervals; 0 for none."""
        seed: options.Count = 0
        """Seed of resamples, permutations and matched latents."""

    def measure(self, sae: Any, embeddings: Embeddings, latents: Latents) -> Result:
        given, hook = self.options, hook_of(sae, embeddings, self.hook)
        embeddings.require_finite(hook)
        subgroups = subgroups_of(embeddings, given.columns, given.words)
        tasks, _ = tasks_of(embeddings, given.tasks)
        self.fitted.prepare(tasks, embeddings, hook)
        questions = questions_of(tasks, [self.fitted.of(task, embeddings, hook) for task in tasks], embeddings, hook)
        memes = AuditedMemes.of(
            *(embeddings, latents, questions, decoder_rows_or_none(sae)),
            replicates=given.n_bootstrap,
            seed=given.seed,
            min_support=given.min_support,
        )
        found = audits(questions, subgroups, memes)
        null = permuted(found, memes, given.alpha, given.n_permutations, given.seed)
        worst, place = worst_of(found), {q.name: i for i, q in enumerate(questions)}
        ns = sorted(set(given.ablated))
        effects = in_threads(
            lambda f: effects_of(f, place[f.question.name], memes, ns, given.n_matched, given.seed), worst
        )
        report = SubgroupReport(found, q_of(found), null, dict(zip(worst, effects, strict=True)), ns, given)
        return Result(self.name, FIRST, tuple(report.measures()), report.table(), COLUMNS, report.verdict())
