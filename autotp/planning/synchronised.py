"""Who waits for whom: the work between two collectives takes as long as the rank takes that needs most for all of it.

The program's seconds are a sum over operators of the slowest rank: as if ranks met after each of them. They meet in
collectives only. With these where a solution has them, a step takes

    Σ over regions  max over ranks  Σ over the region's operators  t(operator, rank)   +   communication,

which is never more than the program says (design, section 6).
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from autotp.cost.problem import PlanningProblem
from autotp.graph import Value
from autotp.placement import Placement
from autotp.planning.assemble import moves_of, strategies_of
from autotp.redistribute import COLLECTIVES
from autotp.solver.problem import Region, Solution

FORWARD, BACKWARD = 0, 1
# (a node of the problem, FORWARD or BACKWARD) -> how often in the region; and how many regions are so
Regions = dict[tuple[tuple[tuple[int, int], int], ...], int]


def regions_of(planning: PlanningProblem, solution: Solution, *, is_trained: bool) -> Regions:
    """The regions of a step under a solution: the forward in order, the backward in reverse, the optimizer behind it."""
    found: Counter[tuple[tuple[tuple[int, int], int], ...]] = Counter()
    region: Counter[tuple[int, int]] = Counter()
    for token in _tokens(planning, solution, is_trained):
        if token is not None:
            region[token] += 1
        elif region:
            found[tuple(sorted(region.items()))] += 1
            region = Counter()
    if region:
        found[tuple(sorted(region.items()))] += 1
    return dict(found)


def _tokens(planning: PlanningProblem, solution: Solution, is_trained: bool) -> Iterator[tuple[int, int] | None]:
    """Work in the order of a step, and None where ranks meet."""
    index_of = {name: v for v, name in enumerate(planning.node_names)}
    nodes = list(planning.graph)
    classes = [index_of[planning.classes[node.name]] for node in nodes]
    before, after = _meetings(planning, solution)
    talks = [_talks(planning, solution, v) for v in classes]
    for position, v in enumerate(classes):
        if position in before:
            yield None
        yield v, FORWARD
        if talks[position]:
            yield None
    if not is_trained:
        return
    for position in reversed(range(len(nodes))):
        if nodes[position].kind == "parameter":
            continue
        if talks[position]:
            yield None
        yield classes[position], BACKWARD
        if position in after:
            yield None
    for position, v in enumerate(classes):
        if nodes[position].kind == "parameter":
            yield v, BACKWARD


def _talks(planning: PlanningProblem, solution: Solution, v: int) -> bool:
    """Whether there is communication inside a node's local operator."""
    s = solution.choices[v]
    return bool((planning.site_seconds[v][s] > planning.phase_seconds[v][s].sum(axis=1) * (1 + 1e-9)).any())


def _meetings(planning: PlanningProblem, solution: Solution) -> tuple[set[int], set[int]]:
    """Positions of the nodes before which, going forward, and after which, going backward, a collective is."""
    strategies = strategies_of(planning, solution)
    ways = {v: {m.step.target: m for m in moves} for v, moves in moves_of(planning, solution).items()}
    made: dict[Value, set[Placement]] = {}
    before, after = set(), set()
    for position, node in enumerate(planning.graph):
        for value, wanted in zip(node.inputs, strategies[node.name].operands, strict=True):
            reached = made.setdefault(value, {strategies[value.node].results[value.index]})
            at = wanted
            while at not in reached:
                reached.add(at)
                move = ways[value][at]
                if move.forward in COLLECTIVES:
                    before.add(position)
                if move.backward in COLLECTIVES or (move.again_s and move.forward in COLLECTIVES):
                    after.add(position)
                at = move.step.source
    return before, after


def with_regions(planning: PlanningProblem, regions: Regions) -> PlanningProblem:
    """The same problem, its seconds counted region by region."""
    nodes = tuple(
        replace(node, cost_s=node.cost_s - phases.sum(axis=2).max(axis=1))
        for node, phases in zip(planning.problem.nodes, planning.phase_seconds, strict=True)
    )
    found = []
    for members, count in regions.items():
        seconds: dict[int, np.ndarray] = {}
        for (v, phase), times in members:
            part = times * planning.phase_seconds[v][:, :, phase]
            seconds[v] = seconds[v] + part if v in seconds else part
        if any(each.any() for each in seconds.values()):
            found.append(Region(tuple(seconds), tuple(seconds.values()), count))
    return replace(planning, problem=replace(planning.problem, nodes=nodes, regions=tuple(found)))


def step_s(planning: PlanningProblem, solution: Solution, regions: Regions) -> float:
    """Seconds of the step by regions; the solution's own are those of the plain problem."""
    chosen = [phases[s] for phases, s in zip(planning.phase_seconds, solution.choices, strict=True)]
    apart_s = sum(
        node.count * float(each.sum(axis=1).max()) for node, each in zip(planning.problem.nodes, chosen, strict=True)
    )
    together_s = sum(count * _slowest_s(chosen, members) for members, count in regions.items())
    return min(solution.cost_s, solution.cost_s - apart_s + together_s)


def _slowest_s(chosen: Sequence[np.ndarray], members: tuple[tuple[tuple[int, int], int], ...]) -> float:
    return float(np.max(sum(times * chosen[v][:, phase] for (v, phase), times in members)))


def judged(planning: PlanningProblem, solution: Solution, *, is_trained: bool) -> tuple[Regions, float]:
    """The regions of a solution, none where all devices are alike, and the seconds of its step."""
    if len(planning.sites) < 2:
        return {}, solution.cost_s
    regions = regions_of(planning, solution, is_trained=is_trained)
    # a problem that was posed by regions counts them already
    return regions, solution.cost_s if planning.problem.regions else step_s(planning, solution, regions)


def by_regions(predicted: dict[str, Any], step_s: float) -> dict[str, Any]:
    """Predictions, which are operator by operator, for the step that takes `step_s` by regions: computing takes less."""
    apart_s = predicted["compute_s"]
    compute_s = apart_s - (predicted["step_s"] - step_s)
    scale = compute_s / apart_s if apart_s else 1.0
    if scale >= 1.0:
        return predicted
    scaled = {
        name: {each: scale * seconds for each, seconds in predicted[name].items()}
        for name in ("compute_parts_s", "compute_by_op_s")
    }
    return {**predicted, **scaled, "step_s": step_s, "compute_s": compute_s}
