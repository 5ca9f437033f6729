"""The `steer` command."""

from __future__ import annotations

from typing import Any

import typer

from sae_lens_meme.flags import Hook, Out, Overwrite, SAEFolder, also_called, given_to
from sae_lens_meme.steer.options import SteerOptions


@also_called("intervene", "ablate")
def steer(
    *,
    sae: SAEFolder,
    out: Out,
    hook: Hook = None,
    overwrite: Overwrite = False,
    **given: Any,
) -> None:
    """Set latents while a chat model or captioner answers; write answers, scores and a figure, beside all controls.

    steer --model llava-hf/llava-1.5-7b-hf --sae SAE --latents 39 --value 100 --pictures DIR --out STEER
    """
    from sae_lens_meme.report.blocks import visible
    from sae_lens_meme.steer.step import steer as run

    options = SteerOptions(**given_to(SteerOptions, given))
    for sentence in run(sae, out, options, hook=hook, overwrite=overwrite)["verdict"]:
        typer.echo(visible(sentence))
    typer.echo(f"{out}: answers.parquet, scores.json, steering.png, steering.svg")
