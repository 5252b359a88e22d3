"""Reductions, scans and sorts along dims."""

from collections.abc import Collection

from autotp.rules.call import Call, RuleFunction
from autotp.rules.notation import Tokens, build, fit_row, letters_of, rule
from autotp.rules.rule import OpRule


def _reduce(call: Call, dims: Collection[int], *, summed: bool, local: str = "", linear: bool = False) -> OpRule:
    row = letters_of(len(call.specs[0].shape))
    letters = [f"d{dim}" for dim in dims]
    result = tuple(() if dim in dims else letter for dim, letter in enumerate(row))
    if call.results and len(call.results[0]) != len(row):
        result = tuple(letter for dim, letter in enumerate(row) if dim not in dims)
    return build(
        call,
        [row],
        [result] * len(call.results),
        summed=letters if summed else (),
        whole=() if summed else letters,
        linear=[frozenset((0,))] if linear else (),
        local=dict.fromkeys(letters, local) if local else None,
    )


def sum_(call: Call) -> OpRule:
    """Partial sums pass, though not into a count of booleans: those are no sums."""
    return _reduce(call, call.dims(), summed=True, linear=call.specs[0].dtype != "bool")


def mean(call: Call) -> OpRule:
    """A cut mean is the local sum over the whole count."""
    return _reduce(call, call.dims(), summed=True, local="mean", linear=True)


def count(call: Call) -> OpRule:
    """nansum, count_nonzero: sums of something else than the elements, so that partial sums may not pass."""
    return _reduce(call, call.dims(), summed=True)


def reduce_whole(call: Call) -> OpRule:
    """prod, median, other norms, ...: what is reduced may not be cut."""
    return _reduce(call, call.dims(), summed=False)


def sum_to_size(call: Call) -> OpRule:
    """Dims that become 1, or vanish at the front, are summed."""
    shape, result = call.specs[0].shape, call.results[0]
    row = letters_of(len(shape))
    kept = row[len(row) - len(result) :]
    gone = [d for d in range(len(row)) if d < len(row) - len(result) or result[d - len(row) + len(result)] != shape[d]]
    letters = [f"d{d}" for d in gone]
    return build(call, [row], [kept], summed=letters, linear=[frozenset((0,))])


def similarity(call: Call) -> OpRule:
    """cosine_similarity, pairwise_distance: the vectors' dim is whole."""
    rank = max(len(spec.shape) for spec in call.specs)
    names = [f"d{i}" for i in range(rank)]
    dim = call.literal("dim", 1 if call.node.short_op == "cosine_similarity" else -1) % max(rank, 1)
    rows = [fit_row(" ".join(names), len(spec.shape)) for spec in call.specs]
    result: Tokens = tuple((name,) for i, name in enumerate(names) if i != dim)
    if len(call.results[0]) == rank:
        result = tuple(() if i == dim else (name,) for i, name in enumerate(names))
    return build(call, rows, [result], whole=names[dim : dim + 1])


def matrix_norm(call: Call) -> OpRule:
    rank = len(call.specs[0].shape)
    return _reduce(call, [d % rank for d in call.literal("dim", (-2, -1))], summed=False)


def quantile(call: Call) -> OpRule:
    """Along a whole dim, or all; several quantiles are a new first dim."""
    row = letters_of(len(call.specs[0].shape))
    has_dim = call.node.argument("dim") is not None
    dims = [call.dim()] if has_dim else range(len(row))
    keeps = call.literal("keepdim", False)
    result = tuple(() if d in dims else letter for d, letter in enumerate(row) if keeps or d not in dims)
    q = [letters_of(len(spec.shape), "q") for spec in call.specs[1:]]
    several: Tokens = tuple(dim for one in q for dim in one)
    whole = [*(f"d{d}" for d in dims), *(letter for dim in several for letter in dim)]
    return build(call, [row, *q], [(*several, *result)], whole=whole)


def renorm(call: Call) -> OpRule:
    """Every slice along the dim is scaled by its own norm."""
    row, dim = letters_of(len(call.specs[0].shape)), call.dim()
    return build(call, [row], [row], whole=[f"d{d}" for d in range(len(row)) if d != dim])


