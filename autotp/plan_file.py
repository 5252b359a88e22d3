"""Plans as JSON: `save`, `load`, and the text form that both use. Equal plans give equal bytes."""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autotp.errors import AutoTPError, PlanError
from autotp.graph import TensorSpec, Value
from autotp.mesh import Mesh
from autotp.placement import Placement, format_blocks, format_placement, parse_blocks, parse_placement
from autotp.plans import VERSION, Move, NodeFacts, ParameterPlan, Plan
from autotp.redistribute import PADDED, Step
from autotp.rules.strategy import Choice, Strategy


def write_atomically(path: str | Path, content: str | bytes) -> None:
    """Write aside and rename, so that a reader never sees half a file. Raises AutoTPError where that is not possible."""
    path = Path(path)
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent or Path(), prefix=f".{path.name}.")
    except OSError as error:
        raise AutoTPError(f"cannot write {path}: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException as error:  # an interrupt too leaves nothing behind
        os.unlink(temporary)
        if isinstance(error, OSError):
            raise AutoTPError(f"cannot write {path}: {error.strerror}") from error
        raise


def save(plan: Plan, path: str | Path) -> None:
    """Write a plan. Raises AutoTPError where the file cannot be written; nothing half-written is left."""
    write_atomically(path, dumps(plan))


def load(path: str | Path) -> Plan:
    """Read a plan. Raises PlanError on a missing, corrupt or foreign file."""
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"cannot read the plan {path}: {error}") from error
    try:
        plan = loads(text)
        _check_complete(plan)
    except PlanError as error:
        raise PlanError(f"{path}: {error}") from error
    return plan


def plan_identity(plan: Plan) -> str:
    """A hash of everything in the plan: equal plans, equal identities, on every machine."""
    return hashlib.sha256(dumps(plan).encode()).hexdigest()[:16]


def dumps(plan: Plan) -> str:
    """The JSON text of a plan, one line per node, ending in a newline."""
    document: dict[str, Any] = {
        "autotp_plan": plan.version,
        "fingerprint": plan.fingerprint,
        "mode": plan.mode,
        "mesh": str(plan.mesh),
        "summary": plan.summary,
        "fallback_ops": list(plan.fallback_ops),
        "model": plan.model,
        "cluster": plan.cluster,
    }
    head = json.dumps(document, indent=1)[:-2]
    tables: dict[str, Mapping[str, Any]] = {
        "nodes": {name: {**_facts(plan.nodes[name]), **_strategy(s)} for name, s in plan.strategies.items()},
        "moves": {str(value): [_move(move) for move in moves] for value, moves in plan.moves.items()},
        "parameters": {name: _parameter(parameter) for name, parameter in plan.parameters.items()},
        "problem": plan.problem,
    }
    return head + "".join(f',\n "{name}": {_lines(table)}' for name, table in tables.items()) + "\n}\n"


def _lines(table: Mapping[str, Any]) -> str:
    rows = ",\n".join(f"  {json.dumps(key)}: {json.dumps(row, separators=(',', ':'))}" for key, row in table.items())
    return "{\n" + rows + "\n }" if rows else "{}"


