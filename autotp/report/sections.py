"""The sections of the page in order: what each says, and which figures and tables it shows."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pandas as pd

from autotp.measurement import Measurement
from autotp.plans import Plan
from autotp.report import compared, frames
from autotp.report.answer import answer
from autotp.report.block import find_block
from autotp.report.fallbacks import fallbacks
from autotp.report.html_table import HtmlTable, alike, folded, html_table
from autotp.report.launches import launch_s, num_launches
from autotp.report.proof import proof_of
from autotp.report.roofline import folded_roofline
from autotp.report.room import least_room, whose
from autotp.report.timeline import shown_timelines
from autotp.report.units import seconds, share, size
from autotp.timeline import timelines


@dataclass(frozen=True, slots=True)
class Section:
    """`badge`: predicted, measured, datasheet or decided. `figures`: names of plots. `with_block`: a block's picture too."""

    key: str
    title: str
    badge: str
    text: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()
    tables: tuple[HtmlTable, ...] = ()
    with_block: bool = False
    notes: tuple[str, ...] = field(default=())


def sections(plan: Plan, measurement: Measurement | None = None) -> list[Section]:
    """All sections of a plan, in order."""
    return [*(make(plan) for make in SECTIONS), _measured(measurement)]


def _answer(plan: Plan) -> Section:
    return Section(
        "answer", "The answer", "predicted", tuple(answer(plan)), (), (html_table("plans", frames.plans(plan)),)
    )


def _time(plan: Plan) -> Section:
    predicted = plan.summary["predicted"]
    hidden_s = predicted["communication_s"] - predicted["exposed_communication_s"]
    step_s = predicted["step_s"]
    hidden = f"; {seconds(hidden_s)} more are hidden behind computing" if hidden_s > 0 else ", none of which is hidden"
    text = (
        f"A step takes {seconds(step_s)}: {seconds(predicted['compute_s'])} of computing on the device that the others wait "
        f"for, and {seconds(predicted['exposed_communication_s'])} of communication{hidden}.",
        f"Launching its {num_launches(plan):,} operators, one by one, takes about {seconds(launch_s(plan))} of this "
        f"({share(launch_s(plan), step_s)}).",
    )  # fmt: skip
    tables = html_table("time", frames.time(plan)), html_table("devices", alike(frames.devices(plan)))
    return Section("time", "Where the time goes", "predicted", text, ("time",), tables)


def _memory(plan: Plan) -> Section:
    room, who = least_room(plan), whose(plan)
    parts = plan.summary["predicted"]["memory_parts_bytes"][room.rank]
    largest = max(parts, key=lambda name: parts[name])
    text = (
        f"{_capital(who)} holds {size(room.held_bytes)}, most of it {largest} ({size(parts[largest])}); "
        f"its limit is {size(room.limit_bytes)}.",
    )
    return Section(
        "memory",
        "Memory per device",
        "predicted",
        text,
        ("memory",),
        (html_table("memory", alike(frames.memory(plan))),),
    )


def _timeline(plan: Plan) -> Section:
    kinds, shown = len(timelines(plan)), len(shown_timelines(plan))
    of = "every device" if kinds == 1 else f"each of the {kinds} kinds of devices and loads"
    of = of if shown == kinds else f"the {shown} busiest of the {kinds} kinds of devices and loads"
    text = (
        f"One step of {of}, simulated operator by operator: the end of the last one is the predicted step time. A row per "
        "stream (gradients that are added up beside computing have their own); a bar is as high as the stream is busy at "
        "that moment, and where there is none it waits. "
        "`autotp show PLAN --trace FILE` writes every operator for a trace viewer.",
    )
    return Section("timeline", "One step, from left to right", "predicted", text, ("timeline",))


def _structure(plan: Plan) -> Section:
    has_block = find_block(plan) is not None
    text = (
        "How each module is split; layers that are alike are one row. Column and row mean the output and the input features "
        "of a linear layer; whole means that every device does all of it.",
    )
    table = html_table("layers", folded(frames.layers(plan), "module", each=()))
    return Section("structure", "How the model is split", "decided", text, (), (table,), has_block)


def _operators(plan: Plan) -> Section:
    frame = folded(frames.operators(plan), "module", without=("node", "forward_s", "backward_s"))
    frame = _first(frame, "module", "times", "op", "time_s", "share")
    text = (
        "Shapes, FLOPs and bytes are those of one run forward on the device with most; time is that of all runs in a step, "
        "forward and backward.",
    )
    return Section("operators", "Every operator", "predicted", text, (), (html_table("operators", frame),))


def _redistributions(plan: Plan) -> Section:
    frame = folded(frames.redistributions(plan), "module", without=("value", "forward_s", "backward_s"))
    frame = _first(frame, "module", "times", "what", "change", "time_s", "why")
    moved = plan.summary["predicted"]["communication_by_kind_s"]
    text = (
        f"Everything that is sent or rearranged, {seconds(sum(moved.values()))} a step. R is a whole copy on every device, "
        "S(d) a shard of dim d, P partial sums still to be added, B a whole copy whose gradient is partial sums.",
    )
    return Section(
        "redistributions", "Every redistribution", "predicted", text, (), (html_table("redistributions", frame),)
    )


