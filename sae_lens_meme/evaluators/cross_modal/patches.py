"""SAE-V's patch filter: a score for each cell of a grid over a picture, the best share of cells kept, the rest blanked.

A cell's score is the mean over the image tokens whose box covers its centre, so that a picture may be read at any
resolution, in tiles or twice.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Float64, Int
from scipy import sparse

from sae_lens_meme.errors import ConfigError, DataError
from sae_lens_meme.evaluators.cross_modal.tokens import (
    item_places,
    text_latents,
    token_matrix,
    weights_for,
)
from sae_lens_meme.hooks.patches import Boxes
from sae_lens_meme.hooks.positions import IMAGE, TEXT
from sae_lens_meme.metrics.directions import unit_rows

Kind = Literal["l0", "l1", "cooccurrence", "omega"]
KINDS: tuple[Kind, ...] = ("l0", "l1", "cooccurrence", "omega")
GRID = 24


def patch_scores(
    z: Any,
    modality: Int[np.ndarray, " tokens"],
    item: Any,
    boxes: Boxes,
    *,
    kind: Kind = "l0",
    omega: Float64[np.ndarray, " d_sae"] | None = None,
    delta: float = 0.0,
    grid: int = GRID,
) -> Float64[np.ndarray, "items grid grid"]:
    """Score of each cell of each item's picture, items in ascending order; NaN where no image token covers a cell.

    Args:
        z: latents of tokens, sparse [tokens, d_sae].
        kind: of an image token: `l0`, its active latents; `l1`, the sum of its activations; `cooccurrence`, its active latents
            that are also active in a text token of the item; `omega`, the sum of omega over its active latents.
        omega: the weights of latents; one without a weight adds nothing.
        delta: a latent is active above it.

    Raises:
        ConfigError: an unknown kind, or `omega` without weights.
        DataError: there is not one modality, item and box a token.
    """
    if kind not in KINDS:
        raise ConfigError(f"patch scores: kind is {kind!r}, it must be one of {', '.join(KINDS)}")
    z = token_matrix(z, modality)
    items, of = item_places(item, z)
    active: Any = sparse.csr_matrix(z > delta)
    active = active.astype(np.int64)
    if kind == "l0":
        value = np.asarray(active.sum(axis=1)).ravel()
    elif kind == "l1":
        value = np.asarray(z.astype(np.float64).sum(axis=1)).ravel()
    elif kind == "omega":
        if omega is None:
            raise ConfigError("patch scores: kind 'omega' needs omega=, the weights of the latents")
        value = np.asarray(active @ np.nan_to_num(weights_for(omega, z))).ravel()
    else:
        with_text = text_latents(active, of, modality, len(items))
        value = np.asarray(active.multiply(with_text[of]).sum(axis=1)).ravel()
    return cell_means(value, modality, of, boxes, grid, len(items))


def patch_cosines(
    vectors: Float[np.ndarray, "tokens d"],
    modality: Int[np.ndarray, " tokens"],
    item: Any,
    boxes: Boxes,
    *,
    grid: int = GRID,
) -> Float64[np.ndarray, "items grid grid"]:
    """The plain rival, a CLIP score of patches: cosine of each image token and the mean unit vector of the item's text."""
    items, of = np.unique(np.asarray(item), return_inverse=True)
    units = unit_rows(np.asarray(vectors, np.float64))
    text = np.asarray(modality) == TEXT
    sums = np.zeros((len(items), units.shape[1]))
    np.add.at(sums, of[text], units[text])
    return cell_means(np.einsum("td,td->t", units, unit_rows(sums)[of]), modality, of, boxes, grid, len(items))


def cell_means(
    value: np.ndarray, modality: np.ndarray, of: Int[np.ndarray, " tokens"], boxes: Boxes, grid: int, n_items: int
) -> Float64[np.ndarray, "items grid grid"]:
    """Mean over the image tokens of an item whose box covers the centre of each cell; NaN where there is none."""
    boxes = np.asarray(boxes, np.float64)
    if boxes.shape != (len(value), 4):
        raise DataError(f"patch scores: boxes {boxes.shape} for {len(value)} tokens; give [tokens, 4]")
    if grid < 1:
        raise ConfigError(f"patch scores: grid is {grid}; give 1 or more cells per side")
    centres = (np.arange(grid) + 0.5) / grid
    placed = np.flatnonzero((np.asarray(modality) == IMAGE) & ~np.isnan(boxes).any(axis=1))
    placed = placed[np.argsort(of[placed], kind="stable")]
    out = np.full((n_items, grid, grid), np.nan)
    for mine in np.split(placed, np.flatnonzero(np.diff(of[placed])) + 1) if len(placed) else ():
        top, left, bottom, right = boxes[mine].T[:, :, None]
        rows = ((top <= centres) & (centres < bottom)).astype(np.float64)
        columns = ((left <= centres) & (centres < right)).astype(np.float64)
        n = rows.T @ columns
        total = (rows * value[mine, None]).T @ columns
        np.divide(total, n, out=out[of[mine[0]]], where=n > 0)
    return out


def keep_patches(
    scores: Float64[np.ndarray, "items grid grid"], share: float, rng: np.random.Generator
) -> Bool[np.ndarray, "items grid grid"]:
    """The best cells of each picture: exactly `round(share * cells)` of them, at least one; ties are drawn at random.

    Cells without a score come last.

    Raises:
        ConfigError: the share is not above 0 and at most 1.
    """
    if not 0 < share <= 1:
        raise ConfigError(f"patches: share is {share}; give the share of cells to keep, above 0 and at most 1")
    flat = scores.reshape(len(scores), -1)
    order = np.lexsort((rng.random(flat.shape), -flat), axis=1)  # NaN goes last
    keep = np.zeros(flat.shape, bool)
    np.put_along_axis(keep, order[:, : max(1, round(share * flat.shape[1]))], True, axis=1)
    return keep.reshape(scores.shape)


def blank(pixels: Any, keep: Bool[np.ndarray, "*items grid grid"], fill: float = 0.0) -> Any:
    """Pixels [..., height, width], an array or a tensor, with `fill` in the cells that are not kept.

    Args:
        keep: of one picture, or one per picture of a batch [items, channels, height, width].
        fill: 0 is the mean colour of a normalised picture.
    """
    height, width = pixels.shape[-2:]
    grid = keep.shape[-1]
    rows, columns = np.arange(height) * grid // height, np.arange(width) * grid // width
    mask = keep[..., rows[:, None], columns]
    mask = mask[:, None] if mask.ndim == 3 else mask
    if isinstance(pixels, np.ndarray):
        return np.where(mask, pixels, np.asarray(fill, pixels.dtype))
    import torch

    return torch.where(torch.from_numpy(mask).to(pixels.device), pixels, torch.full_like(pixels, fill))
