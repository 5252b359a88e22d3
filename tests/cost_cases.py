"""Calls of torch operators as nodes of a planning graph, with the tensors they were called with."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from autotp.graph import Node, Operand, TensorSpec, Value
from autotp.placement import Placement, R
from autotp.rules.strategy import Choice, Strategy


@dataclass(frozen=True)
class Case:
    """A call: its node, its operands' specs and tensors, and the operator itself with all its arguments."""

    node: Node
    specs: tuple[TensorSpec, ...]
    tensors: tuple[Tensor, ...]
    operator: Any
    arguments: dict[str, Any]

    def run(self) -> tuple[Tensor, ...]:
        result = self.operator(**self.arguments)
        return tuple(result) if isinstance(result, (tuple, list)) else (result,)


def spec_of(tensor: Tensor) -> TensorSpec:
    return TensorSpec(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), tensor.requires_grad)


def call(op: str, *args: Any, **kwargs: Any) -> Case:
    """The case of `call("linear", x, weight)`; `op` may name an overload, `pow.Tensor_Scalar`."""
    name, _, overload = op.partition(".")
    operator = getattr(getattr(torch.ops.aten, name), overload or "default")
    schema = operator._schema.arguments
    bound = {argument.name: argument.default_value for argument in schema}
    bound |= dict(zip([argument.name for argument in schema], args, strict=False)) | kwargs
    tensors: list[Tensor] = []

    def stand_in(value: Any) -> Any:
        if isinstance(value, Tensor):
            tensors.append(value)
            return Operand(len(tensors) - 1)
        return tuple(map(stand_in, value)) if isinstance(value, (list, tuple)) else value

    arguments = {key: stand_in(value) for key, value in bound.items()}
    specs = tuple(map(spec_of, tensors))
    result = operator(**bound)
    outputs = tuple(map(spec_of, result if isinstance(result, (tuple, list)) else (result,)))
    inputs = tuple(Value(f"x{i}") for i in range(len(tensors)))
    node = Node(name, "op", f"aten.{name}.{overload or 'default'}", inputs, outputs, MappingProxyType(arguments))
    return Case(node, specs, tuple(tensors), operator, bound)


def whole(case: Case, num_axes: int = 1) -> Strategy:
    """Nothing is split."""
    placement: Placement = (R,) * num_axes
    count = len(case.specs), len(case.node.outputs)
    return Strategy((Choice("whole"),) * num_axes, (placement,) * count[0], (placement,) * count[1])
