"""An operator as its factors, and the one function that carries a cut through it (design, sections 3 and 4).

A rule names factors by letters, as einsum does. A dim is a product of letters, major to minor, or a concatenation of
them; dims of size 1 carry no letter. A cut gives one letter (for a concatenation: each of its parts) blocks of sizes per
rank of an axis. Everything else follows, see `states`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from autotp.placement import B, Blocks, P, R, State, shard


@dataclass(frozen=True, slots=True)
class Dim:
    """A dim's letters: a product, major to minor (`()` for size 1), or a concatenation of parts, in order."""

    letters: tuple[str, ...] = ()
    is_concat: bool = False

    def __str__(self) -> str:
        joined = (" + " if self.is_concat else " ").join(self.letters)
        return f"({joined})" if len(self.letters) > 1 else joined or "1"


Row = tuple[Dim, ...]


@dataclass(frozen=True, slots=True)
class Inner:
    """Communication inside a local operator: one collective on the axis that cuts the letter, `phase` forward or backward.

    `dims` are the letters of the tensor it sends (as `num_elements` of redistribute.Collective counts), `item_bytes` its
    element size; cuts of these letters on other axes make it smaller.
    """

    kind: str
    phase: str
    dims: tuple[str, ...]
    item_bytes: int = 4


@dataclass(frozen=True, slots=True)
class OpRule:
    """What may be split.

    - `summed`: letters in no result whose cut leaves partial sums (result `P`).
    - `whole`: letters that may not be cut.
    - `inner`: letters whose cut needs a local operator that communicates; a result without the letter is complete (`R`).
    - `additive`: operands that enter the sum once: they are `P` when a summed letter is cut (the bias of linear).
    - `linear`: sets of operands that may carry partial sums to the results together; all other operands are then `B`.
    - `local`: letters whose cut needs another local operator than the original, by the operator's name in
      `runtime.local_ops`; `"*"` for one that is needed under every cut. Absent letters run the original operator with
      its shape arguments made local.
    - `local_sizes`: literal arguments that name the size of a letter: ranks are given their own.
    - `copied`: results that every rank computes whole where they have no cut letter: they depend on no cut operand.
    - `runs`: neighbouring letters of a dim, `h*g`, that may also be cut together as one, in granules that need not be whole
      elements of the first: operands with only some of the letters are then not cut. `local` has an operator for each.
    - `work`: (scale, letters): floating-point operations of the forward pass are scale times the product of the extents.
    """

    operands: tuple[Row, ...]
    results: tuple[Row, ...]
    extents: Mapping[str, int]
    summed: frozenset[str] = frozenset()
    whole: frozenset[str] = frozenset()
    inner: Mapping[str, tuple[Inner, ...]] = field(default_factory=dict)
    additive: frozenset[int] = frozenset()
    linear: tuple[frozenset[int], ...] = ()
    local: Mapping[str, str] = field(default_factory=dict)
    local_sizes: Mapping[str, str] = field(default_factory=dict)
    copied: frozenset[int] = frozenset()
    work: tuple[float, tuple[str, ...]] = (0.0, ())
    runs: tuple[str, ...] = ()

    def __str__(self) -> str:
        sides = (", ".join(" ".join(map(str, row)) or "()" for row in rows) for rows in (self.operands, self.results))
        notes = [
            f"{name}: {' '.join(sorted(map(str, letters)))}"
            for name, letters in (
                ("summed", self.summed), ("whole", self.whole), ("inner", self.inner), ("additive", self.additive),
            )
            if letters
        ]  # fmt: skip
        return " -> ".join(sides) + "".join(f"; {note}" for note in notes)


Cut = Mapping[str, Blocks]  # letter -> blocks; the letters of one strategy on one axis


def parts_of(letter: str) -> tuple[str, ...]:
    """The letters of a run; of a single letter itself."""
    return tuple(letter.split("*"))


def letters_of(cut: Cut | None) -> set[str]:
    """All letters that a cut divides, those of runs too."""
    return {part for letter in cut or () for part in parts_of(letter)}


