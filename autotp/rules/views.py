"""Operators that move elements without changing them. All are linear in what they move."""

import itertools
import math
from collections.abc import Iterable, Sequence

from autotp.graph import Node, Operand
from autotp.rules.call import Call, RuleFunction
from autotp.rules.notation import Concat, Shape, Tokens, build, fit_row, letters_of
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


def unread(call: Call, index: int) -> Tokens:
    """Letters, to be whole, of an operand of which only shape or dtype is read."""
    return letters_of(len(call.specs[index].shape), f"unread{index}_")


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


# ---------------------------------------------------------------- parts of a dim


def parts_of(row: Tokens, dim: int, sizes: Sequence[int]) -> tuple[Tokens, list[Tokens], list[str]]:
    """Letters of a tensor whose dim is made of parts of these sizes, of the parts, and those that are whole.

    Equal parts are a product of which the number of parts is whole: a cut takes its share of every part. Unequal parts
    are a concatenation, unless one is too small to cut.
    """
    joined: tuple[str, ...]
    if len(set(sizes)) == 1:
        joined, parts, whole = ("parts", "part"), ["part"] * len(sizes), ["parts"]
    elif min(sizes) < 2:
        parts = [f"part{i}" for i in range(len(sizes))]
        joined, whole = ("joined",), ["joined", *parts]
    else:
        parts = [f"part{i}" for i in range(len(sizes))]
        joined, whole = Concat(parts), []

    def at(letters: tuple[str, ...]) -> Tokens:
        return (*row[:dim], letters, *row[dim + 1 :])

    return at(joined), [at((name,)) for name in parts], whole


def split(call: Call) -> OpRule:
    """split, split_with_sizes, chunk, tensor_split: the sizes are those of the results."""
    dim = call.dim()
    sizes = [shape[dim] for shape in call.results]
    row, parts, whole = parts_of(letters_of(len(call.specs[0].shape)), dim, sizes)
    extents = {"parts": len(sizes)} if "parts" in whole else {}
    return build(call, [row], parts, sizes=extents, whole=whole, linear=FIRST)


def cat(call: Call) -> OpRule:
    dim = call.dim(num_dims=len(call.results[0]))
    shapes = [spec.shape for spec in call.specs]
    everything = (frozenset(range(len(shapes))),)
    if any(len(shape) != len(call.results[0]) for shape in shapes):  # torch lets an empty 1-d tensor pass
        rows = [letters_of(len(shape), f"t{i}_") for i, shape in enumerate(shapes)]
        names = [letter for row in [*rows, letters_of(len(call.results[0]))] for (letter,) in row]
        return build(call, rows, [letters_of(len(call.results[0]))], whole=names, linear=everything)
    sizes = [shape[dim] for shape in shapes]
    row, parts, whole = parts_of(letters_of(len(shapes[0])), dim, sizes)
    extents = {"parts": len(sizes)} if "parts" in whole else {}
    return build(call, parts, [row], sizes=extents, whole=whole, linear=everything)


def unbind(call: Call) -> OpRule:
    row, dim = letters_of(len(call.specs[0].shape)), call.dim()
    part = (*row[:dim], *row[dim + 1 :])
    return build(call, [row], [part] * len(call.results), whole=[f"d{dim}"], linear=FIRST)


def stack(call: Call) -> OpRule:
    row, dim = letters_of(len(call.results[0])), call.dim(num_dims=len(call.results[0]))
    part = (*row[:dim], *row[dim + 1 :])
    everything = frozenset(range(len(call.specs)))
    return build(call, [part] * len(call.specs), [row], whole=[f"d{dim}"], linear=[everything])


def is_plain_slice(node: Node) -> bool:
    """Whether a node is a slice or narrow with literal bounds."""
    return node.short_op in ("slice", "narrow") and not isinstance(node.argument("start"), Operand)


def slice_bounds(call: Call) -> tuple[int, int, int, int]:
    """(dim, start, end, step) of a slice or narrow, counted from the left and inside the dim."""
    dim = call.dim()
    extent = call.specs[0].shape[dim]
    if "length" in call.node.arguments:
        start = call.literal("start", 0)
        start += extent if start < 0 else 0
        return dim, start, start + call.literal("length"), 1
    start, end, step = call.literal("start", 0), call.literal("end", extent), call.literal("step", 1)
    start, end = (max(0, min(extent, bound + extent if bound < 0 else bound)) for bound in (start, end))
    return dim, start, max(start, end), step


