"""What a plan that does not fit says of that, and that it is not run unasked."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from autotp.errors import PlanError
from autotp.hardware.cluster import ClusterProfile
from autotp.plans import Plan
from autotp.report.shortage import Remedy, fits, shortage_text


def with_shortage(plan: Plan, limit_bytes: float | None, remedies: Sequence[Remedy]) -> Plan:
    """The plan with `summary["shortage"]`: the rank that misses most, its bytes, and the remedies.

    `limit_bytes`: of every device, what it has where None.
    """
    cluster, needed = ClusterProfile.from_json(dict(plan.cluster)), plan.summary["predicted"]["memory_bytes"]
    limits = [limit_bytes or float(cluster.device(rank).memory_bytes) for rank in range(plan.mesh.num_ranks)]
    rank = max(range(len(limits)), key=lambda r: needed[r] - limits[r])
    shortage: dict[str, Any] = {
        "rank": rank,
        "device": cluster.devices[rank],
        "needed_bytes": needed[rank],
        "limit_bytes": limits[rank],
        "missing_bytes": needed[rank] - limits[rank],
        "remedies": [asdict(remedy) for remedy in remedies],
    }
    return replace(plan, summary={**plan.summary, "shortage": shortage})


def check_fits(plan: Plan) -> None:
    """Raise PlanError where a plan does not fit the devices it was made for."""
    if not fits(plan):
        raise PlanError(f"{shortage_text(plan)}. To run it all the same, where there is more room: must_fit=False")
