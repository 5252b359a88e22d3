"""The code that one rank runs under a plan, to be read: no weights are made and no other rank is needed."""

import torch

from autotp.api import capture_for_planning
from autotp.capture.model_file import reload_model
from autotp.errors import PlanError
from autotp.plans import Plan
from autotp.rewrite.parallelize import build_for_rank
from autotp.runtime.offline import offline


def generated_code(plan: Plan, rank: int = 0) -> str:
    """The forward of `rank`'s module as Python.

    Raises PlanError where the plan was made from a module in memory or has no such rank, CaptureError where its model
    file has changed.
    """
    origin = plan.model.get("origin")
    if origin is None:
        raise PlanError(
            "the plan was made from a module in memory, so its code cannot be made again from the plan alone: print "
            "`autotp.parallelize(model, plan, device_mesh).graph_module.code`"
        )
    if not 0 <= rank < plan.mesh.num_ranks:
        raise PlanError(f"the mesh {plan.mesh} has ranks 0 to {plan.mesh.num_ranks - 1}, and no rank {rank}")
    captured, _ = capture_for_planning(reload_model(origin), None, mode=plan.mode, dtype=plan.model["dtype"])
    module = build_for_rank(captured, plan, rank, offline(plan.mesh, rank), device=torch.device("meta"))
    return str(module.graph_module.code).strip()
