"""Operators on nothing, where torch refuses an empty tensor."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from autotp.runtime.local_ops_find import find_operator


class EmptyShard(nn.Module):
    """What an operator gives on a rank with an empty shard: zeros, and zero gradients, so that the rank keeps in step.

    What is added to a product, a bias for example, is added to a product of nothing too.
    """

    def __init__(self, communicators: object, op: str, shapes: Sequence[Sequence[int]], dtypes: Sequence[str]) -> None:
        super().__init__()
        self.op = op
        self.shapes = tuple(tuple(shape) for shape in shapes)
        self.dtypes = tuple(getattr(torch, dtype) for dtype in dtypes)
        schema = find_operator(op)._schema
        self._names = [argument.name for argument in schema.arguments]
        self._is_list = "[]" in str(schema.returns[0].type) or "List" in str(schema.returns[0].type)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        named = {**dict(zip(self._names, args, strict=False)), **kwargs}
        added = self._added(named)
        listed = [
            item for value in named.values() for item in (value if isinstance(value, (list, tuple)) else (value,))
        ]
        tensors = [item for item in listed if isinstance(item, Tensor)]
        results = _Zeros.apply(self.shapes, self.dtypes, *tensors)  # type: ignore[no-untyped-call]
        if added is not None:
            results = (results[0] + added,)
        return results[0] if len(results) == 1 and not self._is_list else results

    def _added(self, named: dict[str, Any]) -> Tensor | None:
        """What the operator adds to a sum over nothing; taken out of the arguments."""
        if self.op.startswith("aten.addmv"):
            return named.pop("self") * named.get("beta", 1)  # type: ignore[no-any-return]
        bias: Tensor | None = named.pop("bias", None) if self.op.startswith(("aten.conv", "aten.bilinear")) else None
        if bias is None or self.op.startswith("aten.bilinear"):
            return bias
        return bias.view(-1, *(1,) * (named["weight"].dim() - 2))

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
