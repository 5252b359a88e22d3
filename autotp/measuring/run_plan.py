"""`autotp measure`: a plan runs on this machine, and what it predicted stands beside what it took."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Any

import torch

from autotp.capture.model_file import ModelSource
from autotp.errors import AutoTPError, PlanError, VerificationError
from autotp.measurement import Compared, Directions, Measurement
from autotp.measuring.run_rank import RankRun, RunTask, run_rank
from autotp.plan_file import dumps, plan_identity
from autotp.plans import Plan
from autotp.redistribute import REDUCTIONS
from autotp.runtime.spawn import run_processes
from autotp.timeline import WAIT, timeline

GROUP_TIMEOUT_S = 300.0
TIMEOUT_S = 3600.0


def measure_plan(source: ModelSource, plan: Plan, *, num_steps: int = 10, bound: float = 0.25) -> Measurement:
    """Run `num_steps` steps of a plan over real processes, on as many devices of this machine as it has ranks.

    `bound`: the share by which predictions may be off. Raises PlanError where the plan is of another model or for devices
    that are not here, AutoTPError where a rank fails.
    """
    if num_steps < 1:
        raise AutoTPError(f"{num_steps} steps: at least one is needed")
    kinds = {plan.cluster["device_profiles"][name]["kind"] for name in plan.cluster["devices"][: plan.mesh.num_ranks]}
    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kinds == {"cuda"} and num_gpus < plan.mesh.num_ranks:
        raise PlanError(
            f"the plan is for {plan.mesh.num_ranks} GPUs of {plan.cluster['name']}, this machine has {num_gpus}: plan "
            "for a cluster that `autotp profile` measured here"
        )
    backend = "nccl" if kinds == {"cuda"} else "gloo"
    task = RunTask(source.origin, dumps(replace(plan, problem={})), num_steps)
    try:
        runs: list[RankRun] = run_processes(
            run_rank,
            plan.mesh.num_ranks,
            (task,),
            backend=backend,
            timeout_s=TIMEOUT_S,
            group_timeout_s=GROUP_TIMEOUT_S,
        )
    except VerificationError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise AutoTPError(f"the plan could not be run: {lines[0]} {lines[-1] if len(lines) > 1 else ''}") from error
    return compare(plan, runs, num_steps, bound)


def compare(plan: Plan, runs: Sequence[RankRun], num_steps: int, bound: float) -> Measurement:
    """Predictions of a plan beside what its ranks measured."""
    rank_steps = tuple(tuple(map(sum, run.steps_s)) for run in runs)
    slowest = [max(seconds) for seconds in zip(*rank_steps, strict=True)]
    step_s = statistics.median(slowest)
    quartiles = statistics.quantiles(slowest, n=4, method="inclusive") if len(slowest) > 1 else [step_s] * 3
    predicted = plan.summary["predicted"]
    run = max(runs, key=_compute_s)  # who computes longest is who the others wait for
    parts, scale = _parts(predicted, run, step_s)
    operators: dict[str, list[float]] = {}
    nodes = {}
    times = _accumulation(plan)
    for name, both in run.nodes_s.items():
        facts = plan.nodes[name]
        nodes[name] = Directions(
            Compared(times * facts.forward_s, scale * both[0]), Compared(times * facts.backward_s, scale * both[1])
        )
        row = operators.setdefault(run.operators[name], [0.0, 0.0])
        row[0] += times * (facts.forward_s + facts.backward_s)
        row[1] += scale * sum(both)
    return Measurement(
        plan_identity=plan_identity(plan),
        fingerprint=plan.fingerprint,
        model=plan.model,
        mode=plan.mode,
        mesh=str(plan.mesh),
        cluster=plan.cluster["name"],
        date=date.today().isoformat(),
        environment={"torch": torch.__version__, "devices": ", ".join(dict.fromkeys(run.device for run in runs))},
        num_steps=num_steps,
        bound=bound,
        rank_steps_s=rank_steps,
        step_s=Compared(predicted["step_s"], step_s),
        spread_s=quartiles[2] - quartiles[0],
        parts_s=parts,
        communication_s=_communication(plan, run, scale),
        operators_s={name: Compared(*row) for name, row in sorted(operators.items(), key=lambda each: -each[1][1])},
        nodes=nodes,
        moves=_moves(plan, run, scale),
        memory_bytes=tuple(
            Compared(total - parts.get("process", 0), run.memory_bytes["peak"])
            for total, parts, run in zip(predicted["memory_bytes"], predicted["memory_parts_bytes"], runs, strict=True)
        ),
        memory_parts_bytes=_memory_parts(predicted, runs),
    )


def _accumulation(plan: Plan) -> int:
    return int(plan.summary.get("training", {}).get("accumulation", 1)) if plan.mode == "train" else 1


def _compute_s(run: RankRun) -> float:
    return sum(map(sum, run.nodes_s.values())) - sum(run.inside_s)


def _parts(predicted: Mapping[str, Any], run: RankRun, step_s: float) -> tuple[dict[str, Compared], float]:
    """By kind of cost, and what a profiled second is of a step without the profiler: no more than one."""
    compute = [sum(both[way] for both in run.nodes_s.values()) - run.inside_s[way] for way in (0, 1)]
    optimizer_s = statistics.median(step[2] for step in run.steps_s)
    communication_s = sum(run.actions_s.values()) + sum(run.inside_s)
    scale = min(1.0, (step_s - optimizer_s) / max(sum(compute) + communication_s, 1e-12))
    measured = {
        "forward": scale * compute[0], "backward": scale * compute[1], "optimizer": optimizer_s,
        "communication": scale * communication_s,
    }  # fmt: skip
    expected = {**predicted["compute_parts_s"], "communication": predicted["exposed_communication_s"]}
    found = {name: Compared(expected.get(name, 0.0), seconds) for name, seconds in measured.items()}
    rest = [max(0.0, total - sum(each)) for total, each in (
        (predicted["step_s"], [one.predicted for one in found.values()]), (step_s, measured.values()),
    )]  # fmt: skip
    return {**found, "other": Compared(*rest)}, scale


def _communication(plan: Plan, run: RankRun, scale: float) -> dict[str, Compared]:
    """By kind. Of what is sent beside computing the waiting at the end counts: the rest cannot be told from computing."""
    expected = dict(plan.summary["predicted"]["communication_by_kind_s"])
    for event in timeline(plan):
        if event.stream == "overlapped":
            expected[event.what] -= event.duration_s
        elif event.what == WAIT:
            expected[WAIT] = expected.get(WAIT, 0.0) + event.duration_s
    measured = {**run.actions_s, "inside_operators": sum(run.inside_s)}
    names = sorted({*expected, *measured} - {"none"})
    found = {name: Compared(expected.get(name, 0.0), scale * measured.get(name, 0.0)) for name in names}
    return {name: each for name, each in found.items() if each.predicted or each.measured}


def _moves(plan: Plan, run: RankRun, scale: float) -> dict[str, Directions]:
    expected: dict[str, list[float]] = {}
    times = _accumulation(plan)
    for value, moves in plan.moves.items():
        row = expected.setdefault(value.node, [0.0, 0.0])
        once = plan.reduces_once and plan.nodes[value.node].kind == "parameter"
        row[0] += times * sum(move.forward_s for move in moves)
        row[1] += sum((1 if once and move.backward in REDUCTIONS else times) * move.backward_s for move in moves)
    names = [name for name in plan.nodes if name in expected or name in run.moves_s]
    return {
        name: Directions(*(
            Compared(expected.get(name, [0.0, 0.0])[way], scale * run.moves_s.get(name, [0.0, 0.0])[way]) for way in (0, 1)
        ))
        for name in names
    }  # fmt: skip


def _memory_parts(predicted: Mapping[str, Any], runs: Sequence[RankRun]) -> dict[str, Compared]:
    """Of the rank that holds most, by what the bytes are for, where both sides know it."""
    index = max(range(len(runs)), key=lambda rank: runs[rank].memory_bytes["peak"])
    expected, measured = predicted["memory_parts_bytes"][index], runs[index].memory_bytes
    return {name: Compared(expected[name], measured[name]) for name in expected if name in measured}
