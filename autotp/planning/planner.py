"""From a captured model to a plan: the pipeline's middle, top to bottom."""

import math
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from autotp.capture.export import Captured
from autotp.capture.repeats import fold
from autotp.cost.problem import with_limit
from autotp.errors import InfeasibleError, RuleError
from autotp.graph import Graph
from autotp.hardware.arrange import arrangements
from autotp.hardware.cluster import ClusterProfile
from autotp.mesh import Mesh
from autotp.planning.assemble import moves_of, nodes_of, parameters_of, strategies_of, words_of_problem
from autotp.planning.attempts import Attempts
from autotp.planning.balance import Balanced, Balancer, report
from autotp.planning.search import Options, limits_of, stated
from autotp.planning.synchronised import by_regions
from autotp.plans import Plan
from autotp.rules.enumerate import Shares
from autotp.rules.registry import is_fallback, rules_of
from autotp.rules.rule import OpRule
from autotp.solver.serialise import to_dict


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
            message = (
                f"no rule for {node.op} (node {node.name} in {node.module or 'the model'}): it runs whole on every rank"
            )
            if is_strict:
                raise RuleError(message + "; drop --strict to accept that, or give it a rule with autotp.register_rule")
            warnings.warn(message)
    return rules_of(graph), tuple(unknown)


def classes_of(graph: Graph, mesh: Mesh, options: Options) -> dict[str, str]:
    """For every node the one that stands for it: repeated layers are one, where that was not refused."""
    several = sum(size > 1 for size in mesh.sizes) > 1
    return fold(graph, ends=0 if several else 1) if options.is_folded else {node.name: node.name for node in graph}


def _balanced(attempts: Attempts, shares: Shares | None) -> tuple[Attempts, Balanced | InfeasibleError]:
    """The best plan for one numbering of the devices, or why there is none."""
    try:
        return attempts, Balancer(attempts.mesh, attempts.cluster, attempts.options.objective, attempts).best(shares)
    except InfeasibleError as error:
        return attempts, error


def _order_of(tried: tuple[Attempts, Balanced | InfeasibleError], objective: str) -> tuple[float, float]:
    _, balanced = tried
    if isinstance(balanced, InfeasibleError):
        return math.inf, math.inf
    found = balanced.found
    return (max(found.solution.memory_bytes), found.step_s) if objective == "memory" else (found.step_s, 0.0)


def make_plan(
    captured: Captured,
    mesh: Mesh,
    cluster: ClusterProfile,
    options: Options,
    model: Mapping[str, Any],
    shares: Shares | None = None,
) -> Planned:
    """Plan a captured model on a mesh of a cluster.

    `model` is stored in the plan as it is. `shares`: divisions of every axis that are given, not sought. Raises
    ProfileError (mesh too large), RuleError (strict), InfeasibleError.
    """
    cluster.check(mesh)
    started = time.perf_counter()
    graph = captured.graph
    rules, unknown = checked_rules(graph, is_strict=options.is_strict)
    classes = classes_of(graph, mesh, options)
    orders = (tuple(range(cluster.max_ranks)),) if options.keeps_order or shares else arrangements(cluster, mesh)
    tried = [_balanced(Attempts(graph, rules, classes, mesh, cluster.arranged(o), options), shares) for o in orders]
    chosen = min(range(len(orders)), key=lambda i: _order_of(tried[i], options.objective))
    attempts, balanced = tried[chosen]
    if isinstance(balanced, InfeasibleError):
        balanced = Balanced(attempts.anyway(balanced), 1)
    cluster = attempts.cluster
    found = balanced.found
    planning, search, solution, summary = found.planning, found.search, found.solution, found.summary
    baselines = search.baselines(solution, summary.single_device_s())
    planned = time.perf_counter()
    strategies = strategies_of(planning, solution)
    apart = summary.predicted()
    predicted = by_regions(apart, found.step_s)
    scale = predicted["compute_s"] / apart["compute_s"] if apart["compute_s"] else 1.0
    times_s = {name: (scale * f, scale * b) for name, (f, b) in summary.operator_times().items()}
    capacities = [cluster.device(rank).memory_bytes for rank in range(mesh.num_ranks)]
    plan = Plan(
        fingerprint=graph.fingerprint(),
        mode=options.training.mode,
        mesh=mesh,
        strategies=strategies,
        moves=moves_of(planning, solution),
        parameters=parameters_of(planning, strategies, mesh, captured.tied),
        nodes=nodes_of(planning, times_s),
        cluster=cluster.to_json(),
        model=model,
        problem={
            **to_dict(with_limit(planning, search.limit_bytes).problem),
            **words_of_problem(planning, solution, search.constrained),
        },
        summary={
            "training": asdict(options.training),
            "predicted": predicted,
            "baselines": baselines,
            "balance": {
                "device_order": list(orders[chosen]),
                **report(balanced, mesh, cluster, attempts.even_s, attempts.bound_s(found)),
            },
            "solver": {
                "strategy": options.strategy,
                "objective": options.objective,
                "status": solution.status,
                "bound_s": solution.bound_s,
                "gap": solution.gap,
                "num_variables": solution.num_variables,
                **stated(limits_of(options.memory_bytes, capacities)),
                "fits": search.fits(solution),
                "force": list(options.force),
                "forbid": list(options.forbid),
            },
            "coverage": {"split_matmul_flops_fraction": summary.split_matmul_flops_fraction()},
        },
        fallback_ops=unknown,
    )
    return Planned(plan, {"build_s": attempts.build_s, "solve_s": planned - started - attempts.build_s})
