"""What a set of choices costs. The one judge of every solver and every baseline."""

import math
from collections.abc import Sequence

import numpy as np

from autotp.errors import AutoTPError
from autotp.solver.problem import Problem, Solution
from autotp.solver.steiner import Arborescences

LIMIT_TOLERANCE = 1e-9  # relative: 80 bytes of 80 GB, the accuracy of the solvers


def fits(memory_bytes: Sequence[float], problem: Problem) -> bool:
    """Whether bytes per kind of device are within the limits of the problem."""
    return all(
        held <= limit * (1 + LIMIT_TOLERANCE)
        for held, limit in zip(memory_bytes, problem.limit_bytes.tolist(), strict=True)
    )


class Evaluator:
    """Evaluates choices of one problem, remembering the trees of its flows."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        shares = [1.0] if problem.overlap is None else [1.0, 1 - problem.overlap.efficiency]
        exposed = [Arborescences(flow) for flow in problem.flows]
        # where all of what is sent beside something else is hidden, other trees may be cheaper
        self._trees = [exposed] + [
            [
                same if flow.arc_beside_s is None else Arborescences(flow, share)
                for flow, same in zip(problem.flows, exposed, strict=True)
            ]
            for share in shares[1:]
        ]

    def evaluate(self, choices: Sequence[int]) -> Solution:
        """The cheapest arcs for these choices, seconds, and bytes per kind of device (formulas in `problem`).

        The cost is infinite where a wanted state cannot be reached. Limits are not looked at: see `fits`.
        Raises AutoTPError where the choices are not one strategy per node.
        """
        problem = self.problem
        if len(choices) != len(problem.nodes):
            raise AutoTPError(f"{len(choices)} choices for a problem of {len(problem.nodes)} nodes")
        for node, s in zip(problem.nodes, choices, strict=True):
            if not 0 <= s < len(node.cost_s):
                raise AutoTPError(f"node {node.name!r} has {len(node.cost_s)} strategies and no strategy {s}")
        found = [self._with_trees(choices, trees) for trees in self._trees]
        cost_s, arcs = min(found, key=lambda each: each[0])
        return Solution(tuple(map(int, choices)), arcs, cost_s, memory_bytes(problem, choices), "heuristic")

    def _with_trees(
        self, choices: Sequence[int], all_trees: Sequence[Arborescences]
    ) -> tuple[float, tuple[tuple[int, ...], ...]]:
        problem = self.problem
        seconds = [node.count * float(node.cost_s[s]) for node, s in zip(problem.nodes, choices, strict=True)]
        for region in problem.regions:
            needed = sum(each[choices[v]] for v, each in zip(region.nodes, region.seconds, strict=True))
            seconds.append(region.count * float(np.max(needed)))
        arcs = []
        for flow, trees in zip(problem.flows, all_trees, strict=True):
            wanted = {int(consumer.wants[choices[consumer.node]]) for consumer in flow.consumers}
            tree = trees.cheapest(int(flow.makes[choices[flow.producer]]), wanted)
            arcs.append(tree or ())
            seconds += [math.inf] if tree is None else [flow.count * float(flow.arc_cost_s[a]) for a in tree]
        return math.fsum([*seconds, problem.exposed_s(choices, arcs)]), tuple(arcs)


def memory_bytes(problem: Problem, choices: Sequence[int]) -> tuple[float, ...]:
    """Bytes per kind of device: held, saved for backward once per saving class, and the largest working set."""
    held = problem.fixed_bytes.astype(np.float64)
    work = np.zeros_like(held)
    for node, s in zip(problem.nodes, choices, strict=True):
        held = held + node.count * node.memory_bytes[s]
        work = np.maximum(work, node.work_bytes[s])
    for flow in problem.flows:
        wanted = (int(consumer.wants[choices[consumer.node]]) for consumer in flow.consumers if consumer.saves)
        for saved in sorted({int(flow.saved_class[state]) for state in wanted}):
            held = held + flow.count * flow.saved_bytes[saved]
    return tuple((held + work).tolist())


def evaluate(problem: Problem, choices: Sequence[int]) -> Solution:
    """`Evaluator(problem).evaluate(choices)`, for those who ask once."""
    return Evaluator(problem).evaluate(choices)
