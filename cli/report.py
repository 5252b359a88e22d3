"""`autotp report`: a plan as one HTML page, its plots as PNG and SVG, its tables as CSV."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from autotp.plan_file import load as load_plan

from . import options as opt
from .lazy import load
from .output import Answer
from .stages import progress


def report(
    plan: opt.PlanFile,
    measurement: Annotated[
        Path | None,
        typer.Option(
            "--measurement", metavar="M", help="What `autotp measure -o` wrote: shown beside the predictions."
        ),
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="Write the page here.")] = Path(
        "report.html"
    ),
    plots: Annotated[
        Path | None, typer.Option("--plots", metavar="FOLDER", help="Write every plot here, as PNG and SVG.")
    ] = None,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FOLDER", help="Write every table here, as CSV.")] = None,
    json: opt.Json = False,
) -> Answer:
    """Show PLAN as one HTML page that needs nothing else: no network, no program.

    Example:

      autotp report llama.plan.json -o llama.html --plots plots --csv tables
    """
    opt.check_folder(output)
    with progress("reading the plan") as status:
        found = load_plan(plan)
        measured = load("measurement").load(measurement) if measurement is not None else None
        status.update("drawing")
        files = load("report.files")
        written = files.write_plots(found, plots, measured) if plots is not None else []
        written += files.write_tables(found, csv) if csv is not None else []
        files.write_page(found, output, measured)
        written = [output, *written]
    return Answer({"written": [str(path) for path in written]}, lambda: _text(written))


def _text(written: list[Path]) -> Iterable[str]:
    yield f"report written to {written[0]}"
    if written[1:]:
        folders = dict.fromkeys(path.parent for path in written[1:])
        yield f"{len(written) - 1} files written to {', '.join(map(str, folders))}"
