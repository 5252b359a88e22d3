"""Looking up and writing by index. Indices are positions in the whole dim, so an indexed dim is whole."""

import math

from autotp.graph import Operand
from autotp.rules.call import Call, RuleFunction
from autotp.rules.notation import Tokens, build, letters_of, rule, unread
from autotp.rules.rule import OpRule


def embedding(call: Call) -> OpRule:
    """A cut of the vocabulary masks the rows of other ranks: partial sums."""
    by_frequency = call.literal("scale_grad_by_freq", False)  # counts all indices, of all rows
    sparse = call.literal("sparse", False)
    return rule(
        call,
        "weight[v d] indices[...] -> [... d]",
        summed="v",
        whole="v *i" if by_frequency or sparse else "",
        linear=("weight",),
        local={"v": "embedding"},
    )


def index_select(call: Call) -> OpRule:
    row, dim = letters_of(len(call.shape("self"))), call.dim()
    result = tuple(("picked",) if d == dim else letter for d, letter in enumerate(row))
    index: Tokens = (("picked",),) * len(call.shape("index"))
    return build(call, [row, index], [result], whole=[f"d{dim}"], linear=[frozenset((0,))])


def gather(call: Call) -> OpRule:
    """Other dims of the index may be shorter than those of the operand: then they are whole."""
    shape, index, dim = call.shape("self"), call.shape("index"), call.dim()
    if len(shape) != len(index) or not shape:  # torch takes numbers for vectors of one
        return nothing_split(call)
    row = letters_of(len(shape))
    picked = tuple((f"d{d}",) if d != dim and n == shape[d] else (f"p{d}",) for d, n in enumerate(index))
    short = [d for d, n in enumerate(index) if d != dim and n != shape[d]]
    whole = [f"d{dim}", *(f"d{d}" for d in short), *(f"p{d}" for d in short)]
    return build(call, [row, picked], [picked], whole=whole, linear=[frozenset((0,))])


def scatter(call: Call) -> OpRule:
    """Written along a whole dim; `src` may be longer than the index, then those dims are whole."""
    shape, index, dim = call.shape("self"), call.shape("index"), call.dim()
    if len(shape) != len(index) or not shape:  # torch takes numbers for vectors of one
        return nothing_split(call)
    row = letters_of(len(shape))
    written = tuple((f"d{d}",) if d != dim and n == shape[d] else (f"p{d}",) for d, n in enumerate(index))
    rows = [row, written]
    whole = [f"d{dim}", *(f"d{d}" for d, n in enumerate(index) if n != shape[d]), *(f"p{d}" for d in range(len(index)))]
    has_source = call.index("src") is not None
    if has_source:
        source = call.shape("src")
        rows.append(tuple(written[d] if n == index[d] else (f"s{d}",) for d, n in enumerate(source)))
        whole += [name for d, n in enumerate(source) if n != index[d] for name in (f"s{d}", f"d{d}")]
    adds = call.node.short_op == "scatter_add" or call.node.argument("reduce") is None
    zero = not has_source and call.literal("value", 1) == 0 and call.node.argument("reduce") is None
    linear = [frozenset((0, 2))] if has_source and adds else [frozenset((0,))] if zero else []
    return build(call, rows, [row], whole=whole, linear=linear)


def index_write(call: Call) -> OpRule:
    """index_add, index_copy: along a whole dim. index_add of a cut index leaves partial sums."""
    row, dim = letters_of(len(call.shape("self"))), call.dim()
    source = tuple(("written",) if d == dim else letter for d, letter in enumerate(row))
    adds = call.node.short_op == "index_add"
    is_linear = call.node.short_op != "index_reduce"
    return build(
        call,
        [row, (("written",),) * len(call.shape("index")), source],
        [row],
        summed=["written"] if adds else [],
        whole=[f"d{dim}"] if adds else [f"d{dim}", "written"],
        additive=frozenset((0,)) if adds else frozenset(),
        linear=[frozenset((0, 2))] if is_linear else [],
    )


