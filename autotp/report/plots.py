"""The figures of a plan, by name: what the page shows and what `--plots` writes. All numbers are predicted."""

from collections.abc import Callable, Mapping, Sequence

from matplotlib.figure import Figure

from autotp.plans import Plan
from autotp.report.axes import WIDTH, axes, end, finish, legend
from autotp.report.plots_roofline import roofline_figure
from autotp.report.style import LIGHT
from autotp.report.timeline import busy, outline, shown_timelines, words_of
from autotp.report.units import seconds, size
from autotp.timeline import STREAMS, Event

ROWS = ("compute", "communication", "beside it")  # what the streams of a timeline are called
NUM_MOMENTS = 800  # of a step that are drawn: a pixel of a wide page each
MAX_BARS = 16  # ranks drawn; of more, one of each kind
MEMORY = {
    "parameters": "parameters", "gradients": "gradients", "optimizer": "state", "activations": "activations",
    "transient": "transient", "process": "process",
}  # fmt: skip


def time_parts(plan: Plan) -> dict[str, float]:
    """Seconds of a step by colour: they add up to the step."""
    predicted = plan.summary["predicted"]
    parts = {name: predicted["compute_parts_s"][name] for name in ("forward", "backward", "optimizer")}
    return {**parts, "communication": predicted["exposed_communication_s"]}


def time_figure(plan: Plan, width: float = WIDTH) -> Figure:
    """This plan and its baselines, step times one above the other; this plan's by part."""
    parts = time_parts(plan)
    others = [(name, row) for name, row in plan.summary["baselines"].items() if row is not None]
    names = {"single_device": "one device", "replicated": "all replicated", "megatron": "Megatron's plan"}
    with axes(width, 0.9 + 0.42 * (1 + len(others))) as (fig, ax):
        left = 0.0
        for name, value in parts.items():
            ax.barh("this plan", value, left=left, color=LIGHT[name], label=name, height=0.62)
            left += value
        end(ax, 0, left, seconds(left))
        for index, (name, row) in enumerate(others, start=1):
            ax.barh(names.get(name, name), row["step_s"], color=LIGHT["process"], height=0.62)
            end(ax, index, row["step_s"], seconds(row["step_s"]) + ("" if row["fits"] else ", does not fit"))
        finish(ax, seconds, [left, *(row["step_s"] for _, row in others)])
        ax.invert_yaxis()
        legend(ax)
        return fig


def memory_figure(plan: Plan, width: float = WIDTH) -> Figure:
    """Bytes of every rank stacked by what they are for, against what its device has."""
    rows = plan.summary["predicted"]["memory_parts_bytes"]
    labels = _ranks(plan, [tuple(row.values()) for row in rows])
    devices = plan.cluster["device_profiles"]
    with axes(width, 1.0 + 0.26 * len(labels)) as (fig, ax):
        for y, (_, rank) in enumerate(labels):
            left = 0.0
            for part, colour in MEMORY.items():
                value = rows[rank].get(part, 0)
                ax.barh(y, value, left=left, color=LIGHT[colour], height=0.66, label=part if y == 0 else None)
                left += value
            capacity = devices[plan.cluster["devices"][rank]]["memory_bytes"]
            ax.plot([capacity, capacity], [y - 0.45, y + 0.45], color=LIGHT["limit"], linewidth=2,
                    label="capacity" if y == 0 else None)  # fmt: skip
            end(ax, y, left, size(left))
        ax.set_yticks(range(len(labels)), [label for label, _ in labels])
        most = max(devices[name]["memory_bytes"] for name in plan.cluster["devices"][: plan.mesh.num_ranks])
        finish(ax, size, [most, *(sum(row.values()) for row in rows)], step=2**30)
        ax.invert_yaxis()
        legend(ax)
        return fig


def timeline_figure(plan: Plan, width: float = WIDTH) -> Figure:
    """One step of every kind of rank, simulated: a row per stream, as high as the stream is busy at that moment."""
    found = shown_timelines(plan)
    end_s = max((one.step_s for one in found), default=0.0) or 1.0
    streams = [s for s in STREAMS if s in ROWS[:2] or any(event.stream == s for one in found for event in one.events)]
    rows, names = len(streams) + 1, dict(zip(STREAMS, ROWS, strict=True))
    with axes(width, 0.95 + 0.32 * rows * len(found)) as (fig, ax):
        ticks: list[float] = []
        for index, one in enumerate(found):
            ax.text(0, rows * index - 0.75, words_of(plan, one), fontsize=8, color=LIGHT["muted"], va="center")
            for y, stream in enumerate(streams, start=rows * index):
                ticks.append(y)
                ax.axhline(y, color=LIGHT["line"], linewidth=0.6, zorder=0.5)
                for name, some in _by_colour([event for event in one.events if event.stream == stream]).items():
                    times, shares = outline(busy(some, end_s, NUM_MOMENTS), end_s)
                    ax.fill_between(times, y - 0.4 * shares, y + 0.4 * shares, step="post", linewidth=0,
                                    color=LIGHT[name], label=name if index == 0 else None)  # fmt: skip
        ax.set_yticks(ticks, [names[stream] for stream in streams] * len(found))
        ax.set_ylim(rows * len(found) - 1.4, -1.2)
        finish(ax, seconds, [end_s], room=1.0)
        legend(ax)
        return fig


