"""One block of a model as a small graph of boxes: what a reader looks at instead of a thousand operators.

A box is a run of operators of one module that pass their values on without a redistribution; operators that say how a
module is split (products, attention, ...) begin a box of their own.
"""

import re
from collections import Counter
from dataclasses import dataclass, field

import networkx as nx

from autotp.graph import Value
from autotp.plans import Move, Plan
from autotp.redistribute import COLLECTIVES
from autotp.report.layer_rows import MAIN
from autotp.report.words import short_op

MAX_NODES = 400  # of a picture; a block with more operators is no picture any more


@dataclass(slots=True)
class Box:
    """`nodes`: operators in order; the first or most expensive one names it."""

    nodes: list[str]


@dataclass(frozen=True, slots=True)
class Block:
    """`layer`: the module path shown, one of `count` alike ("" for the whole model).

    `graph`: box indices with edges; an edge has `values`, what goes over it. `entries`: boxes that read the value which
    the block is called with, by that value.
    """

    layer: str
    count: int
    boxes: list[Box]
    graph: nx.DiGraph
    entries: dict[Value, list[int]] = field(default_factory=dict)


def find_block(plan: Plan) -> Block | None:
    """The middle one of the most repeated layers, or a small model as it is; None where neither exists."""
    layer, count = _layer(plan)
    names = [
        name
        for name, node in plan.nodes.items()
        if node.kind == "op" and _counts(plan, name) and (node.module + ".").startswith(layer + "." if layer else "")
    ]
    if not names or len(names) > MAX_NODES:
        return None
    return _grouped(plan, layer, count, names)


def _layer(plan: Plan) -> tuple[str, int]:
    """(module path, how many are alike)."""
    operators: Counter[str] = Counter()
    for node in plan.nodes.values():
        found = re.match(r"(.*?(?:^|\.)\d+)(?:\.|$)", node.module) if node.kind == "op" else None
        if found:
            operators[found[1]] += 1
    stacks: dict[str, list[str]] = {}
    for path in operators:
        stacks.setdefault(path.rpartition(".")[0], []).append(path)
    if not stacks:
        return "", 1
    layers = max(stacks.values(), key=lambda paths: sum(operators[path] for path in paths))
    usual = Counter(operators[path] for path in layers).most_common(1)[0][0]
    alike = [path for path in layers if operators[path] == usual]
    return alike[len(alike) // 2], len(alike)


def _counts(plan: Plan, name: str) -> bool:
    """Masks and positions say nothing about how a block is split."""
    node = plan.nodes[name]
    return any(spec.has_gradient for spec in node.outputs) or plan.mode == "infer" or short_op(node.op) in MAIN


def collectives(plan: Plan, value: Value) -> list[Move]:
    """The moves of a value that send anything."""
    return [move for move in plan.moves.get(value, ()) if move.forward in COLLECTIVES or move.backward in COLLECTIVES]


def _grouped(plan: Plan, layer: str, count: int, names: list[str]) -> Block:
    box_of: dict[str, int] = {}
    members: dict[int, list[str]] = {}
    edges: dict[tuple[str, str], list[Value]] = {}
    entries: dict[Value, list[str]] = {}
    graph = nx.DiGraph()
    for index, name in enumerate(names):
        before = []
        for value in plan.nodes[name].inputs:
            if value.node in box_of:
                edges.setdefault((value.node, name), []).append(value)
                before.append(value)
            elif plan.nodes[value.node].kind in ("op", "input"):
                entries.setdefault(value, []).append(name)
        box_of[name], members[index] = index, [name]
        graph.add_node(index)
        graph.add_edges_from((box_of[value.node], index) for value in before)
        if short_op(plan.nodes[name].op) not in MAIN:
            for value in before:
                _join(plan, graph, box_of, members, value, name)
    order = list(nx.lexicographical_topological_sort(graph, key=lambda i: names.index(members[i][0])))
    position = {old: new for new, old in enumerate(order)}
    result = nx.DiGraph()
    result.add_nodes_from(range(len(order)))
    for (source, target), values in edges.items():
        a, b = position[box_of[source]], position[box_of[target]]
        if a != b:
            known = result.edges[a, b]["values"] if result.has_edge(a, b) else []
            result.add_edge(a, b, values=list(dict.fromkeys([*known, *values])))
    read = {value: sorted({position[box_of[name]] for name in readers}) for value, readers in entries.items()}
    main = {value: boxes for value, boxes in read.items() if _is_stream(plan, value, layer)}
    return Block(layer, count, [Box(sorted(members[old], key=names.index)) for old in order], result, main)


def _join(
    plan: Plan, graph: nx.DiGraph, box_of: dict[str, int], members: dict[int, list[str]], value: Value, name: str
) -> None:
    """Let a node share the box of what it reads, where both are of one module and no path leads around."""
    first, second = sorted((box_of[value.node], box_of[name]))
    head = plan.nodes[members[first][0]]
    is_view = plan.nodes[name].forward_s == 0
    same = plan.nodes[name].module == head.module and not (short_op(head.op) in MAIN and not is_view)
    if first == second or collectives(plan, value) or not (same or is_view):
        return
    around = graph.copy()
    around.remove_edges_from([edge for edge in ((first, second), (second, first)) if graph.has_edge(*edge)])
    if nx.has_path(around, first, second) or nx.has_path(around, second, first):
        return
    nx.contracted_nodes(graph, first, second, self_loops=False, copy=False)
    members[first] += members.pop(second)
    for member in members[first]:
        box_of[member] = first


def _is_stream(plan: Plan, value: Value, layer: str) -> bool:
    """Whether a value from outside is what the block works on: it has a gradient, and is no table of positions."""
    node = plan.nodes[value.node]
    return not layer or any(spec.has_gradient for spec in node.outputs)
