"""A region whose forward is run again in backward instead of being kept: activation checkpointing (arXiv 1604.06174)."""

from typing import Any

import torch
from torch import fx, nn
from torch.utils.checkpoint import checkpoint


class Recomputed(nn.Module):
    """Runs a graph module; in training nothing of it is kept for backward but its inputs.

    The whole region runs again, also what nobody needs of it: ranks with other shards may need other parts, and every
    rank must issue the same collectives. Random operators draw the same numbers again (see `Seeded`).
    """

    def __init__(self, region: fx.GraphModule) -> None:
        super().__init__()
        self.region = region

    def forward(self, *args: Any) -> Any:
        if not torch.is_grad_enabled():
            return self.region(*args)
        return checkpoint(self.region, *args, use_reentrant=False, early_stop=False)
