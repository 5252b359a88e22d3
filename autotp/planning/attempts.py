"""Plans of one graph on one mesh of a cluster for different shares of the ranks, and the bound for all shares."""

import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from autotp.cost.megatron import megatron_strategies
from autotp.cost.moves import MovePrices
from autotp.cost.problem import PlanningProblem, ProblemBuilder
from autotp.cost.summary import Summary
from autotp.errors import InfeasibleError, SolverError
from autotp.graph import Graph
from autotp.hardware.cluster import ClusterProfile
from autotp.mesh import Mesh
from autotp.planning.balance import Found
from autotp.planning.bound import optimistic
from autotp.planning.constraints import allowed_strategies
from autotp.planning.search import Options, Search
from autotp.planning.shares import Vector, distinct, divisions, kinds_of, num_divisions, uneven_axes
from autotp.planning.sizes import units_of
from autotp.planning.synchronised import Regions, judged, with_regions
from autotp.rules.dims import DimAnalysis
from autotp.rules.enumerate import Families, Shares, even_shares
from autotp.rules.rule import OpRule
from autotp.solver.evaluate import evaluate
from autotp.solver.ilp import solve
from autotp.solver.problem import Floats, Solution

MAX_TOGETHER = 12  # divisions per axis that one program may choose among for all dims and strategies at once
MAX_TOGETHER_NODES = 24
NUM_ROUGH = 6  # rough plans that share the time of one


class Attempts:
    """Builds and solves; remembers the problem of even shares."""

    def __init__(
        self,
        graph: Graph,
        rules: dict[str, OpRule],
        classes: Mapping[str, str],
        mesh: Mesh,
        cluster: ClusterProfile,
        options: Options,
    ) -> None:
        self._graph, self._rules, self._classes = graph, rules, classes
        self.mesh, self.cluster, self.options = mesh, cluster, options
        self._analysis = DimAnalysis(graph, rules, classes)
        self._even: PlanningProblem | None = None
        self.build_s = 0.0
        self.even_s: float | None = None  # of even shares, memory aside

    def within_limits(
        self,
        shares: Shares,
        below_s: float,
        families: Families | None = None,
        gap: float = 0.0,
        regions: Regions | None = None,
    ) -> Found | None:
        """None where no plan with these shares is faster than `below_s`, counted by `regions` where these are given.

        Raises InfeasibleError where none fits.
        """
        planning, builder, search = self._prepare(shares, families, gap, regions)
        try:
            solution = search.find(below_s)
        finally:
            is_even = shares == even_shares(self.mesh) and families is None
            if is_even:
                self.even_s, self._even = search.free_s, planning
        if solution is None:
            return None
        found = self._found(planning, builder, search, solution)
        if is_even and solution.cost_s == self.even_s:
            self.even_s = found.step_s
        return found

    def chosen(self, shares: Shares, sized: Found) -> Found | None:
        """The plan with the strategies and sizes of another one; None where these shares do not give all of its sizes, or
        it does not fit."""
        planning, builder, search = self._prepare(shares, None, 0.0)
        wanted = [some[s] for some, s in zip(sized.planning.strategies, sized.solution.choices, strict=True)]
        if any(one not in some for one, some in zip(wanted, planning.strategies, strict=True)):
            return None
        choices = [some.index(one) for one, some in zip(wanted, planning.strategies, strict=True)]
        solution = evaluate(planning.problem, choices)
        if not search.fits(solution):
            return None
        gap, count = sized.solution.gap, sized.solution.num_variables
        solution = replace(solution, bound_s=(1 - gap) * solution.cost_s, gap=gap, num_variables=count)
        return self._found(planning, builder, search, replace(solution, status=sized.solution.status))

    def anyway(self, error: InfeasibleError) -> Found:
        """With even shares and no limit but the user's; raises `error` again if there is one."""
        planning, builder, search = self._prepare(even_shares(self.mesh), None, 0.0)
        return self._found(planning, builder, search, search.find_anyway(error))

    def all_divisions(self) -> Shares | None:
        """Every division of every dim on the axes of unlike devices, where these are few."""
        names = list(dict.fromkeys(self._classes.values()))
        if len(names) > MAX_TOGETHER_NODES or self.options.strategy != "optimal":
            return None
        shares: list[tuple[Vector, ...]] = list(even_shares(self.mesh))
        for axis in uneven_axes(self.mesh, self.cluster):
            kinds = kinds_of(self.mesh, self.cluster, axis)
            units = units_of(self._graph, self._analysis, axis, None, names)
            if sum(num_divisions(number, kinds) for number in units) > 4 * MAX_TOGETHER:
                return None
            found = distinct(vector for number in units for vector in divisions(number, kinds))
            if len(found) > MAX_TOGETHER:
                return None
            shares[axis] = found
        return tuple(shares)

    def units(self, axis: int, families: Families) -> list[int]:
        """Numbers of granules of the dims that nodes of these families divide on an axis."""
        return units_of(self._graph, self._analysis, axis, families, families)

    def bound_s(self, found: Found) -> float:
        """Seconds that no plan within the limits is faster than, whatever the shares."""
        axes = uneven_axes(self.mesh, self.cluster)
        if not axes or self.options.strategy != "optimal" or self.options.objective != "time":
            return found.solution.bound_s
        speed_s = found.summary.combined_speed_bound_s()
        if self._even is None or len(self._even.sites) != self.mesh.num_ranks:
            return speed_s
        prices = MovePrices(self.cluster, self.mesh, self.options.training.reduce_dtype)
        problem = optimistic(
            self._even, self._analysis, self.mesh, axes, found.search.limit_bytes, prices, self._speeds(found)
        )
        try:
            return max(speed_s, solve(problem, time_limit_s=self.options.time_limit_s).bound_s)
        except (InfeasibleError, SolverError):
            return speed_s  # the plan that was found keeps no limit, or there was no time

    def _speeds(self, found: Found) -> Floats:
        ranks = range(self.mesh.num_ranks)
        return np.array([1 / max(1e-12, found.summary.alone_s(self.cluster.device(rank))) for rank in ranks])

    def _prepare(
        self, shares: Shares, families: Families | None, gap: float, regions: Regions | None = None
    ) -> tuple[PlanningProblem, ProblemBuilder, Search]:
        started = time.perf_counter()
        builder = ProblemBuilder(
            self._graph, self._rules, self._classes, self.mesh, self.cluster, self.options.training, shares,
            families, self._analysis,
        )  # fmt: skip
        planning = builder.build()
        if regions is not None:
            planning = with_regions(planning, regions)
        self.build_s += time.perf_counter() - started
        limit_s = self.options.time_limit_s
        if gap and limit_s is not None:  # one of many
            limit_s = limit_s / NUM_ROUGH
        options = replace(self.options, gap=max(gap, self.options.gap), time_limit_s=limit_s)
        capacity = [float(site.device.memory_bytes) for site in planning.sites]
        allowed = megatron_strategies(planning, self._analysis, self._rules)
        constrained = allowed_strategies(planning, self.mesh, options.force, options.forbid)
        return planning, builder, Search(planning, options, capacity, allowed, constrained)

    def _found(self, planning: PlanningProblem, builder: ProblemBuilder, search: Search, solution: Solution) -> Found:
        summary = Summary(planning, solution, self._rules, self.mesh, self.cluster, self.options.training)
        judgement = judged(planning, solution, is_trained=self.options.training.mode == "train")
        return Found(planning, builder.enumerator, search, solution, summary, *judgement)
