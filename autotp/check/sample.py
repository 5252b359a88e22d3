"""A call of an operator with real tensors."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from autotp.graph import TensorSpec
from autotp.runtime.local_ops_find import find_operator


@dataclass(frozen=True)
class Sample:
    """A call of an operator, named as in `aten.add.Tensor`.

    - `tiles`: see `rule_for`.
    - `mutated`: operands that the operator writes to.
    - `constant`: operands without gradient, besides integers and those written to.
    - `shapes_only`: values are not compared, for they are not defined (`empty`) or drawn.
    - `min_cuts`: letters that may be cut, at least: a rule that forbids everything is not right, it is useless.
    """

    op: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    tiles: tuple[int, ...] = ()
    shapes_only: bool = False
    mutated: tuple[int, ...] = ()
    constant: tuple[int, ...] = ()
    min_cuts: int = 1

    def bound(self) -> dict[str, Any]:
        """Every argument of the schema by name."""
        schema = find_operator(self.op)._schema
        bound = {a.name: a.default_value if a.has_default_value() else None for a in schema.arguments}
        names = [a.name for a in schema.arguments]
        return {**bound, **dict(zip(names, self.args, strict=False)), **self.kwargs}


def tensors_in(bound: Mapping[str, Any]) -> list[Tensor]:
    found = [item for value in bound.values() for item in (value if isinstance(value, (list, tuple)) else (value,))]
    return [item for item in found if isinstance(item, Tensor)]


def map_tensors(value: Any, change: Callable[[Tensor], Any]) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(map_tensors(item, change) for item in value)
    return change(value) if isinstance(value, Tensor) else value


def literal(value: Any) -> Any:
    """A literal argument as the planning graph has it."""
    if isinstance(value, (list, tuple)):
        return tuple(map(literal, value))
    is_named = isinstance(value, (torch.dtype, torch.layout, torch.memory_format))
    return str(value).removeprefix("torch.") if is_named else None if isinstance(value, torch.device) else value


def call(op: str, arguments: Mapping[str, Any]) -> tuple[Tensor, ...]:
    made = find_operator(op)(**arguments)
    return (made,) if isinstance(made, Tensor) else tuple(made)


def positional(op: str, arguments: Mapping[str, Any]) -> list[Any]:
    return [arguments[a.name] for a in find_operator(op)._schema.arguments if not a.kwarg_only]


def keyword_only(op: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {a.name: arguments[a.name] for a in find_operator(op)._schema.arguments if a.kwarg_only}


def is_float(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def spec_of(tensor: Tensor) -> TensorSpec:
    return TensorSpec(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), is_float(tensor))


def differentiate(
    results: Sequence[Tensor], leaves: Sequence[Tensor], gradients: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """Gradients of the leaves that want one, zeros where a result does not depend on them."""
    pairs = [(r, g) for r, g in zip(results, gradients, strict=True) if r.requires_grad and g is not None]
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    if not pairs or not wanted:
        return [torch.zeros_like(leaf) if leaf.requires_grad else None for leaf in leaves]
    outputs, given = zip(*pairs, strict=True)
    found = iter(torch.autograd.grad(outputs, wanted, given, allow_unused=True, materialize_grads=True))
    return [next(found) if leaf.requires_grad else None for leaf in leaves]
