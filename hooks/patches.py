"""Where in its picture an image token lies: boxes on what a model sees of a picture, and how that covers the picture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from PIL import Image
from torch import Tensor

from sae_lens_meme.errors import ConfigError, ModelError

Boxes = Float[np.ndarray, "tokens 4"]
"""Top, left, bottom and right of a token's part of its picture, 0 to 1; NaN: it has no place, such as a row's end."""
NEAR = 0.03
"""Processors round to pixels: a crop of 224 from 226 does not count as one."""


class View(NamedTuple):
    """What a processor leaves of a picture."""

    kind: str
    """`whole`, all of the picture; `centre`, the square in its centre; `padded`, the square around it."""
    zoom: float
    """The middle part of that, such as 224 of 256 pixels; 1 is all of it."""

    def placed(self, boxes: Boxes) -> Boxes:
        """Boxes on what the model sees as boxes on the whole, the centre or the square around."""
        return 0.5 + (boxes - 0.5) * self.zoom


def boxes_of_tokens(hf: Any, inputs: dict[str, Any], row: int, n: int) -> Boxes:
    """Boxes of the `n` image tokens of one picture in their order, on what the model sees; NaN where it is not known how
    they lie.

    Args:
        hf: the transformers model.
        inputs: of a batch.
        row: the picture's row in it.
    """
    pixels, unknown = inputs.get("pixel_values"), np.full((n, 4), np.nan)
    if (grid := inputs.get("image_grid_thw")) is not None:  # Qwen2-VL: each picture has its own grid
        _, height, width = grid[row].tolist()
        merged = max(1, round((height * width / n) ** 0.5)) if n else 1
        rows, columns = height // merged, width // merged
    elif pixels is not None and pixels.ndim == 5 and (sizes := inputs.get("image_sizes")) is not None:
        try:
            boxes = anyres_boxes(hf, (int(sizes[row][0]), int(sizes[row][1])))[1]
        except (ConfigError, ModelError):
            return unknown
        return boxes if len(boxes) == n else unknown
    elif pixels is not None and pixels.ndim == 4:
        # patches are square, and a model that reads a picture once has one token for each
        height, width = pixels.shape[-2:]
        columns = round((n * width / height) ** 0.5)
        rows = n // max(1, columns)
        if abs(rows * width - columns * height) > max(height, width) / 2:
            return unknown
    else:
        return unknown
    return boxes_of_grid(np.arange(n), rows, columns) if rows * columns == n else unknown


def boxes_of_grid(cells: Int[np.ndarray, " cells"], rows: int, columns: int) -> Float64[np.ndarray, "cells 4"]:
    """Boxes of the cells of a grid over a whole picture, counted row by row: those of a tower that reads it once."""
    y, x = np.divmod(cells, columns)
    return np.stack([y / rows, x / columns, (y + 1) / rows, (x + 1) / columns], axis=1)


def view_of(pixels: Callable[[Any], Tensor]) -> View | None:
    """What a processor leaves of a picture, found by showing it ramps of grey twice as wide as high; None where it is
    neither the whole picture nor a square around its middle.

    Args:
        pixels: makes of a PIL image what the model reads, [channels, height, width].
    """
    across, down = np.meshgrid(*(255 * (np.arange(n) + 0.5) / n for n in (512, 256)))
    low, high, across, down = (
        pixels(Image.fromarray(grey.round().astype(np.uint8)).convert("RGB"))
        for grey in (np.zeros_like(across), np.full_like(across, 255), across, down)
    )
    if low.ndim != 3:  # flat patches: a processor that resizes to whole patches
        return View("whole", 1.0)
    middle = [slice(size // 2 - size // 8, size // 2 + size // 8) for size in low.shape[1:]]
    extents = []
    for ramp, axis in ((across, 1), (down, 0)):
        dark, light, grey = (part[0][middle[0], middle[1]].float() for part in (low, high, ramp))
        shares = ((grey - dark) / (light - dark)).mean(dim=1 - axis).numpy()  # of the picture, along the axis
        places = (np.arange(middle[axis].start, middle[axis].stop) + 0.5) / low.shape[1 + axis]
        if len(places) < 2 or not np.isfinite(shares).all():
            return None
        slope, start = np.polyfit(places, shares, 1)
        if abs(start + slope / 2 - 0.5) > NEAR:
            return None
        extents.append(slope)
    width, height = extents
    for kind, scale in (("whole", (1.0, 1.0)), ("centre", (0.5, 1.0)), ("padded", (1.0, 2.0))):
        zooms = width / scale[0], height / scale[1]
        zoom = float(sum(zooms) / 2)
        if abs(zooms[0] - zooms[1]) < NEAR * zoom and 0 < zoom < 1 + NEAR:
            return View(kind, 1.0 if zoom > 1 - NEAR else round(zoom, 3))
    return None


def anyres_boxes(
    model: Any, size: tuple[int, int], n_tiles: int | None = None
) -> tuple[Int[np.ndarray, " tokens"], Boxes]:
    """Where each image token of LLaVA-NeXT lies in a picture, by the model's own packing, run on numbers of patches.

    The picture is read twice: whole, then in tiles without their padding, where each row ends in a newline token.

    Args:
        model: a transformers model with `pack_image_features`, or one that holds it (`HookedVLM`).
        size: height and width of the picture.
        n_tiles: tiles that the processor makes, the whole picture included; default what the model's pinpoints give.

    Returns:
        The number of each token's patch, counted through all tiles, -1 for a row's end; and its box, NaN for a row's end.

    Raises:
        ModelError: the model packs in another way, or not at all.
        ConfigError: these are not the tiles of such a picture.
    """
    while not hasattr(model, "pack_image_features"):
        inner = getattr(model, "hf", None) or getattr(model, "model", None)
        if inner is None:
            raise ModelError(f"{type(model).__name__} has no pack_image_features; give a LLaVA-NeXT")
        model = inner
    side = model.config.vision_config.image_size // model.config.vision_config.patch_size
    n_tiles = _n_tiles(model.config, size) if n_tiles is None else n_tiles
    numbers = torch.arange(n_tiles * side * side).reshape(n_tiles, side * side, 1)
    try:
        packed, _ = model.pack_image_features(
            [numbers], torch.tensor([list(size)]), "default", image_newline=torch.tensor([-1])
        )
    except (RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ConfigError(f"a picture of {size[0]} x {size[1]} does not give {n_tiles} tiles here ({reason})") from None
    patches = packed[0].reshape(-1).numpy()
    boxes = np.full((len(patches), 4), np.nan)
    n_whole = side * side
    if len(patches) < n_whole or (patches[:n_whole] != np.arange(n_whole)).any():
        raise ModelError(f"{type(model).__name__} does not begin with the whole picture; its boxes are not known")
    boxes[:n_whole] = boxes_of_grid(np.arange(n_whole), side, side)
    rest = patches[n_whole:]
    if n_tiles > 1:
        width = int(np.flatnonzero(rest == -1)[0])
        places = np.arange(len(rest))
        inside = places[rest >= 0]
        cells = inside - inside // (width + 1)
        boxes[n_whole + inside] = boxes_of_grid(cells, len(rest) // (width + 1), width)
    return patches, boxes


def _n_tiles(config: Any, size: tuple[int, int]) -> int:
    from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

    return image_size_to_num_patches(list(size), config.image_grid_pinpoints, config.vision_config.image_size)
