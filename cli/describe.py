"""A plan's summary: for `--json`, and as tables."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from autotp.graph import FLOATS
from autotp.plans import Plan
from autotp.redistribute import COLLECTIVES
from autotp.report import units
from autotp.report.moves import moved_values
from autotp.report.proof import proof_of
from autotp.report.room import has_one_limit, least_room
from autotp.report.shortage import shortage_text

from .layer_plan import layer_table
from .memory_curve import memory_curve
from .moves import move_table
from .tables import plain_table

NUM_ROWS, NUM_MOVES = 8, 16  # of operators and of redistributions; the rest is one row
AS_FAST = 1.001  # two predictions closer than this are equal


def summary_json(plan: Plan) -> dict[str, Any]:
    """The object of `--json`, without what is not in a plan (timing)."""
    return {
        "model": dict(plan.model.get("origin") or {}),
        "mode": plan.mode,
        "mesh": str(plan.mesh),
        "cluster": plan.cluster["name"],
        **plan.summary,
        "fallback_ops": list(plan.fallback_ops),
    }


def describe_plan(
    plan: Plan,
    timing: Mapping[str, float] | None = None,
    output: Path | None = None,
    report: Path | None = None,
) -> Iterable[RenderableType]:
    """The whole plan, top to bottom: what, how long, how much, compared with what, how found, and how it is split."""
    shortage = shortage_text(plan)
    if shortage:
        yield Text(shortage, style="bold red")
    yield from _header(plan)
    yield _time_table(plan)
    yield _memory_table(plan)
    yield from _baselines(plan)
    yield from _sweep(plan)
    yield from _prices(plan)
    yield from memory_curve(plan)
    yield layer_table(plan)
    moves = [moved for moved in moved_values(plan) if moved.is_collective]
    if moves:
        yield move_table("What is redistributed", moves, max_rows=NUM_MOVES)
    yield from _solver(plan)
    if timing is not None:
        yield "  ".join(f"{name.removesuffix('_s')} {units.seconds(value)}" for name, value in timing.items())
    if output is not None:
        yield f"plan written to {output}"
    if report is not None:
        yield f"report written to {report}"


def _header(plan: Plan) -> Iterable[RenderableType]:
    origin = plan.model.get("origin") or {}
    settings = {**origin.get("options", {}), **{k: origin[k] for k in ("batch", "seq") if origin.get(k)}}
    given = f" ({', '.join(f'{k}={v}' for k, v in settings.items())})" if settings else ""
    numel = sum(math.prod(p.shape) for p in plan.parameters.values() if p.dtype in FLOATS)
    yield Text.assemble(
        (f"{origin.get('path', 'model')}{given}", "bold"),
        f"  {'training step' if plan.mode == 'train' else 'inference'}, {units.count(numel)} parameters",
    )
    devices = dict.fromkeys(plan.cluster["devices"][: plan.mesh.num_ranks])
    yield f"mesh {plan.mesh} on {plan.cluster['name']} ({plan.mesh.num_ranks} × {', '.join(devices)})"
    order = plan.summary["balance"].get("device_order", [])[: plan.mesh.num_ranks]
    if order != list(range(len(order))):
        seats = ", ".join(f"{device} ({plan.cluster['devices'][rank]})" for rank, device in enumerate(order))
        yield f"ranks in order run on devices {seats} of the cluster"
    if plan.reduce_dtype:
        yield f"partial sums in half precision are added up over ranks in {plan.reduce_dtype}"
    if plan.mode == "train" and (plan.overlaps or plan.reduces_once):
        when = "beside the backward pass" if plan.overlaps else "where they come in the backward pass"
        how_often = "once per step, by module.no_sync()" if plan.reduces_once else "once per micro-batch"
        yield f"parameters' gradients are added up over ranks {when}, {how_often}"
    predicted, room = plan.summary["predicted"], least_room(plan)
    where = "per device" if has_one_limit(plan) else f"on rank {room.rank} ({room.device}), which has the least room"
    yield Text.assemble(
        "predicted: ",
        (f"{units.seconds(predicted['step_s'])} a step", "bold green"),
        f", {units.share(predicted['exposed_communication_s'], predicted['step_s'])} of it communication; ",
        (f"{units.size(room.held_bytes)} {where}", "bold green" if plan.summary["solver"]["fits"] else "bold red"),
        f", limit {units.size(room.limit_bytes)}",
    )


def _prices(plan: Plan) -> Iterable[RenderableType]:
    rows = plan.summary.get("shadow_prices")
    if rows:
        table = plain_table("What a better machine would save", "", "by the solver's price", "planned again")
        for row in rows:
            table.add_row(row["what"], units.seconds(row["price_s"]), units.seconds(row["solved_again_s"]))
        yield table


def _sweep(plan: Plan) -> Iterable[RenderableType]:
    rows = plan.summary.get("sweep")
    if not rows:
        return
    table = plain_table(
        "By the number of devices (same cost model)", "", "step", "communication", "memory", "Megatron", ""
    )
    for row in rows:
        megatron = units.seconds(row["megatron_s"]) if row["megatron_s"] is not None else ""
        table.add_row(row["mesh"], units.seconds(row["step_s"]), units.share(row["communication_s"], row["step_s"]),
                      units.size(row["memory_bytes"]), megatron, "" if row["fits"] else "does not fit")  # fmt: skip
    yield table
    yield from (f"- {finding}" for finding in plan.summary["sweep_findings"])


def _time_table(plan: Plan) -> Table:
    predicted = plan.summary["predicted"]
    table = plain_table("Where the time goes (predicted)", "", "time", "share")
    operators = list(predicted["compute_by_op_s"].items())
    rows = [(f"compute: {name}", value) for name, value in operators[:NUM_ROWS]]
    if operators[NUM_ROWS:]:
        rows.append((f"compute: {len(operators[NUM_ROWS:])} more operators", sum(s for _, s in operators[NUM_ROWS:])))
    rows.append(("compute: optimizer step", predicted["compute_parts_s"]["optimizer"]))
    for name, value in predicted["communication_by_kind_s"].items():
        label = f"communication: {name}" if name in COLLECTIVES else f"redistribution without communication: {name}"
        rows.append(("communication inside operators" if name == "inside_operators" else label, value))
    for name, value in rows:
        if value:
            table.add_row(name, units.seconds(value), units.share(value, predicted["step_s"]))
    table.add_section()
    table.add_row("one step", units.seconds(predicted["step_s"]), "")
    table.add_row("communication not hidden", units.seconds(predicted["exposed_communication_s"]),
                  units.share(predicted["exposed_communication_s"], predicted["step_s"]))  # fmt: skip
    return table


def _memory_table(plan: Plan) -> Table:
    """One column for all ranks that need the same; where there are many kinds, only the fullest and the emptiest."""
    parts = plan.summary["predicted"]["memory_parts_bytes"]
    kinds: dict[tuple[int, ...], list[int]] = {}
    for rank, row in enumerate(parts):
        kinds.setdefault(tuple(row.values()), []).append(rank)
    shown = sorted(kinds, key=sum, reverse=True)
    if len(shown) > 4:
        shown = [shown[0], shown[-1]]
    names = [
        "every device"
        if len(kinds) == 1
        else f"rank {', '.join(map(str, kinds[k][:4]))}{' …' if len(kinds[k]) > 4 else ''}"
        for k in shown
    ]
    table = plain_table("Where the memory goes (predicted)", "", *names)
    for index, name in enumerate(parts[0]):
        if any(kind[index] for kind in shown):
            table.add_row(name, *(units.size(kind[index]) for kind in shown))
    table.add_section()
    table.add_row("peak", *(units.size(sum(kind)) for kind in shown))
    return table


def _baselines(plan: Plan) -> Iterable[RenderableType]:
    step_s = plan.summary["predicted"]["step_s"]
    solver, baselines = plan.summary["solver"], plan.summary["baselines"]
    table = plain_table("Compared with (same cost model)", "", "step", "relative", "memory", "")
    table.add_row(f"this plan ({solver['strategy']})", units.seconds(step_s), "1.00×",
                  units.size(max(plan.summary["predicted"]["memory_bytes"])), "")  # fmt: skip
    for name, row in baselines.items():
        label = {
            "single_device": "one device",
            "replicated": "every device does everything",
            "megatron": "Megatron's plan",
        }
        if row is None:
            table.add_row(label.get(name, name), "-", "-", "-", "this model has none")
        else:
            table.add_row(label.get(name, name), units.seconds(row["step_s"]), f"{row['step_s'] / step_s:.2f}×",
                          units.size(row["memory_bytes"]), "" if row["fits"] else "does not fit")  # fmt: skip
    yield table
    single = baselines.get("single_device")
    if single and plan.mesh.num_ranks > 1 and single["step_s"] <= step_s * AS_FAST:
        fits = "" if single["fits"] else ", but does not fit"
        word = "faster" if single["step_s"] * AS_FAST < step_s else "as fast"
        yield Text(f"One device alone would be {word} ({units.seconds(single['step_s'])}){fits}.", style="yellow")


def _solver(plan: Plan) -> Iterable[RenderableType]:
    solver = plan.summary["solver"]
    proof = {"optimal": "optimal (proven)", "feasible": "feasible (a limit stopped the proof)"}.get(
        solver["status"], f"{solver['status']} (no proof was sought)"
    )
    bound = f", bound {units.seconds(solver['bound_s'])}, gap {solver['gap']:.2%}" if solver["bound_s"] else ""
    yield f"solver: {proof}{bound}, {solver['num_variables']:,} variables; objective {solver['objective']}"
    if proof_of(plan).has_shares:
        yield proof_of(plan).sentence
    fraction = plan.summary["coverage"]["split_matmul_flops_fraction"]
    yield f"split: {fraction:.1%} of the matmul FLOPs are divided over every axis"
    if plan.fallback_ops:
        yield Text(f"run whole for want of a rule: {', '.join(plan.fallback_ops)}", style="yellow")
