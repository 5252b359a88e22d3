"""Local operators: what a rank runs where the original operator on shards would be wrong.

A local operator is a small module that is called like the operator it stands for: positional arguments by position,
keyword-only ones by name. It is built from the constants of a LocalCall and the communicators of the axes that it
names, by axis index.
"""

from collections.abc import Mapping
from typing import Any

from torch import nn

from autotp.errors import RuleError
from autotp.runtime.communicator import Communicator
from autotp.runtime.local_ops_bag import EmbeddingBagShard
from autotp.runtime.local_ops_embedding import EmbeddingShard
from autotp.runtime.local_ops_empty import EmptyShard
from autotp.runtime.local_ops_grouped import GroupedShard
from autotp.runtime.local_ops_heads import SeededSharedHeads, SharedHeadsShard
from autotp.runtime.local_ops_loss import CrossEntropyShard, CtcMeanShard, MeanLossShard, MeanShard, NllLossShard
from autotp.runtime.local_ops_norm import BatchNormShard
from autotp.runtime.local_ops_random import Seeded, set_base_seed
from autotp.runtime.local_ops_reduce import ExtremeShard, LogSumExpShard, MomentsShard, NormShard, PlaceShard

__all__ = ["LOCAL_OPERATORS", "local_operator", "set_base_seed"]

LOCAL_OPERATORS: dict[str, type[nn.Module]] = {
    "embedding": EmbeddingShard,
    "embedding_bag": EmbeddingBagShard,
    "grouped_mm": GroupedShard,
    "shared_heads": SharedHeadsShard,
    "seeded_shared_heads": SeededSharedHeads,
    "cross_entropy": CrossEntropyShard,
    "nll_loss": NllLossShard,
    "mean": MeanShard,
    "mean_loss": MeanLossShard,
    "ctc_mean": CtcMeanShard,
    "batch_norm": BatchNormShard,
    "extreme": ExtremeShard,
    "place": PlaceShard,
    "moments": MomentsShard,
    "norm": NormShard,
    "logsumexp": LogSumExpShard,
    "seeded": Seeded,
    "empty": EmptyShard,
}


def local_operator(name: str, constants: Mapping[str, Any], communicators: Mapping[int, Communicator]) -> nn.Module:
    """The local operator of this name. `communicators`: by mesh axis index, at least those in `LocalCall.axes`."""
    if name not in LOCAL_OPERATORS:
        raise RuleError(f"there is no local operator {name!r}; there are {', '.join(LOCAL_OPERATORS)}")
    return LOCAL_OPERATORS[name](communicators, **constants)
