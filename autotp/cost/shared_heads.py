"""Query heads that share key heads with other ranks: each reads a copy of its key head and of its value head.

The copies are made by index_select, and their gradients added up into those of all key heads.
"""

from collections.abc import Sequence

from autotp.cost.families import named_operands
from autotp.cost.local import Coordinates, local_bytes, local_shape_of
from autotp.cost.work import Work
from autotp.graph import Node, TensorSpec
from autotp.hardware.profile import DeviceProfile
from autotp.rules.strategy import Strategy

RUN = "h*g"  # the letters of rules/attention.py that are cut as one


def copied_bytes(
    node: Node, strategy: Strategy, specs: Sequence[TensorSpec], at: Coordinates = None
) -> dict[int, tuple[int, int]]:
    """Of keys and values, by operand: bytes of the copies on a rank, and of what they are copied from.

    On the rank at these coordinates, or on the one with most; nothing where no rank shares key heads.
    """
    if not any(choice.cut and RUN in choice.cut for choice in strategy.choices):
        return {}
    num_heads = local_shape_of(node.outputs[0], strategy.results[0], at)[-3]
    found = {}
    for index in named_operands(node, ("key", "value")):
        source = local_bytes(specs[index], strategy.operands[index], at)
        found[index] = (num_heads * source // max(1, specs[index].shape[-3]), source)
    return found


def copies_s(
    node: Node,
    strategy: Strategy,
    specs: Sequence[TensorSpec],
    device: DeviceProfile,
    at: Coordinates,
    *,
    is_trained: bool,
) -> tuple[float, float]:
    """(forward, backward) seconds of the copies; backward fills the gradient of all heads and adds those of the copies."""
    work = Work("index_select", device, 0.0, None, "")
    forward_s = backward_s = 0.0
    for index, (copied, source) in copied_bytes(node, strategy, specs, at).items():
        forward_s += work.forward_s(2 * copied)
        if is_trained and specs[index].has_gradient:
            backward_s += work.backward_s(0.0, 2 * copied + source)
    return forward_s, backward_s