def index(call: Call) -> OpRule:
    """`self[indices]`: dims without index keep their letters, index dims are letters of their own."""
    found = _indexed(call)
    if found is None:
        return nothing_split(call)
    rows, result, at = found
    return build(call, rows, [result], whole=[f"d{dim}" for dim in at], linear=[frozenset((0,))])


def _indexed(call: Call) -> tuple[list[Tokens], Tokens, list[int]] | None:
    """Letters of self and its indices, of what they pick, and the indexed dims; None where a mask decides how many."""
    picks = [(dim, item.index) for dim, item in enumerate(call.literal("indices")) if isinstance(item, Operand)]
    if not picks or any(call.specs[i].dtype in ("bool", "uint8") for _, i in picks):
        return None
    rows: list[Tokens] = [()] * len(call.specs)
    rows[0] = letters_of(len(call.shape("self")))
    num_picked = max(len(call.specs[i].shape) for _, i in picks)
    picked: Tokens = tuple((f"p{k}",) for k in range(num_picked))
    for _, i in picks:
        rows[i] = picked[num_picked - len(call.specs[i].shape) :]
    at = [dim for dim, _ in picks]
    first = at[0] if at == list(range(at[0], at[-1] + 1)) else 0
    kept = [letter for dim, letter in enumerate(rows[0]) if dim not in at]
    before = sum(dim < first and dim not in at for dim in range(len(rows[0])))
    return rows, (*kept[:before], *picked, *kept[before:]), at


def index_put(call: Call) -> OpRule:
    """Written where indices say, in whole dims. Added values of cut indices are partial sums, as in index_add."""
    if math.prod(call.shape("values")) == 1 and not call.literal("accumulate", False) and _has_masks(call):
        return _filled_by_masks(call)
    return _put(call, adds=call.literal("accumulate", False))


def masked_index_put(call: Call) -> OpRule:
    """Values are added where the mask says."""
    return _put(call, adds=True)


def masked_index(call: Call) -> OpRule:
    """`self[indices]`, or the literal where the mask says no, which lets partial sums pass if it is 0."""
    found, mask = _indexed(call), call.index("mask")
    if found is None or mask is None:
        return nothing_split(call)
    rows, result, at = found
    rows[mask] = result[len(result) - len(call.specs[mask].shape) :]
    linear = [frozenset((0,))] if call.literal("fill", 0) == 0 else []
    return build(call, rows, [result], whole=[f"d{dim}" for dim in at], linear=linear)


def _put(call: Call, *, adds: bool) -> OpRule:
    found, values, mask = _indexed(call), call.index("values") or 0, call.index("mask")
    if found is None:
        return nothing_split(call)
    rows, result, at = found
    rows[values] = result[len(result) - len(call.shape("values")) :]
    if mask is not None:
        rows[mask] = result[len(result) - len(call.specs[mask].shape) :]
    picked = [letter for dim in result for letter in dim if letter[0] == "p"]
    # where an index has no dim of its own nothing marks that values are added once per rank
    is_added = adds and all(
        n != 1 for n, dim in zip(call.shape("values"), rows[values], strict=True) if dim[0] in picked
    )
    is_added = is_added and len(rows[values]) == len(result)
    return build(
        call,
        rows,
        [rows[0]],
        summed=picked if is_added else [],
        whole=[f"d{dim}" for dim in at] + ([] if is_added else picked),
        additive=frozenset((0,)) if is_added else frozenset(),
        linear=[frozenset((0, values))],
    )


def _has_masks(call: Call) -> bool:
    return all(call.specs[item.index].dtype == "bool" for item in call.literal("indices") if isinstance(item, Operand))


def _filled_by_masks(call: Call) -> OpRule:
    """`self[mask] = number`: elementwise over the dims of the mask. Several masks pick by number: those are whole."""
    masks = [item for item in call.literal("indices") if isinstance(item, Operand)]
    if len(masks) != 1:
        return nothing_split(call)
    row = letters_of(len(call.shape("self")))
    start = call.literal("indices").index(masks[0])
    rows: list[Tokens] = [()] * len(call.specs)
    rows[0] = row
    rows[masks[0].index] = row[start : start + len(call.specs[masks[0].index].shape)]
    rows[call.index("values") or 0] = ((),) * len(call.shape("values"))
    return build(call, rows, [row])


