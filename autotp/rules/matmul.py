"""Matrix products."""

import re

from autotp.rules.call import Call, RuleFunction
from autotp.rules.notation import Tokens, build, rule
from autotp.rules.rule import OpRule


def linear(call: Call) -> OpRule:
    text = "input[... k] weight[n k] bias[n] -> [... n]"
    if len(call.shape("weight")) == 1:
        text = "input[... k] weight[k] bias[n] -> [...]"
    return rule(
        call, text, summed="k", additive="bias", linear=("input bias", "weight bias"), work=(2.0, "*i n k")
    )  # fmt: skip


def matmul(call: Call) -> OpRule:
    left, right = len(call.shape("self")), len(call.shape("other"))
    rows = ["k" if left == 1 else "... m k", "k" if right == 1 else "... k n"]
    result = "..." + (" m" if left > 1 else "") + (" n" if right > 1 else "")
    text = f"self[{rows[0]}] other[{rows[1]}] -> [{result}]"
    return rule(call, text, summed="k", linear=("self", "other"), work=(2.0, "*i m n k"))


def bmm(call: Call) -> OpRule:
    return rule(
        call, "self[b m k] mat2[b k n] -> [b m n]", summed="k", linear=("self", "mat2"), work=(2.0, "b m n k")
    )  # fmt: skip


def mm(call: Call) -> OpRule:
    return rule(call, "self[m k] mat2[k n] -> [m n]", summed="k", linear=("self", "mat2"), work=(2.0, "m n k"))


def mv(call: Call) -> OpRule:
    return rule(call, "self[m k] vec[k] -> [m]", summed="k", linear=("self", "vec"), work=(2.0, "m k"))


def dot(call: Call) -> OpRule:
    return rule(call, "self[k] tensor[k] -> []", summed="k", linear=("self", "tensor"), work=(2.0, "k"))


def outer(call: Call) -> OpRule:
    return rule(call, "self[m] vec2[n] -> [m n]", linear=("self", "vec2"), work=(1.0, "m n"))


def addmm(call: Call) -> OpRule:
    return rule(
        call,
        "self[... m n] mat1[m k] mat2[k n] -> [m n]",
        summed="k",
        additive="self",
        linear=("self mat1", "self mat2"),
        work=(2.0, "m n k"),
    )


def baddbmm(call: Call) -> OpRule:
    return rule(
        call,
        "self[... b m n] batch1[b m k] batch2[b k n] -> [b m n]",
        summed="k",
        additive="self",
        linear=("self batch1", "self batch2"),
        work=(2.0, "b m n k"),
    )


def einsum(call: Call) -> OpRule:
    """The equation is the rule. A letter twice in one operand (a diagonal) is whole."""
    inputs, arrow, output = call.literal("equation").replace(" ", "").partition("->")
    terms = inputs.split(",")
    if not arrow:
        names = inputs.replace(",", "").replace("...", "")
        output = "..." * ("..." in inputs) + "".join(sorted(c for c in set(names) if names.count(c) == 1))
    num_runs = max(len(spec.shape) - len(term.replace("...", "")) for term, spec in zip(terms, call.specs, strict=True))

    def row(term: str, num_dims: int) -> Tokens:
        found: list[tuple[str, ...]] = []
        for part in re.findall(r"\.\.\.|[A-Za-z]", term):
            count = num_dims - len(term.replace("...", ""))
            found += [(f"_{k}",) for k in reversed(range(count))] if part == "..." else [(part,)]
        return tuple(found)

    rows = [row(term, len(spec.shape)) for term, spec in zip(terms, call.specs, strict=True)]
    result = row(output, len(call.results[0]))
    letters = dict.fromkeys([dim[0] for dims in rows for dim in dims])
    kept = {dim[0] for dim in result}
    twice = [name for name in letters if any(sum(dim[0] == name for dim in dims) > 1 for dims in rows)]
    missing = [f"_{k}" for k in range(num_runs) if f"_{k}" not in kept]
    return build(
        call,
        rows,
        [result],
        summed=[name for name in letters if name not in kept and name not in twice and name not in missing],
        whole=[*twice, *missing],
        linear=[frozenset((i,)) for i in range(len(rows))],
        work=(2.0 if len(rows) > 1 else 1.0, letters),
    )


RULES: dict[str, RuleFunction] = {
    "linear": linear,
    "matmul": matmul,
    "bmm": bmm,
    "mm": mm,
    "mv": mv,
    "dot": dot,
    "outer": outer,
    "ger": outer,
    "addmm": addmm,
    "baddbmm": baddbmm,
    "einsum": einsum,
}
