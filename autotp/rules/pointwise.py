"""Elementwise operators with broadcasting: every letter may be cut."""

from collections.abc import Iterable

from autotp.graph import FLOATS
from autotp.rules.call import Call, RuleFunction
from autotp.rules.notation import build, fit_row, letters_of, rule, unread
from autotp.rules.rule import OpRule

Sets = Iterable[frozenset[int]]


def elementwise(
    call: Call, linear: Sets = (), local: dict[str, str] | None = None, whole: Iterable[str] = ()
) -> OpRule:
    """All operands broadcast to the results."""
    rows = [fit_row("...", len(spec.shape)) for spec in call.specs]
    results = [fit_row("...", len(shape)) for shape in call.results]
    return build(call, rows, results, linear=[s for s in linear if s], local=local, whole=whole)


def _is_float(call: Call) -> bool:
    return all(spec.dtype in FLOATS for spec in (*call.specs, *call.node.outputs))


def additive(call: Call) -> OpRule:
    """`a + b`: partial sums pass if both operands carry them; a literal would be added once per rank."""
    other = call.index("other")
    return elementwise(call, [frozenset((0, 1))] if other is not None and len(call.specs) == 2 else [])


def multiplicative(call: Call) -> OpRule:
    """`a * b`: partial sums pass through either operand; a literal factor never hurts."""
    return elementwise(call, [call.indices("self"), call.indices("other")] if _is_float(call) else [])


def divided(call: Call) -> OpRule:
    """`a / b` is linear in a where it does not round."""
    rounds = call.literal("rounding_mode") is not None
    return elementwise(call, [call.indices("self")] if _is_float(call) and not rounds else [])


def proportional(call: Call) -> OpRule:
    """Linear in its first operand, other operands not read or constant: neg, casts, clone, real dtype conversions."""
    return elementwise(call, [frozenset((0,))] if _is_float(call) else [])


def of_dtype(call: Call) -> OpRule:
    """`type_as(x, other)`: of another shape, `other` is not cut with x; only its dtype is read."""
    if call.specs[0].shape == call.specs[1].shape:
        return proportional(call)
    row, other = letters_of(len(call.specs[0].shape)), unread(call, 1)
    linear = [frozenset((0,))] if _is_float(call) else []
    return build(call, [row, other], [row], whole=[letter for dim in other for letter in dim], linear=linear)


def chosen(call: Call) -> OpRule:
    """`where(condition, a, b)`: linear in a and b together, and a literal only if it is zero."""
    literals = [call.node.argument(name) for name in ("self", "other") if call.index(name) is None]
    return elementwise(call, [call.indices("self", "other")] if all(value == 0 for value in literals) else [])


def filled(call: Call) -> OpRule:
    """`masked_fill(x, mask, value)`: linear in x where the value is the literal 0."""
    zero = call.index("value") is None and call.literal("value", 1) == 0
    return elementwise(call, [call.indices("self")] if zero else [])


def interpolated(call: Call) -> OpRule:
    """`lerp(a, b, w)` is linear in a and b together."""
    return elementwise(call, [call.indices("self", "end")])


def multiplied_and_added(call: Call) -> OpRule:
    """`self + value * a * b`: self and one factor may carry partial sums together."""
    return elementwise(call, [call.indices("self", "tensor1"), call.indices("self", "tensor2")])


def divided_and_added(call: Call) -> OpRule:
    """`self + value * a / b`."""
    return elementwise(call, [call.indices("self", "tensor1")])


def random(call: Call) -> OpRule:
    """A draw per element: run under a seed made of the coordinates that cut the tensor. Never on partial sums."""
    return elementwise(call, local={"*": "seeded"})


def dropout(call: Call) -> OpRule:
    """Random only in training and where p > 0; else the identity."""
    training = call.literal("train", call.literal("training", True))
    return random(call) if training and call.literal("p", 0.5) > 0 else proportional(call)


def normal(call: Call) -> OpRule:
    """Draws around a tensor of means or deviations; of a given size where both are numbers."""
    if call.specs:
        return random(call)
    return build(call, [], [fit_row("...", len(call.results[0]))], local={"*": "seeded"})


