"""What one rank of predict_cpu.py does: in every round it profiles, times the plans' operators, and runs the plans."""

import random
import statistics
import sys
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.distributed as dist

from autotp.api import capture_for_planning, load_model
from autotp.capture.export import Captured
from autotp.cost.operator_key import operator_key
from autotp.cost.training import Training
from autotp.hardware.cluster import ClusterProfile
from autotp.measuring.cluster_fit import cluster_of
from autotp.measuring.items import Effort, Item
from autotp.measuring.local_calls import LocalOperator, local_operators
from autotp.measuring.operators import together
from autotp.measuring.profile_rank import Findings, Session, Task, begin, measure_item
from autotp.measuring.reprice import repriced
from autotp.measuring.run_rank import Step, run_of
from autotp.mesh import Mesh
from autotp.plan_file import dumps, loads
from autotp.planning.planner import make_plan
from autotp.planning.search import Options
from autotp.plans import Plan
from autotp.rules.registry import rules_of

STRATEGIES = ("replicated", "megatron", "optimal")
DATE = "2026-01-01"  # of profiles that nobody keeps
REFERENCE_BYTES, NUM_LOOKS = 2**20, 9


@dataclass(frozen=True)
class Model:
    """An example, with options; `batch` and `seq` as of the command line."""

    example: str
    options: dict[str, Any]
    batch: int | None = None
    seq: int | None = None

    def __str__(self) -> str:
        settings = {**self.options, "batch": self.batch, "seq": self.seq}
        return f"{self.example} " + " ".join(f"{k}={v}" for k, v in settings.items() if v is not None)


@dataclass(frozen=True)
class Settings:
    models: tuple[Model, ...]
    folder: str
    effort: Effort
    num_rounds: int
    num_steps: int
    quiet: float  # how much longer a reference of a round may take than in the best round


@dataclass
class Round:
    """Seconds of the references, of operators by key, and of every case's steps, the slowest rank's."""

    product_s: float
    all_reduce_s: float
    items: dict[str, Any] = field(default_factory=dict)
    operators: dict[str, tuple[float, float]] = field(default_factory=dict)
    steps_s: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """A model under a plan; predicted by the profile alone, and with its operators measured."""

    model: str
    plan: str
    by_profile_s: float
    predicted_s: float
    measured_s: float


@dataclass(frozen=True)
class Outcome:
    cases: tuple[Case, ...]
    num_rounds: int
    num_dropped: int


def run_rank(rank: int, settings: Settings) -> Outcome | None:
    session = begin(Task(("cpu",), "", False, None, 300.0, settings.effort))
    mesh = Mesh((("tp", dist.get_world_size()),))
    first = {item.key: measure_item(item, session) for item in session.items()}
    cluster = _shared(_cluster(session, [first]) if rank == 0 else None)
    models = {str(model): _captured(model, settings.folder) for model in settings.models}
    plans = _shared(_plans(models, mesh, cluster) if rank == 0 else None)
    steps = {
        (name, strategy): Step(run_of(models[name][0], models[name][1], loads(text), torch.device("cpu")))
        for (name, strategy), text in plans.items()
    }
    operators = _operators(models, {key: loads(text) for key, text in plans.items()}, mesh, cluster)
    rounds = []
    for number in range(settings.num_rounds):
        if rank == 0:
            print(f"round {number + 1} of {settings.num_rounds}", file=sys.stderr, flush=True)
        rounds.append(_round(session, settings, operators, steps, number))
    return _outcome(session, settings, models, plans, rounds, cluster) if rank == 0 else None


def _shared(value: Any) -> Any:
    message = [value]
    dist.broadcast_object_list(message, 0)
    return message[0]


def _captured(model: Model, folder: str) -> tuple[Any, Captured]:
    source = load_model(f"{folder}/{model.example}.py", model.options, model.batch, model.seq)
    return source, capture_for_planning(source, None, mode="train", dtype=None)[0]


def _plans(models: dict[str, Any], mesh: Mesh, cluster: ClusterProfile) -> dict[tuple[str, str], str]:
    """Equal plans are one case."""
    found: dict[tuple[str, str], str] = {}
    for name, (source, captured) in models.items():
        _, facts = capture_for_planning(source, None, mode="train", dtype=None)
        seen: list[Any] = []
        for strategy in STRATEGIES:
            plan = make_plan(captured, mesh, cluster, Options(Training(), strategy=strategy), facts).plan
            if plan.strategies not in seen:
                seen.append(plan.strategies)
                found[name, strategy] = dumps(replace(plan, problem={}))
    return found


