"""Folding: which layers are one decision."""

from types import MappingProxyType

from autotp.capture.repeats import fold
from autotp.graph import Graph, Node, TensorSpec, Value

SPEC = TensorSpec((4, 8), "float32", True)
NOTHING = MappingProxyType({})


def stack(sizes: list[int]) -> Graph:
    """A chain of layers, each a weight and a linear; `sizes` are the widths, so that unequal ones differ in shape."""
    nodes = [Node("x", "input", outputs=(SPEC,))]
    last = Value("x")
    for index, size in enumerate(sizes):
        spec = TensorSpec((size, 8), "float32", True)
        nodes.append(Node(f"w{index}", "parameter", outputs=(spec,), target=f"net.layers.{index}.up.weight"))
        out = TensorSpec((4, 8), "float32", True)
        nodes.append(
            Node(
                f"linear{index}",
                "op",
                "aten.linear.default",
                (last, Value(f"w{index}")),
                (out,),
                NOTHING,
                f"net.layers.{index}.up",
            )
        )
        last = Value(f"linear{index}")
    nodes.append(Node("output", "output", inputs=(last,)))
    graph = Graph({node.name: node for node in nodes})
    graph.verify()
    return graph


def test_equal_layers_are_one_decision_and_the_ends_stay_free() -> None:
    classes = fold(stack([8] * 5))
    assert {classes[f"linear{i}"] for i in range(5)} == {"linear0"}
    assert {classes[f"w{i}"] for i in range(5)} == {"w0"}
    classes = fold(stack([8] * 5), ends=1)
    assert [classes[f"linear{i}"] for i in range(5)] == ["linear0", "linear1", "linear1", "linear1", "linear4"]


def test_unlike_layers_and_pairs_are_not_folded() -> None:
    classes = fold(stack([8, 16, 8, 16, 8, 16]))
    assert [classes[f"w{i}"] for i in range(6)] == ["w0", "w1", "w0", "w1", "w0", "w1"]
    assert all(classes[name] == name for name in fold(stack([8, 8])))
    assert all(classes[name] == name for name in ("x", "output"))
