"""Both fusions of a picture and its caption, and MemeCLIP's trained part on top of a frozen CLIP.

The state-dict keys of `MemeCLIPHeads` are those of the published checkpoints (arXiv 2409.14703).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sae_lens_meme.errors import DataError, ModelError
from sae_lens_meme.hooks import names

Tap = Callable[[str, Tensor], Tensor]
"""Called with the name and the value at each hook; what it returns flows on."""

PROMPT = "a photo of a {}."


def no_tap(_: str, x: Tensor) -> Tensor:
    return x


def unit_product(
    image: Float[Tensor, "*batch d"], text: Float[Tensor, "*batch d"], tap: Tap = no_tap
) -> Float[Tensor, "*batch d"]:
    """image/|image| * text/|text|, elementwise. A zero vector gives NaN: it has no direction."""
    image = tap(names.IMAGE_UNIT, image / image.norm(dim=-1, keepdim=True))
    text = tap(names.TEXT_UNIT, text / text.norm(dim=-1, keepdim=True))
    return tap(names.FUSED, image * text)


@torch.no_grad()
def fuse(
    image: Float[np.ndarray, "n d_image"],
    text: Float[np.ndarray, "n d_text"],
    ids: Sequence[Any] | np.ndarray | None = None,
    heads: MemeCLIPHeads | None = None,
) -> Float[np.ndarray, "n d"]:
    """`hook_fused` of stored embeddings, float32: through MemeCLIP's heads, else fusion clip in float64.

    Args:
        ids: what a message calls the rows, default their numbers.

    Raises:
        DataError: a vector has norm 0, and so no direction.
    """
    for hook, x in ((names.IMAGE_EMBED, image), (names.TEXT_EMBED, text)):
        if len(zero := np.flatnonzero(~x.any(axis=1))):
            row = int(zero[0])
            called = f"row {row}" if ids is None else f"row {row} (id {ids[row]!r})"
            raise DataError(
                f"{hook}, {called}: the vector has norm 0 and cannot be normalised; remove the row (counted from 0)"
            )
    v, t = (torch.from_numpy(np.array(x, order="C")) for x in (image, text))  # arrays on disk cannot be written to
    if heads is None:
        return unit_product(v.double(), t.double()).float().numpy()
    training, device = heads.training, heads.classifier.weight.device
    try:  # the maps have dropout
        return heads.eval().fuse(v.to(device), t.to(device)).float().cpu().numpy()
    finally:
        heads.train(training)


class MemeCLIPHeads(nn.Module):
    """Everything of MemeCLIP that is trained: two maps, two residual adapters, the head, the cosine classifier.

    Args:
        d_image: width of CLIP's projected image embedding (768 for ViT-L/14).
        d_text: width of the un-projected text feature (768).
        n_classes: classes of the task.
        d_map: width of the fused vector (1024).
    """

    def __init__(self, d_image: int, d_text: int, n_classes: int, d_map: int = 1024):
        super().__init__()
        self.image_map = LinearProjection(d_image, d_map)
        self.text_map = LinearProjection(d_text, d_map)
        self.img_adapter = Adapter(d_map)
        self.text_adapter = Adapter(d_map)
        self.pre_output = nn.Sequential(nn.Dropout(0.4), nn.Linear(d_map, d_map), nn.ReLU(), nn.Dropout(0.2))
        self.classifier = CosineClassifier(d_map, n_classes)

    @property
    def d_image(self) -> int:
        return self.image_map.d_in

    @property
    def d_text(self) -> int:
        return self.text_map.d_in

    @property
    def d_map(self) -> int:
        return self.classifier.weight.shape[1]

    @property
    def n_classes(self) -> int:
        return self.classifier.weight.shape[0]

    def fuse(
        self, image: Float[Tensor, "*batch d_image"], text: Float[Tensor, "*batch d_text"], tap: Tap = no_tap
    ) -> Float[Tensor, "*batch d_map"]:
        image = tap(names.IMAGE_PROJ, self.image_map(image.to(self.classifier.weight.dtype)))
        text = tap(names.TEXT_PROJ, self.text_map(text.to(self.classifier.weight.dtype)))
        image = tap(names.IMAGE_ADAPTED, self.img_adapter(image))
        text = tap(names.TEXT_ADAPTED, self.text_adapter(text))
        return unit_product(image, text, tap)

    def classify(self, fused: Float[Tensor, "*batch d_map"], tap: Tap = no_tap) -> Float[Tensor, "*batch n_classes"]:
        hidden = tap(names.PRE_OUTPUT, self.pre_output(fused.to(self.classifier.weight.dtype)))
        return tap(names.LOGITS, self.classifier(hidden))

    def forward(
        self, image: Float[Tensor, "*batch d_image"], text: Float[Tensor, "*batch d_text"]
    ) -> Float[Tensor, "*batch n_classes"]:
        return self.classify(self.fuse(image, text))


class LinearProjection(nn.Module):
    def __init__(self, d_in: int, d_out: int):
        super().__init__()
        self.d_in = d_in
        self.proj = nn.Sequential(nn.Linear(d_in, d_out), nn.Dropout(0.1))

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class Adapter(nn.Module):
    """0.2 * bottleneck(x) + 0.8 * x."""

    RATIO = 0.2

    def __init__(self, d: int):
        super().__init__()
        narrow = d // 4
        self.fc = nn.Sequential(
            nn.Linear(d, narrow, bias=False), nn.ReLU(), nn.Linear(narrow, d, bias=False), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.RATIO * self.fc(x) + (1 - self.RATIO) * x


class CosineClassifier(nn.Module):
    """30 times the cosine between input and class vector."""

    SCALE = 30.0

    def __init__(self, d: int, n_classes: int):
        super().__init__()
        self.weight = nn.Parameter(F.normalize(torch.empty(n_classes, d).uniform_(-1, 1), dim=-1))

    def forward(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch n_classes"]:
        return self.SCALE * F.linear(F.normalize(x, dim=-1), F.normalize(self.weight, dim=-1))


def new_heads(
    towers: Any, n_classes: int, d_map: int, class_names: Sequence[str] | None = None, seed: int = 0
) -> MemeCLIPHeads:
    """Heads for these `Towers`, drawn from `seed`; the classifier from prompts where the classes have names."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        n_classes = len(class_names) if class_names else n_classes
        heads = MemeCLIPHeads(towers.d_embed, towers.model.transformer.width, n_classes, d_map)
    if class_names:
        prompt_classifier(heads, towers.model, towers.tokenize, class_names)
    return heads


