"""Storage that torch's kernels allocate and fake tensors do not show."""

from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from autotp.runtime.live import LiveStorage

# Their kernels write every element's loss into the result first, which keeps that storage when it becomes their mean:
# measured with torch 2.13 on a CPU, `loss.untyped_storage().nbytes()` (tests/test_dry_run.py).
LOSSES = frozenset(
    getattr(torch.ops.aten, name).default
    for name in ("mse_loss", "smooth_l1_loss", "soft_margin_loss", "binary_cross_entropy")
)


class KernelStorage(LiveStorage):  # type: ignore[no-untyped-call]
    """LiveStorage of fake tensors, in which such results have the storage that they really have."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            result = func(*args, **kwargs)
            if func not in LOSSES or result.dim() or not isinstance(result, FakeTensor):
                return result
            elements = torch.broadcast_shapes(args[0].shape, args[1].shape).numel()  # type: ignore[no-untyped-call]
            kept: Tensor = result.new_empty(max(1, elements)).as_strided((), ())
            return kept

        return super().__torch_dispatch__(call, types, args, kwargs)
