"""How every module is split, in rows that fold."""

from dataclasses import dataclass

from autotp.plans import NodeFacts, Plan
from autotp.report.words import describe_strategy, short_op

# The operators that say how a module is split; what else a module computes is summed up in a row per kind of split.
MAIN = (
    "linear", "addmm", "mm", "matmul", "bmm", "baddbmm", "einsum", "conv1d", "conv2d", "conv3d", "convolution",
    "embedding", "scaled_dot_product_attention", "cross_entropy_loss", "nll_loss", "nll_loss_nd", "batch_norm",
    "layer_norm", "rms_norm", "group_norm", "softmax",
)  # fmt: skip
NUM_NAMES = 4  # of operators in one row


@dataclass(frozen=True, slots=True)
class LayerRow:
    """What a module's operators do on every axis."""

    ops: str
    choices: tuple[str, ...]


def layer_rows(plan: Plan) -> list[tuple[str, LayerRow]]:
    """(module path, row): one per main operator of a module; a module without any has one per kind of split."""
    modules: dict[str, dict[tuple[str, ...], list[str]]] = {}
    for name, node in plan.nodes.items():
        if node.kind == "op" and _counts(node):
            op = short_op(node.op)
            ops = modules.setdefault(node.module, {}).setdefault(describe_strategy(op, plan.strategies[name]), [])
            if op not in ops:
                ops.append(op)
    rows = []
    for module, splits in modules.items():
        main = [(op, choices) for choices, ops in splits.items() for op in ops if op in MAIN]
        if main:
            rows += [(module, LayerRow(op, choices)) for op, choices in main]
        else:
            rows += [(module, LayerRow(_names(ops), choices)) for choices, ops in splits.items()]
    return rows


def _counts(node: NodeFacts) -> bool:
    """Masks, positions and their like say nothing about how a layer is split."""
    return any(spec.has_gradient for spec in node.outputs) or short_op(node.op) in MAIN


def _names(ops: list[str]) -> str:
    return ", ".join(ops[:NUM_NAMES]) + (" ..." if ops[NUM_NAMES:] else "")
