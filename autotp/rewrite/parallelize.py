"""The last stage in one call: a captured model and a plan to this rank's ParallelModule."""

from collections.abc import Mapping

import torch
from torch.distributed.device_mesh import DeviceMesh

from autotp.capture.export import Captured
from autotp.errors import PlanError
from autotp.plans import Plan
from autotp.rewrite.parameters import Init, placements_of
from autotp.rewrite.rewrite import rewrite
from autotp.runtime.communicator import Communicator, communicators_of
from autotp.runtime.module import ParallelModule, Sharding
from autotp.runtime.reductions import Reductions


def build_module(
    captured: Captured, plan: Plan, device_mesh: DeviceMesh, *, inputs: str = "whole", init: Init | None = None
) -> ParallelModule:
    """This rank's module under a plan, over the process groups of a device mesh.

    `init(name, shard)` fills the shards of fake parameters, which are zeros without it. Raises PlanError where plan,
    model and mesh do not belong together.
    """
    coordinates = device_mesh.get_coordinate()
    if coordinates is None:
        raise PlanError("this process is not in the device mesh")
    device = torch.device("cuda", torch.cuda.current_device()) if device_mesh.device_type == "cuda" else None
    rank = plan.mesh.rank(coordinates)
    return build_for_rank(captured, plan, rank, communicators_of(device_mesh), inputs=inputs, init=init, device=device)


def build_for_rank(
    captured: Captured,
    plan: Plan,
    rank: int,
    communicators: Mapping[str, Communicator],
    *,
    inputs: str = "whole",
    init: Init | None = None,
    device: torch.device | None = None,
) -> ParallelModule:
    """The module of one rank over any communicators, also simulated ones. Errors and arguments as `build_module`."""
    reductions = Reductions(overlaps=plan.overlaps)
    module = rewrite(
        captured.module, captured.graph, plan, rank, communicators, init=init, device=device, reductions=reductions
    )
    placements, shapes = placements_of(captured.module, plan)
    input_shapes = tuple(node.outputs[0].shape for node in captured.graph if node.kind == "input")
    sharding = Sharding(plan.mesh, rank, placements, shapes, input_shapes, plan.mode)
    return ParallelModule(module, sharding, captured, communicators, inputs=inputs, reductions=reductions)
