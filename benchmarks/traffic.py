"""What collectives send, counted by intercepting every call that reaches torch.distributed's operators."""

from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# By a part of the operator's name: what a ring sends, in (n - 1) / n of the larger of input and output.
RING = {
    "allreduce": 2,
    "all_reduce": 2,
    "reduce_scatter": 1,
    "allgather": 1,
    "all_gather": 1,
    "alltoall": 1,
    "all_to_all": 1,
}


class Traffic(TorchDispatchMode):
    """Counts calls and bytes sent per rank while it is entered, whoever calls: c10d or functional collectives."""

    def __init__(self, num_ranks: int) -> None:
        super().__init__()
        self.num_calls = 0
        self.num_bytes = 0.0
        self._share = (num_ranks - 1) / num_ranks

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # its own dispatch comes back here with plain tensors
        result = func(*args, **(kwargs or {}))
        namespace, name = func._schema.name.split("::")
        if namespace in ("c10d", "_c10d_functional"):
            self._count(name, args, result)
        return result

    def _count(self, name, args, result) -> None:
        factor = next((factor for part, factor in RING.items() if part in name), None)
        if factor is None:
            if not any(part in name for part in ("wait", "wrap", "barrier", "broadcast")):
                raise NotImplementedError(f"the collective {name} is not counted: add it to RING")
            return
        largest = max(x.nbytes for x in tree_leaves(list(args)) if isinstance(x, Tensor))
        received = sum(x.nbytes for x in tree_leaves(result) if isinstance(x, Tensor))
        self.num_calls += 1
        self.num_bytes += factor * self._share * max(largest, received)
