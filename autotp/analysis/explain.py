"""Why a node is split as it is: the alternatives, each with the best plan that has it, and when one of them would win.

Everything is solved again, from the problem that the plan keeps; the model is needed for other batches only.
"""

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from autotp.analysis.wins import Wins
from autotp.errors import InfeasibleError, PlanError
from autotp.plans import Plan
from autotp.report.layer_rows import MAIN
from autotp.report.words import short_op
from autotp.solver.baselines import solve_restricted
from autotp.solver.evaluate import Evaluator
from autotp.solver.problem import Problem, Solution
from autotp.solver.serialise import from_dict

MAX_ALTERNATIVES = 12  # solved; of more, those that are cheapest when nothing else changes


# plan, node, what is called with a way of splitting and when it wins, progress; why nothing was tried
BatchTrier = Callable[[Plan, str, Callable[[str, str], None], Callable[[str], None]], str]


@dataclass(frozen=True, slots=True)
class Alternative:
    """A way to split the node. `cost_s`, `memory_bytes`: of the best plan with it; None where no such plan fits.

    `wins_if`: what would make it the best choice, in words; "" for what is chosen.
    """

    words: str
    is_chosen: bool
    cost_s: float | None
    memory_bytes: float | None
    status: str
    wins_if: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """`node`: the graph's name of it; `count`: nodes that are alike and decided with it; `num_left_out`: alternatives
    that were not solved; `untried`: why other batches were not tried, "" where they were or nobody asked for them."""

    node: str
    op: str
    module: str
    count: int
    alternatives: tuple[Alternative, ...]
    num_left_out: int
    with_batches: bool = False
    untried: str = ""


def explain(
    plan: Plan,
    name: str,
    progress: Callable[[str], None] = lambda stage: None,
    try_batches: BatchTrier | None = None,
) -> Explanation:
    """Solve again for every alternative of a node, parameter or module, and for other links and limits of memory.

    `try_batches`: `batches.batch_wins`, to plan the model again for other batches too, which needs its file. Raises
    PlanError for an unknown name.
    """
    node = find_node(plan, name)
    problem, allowed = stored_problem(plan)
    index = plan.problem["members"][node]
    groups = _groups(plan, index, allowed[index])
    chosen = " / ".join(plan_words(plan, node))
    base = solve_restricted(problem, allowed, objective=plan.summary["solver"]["objective"])
    kept = _cheapest(problem, base, index, groups)
    solved: dict[str, Solution | None] = {}
    for number, words in enumerate(kept, start=1):
        progress(f"solving {number} of {len(kept)}: {words}")
        solved[words] = _forced(plan, problem, allowed, index, groups[words])
    wins = Wins(plan, problem, allowed, index, chosen)
    progress("trying other links")
    wins.over_links()
    progress("trying other limits of memory")
    wins.over_memory(base)
    untried = try_batches(plan, node, wins.add, progress) if try_batches else ""
    rows = [_row(words, found, words == chosen, wins.words_of(words)) for words, found in solved.items()]
    # what only another batch allows, or was left out above
    rows += [
        Alternative(words, False, None, None, "not solved", wins.words_of(words))
        for words in wins
        if words not in solved
    ]
    rows.sort(key=lambda row: (not row.is_chosen, math.inf if row.cost_s is None else row.cost_s))
    facts = plan.nodes[node]
    count = sum(each == index for each in plan.problem["members"].values())
    return Explanation(
        node,
        facts.op or facts.kind,
        facts.module,
        count,
        tuple(rows),
        len(groups) - len(kept),
        try_batches is not None,
        untried,
    )


def find_node(plan: Plan, name: str) -> str:
    """The node of this name, of the parameter of this name, or the main operator of the module of this name.

    Of names that a pattern such as `layers.*.mlp.down_proj` fits, the first. Raises PlanError where there is none.
    """
    name = name.removeprefix("%")
    if not name:
        raise PlanError("name a node, a parameter or a module, as in layers.0.mlp.down_proj")
    if name in plan.nodes:
        found = name
    else:
        parameters = [node for node, p in plan.parameters.items() if any(_ends(each, name) for each in p.names)]
        inside = [node for node, facts in plan.nodes.items() if facts.kind == "op" and _ends(facts.module, name)]
        main = [node for node in inside if short_op(plan.nodes[node].op) in MAIN] or inside
        if not (main or parameters):
            known = [*plan.nodes, *(n for p in plan.parameters.values() for n in p.names)]
            known += dict.fromkeys(facts.module for facts in plan.nodes.values())
            close = difflib.get_close_matches(name, known, n=3) or list(plan.nodes)[:3]
            raise PlanError(f"the plan has no node, parameter or module {name!r}; there are {', '.join(close)}")
        found = (parameters or main)[0]
    if found not in plan.problem.get("members", {}):
        raise PlanError(f"{name} is no decision of this plan, or the plan is of an older autotp: make it again")
    return found


