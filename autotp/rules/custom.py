"""Rules from user code, for operators that autotp does not know."""

from collections.abc import Mapping, Sequence
from typing import Any

from autotp.errors import RuleError
from autotp.rules.call import Call, RuleFunction
from autotp.rules.names import full_name, overload
from autotp.rules.notation import parse_row, parse_signature, rule
from autotp.rules.rule import OpRule

CUSTOM: dict[str, RuleFunction] = {}  # by full name


def register_rule(
    op: Any,
    signature: str | RuleFunction,
    *,
    summed: str = "",
    whole: str = "",
    additive: str = "",
    linear: Sequence[str] = (),
    sizes: Mapping[str, int | str] | None = None,
    local_sizes: Mapping[str, str] | None = None,
    flops: tuple[float, str] = (0.0, ""),
) -> None:
    """Say how an operator may be split.

    `op`: a torch operator, what `torch.library.custom_op` returns, or a name such as `"mylib::scale"`.
    `signature`: a name for every dim, `"x[... n] weight[n k] -> [... k]"`. Tensor arguments are named as in the
    operator's schema, optional ones may be absent from a call; `...` is any number of dims, `(h d)` a dim that is a
    product of factors, major to minor. A factor in operand and result splits both, and needs no more to be said.

    Factors, separated by spaces:
    - `summed`: in operands alone; splitting one leaves partial sums, which autotp adds up (the k of a matrix product).
    - `whole`: may not be split (what a softmax runs over). A factor in operands alone must be one or the other.
    Tensor arguments, separated by spaces:
    - `additive`: enter the sum once, such as a bias.
    - `linear`: sets of arguments in which the operator is linear together, so that partial sums may pass.
    Numbers:
    - `sizes`: of factors in a product, as a number or as the name of the argument that tells it.
    - `local_sizes`: arguments that name a size, and the factor it is: ranks are given their own.
    - `flops`: (scale, factors), floating-point operations of the forward: scale times the sizes of the factors.

    Instead of a signature a function from `autotp.rules.call.Call` to `OpRule` may be given. A second rule for an
    operator replaces the first. The program that runs a plan must register the rules that the plan was made with.
    Whether a rule is right tells `autotp.check.rule.check_rule`. Raises RuleError where the rule cannot be meant.
    """
    name = full_name(op)
    if not isinstance(signature, str):
        CUSTOM[name] = signature
        return
    text = signature
    sizes, local_sizes = dict(sizes or {}), dict(local_sizes or {})
    _check(name, text, f"{summed} {whole}".split(), f"{additive} {' '.join(linear)}".split(), sizes, local_sizes)

    def function(call: Call) -> OpRule:
        known = {k: call.literal(v) if isinstance(v, str) else v for k, v in sizes.items()}
        return rule(
            call, text, summed=summed, whole=whole, additive=additive, linear=linear, sizes=known,
            local_sizes=local_sizes, work=flops,
        )  # fmt: skip

    CUSTOM[name] = function


def _check(
    op: str,
    text: str,
    factors: Sequence[str],
    tensors: Sequence[str],
    sizes: Mapping[str, int | str],
    local_sizes: Mapping[str, str],
) -> None:
    """Raise RuleError where a rule names arguments or factors that do not exist, or leaves a factor open."""
    operator = overload(op)
    assert operator is not None
    patterns, results = parse_signature(text)
    arguments = {argument.name: "Tensor" in str(argument.type) for argument in operator._schema.arguments}
    unknown = [name for name in patterns if not arguments.get(name)]
    unknown += [name for name in tensors if name not in patterns]
    if unknown:
        known = ", ".join(name for name, is_tensor in arguments.items() if is_tensor)
        raise RuleError(f"the rule of {op} names {', '.join(unknown)}; its tensor arguments are {known}")
    if len(results) != len(operator._schema.returns):
        raise RuleError(f"{op} returns {len(operator._schema.returns)} tensors, its rule has {len(results)} results")
    literals = [*local_sizes, *(value for value in sizes.values() if isinstance(value, str))]
    if wrong := [name for name in literals if arguments.get(name, True)]:
        raise RuleError(f"the rule of {op} takes sizes from {', '.join(wrong)}, which are no arguments with a number")
    inputs, outputs = (_letters(rows) for rows in (patterns.values(), results))
    everything = inputs | outputs
    if wrong := [name for name in (*factors, *sizes, *local_sizes.values()) if name not in everything]:
        raise RuleError(f"the rule of {op} names {', '.join(wrong)}, which no dim has: {text}")
    if wrong := sorted(inputs - outputs - set(factors)):
        raise RuleError(
            f"the rule of {op} has {', '.join(wrong)} in operands but in no result: say whether it is summed or whole"
        )


def _letters(rows: Any) -> set[str]:
    found: set[str] = set()
    for row in rows:
        for token in parse_row(row):
            found.update([token] if isinstance(token, str) else token)
    return {"..." if name == "*i" else name for name in found} | ({"*i"} if "*i" in found else set())
