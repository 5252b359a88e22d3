"""A region whose forward is run again in backward instead of being kept: activation checkpointing (arXiv 1604.06174)."""

from typing import Any

import torch
from torch import fx, nn
from torch.utils.checkpoint import checkpoint

from autotp.runtime.local_ops_random import Seeded


class Recomputed(nn.Module):
    """Runs a graph module; in training nothing of it is kept for backward but its inputs.

    The whole region runs again, also what nobody needs of it: ranks with other shards may need other parts, and every
    rank must issue the same collectives. Random operators draw the same numbers again.
    """

    def __init__(self, region: fx.GraphModule) -> None:
        super().__init__()
        self.region = region
        self._seeded = [child for child in region.modules() if isinstance(child, Seeded)]

    def forward(self, *args: Any) -> Any:
        if not torch.is_grad_enabled():
            return self.region(*args)
        calls: list[int] | None = None

        def run(*given: Any) -> Any:
            nonlocal calls
            now = [child.num_calls for child in self._seeded]
            if calls is None:
                calls = now
                return self.region(*given)
            self._set(calls)
            result = self.region(*given)
            self._set(now)
            return result

        return checkpoint(run, *args, use_reentrant=False, early_stop=False)

    def _set(self, calls: list[int]) -> None:
        for child, count in zip(self._seeded, calls, strict=True):
            child.num_calls = count
