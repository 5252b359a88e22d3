"""What a rule function looks at: a node with the specs of its operands."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from autotp.errors import RuleError
from autotp.graph import Node, Operand, TensorSpec
from autotp.rules.rule import OpRule


@dataclass(frozen=True, slots=True)
class Call:
    """A node and its operands' specs; `tiles` are the boundaries of slices that together tile the sliced dim."""

    node: Node
    specs: tuple[TensorSpec, ...]
    tiles: tuple[int, ...] = ()

    def index(self, name: str) -> int | None:
        """Operand index of a tensor argument; None where it is absent or a literal."""
        value = self.node.argument(name)
        return value.index if isinstance(value, Operand) else None

    def indices(self, *names: str) -> frozenset[int]:
        """Operand indices of the tensor arguments among these names."""
        return frozenset(index for index in map(self.index, names) if index is not None)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor argument. Raises RuleError where it is none."""
        index = self.index(name)
        if index is None:
            raise RuleError(f"{self.node.op} ({self.node.name}) has no tensor argument {name!r}")
        return self.specs[index].shape

    def literal(self, name: str, default: Any = None) -> Any:
        """A literal argument; `default` where it is absent or None."""
        value = self.node.argument(name)
        return default if value is None else value

    def dim(self, name: str = "dim", default: int = 0, num_dims: int | None = None) -> int:
        """A dim argument, counted from the left of the first operand."""
        rank = len(self.specs[0].shape) if num_dims is None else num_dims
        return int(self.literal(name, default)) % max(rank, 1)

    def dims(self, name: str = "dim", *, empty_is_all: bool = True) -> tuple[int, ...]:
        """Dims of a literal that is a dim, a list of dims or None, counted from the left; None (and `[]`) is all."""
        value = self.node.argument(name)
        rank = len(self.specs[0].shape)
        if value is None or (empty_is_all and not isinstance(value, int) and len(value) == 0):
            return tuple(range(rank))
        found = (value,) if isinstance(value, int) else tuple(value)
        return tuple(sorted(int(dim) % max(rank, 1) for dim in found))

    @property
    def results(self) -> tuple[tuple[int, ...], ...]:
        return tuple(spec.shape for spec in self.node.outputs)


RuleFunction = Callable[[Call], OpRule]
