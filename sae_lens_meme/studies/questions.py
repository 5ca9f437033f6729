"""The `question-set` command: the Standard Question Set on a chat model and a folder of pictures."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sae_lens_meme.config import QUESTIONS
from sae_lens_meme.embed import as_embeddings
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError
from sae_lens_meme.evaluators.controls import activations, fit_directions
from sae_lens_meme.evaluators.latents import encode
from sae_lens_meme.evaluators.question_set import (
    Grid,
    answer_changes,
    hooked_activations,
    hooked_answers,
    read_questions,
    standard_question_set,
)
from sae_lens_meme.evaluators.result import Result
from sae_lens_meme.hooks.names import FUSED
from sae_lens_meme.images import open_image
from sae_lens_meme.progress import progress_bar
from sae_lens_meme.steer.asking import Asker
from sae_lens_meme.steer.opened import AskedModel, open_asked, picture_files
from sae_lens_meme.storage import StepFolder, read_json
from sae_lens_meme.studies.options import QuestionSetOptions
from sae_lens_meme.studies.written import write_study

FOUND, LATENTS, CHANGES = "question_set.json", "latents.parquet", "answer_changes.parquet"
RANDOM_UNITS = 4096
"""At least this many random directions: a few say nothing about a share near 0."""


def question_set(
    sae: str | Path,
    out: str | Path,
    options: QuestionSetOptions | None = None,
    *,
    hook: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
    **given: Any,
) -> dict[str, Any]:
    """Ask every question about every picture; say which latents follow the picture, the question, or both together.

    Latents are read at the last position of the prompt.

    Args:
        sae: an SAE folder, of a block of the decoder.
        out: the result folder.
        options: see `QuestionSetOptions`; or give them by keyword.
        hook: the hook, if the SAE's metadata names none.

    Returns:
        The content of `question_set.json`.

    Raises:
        MemeError: a folder, the model, a picture or an option is wrong; the message says which.
    """
    options = QuestionSetOptions.of(options, given)
    files, questions = picture_files(options.pictures), read_questions(options.questions or QUESTIONS)
    study = open_asked(sae, hook, options, [files], chat=True)
    d_sae = study.sae.cfg.d_sae
    if wrong := [latent for latent in options.latents if not 0 <= latent < d_sae]:
        raise ConfigError(f"question-set.latents: {wrong[0]} is not one of 0 to {d_sae - 1}")
    with StepFolder(out, "question-set", {**study.fingerprint, "questions": questions}, overwrite=overwrite) as folder:
        if not folder.complete:
            pictures = [open_image(file) for file in files.values()]
            results = _asked(study, pictures, questions, options, progress)
            facts = {"model": options.model, "hook": study.hook, "n_pictures": len(files), "questions": questions}
            write_study(folder, FOUND, facts, dict(zip((LATENTS, CHANGES), results, strict=False)))
    return read_json(Path(out) / FOUND)


def _asked(
    study: AskedModel, pictures: list[Any], questions: list[str], options: QuestionSetOptions, progress: bool
) -> list[Result]:
    asker = Asker(study.model, [], "", options.max_new_tokens, options.batch_size)

    def inputs_of(shown: Any, question: str) -> dict[str, Any]:
        return replace(asker, prompt=question).inputs(list(shown))

    common: dict[str, Any] = {"n_bootstrap": options.bootstrap, "seed": options.seed}
    read = hooked_activations(study.model, study.hook, inputs_of)
    with progress_bar("question-set", len(pictures) * len(questions), unit="prompts", show=progress) as advance:
        x = np.empty((len(pictures), len(questions), study.sae.cfg.d_in), np.float32)
        for start in range(0, len(pictures), options.batch_size):
            batch = slice(start, start + options.batch_size)
            for place, question in enumerate(questions):
                x[batch, place] = read(pictures[batch], question)
                advance(len(pictures[batch]))
    cells = as_embeddings({"split": ["train"] * (x.shape[0] * x.shape[1])}, fused=x.reshape(-1, x.shape[2]))
    grid, controls = _grids(study.sae, cells, len(pictures), questions, options.seed)
    results = [standard_question_set(grid, controls=controls, min_items=options.min_items, **common)]
    if options.latents:
        answers_of = hooked_answers(study.model, study.sae, inputs_of, asker.written, batch_size=options.batch_size)
        results.append(answer_changes(answers_of, pictures, questions, options.latents, grid=grid, **common))
    return results


def _grids(sae: Any, cells: Embeddings, n: int, questions: list[str], seed: int) -> tuple[Grid, dict[str, Grid]]:
    """Of the SAE, and of untrained units, each active as often as a latent is on average."""
    latents = encode(sae, cells, FUSED)
    times = {"neurons": 1, "random": math.ceil(RANDOM_UNITS / latents.d_sae)}
    controls = {}
    for name, kind in (("neurons", "neurons"), ("random", "random_topk")):
        units = fit_directions(cells, FUSED, kind, seed, times[name] * latents.d_sae)
        controls[name] = Grid(activations(units, cells, FUSED, times[name] * latents.l0), n, tuple(questions))
    return Grid(latents, n, tuple(questions)), controls
