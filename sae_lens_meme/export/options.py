"""The options of `export`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from sae_lens_meme.options import Count, Options

BOT = "clkht01d40000jv08hvalcvly"
"""The user that every Neuronpedia is seeded with; activations of others are shown only if these made them public."""


class ExportOptions(Options):
    """What the SAE is called on Neuronpedia, and what its pages say about memes."""

    section: ClassVar[str] = "export"

    model: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] | None = None
    """Id of the model on Neuronpedia. Default: the SAE's own model name."""
    source_set: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")] | None = None
    """Name of the set that the SAE is in. Default: meme-HOOK-ARCHITECTURE-SIZE, such as meme-fused-topk-4k."""
    layer: Count = 0
    """The number before the set: together they name the source, such as 0-meme-fused-topk-4k."""
    release: str | None = None
    """Name of the release. Default: MODEL-SET."""
    creator: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")] = BOT
    """Id of a Neuronpedia user whose activations are public. Default: the bot that every Neuronpedia has."""
    creator_name: str = "sae-lens-meme"
    """Who made the SAE, as shown on its page."""
    visibility: Literal["UNLISTED", "PUBLIC"] = "UNLISTED"
    """PUBLIC, or UNLISTED: shown to those who know the address. Memes can be hateful."""
    url: Annotated[str, Field(pattern=r"\{id\}")] | None = None
    """Public address of a meme with {id} in it, such as https://memes.example/{id}. Default: the id is shown."""
    seed: Count = 0
    """Seed of the map of explanations, and of the memes of latents that are not in the attribution."""

    def recorded(self) -> dict[str, Any]:
        """What the result depends on."""
        return self.model_dump()
