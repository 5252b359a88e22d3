"""The dimension analysis: where may every dim of every tensor be cut?

Only proposes candidates. Whether an operator can run under a cut is decided by its rule alone (`rule.states`).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from autotp.graph import Graph, Node, Value
from autotp.placement import Blocks, apportion, nest
from autotp.rules.rule import OpRule
from autotp.rules.terms import Terms

MAX_BLOCKS = 256  # a cut in more blocks than this makes slices too small to be worth a look
MAX_CANDIDATES = 8  # per dim

Layout = tuple[tuple[int, int], ...]  # (length, granule) per block
Key = tuple[int, ...]  # the factors that are cut


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to cut a dim: blocks as (length, granule), and the factors (roots of terms) that it cuts."""

    layout: Layout
    key: Key
    turns: tuple[int, ...] = ()

    def blocks(self, shares: Sequence[int]) -> Blocks | None:
        """Sizes by the ranks' shares, in whole granules; None where most ranks that have a share would get nothing.

        With fewer granules than ranks some get nothing, and run on empty shards. Of ranks with equal claims to what is
        left over the first is one that depends on the number of granules (`turns`): so of two dims with a remainder each
        different ranks get it.
        """
        blocks = tuple(
            tuple(n * g for n in apportion(length // g, shares, turn))
            for (length, g), turn in zip(self.layout, self.turns or (0,) * len(self.layout), strict=True)
        )
        num_busy = sum(any(sizes) for sizes in zip(*blocks, strict=True))
        num_wanted = sum(share > 0 for share in shares)
        return blocks if num_busy >= min(2, num_wanted) and 2 * num_busy >= num_wanted else None

    def nested(self, outer: Blocks, shares: Sequence[int]) -> Blocks | None:
        """The same cut inside every shard of `outer` (blocks of the same layout on another axis); None where too small."""
        blocks: list[tuple[int, ...]] = []
        for block, (_, granule) in zip(outer, self.layout, strict=True):
            if min(block) // granule < len(shares):
                return None
            blocks += nest(shares, (block,), granule)
        return tuple(blocks)


class DimAnalysis:
    """Terms of every value's dims. `classes` maps a node's name to the node that stands for it (folding)."""

    def __init__(self, graph: Graph, rules: Mapping[str, OpRule], classes: Mapping[str, str]) -> None:
        self.terms = Terms()
        self.barriers: list[tuple[str, int]] = []
        self._classes = classes
        self._rows: dict[Value, tuple[int, ...]] = {}
        self._candidates: dict[int, tuple[Candidate, ...]] = {}
        seen: set[tuple[str, tuple[Value, ...]]] = set()
        for node in graph:
            if classes[node.name] == node.name:
                for index, spec in enumerate(node.outputs):
                    self._rows[Value(node.name, index)] = tuple(map(self.terms.atom, spec.shape))
        for node in graph:
            inputs = tuple(self.representative(value) for value in node.inputs)
            if node.kind == "op" and (classes[node.name], inputs) not in seen:
                seen.add((classes[node.name], inputs))
                self._equate(node, inputs, rules[classes[node.name]])
        self._units = self._parameter_units(graph)

    def representative(self, value: Value) -> Value:
        return Value(self._classes[value.node], value.index)

    def _equate(self, node: Node, inputs: Iterable[Value], rule: OpRule) -> None:
        results = [self.representative(Value(node.name, index)) for index in range(len(node.outputs))]
        letters = {letter: self.terms.atom(extent) for letter, extent in rule.extents.items()}
        for index, (value, row) in enumerate(zip([*inputs, *results], [*rule.operands, *rule.results], strict=True)):
            for term, dim in zip(self._rows[value], row, strict=True):
                parts = [letters[letter] for letter in dim.letters]
                if parts and not self.terms.equate(term, parts, is_concat=dim.is_concat):
                    self.barriers.append((node.name, index))

    def row(self, value: Value) -> tuple[int, ...]:
        """The terms of a value's dims."""
        return self._rows[self.representative(value)]

    def candidates(self, value: Value, dim: int) -> tuple[Candidate, ...]:
        """Ways to cut a dim, the ones with few blocks and coarse granules first."""
        root = self.terms.find(self.row(value)[dim])
        if root not in self._candidates:
            layouts = self._layouts(root)
            order = sorted(layouts, key=lambda key: (len(layouts[key]), -layouts[key][0][1], key))
            found = [
                Candidate(tuple(layouts[key]), key, tuple(self._turn(length // g) for length, g in layouts[key]))
                for key in order
                if len(layouts[key]) <= MAX_BLOCKS
            ]
            self._candidates[root] = tuple(found[:MAX_CANDIDATES])
        return self._candidates[root]

    def _parameter_units(self, graph: Graph) -> list[int]:
        """How many granules the dims of parameters can be divided in, every number once."""
        rows = [
            self._rows[Value(node.name)]
            for node in graph
            if node.kind == "parameter" and Value(node.name) in self._rows
        ]
        layouts = (blocks for root in {self.terms.find(term) for row in rows for term in row}
                   for blocks in self._layouts(root).values())  # fmt: skip
        return sorted({length // granule for blocks in layouts for length, granule in blocks})

    def _turn(self, units: int) -> int:
        """Where the ranks that get one more begin: behind those that did in the dims of fewer granules."""
        return sum(fewer for fewer in self._units if fewer < units)

    def _layouts(self, term: int) -> dict[Key, list[tuple[int, int]]]:
        """Blocks (length, granule) for every run of adjacent factors; in a concatenation, runs that all parts share."""
        terms = self.terms
        factors = terms.flat(term, "product")
        sizes = [terms.extent(f) for f in factors]
        found: dict[Key, list[tuple[int, int]]] = {}
        for i, factor in enumerate(factors):
            copies = math.prod(sizes[:i])
            for j in range(i, len(factors)):
                minor = math.prod(sizes[j + 1 :])
                if sizes[i] > 1 and copies <= MAX_BLOCKS:
                    found[tuple(factors[i : j + 1])] = [(math.prod(sizes[i : j + 1]) * minor, minor)] * copies
            if terms.is_concat(factor) and copies <= MAX_BLOCKS:
                minor = math.prod(sizes[i + 1 :])
                for key, blocks in self._shared_layouts(factor).items():
                    found[key] = [(length * minor, granule * minor) for length, granule in blocks] * copies
        return found

    def _shared_layouts(self, concat: int) -> dict[Key, list[tuple[int, int]]]:
        parts = self.terms.flat(concat, "concat")
        inner = [self._layouts(part) for part in parts]
        shared = {
            key: [block for one in inner for block in one[key]] for key in inner[0] if all(key in one for one in inner)
        }
        shared[tuple(parts)] = [(self.terms.extent(part), 1) for part in parts]
        return shared
