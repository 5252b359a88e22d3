"""`autotp export`: a plan for another tool."""

from pathlib import Path
from typing import Annotated

import typer

from autotp.plan_file import load as load_plan
from autotp.plan_file import write_atomically

from . import options as opt
from .lazy import load
from .output import Answer
from .stages import progress


def export(
    plan: opt.PlanFile,
    to: Annotated[
        str,
        typer.Option("--to", metavar="dtensor|transformers|megatron-notes|networkx|graphviz", help="For whom."),
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write it here; printed if not given.")
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Leave whole what the target cannot express, instead of refusing.")
    ] = False,
    json: opt.Json = False,
) -> Answer:
    """Write PLAN for another tool; what that cannot express is refused, with the reason.

    dtensor is a Python file with a parallelize_module plan, transformers a tp_plan as JSON, megatron-notes a table of
    parallel layers, networkx node-link JSON and graphviz a DOT file of the planned graph.

    Example:

      autotp export llama.plan.json --to dtensor -o llama_tp.py
    """
    opt.check_folder(output)
    with progress("reading the plan"):
        text: str = load("interchange.targets").export(load_plan(plan), to, partial=partial)
    if output is None:
        return Answer({"target": to, "text": text}, lambda: [text.rstrip("\n")])
    write_atomically(output, text)
    return Answer({"target": to, "output": str(output)}, lambda: [f"written to {output}"])
