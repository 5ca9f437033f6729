"""The `steer` command: `answers.parquet`, `scores.json` and a figure in a folder."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch

from sae_lens_meme.figures.style import FORMATS
from sae_lens_meme.images import open_image
from sae_lens_meme.steer.figure import draw_steering
from sae_lens_meme.steer.opened import asked_and_shown, open_asked, picture_files
from sae_lens_meme.steer.options import SteerOptions
from sae_lens_meme.steer.run import WordScorer, steer_pictures
from sae_lens_meme.storage import StepFolder, read_json, to_json

ANSWERS, SCORES, FIGURE = "answers.parquet", "scores.json", "steering"
_BATCH = 32


def steer(
    sae: str | Path,
    out: str | Path,
    options: SteerOptions | None = None,
    *,
    hook: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
    **given: Any,
) -> dict[str, Any]:
    """Set latents of an SAE inside a chat model or captioner, and compare what it says with all controls.

    Args:
        sae: an SAE folder.
        out: the result folder.
        options: see `SteerOptions`; or give them by keyword.
        hook: the hook, if the SAE's metadata names none.

    Returns:
        The content of `scores.json`.

    Raises:
        MemeError: a folder, the model, a picture or an option is wrong; the message says which.
    """
    options = SteerOptions.of(options, given)
    files = picture_files(options.pictures)
    shown = picture_files(options.references) if options.references is not None else {}
    opened = open_asked(sae, hook, options, [files, shown])
    with StepFolder(out, "steer", opened.fingerprint, overwrite=overwrite) as folder:
        if not folder.complete:
            asked, references = asked_and_shown(files, shown, options.seed)
            scorer = None if options.scorer is None else ClipScorer(options.scorer, str(opened.model.device))
            pictures, others = ({name: open_image(file) for name, file in part.items()} for part in (asked, references))
            found = steer_pictures(*opened[:2], pictures, others, options, scorer, progress=progress)
            written = {
                **{"model": options.model, "hook": opened.hook, "prompt": options.prompt},
                **{"n_pictures": len(asked), "n_references": len(references), "scorer": options.scorer},
                **found.to_dict(),
            }
            folder.write_table(ANSWERS, found.answers)
            folder.write_text(SCORES, to_json(written))
            _draw(folder, found.answers, found.scores)
            folder.finish(n_pictures=len(asked), latents=options.latents, verdict=found.verdict)
    return read_json(Path(out) / SCORES)


def _draw(folder: StepFolder, answers: pd.DataFrame, scores: pd.DataFrame) -> None:
    with TemporaryDirectory() as drawn:
        draw_steering(answers, scores, Path(drawn) / FIGURE)
        for kind in FORMATS:
            folder.write(f"{FIGURE}.{kind}", partial(shutil.copyfile, Path(drawn) / f"{FIGURE}.{kind}"))


class ClipScorer(WordScorer):
    """A CLIP of open_clip by its name."""

    def __init__(self, name: str, device: str):
        from sae_lens_meme.hooks import HookedMemeCLIP

        self._model = HookedMemeCLIP.from_pretrained(name, device=device)

    @torch.no_grad()
    def images(self, pictures: Any) -> np.ndarray:
        parts = []
        for start in range(0, len(pictures), _BATCH):
            pixels = torch.stack([self._model.preprocess(x) for x in pictures[start : start + _BATCH]])
            parts.append(self._model.encode_image(pixels.to(self._model.device)).float().cpu().numpy())
        return np.concatenate(parts)

    @torch.no_grad()
    def texts(self, words: Any) -> np.ndarray:
        return self._model.encode_text(self._model.tokenize(list(words)).to(self._model.device)).float().cpu().numpy()
