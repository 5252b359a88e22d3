"""What a rank runs of an operator, as text: operators with equal keys take equally long on one device."""

from collections.abc import Sequence

from autotp.cost.local import Coordinates, local_shape_of
from autotp.graph import Node, TensorSpec, has_operand
from autotp.rules.rule import OpRule
from autotp.rules.strategy import Strategy


def operator_key(
    node: Node, rule: OpRule, strategy: Strategy, specs_in: Sequence[TensorSpec], at: Coordinates = None
) -> str:
    """The operator, the local shapes and dtypes of operands and results, literals, and the local operator if it needs one.

    A star marks operands that a gradient flows to. On the rank at these coordinates, or on the one with the most.
    """
    operands, results = (
        [
            f"{spec.dtype}{list(local_shape_of(spec, placement, at))}{'*' if spec.has_gradient else ''}"
            for spec, placement in zip(specs, placements, strict=True)
        ]
        for specs, placements in ((specs_in, strategy.operands), (node.outputs, strategy.results))
    )
    literals = [f"{name}={value}" for name, value in sorted(node.arguments.items()) if not has_operand(value)]
    cut = {letter for choice in strategy.choices for letter in choice.cut or ()}
    local = sorted({rule.local[letter] for letter in cut if letter in rule.local})
    return f"{node.op}({', '.join(operands)}; {', '.join(literals)}) -> {', '.join(results)}" + "".join(
        f" by {name}" for name in local
    )
