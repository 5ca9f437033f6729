"""The `patch-filter` command: SAE-V's patch filter on a chat model and a folder of pictures, beside its rivals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from sae_lens_meme.errors import DataError
from sae_lens_meme.evaluators.cross_modal import (
    compare_patch_filters,
    patch_scores,
    still_classified,
    token_chance,
    token_omega,
)
from sae_lens_meme.evaluators.result import Result
from sae_lens_meme.hooks import HookedMemeCLIP
from sae_lens_meme.images import open_image
from sae_lens_meme.progress import progress_bar
from sae_lens_meme.steer.asking import Asker, first_word
from sae_lens_meme.steer.opened import AskedModel, Pictures, asked_and_shown, open_asked, picture_files
from sae_lens_meme.storage import StepFolder, read_json
from sae_lens_meme.studies.options import PatchFilterOptions
from sae_lens_meme.studies.tokens import clip_scores, read_tokens
from sae_lens_meme.studies.written import write_study

FOUND, OUTCOMES, WEIGHTS = "patch_filter.json", "outcomes.parquet", "weights.parquet"
ANY_SIDE = 448
"""Of the square that pictures are made, where the model takes any size."""


class Filtered(NamedTuple):
    """What the filters are judged by, and where it comes from."""

    result: Result
    weights: pd.DataFrame
    facts: dict[str, Any]


def patch_filter(
    sae: str | Path,
    out: str | Path,
    options: PatchFilterOptions | None = None,
    *,
    hook: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
    **given: Any,
) -> dict[str, Any]:
    """Keep the best patches of each picture by SAE-V's weights, CLIP and L0, and as many at random; ask again what is shown.

    Pictures are squashed to squares first, so that the cells of the grid are those that the model sees. Weights of latents are
    made of reference pictures, on which nothing is measured.

    Args:
        sae: an SAE folder, of a block of the decoder.
        out: the result folder.
        options: see `PatchFilterOptions`; or give them by keyword.
        hook: the hook, if the SAE's metadata names none.

    Returns:
        The content of `patch_filter.json`.

    Raises:
        MemeError: a folder, the model, a picture or an option is wrong; the message says which.
    """
    options = PatchFilterOptions.of(options, given)
    files, named = _named(options.pictures)
    references = picture_files(options.references) if options.references is not None else {}
    study = open_asked(sae, hook, options, [files, references], chat=True)
    fingerprint = {**study.fingerprint, "named": named}
    with StepFolder(out, "patch-filter", fingerprint, overwrite=overwrite) as folder:
        if not folder.complete:
            asked, shown = asked_and_shown(files, references, options.seed)
            found = _filtered(study, asked, shown, named, options, progress)
            facts = {"model": options.model, "hook": study.hook, "prompt": options.prompt, **found.facts}
            folder.write_table(WEIGHTS, found.weights)
            write_study(folder, FOUND, facts, {OUTCOMES: found.result})
    return read_json(Path(out) / FOUND)


def _named(folder: Path) -> tuple[Pictures, bool]:
    """Pictures, and whether they are in folders named after what they show."""
    inside = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    files = {f"{sub.name}/{name}": file for sub in inside for name, file in picture_files(sub).items()}
    return (files, True) if files else (picture_files(folder), False)


def _filtered(
    study: AskedModel, asked: Pictures, shown: Pictures, named: bool, options: PatchFilterOptions, progress: bool
) -> Filtered:
    side = _side(study, next(iter(asked.values())))
    squares, others = ([open_image(file).resize((side, side)) for file in part.values()] for part in (asked, shown))
    asker = Asker(study.model, squares, options.prompt, options.max_new_tokens, options.batch_size)
    answers, of_others = asker.answers(), replace(asker, pictures=others).answers()
    weights, chance = _weights(study, replace(asker, pictures=others), of_others, options)
    scores, left_out = _scores(study, asker, answers, weights["omega"].to_numpy(), options)
    labels = [
        name.split("/")[0].casefold() if named else first_word(said) for name, said in zip(asked, answers, strict=True)
    ]
    if all(label is None for label in labels):
        raise DataError(f"patch-filter: no answer to {options.prompt!r} has a word, so there is nothing to compare")
    what = "pictures whose answer names their folder" if named else "answers that stay as for the whole picture"
    calls = 1 + len(options.shares) * (len(scores) + options.draws)
    with progress_bar("patch-filter", calls * len(squares), unit="answers", show=progress) as advance:
        result = compare_patch_filters(
            scores,
            _outcome(study, asker, squares, labels, advance),
            shares=options.shares,
            n_random=options.draws,
            n_bootstrap=options.bootstrap,
            seed=options.seed,
            what=what,
        )
    assert result.table is not None
    names = np.array(list(asked), dtype=object)
    table = result.table.assign(picture=names[result.table["item"].to_numpy()])
    known = int(weights["omega"].notna().sum())
    verdict = " ".join([result.verdict or "", *left_out]).strip()
    result = replace(result, table=table, columns={**result.columns, "picture": "its file"}, verdict=verdict)
    facts = {"n_pictures": len(asked), "n_references": len(shown), "outcome": what, "scorer": options.scorer}
    facts |= {
        "n_weights": known,
        "mean_weight": float(weights["omega"].mean()) if known else None,
        "chance_weight": chance,
    }
    return Filtered(result, weights, facts | {"left_out": left_out})


def _weights(
    study: AskedModel, asker: Asker, answers: list[str], options: PatchFilterOptions
) -> tuple[pd.DataFrame, float | None]:
    """Omega of each latent on the reference pictures, and its value for random tokens."""
    tokens = read_tokens(study, asker, answers, vectors=True)
    omega = token_omega(tokens.latents, tokens.modality, lambda rows: tokens.vectors[rows], rule=options.rule)
    chance = token_chance(tokens.modality, lambda rows: tokens.vectors[rows])
    frame = pd.DataFrame({"latent": np.arange(len(omega)), "omega": omega})
    return frame, None if np.isnan(chance) else chance


def _scores(
    study: AskedModel, asker: Asker, answers: list[str], omega: np.ndarray, options: PatchFilterOptions
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Scores of each filter that can be computed, and why another cannot."""
    tokens, left_out = read_tokens(study, asker, answers, vectors=False), []
    of: Any = (tokens.latents, tokens.modality, tokens.item, tokens.boxes)
    common: dict[str, Any] = {"delta": options.delta, "grid": options.grid}
    scores = {}
    if np.isfinite(omega).any():
        scores["SAE-V"] = patch_scores(*of, kind="omega", omega=omega, **common)
    else:
        left_out.append(
            "SAE-V: no latent has tokens enough of both modalities on the reference pictures, so that none has a weight."
        )
    if options.scorer is not None:
        clip = HookedMemeCLIP.from_pretrained(options.scorer, device=str(study.model.device))
        texts = [answer.strip() or options.prompt for answer in answers]
        scores["CLIP score"] = clip_scores(clip, asker.pictures, texts, options.grid)
    else:
        left_out.append("CLIP score: no --scorer was given.")
    scores["L0"] = patch_scores(*of, kind="l0", **common)
    return scores, left_out


def _outcome(study: AskedModel, asker: Asker, squares: list[Any], labels: list[Any], advance: Any) -> Any:
    """Whether the first word of the answer to the picture with other cells in its mean colour is the label."""
    mean = (
        255 * np.array(getattr(study.model.processor.image_processor, "image_mean", None) or [0.5] * 3)[:, None, None]
    )
    pixels = np.stack([np.asarray(square, np.float32).transpose(2, 0, 1) for square in squares]) - mean

    def classify(shown: np.ndarray) -> np.ndarray:
        pictures = (shown + mean).round().clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
        said = replace(asker, pictures=[Image.fromarray(picture) for picture in pictures]).answers(advance)
        return np.array([first_word(text) for text in said], dtype=object)

    return still_classified(classify, pixels, np.array(labels, dtype=object))


def _side(study: AskedModel, file: Path) -> int:
    """Of the square that the model sees."""
    found = study.model.processor.image_processor(images=[open_image(file)], return_tensors="pt")["pixel_values"]
    return int(found.shape[-1]) if found.ndim >= 4 else ANY_SIDE
