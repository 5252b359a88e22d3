"""Which module is split how, and what is redistributed, layer by layer."""

from collections import Counter
from dataclasses import dataclass

from rich.table import Table

from autotp.plans import NodeFacts, Plan
from autotp.redistribute import COLLECTIVES

from .layers import fold_rows
from .moves import moved_values
from .tables import plain_table
from .units import seconds, size
from .words import describe_strategy, short_op

# The operators that say how a module is split; of other modules the most frequent choice is shown.
MAIN = (
    "linear", "addmm", "mm", "matmul", "bmm", "baddbmm", "einsum", "conv1d", "conv2d", "conv3d", "convolution",
    "embedding", "scaled_dot_product_attention", "cross_entropy_loss", "nll_loss", "nll_loss_nd", "batch_norm",
    "layer_norm", "rms_norm", "group_norm", "softmax",
)  # fmt: skip
NUM_MOVES = 16
MOVE_COLUMNS = ("made in", "value", "axis", "from → to", "forward / backward", "times", "bytes each", "total")


@dataclass(frozen=True, slots=True)
class LayerRow:
    op: str
    choices: tuple[str, ...]


def layer_rows(plan: Plan) -> list[tuple[str, LayerRow]]:
    """(module path, what its operator does on every axis): a row per main operator, one for the others of a module."""
    found: dict[str, list[LayerRow]] = {}
    others: dict[str, Counter[LayerRow]] = {}
    for name, node in plan.nodes.items():
        if node.kind != "op" or not _computes(node):
            continue
        row = LayerRow(short_op(node.op), describe_strategy(short_op(node.op), plan.strategies[name]))
        if row.op in MAIN:
            found.setdefault(node.module, []).append(row)
        else:
            found.setdefault(node.module, [])
            others.setdefault(node.module, Counter())[LayerRow("", row.choices)] += 1
    rows = []
    for module, main in found.items():
        if main:
            rows += [(module, row) for row in dict.fromkeys(main)]
        elif others[module].total() > 1:
            ((row, count),) = others[module].most_common(1)
            label = (
                "elementwise" if count == others[module].total() else f"mostly ({count} of {others[module].total()})"
            )
            rows.append((module, LayerRow(label, row.choices)))
    return rows


def _computes(node: NodeFacts) -> bool:
    return any(spec.has_gradient for spec in node.outputs) or short_op(node.op) in MAIN


def layer_table(plan: Plan) -> Table:
    """The layer plan, repeated layers folded."""
    axes = (f"over {axis}={extent}" for axis, extent in plan.mesh.axes)
    table = plain_table("How the layers are split", "module", "operator", *axes)
    for folded in fold_rows(layer_rows(plan)):
        table.add_row(folded.path or "(model)", folded.content.op, *folded.content.choices)
    return table


@dataclass(frozen=True, slots=True)
class MoveRow:
    what: str
    axis: str
    change: str
    does: str


def move_table(plan: Plan) -> Table | None:
    """Redistributions that communicate, folded over layers, the most expensive first; None where there are none."""
    totals: dict[tuple[str, MoveRow], list[float]] = {}
    for moved in moved_values(plan):
        if {moved.forward, moved.backward} & set(COLLECTIVES):
            row = MoveRow(moved.what, moved.axis, moved.change, f"{moved.forward} / {moved.backward}")
            entry = totals.setdefault((moved.module, row), [0.0, 0.0])
            entry[0] += moved.forward_s + moved.backward_s
            entry[1] += moved.num_bytes
    if not totals:
        return None
    folded = fold_rows((module, (row, *totals[module, row])) for module, row in totals)
    folded.sort(key=lambda item: (-item.count * item.content[1], item.path))
    table = plain_table("What is redistributed", *MOVE_COLUMNS)
    for item in folded[:NUM_MOVES]:
        row, each_s, num_bytes = item.content
        cells = (row.what, row.axis, row.change, row.does, str(item.count), size(num_bytes))
        table.add_row(item.path or "(model)", *cells, seconds(item.count * each_s))
    if folded[NUM_MOVES:]:
        rest = folded[NUM_MOVES:]
        table.add_row(f"{len(rest)} more kinds", "", "", "", "", str(sum(item.count for item in rest)), "",
                      seconds(sum(item.count * item.content[1] for item in rest)))  # fmt: skip
    return table
