"""The search for a plan that is provably best: relaxation, rounding, pricing out, branch and bound.

Every plan that uses strategy s of node v costs at least the relaxation's bound plus the reduced cost of x[v,s]. So branch
and bound looks only at strategies whose reduced cost is at most some δ, which are few; what it finds is best of all if it
costs no more than bound + δ, and if it costs more, δ grows to the difference.
"""

import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from autotp.errors import InfeasibleError, SolverError
from autotp.solver.backends import Outcome, run
from autotp.solver.distances import Distances
from autotp.solver.evaluate import Evaluator, fits
from autotp.solver.formulate import Formulation, formulate
from autotp.solver.problem import Floats, Problem, Solution
from autotp.solver.program import Bools
from autotp.solver.restrict import Mapping, original, restrict

PROVEN = 1e-7  # relative: how far from the bound a plan is called optimal
FIRST_DELTA = 0.01  # of the bound
GROWTH = 8  # of δ, where it was too small
MAX_ATTEMPTS = 8


@dataclass(frozen=True, slots=True)
class Limits:
    """The solver, and when it stops: seconds of `time.monotonic()`, nodes of branch and bound, a small enough gap."""

    backend: str
    deadline_s: float = math.inf
    node_limit: int | None = None
    gap: float = 0.0

    def run(self, formulation: Formulation, *, relaxed: bool) -> Outcome:
        rest = None if math.isinf(self.deadline_s) else max(0.01, self.deadline_s - time.monotonic())
        return run(
            formulation.program, relaxed=relaxed, backend=self.backend, time_limit_s=rest, node_limit=self.node_limit
        )


def search(problem: Problem, ways: list[Distances], limits: Limits, known: Sequence[int] | None = None) -> Solution:
    """The plan of least seconds within the limits of bytes, with status, bound and gap.

    `known`: choices of a plan within the limits. Raises InfeasibleError where no plan is within them, with what would be,
    and SolverError where the search was stopped before it found one.
    """
    searching = _Search(problem, ways, limits, None)
    if known is not None:
        searching.best = searching.evaluator.evaluate(known)
    found = searching.run()
    return found if found is not None else _refuse(problem, ways, limits)


def fewest_bytes(problem: Problem, ways: list[Distances], limits: Limits) -> tuple[Solution, list[list[int]]]:
    """The plan whose fullest device holds least, and the strategies per node that a plan of so few bytes can use.

    `bound_s` and `gap` mean bytes. Raises what `search` raises.
    """
    exact = dataclasses.replace(limits, gap=0.0)
    searching = _Search(problem, ways, exact, np.zeros_like(problem.limit_bytes))
    found = searching.run()
    if found is None:
        _refuse(problem, ways, limits)
    return found, [np.flatnonzero(some).tolist() for some in searching.within(max(found.memory_bytes))]


def _refuse(problem: Problem, ways: list[Distances], limits: Limits) -> NoReturn:
    free = dataclasses.replace(problem, limit_bytes=np.full_like(problem.limit_bytes, np.inf))
    least = None
    if np.isfinite(problem.limit_bytes).any():
        least = _Search(free, ways, limits, problem.limit_bytes).run()
    if least is None:
        raise InfeasibleError("no combination of strategies connects every value with its consumers")
    raise InfeasibleError(_what_would_fit(problem, least))


