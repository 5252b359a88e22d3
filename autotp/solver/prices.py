"""What memory is worth: the relaxation's duals of the memory rows."""

import numpy as np

from autotp.errors import InfeasibleError
from autotp.solver.backends import run
from autotp.solver.formulate import distances, formulate
from autotp.solver.problem import Problem
from autotp.solver.reduce import useful_strategies
from autotp.solver.restrict import restrict


def memory_prices(problem: Problem) -> tuple[float, list[float]]:
    """(seconds of the relaxation, per kind of device the seconds that one more byte would save).

    Prices hold for small changes: the relaxation's seconds are convex in the limits. Raises InfeasibleError where even the
    relaxation has no plan within the limits.
    """
    ways = distances(problem)
    smaller, _ = restrict(problem, useful_strategies(problem, ways, with_memory=True))
    formulation = formulate(smaller, ways, with_relief=True)
    outcome = run(formulation.program, relaxed=True)
    if outcome.status != "optimal" or outcome.reduced_costs is None:
        raise InfeasibleError("no plan keeps the memory limit, so memory has no price")
    seconds_per_byte = -outcome.reduced_costs[formulation.relief] * formulation.unit / formulation.unit_bytes
    found = np.zeros(len(problem.limit_bytes))
    found[: len(seconds_per_byte)] = seconds_per_byte
    return outcome.bound * formulation.unit, found.tolist()
