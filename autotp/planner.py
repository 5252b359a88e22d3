"""From a captured model to a plan: the pipeline's middle, top to bottom."""

import math
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from autotp.assemble import moves_of, nodes_of, parameters_of, strategies_of
from autotp.capture.export import Captured
from autotp.capture.repeats import fold
from autotp.cost.device import slowest_device
from autotp.cost.megatron import megatron_strategies
from autotp.cost.problem import PlanningProblem, ProblemBuilder, Training, with_limit
from autotp.cost.summary import Summary
from autotp.errors import AutoTPError, InfeasibleError, RuleError
from autotp.graph import Graph
from autotp.hardware.cluster import ClusterProfile
from autotp.mesh import Mesh
from autotp.plans import Plan
from autotp.rules.registry import is_fallback, rules_of
from autotp.rules.rule import OpRule
from autotp.solver.baselines import fixed, solve_restricted
from autotp.solver.greedy import greedy
from autotp.solver.ilp import solve
from autotp.solver.problem import Solution
from autotp.solver.serialise import to_dict

STRATEGIES = ("optimal", "greedy", "replicated", "megatron")
OBJECTIVES = ("time", "memory")


@dataclass(frozen=True)
class Options:
    """What the user asks of the planner. `memory_bytes`: limit per device, the device's own if None."""

    training: Training = field(default_factory=Training)
    memory_bytes: float | None = None
    objective: str = "time"
    strategy: str = "optimal"
    is_folded: bool = True
    time_limit_s: float | None = None
    is_strict: bool = False
    solver: str = "highs"

    def __post_init__(self) -> None:
        for name, value, known in (
            ("objective", self.objective, OBJECTIVES), ("strategy", self.strategy, STRATEGIES),
            ("mode", self.training.mode, ("train", "infer")), ("optimizer", self.training.optimizer, ("none", "sgd", "adamw")),
            ("solver", self.solver, ("highs", "cbc")),
        ):  # fmt: skip
            if value not in known:
                raise AutoTPError(f"unknown {name} {value!r}: choose one of {', '.join(known)}")
        for name, number in (("memory limit", self.memory_bytes), ("time limit", self.time_limit_s)):
            if number is not None and not number > 0:
                raise AutoTPError(f"the {name} must be positive, not {number:g}")


@dataclass(frozen=True)
class Planned:
    """A plan and how long its stages took, in seconds (not in the plan: equal input gives equal bytes)."""

    plan: Plan
    timing: Mapping[str, float]


def checked_rules(graph: Graph, *, is_strict: bool = False) -> tuple[dict[str, OpRule], tuple[str, ...]]:
    """The rule of every operator node, and the operators that fell back to running whole.

    Warns once per unknown operator; raises RuleError instead when strict.
    """
    unknown: list[str] = []
    for node in graph:
        if is_fallback(node) and node.op not in unknown:
            unknown.append(node.op)
            message = f"no rule for {node.op} (node {node.name} in {node.module or 'the model'}): it runs whole on every rank"
            if is_strict:
                raise RuleError(message + "; drop --strict to accept that, or add a rule (ARCHITECTURE.md tells how)")
            warnings.warn(message)
    return rules_of(graph), tuple(unknown)


