"""The price of a plan on a cluster as it is known by now: the same decisions, other seconds."""

from collections.abc import Mapping
from typing import Any

from autotp.capture.export import Captured
from autotp.capture.repeats import fold
from autotp.cost.problem import ProblemBuilder
from autotp.cost.summary import Summary
from autotp.cost.training import Training
from autotp.errors import PlanError
from autotp.hardware.cluster import ClusterProfile
from autotp.plans import Plan
from autotp.rules.registry import rules_of
from autotp.solver.evaluate import evaluate


def repriced(captured: Captured, plan: Plan, cluster: ClusterProfile, training: Training) -> Mapping[str, Any]:
    """What `plan.summary["predicted"]` would say, had the plan been made for this cluster.

    Raises PlanError where the plan has a strategy that no even division of this model gives.
    """
    graph, rules = captured.graph, rules_of(captured.graph)
    several = sum(size > 1 for size in plan.mesh.sizes) > 1
    classes = fold(graph, ends=0 if several else 1)
    builder = ProblemBuilder(graph, rules, classes, plan.mesh, cluster, training)
    planning = builder.build()
    choices = []
    for name, strategies in zip(planning.node_names, planning.strategies, strict=True):
        if plan.strategies[name] not in strategies:
            raise PlanError(
                f"the plan's strategy of {name} is none of its even divisions: plan again for {cluster.name}"
            )
        choices.append(strategies.index(plan.strategies[name]))
    solution = evaluate(planning.problem, choices)
    return Summary(planning, solution, rules, plan.mesh, cluster, training).predicted()
