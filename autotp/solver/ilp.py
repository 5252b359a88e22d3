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
relaxation's bound it is optimal, which without a binding limit is the rule. Else branch and bound (`search`). Optimal
plans are many: small additional costs of the strategies' ranks decide, 1e-8 of the whole at most. One thread and a fixed
seed: equal input, equal output. `optimal` means proven to 1e-7 of the cost.
"""

import dataclasses
import math
import time

import numpy as np

from autotp.errors import AutoTPError
from autotp.solver.backends import BACKENDS
from autotp.solver.formulate import distances
from autotp.solver.problem import Problem, Solution
from autotp.solver.reduce import useful_strategies
from autotp.solver.restrict import original, restrict
from autotp.solver.search import Limits, fewest_bytes, search

OBJECTIVES = ("time", "memory")


def solve(
    problem: Problem,
    *,
    objective: str = "time",
    backend: str = "highs",
    time_limit_s: float | None = None,
    node_limit: int | None = None,
    gap: float = 0.0,
) -> Solution:
    """The best plan within the limits: least seconds, or (`memory`) least bytes on the fullest device, then seconds.

    `backend` is `highs` or `cbc`. With a limit on time or on branch-and-bound nodes, or a `gap` in seconds (relative) that
    is small enough to stop at, the status may be `feasible`. Raises
    InfeasibleError where no plan fits, with what would, SolverError where a limit came before any plan, AutoTPError for
    an unknown objective or backend.
    """
    if objective not in OBJECTIVES or backend not in BACKENDS:
        raise AutoTPError(f"objective {objective!r} and solver {backend!r}: choose of {OBJECTIVES} and of {BACKENDS}")
    ways = distances(problem)
    with_memory = objective == "memory" or bool(np.isfinite(problem.limit_bytes).any())
    smaller, mapping = restrict(problem, useful_strategies(problem, ways, with_memory=with_memory))
    deadline_s = math.inf if time_limit_s is None else time.monotonic() + time_limit_s
    limits = Limits(backend, deadline_s, node_limit, gap)
    if objective == "time":
        found = search(smaller, ways, limits)
    else:
        least, allowed = fewest_bytes(smaller, ways, limits)
        # to the byte: a limit that is looser by a billionth was seen to keep HiGHS busy for ever, its time limit unheard
        limit = np.minimum(smaller.limit_bytes, max(least.memory_bytes))
        tight, kept = restrict(dataclasses.replace(smaller, limit_bytes=limit), allowed)
        known = [np.searchsorted(some, s) for some, s in zip(kept, least.choices, strict=True)]
        found = search(tight, ways, limits, [int(s) for s in known])
        found = dataclasses.replace(found, choices=original(found.choices, kept))
        if least.status != "optimal":
            found = dataclasses.replace(found, status="feasible", notes=(*found.notes, *least.notes))
    return dataclasses.replace(found, choices=original(found.choices, mapping))
