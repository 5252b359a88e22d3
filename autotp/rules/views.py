"""Operators that move elements without changing them. All are linear in what they move."""

import itertools
import math
from collections.abc import Sequence

from autotp.graph import Operand
from autotp.rules.call import Call, RuleFunction
from autotp.rules.indexing import nothing_split
from autotp.rules.notation import Shape, Tokens, build, fit_row, letters_of
from autotp.rules.rule import OpRule

FIRST = (frozenset((0,)),)


def regroup(before: Shape, after: Shape) -> tuple[Tokens, Tokens, dict[str, int], list[str]]:
    """Letters of a reshape: both shapes are cut at common products, from the minor end.

    Returns the letters of the operand and of the result, their extents, and those that may not be cut: the letters of
    runs of dims whose boundaries do not divide each other.
    """
    edges = [_edges(before), _edges(after)]
    common = sorted(set(edges[0]) & set(edges[1]))
    dims: tuple[list[tuple[str, ...]], list[tuple[str, ...]]] = ([], [])
    extents: dict[str, int] = {}
    whole: list[str] = []
    for low, high in itertools.pairwise(common):
        inside = [[edge for edge in side if low <= edge <= high] for side in edges]
        cuts = sorted({*inside[0], *inside[1]})
        divides = all(big % small == 0 for small, big in itertools.pairwise(cuts))
        for side in (0, 1):
            own = cuts if divides else inside[side]
            mark = "" if divides else "ab"[side]
            letters = {edge: f"f{mark}{edge}" for edge in own[:-1]}
            extents |= {letters[a]: b // a for a, b in itertools.pairwise(own)}
            whole += [] if divides else list(letters.values())
            for a, b in zip(inside[side], inside[side][1:], strict=False):
                dims[side].append(tuple(letters[edge] for edge in reversed(own[:-1]) if a <= edge < b))
    return _spread(before, dims[0]), _spread(after, dims[1]), extents, whole


def _edges(shape: Shape) -> list[int]:
    """Products of the minor dims, ascending, dims of size 1 left out."""
    edges = [1]
    for size in reversed(shape):
        if size > 1:
            edges.append(edges[-1] * size)
    return edges


def _spread(shape: Shape, minor_first: list[tuple[str, ...]]) -> Tokens:
    """Letters of the dims larger than 1, given from the minor end, at their dims."""
    rest = iter(reversed(minor_first))
    return tuple(next(rest) if size > 1 else () for size in shape)


def reshape(call: Call) -> OpRule:
    extents: dict[str, int] = {}
    before, after = call.specs[0].shape, call.results[0]
    if math.prod(before) == 0:
        operand, result = letters_of(len(before), "a"), letters_of(len(after), "b")
        whole = ["*a", "*b"]
    else:
        operand, result, extents, whole = regroup(before, after)
    others = [result] * (len(call.specs) - 1)  # view_as and reshape_as take the shape of another tensor
    return build(call, [operand, *others], [result], sizes=extents, whole=whole, linear=FIRST)


def at_least(call: Call) -> OpRule:
    """atleast_1d, ...: of several tensors at once none is cut."""
    return reshape(call) if len(call.results) == 1 else nothing_split(call)


def expand(call: Call) -> OpRule:
    """Dims that are made larger have a letter in the result alone: every rank makes its own copies."""
    rows = [fit_row("...", len(call.specs[0].shape)), *(fit_row("...", len(spec.shape)) for spec in call.specs[1:])]
    return build(call, rows, [fit_row("...", len(call.results[0]))], linear=FIRST)


def permuted(call: Call, order: Sequence[int]) -> OpRule:
    row = letters_of(len(call.specs[0].shape))
    return build(call, [row], [tuple(row[dim] for dim in order)], linear=FIRST)


def transpose(call: Call) -> OpRule:
    order = list(range(len(call.specs[0].shape)))
    names = ("axis0", "axis1") if "axis0" in call.node.arguments else ("dim0", "dim1")
    a, b = call.dim(names[0]), call.dim(names[1])
    if order:
        order[a], order[b] = order[b], order[a]
    return permuted(call, order)


def reverse_dims(call: Call) -> OpRule:
    return permuted(call, range(len(call.specs[0].shape))[::-1])


def swap_last(call: Call) -> OpRule:
    rank = len(call.specs[0].shape)
    return permuted(call, [*range(rank - 2), rank - 1, rank - 2])


def permute(call: Call) -> OpRule:
    rank = len(call.specs[0].shape)
    return permuted(call, [dim % rank for dim in call.literal("dims")])


def movedim(call: Call) -> OpRule:
    rank = len(call.specs[0].shape)
    source, target = ([v] if isinstance(v, int) else v for v in (call.literal("source"), call.literal("destination")))
    moves = dict(zip((dim % rank for dim in target), (dim % rank for dim in source), strict=True))
    rest = iter(dim for dim in range(rank) if dim not in moves.values())
    return permuted(call, [moves[dim] if dim in moves else next(rest) for dim in range(rank)])


def repeat(call: Call) -> OpRule:
    """Repeats of a dim are its major factor, which only the result has."""
    repeats = call.literal("repeats", call.literal("dims"))
    rank = len(call.specs[0].shape)
    if 0 in repeats:
        return nothing_split(call)
    repeats = (1,) * (rank - len(repeats)) + tuple(repeats)
    row, result = letters_of(rank), letters_of(len(repeats))
    new = len(repeats) - rank
    result = tuple((f"r{i}",) if i < new else (f"r{i}", f"d{i - new}") for i in range(len(repeats)))
    extents = {f"r{i}": count for i, count in enumerate(repeats)}
    extents |= {f"d{i}": size for i, size in enumerate(call.specs[0].shape)}
    return build(call, [row], [result], sizes=extents, linear=FIRST)


def repeat_interleave(call: Call) -> OpRule:
    """Repeats of every element are the minor factor of its dim."""
    repeats = call.node.argument("repeats")
    if isinstance(repeats, Operand) or call.node.argument("dim") is None:
        rows = [letters_of(len(spec.shape), f"t{i}_") for i, spec in enumerate((*call.specs, *call.node.outputs))]
        names = [letter for row in rows for (letter,) in row]
        return build(call, rows[: len(call.specs)], rows[len(call.specs) :], whole=names)
    row, dim = letters_of(len(call.specs[0].shape)), call.dim()
    extents = {"repeats": repeats, f"d{dim}": call.specs[0].shape[dim]}
    return build(call, [row], [(*row[:dim], (f"d{dim}", "repeats"), *row[dim + 1 :])], sizes=extents, linear=FIRST)


RULES: dict[str, RuleFunction] = {
    **dict.fromkeys(
        [
            "view",
            "reshape",
            "_unsafe_view",
            "flatten",
            "unflatten",
            "squeeze",
            "unsqueeze",
            "ravel",
            "view_as",
            "reshape_as",
            *("view_copy", "squeeze_copy", "unsqueeze_copy"),
        ],
        reshape,
    ),
    **dict.fromkeys(["atleast_1d", "atleast_2d", "atleast_3d"], at_least),
    **dict.fromkeys(["expand", "expand_as", "broadcast_to", "expand_copy"], expand),
    **dict.fromkeys(["transpose", "swapaxes", "swapdims", "transpose_copy"], transpose),
    **dict.fromkeys(["t", "numpy_T", "t_copy"], reverse_dims),
    **dict.fromkeys(["mT", "adjoint", "mH", "matrix_H"], swap_last),
    **dict.fromkeys(["permute", "permute_copy"], permute),
    **dict.fromkeys(["movedim", "moveaxis"], movedim),
    **dict.fromkeys(["repeat", "tile"], repeat),
    "repeat_interleave": repeat_interleave,
}
