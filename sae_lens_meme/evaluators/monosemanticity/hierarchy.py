"""Hierarchy of Matryoshka groups: do later latents stand for narrower things?

The depth of the lowest common ancestor (LCA) of the labels of a latent's top memes, over any label tree, averaged
over the latents of each group (Pach et al. 2025, their inat_depth.py).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int

from sae_lens_meme.embeddings import Label
from sae_lens_meme.errors import ConfigError, DataError
from sae_lens_meme.evaluators.latents import Latents
from sae_lens_meme.evaluators.monosemanticity.kernels import first_kept, mean_common_depth
from sae_lens_meme.evaluators.monosemanticity.uniqueness import TOP, top_sets
from sae_lens_meme.evaluators.result import Interval, Measure, Quantity, Result, Section, nullable
from sae_lens_meme.metrics.ranking import Ranked
from sae_lens_meme.metrics.resampling import percentile_interval, subset_weights
from sae_lens_meme.provenance import recorded_widths

Node = Hashable

N = Quantity("n", "memes with a known label; the others are left out")
N_UNLABELLED = Quantity("n_unlabelled", "memes without a known label, left out")
LABEL_DEPTH = Quantity(
    "mean_label_depth", "depth of the label, mean over the memes: what a latent of one label reaches"
)
N_LATENTS = Quantity("n_latents", "latents of the group that fire on as many labelled memes as a top set has")
DEPTH = Quantity(
    "depth", "depth of the lowest common ancestor, mean over pairs of top memes, then over latents of the group"
)
RANDOM = Quantity("depth_random", "control: expected depth of a pair of memes drawn at random (closed form)")
WITHIN = Quantity(
    "depth_random_within_source", "control: random memes in place of the top ones, as many of each source (closed form)"
)
PUBLISHED = Quantity("depth_published", "each latent's mean rounded to a whole depth first, as the released code does")
COLUMNS = {
    "latent": "of the SAE",
    "group": "latents from-to, ends included",
    "depth": DEPTH.what.removesuffix(", then over latents of the group"),
    "depth_random_within_source": WITHIN.what,
}


@dataclass(frozen=True, eq=False)
class _Labelled:
    """The memes with a known label, in the order of their ids."""

    latents: Latents
    paths: Int[np.ndarray, "n depth"]
    strata: Int[np.ndarray, " n"]
    families: Int[np.ndarray, " n"]


def hierarchy(
    latents: Latents,
    leaves: Sequence[Hashable | None] | Label,
    tree: Mapping[Any, Any],
    groups: Sequence[int] | Any,
    *,
    sources: Sequence[str] | np.ndarray | None = None,
    ids: Sequence[str] | np.ndarray | None = None,
    families: Int[np.ndarray, " n"] | None = None,
    top: int = TOP,
    n_halves: int = 200,
    seed: int = 0,
) -> Result:
    """Mean LCA depth of the top memes of each latent, by group, with random memes as a control.

    Args:
        latents: one row per meme.
        leaves: the label of each meme, any node of the tree; None where unknown, and the meme is left out.
        tree: child -> parent. The root has depth 0.
        groups: the widths at which groups end, such as [256, 1024, 4096], or an SAE or its folder (`matryoshka_widths`).
        sources: of the memes, for the control that keeps the sources of the top memes; default one source.
        ids: of the memes; they decide between equal activations. Default the order of the rows.
        families: memes of one family (`Embeddings.groups`) are in a half together; default each meme is its own.
        top: size of the top sets, 2 or more; latents that fire on fewer labelled memes are left out.
        n_halves: random halves of the memes for the 95 % intervals; 0 for none.

    Returns:
        Its table has the depth of each latent.

    Raises:
        ConfigError: the tree has a cycle or several roots, a label is not in it, or the groups do not end at d_sae.
        DataError: no meme has a known label, or there is not one label (source, id) a meme.
    """
    if top < 2 or n_halves < 0:
        raise ConfigError(f"hierarchy: top is {top} and n_halves {n_halves}; they must be 2 or more and 0 or more")
    edges = _edges(groups, latents.d_sae)
    memes = _labelled(latents, leaves, tree, sources, ids, families)
    units, sets = top_sets(memes.latents, np.arange(memes.latents.n_samples), top)
    depth = mean_common_depth(sets, memes.paths)
    overall, within = _random_depths(memes, sets)
    names, group = np.array(_names(edges), dtype=object), np.searchsorted(edges, units, side="right")
    spread = _spread(memes, units, group, len(edges), top, n_halves, seed)
    n, label_depth = len(memes.paths), (memes.paths >= 0).sum(axis=1).mean()
    rows = f"top sets of {top} of {n} labelled memes"
    section = Section(
        "Hierarchy of Matryoshka groups: depth of the lowest common ancestor of top memes",
        f"{rows}, whose labels have a mean depth of {label_depth:.2f}; random: pairs of memes drawn at random; "
        "within source: as many random memes of each source",
    )
    measures = [N(n), N_UNLABELLED(latents.n_samples - n), LABEL_DEPTH(label_depth)]
    for g, name in enumerate(names):
        mine = group == g
        measures += _of_group(name, depth[mine], overall, within[mine], spread[:, g], rows, n_halves, section)
    columns = {"depth": nullable(depth), "depth_random_within_source": nullable(within)}
    table = pd.DataFrame({"latent": units, "group": names[group], **columns})
    return Result("hierarchy", section, tuple(measures), table, COLUMNS)


def _of_group(
    group: str, depth: np.ndarray, overall: float, within: np.ndarray, spread: np.ndarray, rows: str, n_halves: int,
    section: Section,
) -> list[Measure]:  # fmt: skip
    why = "" if len(depth) else "no latent of this group fires on as many memes with a known label as a top set has"
    no_halves = "no latent of this group fires on two memes of a half" if n_halves else "n_halves is 0"
    low, high = depth.mean() + spread if len(depth) else spread
    interval = Interval(
        *(low, high),
        f"delete-half jackknife over memes within source, families whole, {n_halves} halves, the latents held fixed",
        why or no_halves,
    )

    def of(quantity: Quantity, values: np.ndarray, interval: Interval | None = None) -> Measure:
        value = values.mean() if len(depth) else None
        return quantity(value, group, rows=rows, interval=interval, reason=why)

    random, near = of(RANDOM, np.full(len(depth), overall)), of(WITHIN, within)
    mean = of(DEPTH, depth, interval)
    if mean.value is not None:
        label = f"latents {group} ({len(depth)} with a top set)"
        mean = mean.row(label, random.control("random"), near.control("within source"), section=section)
    return [N_LATENTS(len(depth), group, rows=rows), mean, random, near, of(PUBLISHED, np.rint(depth))]


def matryoshka_widths(sae: Any) -> list[int]:
    """The widths at which the groups of a Matryoshka SAE end.

    Args:
        sae: a SAELens training SAE, an SAE whose metadata has `matryoshka_widths`, or the folder of a trained one: SAELens
            saves Matryoshka SAEs as JumpReLU SAEs, and only `runner_cfg.json` beside the weights still has the widths.

    Raises:
        ConfigError: there are none.
    """
    if isinstance(sae, (str, Path)):
        widths = recorded_widths(sae)
    else:
        widths = getattr(sae.cfg, "matryoshka_widths", None) or sae.cfg.metadata.matryoshka_widths
    if not widths:
        raise ConfigError(
            f"{sae if isinstance(sae, (str, Path)) else 'this SAE'} names no matryoshka_widths; give the folder that "
            "training wrote (runner_cfg.json is in it), or the option widths=[256, 1024, ...], which is groups= of hierarchy()"
        )
    return [int(width) for width in widths]


def _edges(groups: Any, d_sae: int) -> Int[np.ndarray, " groups"]:
    listed = isinstance(groups, (Sequence, np.ndarray)) and not isinstance(groups, str)
    edges = np.asarray(groups if listed else matryoshka_widths(groups), dtype=np.int64)
    if not len(edges) or edges[0] < 1 or (np.diff(edges) < 1).any() or edges[-1] != d_sae:
        raise ConfigError(f"hierarchy: groups {edges.tolist()} must rise and end at d_sae, {d_sae}")
    return edges


def _names(edges: np.ndarray) -> list[str]:
    return [f"{start}-{stop - 1}" for start, stop in zip([0, *edges[:-1]], edges, strict=True)]


def _labelled(
    latents: Latents, leaves: Any, tree: Mapping[Any, Any], sources: Any, ids: Any, families: Any
) -> _Labelled:
    if isinstance(leaves, Label):
        leaves = [value if known else None for value, known in zip(leaves.values.tolist(), leaves.known, strict=True)]
    n = latents.n_samples
    given = {"labels": leaves, "sources": sources, "ids": ids, "families": families}
    for name, column in given.items():
        if column is not None and len(column) != n:
            raise DataError(f"hierarchy: {len(column)} {name} for {n} memes; give one each")
    order = np.arange(n) if ids is None else np.argsort(np.asarray(ids), kind="stable")
    known = np.array([i for i in order if leaves[i] is not None], dtype=np.int64)
    if not len(known):
        raise DataError("hierarchy: no meme has a known label")
    paths = tree_paths(tree, [leaves[i] for i in known])
    strata = np.zeros(n, np.int64) if sources is None else np.unique(np.asarray(sources), return_inverse=True)[1]
    families = np.arange(n) if families is None else np.asarray(families)
    return _Labelled(latents.rows(known), paths, strata[known], families[known])


def _random_depths(memes: _Labelled, sets: Int[np.ndarray, "units top"]) -> tuple[float, Float64[np.ndarray, " units"]]:
    """Expected depth for random memes in place of the top ones: any, and as many of each source.

    The LCA of a pair is as deep as there are nodes below the root with both memes in their subtree.
    """
    n, strata = len(memes.paths), memes.strata
    n_strata = int(strata.max()) + 1
    inside = np.zeros((n_strata, int(memes.paths.max(initial=-1)) + 2))
    for level in memes.paths.T:
        np.add.at(inside, (strata[level >= 0], level[level >= 0]), 1)
    size, itself = np.bincount(strata), inside.sum(axis=1)
    n_pairs = np.outer(size, size) - np.diag(size)
    total = inside @ inside.T - np.diag(itself)
    mean = np.divide(total, n_pairs, out=np.zeros_like(total), where=n_pairs > 0)
    drawn = (
        np.apply_along_axis(np.bincount, 1, strata[sets], minlength=n_strata) if len(sets) else np.empty((0, n_strata))
    )
    top = sets.shape[1]
    within = ((drawn @ mean * drawn).sum(axis=1) - drawn @ np.diag(mean)) / max(top * (top - 1), 1)
    return float(total.sum() / max(n * (n - 1), 1)), within


def _spread(
    memes: _Labelled, units: np.ndarray, group: np.ndarray, n_groups: int, top: int, n_halves: int, seed: int
) -> Float64[np.ndarray, "2 groups"]:
    """What to add to each group's depth for its interval: the spread over random halves of the memes.

    A meme drawn twice by a bootstrap would be its own neighbour; halves need no rescaling (Shao and Wu 1989).
    """
    if not n_halves or not len(units):
        return np.full((2, n_groups), np.nan)
    ranked = Ranked.of(memes.latents.csr())
    sets, found = np.empty((len(units), top), np.int64), np.full((n_halves, n_groups), np.nan)
    for half, weights in zip(found, subset_weights(memes.strata, n_halves, seed, groups=memes.families), strict=True):
        first_kept(ranked.starts, ranked.rows, weights.astype(bool), units, sets)
        depth = mean_common_depth(sets, memes.paths)
        ok = np.isfinite(depth)
        counts = np.bincount(group[ok], minlength=n_groups)
        np.divide(np.bincount(group[ok], depth[ok], minlength=n_groups), counts, out=half, where=counts > 0)
    middle = percentile_interval(found, confidence=0.0)[0]  # the median, NaN halves left out
    return percentile_interval(found) - middle


def tree_of_names(names: Iterable[str], separator: str, root: Hashable) -> dict[Node, Node]:
    """The tree of labels that are paths, such as `Animalia_Chordata_Aves`: child -> parent, each label a leaf.

    A number before the first separator, as iNaturalist's folders have it (`00001_Animalia_...`), is not a level.

    Raises:
        ConfigError: a label is not text, or is a part of another's path.
    """
    tree: dict[Node, Node] = {}
    leaves: dict[Node, str] = {}
    for name in names:
        if not isinstance(name, str):
            raise ConfigError(f"hierarchy: label {name!r} is not text; give tree= for labels that are not paths")
        parts = [part for part in name.split(separator) if part]
        parts = parts[1:] if len(parts) > 1 and parts[0].isdigit() else parts
        path = [separator.join(parts[: depth + 1]) for depth in range(len(parts))]
        above = [root, *path[:-1]]
        tree |= dict(zip(path[:-1], above, strict=False)) | {name: above[-1]}
        leaves[name] = path[-1] if path else name
    if inner := next((name for name, path in leaves.items() if path in tree and path not in leaves), None):
        raise ConfigError(f"hierarchy: label {inner!r} is also a part of another label's path; give tree=")
    return tree


def tree_paths(parents: Mapping[Any, Any], leaves: Sequence[Node]) -> Int[np.ndarray, "leaves depth"]:
    """Numbers of the nodes from below the root down to each leaf, -1 after its end.

    Args:
        parents: the parent of every node but the root, whose parent may be given as None.

    Raises:
        ConfigError: there is no tree, it has a cycle or more than one root, or a leaf is not in it.
    """
    parents = {child: parent for child, parent in parents.items() if parent is not None}
    if not parents:
        raise ConfigError("tree: there is no child with a parent; give a mapping child -> parent")
    try:
        nodes = list(TopologicalSorter({child: [parent] for child, parent in parents.items()}).static_order())
    except CycleError as error:
        cycle = " -> ".join(repr(node) for node in reversed(error.args[1]))
        raise ConfigError(f"tree: {cycle} is a cycle; remove one of these parents") from None
    if len(roots := [node for node in nodes if node not in parents]) > 1:
        names = ", ".join(repr(root) for root in roots[:5]) + (", ..." if len(roots) > 5 else "")
        raise ConfigError(f"tree: {len(roots)} roots ({names}); give them one parent")
    paths: dict[Node, list[int]] = {}
    for number, node in enumerate(nodes):  # parents come first
        paths[node] = [*paths[parents[node]], number] if node in parents else []
    for leaf in dict.fromkeys(leaves):
        if leaf not in paths:
            near = get_close_matches(str(leaf), [str(node) for node in nodes], n=1)
            known = (
                f"did you mean {near[0]!r}?"
                if near
                else f"it has {', '.join(str(node) for node in [*parents][:8])}, ..."
            )
            raise ConfigError(f"tree: label {leaf!r} is not in it; {known}")
    out = np.full((len(leaves), max((len(paths[leaf]) for leaf in leaves), default=0)), -1, np.int64)
    for row, leaf in zip(out, leaves, strict=True):
        row[: len(paths[leaf])] = paths[leaf]
    return out
