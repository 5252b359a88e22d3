"""How much every rank of a mesh axis gets: shares and strategies are chosen together or in turn (design, section 6).

Where devices can be told apart in few ways, every division of every dim is a strategy of its own and one integer program
decides it all. Else shares are sought from several starts (even, by speed, by memory) and by what each rank took for what
it had; then sizes and strategies in turn: for given strategies one integer program chooses, dim by dim, among many
divisions near the present one, in whole granules and within every device's memory; for these sizes another one chooses
strategies. Both minimise the same seconds under the same limits, so no turn makes it worse. That is a local search: how far
from the best it can be is what `bound` says.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from autotp.cost.problem import PlanningProblem
from autotp.cost.summary import Summary
from autotp.errors import AutoTPError, InfeasibleError, SolverError
from autotp.hardware.cluster import ClusterProfile
from autotp.hardware.profile import DeviceProfile
from autotp.mesh import Mesh
from autotp.planning.search import Search
from autotp.planning.shares import Vector, distinct, kinds_of, uneven_axes, whole
from autotp.planning.sizes import families_of, offered, used
from autotp.planning.synchronised import Regions
from autotp.rules.enumerate import Enumerator, Families, Shares, even_shares
from autotp.solver.problem import Solution

MAX_FOLLOWED = 4  # plans made by giving every rank what its speed in the last one asks for
MAX_TURNS = 4  # of sizes for strategies, and strategies for sizes
CLOSE = 1e-3  # relative: seconds that are no improvement worth another turn
SLACK = 0.1  # relative: how much slower a plan may be, operator by operator, that is looked at region by region
ROUGH = 0.02  # relative: how far from their best plans may be while shares are compared


@dataclass(frozen=True)
class Found:
    """A plan for some shares; `regions`: between its synchronisations, by which the step takes `step_s`."""

    planning: PlanningProblem
    enumerator: Enumerator
    search: Search
    solution: Solution
    summary: Summary
    regions: Regions
    step_s: float


@dataclass(frozen=True)
class Balanced:
    """The best plan found, how many problems were solved for it, and whether one of them held all divisions."""

    found: Found
    num_tried: int
    is_joint: bool = False


class Attempts(Protocol):
    """Makes plans for given shares."""

    def within_limits(
        self,
        shares: Shares,
        below_s: float,
        families: Families | None = None,
        gap: float = 0.0,
        regions: Regions | None = None,
    ) -> Found | None:
        """None where no plan is faster than `below_s`; within `gap` of the best one. May raise InfeasibleError.

        With `regions`, seconds are counted by these.
        """
        ...

    def chosen(self, shares: Shares, sized: Found) -> Found | None:
        """The plan with the strategies and sizes of another one, where these shares give them and it fits."""
        ...

    def all_divisions(self) -> Shares | None:
        """Every division of every dim on every axis, where these are few."""
        ...

    def units(self, axis: int, families: Families) -> list[int]:
        """Numbers of granules of the dims that nodes of these families divide on an axis."""
        ...


class Balancer:
    """Seeks shares for the axes along which devices differ."""

    def __init__(self, mesh: Mesh, cluster: ClusterProfile, objective: str, attempts: Attempts) -> None:
        self._mesh, self._cluster, self._objective, self._attempts = mesh, cluster, objective, attempts
        self._axes = uneven_axes(mesh, cluster)
        self._tried: dict[Shares, Found | None] = {}
        self._num_sized = 0
        self._gap = 0.0
        self._error: InfeasibleError | SolverError | None = None

    def best(self, given: Shares | None = None) -> Balanced:
        """The best plan for any shares, or for those given. Raises InfeasibleError where none that was tried gives one."""
        if given is not None:
            found = self._attempts.within_limits(given, math.inf)
            assert found is not None
            return Balanced(found, 1)
        together = self._attempts.all_divisions() if self._axes else None
        self._gap = ROUGH if self._axes and together is None else 0.0
        if together is not None:
            best = together
            self._value(best)
        else:
            best = min([*self._starts(), even_shares(self._mesh)], key=self._value)
            if self._axes and self._tried[best] is not None:
                best = self._in_turn(self._followed(best))
        found = self._tried[best]
        if found is not None and self._gap:
            found = self._exact(best, found)
        if found is None:
            raise self._error or AutoTPError("no shares of the devices give a plan")
        return Balanced(found, len(self._tried) + self._num_sized, together is not None)

    def _exact(self, shares: Shares, rough: Found) -> Found:
        """The best plan for these shares; the rough one where there is no time for a better."""
        try:
            exact = self._attempts.within_limits(shares, math.inf)
        except SolverError:
            exact = None
        return exact if exact is not None and self._judge(exact) <= self._judge(rough) else rough

    def _value(self, shares: Shares) -> tuple[float, float]:
        """What is minimised: seconds, or bytes of the fullest device and then seconds."""
        if shares not in self._tried:
            # what is slower operator by operator may be faster region by region, but not much
            known = [(1 + SLACK) * found.solution.cost_s for found in self._tried.values() if found]
            try:
                self._tried[shares] = self._attempts.within_limits(shares, min(known, default=math.inf), gap=self._gap)
            except (InfeasibleError, SolverError) as error:
                self._tried[shares], self._error = None, self._error or error
        found = self._tried[shares]
        return (math.inf, math.inf) if found is None else self._judge(found)

    def _judge(self, found: Found) -> tuple[float, float]:
        """Seconds region by region, then operator by operator; or bytes before these."""
        if self._objective == "memory":
            return max(found.solution.memory_bytes), found.step_s
        return found.step_s, found.solution.cost_s

    # ------------------------------------------------------------ starts

    def _starts(self) -> list[Shares]:
        """By what devices can do and hold, and between speed and memory."""
        if not self._axes:
            return []
        found = [shares_by(metric, self._mesh, self._cluster) for metric in METRICS]
        between = list(found[0])
        for axis in self._axes:
            (fast,), (roomy,) = found[0][axis], found[-1][axis]
            between[axis] = (whole([math.sqrt(a * b) for a, b in zip(fast, roomy, strict=True)]),)
        return [*found, tuple(between)]

    def _followed(self, best: Shares) -> Shares:
        """Give every rank the share that its speed in the last plan asks for, while that is new."""
        shares = best
        for _ in range(MAX_FOLLOWED):
            found = self._tried[shares]
            if found is None:
                return best
            seconds = found.summary.balance(1.0)["compute_s"]
            for axis in self._axes:
                slowest = self._slowest(seconds, axis)
                wanted = [share / max(taken, 1e-12) for share, taken in zip(shares[axis][0], slowest, strict=True)]
                shares = _with(shares, axis, (whole(wanted),))
            if shares in self._tried:
                return best
            best = min(best, shares, key=self._value)
        return best

    def _slowest(self, seconds: Sequence[float], axis: int) -> list[float]:
        """Per coordinate of an axis the seconds of the rank that takes longest."""
        found = [0.0] * self._mesh.sizes[axis]
        for rank, taken in enumerate(seconds):
            coordinate = self._mesh.coordinates(rank)[axis]
            found[coordinate] = max(found[coordinate], taken)
        return found

    # ------------------------------------------------------------ sizes and strategies in turn

    def _in_turn(self, best: Shares) -> Shares:
        for _ in range(MAX_TURNS):
            before = self._value(best)
            for axis in self._axes:
                best = min(best, self._sized(best, axis), key=self._value)
            if self._value(best) >= (before[0] * (1 - CLOSE), before[1]):
                return best
        return best

    def _sized(self, best: Shares, axis: int) -> Shares:
        """The divisions that the best sizes for the strategies of a plan use; the plan's own where none are better."""
        found = self._tried[best]
        assert found is not None
        families, kinds = families_of(found.planning, found.solution), kinds_of(self._mesh, self._cluster, axis)
        near = _with(best, axis, offered(self._attempts.units(axis, families), kinds, best[axis]))
        self._num_sized += 1
        try:
            regions = found.regions if self._objective == "time" else None
            sized = self._attempts.within_limits(near, math.inf, families, self._gap, regions)
        except (InfeasibleError, SolverError):
            return best  # out of time, or the solver's tolerance: the present sizes are among those offered
        if sized is None or self._judge(sized)[0] >= self._judge(found)[0]:
            return best
        shares = used(sized.planning, sized.solution, sized.enumerator)
        strategies_again = self._value(shares)
        if self._judge(sized) < strategies_again:  # counted by the regions of the strategies that it keeps
            kept = self._attempts.chosen(shares, sized)
            if kept is not None and self._judge(kept) < strategies_again:
                self._tried[shares] = kept
        return shares


