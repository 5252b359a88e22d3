"""How much every rank of a mesh axis gets: shares and strategies are chosen in turn (design, section 6).

For given shares the integer program is exact. Shares are sought from several starts (even, by speed, by memory), then by
what each rank took for what it had, then by small shifts from the slowest rank to the fastest; the best plan seen is kept.
That is a local search, so the plan says how far it is from what the devices' speeds together would allow.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autotp.cost.problem import PlanningProblem
from autotp.cost.summary import Summary
from autotp.errors import AutoTPError, InfeasibleError
from autotp.hardware.cluster import ClusterProfile
from autotp.hardware.profile import DeviceProfile
from autotp.mesh import Mesh
from autotp.placement import apportion
from autotp.rules.enumerate import Shares, even_shares
from autotp.search import Search
from autotp.solver.problem import Solution

PARTS = 1000  # of which shares are whole numbers
MAX_FOLLOWED = 8  # plans made by giving every rank what its speed in the last one asks for
SHIFTS = (80, 40, 20, 10)  # parts that go from the slowest to the fastest rank


@dataclass(frozen=True)
class Found:
    """A plan for some shares."""

    planning: PlanningProblem
    search: Search
    solution: Solution
    summary: Summary


@dataclass(frozen=True)
class Balanced:
    """The best plan found, and how many shares were tried."""

    found: Found
    num_tried: int


class Balancer:
    """Seeks shares for the axes along which devices differ.

    `attempt(shares, below_s)` makes a plan, or none where none is faster than `below_s`; it may raise InfeasibleError.
    """

    def __init__(
        self, mesh: Mesh, cluster: ClusterProfile, objective: str, attempt: Callable[[Shares, float], Found | None]
    ) -> None:
        self._mesh, self._cluster, self._objective, self._attempt = mesh, cluster, objective, attempt
        self._axes = uneven_axes(mesh, cluster)
        self._tried: dict[Shares, Found | None] = {}
        self._error: InfeasibleError | None = None

    def best(self) -> Balanced:
        """Raises InfeasibleError where no shares that were tried give a plan."""
        even = even_shares(self._mesh)
        starts = [*(self._by(metric) for metric in METRICS if self._axes), even]
        best = min(starts, key=self._value)
        if self._axes and math.isfinite(self._value(best)[0]):
            best = self._followed(best)
            for shift in SHIFTS:
                best = self._shifted(best, shift)
        found = self._tried[best]
        if found is None:
            raise self._error or AutoTPError("no shares of the devices give a plan")
        return Balanced(found, len(self._tried))

    def _value(self, shares: Shares) -> tuple[float, float]:
        """What is minimised: seconds, or bytes of the fullest device and then seconds."""
        if shares not in self._tried:
            known = [found.solution.cost_s for found in self._tried.values() if found]
            try:
                self._tried[shares] = self._attempt(shares, min(known, default=math.inf))
            except InfeasibleError as error:
                self._tried[shares], self._error = None, error
        found = self._tried[shares]
        if found is None:
            return math.inf, math.inf
        seconds = found.solution.cost_s
        return (max(found.solution.memory_bytes), seconds) if self._objective == "memory" else (seconds, 0.0)

    def _by(self, metric: Callable[[DeviceProfile], float]) -> Shares:
        """Shares by what the weakest device at every coordinate of an axis can do."""
        shares = list(even_shares(self._mesh))
        for axis in self._axes:
            weights = [
                min(metric(self._cluster.device(rank)) for rank in range(self._mesh.num_ranks)
                    if self._mesh.coordinates(rank)[axis] == coordinate)
                for coordinate in range(self._mesh.sizes[axis])
            ]  # fmt: skip
            shares[axis] = (whole(weights),)
        return tuple(shares)

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
                wanted = [share / taken for share, taken in zip(shares[axis][0], slowest, strict=True)]
                shares = _with(shares, axis, whole(wanted))
            if shares in self._tried:
                return best
            best = min(best, shares, key=self._value)
        return best

    def _shifted(self, best: Shares, shift: int) -> Shares:
        while True:
            found = self._tried[best]
            assert found is not None
            seconds = found.summary.balance(1.0)["compute_s"]
            options = []
            for axis in self._axes:
                options.append(_with(best, axis, self._relieved(best[axis][0], self._slowest(seconds, axis), shift)))
            better = min([best, *options], key=self._value)
            if better == best:
                return best
            best = better

    def _relieved(self, shares: Sequence[int], taken: Sequence[float], shift: int) -> tuple[int, ...]:
        """`shift` parts go from the slowest rank and all that are like it to the fastest and all like that."""
        now = whole(shares)
        slow = [i for i, share in enumerate(now) if share == now[taken.index(max(taken))]]
        fast = [i for i, share in enumerate(now) if share == now[taken.index(min(taken))]]
        if set(slow) & set(fast):
            return tuple(shares)
        given = [now[i] - shift / len(slow) if i in slow else float(now[i]) for i in range(len(now))]
        given = [given[i] + shift / len(fast) if i in fast else given[i] for i in range(len(now))]
        return whole([max(0.0, one) for one in given])

    def _slowest(self, seconds: Sequence[float], axis: int) -> list[float]:
        """Per coordinate of an axis the seconds of the rank that takes longest."""
        found = [0.0] * self._mesh.sizes[axis]
        for rank, taken in enumerate(seconds):
            coordinate = self._mesh.coordinates(rank)[axis]
            found[coordinate] = max(found[coordinate], taken)
        return found


METRICS: tuple[Callable[[DeviceProfile], float], ...] = (
    lambda device: max(device.matmul_flops_per_s.values()) * device.matmul_efficiency,
    lambda device: device.memory_bytes_per_s,
    lambda device: max(1, device.memory_bytes - device.process_bytes),
)


def uneven_axes(mesh: Mesh, cluster: ClusterProfile) -> tuple[int, ...]:
    """Axes along which the devices of some group are not alike."""
    return tuple(
        axis
        for axis in range(len(mesh.axes))
        if any(len({cluster.devices[rank] for rank in group}) > 1 for group in mesh.groups(axis))
    )


def whole(weights: Sequence[float]) -> tuple[int, ...]:
    """Weights as shares of `PARTS` in whole numbers."""
    total = sum(weights)
    return apportion(PARTS, [round(weight / total * 1e9) for weight in weights])


def _with(shares: Shares, axis: int, one: tuple[int, ...]) -> Shares:
    return (*shares[:axis], (one,), *shares[axis + 1 :])


def report(balanced: Balanced, mesh: Mesh, cluster: ClusterProfile, even_step_s: float | None) -> dict[str, Any]:
    """For the plan: shares per axis, the step with even ones (memory aside), and the bound of the devices' speeds."""
    found = balanced.found
    step_s = found.solution.cost_s
    bound_s = found.summary.combined_speed_bound_s()
    axes: Mapping[str, list[int]] = {name: list(found.planning.shares[axis][0]) for axis, name in enumerate(mesh.names)}
    return {
        "shares": axes,
        "uneven_axes": [mesh.names[axis] for axis in uneven_axes(mesh, cluster)],
        "even_step_s": even_step_s,
        "num_tried": balanced.num_tried,
        "bound_s": bound_s,
        "gap": (step_s - bound_s) / step_s if step_s else 0.0,
        **found.summary.balance(step_s),
    }
