"""The roofline: every product of a plan under the roof of its device."""

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from autotp.plans import Plan
from autotp.report.axes import NARROW, WIDTH, axes, legend
from autotp.report.roofline import folded_roofline, roof
from autotp.report.style import LIGHT
from autotp.report.units import rate

NUM_NAMED = 5  # of the products that take most
MARKS = "os^Dv"


def roofline_figure(plan: Plan, width: float = WIDTH) -> Figure:
    """FLOPs per second over FLOPs per byte, forward, on the slowest rank; the roof is that of the first device."""
    found = folded_roofline(plan)
    with axes(width, 3.2 if width > NARROW else 3.6) as (fig, ax):
        dtypes = list(dict.fromkeys(found["dtype"])) or ["float32"]
        for dtype in dtypes:
            _roof(ax, plan, dtype, found["intensity_flops_per_byte"].tolist())
        named = found[:NUM_NAMED]
        rest = found[NUM_NAMED:]
        if len(rest):
            ax.plot(rest["intensity_flops_per_byte"], rest["rate_flops_per_s"], ".", color=LIGHT["muted"],
                    label=f"{len(rest)} more")  # fmt: skip
        colours = ("forward", "backward", "optimizer", "communication", "activations")
        for mark, colour, row in zip(MARKS, colours, named.itertuples(), strict=False):
            label = f"{row.module.rpartition('.')[2] or '(model)'} {row.op}"
            ax.plot(row.intensity_flops_per_byte, row.rate_flops_per_s, mark, color=LIGHT[colour], label=label)
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.grid(axis="y")
        ax.minorticks_off()
        ax.set_xlabel("FLOPs per byte read or written")
        low, high = ax.get_ylim()
        ax.set_yticks(_ticks(low, high), [rate(tick, "flop") for tick in _ticks(low, high)])
        low, high = ax.get_xlim()
        ax.set_xticks(_ticks(low, high), [f"{tick:g}" for tick in _ticks(low, high)])
        legend(ax)
        return fig


def _ticks(low: float, high: float) -> list[float]:
    """Powers of ten, and where these are few also twice and five times as much."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1,) if math.log10(high / low) > 2.5 else (1, 2, 5)
    return [step * 10.0**power for power in powers for step in steps if low <= step * 10.0**power <= high]


def _roof(ax: Axes, plan: Plan, dtype: str, intensities: list[float]) -> None:
    ceiling, bandwidth = roof(plan, dtype)
    if not ceiling:
        return
    ridge = ceiling / bandwidth
    left, right = min([ridge / 8, *intensities]) / 1.5, max([ridge * 8, *intensities]) * 1.5
    ax.plot([left, ridge, right], [left * bandwidth, ceiling, ceiling], color=LIGHT["limit"], linewidth=1.2)
    ax.annotate(f"roof, {dtype}", (right, ceiling), xytext=(0, 4), textcoords="offset points", ha="right",
                fontsize=8, color=LIGHT["limit"])  # fmt: skip
