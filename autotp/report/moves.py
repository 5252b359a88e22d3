"""Every redistribution of a plan: what is moved, how, how many bytes and seconds."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from autotp.graph import ITEM_BYTES, TensorSpec, Value
from autotp.placement import format_placement, largest_shape, num_elements
from autotp.plans import Move, NodeFacts, Plan
from autotp.redistribute import COLLECTIVES, PADDED, REDUCTIONS, in_words, sent_by, sent_dtype
from autotp.report.words import describe_move, short_op


@dataclass(frozen=True, slots=True)
class MovedValue:
    """One step of one value.

    `num_bytes`: of the buffer on the rank with the most, as collectives count their size. `reduce_dtype`: in which partial
    sums are added up where that is not the value's own dtype, or "". `forward_by`, `backward_by`: by which collectives
    unequal shards are sent in exact sizes, or PADDED.
    """

    value: Value
    module: str
    what: str
    axis: str
    change: str
    source: str
    target: str
    forward: str
    backward: str
    num_bytes: int
    forward_s: float
    backward_s: float
    reduce_dtype: str = ""
    forward_by: str = PADDED
    backward_by: str = PADDED

    def to_json(self) -> dict[str, Any]:
        names = ("module", "axis", "change", "source", "target", "forward", "backward", "num_bytes", "reduce_dtype")
        fields = {name: getattr(self, name) for name in (*names, "forward_s", "backward_s")}
        fields |= {name: by for name in ("forward_by", "backward_by") if (by := getattr(self, name)) != PADDED}
        return {"value": str(self.value), **fields}

    @property
    def in_words(self) -> tuple[str, str]:
        """What is done forward and backward, and how where that is not by the action's own collective."""
        return in_words(self.forward, self.forward_by), in_words(self.backward, self.backward_by)

    @property
    def actions(self) -> str:
        """What is done forward and backward, in words."""
        wider = f" in {self.reduce_dtype}" if self.reduce_dtype else ""
        pairs = zip((self.forward, self.backward), self.in_words, strict=True)
        return " / ".join(text + wider * (action in REDUCTIONS) for action, text in pairs)

    @property
    def is_collective(self) -> bool:
        return self.forward in COLLECTIVES or self.backward in COLLECTIVES


def moved_values(plan: Plan) -> Iterator[MovedValue]:
    """All steps of all values, in the order of the plan."""
    for value, moves in plan.moves.items():
        node = plan.nodes[value.node]
        spec = node.outputs[value.index]
        for move in moves:
            yield MovedValue(
                value=value,
                module=node.module,
                what=_what(value, node, plan),
                axis=plan.mesh.names[move.step.axis],
                change=describe_move(move),
                source=format_placement(move.step.source),
                target=format_placement(move.step.target),
                forward=move.forward,
                backward=move.backward,
                num_bytes=_num_bytes(move, spec, plan.reduce_dtype),
                forward_s=move.forward_s,
                backward_s=move.backward_s,
                reduce_dtype=_wider(move, spec, plan.reduce_dtype),
                forward_by=move.forward_by,
                backward_by=move.backward_by,
            )


def _what(value: Value, node: NodeFacts, plan: Plan) -> str:
    if node.kind in ("parameter", "buffer"):
        return plan.parameters[value.node].names[0].rpartition(".")[2]
    return short_op(node.op) if node.kind == "op" else f"input {value.node}"


def _wider(move: Move, spec: TensorSpec, reduce_dtype: str | None) -> str:
    """The dtype in which the move adds up what it sends, where that is not the value's."""
    sent = {sent_dtype(action, spec.dtype, reduce_dtype) for action in (move.forward, move.backward)}
    return next(iter(sent - {spec.dtype}), "")


def _num_bytes(move: Move, spec: TensorSpec, reduce_dtype: str | None) -> int:
    sent = [
        sum(one.num_elements for one in found)
        * ITEM_BYTES[sent_dtype(action, spec.dtype, reduce_dtype if by == PADDED else None)]
        for action, by in ((move.forward, move.forward_by), (move.backward, move.backward_by))
        if (found := sent_by(action, by, spec.shape, move.step))
    ]
    ends = (largest_shape(spec.shape, end) for end in (move.step.source, move.step.target))
    return max(sent or [num_elements(end) * spec.item_bytes for end in ends])
