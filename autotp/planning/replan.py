"""A plan for other sizes of the inputs, under which parameters stay where a first plan put them."""

from collections.abc import Mapping
from dataclasses import replace

from autotp.capture.export import Captured
from autotp.capture.repeats import fold
from autotp.cost.problem import PlanningProblem, ProblemBuilder
from autotp.cost.training import Training
from autotp.errors import AutoTPError, PlanError
from autotp.hardware.cluster import ClusterProfile
from autotp.placement import Placement
from autotp.planning.assemble import moves_of, parameters_of, strategies_of
from autotp.plans import Plan
from autotp.rules.enumerate import Shares, even_shares
from autotp.rules.registry import rules_of
from autotp.solver.baselines import solve_restricted

GAP = 0.05  # a step may take so much longer than the best one: a module waits for this plan
STATE = ("parameter", "buffer")


def replan(captured: Captured, plan: Plan) -> Plan:
    """The plan for a capture of the same model with inputs of other sizes.

    Equal arguments give an equal plan, so that every rank may make it by itself. Raises PlanError where the parameters
    cannot stay where they are, or `plan` does not say what it was made from.
    """
    graph, mesh = captured.graph, plan.mesh
    placed = {name: parameter.placement for parameter in plan.parameters.values() for name in parameter.names}
    if not plan.cluster:
        raise PlanError("the plan has no cluster profile, so none can be made for other sizes: plan again")
    cluster = ClusterProfile.from_json(plan.cluster)
    rules = rules_of(graph)
    classes = fold(graph, ends=0 if sum(size > 1 for size in mesh.sizes) > 1 else 1)
    apart = {node.name: node.name for node in graph}
    for tried in (classes, apart):  # layers that a plan put apart cannot be one decision
        training = Training(plan.mode, reduce_dtype=plan.reduce_dtype)
        builder = ProblemBuilder(graph, rules, tried, mesh, cluster, training, _shares(plan))
        planning = builder.build()
        allowed = _allowed(planning, placed)
        if all(allowed):
            break
    else:
        names = [name for name, some in zip(planning.node_names, allowed, strict=True) if not some]
        raise PlanError(f"with inputs of these sizes {', '.join(names[:5])} cannot stay where the plan put them")
    objective = plan.summary.get("solver", {}).get("objective", "time")
    try:
        solution = solve_restricted(planning.problem, allowed, objective=objective, gap=GAP)
    except AutoTPError as error:
        raise PlanError(f"there is no plan for inputs of these sizes: {error}") from error
    strategies = strategies_of(planning, solution)
    return replace(
        plan,
        fingerprint=graph.fingerprint(),
        strategies=strategies,
        moves=moves_of(planning, solution),
        parameters=parameters_of(planning, strategies, mesh, captured.tied),
        nodes={},
        problem={},
    )


def _shares(plan: Plan) -> Shares:
    """The ranks' shares that the plan's sizes follow."""
    known = plan.summary.get("balance", {}).get("shares", {})
    even = even_shares(plan.mesh)
    return tuple((tuple(known[name]),) if name in known else even[axis] for axis, name in enumerate(plan.mesh.names))


def _allowed(planning: PlanningProblem, placed: Mapping[str, Placement]) -> list[list[int]]:
    """Per node the strategies that leave its parameter, or those of all nodes it stands for, in place."""
    wanted: dict[str, set[Placement]] = {}
    for node in planning.graph:
        if node.kind in STATE and node.target in placed:
            wanted.setdefault(planning.classes[node.name], set()).add(placed[node.target])
    found = []
    for name, strategies in zip(planning.node_names, planning.strategies, strict=True):
        places = wanted.get(name)
        found.append([i for i, s in enumerate(strategies) if places is None or {s.results[0]} == places])
    return found
