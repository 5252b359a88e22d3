"""`autotp compare`: what differs between two plans, and what it costs."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from autotp.plan_file import load as load_plan
from autotp.plans import Plan
from autotp.report.units import seconds, share, size

from . import options as opt
from .lazy import load
from .output import Answer
from .stages import progress
from .tables import plain_table


def compare(
    first: Annotated[Path, typer.Argument(metavar="PLAN", help="A plan.", show_default=False)],
    second: Annotated[Path, typer.Argument(metavar="PLAN", help="Another plan.", show_default=False)],
    json: opt.Json = False,
) -> Answer:
    """Compare two plans: where they split the model differently, and how many seconds and bytes that is.

    Example:

      autotp plan examples/llama.py --strategy megatron -o megatron.plan.json

      autotp plan examples/llama.py -o best.plan.json

      autotp compare megatron.plan.json best.plan.json
    """
    with progress("reading the plans"):
        plans = load_plan(first), load_plan(second)
        comparer = load("analysis.compare")
        amounts = comparer.compare(*plans)
        differences = comparer.differences(*plans)
    data = {
        "same_model": plans[0].fingerprint == plans[1].fingerprint,
        "mesh": [str(plan.mesh) for plan in plans],
        "cluster": [plan.cluster["name"] for plan in plans],
        "amounts": {name: [one, two] for name, one, two in amounts},
        "differences": [
            {"module": d.module, "operators": d.operators, "first": d.first, "second": d.second} for d in differences
        ],
    }
    return Answer(data, lambda: _text(data, (first, second), plans))


def _text(data: dict[str, Any], paths: Sequence[Path], plans: Sequence[Plan]) -> Iterable[RenderableType]:
    for path, plan in zip(paths, plans, strict=True):
        strategy = plan.summary["solver"]["strategy"]
        yield Text.assemble((path.name, "bold"), f"  {strategy}, mesh {plan.mesh} on {plan.cluster['name']}")
    if not data["same_model"]:
        yield Text("The plans are for different models (or different inputs).", style="yellow")
    table = plain_table("What they take (predicted)", "", *(path.name for path in paths), "difference", "")
    for name, (one, two) in data["amounts"].items():
        if one or two:
            words = size if name.endswith("_bytes") else seconds
            label = name.removesuffix("_bytes").removesuffix("_s").replace("_", " ")
            more = "0" if one == two else ("+" if two > one else "−") + words(abs(two - one))
            table.add_row(label, words(one), words(two), more, share(two - one, one) if one and one != two else "")
    yield table
    if not data["differences"]:
        yield "They split every module alike."
        return
    table = plain_table("What they split differently", "module", "operators", *(path.name for path in paths))
    for row in data["differences"]:
        table.add_row(row["module"], row["operators"], row["first"] or "-", row["second"] or "-")
    yield table
