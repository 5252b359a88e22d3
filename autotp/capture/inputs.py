"""Example inputs as JSON: their structure, shapes and dtypes, so that a plan can capture its model again."""

from typing import Any

import torch
from torch.utils import _pytree as pytree

from autotp.errors import PlanError


def describe(inputs: Any) -> Any:
    """A JSON description of nested dicts, tuples and lists of tensors, None, numbers and strings."""
    if isinstance(inputs, torch.Tensor):
        needs = ["needs_gradient"] if inputs.requires_grad else []
        return {"tensor": [str(inputs.dtype).removeprefix("torch."), list(inputs.shape), *needs]}
    if isinstance(inputs, dict):
        return {"dict": [[key, describe(value)] for key, value in inputs.items()]}
    if isinstance(inputs, tuple | list):
        return {type(inputs).__name__: [describe(value) for value in inputs]}
    if inputs is None or isinstance(inputs, bool | int | float | str):
        return {"value": inputs}
    raise PlanError(
        f"example inputs of type {type(inputs).__name__} cannot be stored in a plan: pass tensors and containers"
    )


def restore(description: Any) -> Any:
    """Inputs of the described structure; the tensors are zeros, since capture reads no values."""
    try:
        ((kind, content),) = description.items()
    except (AttributeError, ValueError) as error:
        raise PlanError("the plan's description of the inputs is corrupt; make the plan again") from error
    if kind == "tensor":
        return torch.zeros(content[1], dtype=getattr(torch, content[0]), requires_grad="needs_gradient" in content[2:])
    if kind == "dict":
        return {key: restore(value) for key, value in content}
    if kind in ("tuple", "list"):
        values = [restore(value) for value in content]
        return tuple(values) if kind == "tuple" else values
    return content


def distinct(inputs: dict[str, Any]) -> dict[str, Any]:
    """The same nested inputs, where a tensor that is passed twice is two: a trace would take it for one input."""
    seen: set[int] = set()

    def once(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in seen:
            seen.add(id(tensor))
            return tensor
        return tensor.detach().clone().requires_grad_(tensor.requires_grad)

    found: dict[str, Any] = pytree.tree_map_only(torch.Tensor, once, inputs)
    return found
