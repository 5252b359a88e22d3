"""Predicted against measured: the tables and the figure of a measurement."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from autotp.errors import PlanError
from autotp.measurement import Compared, Measurement
from autotp.plan_file import plan_identity
from autotp.plans import Plan
from autotp.report.axes import WIDTH, axes, end, finish, legend
from autotp.report.style import LIGHT
from autotp.report.units import seconds


def check_belongs(plan: Plan, measurement: Measurement) -> None:
    """Raises PlanError where a measurement is one of another plan."""
    if measurement.plan_identity != plan_identity(plan):
        raise PlanError(
            f"the measurement is of another plan (mesh {measurement.mesh} on {measurement.cluster}, {measurement.date}): "
            "measure this one with `autotp measure MODEL --plan PLAN`"
        )


def times(measurement: Measurement) -> pd.DataFrame:
    """Seconds of the step, of its parts, of every kind of communication and of every operator."""
    rows = [("step", "whole step", measurement.step_s)]
    groups: tuple[tuple[str, Mapping[str, Compared]], ...] = (
        ("part", measurement.parts_s), ("communication", measurement.communication_s),
        ("operator", measurement.operators_s),
    )  # fmt: skip
    rows += [(kind, name, each) for kind, found in groups for name, each in found.items()]
    return _frame(rows, "_s")


def memory(measurement: Measurement) -> pd.DataFrame:
    """Bytes of every rank, and of the fullest by what they are for."""
    rows = [("rank", f"rank {rank}", each) for rank, each in enumerate(measurement.memory_bytes)]
    rows += [("part of the fullest", name, each) for name, each in measurement.memory_parts_bytes.items()]
    return _frame(rows, "_bytes")


def _frame(rows: list[tuple[str, str, Compared]], unit: str) -> pd.DataFrame:
    found = [
        (kind, what, each.predicted, each.measured, each.error)
        for kind, what, each in rows
        if each.predicted or each.measured
    ]
    return pd.DataFrame(found, columns=["kind", "what", f"predicted{unit}", f"measured{unit}", "error_share"])


def figure(measurement: Measurement, width: float = WIDTH) -> Figure:
    """The step by part, as predicted and as measured, one bar above the other."""
    parts = measurement.parts_s
    with axes(width, 1.7) as (fig, ax):
        ends = []
        for y, (label, values) in enumerate((
            ("predicted", {name: each.predicted for name, each in parts.items()}),
            ("measured", {name: each.measured for name, each in parts.items()}),
        )):  # fmt: skip
            left = 0.0
            for name, value in values.items():
                ax.barh(label, value, left=left, color=LIGHT.get(name, LIGHT["process"]), height=0.62,
                        label=name if y == 0 else None)  # fmt: skip
                left += value
            end(ax, y, left, seconds(left))
            ends.append(left)
        finish(ax, seconds, [*ends, measurement.step_s.measured])
        ax.invert_yaxis()
        legend(ax)
        return fig
