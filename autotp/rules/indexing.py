"""Looking up and writing by index. Indices are positions in the whole dim, so an indexed dim is whole."""

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
    row = letters_of(len(shape))
    picked = tuple((f"d{d}",) if d != dim and n == shape[d] else (f"p{d}",) for d, n in enumerate(index))
    short = [d for d, n in enumerate(index) if d != dim and n != shape[d]]
    whole = [f"d{dim}", *(f"d{d}" for d in short), *(f"p{d}" for d in short)]
    return build(call, [row, picked], [picked], whole=whole, linear=[frozenset((0,))])


def scatter(call: Call) -> OpRule:
    """Written along a whole dim; `src` may be longer than the index, then those dims are whole."""
    shape, index, dim = call.shape("self"), call.shape("index"), call.dim()
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
    return build(
        call,
        [row, (("written",),) * len(call.shape("index")), source],
        [row],
        summed=["written"] if adds else [],
        whole=[f"d{dim}"] if adds else [f"d{dim}", "written"],
        additive=frozenset((0,)) if adds else frozenset(),
        linear=[frozenset((0, 2))],
    )


def index(call: Call) -> OpRule:
    """`self[indices]`: dims without index keep their letters, index dims are letters of their own."""
    indices = call.literal("indices")
    shape = call.shape("self")
    picks = [(dim, item.index) for dim, item in enumerate(indices) if isinstance(item, Operand)]
    if any(call.specs[i].dtype in ("bool", "uint8") for _, i in picks):
        return nothing_split(call)
    rows: list[Tokens] = [()] * len(call.specs)
    rows[0] = letters_of(len(shape))
    num_picked = max(len(call.specs[i].shape) for _, i in picks)
    picked: Tokens = tuple((f"p{k}",) for k in range(num_picked))
    for _, i in picks:
        rows[i] = picked[num_picked - len(call.specs[i].shape) :]
    at = [dim for dim, _ in picks]
    first = at[0] if at == list(range(at[0], at[-1] + 1)) else 0
    kept = [letter for dim, letter in enumerate(rows[0]) if dim not in at]
    before = sum(dim < first and dim not in at for dim in range(len(shape)))
    result = (*kept[:before], *picked, *kept[before:])
    return build(call, rows, [result], whole=[f"d{dim}" for dim in at], linear=[frozenset((0,))])


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
    **dict.fromkeys(["scatter", "scatter_add"], scatter),
    **dict.fromkeys(["index_add", "index_copy"], index_write),
    "index": index,
    "one_hot": one_hot,
    **dict.fromkeys(["index_put", "histc"], nothing_split),
}