@torch.no_grad()
def prompt_classifier(
    heads: MemeCLIPHeads, clip: Any, tokenize: Callable[[list[str]], Tensor], class_names: Sequence[str]
) -> None:
    """Set the class vectors to the text embeddings of "a photo of a {class}." (MemeCLIP's initialisation).

    The projected, normalised text embedding times the transposed image projection, normalised again.

    Raises:
        ModelError: the number of names is not the number of classes, or the image tower has no
            projection from a width of d_map.
    """
    if len(class_names) != heads.n_classes:
        raise ModelError(f"{len(class_names)} class names for {heads.n_classes} classes ({', '.join(class_names)})")
    projection = getattr(clip.visual, "proj", None)
    if not isinstance(projection, Tensor) or projection.shape[0] != heads.d_map:
        found = (
            "no projection" if not isinstance(projection, Tensor) else f"a projection from width {projection.shape[0]}"
        )
        raise ModelError(
            f"class prompts need an image tower of width {heads.d_map}, this one has {found}; set d_map to it"
        )
    prompts = tokenize([PROMPT.format(name.replace("_", " ")) for name in class_names]).to(projection.device)
    text = clip.encode_text(prompts, normalize=True)
    heads.classifier.weight.copy_(F.normalize(text @ projection.T, dim=-1))
