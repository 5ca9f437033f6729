"""The figure of a sweep: explained variance, the headline and stability of each setting against its L0."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sae_lens_meme.figures.style import CYCLE, GREY, INK, SETTINGS, save, titled, wrapped
from sae_lens_meme.sweep.findings import Findings
from sae_lens_meme.sweep.scores import STABLE, TEST, ScoredSetting, mean_of

ALONG = "sae.k"
"""Settings that differ in nothing else are joined by a line."""
MOST_NAMED = 12


def write_figure(findings: Findings, kind: str, path: Path) -> None:
    """As a PNG or an SVG."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(14, 4.4), layout="constrained")
        FigureCanvasAgg(figure)
        _draw(findings, figure.subplots(1, 3))
        save(figure, path, kind)


def _draw(findings: Findings, axes: Any) -> None:
    yardstick = findings.yardsticks[TEST]
    lines = _lines(findings)
    variance = f"{TEST}_explained_variance_zscored"
    _scatter(axes[0], findings, lines, lambda one: one.number(variance))
    front = pareto([(one.number(f"{TEST}_l0"), one.number(variance)) for one in findings.scored])
    axes[0].plot(*zip(*front, strict=True), color=INK, lw=0.8, ls=":", zorder=1, label="Pareto front")
    titled(axes[0], "What is given back", "L0, test memes", "explained variance, z-scored")
    _scatter(axes[1], findings, lines, lambda one: mean_of(one.mean(TEST)).value)
    for one in findings.scored:
        x, found = one.number(f"{TEST}_l0"), mean_of(one.mean(TEST))
        axes[1].plot([x, x], [found.low, found.high], color=GREY, lw=1, zorder=0)
        axes[1].plot(x, one.random[TEST][0], "x", color=GREY, ms=5)
    axes[1].axhline(findings.neurons[TEST][0], color=GREY, lw=1, ls="--")
    what = "Recovery of" if yardstick.name == "MCC" else "One-latent probes of"
    titled(axes[1], f"{what} {yardstick.targets_named}; dashed: neurons, x: random", "L0, test memes", yardstick.name)
    _scatter(axes[2], findings, lines, lambda one: one.stable)
    for one in findings.scored:
        axes[2].plot(one.number(f"{TEST}_l0"), one.stable_random, "x", color=GREY, ms=5)
    title = "Found again with another seed; x: random directions"
    titled(axes[2], title, "L0, test memes", f"share of latents, cosine {STABLE:g} or more")
    axes[0].legend()


def _scatter(
    axes: Any, findings: Findings, lines: dict[str, list[ScoredSetting]], value: Callable[[ScoredSetting], float]
) -> None:
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    for i, (name, line) in enumerate(lines.items()):
        points = sorted((one.number(f"{TEST}_l0"), value(one)) for one in line)
        label = wrapped(name) if name and i < MOST_NAMED else None
        axes.plot(*zip(*points, strict=True), "o-", color=CYCLE[i % len(CYCLE)], ms=5, lw=1.2, label=label)
    chosen = findings.chosen
    axes.plot(chosen.number(f"{TEST}_l0"), value(chosen), "o", ms=12, mfc="none", mec=INK, label="recommended")


def _lines(findings: Findings) -> dict[str, list[ScoredSetting]]:
    found: dict[str, list[ScoredSetting]] = {}
    for one in findings.scored:
        rest = {key: value for key, value in one.setting.values.items() if key != ALONG}
        found.setdefault(" ".join(f"{key.rpartition('.')[2]}={value}" for key, value in rest.items()), []).append(one)
    return found


def pareto(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those that no other point beats in both: a smaller L0 and a larger value. By L0."""
    front: list[tuple[float, float]] = []
    for l0, value in sorted(points, key=lambda point: (point[0], -point[1])):
        if not np.isnan(value) and (not front or value > front[-1][1]):
            front.append((l0, value))
    return front
