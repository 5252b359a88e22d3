"""What memory costs: the fastest step within less and less of it."""

from dataclasses import replace
from typing import Any

import numpy as np

from autotp.capture.export import Captured
from autotp.errors import InfeasibleError
from autotp.hardware.cluster import ClusterProfile
from autotp.mesh import Mesh
from autotp.planning.planner import make_plan
from autotp.planning.search import Options
from autotp.plans import Plan

NUM_LIMITS = 8
GAP = 0.01  # relative: seconds of a point may be so far from the least


def curve_of(
    captured: Captured, plan: Plan, mesh: Mesh, cluster: ClusterProfile, options: Options
) -> list[dict[str, Any]]:
    """Points of (`limit_bytes`, `memory_bytes` of the fullest device, `step_s`, `gap`), the least memory first.

    From the fewest bytes that any plan needs on its fullest device to those of the fastest plan within the device (the
    bytes of the planning model, which limits are kept by); a limit within which no plan was found is left out.
    """
    asked = replace(options, gap=max(GAP, options.gap))
    least = make_plan(captured, mesh, cluster, replace(asked, objective="memory"), {}).plan
    fewest, most = (max(one.summary["predicted"]["memory_bytes"]) for one in (least, plan))
    most = max(most, max(make_plan(captured, mesh, cluster, asked, {}).plan.summary["predicted"]["memory_bytes"]))
    points = []
    for limit in np.geomspace(fewest * (1 + 1e-6), most * (1 + 1e-6), NUM_LIMITS).tolist():
        try:
            found = make_plan(captured, mesh, cluster, replace(asked, memory_bytes=limit, objective="time"), {}).plan
        except InfeasibleError:
            continue
        predicted = found.summary["predicted"]
        points.append(
            {
                "limit_bytes": limit,
                "memory_bytes": max(predicted["memory_bytes"]),
                "step_s": predicted["step_s"],
                "gap": found.summary["solver"]["gap"],
            }
        )
    return points
