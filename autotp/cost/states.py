"""The placements that a value can have, and what going between them takes."""

from dataclasses import dataclass

from autotp.cost.moves import StepPrice
from autotp.placement import Placement
from autotp.redistribute import Step
from autotp.solver.problem import Floats, Ints


@dataclass(frozen=True, slots=True)
class ValueKind:
    """What the prices of a value's steps depend on besides its spec."""

    is_repeated: bool
    is_parameter: bool


@dataclass(frozen=True, slots=True)
class StateGraph:
    """The placements a value can have, and the steps between them with their prices.

    Where some readers of a trained value need no gradient (a comparison), every placement is there twice: the second
    one without a gradient, to which the value goes for nothing (a step of None) and after which no backward is paid.
    `cost_s`: seconds of a step, without `beside_s`, those that are sent beside something else.
    """

    placements: tuple[Placement, ...]
    steps: tuple[Step | None, ...]
    prices: tuple[StepPrice, ...]
    source: Ints
    target: Ints
    cost_s: Floats
    beside_s: Floats | None = None
