"""Simulated ranks: one thread per rank in one process, exchanging tensors through shared slots.

Ranks take turns: only one runs at a time, and hands over at a collective. That makes torch's process-wide random state
private to each rank, as it is in real processes, and keeps a simulation from using more than one core. Autograd runs a
backward pass on CPU in the thread that calls it, so a rank's backward collectives come from that rank's thread.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from autotp.errors import VerificationError
from autotp.mesh import Mesh
from autotp.runtime.communicator import Call, Clock, Communicator

T = TypeVar("T")


class _Aborted(Exception):
    """Another rank failed or never came: the reason is that rank's error, not this one."""


class _Turn:
    """The right to run, and this rank's random state while others have it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def take(self, random_state: Tensor) -> None:
        self._lock.acquire()
        torch.set_rng_state(random_state)

    def give(self) -> Tensor:
        state = torch.get_rng_state()
        self._lock.release()
        return state


class _Exchange:
    """Where the ranks of one group put what they send; of two sets of slots, so that none is overwritten unread."""

    def __init__(self, size: int, turn: _Turn, timeout_s: float) -> None:
        self.turn = turn
        self._slots: tuple[list[Any], list[Any]] = ([None] * size, [None] * size)
        self._count = [0] * size
        self._barrier = threading.Barrier(size)
        self._timeout_s = timeout_s

    def swap(self, rank: int, call: Call, item: Any) -> list[Any]:
        """What every rank of the group sent, in rank order. Raises VerificationError where they do not match."""
        slots = self._slots[self._count[rank] % 2]
        self._count[rank] += 1
        slots[rank] = (call, item)
        random_state = self.turn.give()
        try:
            self._barrier.wait(self._timeout_s)
        except threading.BrokenBarrierError:
            raise _Aborted(f"rank {rank} waited in vain in {call}") from None
        finally:
            self.turn.take(random_state)
        calls = [sent for sent, _ in slots]
        if len({(sent.collective, sent.dtype) for sent in calls}) > 1:
            raise VerificationError(f"the ranks of axis {call.axis} issue different collectives at once: {calls}")
        if call.collective != "all_to_all" and len({sent.shape for sent in calls}) > 1:
            raise VerificationError(f"the ranks of axis {call.axis} send different shapes at once: {calls}")
        return [sent for _, sent in slots]

    def abort(self) -> None:
        self._barrier.abort()


class ThreadCommunicator:
    """A Communicator between simulated ranks. Sums are made in rank order, so that all ranks get the same bits.

    What is sent is copied: the sender may go on and write to it before the last rank has read it.
    """

    def __init__(self, axis: str, rank: int, size: int, exchange: _Exchange) -> None:
        self.axis, self.rank, self.size = axis, rank, size
        self.trace: list[Call] | None = None
        self.clock: Clock | None = None
        self._exchange = exchange

    def _swap(self, collective: str, x: Tensor, item: Any) -> list[Any]:
        call = Call(collective, self.axis, str(x.dtype), tuple(x.shape))
        if self.trace is not None:
            self.trace.append(call)
        return self._exchange.swap(self.rank, call, item)

    def all_reduce(self, x: Tensor, op: str = "sum") -> Tensor:
        stacked = torch.stack(self._swap("all_reduce", x, x.clone()))
        return stacked.amax(0) if op == "max" else _sum(stacked)

    def all_gather(self, x: Tensor) -> Tensor:
        return torch.stack(self._swap("all_gather", x, x.clone()))

    def reduce_scatter(self, x: Tensor) -> Tensor:
        return _sum(torch.stack([sent[self.rank] for sent in self._swap("reduce_scatter", x, x.clone())]))

    def all_to_all(self, parts: Sequence[Tensor], shapes: Sequence[Sequence[int]]) -> list[Tensor]:
        flat = torch.cat([part.reshape(-1) for part in parts])
        received = [sent[self.rank] for sent in self._swap("all_to_all", flat, [part.clone() for part in parts])]
        found = [tuple(part.shape) for part in received]
        if found != [tuple(shape) for shape in shapes]:
            raise VerificationError(f"all_to_all on axis {self.axis} received shapes {found}, expected {list(shapes)}")
        return received

    def begin(self, collective: str, x: Tensor) -> Callable[[], Tensor]:
        result = self.all_reduce(x) if collective == "all_reduce" else self.reduce_scatter(x)
        return lambda: result

    def broadcasts(self, x: Tensor, shapes: Sequence[Sequence[int]]) -> list[Tensor]:
        found = [x.new_empty(tuple(shape)) for shape in shapes]
        for root, empty in enumerate(found):
            if empty.numel():
                found[root] = self._swap("broadcast", empty, x.clone() if root == self.rank else None)[root]
        if [tuple(tensor.shape) for tensor in found] != [tuple(shape) for shape in shapes]:
            raise VerificationError(f"broadcasts on axis {self.axis} do not bring the shapes {list(shapes)}")
        return found


def _sum(stacked: Tensor) -> Tensor:
    """The sum over ranks in the tensor's own dtype (torch would turn small integers into int64)."""
    return stacked.sum(0, dtype=stacked.dtype)


def run_ranks(
    mesh: Mesh, function: Callable[[int, Mapping[str, Communicator]], T], *, timeout_s: float = 120.0
) -> list[T]:
    """Run `function(rank, communicators by axis)` for every rank of a mesh, each in a thread; their results, by rank.

    Every rank starts with the caller's random state and grad mode. The first error of a rank is raised after all others
    were stopped; a collective that not all ranks of its group join within `timeout_s` is a VerificationError.
    """
    turn = _Turn()
    exchanges = [
        {group: _Exchange(len(group), turn, timeout_s) for group in mesh.groups(axis)} for axis in range(len(mesh.axes))
    ]
    results: list[Any] = [None] * mesh.num_ranks
    errors: list[BaseException] = []
    grad_enabled, random_state = torch.is_grad_enabled(), torch.get_rng_state()

    def run(rank: int) -> None:
        communicators = {
            name: ThreadCommunicator(name, mesh.coordinates(rank)[axis], size, exchange)
            for axis, (name, size) in enumerate(mesh.axes)
            for group, exchange in exchanges[axis].items()
            if rank in group
        }
        turn.take(random_state)
        try:
            with torch.set_grad_enabled(grad_enabled):
                results[rank] = function(rank, communicators)
        except BaseException as error:  # noqa: BLE001 - raised again by the caller's thread
            errors.append(error)
            for exchange in (exchange for groups in exchanges for exchange in groups.values()):
                exchange.abort()
        finally:
            turn.give()

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(mesh.num_ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    torch.set_rng_state(random_state)
    causes = [error for error in errors if not isinstance(error, _Aborted)]
    if causes:
        raise causes[0]
    if errors:
        raise VerificationError(f"the ranks do not join the same collectives within {timeout_s} s: {errors[0]}")
    return results
