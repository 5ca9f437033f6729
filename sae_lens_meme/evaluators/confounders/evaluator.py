"""Memes that share their picture or their caption and differ in a label: does one latent tell them apart?

Hateful Memes was built of such pairs, so that neither side alone gives the label away.
"""

from __future__ import annotations

from typing import Any

from typing_extensions import Self

from sae_lens_meme import options
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import DataError
from sae_lens_meme.evaluators.base import Evaluator, Unavailable
from sae_lens_meme.evaluators.concepts import Concepts, require_concepts
from sae_lens_meme.evaluators.confounders import quantities as q
from sae_lens_meme.evaluators.confounders.compute import Oriented, joined, order_by_probe, paired_probe
from sae_lens_meme.evaluators.confounders.pairs import Questions
from sae_lens_meme.evaluators.confounders.report import ConfounderReport, PairAnswer
from sae_lens_meme.evaluators.context import Context
from sae_lens_meme.evaluators.controls import directions
from sae_lens_meme.evaluators.latents import Latents, hook_of
from sae_lens_meme.evaluators.result import Result
from sae_lens_meme.hooks.names import IMAGE_EMBED, TEXT_EMBED
from sae_lens_meme.metrics.threads import in_threads
from sae_lens_meme.standardize import train_moments


class Confounders(Evaluator):
    """How one latent orders held-out pairs of memes that share a picture or a caption and differ in a label."""

    name = "confounders"
    question = "whether one latent tells apart memes that share picture or caption and differ in a label"
    control = "one raw neuron, random directions, flips within pairs, image only, text only, a linear probe"
    needs_labels = True

    class Options(options.Options):
        """Of confounder pairs."""

        concepts: Concepts = None
        """Concepts on the labels; default as for concept alignment."""
        pairs: options.File | None = None
        """CSV or Parquet file whose first two columns are the ids of pairs; default pairs by picture and by caption."""
        n_permutations: options.Count = 100
        """Draws of pairs flipped before the latent is chosen."""
        n_bootstrap: options.Count = 200
        """Resamples of the components of held-out pairs; 0 leaves the intervals out."""
        seed: options.Count = 0
        """Seed of flips, resamples and random directions."""

    @classmethod
    def from_context(cls, context: Context) -> Self:
        """Raises Unavailable where no label differs within enough pairs."""
        made = super().from_context(context)
        require_concepts(context.embeddings, made.options.concepts)
        try:
            Questions.of(context.embeddings, made.options.concepts, made.options.pairs)
        except DataError as error:
            raise Unavailable(str(error)) from None
        return made

    def measure(self, sae: Any, embeddings: Embeddings, latents: Latents) -> Result:
        asked, hook = self.options, hook_of(sae, embeddings, self.hook)
        questions = Questions.of(embeddings, asked.concepts, asked.pairs)
        answers = [PairAnswer(question) for question in questions.asked]
        rows, component = questions.rows, questions.component
        ours = latents.rows(rows).csr()
        random = directions(embeddings, hook, latents.l0, "random_topk", asked.seed, latents.d_sae).rows(rows).csr()
        units = {q.SAE: ours, q.NEURONS: embeddings.take(hook, rows), q.RANDOM: random}
        for answer in answers:
            for name, values in units.items():
                answer.read(name, values)
            answer.flip(ours, component, asked.n_permutations, asked.seed)
        probe(answers, embeddings, hook, questions)
        return ConfounderReport(questions, answers, embeddings, asked.n_bootstrap, asked.seed).result()


def probe(answers: list[PairAnswer], embeddings: Embeddings, hook: str, questions: Questions) -> None:
    """A probe per question on the embedding that the SAE reads; one per concept on each side alone."""
    sides = {q.PROBE: hook, q.IMAGE_ONLY: IMAGE_EMBED, q.TEXT_ONLY: TEXT_EMBED}
    for name, side in ((name, side) for name, side in sides.items() if side in embeddings.hooks):
        embeddings.require_finite(side, questions.rows)
        moments = train_moments(embeddings, side)
        z = (embeddings.take(side, questions.rows) - moments.mean) / moments.std
        pools: dict[str, list[Oriented]] = {}
        for answer in answers:
            pools.setdefault(_pool(answer, name), []).append(answer.question.selection)
        found = in_threads(lambda pairs, z=z: paired_probe(z, joined(pairs), questions.component), pools.values())
        weights = dict(zip(pools, found, strict=True))
        for answer in answers:
            answer.signs[name] = order_by_probe(z, weights[_pool(answer, name)], answer.question.held_out)


def _pool(answer: PairAnswer, name: str) -> str:
    """Pairs that share a picture teach nothing about pictures, so a probe on one side is fitted on pairs of every kind."""
    return answer.question.key if name == q.PROBE else answer.question.concept
