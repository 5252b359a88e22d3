"""What a plan says in three sentences, and in five numbers."""

import math
from dataclasses import dataclass

from autotp.graph import FLOATS
from autotp.plans import Plan
from autotp.report.proof import proof_of
from autotp.report.room import has_one_limit, least_room, whose
from autotp.report.units import count, seconds, share, size

CLOSE = 0.005  # relative: two predictions closer than this are as fast as one another


@dataclass(frozen=True, slots=True)
class Fact:
    """A number that a reader should remember."""

    value: str
    what: str
    is_bad: bool = False


def model_name(plan: Plan) -> str:
    """`examples/llama.py (size=8b)`."""
    origin = plan.model.get("origin") or {}
    settings = {**origin.get("options", {}), **{k: origin[k] for k in ("batch", "seq") if origin.get(k)}}
    given = f" ({', '.join(f'{k}={v}' for k, v in settings.items())})" if settings else ""
    return f"{origin.get('path', 'a module')}{given}"


def num_parameters(plan: Plan) -> int:
    return sum(math.prod(p.shape) for p in plan.parameters.values() if p.dtype in FLOATS)


def devices(plan: Plan) -> str:
    """`8 × H100-SXM5-80GB`."""
    names = list(plan.cluster["devices"][: plan.mesh.num_ranks])
    return " + ".join(f"{names.count(name)} × {name}" for name in dict.fromkeys(names))


def answer(plan: Plan) -> list[str]:
    """Three sentences: which mesh, how fast compared with what, whether it fits and what limits it."""
    return [_mesh(plan), _speed(plan), _limits(plan)]


def _mesh(plan: Plan) -> str:
    step_s = plan.summary["predicted"]["step_s"]
    what = "training step" if plan.mode == "train" else "inference step"
    model = f"{model_name(plan)} ({count(num_parameters(plan))} parameters)"
    here = f"a {what} of {model} is predicted to take {seconds(step_s)}"
    where = f"{plan.mesh} of {plan.cluster['name']} ({devices(plan)})"
    rows = plan.summary.get("sweep") or []
    fitting = [row for row in rows if row.get("fits") and row.get("step_s")]
    if not fitting:
        return f"On {where}, {here}."
    best = min(fitting, key=lambda row: (row["step_s"], row["num_ranks"]))
    if best["mesh"] == str(plan.mesh):
        return f"Of the {len(rows)} meshes tried, the fastest that fits is this one, {where}: {here}."
    found = f"{best['mesh']} with {seconds(best['step_s'])}"
    return f"On {where}, {here}; of the {len(rows)} meshes tried the fastest that fits is {found}."


def _speed(plan: Plan) -> str:
    step_s, rows = plan.summary["predicted"]["step_s"], plan.summary["baselines"]
    parts = []
    for name, words in (("single_device", "one device alone"), ("megatron", "Megatron's plan on the same mesh")):
        row = rows.get(name)
        if row is None:
            parts.append("Megatron's plan does not exist for this model" if name == "megatron" else "")
            continue
        fits = "" if row["fits"] else ", if it fitted"
        parts.append(f"{_compared(step_s, row['step_s'])} {words} ({seconds(row['step_s'])}{fits})")
    return f"That is {' and '.join(part for part in parts if part)}.".replace(
        " and Megatron's plan does", "; Megatron's plan does"
    )


def _compared(step_s: float, other_s: float) -> str:
    ratio = other_s / step_s if step_s else 1.0
    if abs(ratio - 1) <= CLOSE:
        return "as fast as"
    if ratio > 1:
        return f"{ratio:.2f} times as fast as" if ratio >= 1.1 else f"{ratio - 1:.1%} faster than"
    return f"{1 / ratio:.2f} times as slow as" if ratio <= 0.9 else f"{1 / ratio - 1:.1%} slower than"


def _limits(plan: Plan) -> str:
    room = least_room(plan)
    fits = f"It fits: {whose(plan)} needs {size(room.held_bytes)} of {size(room.limit_bytes)}"
    if not plan.summary["solver"]["fits"]:
        needs = f"{whose(plan)} needs {size(room.held_bytes)}"
        fits = f"It does not fit: {needs}, and {size(room.limit_bytes)} are allowed"
    return f"{fits}; {_bottleneck(plan)}."


def _bottleneck(plan: Plan) -> str:
    predicted = plan.summary["predicted"]
    exposed = predicted["exposed_communication_s"]
    part = share(exposed, predicted["step_s"])
    if plan.mesh.num_ranks == 1 or not exposed:
        return "nothing is communicated, so arithmetic and memory traffic are all that take time"
    if exposed > 0.4 * predicted["step_s"]:
        return f"communication limits it: devices wait for it during {part} of the step"
    return f"computing limits it: devices wait for communication during {part} of the step"


def facts(plan: Plan) -> list[Fact]:
    """The tiles at the head of the page."""
    predicted, solver, rows = plan.summary["predicted"], plan.summary["solver"], plan.summary["baselines"]
    single = rows.get("single_device")
    found = [Fact(seconds(predicted["step_s"]), "per step, predicted")]
    if single and predicted["step_s"]:
        found.append(Fact(f"{single['step_s'] / predicted['step_s']:.2f}×", "the speed of one device"))
    room = least_room(plan)
    where = "per device" if has_one_limit(plan) else f"on {room.device}, which has the least room"
    found.append(Fact(size(room.held_bytes), f"of {size(room.limit_bytes)} {where}", not solver["fits"]))
    found.append(
        Fact(
            share(predicted["exposed_communication_s"], predicted["step_s"]), "of the step is waiting for communication"
        )
    )
    fraction = plan.summary["coverage"]["split_matmul_flops_fraction"]
    found.append(Fact(f"{fraction:.1%}", "of the matmul FLOPs are split over every axis", fraction < 0.9))
    found.append(Fact(proof_of(plan).word, f"objective: {solver['objective']}"))
    return found
