"""Redistributions as modules: a value changes its state on one mesh axis, and its gradient changes it back.

What is done forward and backward is read from the plan, that is from the table in `redistribute.py`; this file carries
it out. torch's own differentiable collectives follow another convention, by which gradients come out multiplied by the
number of ranks, hence the one autograd Function here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from autotp.errors import PlanError
from autotp.mesh import Mesh
from autotp.placement import format_placement
from autotp.redistribute import EXACT, HALVES, PADDED, REDUCTIONS, TABLE, Step, in_words
from autotp.runtime.communicator import Communicator
from autotp.runtime.layout import Layout, incoming, join, take, within
from autotp.runtime.reductions import Later, Reductions


@dataclass(frozen=True)
class Way:
    """One direction of a move: the layouts it goes from and to, where these are shards, and the ranks it goes over.

    `reduce_dtype`: in which halves are added up, their own where None.
    """

    source: Layout | None
    target: Layout | None
    communicator: Communicator
    reduce_dtype: torch.dtype | None = None


_HALVES = tuple(getattr(torch, name) for name in HALVES)


def _none(x: Tensor, way: Way) -> Tensor:
    return x.view_as(x)  # a Function may not return its input itself


def _slice(x: Tensor, way: Way) -> Tensor:
    return _shard(way.target).part(x, way.communicator.rank)


def _pad(x: Tensor, way: Way) -> Tensor:
    return _shard(way.source).placed(x, way.communicator.rank)


def _keep(x: Tensor, way: Way) -> Tensor:
    return x.view_as(x) if way.communicator.rank == 0 else torch.zeros_like(x)


def _widened(x: Tensor, way: Way) -> Tensor:
    """Partial sums as they are added up."""
    is_wider = way.reduce_dtype is not None and x.dtype in _HALVES
    return x.to(way.reduce_dtype) if is_wider else x


def _all_reduce(x: Tensor, way: Way) -> Tensor:
    return way.communicator.all_reduce(_widened(x, way)).to(x.dtype)


def _all_gather(x: Tensor, way: Way) -> Tensor:
    source = _shard(way.source)
    return source.joined(way.communicator.all_gather(source.padded(x)))


def _reduce_scatter(x: Tensor, way: Way) -> Tensor:
    target, communicator = _shard(way.target), way.communicator
    total = communicator.reduce_scatter(target.stacked(_widened(x, way)))
    return target.trimmed(total, communicator.rank).to(x.dtype)


def _all_to_all(x: Tensor, way: Way) -> Tensor:
    source, target, rank = _shard(way.source), _shard(way.target), way.communicator.rank
    ranks = range(way.communicator.size)
    shape = list(x.shape)
    if source.dim != target.dim:
        shapes = [[*shape] for _ in ranks]
        for sender in ranks:
            shapes[sender][source.dim] = source.sizes[sender]
            shapes[sender][target.dim] = target.sizes[rank]
        return source.ordered(way.communicator.all_to_all([target.part(x, receiver) for receiver in ranks], shapes))
    parts = [take(x, source.dim, within(source.held(rank), target.held(receiver))) for receiver in ranks]
    pieces = incoming(source, target, rank)
    shapes = [[*shape] for _ in ranks]
    for sender in ranks:
        shapes[sender][source.dim] = sum(length for which, _, length in pieces if which == sender)
    return join(way.communicator.all_to_all(parts, shapes), source.dim, pieces)


def _broadcast_all(x: Tensor, way: Way) -> Tensor:
    source, shapes = _shard(way.source), []
    for size in source.sizes:
        shape = list(x.shape)
        shape[source.dim] = size
        shapes.append(shape)
    return source.ordered(way.communicator.broadcasts(x, shapes))


def _exchange_and_add(x: Tensor, way: Way) -> Tensor:
    target, communicator = _shard(way.target), way.communicator
    parts = [target.part(x, rank) for rank in range(communicator.size)]
    received = communicator.all_to_all(parts, [parts[communicator.rank].shape] * communicator.size)
    # halves are sent as they are, and added up in what `reduce_dtype` says
    dtype = way.reduce_dtype if way.reduce_dtype is not None and x.dtype in _HALVES else x.dtype
    return torch.stack(received).sum(0, dtype=dtype).to(x.dtype)


_ACTIONS: dict[str, Callable[[Tensor, Way], Tensor]] = {
    "none": _none,
    "slice": _slice,
    "pad": _pad,
    "keep": _keep,
    "all_reduce": _all_reduce,
    "all_gather": _all_gather,
    "reduce_scatter": _reduce_scatter,
    "all_to_all": _all_to_all,
}
_IN_EXACT_SIZES: dict[tuple[str, str], Callable[[Tensor, Way], Tensor]] = {
    ("all_gather", "broadcast"): _broadcast_all,
    ("reduce_scatter", "all_to_all"): _exchange_and_add,
}


def _begin_all_reduce(x: Tensor, way: Way) -> Later:
    later, dtype = way.communicator.begin("all_reduce", _widened(x, way)), x.dtype
    return lambda: later().to(dtype)


def _begin_reduce_scatter(x: Tensor, way: Way) -> Later:
    target, communicator, dtype = _shard(way.target), way.communicator, x.dtype
    later = communicator.begin("reduce_scatter", target.stacked(_widened(x, way)))
    return lambda: target.trimmed(later(), communicator.rank).to(dtype)


_BEGIN: dict[str, Callable[[Tensor, Way], Later]] = {
    "all_reduce": _begin_all_reduce,
    "reduce_scatter": _begin_reduce_scatter,
}


def _shard(layout: Layout | None) -> Layout:
    if layout is None:
        raise PlanError("a move that cuts or gathers has no shard on that side")
    return layout


class Redistribute(nn.Module):
    """One move of one value on one axis: `forward` and `backward` are actions of `redistribute.TABLE`.

    `shape` is the value's whole shape; `reduce_dtype` torch's name of what partial sums in half precision are added up in,
    their own where None; `reductions`: who says when, of a parameter's gradients; `by`: by which collectives unequal shards
    are sent, forward and backward. Raises PlanError where the actions are not those of the table, or not carried out so.
    """

    def __init__(
        self,
        step: Step,
        forward: str,
        backward: str,
        shape: Sequence[int],
        mesh: Mesh,
        rank: int,
        communicator: Communicator,
        reduce_dtype: str | None = None,
        reductions: Reductions | None = None,
        by: tuple[str, str] = (PADDED, PADDED),
    ) -> None:
        super().__init__()
        source, target = step.source[step.axis], step.target[step.axis]
        expected = TABLE.get((source.kind, target.kind))
        if expected is None or forward != expected[0] or backward not in (expected[1], "none"):
            raise PlanError(f"going from {source} to {target} is {expected}, but the plan says {(forward, backward)}")
        for action, one in zip((forward, backward), by, strict=True):
            if one not in (PADDED, EXACT.get(action)):
                raise PlanError(f"{action} cannot be carried out by {one!r}, as the plan says")
        coordinates = mesh.coordinates(rank)
        before, after = (
            Layout.on_axis(placement, step.axis, shape, coordinates, mesh.sizes[step.axis])
            for placement in (step.source, step.target)
        )
        self.step, self.mesh = step, mesh
        self.actions, self.by = (forward, backward), by
        self.has_gradient = backward == expected[1]
        self.reductions = reductions
        self.reduce_dtype = reduce_dtype if {*self.actions}.intersection(REDUCTIONS) else None
        wide: torch.dtype | None = getattr(torch, reduce_dtype) if reduce_dtype else None
        self.ways = (Way(before, after, communicator, wide), Way(after, before, communicator, wide))
        self.functions = tuple(
            _ACTIONS[action] if one == PADDED else _IN_EXACT_SIZES[action, one]
            for action, one in zip(self.actions, by, strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        if not (x.requires_grad and torch.is_grad_enabled()):
            return self.functions[0](x, self.ways[0])
        moved: Tensor
        if self.reductions is None or torch.compiler.is_compiling():
            moved = _Move.apply(x, self)  # type: ignore[no-untyped-call]
        else:
            moved = _ParameterMove.apply(x, self, self.reductions)  # type: ignore[no-untyped-call]
        return moved

    @property
    def is_reduced(self) -> bool:
        """Whether the backward adds up partial sums."""
        return self.actions[1] in _BEGIN

    def back(self, gradient: Tensor) -> Tensor:
        """The gradient on the side that the move comes from. Raises PlanError where the plan has none."""
        if not self.has_gradient:
            raise PlanError(f"a gradient flows back through a value for which the plan has none: {self}")
        return self.functions[1](gradient, self.ways[1])

    def begin_back(self, gradient: Tensor) -> Later:
        """The same, begun; what is returned waits for it."""
        if self.has_gradient and self.is_reduced and self.by[1] == PADDED:
            return _BEGIN[self.actions[1]](gradient, self.ways[1])
        found = self.back(gradient)
        return lambda: found

    def extra_repr(self) -> str:
        source, target = format_placement(self.step.source), format_placement(self.step.target)
        forward, backward = map(in_words, self.actions, self.by)
        return (
            f"{self.mesh.names[self.step.axis]}: {source} -> {target}, "
            f"forward {forward}, backward {backward if self.has_gradient else 'without gradient'}"
            + (f", halves added up in {self.reduce_dtype}" if self.reduce_dtype else "")
        )


class _Move(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, move: Redistribute) -> Tensor:
        ctx.move = move
        return move.functions[0](x, move.ways[0])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.move.back(gradients[0]), None


class _ParameterMove(torch.autograd.Function):
    """The move of a parameter, whose gradient may come later (see `reductions`)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, move: Redistribute, reductions: Reductions) -> Tensor:
        ctx.set_materialize_grads(False)  # None is what comes later
        ctx.move, ctx.reductions, ctx.arrivals = move, reductions, []
        return move.functions[0](x, move.ways[0])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, None, None]:
        arrivals, ctx.arrivals = ctx.arrivals, []
        return ctx.reductions.carry_back(ctx, ctx.move, arrivals, gradients[0]), None, None
