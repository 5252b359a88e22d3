"""The local operators that candidate strategies of a model would run, each once, as calls that any process can make."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from autotp.capture.export import Captured
from autotp.cost.compute import operator_time_s
from autotp.cost.families import named_operands
from autotp.cost.local import local_shape_of
from autotp.cost.operator_key import operator_key
from autotp.cost.problem import ProblemBuilder
from autotp.cost.training import Training
from autotp.errors import RuleError
from autotp.graph import Node, Operand, Value
from autotp.hardware.cluster import ClusterProfile
from autotp.mesh import Mesh
from autotp.placement import num_elements
from autotp.planning.dry_run import ShapeCommunicator
from autotp.rewrite.emit import arguments_of
from autotp.rewrite.localise import localise
from autotp.rules.rule import OpRule
from autotp.rules.strategy import Strategy
from autotp.runtime.local_ops import local_operator
from autotp.runtime.local_ops_find import find_operator

MAX_RANKS = 64  # that are looked at for the one with the most work


@dataclass(frozen=True, slots=True)
class TensorShape:
    """An operand. `order`: its dims as they lie in memory, the outermost first; `limit`: what integers stay below."""

    shape: tuple[int, ...]
    dtype: str
    is_trained: bool
    order: tuple[int, ...]
    limit: int


@dataclass(frozen=True)
class LocalOperator:
    """A call on one rank. In `args` and `kwargs` an Operand stands for the tensor; `sizes`: of the axes in `axes`."""

    key: str
    op: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    operands: tuple[TensorShape, ...]
    predicted_s: float
    local: str = ""
    constants: Mapping[str, Any] = field(default_factory=dict)
    axes: tuple[tuple[int, int, int], ...] = ()  # (axis, rank on it, its size)


def local_operators(
    captured: Captured,
    rules: Mapping[str, OpRule],
    classes: Mapping[str, str],
    mesh: Mesh,
    cluster: ClusterProfile,
    training: Training,
) -> list[LocalOperator]:
    """Those of all strategies that the planner would choose among, without repetition, the longest first."""
    builder = ProblemBuilder(captured.graph, rules, classes, mesh, cluster, training)
    fx_nodes, found = captured.fx_nodes, {}
    for node, strategies in builder.candidates():
        if node.kind != "op" or node.writes:
            continue
        rule, specs = rules[node.name], captured.graph.input_specs(node)
        for strategy in strategies:
            key = operator_key(node, rule, strategy, specs)
            if key in found:
                continue
            device = cluster.device(0)
            predicted = operator_time_s(node, rule, strategy, specs, node.outputs, device, training.mode, mesh)
            made = _local(captured, fx_nodes[node.name], node, rule, strategy, mesh, key, sum(predicted))
            if made is not None:
                found[key] = made
    return sorted(found.values(), key=lambda each: (-each.predicted_s, each.key))


def _local(
    captured: Captured,
    fx_node: torch.fx.Node,
    node: Node,
    rule: OpRule,
    strategy: Strategy,
    mesh: Mesh,
    key: str,
    predicted_s: float,
) -> LocalOperator | None:
    """The call of the rank with the most work; None where a strategy cannot be run at all."""
    specs = captured.graph.input_specs(node)
    ranks = [mesh.coordinates(rank) for rank in range(min(mesh.num_ranks, MAX_RANKS))]

    def held(at: tuple[int, ...]) -> int:
        both = ((specs, strategy.operands), (node.outputs, strategy.results))
        return sum(
            num_elements(local_shape_of(spec, placement, at))
            for each, placements in both
            for spec, placement in zip(each, placements, strict=True)
        )

    at = max(ranks, key=held)
    try:
        call = localise(node, rule, strategy, mesh, at)
    except RuleError:
        return None
    slots: list[Any] = [Operand(index) for index in range(len(node.inputs))]
    args, kwargs = arguments_of(fx_node, node, call, slots)
    flows = any(spec.has_gradient for spec in node.outputs)
    operands = tuple(
        TensorShape(
            local_shape_of(spec, placement, at), spec.dtype, spec.has_gradient and flows, _order(captured, value),
            _limit(node, index, captured),
        )
        for index, (value, spec, placement) in enumerate(zip(node.inputs, specs, strategy.operands, strict=True))
    )  # fmt: skip
    axes = tuple((axis, at[axis], mesh.sizes[axis]) for axis in call.axes)
    return LocalOperator(key, call.op, args, kwargs, operands, predicted_s, call.local, dict(call.constants), axes)


def _order(captured: Captured, value: Value) -> tuple[int, ...]:
    """Dims from the outermost in memory to the innermost, as the captured model has the tensor."""
    meta = captured.fx_nodes[value.node].meta["val"]
    tensor = meta[value.index] if isinstance(meta, list | tuple) else meta
    strides = tensor.stride()
    return tuple(sorted(range(len(strides)), key=lambda dim: -strides[dim]))


def _limit(node: Node, index: int, captured: Captured) -> int:
    """What integers of an operand must stay below: rows of a table, classes of a loss, or any dim that they may index."""
    specs = captured.graph.input_specs(node)
    for op, name, dim in (("embedding", "weight", 0), ("cross_entropy_loss", "self", 1), ("nll_loss", "self", 1)):
        if node.short_op.startswith(op):
            (table,) = named_operands(node, [name])
            return max(1, specs[table].shape[dim] if len(specs[table].shape) > dim else 1)
    others = [size for other, spec in enumerate(specs) if other != index for size in spec.shape]
    return max(1, min(others, default=1))


# ---------------------------------------------------------------- running one


def runnable(local: LocalOperator, device: torch.device) -> tuple[Any, list[Tensor]]:
    """A function that makes the call, and its operands. Collectives inside send nothing."""
    tensors = [_tensor(each, device) for each in local.operands]
    args, kwargs = _filled(local.args, tensors), {key: _filled(value, tensors) for key, value in local.kwargs.items()}
    if local.local:
        communicators = {axis: ShapeCommunicator(str(axis), rank, size) for axis, rank, size in local.axes}
        target: Any = local_operator(local.local, local.constants, communicators)
    else:
        target = find_operator(local.op)
    return (lambda: target(*args, **kwargs)), tensors


def _tensor(wanted: TensorShape, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = [wanted.shape[dim] for dim in wanted.order]
    dtype = getattr(torch, wanted.dtype)
    if dtype.is_floating_point or dtype.is_complex:
        values = (torch.rand(shape, generator=generator) * 0.9 + 0.1).to(dtype)
    elif dtype == torch.bool:
        values = torch.ones(shape, dtype=dtype)
    else:
        values = torch.randint(wanted.limit, shape, generator=generator).to(dtype)
    back = [wanted.order.index(dim) for dim in range(len(shape))]
    return values.to(device).permute(back).requires_grad_(wanted.is_trained)


def _filled(value: Any, tensors: list[Tensor]) -> Any:
    if isinstance(value, Operand):
        return tensors[value.index]
    if isinstance(value, dict | str):
        return value
    return type(value)(_filled(each, tensors) for each in value) if isinstance(value, list | tuple) else value
