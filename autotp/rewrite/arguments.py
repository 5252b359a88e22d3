"""Literal arguments that name sizes, as one rank has to give them."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from autotp.rewrite.share import Share

RESHAPES = (
    *("view", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze", "ravel"),
    *("view_copy", "squeeze_copy", "unsqueeze_copy"),
)
SPLITS = (
    *("split", "chunk", "tensor_split", "hsplit", "vsplit", "dsplit"),
    *("unsafe_split", "unsafe_split_with_sizes", "unsafe_chunk", "split_copy", "split_with_sizes_copy"),
)

Change = Callable[[Share], Mapping[str, Any]]


def _result_shape(name: str) -> Change:
    return lambda share: {name: share.results[0]}


def _split_sizes(share: Share) -> dict[str, Any]:
    fixed = {"h": 1 if len(share.results[0]) > 1 else 0, "v": 0, "d": 2}
    name = share.node.short_op
    dim = fixed[name[0]] if name[1:] == "split" else int(share.node.argument("dim", 0))
    return {"split_sizes": tuple(shape[dim] for shape in share.results), "dim": dim}


def _slice(share: Share) -> dict[str, Any]:
    """Start and end of this rank's part of the slice, which comes after its part of what lies before the slice."""
    (result,) = share.results
    dim = int(share.node.argument("dim", 0)) % max(len(result), 1)
    whole, part = share.rule.operands[0][dim], share.rule.results[0][dim]
    if whole == part:
        return {} if not share.axes_of(whole.letters) else _bounds(share, 0, result[dim])
    if not part.letters or part.letters[0] not in whole.letters:
        return {}  # the dim is whole
    if whole.is_concat:
        before = whole.letters[: whole.letters.index(part.letters[0])]
        return _bounds(share, sum(map(share.size, before)), result[dim])
    start = int(share.node.argument("start") or 0)
    start += math.prod(map(share.extent, whole.letters)) if start < 0 else 0
    return _bounds(share, start // share.extent(part.letters[0]) * result[dim], result[dim])


def _bounds(share: Share, start: int, length: int) -> dict[str, Any]:
    if "length" in share.node.arguments:
        return {"start": start, "length": length}
    return {"start": start, "end": start + length}


def _repeats(name: str) -> Change:
    """Every dim is (repeats, elements): the rank's own number of repeats."""

    def change(share: Share) -> dict[str, Any]:
        return {name: tuple(share.size(f"r{i}") for i in range(len(share.node.outputs[0].shape)))}

    return change


def _interleaved(share: Share) -> dict[str, Any]:
    if "repeats" not in share.rule.extents:
        return {"output_size": None}
    return {"repeats": share.size("repeats"), "output_size": None}


def _cross_dim(share: Share) -> dict[str, Any]:
    """Without a dim torch takes the first one of size 3, which a shard may have elsewhere."""
    (dim,) = (i for i, letters in enumerate(share.rule.results[0]) if share.rule.whole & set(letters.letters))
    return {"dim": dim}


ARGUMENTS: dict[str, Change] = {
    **dict.fromkeys((*RESHAPES, "reshape"), _result_shape("shape")),
    **dict.fromkeys(("expand", "broadcast_to", "expand_copy", "sum_to_size"), _result_shape("size")),
    **dict.fromkeys((*SPLITS, "split_with_sizes"), _split_sizes),
    **dict.fromkeys(("slice", "narrow", "slice_copy", "narrow_copy"), _slice),
    "cross": _cross_dim,
    "repeat": _repeats("repeats"),
    "tile": _repeats("dims"),
    "repeat_interleave": _interleaved,
    **dict.fromkeys(("zeros", "ones", "full", "empty", "rand", "randn", "randint", "normal"), _result_shape("size")),
    **dict.fromkeys(("new_zeros", "new_ones", "new_full", "new_empty"), _result_shape("size")),
}

# a shard need not have the strides of the whole, so that a view of it may be impossible
RENAMED = {
    **dict.fromkeys(RESHAPES, "aten.reshape.default"),
    "view_as": "aten.reshape_as.default",
    **dict.fromkeys(SPLITS, "aten.split_with_sizes.default"),
}
