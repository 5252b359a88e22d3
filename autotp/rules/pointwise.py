"""Elementwise operators with broadcasting: every letter may be cut."""

from collections.abc import Iterable

from autotp.graph import FLOATS
from autotp.rules.call import Call, RuleFunction
from autotp.rules.notation import build, fit_row
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


def copied(call: Call) -> OpRule:
    """`copy(self, src)` has the values of src."""
    return elementwise(call, [call.indices("src")])


RULES: dict[str, RuleFunction] = {
    "add": additive,
    "sub": additive,
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
    "dropout": dropout,
    "bernoulli": random,
    "rand_like": random,
    "randn_like": random,
    "randint_like": random,
    "copy": copied,
    "neg": proportional,
    "negative": proportional,
    "clone": proportional,
    "contiguous": proportional,
    "alias": proportional,
    "detach": proportional,
    "lift_fresh_copy": proportional,
    "to": proportional,
    "_to_copy": proportional,
    "type_as": proportional,
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