def _by_colour(events: Sequence[Event]) -> dict[str, list[Event]]:
    """Events by what they are drawn as: the phase of computing, or communication."""
    found: dict[str, list[Event]] = {}
    for event in events:
        found.setdefault(event.phase if event.stream == "compute" else "communication", []).append(event)
    return found


def balance_figure(plan: Plan, width: float = WIDTH) -> Figure:
    """Seconds that every rank computes, against the step."""
    compute_s = plan.summary["balance"]["compute_s"]
    labels = _ranks(plan, compute_s)
    with axes(width, 1.0 + 0.26 * len(labels)) as (fig, ax):
        step_s = plan.summary["predicted"]["step_s"]
        for y, (_, rank) in enumerate(labels):
            ax.barh(y, compute_s[rank], color=LIGHT["forward"], height=0.66, label="computes" if y == 0 else None)
            ax.barh(y, step_s - compute_s[rank], left=compute_s[rank], color=LIGHT["line"], height=0.66,
                    label="talks or waits" if y == 0 else None)  # fmt: skip
            end(ax, y, step_s, f"{compute_s[rank] / step_s:.0%} busy")
        ax.set_yticks(range(len(labels)), [label for label, _ in labels])
        ax.invert_yaxis()
        finish(ax, seconds, [step_s])
        legend(ax)
        return fig


def scaling_figure(plan: Plan, width: float = WIDTH) -> Figure:
    """Step time over degrees, by a sweep, with Megatron's plan and a perfect division of the first degree."""
    rows = [row for row in plan.summary["sweep"] if "," not in row["mesh"]]  # over one axis
    own = [row for row in plan.summary["sweep"] if row not in rows]
    with axes(width, 3.0) as (fig, ax):
        ranks = [row["num_ranks"] for row in rows]
        ax.plot(ranks, [row["step_s"] for row in rows], "o-", color=LIGHT["forward"], label="this planner")
        megatron = [(row["num_ranks"], row["megatron_s"]) for row in rows if row["megatron_s"] is not None]
        if megatron:
            ax.plot(*zip(*megatron, strict=True), "s--", color=LIGHT["communication"], label="Megatron's plan")
        ideal = [rows[0]["step_s"] * ranks[0] / n for n in ranks]
        ax.plot(ranks, ideal, ":", color=LIGHT["muted"], label="perfect division")
        for row in own:
            ax.plot(row["num_ranks"], row["step_s"], "D", color=LIGHT["optimizer"], label=row["mesh"])
        unfit = [row for row in rows if not row["fits"]]
        ax.plot([r["num_ranks"] for r in unfit], [r["step_s"] for r in unfit], "x", markersize=11,
                markeredgewidth=2, color=LIGHT["limit"], label="does not fit")  # fmt: skip
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.grid(axis="y")
        ax.set_xticks(ranks, [row["mesh"] for row in rows])
        ax.minorticks_off()
        shown = sorted({*(row["step_s"] for row in rows), min(ideal)})
        room = (shown[-1] / shown[0]) ** (1 / 12)  # a tick needs a twelfth of the height
        ticks: list[float] = []
        for value in shown:
            if not ticks or value > ticks[-1] * room:
                ticks.append(value)
        ax.set_yticks(ticks, [seconds(value) for value in ticks])
        legend(ax)
        return fig


def figures(plan: Plan) -> dict[str, Callable[[Plan, float], Figure]]:
    """The figures that this plan has data for."""
    found: dict[str, Callable[[Plan, float], Figure]] = {
        "time": time_figure,
        "memory": memory_figure,
        "timeline": timeline_figure,
        "balance": balance_figure,
        "roofline": roofline_figure,
    }
    return {**found, "scaling": scaling_figure} if plan.summary.get("sweep") else found


def _ranks(plan: Plan, keys: Sequence[object]) -> list[tuple[str, int]]:
    """(label, rank) per bar: every rank where they are few, with its device where these differ, else one of each kind."""
    if plan.mesh.num_ranks <= MAX_BARS and len(set(keys)) > 1:
        devices = plan.cluster["devices"][: plan.mesh.num_ranks]
        differ = len(set(devices)) > 1
        return [(f"{rank}: {name}" if differ else f"rank {rank}", rank) for rank, name in enumerate(devices)]
    kinds: dict[object, list[int]] = {}
    for rank, key in enumerate(keys):
        kinds.setdefault(key, []).append(rank)
    if len(kinds) == 1:
        return [(f"each of {plan.mesh.num_ranks}", 0)]
    shown = list(kinds.values())[:MAX_BARS]
    return [(f"rank {ranks[0]}" + (f" +{len(ranks) - 1}" if ranks[1:] else ""), ranks[0]) for ranks in shown]


def draw(plan: Plan, width: float = WIDTH) -> Mapping[str, Figure]:
    """All figures of a plan, drawn."""
    return {name: make(plan, width) for name, make in figures(plan).items()}
