"""No sizes of shards make a step faster than this: a bound for the choice of shares (design, section 6).

The integer program of even shares, made optimistic. Whatever the regions between synchronisations, the slowest rank of each
takes at least the mean over ranks with any weights w that add up to 1, and a mean of sums is a sum of means:

    Σ_r max_p Σ_{v in r} t_p(v)  ≥  Σ_v Σ_p w_p t_p(v).

With weights by speed an operator that is cut costs what all speeds together make of it; one that is not, its mean. Where a
single operator takes all the time, it costs what the best sizes for it give, in whole granules. A redistribution costs what
it does with even shards, whose largest is the smallest there can be, or what its bytes cost at least in exact sizes, where
that is less; and memory is only limited in all (what is cut adds up to the same bytes, however it is divided).

What sizes can give an operator follows from its prices whole and evenly cut. On the rank at coordinate c, t(e) seconds for
its even e granules and t(u) for all u: an operator's arithmetic and traffic are at least proportional to its share up to
there, since what is not cut stays, so m granules take

    at least t(e) m / e for m ≤ e,   and   at least max(t(e), t(u) m / u) for more.

The least T for which the ranks together can take u granules, each at most as many as it can in T, bounds the slowest rank.
"""

import dataclasses
import math

import numpy as np

from autotp.cost.moves import MovePrices
from autotp.cost.problem import PlanningProblem
from autotp.cost.states import StateGraph
from autotp.graph import Value
from autotp.mesh import Mesh
from autotp.rules.dims import DimAnalysis
from autotp.rules.strategy import Strategy
from autotp.solver.problem import Floats, Flow, NodeChoices, Problem

MAX_WHOLE = 4096  # granules up to which they are kept whole
HALVINGS = 60


def optimistic(
    planning: PlanningProblem,
    analysis: DimAnalysis,
    mesh: Mesh,
    axes: tuple[int, ...],
    limit_bytes: list[float],
    prices: MovePrices,
    speeds: Floats,
) -> Problem:
    """The optimistic problem; `planning` is that of even shares, with a site per rank, `axes` those along which devices
    differ, `prices` those of redistributions; `speeds`: of the sites, relative to each other."""
    sizes = _Sizes(planning, analysis, mesh, axes, speeds / speeds.sum())
    nodes = tuple(
        dataclasses.replace(_pooled_node(node), cost_s=np.array([sizes.least_s(v, s) for s in range(len(node.cost_s))]))
        for v, node in enumerate(planning.problem.nodes)
    )
    flows = tuple(
        dataclasses.replace(_pooled_flow(flow), arc_cost_s=_least_arcs_s(flow, states, planning, prices))
        for flow, states in zip(planning.problem.flows, planning.state_graphs, strict=True)
    )
    fixed = np.array([planning.problem.fixed_bytes.sum()])
    return Problem(nodes, flows, np.array([sum(limit_bytes)]), fixed, ("all devices",))


def _pooled_node(node: NodeChoices) -> NodeChoices:
    return dataclasses.replace(
        node,
        memory_bytes=node.memory_bytes.sum(axis=1, keepdims=True),
        beside_s=None,
        work_bytes=np.zeros((len(node.cost_s), 1)),
    )


def _pooled_flow(flow: Flow) -> Flow:
    return dataclasses.replace(flow, saved_bytes=flow.saved_bytes.sum(axis=1, keepdims=True), arc_beside_s=None)


def _least_arcs_s(flow: Flow, states: StateGraph, planning: PlanningProblem, prices: MovePrices) -> Floats:
    """Per arc the seconds that it takes at least: unequal shards may be sent otherwise than equal ones.

    Of what is sent beside something else the least share counts.
    """
    overlap = planning.problem.overlap
    node, _, index = flow.name.removeprefix("%").partition("#")
    spec = planning.graph.spec(Value(node, int(index or 0)))
    is_parameter = planning.graph[node].kind == "parameter"
    found = np.array(flow.weighed_s(1 - overlap.efficiency if overlap else 1.0))
    for arc, (step, price) in enumerate(zip(states.steps, states.prices, strict=True)):
        if step is not None and price.total_s:
            forward_s = prices.least_s(price.forward, price.forward_s, step, spec)
            backward_s = prices.least_s(price.backward, price.backward_s, step, spec)
            least_s = forward_s + backward_s + (forward_s if price.again_s else 0.0)
            # a parameter's ways there and back may be gone a different number of times
            ways = ((forward_s, price.forward_s), (backward_s, price.backward_s))
            apart = min(least / full for least, full in ways if full)
            found[arc] *= apart if is_parameter else least_s / price.total_s
    return found


