"""The products of a plan against the roof of its device (Williams et al., 2009): arithmetic or memory, which limits?"""

import pandas as pd

from autotp.plans import Plan
from autotp.report.html_table import folded
from autotp.report.words import short_op
from autotp.report.work import local_bytes, local_flops, local_tensors


def roofline(plan: Plan) -> pd.DataFrame:
    """Every product of one rank, forward: FLOPs per byte, FLOPs per predicted second, and what limits it."""
    rows = []
    roofs = {dtype: roof(plan, dtype) for dtype in _dtypes(plan)}
    for name, node in plan.nodes.items():
        flops = local_flops(plan, name) if node.kind == "op" and node.forward_s else 0
        if flops:
            num_bytes, dtype = local_bytes(plan, name), local_tensors(plan, name)[1][0][0].dtype
            ceiling, bandwidth = roofs.get(dtype, (None, 0.0))
            limit = ("arithmetic" if flops / num_bytes * bandwidth > ceiling else "memory") if ceiling else ""
            rows.append((node.module, short_op(node.op), dtype, flops, num_bytes, flops / num_bytes,
                         flops / node.forward_s, limit, node.forward_s))  # fmt: skip
    columns = ["module", "op", "dtype", "local_flops", "local_bytes", "intensity_flops_per_byte", "rate_flops_per_s"]
    return pd.DataFrame(rows, columns=[*columns, "limited_by", "forward_s"])


def folded_roofline(plan: Plan) -> pd.DataFrame:
    return folded(roofline(plan), "module", each=("forward_s",))


def roof(plan: Plan, dtype: str) -> tuple[float | None, float]:
    """(FLOPs per second of products at best, None where the profile has no rate of the dtype; bytes per second)."""
    device = plan.cluster["device_profiles"][plan.cluster["devices"][0]]
    return device["matmul_flops_per_s"].get(dtype), device["memory_bytes_per_s"]


def _dtypes(plan: Plan) -> set[str]:
    return {spec.dtype for node in plan.nodes.values() for spec in node.outputs}
