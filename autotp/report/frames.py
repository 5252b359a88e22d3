"""Every table of a plan as a pandas DataFrame: what the page shows, and what `--csv` writes. SI units stand in names."""

from collections.abc import Callable
from typing import Any

import pandas as pd

from autotp.errors import AutoTPError
from autotp.placement import format_placement
from autotp.plans import Plan
from autotp.report.fallbacks import fallbacks
from autotp.report.layer_rows import layer_rows
from autotp.report.moves import moved_values
from autotp.report.proof import proof_of
from autotp.report.reasons import Reasons
from autotp.report.roofline import roofline
from autotp.report.room import Room, has_one_limit, rooms
from autotp.report.units import seconds, size
from autotp.report.words import describe_strategy, join_shapes, join_sizes, short_op
from autotp.report.work import local_bytes, local_flops, local_tensors

BASELINES = {
    "single_device": "one device", "replicated": "every device does everything", "megatron": "Megatron's plan",
}  # fmt: skip


def frames(plan: Plan) -> dict[str, pd.DataFrame]:
    """All tables by name, in the order of the page."""
    return {name: make(plan) for name, make in TABLES.items()}


def frame(plan: Plan, name: str) -> pd.DataFrame:
    """One table. Raises AutoTPError for an unknown name."""
    if name not in TABLES:
        raise AutoTPError(f"a plan has no table {name!r}: choose one of {', '.join(TABLES)}")
    return TABLES[name](plan)


def plans(plan: Plan) -> pd.DataFrame:
    """This plan and its baselines under the same cost model."""
    own, solver = plan.summary["predicted"], plan.summary["solver"]
    rows = [(f"this plan ({solver['strategy']})", own["step_s"], max(own["memory_bytes"]), solver["fits"])]
    rows += [
        (BASELINES.get(name, name), row["step_s"], row["memory_bytes"], row["fits"])
        for name, row in plan.summary["baselines"].items()
        if row is not None
    ]
    return pd.DataFrame(rows, columns=["plan", "step_s", "memory_bytes", "fits"])


def time(plan: Plan) -> pd.DataFrame:
    """Where a step's seconds go."""
    predicted = plan.summary["predicted"]
    rows = [("compute", name, value) for name, value in predicted["compute_by_op_s"].items()]
    rows += [("optimizer", "optimizer step", predicted["compute_parts_s"]["optimizer"])]
    rows += [("communication", name, value) for name, value in predicted["communication_by_kind_s"].items()]
    found = pd.DataFrame([row for row in rows if row[2]], columns=["kind", "what", "time_s"])
    return found.assign(share=found["time_s"] / predicted["step_s"])


def memory(plan: Plan) -> pd.DataFrame:
    """Bytes of every rank by what they are for, what it may hold, and what its device has."""
    found = pd.DataFrame(plan.summary["predicted"]["memory_parts_bytes"])
    found.columns = pd.Index([f"{name}_bytes" for name in found.columns])
    found["total_bytes"] = found.sum(axis=1)
    found["limit_bytes"] = [int(room.limit_bytes) for room in rooms(plan)]
    devices = plan.cluster["devices"][: plan.mesh.num_ranks]
    found["capacity_bytes"] = [plan.cluster["device_profiles"][name]["memory_bytes"] for name in devices]
    found.insert(0, "device", devices)
    return found.rename_axis("rank").reset_index()


def layers(plan: Plan) -> pd.DataFrame:
    """How the operators of every module are split."""
    rows = [(module, row.ops, *row.choices) for module, row in layer_rows(plan)]
    return pd.DataFrame(rows, columns=["module", "operators", *_axes(plan)])


def operators(plan: Plan) -> pd.DataFrame:
    """Every operator: how it is split, what one rank computes, and how long that takes (without its redistributions)."""
    step_s = plan.summary["predicted"]["step_s"]
    rows = []
    for name, node in plan.nodes.items():
        if node.kind == "op":
            operands, results = local_tensors(plan, name)
            time_s = node.forward_s + node.backward_s
            rows.append(
                (
                    name, node.module, short_op(node.op), *describe_strategy(short_op(node.op), plan.strategies[name]),
                    ", ".join(join_sizes(shape) for _, shape in operands),
                    ", ".join(join_sizes(shape) for _, shape in results),
                    results[0][0].dtype if results else "", local_flops(plan, name), local_bytes(plan, name),
                    node.forward_s, node.backward_s, time_s, time_s / step_s,
                )
            )  # fmt: skip
    columns = ["node", "module", "op", *_axes(plan), "local_operands", "local_results", "dtype", "local_flops"]
    return pd.DataFrame(rows, columns=[*columns, "local_bytes", "forward_s", "backward_s", "time_s", "share"])


def parameters(plan: Plan) -> pd.DataFrame:
    """Where every parameter and buffer is."""
    rows = [
        (p.names[0], " ".join(p.names[1:]), p.dtype, join_sizes(p.shape), format_placement(p.placement),
         join_shapes(p.local_shapes))
        for p in plan.parameters.values()
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["name", "tied_with", "dtype", "shape", "placement", "local_shapes"])


