"""The integer program: one choice per node, one tree of redistributions per value, least seconds within limits of bytes.

Node v has strategies s; value u, made by node p, is read by consumers k; its states i have arcs a at k[a] seconds
(already times the occurrences). d(i, j) is the cheapest path.

    x[v,s] ∈ {0,1}     v uses s                                 Σ_s x[v,s] = 1
    z[u,K,a] ≥ 0       the value goes over arc a once, on its way to the set K of its consumers
    h[u,K,J,i] ≥ 0     at state i the way to K splits into the ways to J and to K∖J

    minimise  Σ c[v,s]·x[v,s] + Σ k[a]·z[u,K,a]

and for every value, set K and state i, what arrives leaves:

    Σ_{a→i} z[u,K,a] + Σ_{L⊃K} h[u,L,K,i] + [K = all] Σ_{s makes i} x[p,s]
        = Σ_{i→a} z[u,K,a] + Σ_J h[u,K,J,i] + [K = {k}] Σ_{s of k wants i} x[k,s]

For given x this is a shortest path in a directed hypergraph (the dynamic program of `steiner`), whose linear program is
exact: only x needs to be integral. Of the arcs only those on cheapest paths between states that can matter get a z, and
a split gets an h only where sharing the way to it can pay. There are 2^|K| - 1 layers, so a value with more than three
consumers is written otherwise: one unit flow z[u,k,a] per consumer, and one y[u,a] ≥ z[u,k,a] that pays for all of them.
That relaxation is not always exact for given x; where a solution turns out dearer than the bound, y is made integral.

Bytes, on every kind of device p with a limit (units in which the limit is 1):

    Σ m[v,s,p]·x[v,s] + Σ saved[u,c,p]·w[u,c] + T[p] ≤ limit[p] - fixed[p]
    w[u,c] ≥ Σ_{s: wants[s] in class c} x[k,s]   for each saving consumer k (no w where only one consumer can save c)
    T[p]   ≥ Σ_s work[v,s,p]·x[v,s]              for each node that could be the largest

The objective `memory` minimises e ≥ 0 with Σ bytes[p] ≤ e for all p, then seconds with that as the limit. Before all,
strategies that cannot be connected, or are beaten in everything by another of the same states, are left out.

The relaxation is solved first and rounded; the rounded plan is priced by `evaluate`, and if it costs no more than the
relaxation's bound it is optimal, which without a binding limit is the rule. Else branch and bound. Optimal plans are
many: small additional costs of the strategies' ranks decide, 1e-8 of the whole at most. One thread and a fixed seed:
equal input, equal output. `optimal` means proven to 1e-7 of the cost.
"""

import dataclasses
import math
import time

import numpy as np

from autotp.errors import AutoTPError, InfeasibleError, SolverError
from autotp.solver.backends import BACKENDS, run
from autotp.solver.distances import Distances
from autotp.solver.evaluate import Evaluator, fits
from autotp.solver.formulate import Formulation, distances, formulate
from autotp.solver.problem import Floats, Problem, Solution
from autotp.solver.reduce import useful_strategies
from autotp.solver.restrict import original, restrict

PROVEN = 1e-7  # relative: how far from the bound a plan is called optimal
OBJECTIVES = ("time", "memory")
MAX_TIGHTENINGS = 5


def solve(
    problem: Problem,
    *,
    objective: str = "time",
    backend: str = "highs",
    time_limit_s: float | None = None,
    node_limit: int | None = None,
) -> Solution:
    """The best plan within the limits: least seconds, or (`memory`) least bytes on the fullest device, then seconds.

    `backend` is `highs` or `cbc`. With a limit on time or on branch-and-bound nodes the status may be `feasible`. Raises
    InfeasibleError where no plan fits, with what would, SolverError where a limit came before any plan, AutoTPError for
    an unknown objective or backend.
    """
    if objective not in OBJECTIVES or backend not in BACKENDS:
        raise AutoTPError(f"objective {objective!r} and solver {backend!r}: choose of {OBJECTIVES} and of {BACKENDS}")
    ways = distances(problem)
    with_memory = objective == "memory" or bool(np.isfinite(problem.limit_bytes).any())
    smaller, mapping = restrict(problem, useful_strategies(problem, ways, with_memory=with_memory))
    search = _Search(smaller, ways, backend, time_limit_s, node_limit)
    if objective == "memory":
        least = search.least_bytes(np.zeros_like(problem.limit_bytes), smaller)
        limit = np.minimum(smaller.limit_bytes, max(least.memory_bytes))
        found = search.least_seconds(dataclasses.replace(smaller, limit_bytes=limit))
        if least.status != "optimal":
            found = dataclasses.replace(found, status="feasible", notes=(*found.notes, *least.notes))
    else:
        found = search.least_seconds(smaller)
    return dataclasses.replace(found, choices=original(found.choices, mapping))


