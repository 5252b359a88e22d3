"""Regions whose forward is run again in backward instead of being kept: activation checkpointing (arXiv 1604.06174).

`full`: every block of a list of blocks. `selective`: the core of attention, from the scores to their product with the
values (Korthikanti et al. 2022, section 5): it keeps much and costs little.
"""

import re
from collections.abc import Iterator

from autotp.errors import AutoTPError
from autotp.graph import Graph, Node

CHECKPOINTING = ("none", "selective", "full")

_PRODUCTS = frozenset({"matmul", "bmm", "baddbmm", "einsum"})
_NUMBERED = re.compile(r"^((?:.*?\.)??\d+)(?:\.|$)")


def regions(graph: Graph, checkpointing: str) -> tuple[tuple[str, ...], ...]:
    """Names of the operators of every region, in order: runs of neighbours of the graph. Raises AutoTPError."""
    if checkpointing not in CHECKPOINTING:
        raise AutoTPError(f"unknown checkpointing {checkpointing!r}: choose one of {', '.join(CHECKPOINTING)}")
    if checkpointing == "none":
        return ()
    found = _blocks(graph) if checkpointing == "full" else _attention(graph)
    return tuple(region for region in found if _keeps(graph, region))


def region_of(graph: Graph, checkpointing: str) -> dict[str, int]:
    """Operator -> its region, for those that have one."""
    return {name: index for index, region in enumerate(regions(graph, checkpointing)) for name in region}


def _keeps(graph: Graph, region: tuple[str, ...]) -> bool:
    """Whether there is anything to gain: a gradient flows, and nothing is written to in place."""
    nodes = [graph[name] for name in region]
    return any(spec.has_gradient for node in nodes for spec in node.outputs) and not any(node.writes for node in nodes)


def _runs(graph: Graph, key_of: dict[str, str]) -> Iterator[tuple[str, ...]]:
    """Neighbouring operators with the same key; one without a key ends a run."""
    key, run = "", list[str]()
    for node in graph:
        if node.kind not in ("op", "output"):
            continue
        here = key_of.get(node.name, "")
        if here != key and run:
            yield tuple(run)
            run = []
        key = here
        if key:
            run.append(node.name)


def _blocks(graph: Graph) -> Iterator[tuple[str, ...]]:
    """By the first number in a module's path, where the list that it counts has several."""
    matches = {node.name: _NUMBERED.match(node.module) for node in graph if node.kind == "op"}
    blocks = {name: match[1] for name, match in matches.items() if match}
    lists: dict[str, set[str]] = {}
    for block in blocks.values():
        lists.setdefault(block.rpartition(".")[0], set()).add(block)
    several = {name: block for name, block in blocks.items() if len(lists[block.rpartition(".")[0]]) > 1}
    yield from _runs(graph, several)


def _attention(graph: Graph) -> Iterator[tuple[str, ...]]:
    """Fused attention alone; else all from a product of activations through a softmax to the next such product."""
    operators = [node for node in graph if node.kind == "op"]
    start = 0
    has_softmax = False
    for index, node in enumerate(operators):
        if node.short_op == "scaled_dot_product_attention":
            yield (node.name,)
        elif node.short_op in ("softmax", "_softmax"):
            has_softmax = start > 0
        elif _is_product(graph, node):
            if has_softmax:
                yield tuple(other.name for other in operators[start - 1 : index + 1])
                start, has_softmax = 0, False
            else:
                start = index + 1


def _is_product(graph: Graph, node: Node) -> bool:
    """A product of two activations."""
    weights = any(graph[value.node].kind in ("parameter", "buffer") for value in node.inputs)
    return node.short_op in _PRODUCTS and not weights