METRICS: tuple[Callable[[DeviceProfile], float], ...] = (
    lambda device: max(device.matmul_flops_per_s.values()) * device.matmul_efficiency,
    lambda device: device.memory_bytes_per_s,
    lambda device: max(1, device.memory_bytes - device.process_bytes),
)


def shares_by(metric: Callable[[DeviceProfile], float], mesh: Mesh, cluster: ClusterProfile) -> Shares:
    """Shares by what the weakest device at every coordinate can do, on the axes along which devices differ."""
    shares = list(even_shares(mesh))
    for axis in uneven_axes(mesh, cluster):
        weights = [
            min(metric(cluster.device(rank)) for rank in range(mesh.num_ranks)
                if mesh.coordinates(rank)[axis] == coordinate)
            for coordinate in range(mesh.sizes[axis])
        ]  # fmt: skip
        shares[axis] = (whole(weights),)
    return tuple(shares)


def _with(shares: Shares, axis: int, vectors: tuple[Vector, ...]) -> Shares:
    return (*shares[:axis], distinct(vectors), *shares[axis + 1 :])


def report(
    balanced: Balanced, mesh: Mesh, cluster: ClusterProfile, even_step_s: float | None, bound_s: float
) -> dict[str, Any]:
    """For the plan: shares per axis, the step with even ones (memory aside), and how much faster any could be."""
    found = balanced.found
    step_s = found.step_s
    divisions = used(found.planning, found.solution, found.enumerator)
    bound_s = min(step_s, bound_s)
    axes: Mapping[str, list[int]] = {name: list(divisions[axis][0]) for axis, name in enumerate(mesh.names)}
    return {
        "shares": axes,
        "uneven_axes": [mesh.names[axis] for axis in uneven_axes(mesh, cluster)],
        "even_step_s": even_step_s,
        "num_tried": balanced.num_tried,
        "is_joint": balanced.is_joint,
        "combined_speed_bound_s": found.summary.combined_speed_bound_s(),
        "bound_s": bound_s,
        "gap": (step_s - bound_s) / step_s if step_s else 0.0,
        "apart_s": found.solution.cost_s,
        **found.summary.balance(step_s),
    }