def redistributions(plan: Plan) -> pd.DataFrame:
    """Every step of every value: what it does, over which link, how long it takes, and why it is there."""
    reasons, links = Reasons(plan), {axis: link_of(plan, axis) for axis in plan.mesh.names}
    rows = [
        (str(m.value), m.module, m.what, m.axis, links[m.axis], m.change, *m.in_words, m.num_bytes, m.forward_s,
         m.backward_s, m.forward_s + m.backward_s, m.reduce_dtype, reasons.of(m))
        for m in moved_values(plan)
    ]  # fmt: skip
    columns = ["value", "module", "what", "axis", "link", "change", "forward", "backward", "num_bytes", "forward_s"]
    return pd.DataFrame(rows, columns=[*columns, "backward_s", "time_s", "reduce_dtype", "why"])


def balance(plan: Plan) -> pd.DataFrame:
    """Per rank: seconds it computes in a step, and the share of the step that this is."""
    found = plan.summary["balance"]
    devices = plan.cluster["devices"][: plan.mesh.num_ranks]
    columns = {"device": devices, **{name: found[name] for name in ("compute_s", "busy_share", "idle_share")}}
    return pd.DataFrame(columns).rename_axis("rank").reset_index()


def devices(plan: Plan) -> pd.DataFrame:
    """Per rank: seconds of a step that it computes, talks with nothing else to do, and waits for slower ranks."""
    step_s, exposed_s = (plan.summary["predicted"][name] for name in ("step_s", "exposed_communication_s"))
    found = balance(plan)[["rank", "device", "compute_s"]]
    waits = (step_s - exposed_s - found["compute_s"]).clip(lower=0.0)
    return found.assign(communication_s=exposed_s, waiting_s=waits.where(waits > 1e-9 * step_s, 0.0), step_s=step_s)


def solver(plan: Plan) -> pd.DataFrame:
    """What the solver says of the plan: status, bound, gap, variables, and what it was asked."""
    found, shared = plan.summary["solver"], plan.summary["balance"]
    any_shares = {}
    if proof_of(plan).has_shares:
        any_shares = {"bound for any shares": seconds(shared["bound_s"]), "gap to it": f"{shared['gap']:.4%}"}
    words = {
        "strategy": found["strategy"],
        "objective": found["objective"],
        "status": found["status"],
        "bound": seconds(found["bound_s"]) if found["bound_s"] else "none",
        "gap": f"{found['gap']:.4%}",
        **any_shares,
        "variables": f"{found['num_variables']:,}",
        "memory limit": ", ".join(dict.fromkeys(_limit(room, has_one_limit(plan)) for room in rooms(plan))),
        "fits": "yes" if found["fits"] else "no",
    }
    return pd.DataFrame(list(words.items()), columns=["what", "value"])


def prices(plan: Plan) -> pd.DataFrame:
    """What a better machine would save of a step, where that was asked for."""
    return pd.DataFrame(plan.summary.get("shadow_prices", []), columns=["what", "price_s", "solved_again_s"])


def scaling(plan: Plan) -> pd.DataFrame:
    """Plans over other degrees, where a sweep was asked for."""
    columns = ["mesh", "num_ranks", "step_s", "communication_s", "memory_bytes", "fits", "megatron_s"]
    return pd.DataFrame(plan.summary.get("sweep", []), columns=columns)


def profile(plan: Plan) -> pd.DataFrame:
    """Every number of the devices and links that the plan was made from, with its source."""
    rows: list[tuple[str, str, Any, str]] = []
    for name in dict.fromkeys(plan.cluster["devices"][: plan.mesh.num_ranks]):
        device = plan.cluster["device_profiles"][name]
        fields = [key for key in device if key not in ("name", "kind", "source", "date", "is_measured")]
        rows += [(name, key, _number(device[key]), device["source"].get(key, "")) for key in fields]
    for name, link in plan.cluster["links"].items():
        for kind, numbers in link["collectives"].items():
            text = f"latency_s {_number(numbers['latency_s'])}; bus_bytes_per_s {_number(numbers['bus_bytes_per_s'])}"
            rows.append((f"link {name} ({link['kind']})", f"{kind}, groups of {numbers['num_ranks']}", text,
                         link["source"]))  # fmt: skip
    return pd.DataFrame(rows, columns=["part", "field", "value", "source"])


def _limit(room: Room, is_common: bool) -> str:
    return size(room.limit_bytes) if is_common else f"{size(room.limit_bytes)} ({room.device})"


def link_of(plan: Plan, axis: str) -> str:
    """What the ranks of an axis talk over: `NVSwitch inside a node`."""
    per_node = plan.cluster["ranks_per_node"]
    groups = plan.mesh.groups(plan.mesh.names.index(axis))
    place = "inter" if any(len({rank // per_node for rank in group}) > 1 for group in groups) else "intra"
    return f"{plan.cluster['links'][place]['kind']} {'between nodes' if place == 'inter' else 'inside a node'}"


def _number(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_number(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_number, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _axes(plan: Plan) -> list[str]:
    return [f"over {axis}={size}" for axis, size in plan.mesh.axes]


TABLES: dict[str, Callable[[Plan], pd.DataFrame]] = {
    "plans": plans,
    "time": time,
    "memory": memory,
    "layers": layers,
    "operators": operators,
    "parameters": parameters,
    "redistributions": redistributions,
    "scaling": scaling,
    "devices": devices,
    "balance": balance,
    "roofline": roofline,
    "fallbacks": fallbacks,
    "solver": solver,
    "prices": prices,
    "profile": profile,
}
