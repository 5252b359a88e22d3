"""`autotp measure`: a plan runs here, and its predictions are compared with what it took."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from autotp.errors import AutoTPError
from autotp.plan_file import load as load_plan
from autotp.report.units import seconds, size

from . import options as opt
from .lazy import load
from .output import Answer
from .stages import progress
from .tables import plain_table

OFF = 1
MOST = 12  # rows of a table of operators


def measure(
    model: opt.Model,
    plan: Annotated[str, typer.Option(metavar="PLAN", help="A plan of `autotp plan -o` for this machine.")],
    settings: opt.Settings = None,
    batch: opt.Batch = None,
    seq: opt.Seq = None,
    steps: Annotated[int, typer.Option(metavar="K", help="How many steps are timed.")] = 10,
    bound: Annotated[float, typer.Option(metavar="SHARE", help="By which a prediction may be off.")] = 0.25,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write the measurement here.")
    ] = None,
    json: opt.Json = False,
) -> Answer:
    """Run PLAN of MODEL over real processes, and compare time and memory with what it predicted.

    Exit code 0 when predictions hold, 1 when one is off by more than the bound, 2 on an error.

    Example:

      autotp measure model.py --plan model.plan.json -o measured.json

      autotp report model.plan.json --measurement measured.json
    """
    if not bound > 0:
        raise AutoTPError(f"--bound {bound:g}: a positive share is needed, as 0.25")
    opt.check_folder(output)
    chosen = opt.parse_settings(settings)
    with progress("loading") as status:
        found = load_plan(plan)
        source = load("capture.model_file").load_model(model, chosen, batch, seq)
        status.update(f"running {found.mesh.num_ranks} ranks")
        measured = load("measuring.run_plan").measure_plan(source, found, num_steps=steps, bound=bound)
    if output is not None:
        load("measurement").save(measured, output)
    misses = measured.misses()
    data = {**measured.to_json(), "ok": not misses, "misses": misses, "output": output and str(output)}
    return Answer(data, lambda: _text(measured, misses, output), OFF if misses else 0)


def _text(measured: Any, misses: list[str], output: Path | None) -> Iterable[RenderableType]:
    yield Text.assemble(
        ("OFF" if misses else "ok", "bold red" if misses else "bold green"),
        f": a step takes {seconds(measured.step_s.measured)} (quartiles {seconds(measured.spread_s)} apart), predicted "
        f"{seconds(measured.step_s.predicted)}",
    )
    yield from (Text(miss, style="red") for miss in misses)
    yield _table("Step", {"step": measured.step_s, **measured.parts_s}, seconds)
    if measured.communication_s:
        yield _table("Communication", measured.communication_s, seconds)
    operators = dict(list(measured.operators_s.items())[:MOST])
    yield _table("Operators", operators, seconds)
    memory = {f"rank {rank}": each for rank, each in enumerate(measured.memory_bytes)}
    yield _table("Memory", {**memory, **measured.memory_parts_bytes}, size)
    if output is not None:
        yield Text(f"measurement written to {output}")


def _table(title: str, rows: Mapping[str, Any], show: Any) -> RenderableType:
    table = plain_table(title, "", "predicted", "measured", "off by")
    for name, each in rows.items():
        off = "" if each.error is None else f"{each.error:+.0%}"
        table.add_row(name, show(each.predicted), show(each.measured), off)
    return table
