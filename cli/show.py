"""`autotp show`: a plan that was made before, or one side of it."""

from collections.abc import Iterable
from json import dumps
from pathlib import Path
from typing import Annotated

import typer
from rich.console import RenderableType

from autotp.errors import AutoTPError
from autotp.placement import format_placement
from autotp.plan_file import load as load_plan
from autotp.plans import Plan
from autotp.report.layers import fold_rows
from autotp.report.moves import moved_values
from autotp.report.units import seconds
from autotp.report.words import describe_placement, join_shapes, join_sizes

from . import options as opt
from .describe import describe_plan, summary_json
from .lazy import load
from .moves import move_table
from .node import node_answer
from .output import Answer
from .stages import progress
from .tables import plain_table


def show(
    plan: opt.PlanFile,
    node: Annotated[str | None, typer.Option("--node", metavar="NAME", help="One node of the graph.")] = None,
    parameters: Annotated[bool, typer.Option("--parameters", help="Where every parameter and buffer is.")] = False,
    collectives: Annotated[bool, typer.Option("--collectives", help="Every redistribution with its price.")] = False,
    code: Annotated[bool, typer.Option("--code", help="The code that a rank runs.")] = False,
    rank: Annotated[int, typer.Option("--rank", metavar="N", help="Whose code.")] = 0,
    trace: Annotated[
        Path | None,
        typer.Option("--trace", metavar="FILE", help="Write the predicted step as a trace, for ui.perfetto.dev."),
    ] = None,
    json: opt.Json = False,
) -> Answer:
    """Show PLAN: its summary, or one side of it.

    Example:

      autotp show llama.plan.json --collectives
    """
    if (node is not None) + parameters + collectives + code + (trace is not None) > 1:
        raise AutoTPError("--node, --parameters, --collectives, --code and --trace exclude each other: choose one")
    with progress("reading the plan") as status:
        found = load_plan(plan)
        if code:
            status.update(f"rewriting rank {rank}")
            text = load("listing").generated_code(found, rank)
            return Answer({"code": text}, lambda: [text])
        if trace is not None:
            opt.check_folder(trace)
            load("plan_file").write_atomically(trace, dumps(load("timeline").chrome_trace(found)))
            text = f"trace of the predicted step written to {trace}; open it in https://ui.perfetto.dev"
            return Answer({"trace": str(trace)}, lambda: [text])
    if node is not None:
        return node_answer(found, node)
    if parameters:
        return _parameters(found)
    if collectives:
        return _collectives(found)
    return Answer(summary_json(found), lambda: describe_plan(found))


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
        cells = [
            (
                " = ".join(p.names),
                (p.dtype, join_sizes(p.shape), describe_placement(p.placement, plan.mesh), join_shapes(p.local_shapes)),
            )
            for p in plan.parameters.values()
        ]
        for folded in fold_rows(cells):
            table.add_row(folded.path, *folded.content)
        yield table

    return Answer({"parameters": rows}, text)


def _collectives(plan: Plan) -> Answer:
    moves = list(moved_values(plan))

    def text() -> Iterable[RenderableType]:
        yield move_table("Redistributions", moves)
        total_s = sum(moved.forward_s + moved.backward_s for moved in moves)
        inside_s = plan.summary["predicted"]["communication_by_kind_s"].get("inside_operators", 0.0)
        yield f"{len(moves)} redistributions take {seconds(total_s)}, collectives inside operators {seconds(inside_s)}"

    return Answer({"redistributions": [moved.to_json() for moved in moves]}, text)
