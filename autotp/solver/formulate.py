"""Problem -> Program: the rows and columns of the integer program (the mathematics is in `ilp`)."""

from dataclasses import dataclass, field

import numpy as np

from autotp.solver.consumers import merged
from autotp.solver.distances import Distances
from autotp.solver.exposed_rows import add_exposed
from autotp.solver.memory_rows import add_bytes
from autotp.solver.problem import Consumer, Floats, Flow, Ints, Problem
from autotp.solver.program import Bools, Builder, Program

MAX_SPLIT_CONSUMERS = 3  # up to here a flow is written as a tree that splits; 2^consumers - 1 layers
COST = 1e3  # what a plan costs in the program's units, roughly: far above the tolerances of the solvers
PERTURBATION = 1e-8  # of the cost, in total: decides between equals, and nothing else


@dataclass(frozen=True, slots=True, eq=False)
class Formulation:
    """A program and what its numbers mean: `x[v]` are the columns of node v's strategies.

    The objective counts in `unit` (seconds, or bytes where the slack of soft limits is minimised); the perturbation adds
    between 0 and `perturbation` units to it.
    """

    program: Program
    x: tuple[Ints, ...]
    unit: float
    perturbation: float
    relief: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))  # columns, see `add_bytes`
    unit_bytes: float = 1.0  # of the rows of memory


def distances(problem: Problem) -> list[Distances]:
    """Of every flow; flows with equal graphs share one."""
    least_share = 1.0 if problem.overlap is None else 1 - problem.overlap.efficiency
    found: dict[tuple[int, bytes, bytes, bytes, bytes], Distances] = {}
    result = []
    for flow in problem.flows:
        costs = (flow.weighed_s().tobytes(), flow.weighed_s(least_share).tobytes())
        key = (flow.num_states, flow.arc_source.tobytes(), flow.arc_target.tobytes(), *costs)
        if key not in found:
            found[key] = Distances(flow, least_share)
        result.append(found[key])
    return result


def formulate(
    problem: Problem,
    ways: list[Distances],
    *,
    soft_bytes: Floats | None = None,
    integral_arcs: bool = False,
    with_relief: bool = False,
) -> Formulation:
    """The program of a problem whose choices are all possible (see `reduce`), within `problem.limit_bytes`.

    With `soft_bytes[D]` the objective is not seconds but the bytes by which the fullest device exceeds these.
    """
    builder = Builder()
    unit_s = _typical_seconds(problem)
    weight = 1 / unit_s if soft_bytes is None else 0.0
    perturbation = PERTURBATION * COST if soft_bytes is None else 0.0
    x = []
    for node in problem.nodes:
        preference = np.argsort(np.argsort(node.rank, kind="stable"), kind="stable") / max(1, len(node.rank) - 1)
        cost = node.count * node.cost_s * weight + preference * (perturbation / len(problem.nodes))
        x.append(builder.variables(cost, integer=True))  # no upper bound: Σ x = 1 is one
        builder.entries(builder.rows(1, lower=1, upper=1), x[-1], 1)
    if weight:
        _add_regions(builder, problem, x, weight)
    beside = []
    for index, (flow, way) in enumerate(zip(problem.flows, ways, strict=True)):
        if weight or not way.connects(flow):
            rows = FlowRows(builder, flow, way, x, flow.count * weight, integral_arcs)
            rows.add()
            beside += [(index, arcs, columns) for arcs, columns in rows.paid]
    if weight and problem.overlap is not None:
        add_exposed(builder, problem, problem.overlap, x, beside, weight)
    if soft_bytes is None:
        unit_bytes, relief = 1.0, np.zeros(0, dtype=np.int64)
        if np.isfinite(problem.limit_bytes).any():
            unit_bytes, relief = add_bytes(builder, problem, x, with_relief=with_relief)
        return Formulation(builder.build(), tuple(x), unit_s, perturbation, relief, unit_bytes)
    unit_bytes, _ = add_bytes(builder, problem, x, soft_bytes)
    return Formulation(builder.build(), tuple(x), unit_bytes, 0.0)


def _add_regions(builder: Builder, problem: Problem, x: list[Ints], weight: float) -> None:
    """A variable for every region's seconds (in units of cost), and a row per kind of device that it stays above."""
    for region in problem.regions:
        rows = builder.rows(len(problem.limit_bytes), lower=0)
        builder.entries(rows, builder.variables(region.count), 1)
        for v, seconds in zip(region.nodes, region.seconds, strict=True):
            builder.entries(rows[:, None], x[v][None, :], -weight * seconds.T)


def _typical_seconds(problem: Problem) -> float:
    seconds = sum(node.count * float(node.cost_s.min()) for node in problem.nodes)
    seconds += sum(region.count * float(s.max(axis=1).min()) for region in problem.regions for s in region.seconds)
    if not seconds:
        costs = [flow.arc_cost_s[np.isfinite(flow.arc_cost_s)] * flow.count for flow in problem.flows]
        costs += [node.cost_s * node.count for node in problem.nodes]
        seconds = max((float(cost.max()) for cost in costs if cost.size), default=0.0)
    return (seconds or 1.0) / COST