def make_plan(
    captured: Captured, mesh: Mesh, cluster: ClusterProfile, options: Options, model: Mapping[str, Any]
) -> Planned:
    """Plan a captured model on a mesh of a cluster.

    `model` is stored in the plan as it is. Raises ProfileError (mesh too large), RuleError (strict), InfeasibleError.
    """
    cluster.check(mesh)
    started = time.perf_counter()
    graph = captured.graph
    rules, unknown = checked_rules(graph, is_strict=options.is_strict)
    several = sum(size > 1 for size in mesh.sizes) > 1
    classes = fold(graph, ends=0 if several else 1) if options.is_folded else {node.name: node.name for node in graph}
    builder = ProblemBuilder(graph, rules, classes, mesh, cluster, options.training)
    limit = (
        options.memory_bytes if options.memory_bytes is not None else float(slowest_device(cluster, mesh).memory_bytes)
    )
    planning = builder.build(math.inf)
    built = time.perf_counter()
    allowed = megatron_strategies(planning, builder.analysis, rules)
    solution = _solve(planning, options, limit, allowed)
    baselines = _baselines(planning, options, limit, allowed, solution)
    solved = time.perf_counter()
    strategies = strategies_of(planning, solution)
    summary = Summary(planning, solution, rules, mesh, cluster, options.training)
    predicted = summary.predicted()
    plan = Plan(
        fingerprint=graph.fingerprint(),
        mode=options.training.mode,
        mesh=mesh,
        strategies=strategies,
        moves=moves_of(planning, solution),
        parameters=parameters_of(planning, strategies, mesh, captured.tied),
        nodes=nodes_of(planning, summary.operator_times()),
        cluster=cluster.to_json(),
        model=model,
        problem=to_dict(with_limit(planning, limit).problem),
        summary={
            "predicted": predicted,
            "baselines": baselines,
            "solver": {
                "strategy": options.strategy,
                "objective": options.objective,
                "status": solution.status,
                "bound_s": solution.bound_s,
                "gap": solution.gap,
                "num_variables": solution.num_variables,
                "memory_limit_bytes": limit,
            },
            "coverage": {"split_matmul_flops_fraction": summary.split_matmul_flops_fraction()},
        },
        fallback_ops=unknown,
    )
    return Planned(plan, {"build_s": built - started, "solve_s": solved - built})


def _replicated(planning: PlanningProblem) -> list[int]:
    """The first strategy of every node splits nothing."""
    return [0] * len(planning.strategies)


def _solve(
    planning: PlanningProblem, options: Options, limit: float, allowed: Sequence[Sequence[int]] | None
) -> Solution:
    if options.strategy == "replicated":
        return _fitting(fixed(planning.problem, _replicated(planning)), planning, limit)
    if options.strategy == "greedy":
        return greedy(with_limit(planning, limit).problem)
    if options.strategy == "megatron" and allowed is None:
        raise AutoTPError(
            "this model has no Megatron plan (no linear layers, or convolutions): choose --strategy optimal"
        )
    limited = with_limit(planning, limit).problem
    arguments: dict[str, Any] = {
        "objective": options.objective, "backend": options.solver, "time_limit_s": options.time_limit_s,
    }  # fmt: skip

    def run(problem: Any) -> Solution:
        if options.strategy == "megatron" and allowed is not None:
            return solve_restricted(problem, allowed, **arguments)
        return solve(problem, **arguments)

    if options.objective == "memory":
        return _fitting(run(planning.problem), planning, limit)
    # Without a binding limit the program is smaller and its relaxation integral: try that first.
    free = run(planning.problem)
    return free if max(free.memory_bytes) <= limit else run(limited)


def _fitting(solution: Solution, planning: PlanningProblem, limit: float) -> Solution:
    excess = max(solution.memory_bytes) - limit
    if excess > 0:
        raise InfeasibleError(
            f"this plan does not fit: {planning.problem.device_names[0]} has {limit:.4g} bytes, {excess:.4g} bytes too few; "
            f"it needs {limit + excess:.4g} bytes per device. Use more devices, a smaller batch, or another --strategy"
        )
    return solution


def _baselines(
    planning: PlanningProblem,
    options: Options,
    limit: float,
    allowed: Sequence[Sequence[int]] | None,
    solution: Solution,
) -> dict[str, Any]:
    """Step times of plans people would write, under the same cost model; None where a model has no such plan."""
    whole = fixed(planning.problem, _replicated(planning))
    megatron = None
    if options.strategy == "megatron":
        megatron = solution
    elif allowed is not None:
        megatron = solve_restricted(planning.problem, allowed, objective="time", backend=options.solver)
    row = lambda s: (
        s and {"step_s": s.cost_s, "memory_bytes": max(s.memory_bytes), "fits": max(s.memory_bytes) <= limit}
    )  # noqa: E731
    # With whole inputs on every rank a replicated step does what one device does, and communicates nothing.
    return {"single_device": row(whole), "replicated": row(whole), "megatron": row(megatron)}


def with_model(plan: Plan, **fields: Any) -> Plan:
    """The plan with further facts about its model."""
    return replace(plan, model={**plan.model, **fields})
