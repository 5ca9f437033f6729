"""The readers. A new one is a file beside this one with a `READER`, and its name in one line below."""

from __future__ import annotations

from sae_lens_meme.corpus import folder, hmc, memotion, pridemm
from sae_lens_meme.corpus.reader import Reader

READERS: dict[str, Reader] = {module.READER.name: module.READER for module in (pridemm, hmc, memotion, folder)}
