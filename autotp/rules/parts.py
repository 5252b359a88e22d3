"""Operators that take tensors apart and put them together along a dim, or move elements within it. All are linear."""

from collections.abc import Iterable, Sequence

from autotp.graph import Node, Operand
from autotp.rules.call import Call, RuleFunction
from autotp.rules.indexing import nothing_split
from autotp.rules.notation import Concat, Tokens, build, letters_of, unread
from autotp.rules.rule import OpRule

FIRST = (frozenset((0,)),)


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
    return split_along(call, call.dim())


def split_along(call: Call, dim: int) -> OpRule:
    if len(call.specs) > 1:  # where to split is in a tensor
        return nothing_split(call)
    sizes = [shape[dim] for shape in call.results]
    row, parts, whole = parts_of(letters_of(len(call.specs[0].shape)), dim, sizes)
    extents = {"parts": len(sizes)} if "parts" in whole else {}
    return build(call, [row], parts, sizes=extents, whole=whole, linear=FIRST)


def cat(call: Call) -> OpRule:
    if any(len(spec.shape) != len(call.results[0]) for spec in call.specs):  # torch lets an empty 1-d tensor pass
        return all_whole(call)
    return cat_along(call, call.dim(num_dims=len(call.results[0])))


def cat_along(call: Call, dim: int) -> OpRule:
    sizes = [spec.shape[dim] for spec in call.specs]
    row, parts, whole = parts_of(letters_of(len(call.results[0])), dim, sizes)
    extents = {"parts": len(sizes)} if "parts" in whole else {}
    return build(call, parts, [row], sizes=extents, whole=whole, linear=[frozenset(range(len(sizes)))])


def split_at(call: Call) -> OpRule:
    """hsplit, vsplit, dsplit: split of a fixed dim."""
    rank = len(call.specs[0].shape)
    return split_along(call, {"h": 0 if rank == 1 else 1, "v": 0, "d": 2}[call.node.short_op[0]])


def joined(call: Call) -> OpRule:
    """hstack, vstack, dstack, column_stack: a cat of tensors with the result's dims; those that get new dims are whole."""
    rank = len(call.results[0])
    if any(len(spec.shape) != rank for spec in call.specs):
        return all_whole(call)
    dim = {"h": 0 if rank == 1 else 1, "v": 0, "d": 2, "c": 1}[call.node.short_op[0]]
    return cat_along(call, dim)


def all_whole(call: Call) -> OpRule:
    rows = [letters_of(len(shape), f"t{i}_") for i, shape in enumerate([s.shape for s in call.specs] + [*call.results])]
    names = [letter for row in rows for (letter,) in row]
    everything = frozenset(range(len(call.specs)))
    return build(call, rows[: len(call.specs)], rows[len(call.specs) :], whole=names, linear=[everything])


def meshgrid(call: Call) -> OpRule:
    """Every operand has a dim of its own in all results; `xy` swaps the first two."""
    names = [f"g{i}" for i in range(len(call.specs))]
    rows = [((name,),) * len(spec.shape) for name, spec in zip(names, call.specs, strict=True)]
    if call.literal("indexing", "ij") == "xy" and len(names) > 1:
        names[:2] = names[1::-1]
    result = tuple((name,) for name in names)
    return build(call, rows, [result] * len(call.results), linear=[frozenset(range(len(rows)))])


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
    return node.short_op in ("slice", "narrow", "slice_copy", "narrow_copy") and not isinstance(
        node.argument("start"), Operand
    )


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
    fixed = {"fliplr": (1,), "flipud": (0,)}.get(call.node.short_op)
    return _same_rows(call, call.dims("dims", empty_is_all=False) if fixed is None else fixed)


def triangle(call: Call) -> OpRule:
    """tril and triu compare positions in the last two dims."""
    rank = len(call.specs[0].shape)
    return _same_rows(call, (rank - 2, rank - 1))


def _same_rows(call: Call, dims: Iterable[int]) -> OpRule:
    row = letters_of(len(call.specs[0].shape))
    return build(call, [row], [row], whole=[f"d{dim}" for dim in dims], linear=FIRST)


RULES: dict[str, RuleFunction] = {
    **dict.fromkeys(
        [
            *("split", "split_with_sizes", "chunk", "tensor_split"),
            *("unsafe_split", "unsafe_split_with_sizes", "unsafe_chunk", "split_copy", "split_with_sizes_copy"),
        ],
        split,
    ),
    **dict.fromkeys(["hsplit", "vsplit", "dsplit"], split_at),
    **dict.fromkeys(["cat", "concat", "concatenate"], cat),
    **dict.fromkeys(["hstack", "vstack", "dstack", "column_stack"], joined),
    "meshgrid": meshgrid,
    **dict.fromkeys(["unbind", "unbind_copy"], unbind),
    "stack": stack,
    **dict.fromkeys(["slice", "narrow", "slice_copy", "narrow_copy"], slice_),
    **dict.fromkeys(["select", "select_copy"], select),
    "slice_scatter": slice_scatter,
    "select_scatter": select_scatter,
    **dict.fromkeys(["pad", "constant_pad_nd"], pad),
    "roll": roll,
    **dict.fromkeys(["flip", "fliplr", "flipud"], flip),
    **dict.fromkeys(["tril", "triu"], triangle),
}