class FlowRows:
    """Variables and rows of one flow."""

    def __init__(
        self, builder: Builder, flow: Flow, ways: Distances, x: list[Ints], weight: float, integral_arcs: bool
    ) -> None:
        self.builder, self.flow, self.ways, self.x = builder, flow, ways, x
        self.cost = np.where(np.isfinite(flow.arc_cost_s), flow.arc_cost_s, 0.0) * weight
        self.costs = (self.cost > 0) if flow.arc_beside_s is None else (self.cost > 0) | (flow.arc_beside_s > 0)
        self.paid: list[tuple[Ints, Ints]] = []  # arcs, and the columns that say how much of them is paid for
        self.integral_arcs = integral_arcs
        self.consumers = merged(flow)
        self.wanted = [np.unique(c.wants) for c in self.consumers]
        self.made = np.unique(flow.makes)

    def add(self) -> None:
        if len(self.consumers) <= MAX_SPLIT_CONSUMERS:
            self._add_splitting()
        else:
            self._add_shared()

    def _supply(self, rows: Ints) -> None:
        self.builder.entries(rows[self.flow.makes], self.x[self.flow.producer], 1)

    def _demand(self, rows: Ints, consumer: Consumer) -> None:
        self.builder.entries(rows[consumer.wants], self.x[consumer.node], -1)

    def _add_splitting(self) -> None:
        """A layer of the graph of states per set of consumers; the unit walks in a layer, and splits into two."""
        sets = range((1 << len(self.consumers)) - 1, 0, -1)
        n = self.flow.num_states
        starts = {subset: np.zeros(n, dtype=bool) for subset in sets}
        starts[sets[0]][self.made] = True
        rows = {subset: self.builder.rows(n, lower=0, upper=0) for subset in sets}
        for subset in sets:
            if not starts[subset].any():
                continue
            wanted = [states for k, states in enumerate(self.wanted) if subset >> k & 1]
            if len(wanted) > 1:
                pairs = starts[subset][:, None] & self.ways.shared_ends(wanted)
                ends = starts[subset] | pairs.any(axis=0)
                for part in _parts(subset):
                    starts[part] |= ends
                    starts[subset ^ part] |= ends
                    self._split(rows, subset, part, np.flatnonzero(ends))
            else:
                pairs = np.zeros((n, n), dtype=bool)
                pairs[np.ix_(np.flatnonzero(starts[subset]), wanted[0])] = True
            arcs = self.ways.arcs_between(pairs)
            self.paid.append((arcs, self._walk(rows[subset], arcs, self.cost[arcs])))
        self._supply(rows[sets[0]])
        for k, consumer in enumerate(self.consumers):
            self._demand(rows[1 << k], consumer)

    def _split(self, rows: dict[int, Ints], subset: int, part: int, states: Ints) -> None:
        columns = self.builder.variables(np.zeros(len(states)))
        self.builder.entries(rows[subset][states], columns, -1)
        self.builder.entries(rows[part][states], columns, 1)
        self.builder.entries(rows[subset ^ part][states], columns, 1)

    def _walk(self, rows: Ints, arcs: Ints, cost: Floats) -> Ints:
        columns = self.builder.variables(cost)
        self.builder.entries(rows[self.flow.arc_source[arcs]], columns, -1)
        self.builder.entries(rows[self.flow.arc_target[arcs]], columns, 1)
        return columns

    def _add_shared(self) -> None:
        """A unit flow per consumer; an arc that costs is paid once, by a variable that all of them stay below."""
        reached = self.ways.reaches[self.made].any(axis=0)
        useful = [np.asarray(reached & self.ways.reaches[:, wanted].any(axis=1)) for wanted in self.wanted]
        inside: Bools = np.logical_or.reduce(useful)
        arcs = self.ways.arcs_between(inside[:, None] & inside)
        paid = arcs[self.costs[arcs]]
        y = np.full(len(self.cost), -1)
        y[paid] = self.builder.variables(self.cost[paid], upper=1, integer=self.integral_arcs)
        self.paid.append((paid, y[paid]))
        for consumer, states in zip(self.consumers, useful, strict=True):
            rows = self.builder.rows(self.flow.num_states, lower=0, upper=0)
            mine = arcs[states[self.flow.arc_source[arcs]] & states[self.flow.arc_target[arcs]]]
            columns = self._walk(rows, mine, np.zeros(len(mine)))
            costly = self.costs[mine]
            below = self.builder.rows(int(costly.sum()), upper=0)
            self.builder.entries(below, columns[costly], 1)
            self.builder.entries(below, y[mine[costly]], -1)
            self._supply(rows)
            self._demand(rows, consumer)


def _parts(subset: int) -> list[int]:
    """One side of every way to divide a set of two or three in two."""
    bits = [1 << k for k in range(subset.bit_length()) if subset >> k & 1]
    return bits if len(bits) > 2 else bits[:1]
