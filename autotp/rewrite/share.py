"""What one rank has of an operator under a strategy. Pure: nodes, rules and strategies in, numbers out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from autotp.graph import Node
from autotp.mesh import Mesh
from autotp.placement import Blocks, Spans, intersect, local_shape, spans
from autotp.rules.rule import Dim, OpRule, parts_of
from autotp.rules.strategy import Strategy


@dataclass(frozen=True, slots=True)
class Share:
    """What the rank at `coordinates` has of an operator under a strategy."""

    node: Node
    rule: OpRule
    strategy: Strategy
    mesh: Mesh
    coordinates: tuple[int, ...]

    def cuts(self, letter: str) -> dict[int, Blocks]:
        """The axes that cut a letter, and how."""
        return {
            axis: choice.cut[letter]
            for axis, choice in enumerate(self.strategy.choices)
            if choice.cut is not None and letter in choice.cut
        }

    def held(self, letter: str) -> Spans:
        """The elements of a letter that the rank has."""
        found: Spans = ((0, self.extent(letter)),)
        for axis, blocks in self.cuts(letter).items():
            found = intersect(found, spans(blocks, self.coordinates[axis]))
        return found

    def extent(self, letter: str) -> int:
        """The whole extent; letters that the rule left out because they are 1 have 1."""
        return math.prod(self.rule.extents.get(part, 1) for part in parts_of(letter))

    def size(self, letter: str) -> int:
        """How many elements of a letter the rank has."""
        return sum(length for _, length in self.held(letter)) if letter in self.rule.extents else 1

    def dim_size(self, dim: Dim) -> int:
        """The local size of a dim."""
        join = sum if dim.is_concat else math.prod
        for run in self.rule.runs:
            parts = parts_of(run)
            if self.cuts(run) and set(parts) <= set(dim.letters):
                others = [letter for letter in dim.letters if letter not in parts]
                return sum(length for _, length in self.held(run)) * math.prod(map(self.size, others))
        return join(map(self.size, dim.letters))

    def axes_of(self, letters: Sequence[str]) -> tuple[int, ...]:
        """The axes that cut any of these letters."""
        return tuple(sorted({axis for letter in letters for axis in self.cuts(letter)}))

    @property
    def operands(self) -> tuple[tuple[int, ...], ...]:
        """Local shapes of the operands."""
        return tuple(tuple(map(self.dim_size, row)) for row in self.rule.operands)

    @property
    def results(self) -> tuple[tuple[int, ...], ...]:
        """Local shapes of the results."""
        return tuple(
            local_shape(spec.shape, placement, self.coordinates)
            for spec, placement in zip(self.node.outputs, self.strategy.results, strict=True)
        )
