"""Rebalancing while running: a device that became slow is noticed, planned for, and relieved, between two steps."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist

from autotp.capture.export import Captured
from autotp.cost.training import Training
from autotp.errors import AutoTPError, PlanError
from autotp.hardware.cluster import ClusterProfile
from autotp.plan_file import dumps, loads
from autotp.planning.planner import make_plan
from autotp.planning.search import Options
from autotp.plans import Plan
from autotp.rewrite.rebalance import rebalance
from autotp.runtime.module import ParallelModule
from autotp.runtime.watch import Watcher, slowdowns


@dataclass(frozen=True)
class Rebalanced:
    """What was noticed and done: of every rank how many times slower than planned it was, and the plan from now on.

    `plan` is None where no other sizes would have made the step at least `worth` shorter.
    """

    slowdowns: tuple[float, ...]
    plan: Plan | None


class Rebalancer:
    """Watches the ranks of a running module and moves it to new sizes where one became slow.

    Call `step()` after every step of the optimizer, on every rank, outside of any gradient accumulation:

        balancer = Rebalancer(module, optimizer, plan)
        for batch in data:
            ...
            optimizer.step()
            optimizer.zero_grad()
            balancer.step()

    `every`: steps between comparisons. `threshold`: how much slower than the others a rank must be to be relieved.
    `worth`: the least share of the step that new sizes must save. Planning is done on rank 0 while the others wait.
    """

    def __init__(
        self,
        module: ParallelModule,
        optimizer: torch.optim.Optimizer | None,
        plan: Plan,
        *,
        every: int = 20,
        threshold: float = 1.15,
        worth: float = 0.05,
    ) -> None:
        if every < 2 or threshold <= 1:
            raise AutoTPError(f"every must be at least 2 and threshold more than 1, not {every} and {threshold:g}")
        self.module, self.optimizer, self.plan = module, optimizer, plan
        self._threshold, self._worth = threshold, worth
        self._watcher = Watcher(module, every=every)

    def step(self) -> Rebalanced | None:
        """None where it is not time, or no rank stands out."""
        measured_s = self._watcher.step()
        if measured_s is None:
            return None
        slower = slowdowns(measured_s, self.plan.summary["balance"]["compute_s"])
        if max(slower) < self._threshold:
            return None
        plan = self._agreed(slower)
        if plan is not None:
            rebalance(self.module, self.optimizer, plan)
            self.plan = plan
        self._watcher.restart()
        return Rebalanced(slower, plan)

    def stop(self) -> None:
        """No longer watch."""
        self._watcher.stop()

    def _agreed(self, slower: Sequence[float]) -> Plan | None:
        """The new plan of rank 0, on all ranks."""
        message: list[str | None] = [None, None]
        if self.module.sharding.rank == 0:
            try:
                plan = replan(self.module, self.plan, slower)
                expected_s = step_s(self.plan, slower)
                if plan.summary["predicted"]["step_s"] < (1 - self._worth) * expected_s:
                    message[0] = dumps(plan)
            except AutoTPError as error:  # the others wait for an answer
                message[1] = str(error)
        if dist.is_initialized():
            dist.broadcast_object_list(message, src=0)
        if message[1] is not None:
            raise AutoTPError(f"no new plan could be made on rank 0: {message[1]}")
        return loads(message[0]) if message[0] is not None else None


def step_s(plan: Plan, slower: Sequence[float]) -> float:
    """Predicted seconds of a plan's step on devices that are so many times slower than it says."""
    predicted, computed = plan.summary["predicted"], plan.summary["balance"]["compute_s"]
    slowest_s = max(one * times for one, times in zip(computed, slower, strict=True))
    return float(predicted["step_s"] - max(computed) + slowest_s)


def replan(module: ParallelModule, plan: Plan, slower: Sequence[float]) -> Plan:
    """A plan for the same model, mesh and limits, on devices that are so many times slower. Raises PlanError."""
    if not isinstance(module.signature, Captured):
        raise PlanError("this module was not made from a captured model: plan again and parallelize the model anew")
    cluster = slowed(ClusterProfile.from_json(dict(plan.cluster)), slower)
    solver = plan.summary["solver"]
    limit = solver["memory_limit_bytes"]
    own = min(cluster.device(rank).memory_bytes for rank in range(plan.mesh.num_ranks))
    options = Options(
        Training(**plan.summary["training"]), memory_bytes=limit if limit < own else None,
        objective=solver["objective"], strategy=solver["strategy"],
        keeps_order=True,
    )  # fmt: skip
    return make_plan(module.signature, plan.mesh, cluster, options, plan.model).plan


def slowed(cluster: ClusterProfile, slower: Sequence[float]) -> ClusterProfile:
    """The cluster with the device of every rank so many times slower: rounded to hundredths, so that alike stay alike."""
    devices, profiles = list(cluster.devices), dict(cluster.device_profiles)
    for rank, times in enumerate(slower):
        percent = round(100 / times)
        if percent < 100:
            device = cluster.device(rank).at_speed(percent / 100)
            devices[rank], profiles[device.name] = device.name, device
    return dataclasses.replace(cluster, devices=tuple(devices), device_profiles=profiles)
