"""Bytes of live tensor storage, as they come and go: of a real run, or of one on fake tensors."""

import weakref
from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode


class LiveStorage(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the storages of all tensors that operators make while it is active, and of those it is told to hold.

    A storage counts from the operator that returns it until nobody refers to it; views share one. What an operator
    allocates and frees inside is not seen. `phase` is a note that storages are born with.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.phase = ""
        self.log: list[tuple[int, int, str]] = []  # (storage, bytes that come or go, phase of its birth)
        self._alive: dict[int, int] = {}
        self._count = 0

    def hold(self, tensors: Iterable[Tensor]) -> list[int]:
        """Count tensors that were there before; their storages' numbers."""
        return [self._seen(tensor) for tensor in tensors]

    def numbers(self, tensors: Iterable[Tensor]) -> set[int]:
        """The numbers of storages that are counted."""
        return {self._alive[key] for key in map(_key, tensors) if key in self._alive}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in pytree.tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._seen(tensor)
        return result

    def _seen(self, tensor: Tensor) -> int:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._alive:
            number, num_bytes, phase = self._count, storage.nbytes(), self.phase
            self._count += 1
            self.log.append((number, num_bytes, phase))
            end = weakref.finalize(storage, self._freed, key, number, num_bytes, phase)
            end.atexit = False
            self._alive[key] = number
        return self._alive[key]

    def _freed(self, key: int, number: int, num_bytes: int, phase: str) -> None:
        self.log.append((number, -num_bytes, phase))
        del self._alive[key]

    def peak_bytes(self) -> int:
        """The most bytes that were live at once."""
        now = most = 0
        for _, num_bytes, _ in self.log:
            now += num_bytes
            most = max(most, now)
        return most

    def alive_before(self, phase: str) -> dict[int, int]:
        """Storage -> bytes of those alive when the first one of a phase was born."""
        alive: dict[int, int] = {}
        for number, num_bytes, born in self.log:
            if born == phase:
                break
            if num_bytes > 0:
                alive[number] = num_bytes
            else:
                alive.pop(number, None)
        return alive

    def at_peak(self) -> dict[int, tuple[int, str]]:
        """Storage -> (bytes, phase of birth) of those alive at the peak."""
        now = most = at = 0
        for index, (_, num_bytes, _) in enumerate(self.log):
            now += num_bytes
            if now > most:
                most, at = now, index + 1
        alive: dict[int, tuple[int, str]] = {}
        for number, num_bytes, phase in self.log[:at]:
            if num_bytes > 0:
                alive[number] = (num_bytes, phase)
            elif num_bytes < 0:
                alive.pop(number, None)
        return alive


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
