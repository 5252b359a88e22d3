"""Repeated layers: which nodes must choose alike, so that the depth of a model costs the planner nothing.

A layer is all nodes below a module path with an index (`model.layers.3`). Layers of equal structure (operators,
arguments, shapes) are one decision. This only restricts the choice: what a plan costs is added up over all nodes.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable

from autotp.graph import Graph, Node

MIN_LAYERS = 3  # two layers are the two ends of a model; folding them would say that the ends are alike

Layer = tuple[str, int, int]  # (path before the index, index, depth)


def fold(graph: Graph, *, ends: int = 0) -> dict[str, str]:
    """For every node the name of the node that stands for it (itself where nothing does).

    `ends` layers at either end of a run of equal layers keep decisions of their own, since what comes before the first
    layer and after the last one may make another choice better there.
    """
    classes = {node.name: node.name for node in graph}
    open_nodes = [node for node in graph if node.kind in ("op", "parameter", "buffer")]
    for depth in range(4):  # indices nest: encoder.0.blocks.3
        layers: dict[Layer, list[Node]] = defaultdict(list)
        for node in open_nodes:
            layer = _layer(node, depth)
            if layer:
                layers[layer].append(node)
        kinds: dict[tuple[str, str], list[Layer]] = defaultdict(list)
        for layer, nodes in layers.items():
            kinds[layer[0], _digest(nodes, layer)].append(layer)
        folded: set[str] = set()
        for alike in kinds.values():
            inner = alike[ends : len(alike) - ends] if ends else alike
            if len(alike) < MIN_LAYERS or len(inner) < 2:
                continue
            for layer in inner:
                for node, first in zip(layers[layer], layers[inner[0]], strict=True):
                    classes[node.name] = first.name
            folded.update(node.name for layer in alike for node in layers[layer])
        open_nodes = [node for node in open_nodes if node.name not in folded]
    return classes


def _path(node: Node) -> str:
    return node.module if node.kind == "op" else node.target.rpartition(".")[0]


def _layer(node: Node, depth: int) -> Layer | None:
    """The layer that the `depth`-th index of the node's module path names."""
    found = list(re.finditer(r"(?<=\.)\d+(?=\.|$)", "." + _path(node)))
    if len(found) <= depth:
        return None
    match = found[depth]
    return ("." + _path(node))[: match.start()], int(match[0]), depth


def _digest(nodes: Iterable[Node], layer: Layer) -> str:
    prefix = f"{layer[0]}{layer[1]}"
    lines = []
    for node in nodes:
        path = ("." + _path(node)).removeprefix(prefix)
        specs = " ".join(map(str, node.outputs))
        leaf = node.target.rpartition(".")[2]
        arguments = repr(sorted(node.arguments.items())) if node.arguments else ""
        lines.append(f"{node.kind} {node.op} {path} {leaf} {arguments} {specs}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
