"""A plan that does not fit its devices: what is missing where, and what would help, in words."""

from collections.abc import Sequence
from dataclasses import dataclass

from autotp.plans import Plan
from autotp.report.units import size

MAX_TIMES = 8  # as many devices as this times the present number are thought of


@dataclass(frozen=True)
class Remedy:
    """A change that makes the model fit, and the bytes that the fullest device then needs."""

    what: str
    memory_bytes: float


def advice(found: Sequence[Remedy]) -> str:
    """Remedies in words."""
    if not found:
        return (
            f"Neither a smaller batch, nor an optimizer without state, nor checkpointing, nor up to {MAX_TIMES} times the "
            "devices would do alone: combine them, or choose a smaller model"
        )
    return "What would do: " + "; ".join(f"{one.what}, which needs {size(one.memory_bytes)}" for one in found)


def fits(plan: Plan) -> bool:
    """Whether every rank has room for what the plan needs there; also where a plan does not say."""
    return bool(plan.summary.get("solver", {}).get("fits", True))


def shortage_text(plan: Plan) -> str:
    """What is missing, and what would do; nothing where the plan fits."""
    if fits(plan):
        return ""
    found = plan.summary.get("shortage")
    if not found:
        return "the plan does not fit its devices"
    needed, limit, missing = (size(found[f"{name}_bytes"]) for name in ("needed", "limit", "missing"))
    where = f"rank {found['rank']} ({found['device']})"
    told = advice([Remedy(**remedy) for remedy in found["remedies"]])
    return f"the plan does not fit: {where} needs {needed}, {missing} more than its {limit}. {told}"
