"""What a rule allows on simulated ranks: cuts in several layouts, nothing cut, partial sums, and pairs on two axes."""

import itertools
import math
from collections.abc import Iterator, Mapping

from autotp.errors import VerificationError
from autotp.mesh import Mesh
from autotp.placement import B, Block, Blocks, P, R, State, near_equal, nest
from autotp.rules.rule import OpRule, parts_of, states
from autotp.rules.strategy import Choice

Option = tuple[Choice, tuple[State, ...], tuple[State, ...]]


def groups_of(rule: OpRule) -> list[tuple[str, ...]]:
    """Letters that are cut together: alone, or with the other parts of a concatenation."""
    sets = [frozenset((letter,)) for letter in rule.extents]
    rows = [dim for row in (*rule.operands, *rule.results) for dim in row]
    used = {letter for dim in rows for letter in dim.letters}
    for dim in rows:
        if dim.is_concat:
            joined = frozenset().union(*(s for s in sets if s & set(dim.letters)))
            sets = [s for s in sets if not s & joined] + [joined]
    return [
        tuple(sorted(s)) for s in sets if s <= used and not s & rule.whole and all(rule.extents[letter] for letter in s)
    ]


def layouts(extent: int, num_ranks: int) -> list[Blocks]:
    """Near-equal, lopsided, with an empty rank, and in two blocks."""
    skewed: Block = (1, extent - 1) if num_ranks == 2 else (extent - 1, 0, 1)
    found: list[Blocks] = [(near_equal(extent, num_ranks),), (skewed,)]
    if num_ranks == 2:
        found.append(((0, extent),))
    half = extent // 2
    found.append((near_equal(half, num_ranks), near_equal(extent - half, num_ranks)[::-1]))
    return found


def cuts(rule: OpRule, num_ranks: int) -> Iterator[Option]:
    """Every group of letters in every layout."""
    for letters in groups_of(rule):
        for which in range(3 + (num_ranks == 2)):
            yield option_of(rule, {letter: layouts(rule.extents[letter], num_ranks)[which] for letter in letters})
    for run in rule.runs:
        extent = math.prod(rule.extents[letter] for letter in parts_of(run))
        for blocks in layouts(extent, num_ranks):
            yield option_of(rule, {run: blocks})


def option_of(rule: OpRule, cut: Mapping[str, Blocks]) -> Option:
    found = states(rule, cut)
    if found is None:
        raise VerificationError(f"the rule {rule} neither allows the cut {dict(cut)} nor says that it is whole")
    return Choice("cut", cut), *found


def unsplit(rule: OpRule) -> Iterator[Option]:
    """Whole, deferred, and every set of operands that may carry partial sums."""
    num_operands, num_results = len(rule.operands), len(rule.results)
    yield Choice("whole"), (R,) * num_operands, (R,) * num_results
    if not rule.local.get("*"):
        yield Choice("deferred"), (B,) * num_operands, (B,) * num_results
    yield from partial(rule)


def partial(rule: OpRule) -> Iterator[Option]:
    for carriers in rule.linear:
        operands = tuple(P if i in carriers else B for i in range(len(rule.operands)))
        yield Choice("partial", None, carriers), operands, (P,) * len(rule.results)


def pairs(rule: OpRule, mesh: Mesh, limit: int = 12) -> Iterator[tuple[Option, Option]]:
    """On two axes: different letters, a letter cut twice, and partial sums of a cut operator."""
    groups = groups_of(rule)
    first, second = mesh.sizes
    even = [
        [option_of(rule, {x: (near_equal(rule.extents[x], n),) for x in letters}) for letters in groups]
        for n in (first, second)
    ]
    found = [(a, b) for a, b in itertools.product(*even) if not set(a[0].cut or ()) & set(b[0].cut or ())]
    step = max(1, len(found) // limit)
    yield from found[::step]
    for letters, outer in zip(groups, even[1], strict=True):
        blocks = outer[0].cut or {}
        inner = {x: nest((1,) * first, blocks[x], 1) for x in letters}
        yield option_of(rule, inner), outer
    for summing in partial(rule):
        yield from ((summing, b) for b in even[1] if not any(s.kind == "P" for s in b[1] + b[2]))
