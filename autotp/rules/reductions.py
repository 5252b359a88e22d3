"""Reductions, scans and sorts along dims."""

from collections.abc import Collection

from autotp.rules.call import Call, RuleFunction
from autotp.rules.notation import build, letters_of
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


def reduce_whole(call: Call) -> OpRule:
    """amax, prod, var, norms, ...: what is reduced may not be cut."""
    return _reduce(call, call.dims(), summed=False)


def scan(call: Call) -> OpRule:
    """cumsum and diff along a dim are linear; the dim is whole and may change in size."""
    return _along(call, linear=not any(call.index(name) is not None for name in ("prepend", "append")))


def order(call: Call) -> OpRule:
    """sort, topk, cummax, cumprod: the dim is whole and may change in size."""
    return _along(call, linear=False)


def _along(call: Call, *, linear: bool) -> OpRule:
    dim = call.dim(default=-1)
    rows = [
        tuple((f"t{i}",) if d == dim else (f"d{d}",) for d in range(len(s.shape))) for i, s in enumerate(call.specs)
    ]
    results = [tuple(("new",) if d == dim else (f"d{d}",) for d in range(len(shape))) for shape in call.results]
    whole = ["new", *(f"t{i}" for i in range(len(call.specs)))]
    return build(call, rows, results, whole=whole, linear=[frozenset((0,))] if linear else ())


RULES: dict[str, RuleFunction] = {
    "sum": sum_,
    "mean": mean,
    **dict.fromkeys(
        [
            "amax",
            "amin",
            "aminmax",
            "prod",
            "max",
            "min",
            "argmax",
            "argmin",
            "var",
            "std",
            "var_mean",
            "std_mean",
            "any",
            "all",
            "norm",
            "linalg_vector_norm",
            "logsumexp",
            "nansum",
            "nanmean",
            "median",
            "count_nonzero",
        ],
        reduce_whole,
    ),
    **dict.fromkeys(["cumsum", "diff"], scan),
    **dict.fromkeys(["sort", "topk", "argsort", "cumprod", "cummax", "cummin", "logcumsumexp"], order),
}
