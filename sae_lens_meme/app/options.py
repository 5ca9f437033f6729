"""The options of `app`."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from sae_lens_meme.options import Options

LOOPBACK = ("127.0.0.1", "localhost")
"""Addresses that only this computer can reach."""


class AppOptions(Options):
    """Where the application listens."""

    section: ClassVar[str] = "app"

    host: str = LOOPBACK[0]
    """Address to listen on. Any other than the default lets other computers in: there is no login."""
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Port to listen on; default the first free one from 7860."""
