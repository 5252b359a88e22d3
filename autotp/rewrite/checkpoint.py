"""Whole checkpoints: a sharded module loads the model's own state dict, and gives it back."""

from collections.abc import Mapping

import torch
from torch import Tensor

from autotp.errors import PlanError
from autotp.placement import R
from autotp.redistribute import TABLE, Step
from autotp.rewrite.shards import shard_tensor
from autotp.runtime.module import ParallelModule
from autotp.runtime.moves import Redistribute


def load_whole_state_dict(module: ParallelModule, state: Mapping[str, Tensor]) -> None:
    """Copy this rank's part of every whole tensor into the module.

    Raises PlanError, before anything is copied, where names are missing or unknown, or a shape is not the whole one.
    """
    sharding, own = module.sharding, module.state_dict(keep_vars=True)
    missing, unknown = [name for name in own if name not in state], [name for name in state if name not in own]
    wrong = [name for name in own if name in state and tuple(state[name].shape) != sharding.shapes[name]]
    if missing or unknown or wrong:
        raise PlanError(
            f"the state dict is not this model's: missing {missing[:5]}, unknown {unknown[:5]}, of another shape "
            f"{[f'{name} {tuple(state[name].shape)}, not {sharding.shapes[name]}' for name in wrong[:5]]}"
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(shard_tensor(state[name], sharding.placements[name], sharding.mesh, sharding.coordinates))


def gather_state_dict(module: ParallelModule) -> dict[str, Tensor]:
    """The whole model's state dict, on every rank. Every rank must call it: shards are gathered axis by axis."""
    found: dict[int, Tensor] = {}  # by identity: tied tensors are gathered once
    state = module.state_dict(keep_vars=True)
    for name, tensor in state.items():
        if id(tensor) not in found:
            found[id(tensor)] = _whole(module, name, tensor.detach())
    return {name: found[id(tensor)] for name, tensor in state.items()}


def _whole(module: ParallelModule, name: str, tensor: Tensor) -> Tensor:
    sharding = module.sharding
    placement, shape = sharding.placements[name], sharding.shapes[name]
    for axis, axis_name in enumerate(sharding.mesh.names):
        if placement[axis].kind == "S":
            target = (*placement[:axis], R, *placement[axis + 1 :])
            forward, _ = TABLE["S", "R"]
            step = Step(axis, placement, target)
            communicator = module.communicators[axis_name]
            move = Redistribute(step, forward, "none", shape, sharding.mesh, sharding.rank, communicator)
            tensor, placement = move(tensor), target
    return tensor.clone()