def index_fill(call: Call) -> OpRule:
    """Along a whole dim."""
    row, dim = letters_of(len(call.shape("self"))), call.dim()
    rows = [row, (("written",),) * len(call.shape("index")), *([()] * (len(call.specs) - 2))]
    zero = call.index("value") is None and call.literal("value", 1) == 0
    return build(call, rows, [row], whole=[f"d{dim}", "written"], linear=[frozenset((0,))] if zero else [])


def take(call: Call) -> OpRule:
    """By position in the whole tensor."""
    rows = [unread(call, 0), letters_of(len(call.shape("index")), "p")]
    whole = [letter for dim in rows[0] for letter in dim]
    return build(call, rows, [rows[1]], whole=whole, linear=[frozenset((0,))])


def take_along_dim(call: Call) -> OpRule:
    """gather, with broadcasting between both."""
    if call.node.argument("dim") is None:
        return take_flat(call)
    dim, rank = call.dim(), len(call.specs[0].shape)
    rows = [tuple((f"{name}{d}",) if d == dim else (f"d{d}",) for d in range(rank)) for name in ("d", "p")]
    return build(call, rows, [rows[1]], whole=[f"d{dim}"], linear=[frozenset((0,))])


def take_flat(call: Call) -> OpRule:
    rows = [unread(call, i) for i in range(2)]
    result = letters_of(len(call.results[0]), "p")
    rows[1] = result if len(rows[1]) == len(result) else rows[1]
    whole = [letter for row in (rows[0], *([rows[1], result] if rows[1] is not result else [])) for (letter,) in row]
    return build(call, rows, [result], whole=whole, linear=[frozenset((0,))])


def searched(call: Call) -> OpRule:
    """bucketize, searchsorted: boundaries are whole."""
    if "boundaries" in call.node.arguments:
        return rule(call, "self[...] boundaries[k] -> [...]", whole="k")
    if call.index("self") is None:
        return nothing_split(call)
    if len(call.shape("sorted_sequence")) == 1:
        return rule(call, "sorted_sequence[k] self[...] sorter[k] -> [...]", whole="k")
    return rule(call, "sorted_sequence[... k] self[... q] sorter[... k] -> [... q]", whole="k")


def is_in(call: Call) -> OpRule:
    return rule(call, "elements[...] element[...] test_elements[*k] test_element[*k] -> [...]", whole="*k")


def one_hot(call: Call) -> OpRule:
    return rule(call, "self[...] -> [... c]", whole="c *i" if call.literal("num_classes", -1) < 0 else "c")


def nothing_split(call: Call) -> OpRule:
    """An operator that is known, and runs on whole tensors only."""
    rows = [unread(call, i) for i in range(len(call.specs))]
    results = [letters_of(len(shape), f"result{i}_") for i, shape in enumerate(call.results)]
    names = [letter for row in [*rows, *results] for (letter,) in row]
    return build(call, rows, results, whole=names)


RULES: dict[str, RuleFunction] = {
    "embedding": embedding,
    "index_select": index_select,
    "gather": gather,
    **dict.fromkeys(["scatter", "scatter_add", "scatter_reduce"], scatter),
    **dict.fromkeys(["index_add", "index_copy", "index_reduce"], index_write),
    **dict.fromkeys(["index", "_unsafe_index"], index),
    **dict.fromkeys(["index_put", "_unsafe_index_put"], index_put),
    "_unsafe_masked_index": masked_index,
    "_unsafe_masked_index_put_accumulate": masked_index_put,
    "index_fill": index_fill,
    "take": take,
    "take_along_dim": take_along_dim,
    **dict.fromkeys(["searchsorted", "bucketize"], searched),
    "isin": is_in,
    "one_hot": one_hot,
}
