"""Bytes of operators: what is kept for backward, and what is held while running."""

from collections.abc import Sequence

from autotp.cost.families import FACTORS, FREE, FREE_FORWARD, KEPT, is_identity, named_operands
from autotp.cost.local import Coordinates, local_bytes, local_numel
from autotp.cost.shared_heads import copied_bytes
from autotp.graph import FLOATS, ITEM_BYTES, Node, TensorSpec
from autotp.placement import num_elements
from autotp.rules.strategy import Strategy

_NOTHING: tuple[frozenset[int], frozenset[int]] = (frozenset(), frozenset())
_STATISTIC_BYTES = 4  # means, deviations and log-sum-exps are float32
_RESIDENT = ("weight", "bias", "running_mean", "running_var")  # arguments that are parameters: counted elsewhere


def saved_operands(node: Node, specs: Sequence[TensorSpec]) -> tuple[frozenset[int], frozenset[int]]:
    """(operands, results) that autograd keeps for the backward of a node, by index; `specs` are those of the operands.

    An operator that the tables do not know is taken to keep every floating-point operand and result.
    """
    op = node.short_op
    if op in FREE or op in FREE_FORWARD or is_identity(node) or not any(spec.has_gradient for spec in node.outputs):
        return _NOTHING
    if op in FACTORS:
        factors = named_operands(node, FACTORS[op])
        needed = [i for i in factors if any(specs[j].has_gradient for j in factors if j != i)]
        return frozenset(needed), frozenset()
    if op in ("div", "divide", "true_divide"):  # the divisor for the dividend's gradient, both for the divisor's
        (dividend, *divisor) = named_operands(node, ("self", "other"))
        return frozenset([*divisor, dividend] if divisor and specs[divisor[0]].has_gradient else divisor), frozenset()
    if op in ("max", "min") and len(node.outputs) == 2:
        return frozenset(), frozenset([1])
    if op == "pow" and node.argument("exponent") == 1:
        return _NOTHING
    if op in KEPT:
        names = KEPT[op]
        results = [index for index, name in enumerate(("result", "result1")) if name in names]
        return frozenset(named_operands(node, names)), frozenset(results)
    operands = [i for i, spec in enumerate(specs) if spec.dtype in FLOATS]
    return frozenset(operands), frozenset(i for i, spec in enumerate(node.outputs) if spec.dtype in FLOATS)


def saved_bytes_extra(node: Node, strategy: Strategy, specs: Sequence[TensorSpec], at: Coordinates = None) -> int:
    """Bytes kept for backward that are no tensor of the graph: masks and statistics.

    On the rank at these coordinates, or on the one with the most.
    """
    op = node.short_op
    if is_identity(node) or not any(spec.has_gradient for spec in node.outputs):
        return 0
    result = node.outputs[0]
    if op == "dropout":  # one byte of mask per element
        return local_numel(result.shape, strategy.results[0], at)
    if op == "scaled_dot_product_attention":  # a log-sum-exp per query: the result without its last dim; copied keys
        rows = local_numel(result.shape, strategy.results[0], at) // max(1, result.shape[-1])
        return rows * _STATISTIC_BYTES + _copied_bytes(node, strategy, specs, at)
    if op in ("layer_norm", "rms_norm"):  # mean (not of rms_norm) and deviation per row
        width = num_elements(node.argument("normalized_shape"))
        rows = local_numel(result.shape, strategy.results[0], at) // max(1, width)
        return rows * _STATISTIC_BYTES * (1 if op == "rms_norm" else 2)
    if op == "cross_entropy_loss":  # the logarithm of the softmax
        return local_bytes(specs[0], strategy.operands[0], at)
    if op in ("max_pool1d", "max_pool2d", "max_pool3d"):  # positions of the maxima
        return local_numel(result.shape, strategy.results[0], at) * ITEM_BYTES["int64"]
    return 0


def work_bytes(node: Node, strategy: Strategy, specs: Sequence[TensorSpec], mode: str, at: Coordinates = None) -> int:
    """Bytes held while a node runs: operands, results, and in training results' gradients.

    On the rank at these coordinates, or on the one with the most. Parameters among the operands are held for
    the whole step and counted there; views hold nothing.
    """
    if node.short_op in FREE or node.short_op in FREE_FORWARD or is_identity(node):
        return 0
    resident = named_operands(node, _RESIDENT)
    total = sum(
        local_bytes(spec, placement, at)
        for i, (spec, placement) in enumerate(zip(specs, strategy.operands, strict=True))
        if i not in resident
    )
    for spec, placement in zip(node.outputs, strategy.results, strict=True):
        total += local_bytes(spec, placement, at) * (2 if mode == "train" and spec.has_gradient else 1)
    if node.short_op == "scaled_dot_product_attention":
        total += _copied_bytes(node, strategy, specs, at)
    return total


def _copied_bytes(node: Node, strategy: Strategy, specs: Sequence[TensorSpec], at: Coordinates) -> int:
    return sum(copied for copied, _ in copied_bytes(node, strategy, specs, at).values())