def loads(text: str) -> Plan:
    """The inverse of `dumps`. Raises PlanError."""
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise PlanError(
            f"not a plan: the JSON is broken at line {error.lineno} ({error.msg}); make it again"
        ) from error
    if not isinstance(document, dict) or "autotp_plan" not in document:
        raise PlanError("not a plan: the field autotp_plan is missing; `autotp plan -o` writes one")
    if document["autotp_plan"] != VERSION:
        raise PlanError(
            f"the plan has version {document['autotp_plan']}, this autotp reads version {VERSION}; make the plan again"
        )
    try:
        return Plan(
            fingerprint=document["fingerprint"],
            mode=document["mode"],
            mesh=Mesh.parse(document["mesh"]),
            strategies={name: _read_strategy(row) for name, row in document["nodes"].items()},
            moves={_read_value(key): tuple(map(_read_move, rows)) for key, rows in document["moves"].items()},
            parameters={name: _read_parameter(row) for name, row in document["parameters"].items()},
            nodes={name: _read_facts(row) for name, row in document["nodes"].items()},
            cluster=document["cluster"],
            model=document["model"],
            problem=document["problem"],
            summary=document["summary"],
            fallback_ops=tuple(document["fallback_ops"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, AutoTPError) as error:
        raise PlanError(f"the plan is corrupt ({type(error).__name__}: {error}); make it again") from error


NEEDED = {
    "training": (),
    "predicted": ("step_s", "compute_s", "communication_s", "exposed_communication_s", "memory_bytes",
                  "memory_parts_bytes", "compute_parts_s", "compute_by_op_s", "communication_by_kind_s"),
    "baselines": (),
    "balance": ("shares", "compute_s"),
    "solver": ("strategy", "objective", "status", "bound_s", "gap", "num_variables", "memory_limit_bytes", "fits"),
    "coverage": ("split_matmul_flops_fraction",),
}  # fmt: skip
CLUSTER = ("name", "devices", "device_profiles", "links", "ranks_per_node")


def _check_complete(plan: Plan) -> None:
    """Raises PlanError where a file lacks what `autotp plan -o` writes into every plan."""
    missing = [f"cluster.{name}" for name in CLUSTER if name not in plan.cluster]
    for part, names in NEEDED.items():
        found = plan.summary.get(part)
        if not isinstance(found, dict):
            missing.append(f"summary.{part}")
        else:
            missing += [f"summary.{part}.{name}" for name in names if name not in found]
    used = {value.node for value in plan.moves} | {v.node for facts in plan.nodes.values() for v in facts.inputs}
    missing += [f"nodes.{name}" for name in sorted((used | set(plan.parameters)) - set(plan.nodes))]
    if missing:
        raise PlanError(f"the plan is not complete: it has no {', '.join(missing[:3])}; make it again")


# ---------------------------------------------------------------- rows


def _facts(node: NodeFacts) -> dict[str, Any]:
    return {
        "kind": node.kind,
        "op": node.op,
        "module": node.module,
        "inputs": [str(value) for value in node.inputs],
        "outputs": [str(spec) for spec in node.outputs],
        "forward_s": node.forward_s,
        "backward_s": node.backward_s,
    }


def _read_facts(row: Mapping[str, Any]) -> NodeFacts:
    return NodeFacts(
        row["kind"],
        row["op"],
        row["module"],
        tuple(map(_read_value, row["inputs"])),
        tuple(map(_read_spec, row["outputs"])),
        row["forward_s"],
        row["backward_s"],
    )


def _read_spec(text: str) -> TensorSpec:
    match = re.fullmatch(r"(\w+)\[([\d, ]*)\](\*?)", text)
    if not match:
        raise ValueError(f"cannot read the tensor {text!r}")
    return TensorSpec(tuple(int(n) for n in match[2].split(",") if n.strip()), match[1], bool(match[3]))


def _strategy(strategy: Strategy) -> dict[str, Any]:
    return {
        "choices": [_choice(choice) for choice in strategy.choices],
        "operands": [format_placement(p) for p in strategy.operands],
        "results": [format_placement(p) for p in strategy.results],
    }


def _choice(choice: Choice) -> Any:
    if choice.kind == "cut":
        return {letter: format_blocks(blocks) for letter, blocks in (choice.cut or {}).items()}
    return sorted(choice.carriers) if choice.kind == "partial" else choice.kind


def _read_choice(row: Any) -> Choice:
    if isinstance(row, dict):
        return Choice("cut", {letter: parse_blocks(text) for letter, text in row.items()})
    return Choice("partial", None, frozenset(row)) if isinstance(row, list) else Choice(row)


def _read_strategy(row: Mapping[str, Any]) -> Strategy:
    return Strategy(
        tuple(map(_read_choice, row["choices"])),
        tuple(map(parse_placement, row["operands"])),
        tuple(map(parse_placement, row["results"])),
    )


def _move(move: Move) -> dict[str, Any]:
    return {
        "axis": move.step.axis,
        "from": format_placement(move.step.source),
        "to": format_placement(move.step.target),
        "forward": move.forward,
        "backward": move.backward,
        "forward_s": move.forward_s,
        "backward_s": move.backward_s,
        **({"again_s": move.again_s} if move.again_s else {}),
        **({"forward_by": move.forward_by} if move.forward_by != PADDED else {}),
        **({"backward_by": move.backward_by} if move.backward_by != PADDED else {}),
    }


def _read_move(row: Mapping[str, Any]) -> Move:
    step = Step(row["axis"], parse_placement(row["from"]), parse_placement(row["to"]))
    return Move(
        step, row["forward"], row["backward"], row["forward_s"], row["backward_s"], row.get("again_s", 0.0),
        row.get("forward_by", PADDED), row.get("backward_by", PADDED),
    )  # fmt: skip


def _read_value(text: str) -> Value:
    name, _, index = text.removeprefix("%").partition("#")
    return Value(name, int(index or 0))


def _parameter(parameter: ParameterPlan) -> dict[str, Any]:
    return {
        "names": list(parameter.names),
        "dtype": parameter.dtype,
        "shape": list(parameter.shape),
        "placement": format_placement(parameter.placement),
        "local_shapes": [list(shape) for shape in parameter.local_shapes],
    }


def _read_parameter(row: Mapping[str, Any]) -> ParameterPlan:
    placement: Placement = parse_placement(row["placement"])
    shapes = tuple(tuple(shape) for shape in row["local_shapes"])
    return ParameterPlan(placement, tuple(row["shape"]), row["dtype"], shapes, tuple(row["names"]))
