"""What a plan that does not fit says of that, and that it is not run unasked."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from autotp.errors import PlanError
from autotp.plans import Plan
from autotp.report.room import least_room
from autotp.report.shortage import Remedy, fits, shortage_text


def with_shortage(plan: Plan, remedies: Sequence[Remedy]) -> Plan:
    """The plan with `summary["shortage"]`: the rank that misses most, its bytes, and the remedies."""
    room = least_room(plan)
    shortage: dict[str, Any] = {
        "rank": room.rank,
        "device": room.device,
        "needed_bytes": room.held_bytes,
        "limit_bytes": room.limit_bytes,
        "missing_bytes": -room.free_bytes,
        "remedies": [asdict(remedy) for remedy in remedies],
    }
    return replace(plan, summary={**plan.summary, "shortage": shortage})


def check_fits(plan: Plan) -> None:
    """Raise PlanError where a plan does not fit the devices it was made for."""
    if not fits(plan):
        raise PlanError(f"{shortage_text(plan)}. To run it all the same, where there is more room: must_fit=False")
