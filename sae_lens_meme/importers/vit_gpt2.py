"""SAE_ViTGPT: an old SAELens folder that began as gpt2-small-res-jb, for the decoder of a captioner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sae_lens.constants import SAE_CFG_FILENAME

from sae_lens_meme.errors import ModelError
from sae_lens_meme.importers.files import BARE_PICKLES
from sae_lens_meme.importers.saelens_v import converted, old_saelens
from sae_lens_meme.importers.stock import Loaded


def vit_gpt2_loader(
    path: str | Path,
    device: str = "cpu",
    cfg_overrides: dict[str, Any] | None = None,
    *,
    hook: str | None = None,
) -> Loaded:
    """SAE_ViTGPT's folder. Its hook, the input of block 9, is `hook_decoder_resid.8`.

    gpt2-small-res-jb was trained on residuals whose mean over
    dimensions was subtracted: do that before comparing the two.

    Raises:
        ModelError: not such a folder; a dump of pictures and activations, which it also wrote, is not an SAE.
    """
    folder = Path(path)
    if folder.suffix in BARE_PICKLES:
        raise ModelError(
            f"{folder}: is a dump of pictures with activations, not an SAE; give the folder with {SAE_CFG_FILENAME}"
        )
    cfg, weights, _ = old_saelens(folder)
    notes = ["gpt2-small-res-jb, from which it began, reads residuals without their mean; this one reads them whole"]
    model = {"model_name": "nlpconnect/vit-gpt2-image-captioning"}
    return converted(folder, cfg, weights, device, cfg_overrides, ("vit-gpt2", cfg["architecture"]), hook, notes, model)


def recognises(path: Path) -> bool:
    """Never: its folder is that of any old SAELens."""
    return False
