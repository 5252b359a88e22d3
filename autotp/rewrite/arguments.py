"""Literal arguments that name sizes, as one rank has to give them."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from autotp.rewrite.share import Share

Change = Callable[[Share], Mapping[str, Any]]


def _result_shape(name: str) -> Change:
    return lambda share: {name: share.results[0]}


def _split_sizes(share: Share) -> dict[str, Any]:
    dim = int(share.node.argument("dim", 0))
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


def _groups(share: Share) -> dict[str, Any]:
    return {"groups": share.size("g")} if "g" in share.rule.extents else {}


def _num_groups(share: Share) -> dict[str, Any]:
    return {"num_groups": share.size("g")}


ARGUMENTS: dict[str, Change] = {
    **dict.fromkeys(
        ("view", "reshape", "_unsafe_view", "flatten", "squeeze", "unsqueeze", "ravel"), _result_shape("shape")
    ),
    "unflatten": _result_shape("shape"),
    **dict.fromkeys(("expand", "broadcast_to"), _result_shape("size")),
    **dict.fromkeys(("split", "split_with_sizes", "chunk", "tensor_split"), _split_sizes),
    **dict.fromkeys(("slice", "narrow"), _slice),
    "repeat": _repeats("repeats"),
    "tile": _repeats("dims"),
    "repeat_interleave": _interleaved,
    **dict.fromkeys([f"conv{n}d" for n in (1, 2, 3)] + [f"conv_transpose{n}d" for n in (1, 2, 3)], _groups),
    "group_norm": _num_groups,
    **dict.fromkeys(("zeros", "ones", "full", "empty", "rand", "randn", "randint"), _result_shape("size")),
    **dict.fromkeys(("new_zeros", "new_ones", "new_full", "new_empty"), _result_shape("size")),
}

# a shard need not have the strides of the whole, so that a view of it may be impossible
RENAMED = {
    **dict.fromkeys(
        ("view", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze", "ravel"), "aten.reshape.default"
    ),
    "view_as": "aten.reshape_as.default",
    **dict.fromkeys(("split", "chunk", "tensor_split"), "aten.split_with_sizes.default"),
}
