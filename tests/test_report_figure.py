"""The figure says what it shows."""

from __future__ import annotations

import pytest
from matplotlib.axes import Axes
from sae_lens_meme.figure import draw_figure
from sae_lens_meme.report.concepts import ANSWERS
from sae_lens_meme.report.influence import PROBES
from sae_lens_meme.report.section import row


@pytest.mark.parametrize(
    ("sections", "title"),
    [((PROBES, ANSWERS), "best latent for each planted factor"), ((PROBES,), "probe on latents")],
)
def test_the_last_panel_names_what_is_drawn(sections, title, tmp_path, monkeypatch):
    titles: list[str] = []
    monkeypatch.setattr(Axes, "set_title", lambda self, text, **_: titles.append(text))
    table = [row(section.title, "scene (visual)", 0.9, {"permuted": 0.5}) for section in sections]
    assert draw_figure({"table": table}, tmp_path / "figure.png")
    assert title in titles[-1]