def _operators(
    models: dict[str, Any], plans: dict[tuple[str, str], Plan], mesh: Mesh, cluster: ClusterProfile
) -> list[LocalOperator]:
    """The operators that the plans run, each once."""
    found: dict[str, LocalOperator] = {}
    for name, (_, captured) in models.items():
        graph, rules = captured.graph, rules_of(captured.graph)
        wanted = {
            operator_key(node, rules[node.name], plan.strategies[node.name], graph.input_specs(node))
            for (of, _), plan in plans.items() if of == name for node in graph if node.kind == "op"
        }  # fmt: skip
        classes = {node.name: node.name for node in graph}
        for each in local_operators(captured, rules, classes, mesh, cluster, Training()):
            if each.key in wanted:
                found[each.key] = each
    return sorted(found.values(), key=lambda each: each.key)


def _round(
    session: Session, settings: Settings, operators: list[LocalOperator], steps: dict[Any, Step], number: int
) -> Round:
    """Profile, operators and plans in turn, in an order drawn anew, between two looks at the references."""
    before = _references(session)
    found = Round(*before)
    jobs: list[Any] = [*session.items(), *operators, *steps.items()]
    random.Random(number).shuffle(jobs)
    for job in jobs:
        if isinstance(job, Item):
            found.items[job.key] = measure_item(job, session)
        elif isinstance(job, LocalOperator):
            measured = together(job, session.device)
            if measured is not None:
                found.operators[job.key] = measured
        else:
            key, step = job
            step.run()
            own = torch.tensor([sum(step.run()) for _ in range(settings.num_steps)])
            dist.all_reduce(own, dist.ReduceOp.MAX)
            found.steps_s["/".join(key)] = own.tolist()
    after = _references(session)
    found.product_s, found.all_reduce_s = (max(pair) for pair in zip(before, after, strict=True))
    if dist.get_rank() == 0:
        print(
            f"  references {found.product_s * 1e3:.3f} and {found.all_reduce_s * 1e3:.3f} ms",
            file=sys.stderr,
            flush=True,
        )
    return found


def _references(session: Session) -> tuple[float, float]:
    """Medians of several looks: what drifts over minutes is to be seen, not what one look happens upon."""
    product = Item("product", ("float32", *session.effort.reference))
    all_reduce = Item("collective", ("all_reduce", str(next(iter(session.members))), REFERENCE_BYTES))
    looks = [(measure_item(product, session), measure_item(all_reduce, session)) for _ in range(NUM_LOOKS)]
    return statistics.median(max(r[0] for r in of) for of, _ in looks), statistics.median(float(t) for _, t in looks)


def _cluster(session: Session, rounds: list[dict[str, Any]]) -> ClusterProfile:
    samples = {key: [each[key] for each in rounds] for key in rounds[0]}
    found = Findings(session.facts, samples, session.effort, session.ranks_per_node, len(rounds), 0, ())
    return cluster_of(found, "here", DATE)[0]


def _outcome(
    session: Session,
    settings: Settings,
    models: dict[str, Any],
    plans: dict[tuple[str, str], str],
    rounds: list[Round],
    first: ClusterProfile,
) -> Outcome:
    """Medians over the quiet rounds."""
    best = min(r.product_s for r in rounds), min(r.all_reduce_s for r in rounds)
    quiet = [
        r for r in rounds
        if r.product_s <= (1 + settings.quiet) * best[0] and r.all_reduce_s <= (1 + settings.quiet) * best[1]
    ]  # fmt: skip
    used = quiet or rounds
    cluster = _cluster(session, [r.items for r in used])
    times = {
        key: (
            statistics.median(r.operators[key][0] for r in used),
            statistics.median(r.operators[key][1] for r in used),
        )
        for key in used[0].operators
        if all(key in r.operators for r in used)
    }
    measured = replace(
        cluster,
        device_profiles={n: replace(d, operator_times_s=times) for n, d in cluster.device_profiles.items()},
    )
    cases = []
    for (name, strategy), text in plans.items():
        plan, captured = loads(text), models[name][1]
        steps = [statistics.median(r.steps_s[f"{name}/{strategy}"]) for r in used]
        predicted = [repriced(captured, plan, each, Training())["step_s"] for each in (cluster, measured)]
        cases.append(Case(name, strategy, predicted[0], predicted[1], statistics.median(steps)))
    return Outcome(tuple(cases), len(rounds), len(rounds) - len(quiet))
