"""FLOPs and bytes of one rank's part of an operator, from the shapes and placements that a plan stores."""

from collections.abc import Sequence

from autotp.graph import TensorSpec
from autotp.placement import Placement, largest_shape, num_elements
from autotp.plans import Plan
from autotp.report.words import short_op

# Position of the operand whose last dim is summed over, for products of matrices.
PRODUCTS = {"linear": 0, "mm": 0, "bmm": 0, "matmul": 0, "addmm": 1, "baddbmm": 1}
ATTENTION = "scaled_dot_product_attention"
CONVOLUTIONS = ("conv1d", "conv2d", "conv3d", "convolution")


def local_tensors(plan: Plan, name: str) -> tuple[list[tuple[TensorSpec, tuple[int, ...]]], ...]:
    """(operands, results) of a node as pairs of the whole tensor and the largest local shape."""
    node, strategy = plan.nodes[name], plan.strategies[name]
    specs = [plan.nodes[value.node].outputs[value.index] for value in node.inputs]
    return _pairs(specs, strategy.operands), _pairs(node.outputs, strategy.results)


def _pairs(specs: Sequence[TensorSpec], placements: Sequence[Placement]) -> list[tuple[TensorSpec, tuple[int, ...]]]:
    return [(spec, largest_shape(spec.shape, place)) for spec, place in zip(specs, placements, strict=True)]


def local_flops(plan: Plan, name: str) -> int:
    """Forward FLOPs (a multiply and an add are two) of the rank with most; 0 for all that is not a product."""
    op = short_op(plan.nodes[name].op)
    operands, results = local_tensors(plan, name)
    if op in PRODUCTS:
        return 2 * num_elements(results[0][1]) * operands[PRODUCTS[op]][1][-1]
    if op == ATTENTION:  # q·kᵀ and its product with v
        q, k = operands[0][1], operands[1][1]
        return 2 * num_elements(q) * k[-2] + 2 * num_elements(results[0][1]) * k[-2]
    if op in CONVOLUTIONS:
        return 2 * num_elements(results[0][1]) * num_elements(operands[1][1][1:])
    return 0


def local_bytes(plan: Plan, name: str) -> int:
    """Bytes of all operands and results of the rank with most: what one run reads and writes at least."""
    operands, results = local_tensors(plan, name)
    return sum(num_elements(shape) * spec.item_bytes for spec, shape in [*operands, *results])
