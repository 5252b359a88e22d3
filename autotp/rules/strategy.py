"""A strategy: what an operator does on every mesh axis, and the placements that follow."""

from collections.abc import Mapping
from dataclasses import dataclass

from autotp.placement import Blocks, Placement


@dataclass(frozen=True, slots=True)
class Choice:
    """What an operator does on one axis.

    - `whole`: nothing is split; operands and results are `R`.
    - `deferred`: nothing is split, but gradients are partial: operands and results are `B`.
    - `partial`: partial sums pass through; the operands in `carriers` and the results are `P`, other operands `B`.
    - `cut`: the letters of `cut` are divided.
    """

    kind: str
    cut: Mapping[str, Blocks] | None = None
    carriers: frozenset[int] = frozenset()

    def __str__(self) -> str:
        if self.kind == "cut":
            return "+".join(self.cut or ())
        return f"partial({','.join(map(str, sorted(self.carriers)))})" if self.kind == "partial" else self.kind


@dataclass(frozen=True, slots=True)
class Strategy:
    """One choice per mesh axis, and the placement of every operand and result under it."""

    choices: tuple[Choice, ...]
    operands: tuple[Placement, ...]
    results: tuple[Placement, ...]

    def __str__(self) -> str:
        return " ".join(map(str, self.choices))
