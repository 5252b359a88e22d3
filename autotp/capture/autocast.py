"""Autocast as casts: what torch would do when an operator runs, said by operators of the graph."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode


class Casts(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes which of some tensors are cast while an operator runs, and to what."""

    def __init__(self, tensors: list[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._tensors = tensors
        self.dtypes: dict[int, torch.dtype] = {}  # by position in `tensors`

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        if func is torch.ops.aten._to_copy.default and isinstance(named.get("dtype"), torch.dtype):
            for index, tensor in enumerate(self._tensors):
                if tensor is args[0]:
                    self.dtypes[index] = named["dtype"]
        return func(*args, **named)


def casts_of(node: fx.Node, values: Any, device_type: str, dtype: torch.dtype) -> dict[int, torch.dtype]:
    """To what dtype autocast takes the tensors among the (args, kwargs) `values` of a node: by their position.

    An operator that is made of others inside which autocast acts takes all of its floats to `dtype`.
    """
    tensors = [leaf for leaf in pytree.tree_leaves(values) if isinstance(leaf, Tensor)]
    mode = next((t.fake_mode for t in tensors if hasattr(t, "fake_mode")), None)
    if mode is None or not callable(node.target):
        return {}
    args, kwargs = values
    seen = Casts(tensors)
    with torch.no_grad(), mode:
        plain = node.target(*args, **kwargs)
        with torch.autocast(device_type, dtype, cache_enabled=False), seen:
            cast = node.target(*args, **kwargs)
    if not seen.dtypes and _dtypes(plain) != _dtypes(cast):
        return {i: dtype for i, t in enumerate(tensors) if t.dtype == torch.float32}
    return seen.dtypes


def _dtypes(value: Any) -> list[torch.dtype]:
    return [leaf.dtype for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]
