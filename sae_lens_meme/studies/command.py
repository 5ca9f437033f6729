"""The `question-set` and `patch-filter` commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from sae_lens_meme.flags import Hook, Out, Overwrite, SAEFolder, given_to
from sae_lens_meme.studies.options import PatchFilterOptions, QuestionSetOptions


def question_set(*, sae: SAEFolder, out: Out, hook: Hook = None, overwrite: Overwrite = False, **given: Any) -> None:
    """Ask a chat model the Standard Question Set about every picture: do latents follow the picture, the question, or both?

    question-set --model llava-hf/llava-1.5-7b-hf --sae SAE --pictures DIR --out OUT
    """
    from sae_lens_meme.studies import question_set as run

    options = QuestionSetOptions(**given_to(QuestionSetOptions, given))
    _show(run(sae, out, options, hook=hook, overwrite=overwrite), out)


def patch_filter(*, sae: SAEFolder, out: Out, hook: Hook = None, overwrite: Overwrite = False, **given: Any) -> None:
    """Keep the patches that SAE-V's weights prefer, blank the others, and ask a chat model again, beside random patches.

    patch-filter --model llava-hf/llava-v1.6-mistral-7b-hf --sae SAE --pictures DIR --scorer ViT-B-32/openai --out OUT
    """
    from sae_lens_meme.studies import patch_filter as run

    options = PatchFilterOptions(**given_to(PatchFilterOptions, given))
    _show(run(sae, out, options, hook=hook, overwrite=overwrite), out)


def _show(found: dict[str, Any], out: Path) -> None:
    from sae_lens_meme.report.terminal import print_rows
    from sae_lens_meme.steps import console

    for result in found["results"]:
        print_rows(result, console)
    typer.echo(
        f"{out}: {', '.join(sorted(path.name for path in out.iterdir() if path.suffix in ('.json', '.parquet')))}"
    )
