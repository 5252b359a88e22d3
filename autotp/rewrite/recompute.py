"""Regions of a rewritten graph become modules of their own, which run again in backward."""

import operator
from collections.abc import Sequence

from torch import fx, nn

from autotp.runtime.recompute import Recomputed


def recompute(module: fx.GraphModule, regions: Sequence[Sequence[fx.Node]]) -> None:
    """Move every region (neighbours in the module's graph) into a `Recomputed` child named `region_...`, in place."""
    for index, nodes in enumerate(regions):
        name = f"region_{index}"
        while hasattr(module, name):
            name += "_"
        _move(module, nodes, name)
    module.graph.lint()
    module.recompile()


def _move(module: fx.GraphModule, nodes: Sequence[fx.Node], name: str) -> None:
    inside = set(nodes)
    inputs = list(dict.fromkeys(n for node in nodes for n in node.all_input_nodes if n not in inside))
    outputs = [node for node in nodes if any(user not in inside for user in node.users)]
    # A call that returns several tensors is read by getitems, which stay beside it.
    root, graph = nn.Module(), fx.Graph()
    copies = {node: graph.placeholder(node.name) for node in inputs}
    for node in nodes:
        copies[node] = graph.node_copy(node, lambda source: copies[source])
        if node.op == "call_module":
            root.add_module(str(node.target), module.get_submodule(str(node.target)))
    graph.output(tuple(copies[node] for node in outputs))
    module.add_module(name, Recomputed(fx.GraphModule(root, graph, class_name="Region")))
    with module.graph.inserting_after(nodes[-1]):
        call = module.graph.call_module(name, tuple(inputs))
    place = call
    for index, node in enumerate(outputs):
        with module.graph.inserting_after(place):
            place = module.graph.call_function(operator.getitem, (call, index), name=node.name)
        node.replace_all_uses_with(place, delete_user_cb=lambda user: user not in inside)
    for node in reversed(nodes):
        module.graph.erase_node(node)
        if node.op == "call_module":
            delattr(module, str(node.target))
