"""The one table of redistributions: what a change of state does, forward and backward, on one mesh axis.

Cost, rewriter, runtime and report all read it, so that what is priced is what runs (design, section 4).
An *action* is local (`slice`, `pad`, `keep`: no bytes cross a link) or one of the four collectives.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from autotp.placement import Placement, State, largest_shape, num_elements

COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")
REDUCTIONS = ("all_reduce", "reduce_scatter")  # those that add up partial sums
HALVES = ("float16", "bfloat16")
REDUCE_DTYPES = ("float32",)  # in which halves may be added up

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
    sharded = step.source if step.source[step.axis].kind == "S" else step.target
    cut, local = sharded[step.axis], list(largest_shape(shape, sharded))
    strided = len(cut.blocks) > 1 or any(size != 1 for size in local[: cut.dim])
    local[cut.dim] *= len(cut.blocks[0])
    return Collective(action, step.axis, num_elements(local), strided)
