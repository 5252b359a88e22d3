"""`autotp explain`: why a node is split as it is, and when it would be split otherwise."""

from collections.abc import Iterable
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from autotp.plan_file import load as load_plan
from autotp.plans import Plan
from autotp.report.units import seconds, size

from . import options as opt
from .lazy import load
from .output import Answer
from .stages import progress
from .tables import plain_table

APART = 1 + 1e-6  # two totals that differ by more are two


def explain(
    plan: opt.PlanFile,
    name: Annotated[
        str,
        typer.Argument(metavar="NODE|PARAMETER", help="A node, a parameter or a module, or the end of its name."),
    ],
    batches: Annotated[
        bool, typer.Option("--batches", help="Plan again for other batches too; needs the model's file, takes longer.")
    ] = False,
    json: opt.Json = False,
) -> Answer:
    """Explain why PLAN splits a node as it does: every alternative with the best plan that has it, solved again, and with
    which links, limits of memory and batches it would be chosen.

    Example:

      autotp explain llama.plan.json layers.0.mlp.down_proj
    """
    with progress("reading the plan") as status:
        found = load_plan(plan)
        explainer = load("analysis.explain")
        told = explainer.explain(found, name, status.update, load("analysis.batches").batch_wins if batches else None)
    data = explainer.to_json(told, found)
    return Answer(data, lambda: _text(data, found))


def _text(data: dict[str, Any], plan: Plan) -> Iterable[RenderableType]:
    alike = f", decided for {data['count']} that are alike" if data["count"] > 1 else ""
    where = f"in {data['module']}" if data["module"] else "in the model"
    yield Text.assemble((f"%{data['node']}", "bold"), f"  {data['op']} {where}{alike}")
    table = plain_table(
        f"Alternatives, each with the best plan that has it (over {plan.mesh})",
        "strategy", "step", "difference", "memory", "more memory", "would be chosen with",
    )  # fmt: skip
    for row in data["alternatives"]:
        if row["step_s"] is None:
            table.add_row(row["strategy"], "-", "-", "-", "-", row["wins_if"])
            continue
        name = Text(
            row["strategy"] + ("  ← the plan's" if row["is_chosen"] else ""),
            style="bold green" if row["is_chosen"] else "",
        )
        table.add_row(name, seconds(row["step_s"]), _signed(row["more_s"], seconds), size(row["memory_bytes"]),
                      _signed(row["more_bytes"], size), row["wins_if"])  # fmt: skip
    yield table
    apart_s, step_s = plan.summary["balance"].get("apart_s", 0.0), plan.summary["predicted"]["step_s"]
    if apart_s > step_s * APART:
        yield (
            "The devices differ: these totals add up the slowest one operator by operator, for the plan "
            f"{seconds(apart_s)}. Its step of {seconds(step_s)} lets devices wait for one another in collectives only."
        )
    if data["num_left_out"]:
        yield f"{data['num_left_out']} more alternatives were not solved: they cost most where nothing else changes"
    if data["untried"]:
        yield Text(f"Other batches were not tried: {data['untried']}.", style="yellow")
    elif not data["with_batches"]:
        yield "Other batches were not tried: --batches plans the model again for them."
    yield (
        "Totals are solved, not estimated. Tried were communication up to 16 times faster and slower on all links alike, "
        "tighter limits of memory, as far as a plan was proven best within them (memory is what the program adds up)"
        + (", and batches up to 8 times larger and smaller." if data["with_batches"] else ".")
    )


def _signed(value: float, words: Any) -> str:
    return "0" if abs(value) < 1e-9 else ("+" if value > 0 else "−") + words(abs(value))