class _Sizes:
    def __init__(
        self, planning: PlanningProblem, analysis: DimAnalysis, mesh: Mesh, axes: tuple[int, ...], weights: Floats
    ) -> None:
        self._planning, self._analysis, self._mesh, self._axes = planning, analysis, mesh, axes
        self._weights = weights
        self._is_alone = sum(bool(seconds.any()) for seconds in planning.site_seconds) == 1

    def least_s(self, v: int, s: int) -> float:
        """Seconds that a node adds to a step at least, under a strategy, whatever the sizes."""
        return self._slowest_s(v, s) if self._is_alone else self._weighted_s(v, s)

    def _weighted_s(self, v: int, s: int) -> float:
        """The weighted mean over ranks, with the sizes for which it is least."""
        planning, strategy = self._planning, self._planning.strategies[v][s]
        weighted = planning.site_seconds[v] * self._weights
        cut = [axis for axis in self._axes if strategy.choices[axis].kind == "cut"]
        if not cut:
            return float(weighted[s].sum())
        others = math.prod(
            size for a, size in enumerate(self._mesh.sizes) if a not in cut and strategy.choices[a].kind == "cut"
        )
        if len(cut) > 1:
            return float(weighted[0].min()) / others
        (axis,) = cut
        by_coordinate = [
            sum(
                t
                for t, site in zip(weighted[0], planning.sites, strict=True)
                if site.at and site.at[axis] == coordinate
            )
            for coordinate in range(self._mesh.sizes[axis])
        ]
        return float(min(by_coordinate)) / others

    def _slowest_s(self, v: int, s: int) -> float:
        """Seconds of the slowest rank under a strategy of a node, with the sizes that are best for it."""
        planning, strategy = self._planning, self._planning.strategies[v][s]
        seconds = planning.site_seconds[v]
        cut = [axis for axis in self._axes if strategy.choices[axis].kind == "cut"]
        if not cut:
            return float(seconds[s].max())
        if len(cut) > 1:
            return _together(seconds[0])
        (axis,) = cut
        units, even = self._granules(v, strategy, s, axis)
        groups = [
            [i for i, site in enumerate(planning.sites) if site.at is not None and site.at[axis] == coordinate]
            for coordinate in range(self._mesh.sizes[axis])
        ]
        t_even = np.array([float(seconds[s][group].max()) for group in groups])
        # whole on this axis, cut as before on the others: at least the whole operator's even share there
        others = math.prod(
            size for a, size in enumerate(self._mesh.sizes) if a != axis and strategy.choices[a].kind == "cut"
        )
        t_whole = np.array([float(seconds[0][group].max()) / others for group in groups])
        return _least_s(t_even, t_whole, np.array(even, dtype=float), units)

    def _granules(self, v: int, strategy: Strategy, s: int, axis: int) -> tuple[int, list[float]]:
        """How many granules the ranks of an axis divide, and the even share of each; 0 for too many or several numbers."""
        planning = self._planning
        node, key = planning.graph[planning.node_names[v]], planning.keys[v][s][axis]
        values = [*node.inputs, *(Value(node.name, index) for index in range(len(node.outputs)))]
        found = {
            length // granule
            for value in values
            for dim, extent in enumerate(planning.graph.spec(value).shape)
            if extent > 1
            for candidate in self._analysis.candidates(value, dim)
            if candidate.key == key
            for length, granule in candidate.layout
        }
        blocks = next(iter((strategy.choices[axis].cut or {}).values()))
        held = [sum(block[rank] for block in blocks) for rank in range(self._mesh.sizes[axis])]
        if len(found) == 1 and max(found) <= MAX_WHOLE:
            (units,) = found
            return units, [units * size / sum(held) for size in held]
        return 0, [size / sum(held) for size in held]


def _together(whole_s: Floats) -> float:
    """The seconds of all speeds together, of what takes so long on each rank alone."""
    return float(1 / np.sum(1 / whole_s)) if whole_s.min() > 0 else 0.0


def _least_s(t_even: Floats, t_whole: Floats, even: Floats, units: int) -> float:
    """The least T in which all granules can be taken; `units` is 0 where these are as fine as sand."""
    total = float(units or 1)
    low, high = 0.0, float(max(t_even.max(), t_whole.max()))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            few = np.where(t_even > 0, even * np.minimum(1.0, middle / t_even), total)
            more = np.where(t_whole > 0, total * middle / t_whole, total)
        taken = np.where(middle >= t_even, np.maximum(few, more), few)
        taken = np.minimum(taken, total)
        if units:
            taken = np.floor(taken + 1e-9)
        low, high = (low, middle) if taken.sum() >= total - 1e-9 else (middle, high)
    return low
