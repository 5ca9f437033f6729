"""What `read` says about a meme, in a terminal and as a page. Nothing here measures anything."""

from __future__ import annotations

import base64
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sae_lens_meme.attributions import GRID, covered
from sae_lens_meme.report.blocks import number, visible
from sae_lens_meme.report.page import rendered
from sae_lens_meme.report.terminal import plain_table

MOST_WORDS = 3
SENTENCES = ("evidence", "carried by")
"""Columns that share the remaining width."""
LEAST_ROOM = 24
"""Width that such a column has at least: two of them fit into 110 characters, where wider ones would be cut."""
FIRES_ON = "share of the train memes, and of these the share with a smaller activation."
DECIDED_BY = (
    "in brackets the share of other memes' captions, and of other memes' pictures, with which the latent stays active."
)


def print_reading(reading: dict[str, Any], console: Console) -> None:
    """Latents, decisions and neighbours of `Reading.to_dict()`."""
    for line in heading(reading):
        console.print(Text(line, style="bold" if line.startswith("Caption") else ""), soft_wrap=True)
    console.print(_latents(reading["latents"]))
    console.print(Text(f"Fires on, stronger than: {FIRES_ON}", style="dim"))
    console.print(Text(f"Decided by: {DECIDED_BY}", style="dim"))
    for latent in reading["latents"]:
        if latent["seen"]:
            console.print(Text(f"{latent['latent']:>6}  {driven_by(latent['seen'])}"), soft_wrap=True)
    console.print(_decisions(reading["decisions"]))
    console.print(Text("Nearest train memes", style="bold"))
    for meme in reading["neighbours"]:
        shared = ", ".join(map(str, meme["shared"][:5]))
        line = f"  {meme['similarity']:.2f}  {meme['id']}: {meme['caption'] or '(no caption)'}  [latents {shared}]"
        console.print(Text(visible(line)), soft_wrap=True)
    for note in reading["notes"]:
        console.print(Text(f"- {visible(note)}", style="dim"), soft_wrap=True)


def heading(reading: dict[str, Any]) -> list[str]:
    """The caption and where it is from; how well the SAE sees the meme."""
    source = {"given": "", "picture": " (read from the picture by OCR: check it, or give --caption)", "none": ""}[
        reading["caption_from"]
    ]
    rank = reading["fidelity_rank"]
    beside = "" if rank is None else f", better than {rank:.0%} of the held-out memes"
    return [
        visible(f"Caption{source}: {reading['caption'] or '(none)'}"),
        f"{reading['n_active']} active latents at {reading['hook']}; cosine of embedding and reconstruction "
        f"{reading['fidelity']:.3f}{beside}",
    ]


def driven_by(seen: dict[str, Any]) -> str:
    """The words and the patches whose loss lowers the pre-activation most, as shares of it."""
    whole = seen["pre_activation"]
    order = sorted(range(len(seen["words"])), key=lambda i: -seen["word_scores"][i])[:MOST_WORDS]
    words = [
        f"{seen['words'][i]!r} {_share(seen['word_scores'][i], whole)}" for i in order if seen["word_scores"][i] > 0
    ]
    parts = [f"words {', '.join(words)}"] if words else []
    if seen["patch_scores"]:
        best = max(range(GRID**2), key=lambda i: seen["patch_scores"][i])
        row, column = divmod(best, GRID)
        parts.append(f"patch row {row + 1}, column {column + 1} {_share(seen['patch_scores'][best], whole)}")
    return visible("; ".join(parts) or "no word or patch")


def _share(score: float, whole: float) -> str:
    return f"{score / whole:+.0%}" if whole else f"{score:+.2f}"


def decided_by(sides: dict[str, Any]) -> str:
    """With which exchanged sides the latent stays active."""
    if sides["decided_by"] is None or sides["other_captions"] is None:
        return sides["decided_by"] or "-"
    return f"{sides['decided_by']} ({sides['other_captions']:.0%} / {sides['other_pictures']:.0%})"


def carried(decision: dict[str, Any]) -> str:
    """What the latents that carry a decision do, beside as many others of similar activation."""
    if not decision["carriers"]:
        return "carried by no latent"
    latents = ", ".join(f"{c['latent']} ({c['contribution']:+.2f})" for c in decision["carriers"])
    random = decision["without_random"]
    beside = f"; without as many others {random[1]:.2f} ({random[0]:.2f} to {random[2]:.2f})" if random else ""
    return f"latents {latents}; without them {decision['without']:.2f}{beside}"


def reading_html(reading: dict[str, Any], webp: bytes, size: tuple[int, int]) -> str:
    """One page without scripts or links; the picture is blurred and captions are hidden until the reader asks.

    Args:
        webp: the picture, encoded again so that it carries no metadata of its file.
        size: its width and height.
    """
    return rendered(
        "report",
        "reading",
        reading=reading,
        heading=heading(reading)[1],
        picture=base64.b64encode(webp).decode(),
        size=size,
        view=covered(reading["view"], size),
        latents=[_shown(latent) for latent in reading["latents"]],
        decisions=[{**decision, "carried": carried(decision)} for decision in reading["decisions"]],
        grid=GRID,
        decided_by=DECIDED_BY,
    )


def _shown(latent: dict[str, Any]) -> dict[str, Any]:
    seen = latent["seen"]
    return {
        **latent,
        "side": decided_by(latent["sides"]),
        "words": list(zip(seen["words"], _shades(seen["word_scores"]), strict=True)) if seen else [],
        "patches": _shades(seen["patch_scores"] or []) if seen else [],
        "driven_by": driven_by(seen) if seen else "",
    }


def _shades(scores: list[float]) -> list[tuple[str, float]]:
    """The sign of each score as a class, and its size as a share of the largest."""
    largest = max(map(abs, scores), default=0) or 1
    return [("for" if score >= 0 else "against", round(abs(score) / largest, 3)) for score in scores]


def _latents(latents: list[dict[str, Any]]) -> Table:
    table = _table(
        "latent", "active", "fires on", "stronger than", "name", "evidence", "decided by (other captions / pictures)"
    )
    for latent in latents:
        name = latent["name"]
        cells = (
            str(latent["latent"]),
            number(latent["activation"]),
            f"{latent['firing_rate']:.1%}",
            "-" if latent["stronger_than"] is None else f"{latent['stronger_than']:.0%}",
            name["name"] or "-",
            name["evidence"],
            decided_by(latent["sides"]),
        )
        table.add_row(*(Text(visible(cell)) for cell in cells))
    return table


def _decisions(decisions: list[dict[str, Any]]) -> Table:
    table = _table("label", "probe says", "probability", "train memes", "how good", "carried by")
    for d in decisions:
        cells = (
            d["label"],
            str(d["decided"]),
            f"{d['probability']:.2f}",
            f"{d['prevalence']:.2f}",
            d["evidence"],
            carried(d),
        )
        table.add_row(*(Text(visible(cell)) for cell in cells))
    return table


def _table(*columns: str) -> Table:
    table = plain_table()
    for name in columns:
        table.add_column(name, overflow="fold", min_width=LEAST_ROOM if name in SENTENCES else None)
    return table
