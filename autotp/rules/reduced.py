"""Reductions that are no sums, along a cut dim: every rank reduces its part, and the parts are combined.

What crosses the links is as large as the result, so that it is complete on every rank.
"""

from collections.abc import Collection

from autotp.graph import FLOATS
from autotp.rules.call import Call, RuleFunction
from autotp.rules.notation import Tokens, build, letters_of
from autotp.rules.reductions import reduce_whole
from autotp.rules.rule import Inner, OpRule


def _combined(call: Call, dims: Collection[int], local: str, *inner: tuple[str, tuple[str, ...], int]) -> OpRule:
    """`inner`: phase, letters before those of the result, and bytes per element of every all_reduce."""
    row = letters_of(len(call.specs[0].shape))
    letters, others = [f"d{d}" for d in dims], [f"d{d}" for d in range(len(row)) if d not in dims]
    result: Tokens = tuple(() if d in dims else letter for d, letter in enumerate(row))
    if len(call.results[0]) != len(row):
        result = tuple(letter for d, letter in enumerate(row) if d not in dims)
    steps = tuple(Inner("all_reduce", phase, (*first, *others), item) for phase, first, item in inner)
    return build(
        call, [row], [result] * len(call.results),
        sizes={"parts": 2}, inner=dict.fromkeys(letters, steps), local=dict.fromkeys(letters, local),
    )  # fmt: skip


def _is_real(call: Call) -> bool:
    return "complex" not in call.specs[0].dtype


def extreme(call: Call) -> OpRule:
    """amax, amin, max, min, any, all. Beside floats goes whether there is a NaN, which no two machines order alike;
    backward the number of ties, which share the gradient."""
    spec = call.specs[0]
    is_float, is_truth = spec.dtype in FLOATS, call.node.short_op in ("any", "all")
    forward = ("forward", ("parts",) if is_float and not is_truth else (), 1 if is_truth else spec.item_bytes)
    backward = [("backward", (), max(4, spec.item_bytes))] if is_float and not is_truth else []
    return _combined(call, call.dims(), "extreme", forward, *backward)


def place(call: Call) -> OpRule:
    """max, min, argmax and argmin along a dim: then the first place where it is. Flattened ones are whole: places in one
    part are not in the order of those in the whole."""
    if call.node.argument("dim") is None:
        return extreme(call) if call.node.short_op in ("max", "min") else reduce_whole(call)
    spec = call.specs[0]
    parts = ("parts",) if spec.dtype in FLOATS else ()
    return _combined(call, [call.dim()], "place", ("forward", parts, spec.item_bytes), ("forward", (), 8))


def moments(call: Call) -> OpRule:
    """var, std, var_mean, std_mean: the sum, then the sum of squares around the mean of all."""
    item = max(4, call.specs[0].item_bytes)
    sums = ("forward", (), item)
    return _combined(call, call.dims(), "moments", sums, sums) if _is_real(call) else reduce_whole(call)


def norm(call: Call) -> OpRule:
    """The 2-norm of vectors by the sum of squares. Other orders, and a change of dtype, are whole."""
    order = next((call.literal(name) for name in ("ord", "p") if call.literal(name) is not None), 2)
    if order != 2 or call.node.argument("dtype") is not None or not _is_real(call):
        return reduce_whole(call)
    return _combined(call, call.dims(), "norm", ("forward", (), max(4, call.specs[0].item_bytes)))


def logsumexp(call: Call) -> OpRule:
    """The maximum, then the sum of exponentials."""
    if call.specs[0].dtype not in FLOATS:
        return reduce_whole(call)
    step = ("forward", (), max(4, call.specs[0].item_bytes))
    return _combined(call, call.dims(), "logsumexp", step, step)


RULES: dict[str, RuleFunction] = {
    **dict.fromkeys(["amax", "amin", "any", "all"], extreme),
    **dict.fromkeys(["max", "min", "argmax", "argmin"], place),
    **dict.fromkeys(["var", "std", "var_mean", "std_mean"], moments),
    **dict.fromkeys(["linalg_vector_norm", "norm"], norm),
    "logsumexp": logsumexp,
}
