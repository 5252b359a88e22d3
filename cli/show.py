"""`autotp show`: a plan that was made before, or one side of it."""

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from autotp.errors import AutoTPError, PlanError
from autotp.placement import format_placement, local_shape
from autotp.plan_file import load as load_plan
from autotp.plans import Plan

from . import options as opt
from .describe import describe_plan, summary_json
from .layer_plan import MOVE_COLUMNS
from .layers import fold_rows
from .lazy import load
from .moves import moved_values
from .output import Answer, progress
from .tables import plain_table
from .units import seconds, size
from .words import describe_placement, describe_strategy, short_op


def show(
    plan: Annotated[
        Path, typer.Argument(metavar="PLAN", help="A file that `autotp plan -o` wrote.", show_default=False)
    ],
    node: Annotated[str | None, typer.Option("--node", metavar="NAME", help="One node of the graph.")] = None,
    parameters: Annotated[bool, typer.Option("--parameters", help="Where every parameter and buffer is.")] = False,
    collectives: Annotated[bool, typer.Option("--collectives", help="Every redistribution with its price.")] = False,
    code: Annotated[bool, typer.Option("--code", help="The code that rank 0 runs.")] = False,
    json: opt.Json = False,
) -> Answer:
    """Show PLAN: its summary, or one side of it."""
    if (node is not None) + parameters + collectives + code > 1:
        raise AutoTPError("--node, --parameters, --collectives and --code exclude each other: choose one")
    with progress("reading the plan") as status:
        found = load_plan(plan)
        if code:
            status.update("rewriting rank 0 ...")
            text = load("api").generated_code(found, rank=0)
            return Answer({"code": text}, lambda: [text])
    if node is not None:
        return _node(found, node)
    if parameters:
        return _parameters(found)
    if collectives:
        return _collectives(found)
    return Answer(summary_json(found), lambda: describe_plan(found))


def _node(plan: Plan, name: str) -> Answer:
    name = name.removeprefix("%")
    if name not in plan.nodes:
        close = difflib.get_close_matches(name, plan.nodes, n=3)
        hint = (
            f"similar names are {', '.join(close)}"
            if close
            else f"it has {len(plan.nodes)} nodes, from {next(iter(plan.nodes))}"
        )
        raise PlanError(f"the plan has no node {name!r}: {hint}")
    facts, strategy = plan.nodes[name], plan.strategies[name]
    operands = [
        {"value": str(value), **_tensor(plan, value.node, value.index, placement)}
        for value, placement in zip(facts.inputs, strategy.operands, strict=True)
    ]
    results = [_tensor(plan, name, index, placement) for index, placement in enumerate(strategy.results)]
    wanted = {(value.node, value.index) for value in facts.inputs}
    moves = [_move_json(moved) for moved in moved_values(plan) if (moved.value.node, moved.value.index) in wanted]
    moves_out = [_move_json(moved) for moved in moved_values(plan) if moved.value.node == name]
    data = {
        "name": name, "kind": facts.kind, "op": facts.op, "module": facts.module,
        "strategy": dict(zip(plan.mesh.names, describe_strategy(short_op(facts.op), strategy), strict=True)),
        "operands": operands, "results": results, "moves_of_operands": moves, "moves_of_results": moves_out,
        "forward_s": facts.forward_s, "backward_s": facts.backward_s,
    }  # fmt: skip
    return Answer(data, lambda: _node_text(plan, data))


def _tensor(plan: Plan, node: str, index: int, placement: Any) -> dict[str, Any]:
    """A tensor as an operator has it: whole and local shapes, placement."""
    spec = plan.nodes[node].outputs[index]
    ranks = range(plan.mesh.num_ranks)
    shapes = [list(local_shape(spec.shape, placement, plan.mesh.coordinates(rank))) for rank in ranks]
    return {
        "dtype": spec.dtype, "shape": list(spec.shape), "placement": format_placement(placement),
        "in_words": describe_placement(placement, plan.mesh), "local_shapes": shapes,
    }  # fmt: skip


