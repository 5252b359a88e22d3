"""The page: one HTML file with everything in it, rendered from a plan."""

from collections.abc import Mapping
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from autotp.measurement import Measurement
from autotp.plans import Plan
from autotp.report.answer import answer, facts, model_name
from autotp.report.axes import NARROW, WIDTH
from autotp.report.block import find_block
from autotp.report.compared import check_belongs
from autotp.report.compared import figure as measured_figure
from autotp.report.picture import picture
from autotp.report.plots import draw
from autotp.report.sections import sections
from autotp.report.style import DARK, LIGHT, inline, standalone, svg


def render(plan: Plan, measurement: Measurement | None = None) -> str:
    """The report of a plan as HTML; equal plans give equal bytes.

    Raises PlanError where the measurement is one of another plan.
    """
    if measurement is not None:
        check_belongs(plan, measurement)
    return _environment().get_template("report.html.jinja").render(
        title=model_name(plan),
        plan=plan,
        version=version("autotp"),
        facts=facts(plan),
        sections=sections(plan, measurement),
        figures=_figures(plan, measurement),
        block=_block(plan),
        light=LIGHT,
        dark=DARK,
    )  # fmt: skip


def notebook(plan: Plan) -> str:
    """A plan in a notebook: its answer, how it is split, and the picture of a block."""
    tables = [each for section in sections(plan) if section.key in ("answer", "structure") for each in section.tables]
    block = block_svg(plan)
    return _environment().get_template("notebook.html.jinja").render(
        title=model_name(plan), text=answer(plan), tables=tables,
        block=Markup(standalone(block)) if block else "",
    )  # fmt: skip


def block_svg(plan: Plan) -> str | None:
    """The picture of a repeated block, as an element of the page; None where the model has no such block."""
    found = _block(plan)
    return None if found is None else str(found["svg"])


def figures(plan: Plan, measurement: Measurement | None = None, width: float = WIDTH) -> dict[str, Figure]:
    """All figures by name."""
    found = dict(draw(plan, width))
    return {**found, "measured": measured_figure(measurement, width)} if measurement else found


def _figures(plan: Plan, measurement: Measurement | None) -> dict[str, dict[str, Markup]]:
    """Per figure its drawing for a wide and for a narrow page."""
    found: dict[str, dict[str, Markup]] = {}
    for kind, width in (("wide", WIDTH), ("narrow", NARROW)):
        for name, figure in figures(plan, measurement, width).items():
            found.setdefault(name, {})[kind] = Markup(inline(svg(figure), prefix=f"{name}-{kind}-"))
    return found


def _block(plan: Plan) -> Mapping[str, Any] | None:
    block = find_block(plan)
    if block is None:
        return None
    drawn = _environment().get_template("block.svg.jinja").render(
        picture=picture(plan, block), title=block.layer or "whole model"
    )  # fmt: skip
    return {"svg": Markup(drawn), "layer": block.layer, "count": block.count}


def _environment() -> Environment:
    found = Environment(loader=FunctionLoader(_source), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
                        lstrip_blocks=True)  # fmt: skip
    found.filters["breakable"] = _breakable
    found.filters["code"] = _code
    found.globals["include_file"] = lambda name: Markup(_source(name))  # our own files
    return found


def _breakable(text: str) -> Markup:
    """Text that may be wrapped after dots, as paths of modules must be on a narrow page."""
    return (
        Markup("<wbr>").join(part + "." for part in text.split(".")[:-1])
        + Markup("<wbr>") * ("." in text)
        + text.split(".")[-1]
    )


def _code(text: str) -> Markup:
    """A sentence in which what stands between `backquotes` is code."""
    parts = text.split("`")
    return Markup("").join(Markup("<code>{}</code>").format(p) if i % 2 else escape(p) for i, p in enumerate(parts))


def _source(name: str) -> str:
    return files("autotp.reports").joinpath(name).read_text()
