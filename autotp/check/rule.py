"""The execution check of a rule: every strategy it allows, on two and three ranks, forward and backward."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from autotp.check.case import Case
from autotp.check.options import Option, cuts, groups_of, pairs, unsplit
from autotp.check.sample import Sample
from autotp.mesh import Mesh
from autotp.rules.names import full_name

RANKS = (2, 3)


@dataclass(frozen=True, slots=True)
class Checked:
    """What was run: the rule, the factors that may be split (those that are only split together in one tuple), and the
    number of strategies."""

    rule: str
    factors: tuple[tuple[str, ...], ...]
    num_strategies: int


def strategies_to_check(case: Case, ranks: Sequence[int] = RANKS) -> Iterator[tuple[Mesh, tuple[Option, ...]]]:
    """Every option of the rule on one axis of each size, and pairs of options on two axes."""
    for num_ranks in ranks:
        mesh = Mesh((("tp", num_ranks),))
        for option in (*unsplit(case.rule), *cuts(case.rule, num_ranks)):
            if _is_possible(case, option):
                yield mesh, (option,)
    mesh = Mesh((("dp", 2), ("tp", 2)))
    for options in pairs(case.rule, mesh):
        if all(_is_possible(case, option) for option in options):
            yield mesh, options


def _is_possible(case: Case, option: Option) -> bool:
    """Nobody makes partial sums of booleans for an operator that may take partial sums."""
    choice, operands, _ = option
    is_partial = choice.kind == "partial"
    return not (
        is_partial and any(s.kind == "P" and t.dtype == "bool" for s, t in zip(operands, case.specs, strict=True))
    )


def check_sample(sample: Sample, ranks: Sequence[int] = RANKS) -> Checked:
    """Run a sample under every strategy of its rule. Raises VerificationError, naming the strategy that is wrong."""
    case = Case(sample)
    count = 0
    for mesh, options in strategies_to_check(case, ranks):
        case.check(options, mesh)
        count += 1
    return Checked(str(case.rule), tuple(groups_of(case.rule)), count)


def check_rule(op: Any, *args: Any, **kwargs: Any) -> Checked:
    """Run an operator with these arguments whole and split, under every strategy of its rule, and compare.

    `op`: a torch operator, or its name as in `"mylib::scale"`. Results, gradients of all float operands and what is
    written to must agree on two and three ranks, with unequal and empty shards. Draws are compared by shape alone. Small
    tensors of float64 with dims of two or more, no two alike, show most.

    Raises VerificationError, which names the strategy that is wrong; RuleError where the rule does not fit the call.
    """
    return check_sample(Sample(full_name(op), args, kwargs))