def weight_norm(call: Call) -> OpRule:
    """`g v / |v|`: one norm for every element of the dim; the second result, if any, is the norms."""
    row = letters_of(len(call.specs[0].shape))
    dim = call.literal("dim", 0) % len(row)
    norms = tuple(letter if d == dim else () for d, letter in enumerate(row))
    whole = [f"d{d}" for d in range(len(row)) if d != dim]
    linear = [frozenset((1,))] if len(call.results) == 1 else []
    return build(call, [row, norms], [row, norms][: len(call.results)], whole=whole, linear=linear)


def trapezoid(call: Call) -> OpRule:
    """Areas under a curve along a whole dim."""
    rank = max(len(spec.shape) for spec in call.specs)
    names = [f"d{i}" for i in range(rank)]
    dim = call.literal("dim", -1) % rank
    y = fit_row(" ".join(names), len(call.specs[0].shape))
    rows = [y, *(fit_row(names[dim] if len(s.shape) == 1 else " ".join(names), len(s.shape)) for s in call.specs[1:])]
    keeps = call.node.short_op == "cumulative_trapezoid"
    result = tuple(("area",) if i == dim else (name,) for i, name in enumerate(names) if keeps or i != dim)
    return build(call, rows, [result], whole=[names[dim], "area"], linear=[frozenset((0,))])


def gradient(call: Call) -> OpRule:
    """Differences along dims, which are whole."""
    row = letters_of(len(call.specs[0].shape))
    dims = call.dims()
    others = [letters_of(len(spec.shape), f"spacing{i}_") for i, spec in enumerate(call.specs[1:])]
    whole = [*(f"d{d}" for d in dims), *(letter for one in others for dim in one for letter in dim)]
    return build(call, [row, *others], [row] * len(call.results), whole=whole)


def multinomial(call: Call) -> OpRule:
    """Draws by weights, which are whole; rows draw apart."""
    n = "n " if len(call.specs[0].shape) == 2 else ""
    return rule(call, f"self[{n}c] -> [{n}k]", whole="c k", local={"*": "seeded"})


def scan(call: Call) -> OpRule:
    """cumsum and diff along a dim are linear; the dim is whole and may change in size."""
    return _along(call, linear=not any(call.index(name) is not None for name in ("prepend", "append")))


def order(call: Call) -> OpRule:
    """sort, topk, cummax, cumprod: the dim is whole and may change in size."""
    return _along(call, linear=False)


def _along(call: Call, *, linear: bool) -> OpRule:
    dim = 0 if call.node.short_op == "msort" else call.dim(default=-1)
    rows = [
        tuple((f"t{i}",) if d == dim else (f"d{d}",) for d in range(len(s.shape))) for i, s in enumerate(call.specs)
    ]
    results = [tuple(("new",) if d == dim else (f"d{d}",) for d in range(len(shape))) for shape in call.results]
    whole = ["new", *(f"t{i}" for i in range(len(call.specs)))]
    return build(call, rows, results, whole=whole, linear=[frozenset((0,))] if linear else ())


RULES: dict[str, RuleFunction] = {
    "sum": sum_,
    "mean": mean,
    **dict.fromkeys(["nansum", "count_nonzero"], count),
    **dict.fromkeys(
        ["aminmax", "prod", "nanmean", "median", "nanmedian", "kthvalue", "mode", "linalg_norm"], reduce_whole
    ),
    **dict.fromkeys(["cumsum", "diff"], scan),
    "sum_to_size": sum_to_size,
    **dict.fromkeys(["cosine_similarity", "pairwise_distance"], similarity),
    "linalg_matrix_norm": matrix_norm,
    **dict.fromkeys(["quantile", "nanquantile"], quantile),
    "renorm": renorm,
    **dict.fromkeys(["_weight_norm", "_weight_norm_interface"], weight_norm),
    **dict.fromkeys(["trapezoid", "trapz", "cumulative_trapezoid"], trapezoid),
    "gradient": gradient,
    "multinomial": multinomial,
    **dict.fromkeys(["sort", "topk", "msort", "argsort", "cumprod", "cummax", "cummin", "logcumsumexp"], order),
}
