"""The readers. A new one is a file beside this one with a `READER`, and one line below."""

from __future__ import annotations

from sae_lens_meme.corpus import folder, harmeme, hmc, hub, mami, memotion, memotion2, mmhs150k, multioff, pridemm
from sae_lens_meme.corpus.rows import Reader

_ALL = (
    pridemm.READER,
    hmc.READER,
    memotion.READER,
    memotion2.READER,
    memotion2.READER_3,
    mami.READER,
    harmeme.READER,
    multioff.READER,
    mmhs150k.READER,
    folder.READER,
    hub.READER,
)
READERS: dict[str, Reader] = {reader.name: reader for reader in _ALL}
