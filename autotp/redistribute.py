"""The one table of redistributions: what a change of state does, forward and backward, on one mesh axis.

Cost, rewriter, runtime and report all read it, so that what is priced is what runs (design, section 4).
An *action* is local (`slice`, `pad`, `keep`: no bytes cross a link) or one of the four collectives.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce

from autotp.placement import Placement, State, intersect, largest_shape, num_elements, spans

COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")
REDUCTIONS = ("all_reduce", "reduce_scatter")  # those that add up partial sums
HALVES = ("float16", "bfloat16")
REDUCE_DTYPES = ("float32",)  # in which halves may be added up

# Shards of unequal sizes are padded to the largest by the action's own collective (`PADDED`), or sent in exact sizes: by a
# broadcast from every rank that has anything, or by an exchange of blocks that every rank adds up. (A gather by all_to_all
# is none: the rank with most sends as often as there are others what a padded gather passes on once. Nor is a sum of the
# whole, of which every rank takes its part: that is the two steps P -> R -> S.)
PADDED = ""
EXACT = {"all_gather": "broadcast", "reduce_scatter": "all_to_all"}

# (from, to): (forward action, backward action). `keep`: this value on the first rank, zeros on the others.
# S -> S is a change of dim or of layout; S -> S of the same state is no redistribution at all.
TABLE: dict[tuple[str, str], tuple[str, str]] = {
    ("R", "S"): ("slice", "all_gather"),
    ("R", "B"): ("none", "all_reduce"),
    ("R", "P"): ("keep", "none"),
    ("S", "R"): ("all_gather", "slice"),
    ("S", "B"): ("all_gather", "reduce_scatter"),
    ("S", "S"): ("all_to_all", "all_to_all"),
    ("S", "P"): ("pad", "slice"),
    ("P", "R"): ("all_reduce", "none"),
    ("P", "S"): ("reduce_scatter", "all_gather"),
    ("P", "B"): ("all_reduce", "all_reduce"),
    ("B", "R"): ("none", "keep"),
    ("B", "S"): ("slice", "pad"),
    ("B", "P"): ("keep", "keep"),
}


def actions(source: State, target: State, *, has_gradient: bool) -> tuple[str, str]:
    """(forward, backward) actions of going from one state to another on one axis; `none` backward without a gradient."""
    if source == target:
        return ("none", "none")
    forward, backward = TABLE[source.kind, target.kind]
    return (forward, backward if has_gradient else "none")


def sent_dtype(action: str, dtype: str, reduce_dtype: str | None) -> str:
    """The dtype in which an action's tensor crosses the link.

    Partial sums in half precision are added up in `reduce_dtype`, where there is one; all else is sent as it is.
    """
    is_wider = reduce_dtype is not None and action in REDUCTIONS and dtype in HALVES
    return reduce_dtype if is_wider and reduce_dtype else dtype


@dataclass(frozen=True, slots=True)
class Step:
    """One change of state on one axis: an arc of a value's graph of states."""

    axis: int
    source: Placement
    target: Placement


@dataclass(frozen=True, slots=True)
class Collective:
    """One collective on one axis. `num_elements` counts what nccl-tests calls size, on the rank with the most:

    the buffer of all_reduce, the output of all_gather, the input of reduce_scatter, the local buffer of all_to_all.
    `strided` tells that elements must be reordered around it, which costs a copy.
    """

    kind: str
    axis: int
    num_elements: int
    strided: bool


def collective(action: str, shape: Sequence[int], step: Step) -> Collective | None:
    """The collective that carries out an action of a step on a tensor of whole `shape`; None for a local action.

    The same for the step's forward and backward action: the larger side of the move (the gathered tensor) counts for
    all_gather and reduce_scatter, every shard padded to the largest; the larger of both shards for all_to_all; and the
    full local tensor for all_reduce.
    """
    if action not in COLLECTIVES:
        return None
    if action == "all_to_all":
        both = (num_elements(largest_shape(shape, placement)) for placement in (step.source, step.target))
        return Collective(action, step.axis, max(both), strided=True)
    if action == "all_reduce":
        return Collective(action, step.axis, num_elements(largest_shape(shape, step.source)), strided=False)
    sharded = _sharded(step)
    cut, local = sharded[step.axis], list(largest_shape(shape, sharded))
    strided = len(cut.blocks) > 1 or any(size != 1 for size in local[: cut.dim]) or _is_uneven(cut)
    local[cut.dim] *= len(cut.blocks[0])
    return Collective(action, step.axis, num_elements(local), strided)


def exact(action: str, shape: Sequence[int], step: Step) -> tuple[Collective, ...]:
    """The collectives `EXACT[action]` that carry out a gather or reduce-scatter in exact sizes.

    Every one is `strided`: what came is joined, or added up. None where all ranks of the axis have equal shards. Of the
    groups of the axis the largest sizes count: of every rank's shard for `broadcast`; for `all_to_all` what the rank with
    most receives.
    """
    sharded = _sharded(step)
    elements = _elements_by_rank(tuple(shape), sharded, step.axis) if _is_uneven(sharded[step.axis]) else ()
    if len(set(elements)) < 2:
        return ()
    by = EXACT[action]
    if by == "broadcast":
        return tuple(Collective(by, step.axis, size, strided=True) for size in elements if size)
    return (Collective(by, step.axis, len(elements) * max(elements), strided=True),)


def sent_by(action: str, by: str, shape: Sequence[int], step: Step) -> tuple[Collective, ...]:
    """The collectives that carry out an action: its own (see `collective`), or those of `exact`; none for a local one."""
    if by != PADDED:
        return exact(action, shape, step)
    own = collective(action, shape, step)
    return () if own is None else (own,)


def in_words(action: str, by: str) -> str:
    """`all_gather`, or `all_gather in exact sizes by broadcast`."""
    return action if by == PADDED else f"{action} in exact sizes by {by}"


def gathered_elements(shape: Sequence[int], step: Step) -> int:
    """Elements of the side of a gather or reduce-scatter that is not cut on the step's axis, on the rank with most."""
    return num_elements(largest_shape(shape, _without(step)))


def _sharded(step: Step) -> Placement:
    return step.source if step.source[step.axis].kind == "S" else step.target


def _without(step: Step) -> Placement:
    return step.target if step.source[step.axis].kind == "S" else step.source


def _is_uneven(cut: State) -> bool:
    return any(len(set(block)) > 1 for block in cut.blocks)


@lru_cache(maxsize=1 << 14)
def _elements_by_rank(shape: tuple[int, ...], placement: Placement, axis: int) -> tuple[int, ...]:
    """Elements that every rank of an axis holds, each the most over the groups of the axis."""
    cut = placement[axis]
    others = [s.blocks for a, s in enumerate(placement) if a != axis and s.kind == "S" and s.dim == cut.dim]
    own = [spans(cut.blocks, rank) for rank in range(len(cut.blocks[0]))]
    sizes = [0] * len(own)
    for ranks in itertools.product(*(range(len(blocks[0])) for blocks in others)):
        held = [spans(blocks, rank) for blocks, rank in zip(others, ranks, strict=True)]
        found = [sum(length for _, length in reduce(intersect, held, mine)) for mine in own]
        sizes = [max(both) for both in zip(sizes, found, strict=True)]
    rest = num_elements([n for dim, n in enumerate(largest_shape(shape, placement)) if dim != cut.dim])
    return tuple(size * rest for size in sizes)