def _node_text(plan: Plan, data: dict[str, Any]) -> Iterable[RenderableType]:
    yield Text.assemble(
        (f"%{data['name']}", "bold"), f"  {data['op'] or data['kind']}  in {data['module'] or 'the model'}"
    )
    yield "strategy: " + ", ".join(f"{axis}: {choice}" for axis, choice in data["strategy"].items())
    if data["kind"] == "op":
        yield f"one run, without moves: forward {seconds(data['forward_s'])}, backward {seconds(data['backward_s'])}"
    table = plain_table("Operands as wanted, results as made", "", "dtype", "whole", "placement", "on the ranks")
    for row in data["operands"]:
        table.add_row(row["value"], *_tensor_cells(row))
    for index, row in enumerate(data["results"]):
        table.add_row(f"result {index}", *_tensor_cells(row))
    yield table
    for title, key in (("Moves of its operands", "moves_of_operands"), ("Moves of its results", "moves_of_results")):
        if data[key]:
            yield _moves_table(title, data[key])


def _tensor_cells(row: dict[str, Any]) -> tuple[str, ...]:
    return row["dtype"], _shape(row["shape"]), row["in_words"], _local(row["local_shapes"])


def _shape(shape: Iterable[int]) -> str:
    return "×".join(map(str, shape)) or "scalar"


def _local(shapes: Iterable[Iterable[int]]) -> str:
    return ", ".join(dict.fromkeys(map(_shape, shapes)))


def _parameters(plan: Plan) -> Answer:
    rows = {
        parameter.names[0]: {
            "node": node, "names": list(parameter.names), "dtype": parameter.dtype, "shape": list(parameter.shape),
            "placement": format_placement(parameter.placement),
            "local_shapes": [list(shape) for shape in parameter.local_shapes],
        }
        for node, parameter in plan.parameters.items()
    }  # fmt: skip

    def text() -> Iterable[RenderableType]:
        table = plain_table("Parameters and buffers", "name", "dtype", "whole", "placement", "on the ranks")
        cells = (
            (
                " = ".join(p.names),
                (p.dtype, _shape(p.shape), describe_placement(p.placement, plan.mesh), _local(p.local_shapes)),
            )
            for p in plan.parameters.values()
        )
        for folded in fold_rows(cells):
            table.add_row(folded.path, *folded.content)
        yield table

    return Answer({"parameters": rows}, text)


def _collectives(plan: Plan) -> Answer:
    rows = [_move_json(moved) for moved in moved_values(plan)]

    def text() -> Iterable[RenderableType]:
        yield _moves_table("Redistributions", rows)
        total = sum(row["forward_s"] + row["backward_s"] for row in rows)
        inside = plan.summary["predicted"]["communication_by_kind_s"].get("inside_operators", 0.0)
        yield f"{len(rows)} redistributions take {seconds(total)}; communication inside operators {seconds(inside)} more"

    return Answer({"redistributions": rows}, text)


def _move_json(moved: Any) -> dict[str, Any]:
    return {
        "value": str(moved.value), "module": moved.module, "axis": moved.axis, "change": moved.change,
        "from": moved.source, "to": moved.target, "forward": moved.forward, "backward": moved.backward,
        "num_bytes": moved.num_bytes, "forward_s": moved.forward_s, "backward_s": moved.backward_s,
    }  # fmt: skip


def _moves_table(title: str, rows: list[dict[str, Any]]) -> Table:
    """Equal moves of repeated layers are one row, with their number."""
    table = plain_table(
        title, "made in", "value", "axis", "from → to", "forward / backward", "times", "bytes each", "total"
    )
    cells = (
        (
            row["module"],
            (
                row["value"].lstrip("%").rstrip("0123456789").rstrip("_") if len(rows) > 8 else row["value"],
                row["axis"], row["change"], f"{row['forward']} / {row['backward']}", row["num_bytes"],
                row["forward_s"] + row["backward_s"],
            ),
        )
        for row in rows
    )  # fmt: skip
    for folded in fold_rows(cells):
        *words, num_bytes, each_s = folded.content
        table.add_row(
            folded.path or "(model)", *words, str(folded.count), size(num_bytes), seconds(folded.count * each_s)
        )
    return table