def _scaling(plan: Plan) -> Section:
    rows = plan.summary.get("sweep") or []
    if not rows:
        untried = (
            "Other degrees were not tried. `autotp plan MODEL --sweep` (or `--report`) plans them all and keeps them.",
        )
        return Section("scaling", "Over how many devices?", "decided", untried)
    text = tuple(f"{_capital(finding)}." for finding in plan.summary["sweep_findings"])
    table = html_table("scaling", frames.scaling(plan))
    return Section("scaling", "Over how many devices?", "predicted", text, ("scaling",), (table,))


def _balance(plan: Plan) -> Section:
    found = plan.summary["balance"]
    idle, shares = max(found["idle_share"]), found["shares"]
    text = [f"The idlest device computes nothing during {idle:.1%} of the step, since it talks or waits."]
    if found["uneven_axes"]:
        words = "; ".join(f"{axis} {':'.join(map(str, shares[axis]))}" for axis in found["uneven_axes"])
        even = f"; with equal shares a step would take {seconds(found['even_step_s'])}" if found["even_step_s"] else ""
        text.append(f"The devices differ, so their shares do too: {words}{even}.")
    else:
        text.append("The devices are alike, so every one gets an equal share, up to what does not divide.")
    return Section("balance", "Balance over devices", "predicted", tuple(text), ("balance",),
                   (html_table("balance", alike(frames.balance(plan))),))  # fmt: skip


def _roofline(plan: Plan) -> Section:
    text = (
        "The products of a step, forward: under the slope memory traffic limits them, under the flat roof arithmetic. "
        "A product far below both is too small for the device.",
    )
    return Section("roofline", "Roofline of the matmuls", "predicted", text, ("roofline",),
                   (html_table("roofline", folded_roofline(plan)),))  # fmt: skip


def _fallbacks(plan: Plan) -> Section:
    frame = fallbacks(plan)
    if frame.empty:
        text = ("Nothing: every operator of the model has a rule.",)
        return Section("fallbacks", "What fell back", "decided", text)
    step_s = plan.summary["predicted"]["step_s"]
    total_s = float(frame["time_s"].sum())
    text = (
        f"These operators have no rule, so every device runs them whole; that takes {seconds(total_s)} "
        f"({share(total_s, step_s)}) of a step, with what is moved for them. A rule of one line would let them be split.",
    )
    return Section("fallbacks", "What fell back", "predicted", text, (), (html_table("fallbacks", frame),))


def _solver(plan: Plan) -> Section:
    tables = [html_table("solver", frames.solver(plan))]
    text = [proof_of(plan).sentence]
    if plan.summary.get("shadow_prices"):
        text.append("What a better machine would save of a step: by the solver's price, and planned again for it.")
        tables.append(html_table("prices", frames.prices(plan)))
    return Section("solver", "How sure the solver is", "decided", tuple(text), (), tuple(tables))


def _profile(plan: Plan) -> Section:
    parts = [plan.cluster["device_profiles"][n] for n in dict.fromkeys(plan.cluster["devices"][: plan.mesh.num_ranks])]
    parts += plan.cluster["links"].values()
    measured = all(part["is_measured"] for part in parts)
    badge = "measured" if measured else "datasheet"
    text = (
        f"Predictions are made from the profile {plan.cluster['name']} ({plan.cluster.get('source', 'no source')}, "
        f"{plan.cluster.get('date', 'no date')}), whose numbers are "
        + ("all measured." if measured else "in part from datasheets. `autotp profile` measures yours."),
        "Every number here is predicted unless it is labelled measured; what is labelled decided is the plan itself.",
    )
    return Section("profile", "The profile, and where its numbers are from", badge, text, (),
                   (html_table("profile", frames.profile(plan)),))  # fmt: skip


def _measured(measurement: Measurement | None) -> Section:
    title = "Predicted against measured"
    if measurement is None:
        unmeasured = ("This plan was not measured, or the report made without it. `autotp measure MODEL --plan PLAN -o M` "
                "runs it on the machine at hand, and `autotp report PLAN --measurement M` shows both.",)  # fmt: skip
        return Section("measurement", title, "decided", unmeasured)
    step = measurement.step_s
    text = (
        f"The step was predicted to take {seconds(step.predicted)} and took {seconds(step.measured)} (the median of "
        f"{measurement.num_steps}, quartiles {seconds(measurement.spread_s)} apart): {_off(step.error)}.",
        f"Measured on {measurement.date}, {', '.join(f'{k} {v}' for k, v in measurement.environment.items())}.",
        *(miss + "." for miss in measurement.misses()),
    )
    tables = (html_table("measured-times", compared.times(measurement)),
              html_table("measured-memory", compared.memory(measurement)))  # fmt: skip
    return Section("measurement", title, "measured", text, ("measured",), tables)


def _off(error: float | None) -> str:
    return (
        "nothing was measured"
        if error is None
        else f"the prediction is {abs(error):.1%} too {'long' if error > 0 else 'short'}"
    )


def _capital(sentence: str) -> str:
    """A sentence begins with a capital letter, unless it begins with the name of a mesh."""
    return sentence if "=" in sentence.split(" ")[0] else sentence[0].upper() + sentence[1:]


def _first(frame: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """These columns before all others."""
    return frame[[*columns, *(column for column in frame.columns if column not in columns)]]


SECTIONS: tuple[Callable[[Plan], Section], ...] = (
    _answer, _time, _memory, _timeline, _structure, _operators, _redistributions, _scaling, _balance, _roofline,
    _fallbacks, _solver, _profile,
)  # fmt: skip
