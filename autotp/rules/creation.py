"""Tensors made from nothing: every rank makes its own part, unless the values depend on the position."""

from autotp.rules.call import Call, RuleFunction
from autotp.rules.notation import build, letters_of, unread
from autotp.rules.rule import OpRule


def constant(call: Call) -> OpRule:
    """zeros, full, new_ones, ...: of an operand only the dtype is read."""
    row = letters_of(len(call.results[0]))
    operands = [row if s.shape == call.results[0] else unread(call, i) for i, s in enumerate(call.specs)]
    unused = [letter for operand in operands if operand != row for dim in operand for letter in dim]
    return build(call, operands, [row], whole=unused)


def random(call: Call) -> OpRule:
    """A draw per element, under a seed made of the coordinates that cut the tensor."""
    row = letters_of(len(call.results[0]))
    return build(call, [], [row], local={"*": "seeded"})


RULES: dict[str, RuleFunction] = {
    **dict.fromkeys(["zeros", "ones", "full", "empty", "new_zeros", "new_ones", "new_full", "new_empty"], constant),
    **dict.fromkeys(["rand", "randn", "randint"], random),
}