def slice_(call: Call) -> OpRule:
    """A slice is one part of a concatenation if other slices tile the dim with it; else it leaves the dim whole."""
    if not is_plain_slice(call.node):
        return rows_with_whole(call, [call.dim()])
    dim, start, end, step = slice_bounds(call)
    row = letters_of(len(call.specs[0].shape))
    extent = call.specs[0].shape[dim]
    if (start, end, step) == (0, extent, 1):
        return build(call, [row], [row], linear=FIRST)
    if step == 1 and start in call.tiles and end in call.tiles:
        sizes = [b - a for a, b in zip(call.tiles, call.tiles[1:], strict=False)]
        joined, parts, whole = parts_of(row, dim, sizes)
        extents = (
            {"parts": len(sizes)} if "parts" in whole else dict(zip((p[dim][0] for p in parts), sizes, strict=True))
        )
        result = parts[call.tiles.index(start)]
        if "joined" not in whole:
            return build(call, [joined], [result], sizes=extents, whole=whole, linear=FIRST)
    return rows_with_whole(call, [dim])


def rows_with_whole(call: Call, dims: Iterable[int], *, linear: bool = True) -> OpRule:
    """First operand and all results have the same dims; those given may change in size and are whole."""
    row = letters_of(len(call.specs[0].shape))
    given = set(dims)
    results = [
        tuple((f"new{dim}",) if dim in given else letter for dim, letter in enumerate(row)) for _ in call.results
    ]
    others = [unread(call, index) for index in range(1, len(call.specs))]
    unused = [letter for other in others for dim in other for letter in dim]
    whole = [name for dim in given for name in (f"d{dim}", f"new{dim}")] + unused
    return build(call, [row, *others], results, whole=whole, linear=FIRST if linear else ())


def select(call: Call) -> OpRule:
    row, dim = letters_of(len(call.specs[0].shape)), call.dim()
    return build(call, [row], [(*row[:dim], *row[dim + 1 :])], whole=[f"d{dim}"], linear=FIRST)


def slice_scatter(call: Call) -> OpRule:
    """`src` is written into a slice of self: the sliced dim is whole."""
    row, dim = letters_of(len(call.specs[0].shape)), call.dim()
    source = tuple(("written",) if d == dim else letter for d, letter in enumerate(row))
    return build(call, [row, source], [row], whole=[f"d{dim}", "written"], linear=[frozenset((0, 1))])


def select_scatter(call: Call) -> OpRule:
    row, dim = letters_of(len(call.specs[0].shape)), call.dim()
    return build(call, [row, (*row[:dim], *row[dim + 1 :])], [row], whole=[f"d{dim}"], linear=[frozenset((0, 1))])


# ---------------------------------------------------------------- copies and moves inside a dim


def pad(call: Call) -> OpRule:
    amounts = call.literal("pad")
    rank = len(call.specs[0].shape)
    dims = [rank - 1 - k for k in range(len(amounts) // 2) if amounts[2 * k] or amounts[2 * k + 1]]
    is_constant = call.literal("mode", "constant") == "constant"
    return rows_with_whole(call, dims, linear=not is_constant or call.literal("value", 0) == 0)


def roll(call: Call) -> OpRule:
    dims = call.dims("dims")
    return _same_rows(call, dims)


def flip(call: Call) -> OpRule:
    return _same_rows(call, call.dims("dims", empty_is_all=False))


def triangle(call: Call) -> OpRule:
    """tril and triu compare positions in the last two dims."""
    rank = len(call.specs[0].shape)
    return _same_rows(call, (rank - 2, rank - 1))


def _same_rows(call: Call, dims: Iterable[int]) -> OpRule:
    row = letters_of(len(call.specs[0].shape))
    return build(call, [row], [row], whole=[f"d{dim}" for dim in dims], linear=FIRST)


def repeat(call: Call) -> OpRule:
    """Repeats of a dim are its major factor, which only the result has."""
    repeats = call.literal("repeats", call.literal("dims"))
    rank = len(call.specs[0].shape)
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
        ],
        reshape,
    ),
    **dict.fromkeys(["expand", "expand_as", "broadcast_to"], expand),
    **dict.fromkeys(["transpose", "swapaxes", "swapdims"], transpose),
    **dict.fromkeys(["t", "numpy_T"], reverse_dims),
    **dict.fromkeys(["mT", "adjoint"], swap_last),
    "permute": permute,
    **dict.fromkeys(["movedim", "moveaxis"], movedim),
    **dict.fromkeys(["split", "split_with_sizes", "chunk", "tensor_split"], split),
    **dict.fromkeys(["cat", "concat", "concatenate"], cat),
    "unbind": unbind,
    "stack": stack,
    **dict.fromkeys(["slice", "narrow"], slice_),
    "select": select,
    "slice_scatter": slice_scatter,
    "select_scatter": select_scatter,
    **dict.fromkeys(["pad", "constant_pad_nd"], pad),
    "roll": roll,
    "flip": flip,
    **dict.fromkeys(["tril", "triu"], triangle),
    **dict.fromkeys(["repeat", "tile"], repeat),
    "repeat_interleave": repeat_interleave,
}