def resolve(dim: Dim, blocks: Blocks, extents: Mapping[str, int], runs: Sequence[str] = ()) -> Cut | None:
    """The letters that are cut when a dim is cut in these blocks; None where no letter (or set of parts) fits.

    The inverse of `embed`. In a product the major-most letter that fits is taken, else one of the `runs`.
    """
    if dim.is_concat:
        return _resolve_concat(dim, blocks, extents)
    copies, minor = 1, math.prod(extents[letter] for letter in dim.letters)
    for letter in dim.letters:
        minor //= extents[letter]
        period = len(blocks) // copies
        pattern = blocks[:period]
        is_repeated = period and len(blocks) % copies == 0 and pattern * copies == blocks
        if is_repeated and all(size % minor == 0 for block in pattern for size in block):
            return {letter: tuple(tuple(size // minor for size in block) for block in pattern)}
        copies *= extents[letter]
    for run in runs:
        place = _place(dim, run)
        if place is not None:
            copies, _, minor = _around(dim, place, len(parts_of(run)), extents)
            pattern = blocks[: len(blocks) // copies]
            if pattern * copies == blocks and all(size % minor == 0 for block in pattern for size in block):
                return {run: tuple(tuple(size // minor for size in block) for block in pattern)}
    return None


def _place(dim: Dim, letter: str) -> int | None:
    """Where a letter, or the first of a run, stands in a product; None where it, or any of the run, does not."""
    parts = parts_of(letter)
    starts = [i for i in range(len(dim.letters)) if dim.letters[i : i + len(parts)] == parts]
    return starts[0] if starts and not dim.is_concat else None


def _around(dim: Dim, place: int, length: int, extents: Mapping[str, int]) -> tuple[int, int, int]:
    """Products of the extents before, in, and behind a run of letters."""
    before, run, behind = dim.letters[:place], dim.letters[place : place + length], dim.letters[place + length :]
    return tuple(math.prod(extents[letter] for letter in some) for some in (before, run, behind))  # type: ignore[return-value]


def _resolve_concat(dim: Dim, blocks: Blocks, extents: Mapping[str, int]) -> Cut | None:
    cut: dict[str, Blocks] = {}
    at = 0
    for letter in dim.letters:
        start, total = at, 0
        while at < len(blocks) and total < extents[letter]:
            total += sum(blocks[at])
            at += 1
        if total != extents[letter] or cut.get(letter, blocks[start:at]) != blocks[start:at]:
            return None
        cut[letter] = blocks[start:at]
    return cut if at == len(blocks) else None


def embed(dim: Dim, cut: Cut, extents: Mapping[str, int]) -> Blocks | None:
    """The blocks of a dim under a cut of letters: `()` where it has none of them, None where that is no layout."""
    for letter in cut:
        if len(parts_of(letter)) > 1:
            place = _place(dim, letter)
            if place is None:
                return ()
            copies, _, minor = _around(dim, place, len(parts_of(letter)), extents)
            return tuple(tuple(size * minor for size in block) for block in cut[letter]) * copies
    hit = [i for i, letter in enumerate(dim.letters) if letter in cut]
    if not hit:
        return ()
    if dim.is_concat:
        if len(hit) < len(dim.letters):
            return None
        return tuple(block for letter in dim.letters for block in cut[letter])
    if len(hit) > 1:
        return None
    letter = dim.letters[hit[0]]
    copies = math.prod(extents[other] for other in dim.letters[: hit[0]])
    minor = math.prod(extents[other] for other in dim.letters[hit[0] + 1 :])
    return tuple(tuple(size * minor for size in block) for block in cut[letter]) * copies


def states(rule: OpRule, cut: Cut) -> tuple[tuple[State, ...], tuple[State, ...]] | None:
    """States of operands and results on an axis that cuts these letters; None where the operator cannot run so.

    An operand with a cut letter is `S`, one without is `B` (`P` if additive and the sum is partial). A result with a cut
    letter is `S`, one without is `P` (`R` where the local operator communicates).
    """
    if not cut or any(letter in rule.whole for letter in cut):
        return None
    is_partial = any(letter in rule.summed for letter in cut)
    if is_partial and not all(letter in rule.summed for letter in cut if not _in_rows(letter, rule.results)):
        return None
    operands = [
        _row_state(row, cut, rule.extents, P if is_partial and i in rule.additive else B)
        for i, row in enumerate(rule.operands)
    ]
    inside = any(letter in rule.inner for letter in cut)
    missing = P if is_partial else R if inside else None
    results = [
        _row_state(row, cut, rule.extents, R if i in rule.copied else missing) for i, row in enumerate(rule.results)
    ]
    if None in operands or None in results:
        return None
    return tuple(s for s in operands if s), tuple(s for s in results if s)


def _in_rows(letter: str, rows: Sequence[Row]) -> bool:
    return any(letter in dim.letters for row in rows for dim in row)


def _row_state(row: Row, cut: Cut, extents: Mapping[str, int], missing: State | None) -> State | None:
    found = [(index, embed(dim, cut, extents)) for index, dim in enumerate(row)]
    cuts = [(index, blocks) for index, blocks in found if blocks != ()]
    if not cuts:
        return missing
    if len(cuts) > 1 or cuts[0][1] is None:
        return None
    return shard(cuts[0][0], cuts[0][1])
