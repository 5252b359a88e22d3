"""Sizes for strategies that are chosen already: which divisions to offer the integer program, and which it used."""

from collections import Counter
from collections.abc import Iterable, Sequence

from autotp.cost.problem import PlanningProblem
from autotp.graph import Graph, Node, Value
from autotp.planning.shares import MAX_COARSE, SHIFTS, Kinds, Vector, distinct, divisions, shifted
from autotp.rules.dims import DimAnalysis
from autotp.rules.enumerate import Enumerator, Families, Shares, family_of
from autotp.solver.problem import Solution

NUM_NEAR = 16  # divisions offered around the present one, per number of granules
MAX_USED = 3  # divisions of an axis that a plan may use at once


def families_of(planning: PlanningProblem, solution: Solution) -> Families:
    """What every node divides in a solution, whatever the sizes."""
    return {
        name: family_of(strategies[index], keys[index])
        for name, strategies, keys, index in zip(
            planning.node_names, planning.strategies, planning.keys, solution.choices, strict=True
        )
    }


def units_of(
    graph: Graph, analysis: DimAnalysis, axis: int, families: Families | None, names: Iterable[str]
) -> list[int]:
    """Numbers of granules of the dims that these nodes divide on an axis, or of all that they may divide, ascending."""
    found: set[int] = set()
    for name in names:
        wanted = families[name][axis][1] if families is not None else None
        for value, dim in _dims(graph, graph[name]):
            for candidate in analysis.candidates(value, dim):
                if wanted is None or candidate.key == wanted:
                    found.update(length // granule for length, granule in candidate.layout)
    return sorted(found)


def _dims(graph: Graph, node: Node) -> list[tuple[Value, int]]:
    values = [*node.inputs, *(Value(node.name, index) for index in range(len(node.outputs)))]
    return [(value, dim) for value in values for dim, extent in enumerate(graph.spec(value).shape) if extent > 1]


def offered(units: Sequence[int], kinds: Kinds, present: Sequence[Vector]) -> tuple[Vector, ...]:
    """Divisions worth a look near the present ones: whole granules where these are few, else shifts of a few percent."""
    found = list(present)
    for vector in present:
        for number in units:
            if number <= MAX_COARSE:
                found += divisions(number, kinds, vector, NUM_NEAR)
        for shift in SHIFTS:
            found += shifted(vector, kinds, shift)
    return distinct(found)


def used(planning: PlanningProblem, solution: Solution, enumerator: Enumerator) -> Shares:
    """The divisions of every axis that a solution has its sizes from, the ones used most first, `MAX_USED` at most."""
    counts = [Counter[int]() for _ in planning.shares]
    for name, strategies, index in zip(planning.node_names, planning.strategies, solution.choices, strict=True):
        strategy = strategies[index]
        for axis, division in enumerate(enumerator.divisions(planning.graph[name], strategy)):
            if strategy.choices[axis].kind == "cut":
                counts[axis][division] += 1
    return tuple(
        tuple(shares[division] for division, _ in count.most_common(MAX_USED)) or shares[:1]
        for shares, count in zip(planning.shares, counts, strict=True)
    )
