"""A plan without search: nodes in order, each by what it costs given the choices before it.

A node that reads nothing (a parameter, an input) is chosen together with the first node that reads it; before that
nothing tells how it should be split. Where the cheapest plan so made is too large for the devices, bytes get a price
that doubles until it fits.
"""

import math
from collections.abc import Sequence

import numpy as np

from autotp.errors import InfeasibleError
from autotp.solver.distances import Distances
from autotp.solver.evaluate import Evaluator, fits
from autotp.solver.formulate import distances
from autotp.solver.problem import Floats, Flow, Ints, Problem, Solution
from autotp.solver.reduce import useful_strategies
from autotp.solver.restrict import original, restrict

NUM_PRICES = 24  # of a limit's worth of bytes, from 2^-12 of the plan's seconds on; the last is far above all seconds


def greedy(problem: Problem) -> Solution:
    """A plan of status `heuristic` within the limits of bytes.

    Raises InfeasibleError where the order of choices ends in states that cannot be connected, or in too many bytes.
    """
    ways = distances(problem)
    smaller, mapping = restrict(problem, useful_strategies(problem, ways, with_memory=True))
    evaluator = Evaluator(problem)
    free = evaluator.evaluate(original(_Walk(smaller, ways, 0.0).choices(), mapping))
    if fits(free.memory_bytes, problem):
        return free
    found = free
    for doubling in range(NUM_PRICES):
        price_s = (free.cost_s or 1.0) * 2.0 ** (doubling - NUM_PRICES // 2)
        found = evaluator.evaluate(original(_Walk(smaller, ways, price_s).choices(), mapping))
        if fits(found.memory_bytes, problem):
            return found
    needs = ", ".join(
        f"{held:.4g} bytes on {name}, which has {limit:.4g}"
        for held, limit, name in zip(found.memory_bytes, problem.limit_bytes, problem.device_names, strict=True)
        if held > limit
    )
    raise InfeasibleError(f"the greedy plan of fewest bytes needs {needs}; the optimal strategy may find one that fits")


class _Walk:
    """One pass over the nodes. `price_s`: seconds that are as bad as the bytes of one limit."""

    def __init__(self, problem: Problem, ways: Sequence[Distances], price_s: float) -> None:
        self.problem, self.ways = problem, ways
        self.price = np.where(np.isfinite(problem.limit_bytes), price_s / np.maximum(problem.limit_bytes, 1.0), 0.0)
        self.chosen: dict[int, int] = {}
        self.reached: list[Ints] = [np.array([], dtype=np.int64) for _ in problem.flows]
        self.saved: list[set[int]] = [set() for _ in problem.flows]
        self.made: list[list[int]] = [[] for _ in problem.nodes]
        self.read: list[list[int]] = [[] for _ in problem.nodes]
        for u, flow in enumerate(problem.flows):
            self.made[flow.producer].append(u)
            for node in sorted({consumer.node for consumer in flow.consumers} - {flow.producer}):
                self.read[node].append(u)

    def choices(self) -> list[int]:
        nodes = range(len(self.problem.nodes))
        for v in nodes:
            if self.read[v]:
                self._choose(v)
        for v in nodes:
            if v not in self.chosen:
                self._choose(v)
        return [self.chosen[v] for v in nodes]

    def _choose(self, v: int) -> None:
        total = self._alone(v)
        sources = [u for u in self.read[v] if self._is_open_source(self.problem.flows[u].producer)]
        for u in self.read[v]:
            total = total + (self._with_source(u, v) if u in sources else self._bring(u, v))
        self._settle(v, total)
        for u in sources:
            if self.problem.flows[u].producer not in self.chosen:
                self._settle(self.problem.flows[u].producer, self._alone(self.problem.flows[u].producer))
        for u in self.read[v]:
            self._attach(u, v)

    def _is_open_source(self, v: int) -> bool:
        return v not in self.chosen and not self.read[v]

    def _alone(self, v: int) -> Floats:
        """What each strategy costs by itself and towards the readers already chosen."""
        node = self.problem.nodes[v]
        total = node.count * node.cost_s + (node.count * node.memory_bytes + node.work_bytes) @ self.price
        for u in self.made[v]:
            flow, seconds = self.problem.flows[u], self.ways[u].seconds
            for consumer in flow.consumers:
                if consumer.node == v:
                    total = total + flow.count * seconds[flow.makes, consumer.wants] + self._saves(u, consumer.wants, v)
                elif consumer.node in self.chosen:
                    total = total + flow.count * seconds[flow.makes, consumer.wants[self.chosen[consumer.node]]]
        return np.asarray(total)

    def _with_source(self, u: int, v: int) -> Floats:
        """What each strategy of v costs in value u where its producer then chooses what suits it best."""
        flow = self.problem.flows[u]
        total = np.zeros(len(self.problem.nodes[v].cost_s))
        for wants in _wants(flow, v):
            pairs = self._alone(flow.producer)[:, None] + flow.count * self.ways[u].seconds[np.ix_(flow.makes, wants)]
            total = total + pairs.min(axis=0) + self._saves(u, wants, v)
        return total

    def _bring(self, u: int, v: int) -> Floats:
        """What each strategy of v costs in value u, from where the value already is."""
        flow, here = self.problem.flows[u], self.reached[u]
        total = np.zeros(len(self.problem.nodes[v].cost_s))
        for wants in _wants(flow, v):
            way = self.ways[u].seconds[np.ix_(here, wants)].min(axis=0) if here.size else 0.0
            total = total + flow.count * way + self._saves(u, wants, v)
        return total

    def _saves(self, u: int, wants: Ints, v: int) -> Floats:
        """The price of what v newly saves of value u."""
        flow = self.problem.flows[u]
        classes = flow.saved_class[wants]
        if not any(c.saves for c in flow.consumers if c.node == v and c.wants is wants):
            return np.zeros(len(classes))
        is_new = ~np.isin(classes, sorted(self.saved[u]))
        return np.asarray(flow.count * (flow.saved_bytes[classes] @ self.price) * is_new)

    def _settle(self, v: int, total: Floats) -> None:
        node = self.problem.nodes[v]
        best = int(np.lexsort((node.rank, total))[0])
        if not math.isfinite(total[best]):
            raise InfeasibleError(
                f"the greedy order of choices leaves node {node.name!r} nothing that connects; use the optimal strategy"
            )
        self.chosen[v] = best
        for u in self.made[v]:
            flow = self.problem.flows[u]
            self.reached[u] = flow.makes[[best]]
            for node_index in sorted({consumer.node for consumer in flow.consumers}):
                if node_index in self.chosen:
                    self._attach(u, node_index)

    def _attach(self, u: int, v: int) -> None:
        """Value u goes where v wants it: what it passes on the way is there for the next reader."""
        flow, way = self.problem.flows[u], self.ways[u]
        for consumer in flow.consumers:
            if consumer.node != v or flow.producer not in self.chosen:
                continue
            target = int(consumer.wants[self.chosen[v]])
            here = int(self.reached[u][np.argmin(way.seconds[self.reached[u], target])])
            passed = self.reached[u].tolist()
            while here != target:
                here = int(flow.arc_target[way.first[here, target]])
                passed.append(here)
            self.reached[u] = np.unique(np.array(passed, dtype=np.int64))
            if consumer.saves:
                self.saved[u].add(int(flow.saved_class[target]))


def _wants(flow: Flow, v: int) -> list[Ints]:
    return [consumer.wants for consumer in flow.consumers if consumer.node == v]
