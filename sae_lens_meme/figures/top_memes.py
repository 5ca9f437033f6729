"""The pictures on which a latent fires most."""

from __future__ import annotations

from typing import Any

import numpy as np

from sae_lens_meme.attributions import covered
from sae_lens_meme.figures.inputs import Inputs, NotDrawn
from sae_lens_meme.figures.style import titled

TITLE = "Top memes of a latent (pictures are blurred unless revealed)"
MOST_PANELS, SIZE, BLUR = 4, 160, 14


def panels(inputs: Inputs) -> list[dict[str, Any]]:
    """The latents with the strongest top memes."""
    rows = inputs.attributions
    peaks = rows[rows["kind"] == "top"].groupby("latent")["activation"].max().sort_values(ascending=False)
    return [{"latent": int(latent), "reveal": inputs.reveal} for latent in peaks.index[:MOST_PANELS]]


def draw(axes: Any, inputs: Inputs, *, latent: int, n: int = 8, columns: int = 4, reveal: bool = False) -> None:
    """The n strongest memes in a grid, with the regions that drive the latent outlined in each.

    Of each picture what its patches divide: the square in its centre, or with its margins, where the towers see that.

    Args:
        reveal: show the pictures. Memes can be hateful, so they are blurred unless this is set.
    """
    rows = inputs.attributions
    rows = rows[(rows["latent"] == latent) & (rows["kind"] == "top")].sort_values("rank").head(n)
    if rows.empty:
        raise NotDrawn(f"latent {latent} has no attributed memes")
    for place, row in enumerate(rows.itertuples()):
        left, top = place % columns, place // columns
        axes.imshow(
            _picture(inputs, str(row.id), reveal),
            extent=(left + 0.02, left + 0.98, top + 0.98, top + 0.02),
            aspect="auto",
        )
        if row.patch_scores is not None and len(row.patch_scores):
            _outline(axes, np.asarray(row.patch_scores, dtype=float), left, top)
    axes.set(xlim=(0, columns), ylim=(-(-len(rows) // columns), 0), xticks=[], yticks=[], aspect="equal")
    axes.spines[:].set_visible(False)
    titled(axes, f"{inputs.called(latent)}: top memes{'' if reveal else ', blurred'}")


def _picture(inputs: Inputs, id: str, reveal: bool) -> np.ndarray:
    from PIL import Image, ImageFilter

    picture = inputs.picture(id).convert("RGB")
    left, top, width, height = covered(inputs.view, picture.size)
    seen = picture.crop((round(left), round(top), round(left + width), round(top + height)))
    picture = seen.resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    return np.asarray(picture if reveal else picture.filter(ImageFilter.GaussianBlur(BLUR)))


def _outline(axes: Any, scores: np.ndarray, left: int, top: int) -> None:
    """The three regions without which the latent loses most."""
    from matplotlib.patches import Rectangle

    side = round(len(scores) ** 0.5)
    for patch in np.argsort(-scores)[:3]:
        if scores[patch] > 0:
            y, x = divmod(int(patch), side)
            step = 0.96 / side
            corner = (left + 0.02 + x * step, top + 0.02 + y * step)
            axes.add_patch(Rectangle(corner, step, step, fill=False, ec="#D55E00", lw=1.5))
