"""Every combination of choices, tried: the oracle of the tests. For problems of a few thousand combinations."""

import dataclasses
import itertools
import math

from autotp.errors import AutoTPError, InfeasibleError
from autotp.solver.evaluate import Evaluator, fits
from autotp.solver.problem import Problem, Solution

MAX_COMBINATIONS = 1_000_000


def brute_force(problem: Problem, *, objective: str = "time") -> Solution:
    """The best of all combinations within the limits: least seconds, or least bytes on the fullest device and then seconds.

    Raises InfeasibleError where none fits, AutoTPError where there are more than a million.
    """
    combinations = math.prod(len(node.cost_s) for node in problem.nodes)
    if combinations > MAX_COMBINATIONS:
        raise AutoTPError(f"{combinations} combinations are too many for brute force; use solve()")
    evaluator = Evaluator(problem)
    best: Solution | None = None
    for choices in itertools.product(*(range(len(node.cost_s)) for node in problem.nodes)):
        found = evaluator.evaluate(choices)
        is_possible = math.isfinite(found.cost_s) and fits(found.memory_bytes, problem)
        if is_possible and (best is None or _key(found, objective) < _key(best, objective)):
            best = found
    if best is None:
        raise InfeasibleError(f"none of {combinations} combinations of strategies is possible and within the limits")
    return dataclasses.replace(best, status="optimal", bound_s=best.cost_s, gap=0.0)


def _key(solution: Solution, objective: str) -> tuple[float, float]:
    return (max(solution.memory_bytes) if objective == "memory" else 0.0, solution.cost_s)
