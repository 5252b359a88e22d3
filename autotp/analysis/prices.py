"""Shadow prices of a plan: what one more GiB of memory, or a tenth more bandwidth on a link, would save of a step.

Each is told twice: `price_s`, from the solver alone (the dual of the memory rows; the same plan on the faster link), and
`solved_again_s`, by planning for the better machine. They agree where the best plan stays the same.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from autotp.analysis.explain import stored_problem
from autotp.analysis.what_if import changed
from autotp.errors import InfeasibleError
from autotp.hardware.cluster import ClusterProfile
from autotp.plans import Plan
from autotp.solver.baselines import solve_restricted
from autotp.solver.evaluate import evaluate
from autotp.solver.prices import memory_prices
from autotp.solver.serialise import from_dict

GIB = float(2**30)
MORE = 1.1  # times the bandwidth
Row = dict[str, Any]


def with_prices(plan: Plan, cluster: ClusterProfile, plan_again: Callable[[ClusterProfile], Plan]) -> Plan:
    """The plan with `summary["shadow_prices"]`: a row per link that its mesh uses, and one for memory.

    `plan_again` plans the same model with the same options for another cluster.
    """
    rows = [memory_row(plan)]
    for place in used_links(plan):
        better = plan_again(changed(cluster, [f"link.{place}.bandwidth*={MORE}"]))
        rows.append(link_row(plan, better, place))
    return replace(plan, summary={**plan.summary, "shadow_prices": rows})


def memory_row(plan: Plan, more_bytes: float = GIB) -> Row:
    """What so much more memory on every device is worth; nothing where the limit does not bind."""
    problem, allowed = stored_problem(plan)
    now_s = solve_restricted(problem, allowed).cost_s
    roomier = replace(problem, limit_bytes=problem.limit_bytes + more_bytes)
    saved_s = now_s - solve_restricted(roomier, allowed).cost_s
    price_s = 0.0
    if np.isfinite(problem.limit_bytes).all():
        try:
            price_s = sum(memory_prices(problem)[1]) * more_bytes
        except InfeasibleError:
            price_s = 0.0
    return {"what": f"{more_bytes / GIB:g} GiB more memory per device", "price_s": price_s, "solved_again_s": saved_s}


def link_row(plan: Plan, better: Plan, place: str) -> Row:
    """What the better link is worth: `better` is the plan for it."""
    now_s = evaluate(from_dict(plan.problem), plan.problem["choices"]).cost_s
    problem = from_dict(better.problem)
    same_s = evaluate(problem, plan.problem["choices"]).cost_s
    best_s = evaluate(problem, better.problem["choices"]).cost_s
    where = "between nodes" if place == "inter" else "inside a node"
    what = f"{MORE - 1:.0%} more bandwidth {where}"
    return {"what": what, "price_s": now_s - same_s, "solved_again_s": now_s - best_s}


def used_links(plan: Plan) -> list[str]:
    """`intra` and `inter`, where the mesh has an axis that talks over them."""
    per_node = plan.cluster["ranks_per_node"]
    found = []
    for axis, size in enumerate(plan.mesh.sizes):
        if size > 1:
            spans = any(len({rank // per_node for rank in group}) > 1 for group in plan.mesh.groups(axis))
            found.append("inter" if spans else "intra")
    return [place for place in ("intra", "inter") if place in found]