class _Search:
    def __init__(self, problem: Problem, ways: list[Distances], limits: Limits, soft_bytes: Floats | None) -> None:
        self.problem, self.ways, self.limits, self.soft_bytes = problem, ways, limits, soft_bytes
        self.evaluator = Evaluator(problem)
        self.best: Solution | None = None
        self.bound = 0.0
        self.stopped = False
        self.slack = 0.0
        self.prices: list[Floats] | None = None  # per node and strategy: what the objective grows by, at least
        self.lowest = 0.0  # the relaxation's bound, to which the prices add

    def run(self) -> Solution | None:
        """The best plan; None where there is provably none."""
        if self._is_enough():
            return self.best and self._judged(self.best, 0)
        whole = formulate(self.problem, self.ways, soft_bytes=self.soft_bytes)
        self.slack = 2 * whole.perturbation * whole.unit
        relaxation = self.limits.run(whole, relaxed=True)
        if relaxation.status == "infeasible":
            return self.best and self._judged(self.best, 0)  # a plan that is known is no worse for a tolerance
        self._offer(whole, relaxation.values, None)
        if relaxation.status == "stopped":
            self.stopped = True
        else:
            self.lowest = self.bound = max(0.0, (relaxation.bound - whole.perturbation) * whole.unit)
            if relaxation.reduced_costs is not None:
                self.prices = [relaxation.reduced_costs[columns] * whole.unit for columns in whole.x]
            self._branch()
        if self.best is None and (self.stopped or math.isfinite(self.bound)):
            raise SolverError("the solver was stopped by its limit before it found any plan; allow more time or nodes")
        return self.best and self._judged(self.best, whole.program.num_variables)

    def within(self, value: float) -> list[Bools]:
        """Per node the strategies that a plan can use whose objective is at most `value`."""
        if self.prices is None:
            return [np.ones(len(node.cost_s), dtype=bool) for node in self.problem.nodes]
        delta = value * (1 + PROVEN) - self.lowest
        return [price <= max(delta, float(price.min())) for price in self.prices]

    def _branch(self) -> None:
        lowest, delta, is_whole = self.bound, FIRST_DELTA * self.bound, False
        num_allowed, bound = 0, 0.0
        while not (self._is_enough() or self.stopped or is_whole):
            allowed = self.within(lowest + delta)
            is_whole = all(some.all() for some in allowed)
            if sum(some.sum() for some in allowed) > num_allowed:  # else these were searched already
                num_allowed = sum(some.sum() for some in allowed)
                smaller, mapping = restrict(self.problem, [np.flatnonzero(some).tolist() for some in allowed])
                bound = self._best_of(smaller, mapping)
            self.bound = max(self.bound, bound if is_whole else min(bound, lowest + delta))
            wider = GROWTH * delta if self.best is None else self._value(self.best) - lowest
            if self.best is not None and wider <= delta and not self._is_enough():
                return  # the judge's trees are not those of the program: nothing is left to search, and a gap stays
            delta = wider

    def _best_of(self, problem: Problem, mapping: Mapping) -> float:
        """Branch and bound over some of the strategies; what it finds is offered. Returns a bound of these plans."""
        limited, integral_arcs, bound = problem, False, 0.0
        for _ in range(MAX_ATTEMPTS):
            formulation = formulate(limited, self.ways, soft_bytes=self.soft_bytes, integral_arcs=integral_arcs)
            outcome = self.limits.run(formulation, relaxed=False)
            if limited is problem:
                bound = max(bound, (outcome.bound - formulation.perturbation) * formulation.unit)
            self.stopped |= outcome.status == "stopped"
            found = self._offer(formulation, outcome.values, mapping)
            if found is None or self.stopped:
                break
            if not fits(found.memory_bytes, self.problem):
                # the solver's tolerance let a plan through that is a few bytes too large
                excess = np.maximum(0.0, np.array(found.memory_bytes) - self.problem.limit_bytes)
                limited = dataclasses.replace(limited, limit_bytes=limited.limit_bytes - 2 * excess)
            elif integral_arcs or self._is_close(self._value(found), bound):
                break
            else:
                integral_arcs = True  # a value with many consumers was relaxed too far
        return bound

    def _offer(self, formulation: Formulation, values: Floats | None, mapping: Mapping | None) -> Solution | None:
        """The plan that the values round to; it is kept if it is possible and the best so far."""
        if values is None:
            return None
        choices: Sequence[int] = [int(np.argmax(values[columns])) for columns in formulation.x]
        found = self.evaluator.evaluate(choices if mapping is None else original(choices, mapping))
        is_possible = math.isfinite(found.cost_s) and fits(found.memory_bytes, self.problem)
        if is_possible and (self.best is None or self._value(found) < self._value(self.best)):
            self.best = found
        return found

    def _value(self, solution: Solution) -> float:
        if self.soft_bytes is None:
            return solution.cost_s
        return max(0.0, float(np.max(np.array(solution.memory_bytes) - self.soft_bytes)))

    def _is_close(self, value: float, bound: float) -> bool:
        return value - bound <= PROVEN * value + self.slack

    def _is_enough(self) -> bool:
        return self.best is not None and (
            self._is_proven() or self._value(self.best) * (1 - self.limits.gap) <= self.bound
        )

    def _is_proven(self) -> bool:
        return self.best is not None and self._is_close(self._value(self.best), self.bound)

    def _judged(self, best: Solution, num_variables: int) -> Solution:
        value = self._value(best)
        if self._is_proven():
            return dataclasses.replace(best, status="optimal", bound_s=value, gap=0.0, num_variables=num_variables)
        gap = (value - self.bound) / value
        what = "bytes" if self.soft_bytes is not None else "seconds"
        note = f"not proven best: a plan may exist that takes {gap:.2%} fewer {what}"
        return dataclasses.replace(
            best, status="feasible", bound_s=self.bound, gap=gap, num_variables=num_variables, notes=(note,)
        )


def _what_would_fit(problem: Problem, least: Solution) -> str:
    lines = [
        f"at least {_gib(held - limit)} more than the limit of {_gib(limit)} are needed on {name}; {_gib(held)} would do"
        for name, held, limit in zip(problem.device_names, least.memory_bytes, problem.limit_bytes, strict=True)
        if held > limit
    ]
    proof = "" if least.status == "optimal" else " (the least that was found before the search was stopped)"
    return f"no plan fits the memory limit: {', and '.join(lines)}{proof}"


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:.3f} GiB" if num_bytes >= 2**20 else f"{num_bytes:.0f} bytes"
