"""A report as files: the page, its plots and its tables, each written aside and renamed."""

from pathlib import Path

from autotp.errors import AutoTPError
from autotp.measurement import Measurement
from autotp.plan_file import write_atomically
from autotp.plans import Plan
from autotp.report.frames import frames
from autotp.report.page import block_svg, figures, render
from autotp.report.style import png, standalone, svg


def write_page(plan: Plan, path: Path, measurement: Measurement | None = None) -> None:
    """Raises AutoTPError where the file cannot be written, PlanError where the measurement is of another plan."""
    write_atomically(path, render(plan, measurement))


def write_plots(plan: Plan, folder: Path, measurement: Measurement | None = None) -> list[Path]:
    """Every figure as SVG and PNG, and the picture of a block as SVG. Raises AutoTPError."""
    _make(folder)
    written = []
    for name, figure in figures(plan, measurement).items():
        for ending, content in (("svg", svg(figure)), ("png", png(figure))):
            written.append(folder / f"{name}.{ending}")
            write_atomically(written[-1], content)
    block = block_svg(plan)
    if block is not None:
        written.append(folder / "block.svg")
        write_atomically(written[-1], standalone(block))
    return written


def write_tables(plan: Plan, folder: Path) -> list[Path]:
    """Every table as CSV, with units in the names of its columns. Raises AutoTPError."""
    _make(folder)
    written = []
    for name, frame in frames(plan).items():
        written.append(folder / f"{name}.csv")
        write_atomically(written[-1], frame.to_csv(index=False))
    return written


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AutoTPError(f"cannot make the folder {folder}: {error.strerror}") from error
