"""A rank's parameters and buffers, under the names they have in the model."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from autotp.errors import PlanError
from autotp.placement import Placement, R, local_shape
from autotp.plans import Plan
from autotp.rewrite.shards import shard_tensor

Init = Callable[[str, Tensor], None]


def placements_of(module: nn.Module, plan: Plan) -> tuple[dict[str, Placement], dict[str, tuple[int, ...]]]:
    """Placement and whole shape of every parameter and buffer of the whole module, by qualified name.

    What the graph does not use is replicated. Raises PlanError where a name or shape of the plan is not the module's.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in _tensors(module).items()}
    placements: dict[str, Placement] = dict.fromkeys(shapes, (R,) * len(plan.mesh.axes))
    for parameter in plan.parameters.values():
        for name in parameter.names:
            if shapes.get(name) != tuple(parameter.shape):
                raise PlanError(
                    f"the plan has a parameter {name} of shape {tuple(parameter.shape)}, the model "
                    f"{shapes.get(name, 'none of that name')}: it was made for another model"
                )
            placements[name] = parameter.placement
    return placements, shapes


def shard_module(
    module: nn.Module, plan: Plan, rank: int, *, init: Init | None = None, device: torch.device | None = None
) -> nn.Module:
    """A tree of plain modules that holds this rank's shard of every parameter and buffer under its own name.

    Shards of real tensors are copies. A fake or meta tensor becomes zeros of the local shape, which `init(name, shard)`
    fills; on `device="meta"` nothing is allocated. Tensors that are one object in `module` (tied weights) stay one.
    Raises PlanError where plan and module do not belong together.
    """
    placements, _ = placements_of(module, plan)
    coordinates = plan.mesh.coordinates(rank)
    made: dict[int, Tensor] = {}

    def local(name: str, tensor: Tensor) -> Tensor:
        if id(tensor) not in made:
            where = device or torch.device("cpu" if tensor.is_meta else tensor.device)
            if isinstance(tensor, FakeTensor) or tensor.is_meta:
                shape = local_shape(tensor.shape, placements[name], coordinates)
                shard = torch.zeros(shape, dtype=tensor.dtype, device=where)
                if init is not None:
                    with torch.no_grad():
                        init(name, shard)
            else:
                shard = shard_tensor(tensor, placements[name], plan.mesh, coordinates).to(where)
            is_parameter = isinstance(tensor, nn.Parameter)
            made[id(tensor)] = nn.Parameter(shard, tensor.requires_grad) if is_parameter else shard
        return made[id(tensor)]

    tree = nn.Module()
    for path, owner in module.named_modules(remove_duplicate=False):
        home = _child(tree, path)
        prefix = f"{path}." if path else ""
        for name, parameter in owner._parameters.items():
            home.register_parameter(name, None if parameter is None else local(prefix + name, parameter))  # type: ignore[arg-type]
        for name, buffer in owner._buffers.items():
            shard = None if buffer is None else local(prefix + name, buffer)
            home.register_buffer(name, shard, persistent=name not in owner._non_persistent_buffers_set)
    return tree


def _tensors(module: nn.Module) -> Mapping[str, Tensor]:
    return dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))


def _child(tree: nn.Module, path: str) -> nn.Module:
    for name in path.split(".") if path else ():
        if name not in tree._modules:
            tree.add_module(name, nn.Module())
        tree = tree.get_submodule(name)
    return tree
