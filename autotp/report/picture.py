"""The picture of a block: boxes, what is sent between them, and the lines that join them, as an SVG template has them."""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

import networkx as nx

from autotp.graph import Value
from autotp.placement import largest_shape
from autotp.plans import Plan
from autotp.report.block import Block, collectives
from autotp.report.layer_rows import MAIN
from autotp.report.layered import layered
from autotp.report.units import seconds
from autotp.report.words import describe_move, describe_strategy, join_sizes, short_op

LETTER, BOLD = 6.7, 7.2  # pixels of a letter, on average
LINE, PAD, SPACE = 15.0, 9.0, 26.0  # of text, inside a box, between rows
ENTRY, EXIT = "entry", "exit"
NUM_OPS = 4


@dataclass(slots=True)
class Shape:
    """A box of the picture: `x`, `y` of its left upper corner, in pixels. `sent`: collectives on what it makes."""

    title: str
    lines: list[str]
    kind: str  # split, whole, partial: the class that colours it
    sent: list[str] = field(default_factory=list)
    x: float = 0.0
    y: float = 0.0

    @property
    def width(self) -> float:
        return max(BOLD * len(self.title), LETTER * max(map(len, [*self.lines, *self.sent]), default=0), 72.0) + 2 * PAD

    @property
    def box_height(self) -> float:
        return LINE * (1 + len(self.lines)) + PAD

    @property
    def height(self) -> float:
        return self.box_height + (LINE * len(self.sent) + PAD if self.sent else 0.0)


@dataclass(frozen=True, slots=True)
class Picture:
    """Sizes in pixels; `lines` are SVG paths."""

    width: float
    height: float
    shapes: list[Shape]
    lines: list[str]


def picture(plan: Plan, block: Block) -> Picture:
    """Lay out a block."""
    graph = nx.DiGraph()
    shapes: dict[Hashable, Shape] = {index: _shape(plan, block, index) for index in range(len(block.boxes))}
    if block.entries:
        shapes[ENTRY] = _entry(plan, block)
        graph.add_node(ENTRY)
        graph.add_edges_from((ENTRY, index) for boxes in block.entries.values() for index in boxes)
    graph.add_nodes_from(range(len(block.boxes)))
    graph.add_edges_from(block.graph.edges)
    layout = layered(graph, {node: shape.width for node, shape in shapes.items()})
    tops, y = [], 4.0
    for row in layout.rows:
        tops.append(y)
        y += max(shapes[node].height for node in row if node in shapes) + SPACE
    for row, top in zip(layout.rows, tops, strict=True):
        for node in row:
            if node in shapes:
                shapes[node].x, shapes[node].y = layout.x[node] - shapes[node].width / 2, top
    bottoms = [*tops[1:], y]
    lines = [_path(points, tops, bottoms, shapes[source].height) for (source, _), points in layout.paths.items()]
    return Picture(layout.width, y - SPACE + 4.0, list(shapes.values()), list(dict.fromkeys(lines)))


def _path(points: list[tuple[float, int]], tops: list[float], bottoms: list[float], height: float) -> str:
    """Down from the box's lower edge; straight through rows, bent between them."""
    x, row = points[0]
    y = tops[row] + height
    text = f"M{x:.1f} {y:.1f}"
    if bottoms[row] - SPACE > y:
        text += f"V{bottoms[row] - SPACE:.1f}"
    for place, (next_x, next_row) in enumerate(points[1:], start=1):
        start, end = bottoms[next_row - 1] - SPACE, tops[next_row]
        middle = (start + end) / 2
        text += f"C{x:.1f} {middle:.1f} {next_x:.1f} {middle:.1f} {next_x:.1f} {end:.1f}"
        if place < len(points) - 1:
            text += f"V{bottoms[next_row] - SPACE:.1f}"
        x = next_x
    return text


def _shape(plan: Plan, block: Block, index: int) -> Shape:
    names = block.boxes[index].nodes
    leaf = next((n for n in names if short_op(plan.nodes[n].op) in MAIN), None) or max(
        names, key=lambda n: plan.nodes[n].forward_s + plan.nodes[n].backward_s
    )
    node, strategy = plan.nodes[leaf], plan.strategies[leaf]
    inside = node.module[len(block.layer) :].strip(".")
    shown = [n for n in names if plan.nodes[n].forward_s] or names[:1]
    ops = list(dict.fromkeys(short_op(plan.nodes[n].op) for n in shown))
    text = ", ".join(ops[:NUM_OPS]) + (" …" if ops[NUM_OPS:] else "")
    took_s = sum(plan.nodes[n].forward_s + plan.nodes[n].backward_s for n in names)
    words = describe_strategy(short_op(node.op), strategy)
    split = " · ".join(f"{axis} {word}" for axis, word in zip(plan.mesh.names, words, strict=True))
    result = largest_shape(node.outputs[0].shape, strategy.results[0])
    lines = [split, f"{join_sizes(result)} per rank, {seconds(took_s)}"]
    for value in dict.fromkeys(v for n in names for v in plan.nodes[n].inputs):
        if value.node in plan.parameters:
            parameter = plan.parameters[value.node]
            name = parameter.names[0].rpartition(".")[2]
            held = largest_shape(parameter.shape, parameter.placement)
            sent = ", ".join(_sent(plan, value))
            lines.append(f"{name} {join_sizes(held)}" + (f": {sent}" if sent else ""))
    kinds = {choice.kind for choice in strategy.choices}
    kind = "partial" if "partial" in kinds else "split" if "cut" in kinds else "whole"
    made = [Value(n, i) for n in names for i in range(len(plan.nodes[n].outputs))]
    return Shape(f"{inside}: {text}" if inside else text, lines, kind, list(_all_sent(plan, made)))


def _entry(plan: Plan, block: Block) -> Shape:
    values = list(block.entries)
    spec = plan.nodes[values[0].node].outputs[values[0].index]
    made = plan.strategies[values[0].node].results[values[0].index]
    title = "from the layer before" if block.layer else "inputs"
    line = f"{join_sizes(largest_shape(spec.shape, made))} per rank"
    return Shape(title, [line], "outside", list(_all_sent(plan, values)))


def _all_sent(plan: Plan, values: Iterable[Value]) -> Iterable[str]:
    return [text for value in values for text in _sent(plan, value)]


def _sent(plan: Plan, value: Value) -> list[str]:
    return [
        f"{plan.mesh.names[move.step.axis] + ' ' if len(plan.mesh.axes) > 1 else ''}{describe_move(move)}: "
        f"{_arrow('↓', move.forward)}{_arrow('↑', move.backward)}".rstrip(" ,")
        for move in collectives(plan, value)
    ]


def _arrow(arrow: str, action: str) -> str:
    return "" if action in ("none", "slice", "pad", "keep") else f"{arrow} {action}, "
