"""The planned graph for graph libraries: networkx (and its node-link JSON), and Graphviz' DOT."""

import json
from typing import Any

import networkx as nx

from autotp.graph import Value
from autotp.placement import format_placement
from autotp.plans import Plan
from autotp.redistribute import in_words
from autotp.report.words import describe_move, describe_strategy, join_shapes, short_op

BREAK = "\\n"  # a new line in a label
COLOURS = {"op": "#dce9f7", "parameter": "#e6f3e4", "buffer": "#eeeeee", "input": "#fdf1d8", "output": "#fdf1d8"}


def to_networkx(plan: Plan) -> nx.MultiDiGraph:
    """Nodes with what they compute and how, edges per operand with the placement that is wanted and what is moved."""
    graph = nx.MultiDiGraph(mesh=str(plan.mesh), mode=plan.mode, cluster=plan.cluster.get("name", ""))
    for name, node in plan.nodes.items():
        op = short_op(node.op)
        words = describe_strategy(op, plan.strategies[name])
        graph.add_node(
            name, kind=node.kind, op=node.op, module=node.module, forward_s=node.forward_s, backward_s=node.backward_s,
            strategy=", ".join(words), shapes=[list(spec.shape) for spec in node.outputs],
            results=[format_placement(placement) for placement in plan.strategies[name].results],
        )  # fmt: skip
    for name, node in plan.nodes.items():
        for index, value in enumerate(node.inputs):
            graph.add_edge(
                value.node, name, key=index, operand=index, result=value.index,
                placement=format_placement(plan.strategies[name].operands[index]), moves=_moves(plan, value),
            )  # fmt: skip
    return graph


def _moves(plan: Plan, value: Value) -> list[str]:
    found = []
    for move in plan.moves.get(value, ()):
        both = in_words(move.forward, move.forward_by), in_words(move.backward, move.backward_by)
        found.append(f"{describe_move(move)}: {' / '.join(both)}")
    return found


def node_link(plan: Plan) -> str:
    """JSON that `networkx.node_link_graph(..., edges="edges")` reads."""
    data: dict[str, Any] = nx.node_link_data(to_networkx(plan), edges="edges")
    return json.dumps(data, indent=1) + "\n"


def graphviz(plan: Plan) -> str:
    """DOT: a box per node, its module's boxes in a frame, and on an edge what is moved over it."""
    graph = to_networkx(plan)
    lines = ["digraph plan {", '  node [shape=box, style="rounded,filled", fontname="Helvetica", fontsize=10];',
             '  edge [fontname="Helvetica", fontsize=9, color="#6b7785"];']  # fmt: skip
    modules: dict[str, list[str]] = {}
    for name, facts in graph.nodes.items():
        title = short_op(facts["op"]) if facts["op"] else facts["kind"]
        if name in plan.parameters:
            title = (
                plan.parameters[name].names[0].rpartition(".")[2]
                + " "
                + join_shapes(plan.parameters[name].local_shapes)
            )
        label = _quoted(f"{title}\\n{facts['strategy']}".rstrip("\\n"))
        modules.setdefault(facts["module"], []).append(
            f'{_quoted(name)} [label={label}, fillcolor="{COLOURS[facts["kind"]]}"];'
        )
    for number, (module, rows) in enumerate(modules.items()):
        inside = [f"    {row}" for row in rows]
        frame = [
            f"  subgraph cluster_{number} {{",
            f"    label={_quoted(module)}; color={_quoted('#cfd6de')};",
            *inside,
            "  }",
        ]
        lines += frame if module else [f"  {row}" for row in rows]
    for source, target, facts in graph.edges(data=True):
        label = f" [label={_quoted(BREAK.join(facts['moves']))}, color={_quoted('#d9812a')}]" if facts["moves"] else ""
        lines.append(f"  {_quoted(source)} -> {_quoted(target)}{label};")
    return "\n".join([*lines, "}", ""])


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '\\"') + '"'