def _ends(path: str, name: str) -> bool:
    return fnmatchcase(path, name) or fnmatchcase(path, f"*.{name}")


def stored_problem(plan: Plan) -> tuple[Problem, list[list[int]]]:
    """The plan's problem, and the strategies that its constraints leave to every node."""
    problem = from_dict(plan.problem)
    if not plan.summary["solver"]["fits"]:  # the plan was made without a limit, since none of the limits can be kept
        problem = replace(problem, limit_bytes=np.full_like(problem.limit_bytes, np.inf))
    everything = [list(range(len(node.cost_s))) for node in problem.nodes]
    return problem, plan.problem.get("allowed") or everything


def plan_words(plan: Plan, node: str) -> tuple[str, ...]:
    """What the plan does with a node on every axis."""
    table, index = plan.problem["words"], plan.problem["members"][node]
    return tuple(table[plan.problem["strategies"][index][plan.problem["choices"][index]]])


def _groups(plan: Plan, index: int, allowed: Sequence[int]) -> dict[str, list[int]]:
    """Strategies by their words."""
    table = plan.problem["words"]
    found: dict[str, list[int]] = {}
    for s in allowed:
        found.setdefault(" / ".join(table[plan.problem["strategies"][index][s]]), []).append(s)
    return found


def _cheapest(problem: Problem, base: Solution, index: int, groups: Mapping[str, Sequence[int]]) -> list[str]:
    if len(groups) <= MAX_ALTERNATIVES:
        return list(groups)
    evaluator = Evaluator(problem)

    def alone_s(words: str) -> float:
        return min(
            evaluator.evaluate([*base.choices[:index], s, *base.choices[index + 1 :]]).cost_s for s in groups[words]
        )

    return sorted(groups, key=alone_s)[:MAX_ALTERNATIVES]


def _forced(
    plan: Plan, problem: Problem, allowed: Sequence[Sequence[int]], index: int, strategies: Sequence[int]
) -> Solution | None:
    forced = [*allowed[:index], strategies, *allowed[index + 1 :]]
    try:
        return solve_restricted(problem, forced, objective=plan.summary["solver"]["objective"])
    except InfeasibleError:
        return None


def _row(words: str, found: Solution | None, is_chosen: bool, wins_if: str | None) -> Alternative:
    if found is None:
        return Alternative(
            words, is_chosen, None, None, "infeasible", "" if is_chosen else wins_if or "no plan with it fits"
        )
    text = "" if is_chosen else wins_if or "nothing that was tried"
    return Alternative(words, is_chosen, found.cost_s, max(found.memory_bytes), found.status, text)


def to_json(found: Explanation, plan: Plan) -> dict[str, Any]:
    """For `--json`: the difference to the plan in seconds and bytes too."""
    # the stored problem counts operator by operator, which on unlike devices is more than the plan's step
    chosen_s = next((row.cost_s for row in found.alternatives if row.is_chosen and row.cost_s is not None), None)
    base_s = plan.summary["predicted"]["step_s"] if chosen_s is None else chosen_s
    most = next((row.memory_bytes for row in found.alternatives if row.is_chosen and row.memory_bytes), None)
    return {
        "node": found.node, "op": found.op, "module": found.module, "count": found.count,
        "num_left_out": found.num_left_out, "with_batches": found.with_batches, "untried": found.untried,
        "alternatives": [
            {
                "strategy": row.words, "is_chosen": row.is_chosen, "status": row.status, "step_s": row.cost_s,
                "memory_bytes": row.memory_bytes,
                "more_s": None if row.cost_s is None else row.cost_s - base_s,
                "more_bytes": None if row.memory_bytes is None or most is None else row.memory_bytes - most,
                "wins_if": row.wins_if,
            }
            for row in found.alternatives
        ],
    }  # fmt: skip
