"""Operators on nothing, where torch refuses an empty tensor."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from autotp.runtime.local_ops_find import find_operator


class EmptyShard(nn.Module):
    """What an operator gives on a rank with an empty shard: zeros, and zero gradients, so that the rank keeps in step.

    A convolution without input channels still adds its bias.
    """

    def __init__(self, communicators: object, op: str, shapes: Sequence[Sequence[int]], dtypes: Sequence[str]) -> None:
        super().__init__()
        self.op = op
        self.shapes = tuple(tuple(shape) for shape in shapes)
        self.dtypes = tuple(getattr(torch, dtype) for dtype in dtypes)
        self._names = [argument.name for argument in find_operator(op)._schema.arguments]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        named = {**dict(zip(self._names, args, strict=False)), **kwargs}
        bias = named.pop("bias", None) if self.op.startswith("aten.conv") else None
        tensors = [value for value in named.values() if isinstance(value, Tensor)]
        results = _Zeros.apply(self.shapes, self.dtypes, *tensors)  # type: ignore[no-untyped-call]
        if bias is not None:
            num_space = named["weight"].dim() - 2
            results = (results[0] + bias.view(-1, *(1,) * num_space),)
        return results[0] if len(results) == 1 else results

    def extra_repr(self) -> str:
        return f"{self.op}, shapes={self.shapes}"


class _Zeros(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, shapes: Sequence[Sequence[int]], dtypes: Sequence[torch.dtype], *tensors: Tensor) -> Any:
        ctx.save_for_backward(*tensors)
        made = tuple(tensors[0].new_zeros(s, dtype=d) for s, d in zip(shapes, dtypes, strict=True))
        ctx.mark_non_differentiable(*(x for x in made if not x.is_floating_point()))
        return made

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(torch.zeros_like(x) if x.is_floating_point() else None for x in ctx.saved_tensors)
