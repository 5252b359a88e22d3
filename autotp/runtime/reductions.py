"""When the gradients of a module's parameters are added up over ranks: at once, beside the rest of the backward pass, or
with those of a later micro-batch.

A parameter's redistributions carry its gradient back to it, and on the way add up partial sums. Autograd would wait for
every sum before it goes on. Instead the redistribution may say that nothing has come yet (a gradient of None), begin the
sum, and put the result into `.grad` itself when it is there, at the end of the backward pass at the latest. That is done
only where autograd is going to accumulate into a leaf, and where nobody looks on: not under torch.autograd.grad, not for
a gradient of a gradient, not for parameters with hooks. Everywhere else a redistribution does what it says at once.

Which sums begin when depends on the graph alone, so that all ranks begin the same ones in the same order.
"""

import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import Variable
from torch.profiler import record_function

from autotp.errors import AutoTPError
from autotp.redistribute import Step

Later = Callable[[], Tensor]  # waits for a result and returns it

WAIT = "autotp: wait for gradients"  # what profilers see of the end of a backward pass
MAX_IN_FLIGHT = 4  # sums at once: each keeps what it sends


class Move(Protocol):
    """What is asked of a parameter's redistribution."""

    step: Step

    @property
    def is_reduced(self) -> bool:
        """Whether the way back adds up partial sums."""
        ...

    def back(self, gradient: Tensor) -> Tensor:
        """The gradient on the other side."""
        ...

    def begin_back(self, gradient: Tensor) -> Later:
        """The same, where something else can be done before its result is needed."""
        ...


@dataclass(eq=False)
class _Sum:
    """A gradient on its way back through one move: to a parameter, or to the next move. `arrivals` come first."""

    move: Move
    gradient: Tensor | None
    arrivals: list["_Sum"]
    leaf: Tensor | None
    result: Tensor | None = None
    _later: Later | None = None

    @property
    def is_ready(self) -> bool:
        return self._later is None and all(arrival.result is not None for arrival in self.arrivals)

    def begin(self) -> None:
        total = self.gradient
        for arrival in self.arrivals:
            assert arrival.result is not None
            total = arrival.result if total is None else total + arrival.result
        assert total is not None
        self._later = self.move.begin_back(total)
        self.gradient, self.arrivals = None, []

    def end(self) -> None:
        assert self._later is not None
        self.result, self._later = self._later(), None  # what was sent is let go
        if self.leaf is not None:
            accumulate(self.leaf, self.result)


@dataclass(eq=False)
class _Backward:
    """The sums of one backward pass, in order. Kept alive by autograd until that ends, or fails."""

    number: int
    reductions: "Reductions"
    sums: deque[_Sum] = field(default_factory=deque)

    def add(self, one: _Sum) -> None:
        self.sums.append(one)
        if one.is_ready:
            one.begin()
        while len(self.sums) > MAX_IN_FLIGHT:
            self._end_first()

    def _end_first(self) -> None:
        self.sums.popleft().end()
        for one in self.sums:
            if one.is_ready:
                one.begin()

    def end(self) -> None:
        with record_function(WAIT):
            while self.sums:
                self._end_first()
        if not self.reductions.is_held:
            self.reductions.reduce_rest()


@dataclass(eq=False)
class _Held:
    """What micro-batches left to a later one: partial sums, and the way they have to go.

    `gradient` is the parameter's `.grad` of the time, zeros if there was none: where a user let it go, this is void too.
    """

    leaf: Tensor
    path: tuple[Move, ...]
    partial: Tensor
    gradient: Tensor
    version: int


