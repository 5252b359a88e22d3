"""A plan whose counted bytes fit: estimates guide the search for it, counting decides.

The integer program adds up what is held as if all of it were held at once, which is too much: gradients come while what
was saved for backward goes. Where memory decides, it is therefore solved again under a limit that is corrected by how much
a plan's estimate is above its counted bytes.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from autotp.capture.export import Captured
from autotp.errors import InfeasibleError
from autotp.hardware.cluster import ClusterProfile
from autotp.mesh import Mesh
from autotp.planning.dry_run import counted
from autotp.planning.planner import Planned, make_plan
from autotp.planning.search import Options, limits_of, stated
from autotp.plans import Plan

# Gradients and what was saved are each at most as much as the rest: their sum is at most 1.5 times what is there at once.
MOST_OVERESTIMATED = 1.5
SLOWER = 1 + 1e-6  # a plan that takes longer than the best without limits was held back by memory


def plan_captured(
    captured: Captured,
    mesh: Mesh,
    cluster: ClusterProfile,
    options: Options,
    facts: Mapping[str, Any],
    progress: Callable[[str], None] = lambda stage: None,
    *,
    must_fit: bool = True,
) -> Planned:
    """Plan what is captured, and count its bytes. Errors as `planner.make_plan`.

    Where nothing fits and it need not (`must_fit`), the plan is that of the fastest step if memory were unlimited, and its
    summary says that it does not fit (see `shortage`), as it does of a baseline that does not.
    """
    return _Attempts(captured, mesh, cluster, options, facts, progress, must_fit).best()


class _Attempts:
    """Plans of one model under several limits, all judged by the limit that was asked for."""

    def __init__(
        self,
        captured: Captured,
        mesh: Mesh,
        cluster: ClusterProfile,
        options: Options,
        facts: Mapping[str, Any],
        progress: Callable[[str], None],
        must_fit: bool,
    ) -> None:
        self._must_fit = must_fit
        self._free: Plan | None = None
        self._captured, self._mesh, self._cluster = captured, mesh, cluster
        self._options, self._facts, self._progress = options, facts, progress
        self._timing: dict[str, float] = {}

    def best(self) -> Planned:
        """Raises InfeasibleError where no plan was found that fits."""
        refused: InfeasibleError | None = None
        found: list[Plan] = []
        try:
            found.append(self._plan(self._options.memory_bytes))
        except InfeasibleError as error:
            refused = error
        if found and _fits(found[0]) and not _is_held_back(found[0]):
            return Planned(found[0], self._timing)
        if self._limit_bytes() is not None:
            found += self._corrected(refused is not None)
        fitting = [plan for plan in found if _fits(plan)]
        if fitting:
            return Planned(min(fitting, key=lambda plan: float(plan.summary["predicted"]["step_s"])), self._timing)
        if self._must_fit:
            raise refused or InfeasibleError(_too_much(found[0]))
        if refused is not None:
            return Planned(self._regardless(), self._timing)  # raises where it is not memory that forbids all plans
        return Planned(found[0], self._timing)

    def _limit_bytes(self) -> float | None:
        """The limit of every device, None where devices have different ones and a single number cannot correct it."""
        if self._options.strategy != "optimal" or self._options.objective != "time":
            return None
        found = {self._cluster.device(rank).memory_bytes for rank in range(self._mesh.num_ranks)}
        return self._options.memory_bytes or (float(found.pop()) if len(found) == 1 else None)

    def _is_near(self, limit_bytes: float) -> bool:
        """Whether any plan's estimate is so near to the limit that its count may be within."""
        try:
            options = replace(self._options, memory_bytes=limit_bytes * MOST_OVERESTIMATED)
            make_plan(self._captured, self._mesh, self._cluster, options, self._facts)
        except InfeasibleError:
            return False
        return True

    def _corrected(self, is_refused: bool) -> list[Plan]:
        """The best plan without limits, and the best one under a limit that is corrected by what that one counts."""
        limit_bytes = self._limit_bytes()
        if limit_bytes is None or not math.isfinite(limit_bytes):
            return []
        if is_refused and not self._is_near(limit_bytes):
            return []
        free = self._free = self._plan(math.inf)
        if _fits(free):
            return [free]
        predicted = free.summary["predicted"]
        try:
            corrected = limit_bytes * max(predicted["estimated_bytes"]) / max(predicted["memory_bytes"])
            return [self._plan(corrected)]
        except InfeasibleError:
            return []

    def _regardless(self) -> Plan:
        """The best plan without limits, with the limits it does not keep."""
        plan = self._free or self._plan(math.inf)
        seated = self._cluster.arranged(plan.summary["balance"]["device_order"])
        capacities = [seated.device(rank).memory_bytes for rank in range(self._mesh.num_ranks)]
        limits = limits_of(self._options.memory_bytes, capacities)
        baselines = {
            name: row and {**row, "fits": row["memory_bytes"] <= min(limits)}
            for name, row in plan.summary["baselines"].items()
        }
        solver = {**plan.summary["solver"], **stated(limits), "fits": False}
        return replace(plan, summary={**plan.summary, "baselines": baselines, "solver": solver})

    def _plan(self, limit_bytes: float | None) -> Plan:
        self._progress(f"planning {self._mesh}")
        options = replace(self._options, memory_bytes=limit_bytes)
        planned = make_plan(self._captured, self._mesh, self._cluster, options, self._facts)
        started = time.perf_counter()
        self._progress("counting bytes")
        seated = self._cluster.arranged(planned.plan.summary["balance"]["device_order"])
        found = counted(self._captured, planned.plan, options.training, seated, self._options.memory_bytes)
        for name, seconds in {**planned.timing, "count_s": time.perf_counter() - started}.items():
            self._timing[name] = self._timing.get(name, 0.0) + seconds
        return found


def _too_much(plan: Plan) -> str:
    needed, limit = max(plan.summary["predicted"]["memory_bytes"]), plan.summary["solver"]["memory_limit_bytes"]
    return (
        f"no plan was found that fits: the best one needs {needed:.4g} bytes on a device, and {limit:.4g} are allowed"
    )


def _fits(plan: Plan) -> bool:
    return bool(plan.summary["solver"]["fits"])


def _is_held_back(plan: Plan) -> bool:
    """Whether memory made the step longer than it could be."""
    free_s = plan.summary["balance"]["even_step_s"]
    return free_s is not None and float(plan.summary["predicted"]["step_s"]) > SLOWER * free_s
