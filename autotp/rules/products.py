"""Products of tensors other than the plain matrix product."""

from autotp.rules.call import Call, RuleFunction
from autotp.rules.indexing import nothing_split
from autotp.rules.notation import Tokens, build, fit_row, letters_of, rule
from autotp.rules.pointwise import multiplicative
from autotp.rules.rule import OpRule


def addbmm(call: Call) -> OpRule:
    return rule(
        call,
        "self[... m n] batch1[b m k] batch2[b k n] -> [m n]",
        summed="b k",
        additive="self",
        linear=("self batch1", "self batch2"),
        work=(2.0, "b m n k"),
    )


def addmv(call: Call) -> OpRule:
    return rule(
        call,
        "self[... m] mat[m k] vec[k] -> [m]",
        summed="k",
        additive="self",
        linear=("self mat", "self vec"),
        work=(2.0, "m k"),
    )


def addr(call: Call) -> OpRule:
    return rule(call, "self[... m n] vec1[m] vec2[n] -> [m n]", linear=("self vec1", "self vec2"), work=(1.0, "m n"))


def inner(call: Call) -> OpRule:
    left, right = call.shape("self"), call.shape("other")
    if not left or not right:
        return multiplicative(call)
    k = (("k",),)
    rows = (letters_of(len(left) - 1, "a"), letters_of(len(right) - 1, "b"))
    letters = [letter for dim in (*rows[0], *rows[1], *k) for letter in dim]
    return build(
        call, [(*rows[0], *k), (*rows[1], *k)], [(*rows[0], *rows[1])], summed="k",
        linear=[frozenset((0,)), frozenset((1,))], work=(2.0, letters),
    )  # fmt: skip


def tensordot(call: Call) -> OpRule:
    """Pairs of dims are summed over; a pair of unequal sizes (one of them 1) is whole."""
    left, right = call.shape("self"), call.shape("other")
    rows = [list(letters_of(len(left), "a")), list(letters_of(len(right), "b"))]
    pairs = list(zip(call.literal("dims_self", ()), call.literal("dims_other", ()), strict=True))
    summed, whole = [], []
    for a, b in ((a % len(left), b % len(right)) for a, b in pairs):
        if left[a] == right[b]:
            rows[1][b] = rows[0][a]
            summed += rows[0][a]
        else:
            whole += [*rows[0][a], *rows[1][b]]
    contracted = {*summed, *whole}
    result: Tokens = tuple(dim for row in rows for dim in row if dim[0] not in contracted)
    letters = dict.fromkeys(letter for row in rows for dim in row for letter in dim)
    return build(
        call, [tuple(row) for row in rows], [result], summed=summed, whole=whole,
        linear=[frozenset((0,)), frozenset((1,))], work=(2.0, letters),
    )  # fmt: skip


def chain(call: Call) -> OpRule:
    """A product of several matrices; the first and the last may be vectors."""
    count = len(call.specs)
    rows: list[Tokens] = [((f"x{i}",), (f"x{i + 1}",)) for i in range(count)]
    is_row, is_column = len(call.specs[0].shape) == 1, len(call.specs[-1].shape) == 1
    if is_row:
        rows[0] = rows[0][1:]
    if is_column:
        rows[-1] = rows[-1][:1]
    result: Tokens = ((("x0",),) if not is_row else ()) + (((f"x{count}",),) if not is_column else ())
    inside = [f"x{i}" for i in range(1, count)]
    return build(call, rows, [result], summed=inside, linear=[frozenset((i,)) for i in range(count)])


def bilinear(call: Call) -> OpRule:
    return rule(
        call,
        "input1[... i] input2[... j] weight[o i j] bias[o] -> [... o]",
        summed="i j",
        additive="bias",
        linear=("input1 bias", "input2 bias", "weight bias"),
        work=(2.0, "*i i j o"),
    )


def kron(call: Call) -> OpRule:
    """Every dim of the result is the product of the operands' dims."""
    rank = len(call.results[0])
    rows = [
        fit_row(" ".join(f"{name}{i}" for i in range(rank)), len(call.specs[j].shape)) for j, name in enumerate("ab")
    ]
    padded = [((),) * (rank - len(row)) + row for row in rows]
    result = tuple((*a, *b) for a, b in zip(*padded, strict=True))
    sizes = {
        letter: n
        for row, spec in zip(rows, call.specs, strict=True)
        for (letter,), n in zip(row, spec.shape, strict=True)
    }
    if 0 in sizes.values():
        return nothing_split(call)
    return build(call, rows, [result], sizes=sizes, linear=[frozenset((0,)), frozenset((1,))])


def distances(call: Call) -> OpRule:
    """A norm of differences reads all of a vector."""
    return rule(call, "x1[... p d] x2[... r d] -> [... p r]", whole="d", work=(2.0, "*i p r d"))


def vecdot(call: Call) -> OpRule:
    rank = max(len(spec.shape) for spec in call.specs)
    names = [f"d{i}" for i in range(rank)]
    dim = call.literal("dim", -1) % rank
    rows = [fit_row(" ".join(names), len(spec.shape)) for spec in call.specs]
    result = tuple((name,) for i, name in enumerate(names) if i != dim)
    return build(call, rows, [result], summed=[names[dim]], linear=[frozenset((0,)), frozenset((1,))])


def cross(call: Call) -> OpRule:
    """Every element is made of two others along the dim, which is whole."""
    rank = len(call.results[0])
    dim = call.literal("dim")
    if dim is None:
        dim = next(i for i, size in enumerate(call.results[0]) if size == 3)
    names = [f"d{i}" for i in range(rank)]
    rows = [fit_row(" ".join(names), len(spec.shape)) for spec in call.specs]
    return build(
        call, rows, [fit_row(" ".join(names), rank)], whole=[names[dim % rank]],
        linear=[frozenset((0,)), frozenset((1,))],
    )  # fmt: skip


RULES: dict[str, RuleFunction] = {
    "addbmm": addbmm,
    "addmv": addmv,
    "addr": addr,
    "inner": inner,
    "tensordot": tensordot,
    **dict.fromkeys(["linalg_multi_dot", "chain_matmul"], chain),
    "bilinear": bilinear,
    "kron": kron,
    "cdist": distances,
    **dict.fromkeys(["linalg_vecdot", "vdot"], vecdot),
    **dict.fromkeys(["cross", "linalg_cross"], cross),
}
