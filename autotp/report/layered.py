"""Where the boxes of a small graph go: rows from top to bottom, edges through gaps (the method of Sugiyama et al., 1981)."""

import itertools
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import networkx as nx

SWEEPS = 6  # of ordering a row by its neighbours
GAP = 18.0  # between boxes of a row
THREAD = 14.0  # width that an edge takes in a row that it passes


@dataclass(frozen=True, slots=True)
class Layout:
    """Centres of nodes, in pixels; `rows`: nodes per row; `paths`: the points that an edge passes, ends included."""

    x: Mapping[Hashable, float]
    rows: list[list[Hashable]]
    paths: Mapping[tuple[Hashable, Hashable], list[tuple[float, int]]]
    width: float


def layered(graph: nx.DiGraph, widths: Mapping[Hashable, float]) -> Layout:
    """Lay out an acyclic graph whose nodes have these widths; equal input gives equal output.

    A point of a path is (x, row).
    """
    row_of = {node: row for row, nodes in enumerate(nx.topological_generations(graph)) for node in nodes}
    for node in reversed(list(nx.topological_sort(graph))):  # a source stands just above its first reader
        if not graph.pred[node] and graph.succ[node]:
            row_of[node] = min(row_of[reader] for reader in graph.succ[node]) - 1
    rows: list[list[Hashable]] = [[] for _ in range(max(row_of.values()) + 1)]
    for node in graph:
        rows[row_of[node]].append(node)
    threads: dict[tuple[Hashable, Hashable], list[Hashable]] = {}
    links: list[tuple[Hashable, Hashable]] = []
    for source, target in graph.edges:
        chain = [source, *(("thread", source, row) for row in range(row_of[source] + 1, row_of[target])), target]
        threads[source, target] = chain
        links += itertools.pairwise(chain)
        for row, node in enumerate(chain[1:-1], start=row_of[source] + 1):
            if node not in rows[row]:  # edges of one source share their way
                rows[row].append(node)
    _order(rows, links)
    x, width = _places(rows, widths)
    row_at = {node: row for row, nodes in enumerate(rows) for node in nodes}
    paths = {edge: [(x[node], row_at[node]) for node in chain] for edge, chain in threads.items()}
    return Layout(x, rows, paths, width)


def _order(rows: list[list[Hashable]], links: list[tuple[Hashable, Hashable]]) -> None:
    above: dict[Hashable, list[Hashable]] = {}
    below: dict[Hashable, list[Hashable]] = {}
    for source, target in links:
        above.setdefault(target, []).append(source)
        below.setdefault(source, []).append(target)
    for sweep in range(SWEEPS):
        neighbours = above if sweep % 2 == 0 else below
        for row in rows if sweep % 2 == 0 else reversed(rows):
            place = {n: (i + 0.5) / len(nodes) for nodes in rows for i, n in enumerate(nodes)}
            middle = {
                node: sum(place[n] for n in near) / len(near) if (near := neighbours.get(node)) else place[node]
                for node in row
            }
            row.sort(key=lambda node: middle[node])


def _places(rows: list[list[Hashable]], widths: Mapping[Hashable, float]) -> tuple[dict[Hashable, float], float]:
    def width(node: Hashable) -> float:
        return widths.get(node, THREAD)

    totals = [sum(map(width, row)) + GAP * (len(row) - 1) for row in rows]
    whole, x = max(totals), {}
    for row, total in zip(rows, totals, strict=True):
        left = (whole - total) / 2
        for node in row:
            x[node] = left + width(node) / 2
            left += width(node) + GAP
    return x, whole
