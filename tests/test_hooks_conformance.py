"""Every hooked model passes one suite; a new one is one class, found by its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_vlms
import torch
from arrays import make_embeddings
from hooked_model_conformance import check_hooked_model
from hooks_models import TEXTS, pictures, tiny_towers
from torch import Tensor, nn

from sae_lens_meme import hooks
from sae_lens_meme.embeddings import Embeddings
from sae_lens_meme.errors import ConfigError, ModelError
from sae_lens_meme.hooks import EmbeddingSource, Hook, HookedMemeCLIP, HookedModel, HookedVLM, MemeCLIPHeads
from sae_lens_meme.hooks.checkpoint import MemeCLIPCheckpoint
from sae_lens_meme.hooks.names import LOGITS
from sae_lens_meme.hooks.positions import IMAGE
from sae_lens_meme.train import open_data

LABELS: dict[str, Any] = {"hate": [0, 1, 1, 0]}


def embeddings(d_text: int = 12, *, fusion: str = "clip", hooks: tuple[str, ...] = ("image", "text")) -> Embeddings:
    rng = np.random.default_rng(0)
    widths = {"image": 12, "text": d_text, "fused": 16}
    made = {f"hook_{h if h == 'fused' else h + '_embed'}": rng.standard_normal((40, widths[h])) for h in hooks}
    return Embeddings.from_dataset(make_embeddings(made, labels={"hate": LABELS["hate"] * 10}).dataset, fusion=fusion)


def heads() -> MemeCLIPHeads:
    torch.manual_seed(0)
    return MemeCLIPHeads(12, 24, 2, 16).eval()


def live_clip(folder: Path) -> HookedModel:
    model = HookedMemeCLIP("clip", tiny_towers(folder)).attach_memes(pictures(), TEXTS, labels=LABELS)
    weight = np.random.default_rng(0).standard_normal((2, 12))
    return model.set_head(30 * weight, np.zeros(2), "hate", [0, 1])


def live_memeclip(folder: Path) -> HookedModel:
    model = HookedMemeCLIP("memeclip", tiny_towers(folder, "memeclip"), heads())
    model.task = "hate"
    return model.attach_memes(pictures(), TEXTS, labels=LABELS)


def cached_memeclip(_: Path) -> HookedModel:
    checkpoint = MemeCLIPCheckpoint(heads(), "hate", (0, 1))
    return HookedMemeCLIP.from_embeddings(embeddings(24, fusion="memeclip"), heads=checkpoint)


STORED = ("hook_image_embed", "hook_text_embed")
EXAMPLES: list[tuple[str, Callable[[Path], HookedModel], tuple[str, ...]]] = [
    ("live clip", live_clip, ()),
    ("live memeclip", live_memeclip, ()),
    ("cached memeclip", cached_memeclip, ()),
    ("cached clip", lambda _: HookedMemeCLIP.from_embeddings(embeddings()), ()),
    ("no head", lambda _: HookedMemeCLIP.from_embeddings(embeddings(), fit_head=False), ()),
    ("fused alone", lambda _: HookedMemeCLIP.from_embeddings(embeddings(hooks=("fused",))), ()),
    ("image alone", lambda _: HookedMemeCLIP.from_embeddings(embeddings(hooks=("image",))), ()),
    ("text alone", lambda _: HookedMemeCLIP.from_embeddings(embeddings(hooks=("text",))), ()),
    (
        "memeclip as stored",
        lambda _: HookedMemeCLIP.from_embeddings(embeddings(24, fusion="memeclip", hooks=("image", "text", "fused"))),
        STORED,
    ),
]


@pytest.mark.parametrize(("make", "aside"), [e[1:] for e in EXAMPLES], ids=[e[0] for e in EXAMPLES])
def test_hooked_memeclip_passes(tmp_path: Path, make: Callable[[Path], HookedModel], aside: tuple[str, ...]):
    check_hooked_model(make(tmp_path), aside=aside)


@pytest.mark.parametrize(
    "maker",
    [
        partial(tiny_vlms.llava, vision_feature_layer=-1),
        *(tiny_vlms.vit_gpt2, tiny_vlms.vit, tiny_vlms.clip_tower, tiny_vlms.siglip_tower),
    ],
)
def test_hooked_vlm_passes(maker: Callable[[], Any]):
    model, source = tiny_vlms.made(maker)
    hooked = HookedVLM(model, source)
    check_hooked_model(hooked, rows=torch.tensor(hooked.token_dataset(None)["input_ids"]))


class ToyCaptioner(HookedModel):
    """Two layers over an image embedding, read at two positions."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.head = nn.Linear(12, 10), nn.Linear(5, 2)
        self.task, self.classes = "hate", [0, 1]
        self.declare(
            {
                "hook_image_embed": Hook(12),
                "hook_halves.0": Hook(5, positions=2),
                "hook_sum": Hook(5),
                LOGITS: Hook(2),
            }
        )

    def position_tags(self, hook: str) -> Tensor:
        return torch.full((len(self._require_source()), self.positions(hook)), IMAGE)

    def compute(self, inputs: dict[str, Tensor]) -> Tensor:
        x = self.encoder(self.tap("hook_image_embed", inputs["hook_image_embed"]))
        halves = self.tap("hook_halves.0", x.reshape(len(x), 2, 5).tanh())
        return self.tap(LOGITS, self.head(self.tap("hook_sum", halves.sum(1, keepdim=True))))


@pytest.fixture
def toy() -> Iterator[HookedModel]:
    hooks.register(ToyCaptioner)
    yield hooks.find("ToyCaptioner")().attach(EmbeddingSource(embeddings()))
    hooks.unregister("ToyCaptioner")


def test_a_new_model_is_one_class_found_by_its_name(toy: HookedModel):
    assert hooks.registered() == ["HookedMemeCLIP", "HookedVLM", "ToyCaptioner"]
    check_hooked_model(toy)


def test_a_model_of_another_name_is_refused_with_the_nearest(toy: HookedModel):
    with pytest.raises(ModelError, match="'HookedMemClip' is not a hooked model; did you mean 'HookedMemeCLIP'"):
        hooks.find("HookedMemClip")
    assert hooks.find("HookedMemeCLIP") is HookedMemeCLIP


@pytest.mark.parametrize("hook", ["hook_image_resid.0", "hook_text_resid.2"])
def test_a_hook_of_several_positions_is_not_trained_on(tmp_path: Path, hook: str):
    rows = make_embeddings({"hook_fused": np.ones((4, 3))}, splits=["train"] * 4)
    with pytest.raises(ConfigError, match=rf"hook_name is '{hook}', which has (5|10) positions a meme"):
        open_data(rows, [hook], model=live_clip(tmp_path))
    open_data(rows, ["hook_fused"], model=live_clip(tmp_path))
