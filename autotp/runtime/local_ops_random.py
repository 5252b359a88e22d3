"""Random operators: what ranks draw depends on the part they draw for, and on nothing else."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from autotp.errors import AutoTPError
from autotp.runtime.local_ops_find import find_operator

MAX_KEPT = 1024  # forwards of one operator whose backward may still come


@contextmanager
def random_state(seed: int, device: torch.device) -> Iterator[None]:
    """Draws inside come from the seed; the global state of the device is as before afterwards."""
    if device.type == "cuda":
        before = torch.cuda.get_rng_state(device)
        torch.cuda.default_generators[
            torch.cuda.current_device() if device.index is None else device.index
        ].manual_seed(seed)
    else:
        before = torch.get_rng_state()
        torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        if device.type == "cuda":
            torch.cuda.set_rng_state(before, device)
        else:
            torch.set_rng_state(before)


def _mark() -> int:
    """A number drawn from torch's own generator, of which nothing else comes: it tells two calls apart.

    Checkpointing (torch.utils.checkpoint, or a `Recomputed` region) sets the generator back before it runs a forward
    again, which then finds the same mark.
    """
    with torch._C._DisableTorchDispatch():  # a real number, also among fake tensors
        return int(torch.empty((), dtype=torch.int64, device="cpu").random_().item())


def _is_in_backward() -> bool:
    return torch._C._current_graph_task_id() != -1


class Seeded(nn.Module):
    """Runs an operator under a seed made of a base seed, the number of the call, the node and the rank's coordinates.

    `coordinates`: those on the axes that cut the operator. Ranks that compute the same part draw the same numbers,
    others do not. `base_seed` is 0 until `set_base_seed`, so that ranks agree however they seeded their generators.
    A forward that is run again in backward has the number that it had first. Raises AutoTPError where that is not known.
    """

    def __init__(self, communicators: object, op: str, name: str, coordinates: Sequence[int]) -> None:
        super().__init__()
        self.op, self.name, self.coordinates = op, name, tuple(coordinates)
        self.base_seed, self.num_calls = 0, 0
        self._operator: Callable[..., Any] = find_operator(op)
        self._numbers: OrderedDict[int, int] = OrderedDict()  # of calls, by their marks

    def _number(self) -> int:
        mark = _mark()
        if _is_in_backward():
            if mark not in self._numbers:
                raise AutoTPError(
                    f"{self.op} ({self.name}) is run again in backward, but not with the random state it had first: "
                    "checkpoint with preserve_rng_state=True (torch's default), and no more than "
                    f"{MAX_KEPT} forwards before their backward"
                )
            return self._numbers[mark]
        self._numbers[mark] = self.num_calls
        if len(self._numbers) > MAX_KEPT:
            self._numbers.popitem(last=False)
        self.num_calls += 1
        return self._numbers[mark]

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        device = next((a.device for a in (*args, *kwargs.values()) if isinstance(a, torch.Tensor)), None)
        device = device or torch.device(kwargs.get("device") or "cpu")
        text = f"{self.base_seed} {self._number()} {self.name} {self.coordinates}"
        # positive and below 2**63, as the generators want it
        seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1
        with random_state(seed, device):
            return self._operator(*args, **kwargs)

    def extra_repr(self) -> str:
        return f"{self.op}, coordinates={self.coordinates}"


def set_base_seed(module: nn.Module, seed: int) -> None:
    """Seed all random operators of a rewritten module and start them afresh: the same seed on every rank."""
    for child in module.modules():
        if isinstance(child, Seeded):
            child.base_seed, child.num_calls = seed, 0