class _Search:
    """One call of `solve`: what all its programs share."""

    def __init__(
        self, problem: Problem, ways: list[Distances], backend: str, time_limit_s: float | None, node_limit: int | None
    ) -> None:
        self.evaluator = Evaluator(problem)
        self.ways, self.backend, self.node_limit = ways, backend, node_limit
        self.time_limit_s = time_limit_s
        self.deadline = math.inf if time_limit_s is None else time.monotonic() + time_limit_s

    def least_seconds(self, problem: Problem) -> Solution:
        found = self._solve(problem, None)
        if found is None:
            raise self._why_infeasible(problem)
        return found

    def least_bytes(self, soft_bytes: Floats, problem: Problem) -> Solution:
        """The plan whose fullest device exceeds `soft_bytes` least; `bound_s` and `gap` mean bytes here."""
        found = self._solve(problem, soft_bytes)
        if found is None:
            raise self._why_infeasible(problem)
        return found

    def _why_infeasible(self, problem: Problem) -> InfeasibleError:
        limited = np.isfinite(problem.limit_bytes)
        free = dataclasses.replace(problem, limit_bytes=np.full_like(problem.limit_bytes, np.inf))
        least = self._solve(free, problem.limit_bytes) if limited.any() else None
        if least is None:
            return InfeasibleError("no combination of strategies connects every value with its consumers")
        lines = []
        for name, held, limit in zip(problem.device_names, least.memory_bytes, problem.limit_bytes, strict=True):
            if held > limit:
                lines.append(
                    f"at least {_gib(held - limit)} more than the limit of {_gib(limit)} are needed on {name}: "
                    f"{_gib(held)} would do"
                )
        proof = "" if least.status == "optimal" else " (the least found before the search was stopped)"
        return InfeasibleError(f"no plan fits the memory limit; {', and '.join(lines)}{proof}")

    def _solve(self, problem: Problem, soft_bytes: Floats | None) -> Solution | None:
        """The best plan found, with status and bound; None where there is provably none."""
        best: Solution | None = None
        bound, limited, integral_arcs = 0.0, problem, False
        formulation = formulate(problem, self.ways, soft_bytes=soft_bytes)
        relaxed, tightenings = True, 0
        while True:
            outcome = run(
                formulation.program,
                relaxed=relaxed,
                backend=self.backend,
                time_limit_s=self._remaining_s(),
                node_limit=self.node_limit,
            )
            if outcome.status == "infeasible":
                break
            if tightenings == 0:
                bound = max(bound, (outcome.bound - formulation.perturbation) * formulation.unit)
            found = self._round(formulation, outcome.values)
            if found and fits(found.memory_bytes, problem) and math.isfinite(found.cost_s):
                if best is None or _value(found, soft_bytes) < _value(best, soft_bytes):
                    best = found
            slack = 2 * formulation.perturbation * formulation.unit
            if best and _value(best, soft_bytes) - bound <= PROVEN * _value(best, soft_bytes) + slack:
                break
            if outcome.status == "stopped":
                break
            if relaxed:
                relaxed = False
            elif found and not fits(found.memory_bytes, problem) and tightenings < MAX_TIGHTENINGS:
                # the solver's tolerance let a plan through that is a few bytes too large
                tightenings += 1
                limited = _tightened(limited, problem, found)
                formulation = formulate(limited, self.ways, soft_bytes=soft_bytes, integral_arcs=integral_arcs)
            elif not integral_arcs:
                integral_arcs = True
                formulation = formulate(limited, self.ways, soft_bytes=soft_bytes, integral_arcs=True)
            else:
                break
        if best is None and outcome.status == "stopped":
            raise SolverError(self._stopped())
        return best and _judged(best, bound, soft_bytes, formulation)

    def _remaining_s(self) -> float | None:
        return None if self.time_limit_s is None else max(0.01, self.deadline - time.monotonic())

    def _stopped(self) -> str:
        limits = [] if self.time_limit_s is None else [f"the time limit of {self.time_limit_s:g} s"]
        limits += [] if self.node_limit is None else [f"the limit of {self.node_limit} nodes"]
        return f"no plan was found within {' and '.join(limits) or 'the limits of the solver'}; allow more"

    def _round(self, formulation: Formulation, values: Floats | None) -> Solution | None:
        if values is None:
            return None
        return self.evaluator.evaluate([int(np.argmax(values[columns])) for columns in formulation.x])


def _value(solution: Solution, soft_bytes: Floats | None) -> float:
    if soft_bytes is None:
        return solution.cost_s
    return max(0.0, float(np.max(np.array(solution.memory_bytes) - soft_bytes)))


def _judged(best: Solution, bound: float, soft_bytes: Floats | None, formulation: Formulation) -> Solution:
    value = _value(best, soft_bytes)
    num_variables = formulation.program.num_variables
    slack = 2 * formulation.perturbation * formulation.unit
    if value - bound <= PROVEN * value + slack:
        return dataclasses.replace(best, status="optimal", bound_s=value, gap=0.0, num_variables=num_variables)
    gap = (value - bound) / value
    what = "seconds" if soft_bytes is None else "bytes"
    note = f"{what} not proven least: a plan may exist that takes {gap:.2%} less"
    return dataclasses.replace(
        best, status="feasible", bound_s=bound, gap=gap, num_variables=num_variables, notes=(note,)
    )


def _tightened(limited: Problem, problem: Problem, found: Solution) -> Problem:
    excess = np.maximum(0.0, np.array(found.memory_bytes) - problem.limit_bytes)
    return dataclasses.replace(limited, limit_bytes=limited.limit_bytes - 2 * excess)


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:.3f} GiB" if num_bytes >= 2**20 else f"{num_bytes:.0f} bytes"
