"""The `figures` command: every figure that the folders allow, as PNG and SVG."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

from sae_lens_meme import figures
from sae_lens_meme.errors import ConfigError, StorageError
from sae_lens_meme.figures.inputs import Inputs, NotDrawn
from sae_lens_meme.figures.style import FORMATS, SETTINGS, save
from sae_lens_meme.progress import progress_bar
from sae_lens_meme.storage import atomic_file, require_here

WIDTH, HEIGHT, ACROSS = 5.4, 4.2, 3


def write_figures(
    inputs: Inputs, out: str | Path, *, only: Collection[str] | None = None, progress: bool = True
) -> dict[str, str | None]:
    """Draw figures into a folder.

    Args:
        only: names of figures, default all.

    Returns:
        By name why a figure was not drawn, None where it was.

    Raises:
        ConfigError: an unknown name, none of the figures could be drawn, or `out` lies in a store.
        StorageError: `out` is a file.
    """
    names = [name for name in figures.NAMES if only is None or name in only]
    for name in only or ():
        figures.find(name)
    require_here(out)
    if Path(out).is_file():
        raise StorageError(f"{out}: is a file, not a folder; choose another --out")
    reasons: dict[str, str | None] = {}
    with progress_bar("figures", len(names), unit="figures", show=progress) as advance:
        for name in names:
            advance(0, name)
            reasons[name] = _write(name, inputs, Path(out))
            advance(1)
    if names and all(reasons.values()):
        raise ConfigError(f"no figure could be drawn: {next(iter(reasons.values()))}")
    return reasons


def _write(name: str, inputs: Inputs, out: Path) -> str | None:
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    module = figures.find(name)
    with mpl.rc_context(SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a label in a script that the font lacks
        try:
            choices: list[dict[str, Any]] = module.panels(inputs) if hasattr(module, "panels") else [{}]
            if not choices:
                return "none of it was measured"
            across = 2 if len(choices) == 4 else min(ACROSS, len(choices))
            down = -(-len(choices) // across)
            figure = Figure(figsize=(WIDTH * across, HEIGHT * down), layout="constrained")
            FigureCanvasAgg(figure)
            every = figure.subplots(down, across, squeeze=False).ravel()
            for axes, choice in zip(every, choices, strict=False):
                module.draw(axes, inputs, **choice)
        except NotDrawn as error:
            return str(error)
        for axes in every[len(choices) :]:
            axes.remove()
        figure.suptitle(module.TITLE, x=0.01, ha="left", fontsize=12)
        out.mkdir(parents=True, exist_ok=True)
        for kind in FORMATS:
            with atomic_file(out / f"{name}.{kind}") as temporary:
                save(figure, temporary, kind)
    return None
