"""The report as one self-contained page, and as a part of one."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from sae_lens_meme.report.blocks import blocks, cautions, heading, verdicts


def report_html(evaluation: dict[str, Any]) -> str:
    """HTML without scripts or links; every text is escaped by the template."""
    return _rendered("page", evaluation)


def report_fragment(evaluation: dict[str, Any]) -> str:
    """The same tables for a notebook's cell."""
    return _rendered("fragment", evaluation)


def _rendered(template: str, evaluation: dict[str, Any]) -> str:
    environment = Environment(
        loader=PackageLoader("sae_lens_meme.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template(f"{template}.html.jinja").render(
        heading=heading(evaluation),
        verdicts=verdicts(evaluation),
        cautions=cautions(evaluation),
        blocks=blocks(evaluation),
    )
