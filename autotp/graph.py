"""The planning graph: what a model computes, small, printable and free of torch.

Node names are those of the exported FX graph, which is what gets rewritten; they are the join key. Results of operators
with several outputs are addressed by index, so the graph has no `getitem` nodes.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from autotp.errors import AutoTPError
from autotp.placement import num_elements

ITEM_BYTES = {
    "float64": 8, "float32": 4, "bfloat16": 2, "float16": 2, "float8_e4m3fn": 1, "float8_e5m2": 1, "complex64": 8,
    "complex128": 16, "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "bool": 1,
}  # fmt: skip
FLOATS = frozenset(name for name in ITEM_BYTES if "float" in name)


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Shape, dtype (torch's name without `torch.`) and whether a gradient flows back through the tensor."""

    shape: tuple[int, ...]
    dtype: str
    has_gradient: bool = False

    @property
    def item_bytes(self) -> int:
        if self.dtype not in ITEM_BYTES:
            raise AutoTPError(f"dtype {self.dtype} is not known to autotp; known are {', '.join(ITEM_BYTES)}")
        return ITEM_BYTES[self.dtype]

    @property
    def num_bytes(self) -> int:
        return num_elements(self.shape) * self.item_bytes

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]{'*' if self.has_gradient else ''}"


@dataclass(frozen=True, slots=True)
class Value:
    """The `index`-th result of a node."""

    node: str
    index: int = 0

    def __str__(self) -> str:
        return f"%{self.node}" + (f"#{self.index}" if self.index else "")


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor argument of a node: its position in `Node.inputs`. Stands in `Node.arguments` where the tensor stood."""

    index: int

    def __str__(self) -> str:
        return f"${self.index}"


KINDS = ("input", "parameter", "buffer", "op", "output")


@dataclass(frozen=True, slots=True)
class Node:
    """An operator, parameter, buffer, input or the output.

    `arguments` binds every argument of the operator's schema by name, defaults included; a tensor is an `Operand`, and a
    list of tensors a tuple of them. `target` is a parameter's or buffer's qualified name; tied names share one node.
    `module` is the path of the module that made the node. The output node's inputs are the flattened tensors returned.
    `writes`: operands that the operator changes in place (running statistics of batch_norm, `copy_` to a buffer).
    """

    name: str
    kind: str
    op: str = ""
    inputs: tuple[Value, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    module: str = ""
    target: str = ""
    writes: frozenset[int] = frozenset()

    def argument(self, name: str, default: Any = None) -> Any:
        """An argument by its schema name; `default` where the schema has none of that name."""
        return self.arguments.get(name, default)

    @property
    def short_op(self) -> str:
        """`linear` for `aten.linear.default`; in-place operators lose the underscore."""
        parts = self.op.split(".")
        name = parts[1] if len(parts) > 1 else self.op
        return name if name.startswith("__") else name.rstrip("_")

    def __str__(self) -> str:
        inputs = ", ".join(map(str, self.inputs))
        literals = ", ".join(f"{k}={_text(v)}" for k, v in self.arguments.items() if not has_operand(v))
        call = {"op": f"{self.op}({inputs}{'; ' + literals if literals else ''})", "output": f"output({inputs})"}.get(
            self.kind, f"{self.kind} {self.target}".rstrip()
        )
        results = ", ".join(map(str, self.outputs))
        return f"%{self.name} = {call} -> {results}" + (f"  [{self.module}]" if self.module else "")


def has_operand(value: Any) -> bool:
    """Whether an argument is a tensor, or a list with one in it, rather than a literal."""
    return isinstance(value, Operand) or (isinstance(value, tuple) and any(isinstance(v, Operand) for v in value))


def _text(value: Any) -> str:
    return f"({', '.join(map(_text, value))})" if isinstance(value, tuple) else str(value)


@dataclass(frozen=True)
class Graph:
    """Nodes in topological order, by name; the last one is the output."""

    nodes: Mapping[str, Node]

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes.values())

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    def spec(self, value: Value) -> TensorSpec:
        return self.nodes[value.node].outputs[value.index]

    def input_specs(self, node: Node) -> tuple[TensorSpec, ...]:
        return tuple(self.spec(value) for value in node.inputs)

    def consumers(self) -> dict[Value, list[tuple[Node, int]]]:
        """For every value the (node, operand index) pairs that read it, in order."""
        found: dict[Value, list[tuple[Node, int]]] = {}
        for node in self:
            for index, value in enumerate(node.inputs):
                found.setdefault(value, []).append((node, index))
        return found

    def written(self) -> frozenset[Value]:
        """Values that some operator changes in place: all who read one must read it as it is stored."""
        return frozenset(node.inputs[index] for node in self for index in node.writes)

    def verify(self) -> None:
        """Raise AutoTPError where an input is read before it is made, or a name or kind is wrong."""
        seen: set[Value] = set()
        for name, node in self.nodes.items():
            if name != node.name or node.kind not in KINDS:
                raise AutoTPError(f"graph node {name!r} is malformed: {node}")
            for value in node.inputs:
                if value not in seen:
                    raise AutoTPError(f"graph node {name!r} reads {value} before it is made")
            seen.update(Value(name, index) for index in range(len(node.outputs)))
        if not self.nodes or list(self.nodes.values())[-1].kind != "output":
            raise AutoTPError("a graph must end with its output node")

    def fingerprint(self) -> str:
        """A hash of everything a plan depends on: equal graphs, equal fingerprints, on every machine."""
        return hashlib.sha256(str(self).encode()).hexdigest()[:16]

    def __str__(self) -> str:
        return "\n".join(map(str, self))
