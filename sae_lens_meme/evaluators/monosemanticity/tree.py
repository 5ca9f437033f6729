"""A label tree given as child -> parent: checked once, then the path of every node from below the root down."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from difflib import get_close_matches

import numpy as np
from jaxtyping import Int

from sae_lens_meme.errors import ConfigError

Node = Hashable


class Tree:
    """A rooted tree of labels; the root's depth is 0.

    Args:
        parents: the parent of every node but the root. A parent of None marks the root too.

    Raises:
        ConfigError: it is empty, has a cycle, or more than one root; the message names the nodes.
    """

    def __init__(self, parents: Mapping[Node, Node | None]):
        self.parents = {child: parent for child, parent in parents.items() if parent is not None}
        self.nodes = list(dict.fromkeys([*parents, *self.parents.values()]))
        if not self.parents:
            raise ConfigError("tree: there is no child with a parent; give a mapping child -> parent")
        roots = [node for node in self.nodes if node not in self.parents]
        self._paths = {node: self._path(node) for node in self.nodes}
        if len(roots) > 1:
            names = ", ".join(repr(root) for root in roots[:5])
            raise ConfigError(
                f"tree: {len(roots)} roots ({names}{', ...' if len(roots) > 5 else ''}); give them one parent"
            )

    def path(self, node: Node) -> tuple[Node, ...]:
        """From the child of the root down to the node itself; empty for the root.

        Raises:
            ConfigError: the tree has no such node; the message names the nearest.
        """
        if node not in self._paths:
            near = get_close_matches(str(node), [str(known) for known in self.nodes], n=1)
            raise ConfigError(
                f"tree: label {node!r} is not in it; "
                + (f"did you mean {near[0]!r}?" if near else f"it has {', '.join(str(n) for n in self.nodes[:8])}, ...")
            )
        return self._paths[node]

    def paths(self, leaves: Sequence[Node]) -> Int[np.ndarray, "leaves depth"]:
        """Numbers of the nodes on each path, -1 after its end."""
        number = {node: i for i, node in enumerate(self.nodes)}
        found = {leaf: [number[node] for node in self.path(leaf)] for leaf in dict.fromkeys(leaves)}
        out = np.full((len(leaves), max(map(len, found.values()), default=0)), -1, np.int64)
        for row, leaf in zip(out, leaves, strict=True):
            row[: len(found[leaf])] = found[leaf]
        return out

    def _path(self, node: Node) -> tuple[Node, ...]:
        path, seen = [node], {node}
        while path[-1] in self.parents:
            parent = self.parents[path[-1]]
            if parent in seen:
                cycle = [*path[path.index(parent) :], parent]
                raise ConfigError(
                    f"tree: {' -> '.join(repr(n) for n in cycle)} is a cycle; remove one of these parents"
                )
            path.append(parent)
            seen.add(parent)
        return tuple(path[-2::-1])
