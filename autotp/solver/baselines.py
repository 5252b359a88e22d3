"""Plans to compare with, priced by the same program: one that is fixed, and the best of a smaller set."""

import dataclasses
from collections.abc import Sequence

from autotp.solver.evaluate import Evaluator, evaluate
from autotp.solver.ilp import solve
from autotp.solver.problem import Problem, Solution
from autotp.solver.restrict import original, restrict


def fixed(problem: Problem, choices: Sequence[int]) -> Solution:
    """A plan with every choice made. Its cost is infinite where a state it wants is out of reach."""
    return evaluate(problem, choices)


def solve_restricted(
    problem: Problem,
    allowed: Sequence[Sequence[int]],
    *,
    objective: str = "time",
    backend: str = "highs",
    time_limit_s: float | None = None,
    node_limit: int | None = None,
    gap: float = 0.0,
) -> Solution:
    """The best plan that uses only the `allowed[v]` strategies of every node v, in the indices of `problem`.

    Status, bound and gap are those among the allowed plans. Raises what `restrict` and `solve` raise.
    """
    smaller, mapping = restrict(problem, allowed)
    found = solve(
        smaller, objective=objective, backend=backend, time_limit_s=time_limit_s, node_limit=node_limit, gap=gap
    )
    priced = Evaluator(problem).evaluate(original(found.choices, mapping))
    return dataclasses.replace(
        found, choices=priced.choices, arcs=priced.arcs, cost_s=priced.cost_s, memory_bytes=priced.memory_bytes
    )
