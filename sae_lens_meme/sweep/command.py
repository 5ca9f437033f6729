"""The `sweep` command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sae_lens_meme.flags import EmbeddingsFolder, Out, Overwrite, also_called, given_to
from sae_lens_meme.sweep.options import SweepOptions


@also_called("grid", "tune")
def sweep(
    *,
    recipe: Annotated[
        Path, typer.Argument(help="YAML with a train: section, or the name of a recipe that comes with the package.")
    ],
    overrides: Annotated[list[str] | None, typer.Argument(help="epochs=10 ..., for every setting.")] = None,
    embeddings: EmbeddingsFolder,
    out: Out,
    overwrite: Overwrite = False,
    **given: Any,
) -> None:
    """Train an SAE for every setting of a grid and every seed, compare them and say which setting to choose.

    Example: sae-lens-meme sweep demo.yaml --embeddings E --grid sae.k=8,16,32 --grid sae.d_sae=128,256 --seeds 3 --out SWEEP

    A stopped sweep resumes where it was; a trained SAE is not trained again.
    """
    from sae_lens_meme.errors import ConfigError
    from sae_lens_meme.sweep.grid import EXAMPLE
    from sae_lens_meme.sweep.report import print_sweep
    from sae_lens_meme.sweep.step import sweep as run

    if not given["grid"]:
        raise ConfigError(f"sweep: --grid is missing; give the values to compare, {EXAMPLE}")
    options = SweepOptions.from_mapping(given_to(SweepOptions, given))
    found = run(recipe, options, embeddings=embeddings, out=out, overrides=overrides or [], overwrite=overwrite)
    print_sweep(found)