class Reductions:
    """What the redistributions of one module's parameters ask before they add up gradients.

    `overlaps`: sums run beside the rest of the backward pass.
    """

    def __init__(self, *, overlaps: bool = False) -> None:
        self.overlaps = overlaps
        self.is_held = False
        self._held: dict[tuple[int, Step], _Held] = {}
        self._backward: weakref.ref[_Backward] | None = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within, partial sums are kept for the next backward pass outside."""
        before, self.is_held = self.is_held, True
        try:
            yield
        finally:
            self.is_held = before

    def forget(self) -> None:
        """Let go of what is held, as zero_grad does of gradients."""
        self._held.clear()

    def held_tensors(self) -> list[Tensor]:
        """Partial sums that are kept."""
        return [held.partial for held in self._held.values()]

    def check_reduced(self) -> None:
        """Raise AutoTPError where gradients are not complete."""
        if any(held.leaf.grad is held.gradient for held in self._held.values()):
            raise AutoTPError(
                "gradients are not added up over ranks yet: run the backward pass of the step's last micro-batch outside "
                "of no_sync()"
            )

    def carry_back(self, ctx: Any, move: Move, arrivals: list[_Sum], gradient: Tensor | None) -> Tensor | None:
        """The backward of a parameter's move: the gradient on its other side, or None where that comes later."""
        if gradient is None and not arrivals:
            return None
        path, leaf, node = _way_to_leaf(ctx, move)
        if leaf is None or torch.is_grad_enabled() or not _accumulates(node):
            assert gradient is not None
            return move.back(gradient)
        if move.is_reduced and gradient is not None:
            if self.is_held:
                self._hold(leaf, path, gradient)
                return None
            gradient = self._with_held(leaf, move, gradient)
        if not self.overlaps or _is_watched(leaf) or not (move.is_reduced or arrivals):
            assert gradient is not None
            if self._held and not self.is_held:
                self._this_backward()  # sees at its end to what is still held
            return move.back(gradient)
        one = _Sum(move, gradient, arrivals, leaf if len(path) == 1 else None)
        if len(path) > 1:
            ctx.next_functions[0][0].arrivals.append(one)
        self._this_backward().add(one)
        return None

    def _this_backward(self) -> _Backward:
        number = torch._C._current_graph_task_id()
        found = self._backward() if self._backward is not None else None
        if found is None or found.number != number:
            found = _Backward(number, self)
            self._backward = weakref.ref(found)
            Variable._execution_engine.queue_callback(found.end)
        return found

    def _hold(self, leaf: Tensor, path: tuple[Move, ...], gradient: Tensor) -> None:
        held = self._valid(leaf, path[0])
        if held is not None:
            held.partial += gradient
            return
        if leaf.grad is None:
            leaf.grad = torch.zeros_like(leaf)
        partial = gradient.clone(memory_format=torch.contiguous_format)
        self._held[id(leaf), path[0].step] = _Held(leaf, path, partial, leaf.grad, leaf.grad._version)

    def _with_held(self, leaf: Tensor, move: Move, gradient: Tensor) -> Tensor:
        held = self._valid(leaf, move)
        if held is None:
            return gradient
        del self._held[id(leaf), move.step]
        held.partial += gradient
        return held.partial

    def _valid(self, leaf: Tensor, move: Move) -> _Held | None:
        """What is held of a parameter, unless its gradient was let go since. Raises AutoTPError where that is unclear."""
        held = self._held.get((id(leaf), move.step))
        if held is None:
            return None
        if held.leaf is not leaf or leaf.grad is not held.gradient:
            del self._held[id(leaf), move.step]
            return None
        if leaf.grad._version != held.version and held.partial.any() and not leaf.grad.any():
            raise AutoTPError(
                "gradients were set to zero in place between the micro-batches of no_sync(): use module.zero_grad(), or "
                "set_to_none=True"
            )
        return held

    def reduce_rest(self) -> None:
        """Add up what this backward pass did not come by, at once."""
        for leaf, move in [(held.leaf, held.path[0]) for held in self._held.values()]:
            held = self._valid(leaf, move)
            if held is not None:
                del self._held[id(leaf), move.step]
                gradient = held.partial
                for each in held.path:
                    gradient = each.back(gradient)
                accumulate(leaf, gradient)


def accumulate(leaf: Tensor, gradient: Tensor) -> None:
    """Add to a parameter's `.grad`, as autograd does."""
    with torch.no_grad():
        if leaf.grad is not None:
            leaf.grad += gradient
        elif gradient._base is None and gradient.stride() == leaf.stride():
            leaf.grad = gradient.detach()
        else:
            leaf.grad = torch.empty_like(leaf).copy_(gradient)


def _way_to_leaf(ctx: Any, move: Move) -> tuple[tuple[Move, ...], Tensor | None, Any]:
    """The moves from here to a parameter, the parameter, and autograd's node that accumulates into it."""
    path, node = [move], ctx.next_functions[0][0]
    while hasattr(node, "arrivals"):
        path.append(node.move)
        node = node.next_functions[0][0]
    return tuple(path), getattr(node, "variable", None), node


def _accumulates(node: Any) -> bool:
    """Whether this backward pass accumulates into the leaf of a node."""
    try:
        return bool(torch._C._will_engine_execute_node(node))
    except RuntimeError:  # raised for a leaf whose gradient torch.autograd.grad returns
        return False


def _is_watched(leaf: Tensor) -> bool:
    """Whether a user's hook would see the gradient."""
    return bool(leaf._backward_hooks) or bool(getattr(leaf, "_post_accumulate_grad_hooks", None))