def leaky(call: Call) -> OpRule:
    """rrelu draws its slopes in training."""
    return random(call) if call.literal("training", False) else elementwise(call)


def channel_dropout(call: Call) -> OpRule:
    """Whole channels are dropped, by one draw for each: space may not be cut, its ranks would draw differently."""
    if not call.literal("train", True) or call.literal("p", 0.5) == 0:
        return proportional(call)
    row = fit_row("...", len(call.specs[0].shape))
    return build(call, [row], [row], local={"*": "seeded"}, whole=[letter for dim in row[2:] for letter in dim])


def gated(call: Call) -> OpRule:
    """glu: the first half of the dim times the gate, the second half."""
    row = fit_row("...", len(call.specs[0].shape))
    dim = call.dim(default=-1)
    operand = tuple(("halves", *letters) if i == dim else letters for i, letters in enumerate(row))
    return build(call, [operand], [row], sizes={"halves": 2}, whole=["halves"])


def prelu(call: Call) -> OpRule:
    """A slope for every channel, or one for all."""
    return rule(
        call, "self[n c *s] weight[c] -> [n c *s]" if len(call.shape("self")) > 1 else "self[n] weight[c] -> [n]"
    )


def broadcast_tensors(call: Call) -> OpRule:
    return elementwise(call, [frozenset(range(len(call.specs)))])


def pairs_of_numbers(call: Call) -> OpRule:
    """view_as_real and view_as_complex: the last dim, of two, is whole."""
    if call.node.short_op == "view_as_real":
        return rule(call, "self[...] -> [... two]", whole="two", linear=("self",))
    return rule(call, "self[... two] -> [...]", whole="two", linear=("self",))


def copied(call: Call) -> OpRule:
    """`copy(self, src)` has the values of src."""
    return elementwise(call, [call.indices("src")])


RULES: dict[str, RuleFunction] = {
    **dict.fromkeys(["add", "sub", "subtract", "rsub"], additive),
    "mul": multiplicative,
    "multiply": multiplicative,
    "div": divided,
    "divide": divided,
    "true_divide": divided,
    "where": chosen,
    "masked_fill": filled,
    "lerp": interpolated,
    "addcmul": multiplied_and_added,
    "addcdiv": divided_and_added,
    **dict.fromkeys(["dropout", "alpha_dropout"], dropout),
    **dict.fromkeys(["feature_dropout", "feature_alpha_dropout"], channel_dropout),
    **dict.fromkeys(
        [
            *("bernoulli", "rand_like", "randn_like", "randint_like", "uniform", "exponential", "normal_functional"),
            *("log_normal", "geometric", "cauchy", "random", "poisson", "binomial", "_standard_gamma"),
        ],
        random,
    ),
    "normal": normal,
    "rrelu": leaky,
    "glu": gated,
    "prelu": prelu,
    "_prelu_kernel": elementwise,
    "broadcast_tensors": broadcast_tensors,
    **dict.fromkeys(["view_as_real", "view_as_complex"], pairs_of_numbers),
    **dict.fromkeys(
        ["hardswish", "log_sigmoid", "isclose", "isreal", "special_ndtr", "special_polygamma"], elementwise
    ),
    **dict.fromkeys(["complex", "polar", "real", "imag", "chalf", "resolve_conj", "resolve_neg"], elementwise),
    "copy": copied,
    "neg": proportional,
    "negative": proportional,
    "clone": proportional,
    "contiguous": proportional,
    "alias": proportional,
    "alias_copy": proportional,
    "detach": proportional,
    "lift_fresh_copy": proportional,
    "to": proportional,
    "_to_copy": proportional,
    "type_as": of_dtype,
    "zeros_like": elementwise,
    "ones_like": elementwise,
    "empty_like": elementwise,
    "full_like": elementwise,
    "bitwise_not": elementwise,
    "floor_divide": elementwise,
    "__and__": elementwise,
    "__or__": elementwise,
    "__xor__": elementwise,
    "fill": elementwise,
}
