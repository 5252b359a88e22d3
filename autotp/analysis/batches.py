"""How would a node be split with another batch? The model is captured and planned again for each."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from autotp.api import capture_for_planning
from autotp.capture.inputs import restore
from autotp.capture.model_file import reload_model
from autotp.cost.training import Training
from autotp.errors import AutoTPError, CaptureError, InfeasibleError
from autotp.hardware.cluster import ClusterProfile
from autotp.planning.planner import make_plan
from autotp.planning.search import Options
from autotp.plans import Plan
from autotp.report.words import describe_strategy, short_op

FACTORS = (2, 4, 8)  # by which the batch is multiplied and divided
BISECTIONS = 2


@dataclass(frozen=True, slots=True)
class _Again:
    """Plans the model of a plan again for other batches."""

    plan: Plan
    node: str

    def best(self, batch: int) -> str | None:
        """How the best plan for a batch splits the node; None where no plan fits. Raises CaptureError."""
        captured, facts = capture_for_planning(
            reload_model(with_batch(self.plan.model["origin"], batch)), None, mode=self.plan.mode,
            dtype=self.plan.model["dtype"],
        )  # fmt: skip
        cluster = ClusterProfile.from_json(dict(self.plan.cluster))
        try:
            found = make_plan(captured, self.plan.mesh, cluster, options_of(self.plan), facts).plan
        except InfeasibleError:
            return None
        facts_of_node = found.nodes.get(self.node)
        if facts_of_node is None:
            raise CaptureError(f"with a batch of {batch} the model has no node {self.node}")
        return " / ".join(describe_strategy(short_op(facts_of_node.op), found.strategies[self.node]))


def batch_wins(
    plan: Plan, node: str, add: Callable[[str, str], None], progress: Callable[[str], None] = lambda stage: None
) -> str:
    """Call `add` with every way of splitting a node that is best for some other batch, and from which batch on.

    Returns why other batches could not be tried, "" where they were.
    """
    if not (plan.model.get("origin") or {}).get("path"):
        return "the plan is of a module, not of a model file that can be built with another batch"
    size, again = batch_of(plan), _Again(plan, node)
    chosen = " / ".join(describe_strategy(short_op(plan.nodes[node].op), plan.strategies[node]))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # said when the plan was made
            for is_larger in (True, False):
                _ladder(again, size, chosen, is_larger, add, progress)
    except CaptureError as error:
        return str(error)
    return ""


def _ladder(
    again: _Again, size: int, chosen: str, is_larger: bool, add: Callable[[str, str], None], progress: Callable[[str], None]
) -> None:  # fmt: skip
    found, near = {chosen}, size
    for factor in FACTORS:
        far = size * factor if is_larger else size // factor
        if far < 1:
            break
        progress(f"planning for a batch of {far}")
        words = again.best(far)
        if words is None:
            break
        if words not in found:
            found.add(words)
            first = _first(again, words, near, far, progress)
            add(words, f"a batch of {first} or {'more' if is_larger else 'less'}")
        near = far


def _first(again: _Again, words: str, near: int, far: int, progress: Callable[[str], None]) -> int:
    """The batch nearest to `near` for which `words` was found to be best."""
    for _ in range(BISECTIONS):
        middle = (near + far) // 2
        if middle in (near, far):
            break
        progress(f"planning for a batch of {middle}")
        if again.best(middle) == words:
            far = middle
        else:
            near = middle
    return far


def batch_of(plan: Plan) -> int:
    """The first size of the plan's first tensor. Raises AutoTPError where it has none."""
    inputs = restore(plan.model["inputs"])
    for each in inputs.values() if isinstance(inputs, Mapping) else inputs:
        if isinstance(each, torch.Tensor) and each.dim():
            return int(each.shape[0])
    raise AutoTPError("the model has no tensor with a batch among its inputs")


def with_batch(origin: Mapping[str, Any], batch: int) -> dict[str, Any]:
    """Where a model is from, for another batch: by its option if it was set by one, else by `--batch`."""
    if "batch" in origin.get("options", {}):
        return {**origin, "options": {**origin["options"], "batch": batch}}
    return {**origin, "batch": batch}


def options_of(plan: Plan) -> Options:
    """What the planner was asked when it made a plan."""
    solver, members = plan.summary["solver"], plan.problem["members"]
    limits = solver.get("memory_limits_bytes") or [solver["memory_limit_bytes"]]
    own = [plan.cluster["device_profiles"][name]["memory_bytes"] for name in plan.cluster["devices"]]
    asked = None if list(limits) == own[: len(limits)] else max(limits)
    return Options(
        Training(**plan.summary["training"]), memory_bytes=asked if solver["fits"] else float("inf"),
        objective=solver["objective"], strategy=solver["strategy"], force=tuple(solver["force"]),
        forbid=tuple(solver["forbid"]), is_folded=len(set(members.values())) < len(members), keeps_order=True,
    )  # fmt: skip
