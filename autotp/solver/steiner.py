"""The cheapest way to bring one value from the state it is made in to every state it is wanted in.

That is a minimum directed Steiner arborescence. There are few distinct wanted states, so the dynamic program over their
subsets is exact and quick (Dreyfus and Wagner, "The Steiner problem in graphs", Networks 1, 1971; with Dijkstra inside,
as Erickson, Monma and Veinott, Math. Oper. Res. 12, 1987):

    tree[T, i] = min( min over arcs a = i→j of  k[a] + tree[T, j],   min over ∅ ≠ S ⊂ T of  tree[S, i] + tree[T∖S, i] )
    tree[{t}, t] = 0
"""

import heapq
import math
from collections.abc import Collection, Sequence

import numpy as np

from autotp.solver.problem import Floats, Flow

TIE = 1e-9  # of the smallest positive cost, added to every arc: of equally cheap ways the one with fewer arcs is taken


def tie_broken(cost_s: Floats) -> Floats:
    """Arc costs made positive: a way of fewer arcs is cheaper than an equally cheap one of more."""
    positive = cost_s[(cost_s > 0) & np.isfinite(cost_s)]
    return cost_s + TIE * (float(positive.min()) if positive.size else 1.0)


class Arborescences:
    """Cheapest trees of one flow, remembered by made state and wanted states; `share` as in `Flow.weighed_s`."""

    def __init__(self, flow: Flow, share: float = 1.0) -> None:
        self._source = flow.arc_source.tolist()
        self._cost = tie_broken(flow.weighed_s(share)).tolist()
        self._num_states = flow.num_states
        self._into: list[list[int]] = [[] for _ in range(flow.num_states)]
        self._target = flow.arc_target.tolist()
        for arc, (source, target) in enumerate(zip(self._source, self._target, strict=True)):
            if math.isfinite(self._cost[arc]) and source != target:
                self._into[target].append(arc)
        self._found: dict[tuple[int, frozenset[int]], tuple[int, ...] | None] = {}

    def cheapest(self, made: int, wanted: Collection[int]) -> tuple[int, ...] | None:
        """Arcs of the cheapest tree from `made` to every state of `wanted`, ascending; None where one is out of reach."""
        terminals = frozenset(wanted) - {made}
        key = (made, terminals)
        if key not in self._found:
            self._found[key] = self._search(made, sorted(terminals)) if terminals else ()
        return self._found[key]

    def _search(self, made: int, terminals: Sequence[int]) -> tuple[int, ...] | None:
        full = (1 << len(terminals)) - 1
        costs: list[list[float]] = [[]]
        steps: list[list[tuple[bool, int] | None]] = [[]]  # (is an arc, the arc) or (is a split, one subset)
        for subset in range(1, full + 1):
            cost, step = self._splits(subset, costs)
            if subset & (subset - 1) == 0:
                cost[terminals[subset.bit_length() - 1]] = 0.0
            self._spread(cost, step)
            if not math.isfinite(cost[made]):
                return None
            costs.append(cost)
            steps.append(step)
        return self._tree(made, terminals, self._collect(made, full, steps))

    def _splits(
        self, subset: int, costs: Sequence[Sequence[float]]
    ) -> tuple[list[float], list[tuple[bool, int] | None]]:
        cost: list[float] = [math.inf] * self._num_states
        step: list[tuple[bool, int] | None] = [None] * self._num_states
        part = (subset - 1) & subset
        while part > subset ^ part:  # every unordered pair of parts once
            for state, both in enumerate(map(float.__add__, costs[part], costs[subset ^ part])):
                if both < cost[state]:
                    cost[state], step[state] = both, (False, part)
            part = (part - 1) & subset
        return cost, step

    def _spread(self, cost: list[float], step: list[tuple[bool, int] | None]) -> None:
        queue = [(value, state) for state, value in enumerate(cost) if value < math.inf]
        heapq.heapify(queue)
        while queue:
            value, state = heapq.heappop(queue)
            if value > cost[state]:
                continue
            for arc in self._into[state]:
                source, longer = self._source[arc], value + self._cost[arc]
                if longer < cost[source]:
                    cost[source], step[source] = longer, (True, arc)
                    heapq.heappush(queue, (longer, source))

    def _collect(self, made: int, full: int, steps: Sequence[Sequence[tuple[bool, int] | None]]) -> set[int]:
        arcs, todo = set(), [(full, made)]
        while todo:
            subset, state = todo.pop()
            step = steps[subset][state]
            if step is None:
                continue
            is_arc, which = step
            if is_arc:
                arcs.add(which)
                todo.append((subset, self._target[which]))
            else:
                todo += [(which, state), (subset ^ which, state)]
        return arcs

    def _tree(self, made: int, terminals: Sequence[int], arcs: set[int]) -> tuple[int, ...]:
        """The arcs as a tree: equally cheap parts may have met in a state twice."""
        parent: dict[int, int] = {}
        reached, frontier = {made}, [made]
        while frontier:
            state = frontier.pop(0)
            for arc in sorted(arcs):
                if self._source[arc] == state and self._target[arc] not in reached:
                    reached.add(self._target[arc])
                    parent[self._target[arc]] = arc
                    frontier.append(self._target[arc])
        kept = set()
        for state in terminals:
            while state != made:
                kept.add(parent[state])
                state = self._source[parent[state]]
        return tuple(sorted(kept))
