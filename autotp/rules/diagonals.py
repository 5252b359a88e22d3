"""Diagonals, and turns by 90 degrees: positions in two dims are compared, which are whole."""

from autotp.rules.call import Call, RuleFunction
from autotp.rules.notation import Tokens, build, letters_of
from autotp.rules.parts import rows_with_whole
from autotp.rules.rule import OpRule
from autotp.rules.views import permuted

FIRST = (frozenset((0,)),)


def _plane(call: Call, default: tuple[int, int], rank: int) -> tuple[int, int]:
    return call.literal("dim1", default[0]) % rank, call.literal("dim2", default[1]) % rank


def _without(row: Tokens, dims: tuple[int, int]) -> Tokens:
    return (*(dim for i, dim in enumerate(row) if i not in dims), ("diagonal",))


def diagonal(call: Call) -> OpRule:
    default = (-2, -1) if call.node.short_op == "linalg_diagonal" else (0, 1)
    row = letters_of(len(call.specs[0].shape))
    plane = _plane(call, default, len(row))
    whole = ["diagonal", *(f"d{i}" for i in plane)]
    return build(call, [row], [_without(row, plane)], whole=whole, linear=FIRST)


def diagonal_scatter(call: Call) -> OpRule:
    row = letters_of(len(call.specs[0].shape))
    plane = _plane(call, (0, 1), len(row))
    whole = ["diagonal", *(f"d{i}" for i in plane)]
    return build(call, [row, _without(row, plane)], [row], whole=whole, linear=[frozenset((0, 1))])


def diag_embed(call: Call) -> OpRule:
    row = letters_of(len(call.results[0]))
    plane = _plane(call, (-2, -1), len(row))
    whole = ["diagonal", *(f"d{i}" for i in plane)]
    return build(call, [_without(row, plane)], [row], whole=whole, linear=FIRST)


def diag(call: Call) -> OpRule:
    """The diagonal of a matrix, or the matrix with this diagonal: nothing may be cut."""
    row, result = letters_of(len(call.specs[0].shape)), letters_of(len(call.results[0]), "new")
    return build(call, [row], [result], whole=[n for dim in (*row, *result) for n in dim], linear=FIRST)


def rot90(call: Call) -> OpRule:
    turned = [dim % len(call.specs[0].shape) for dim in call.literal("dims", (0, 1))]
    if call.literal("k", 1) % 4 == 0:
        return permuted(call, range(len(call.specs[0].shape)))
    return rows_with_whole(call, turned)


RULES: dict[str, RuleFunction] = {
    **dict.fromkeys(["diagonal", "linalg_diagonal", "diagonal_copy"], diagonal),
    "diagonal_scatter": diagonal_scatter,
    "diag_embed": diag_embed,
    **dict.fromkeys(["diag", "diagflat"], diag),
    "rot90": rot90,
}
