"""Which solution to a planning problem: the strategy and the limits that the user asked for, and the baselines."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from autotp.cost.problem import PlanningProblem, with_limit
from autotp.cost.training import Training
from autotp.errors import AutoTPError, InfeasibleError
from autotp.planning.synchronised import judged
from autotp.redistribute import REDUCE_DTYPES
from autotp.regions import CHECKPOINTING
from autotp.solver.baselines import fixed, solve_restricted
from autotp.solver.greedy import greedy
from autotp.solver.ilp import solve
from autotp.solver.problem import Problem, Solution

STRATEGIES = ("optimal", "greedy", "replicated", "megatron")
OBJECTIVES = ("time", "memory")
SOLVERS = ("highs", "cbc")
TIME_LIMIT_S = 60.0  # of one search: a safety net; a plan that met it says so


@dataclass(frozen=True)
class Options:
    """What the user asks of the planner.

    `memory_bytes`: a limit per device that must hold; without one the device's capacity. A baseline that does not fit
    the devices is planned all the same, and says so. `keeps_order`: rank r is on device r of the cluster, whatever would be
    faster. `gap`: how much longer than the least a step may take; zero for the
    best plan.
    """

    training: Training = field(default_factory=Training)
    memory_bytes: float | None = None
    objective: str = "time"
    strategy: str = "optimal"
    is_folded: bool = True
    time_limit_s: float | None = TIME_LIMIT_S
    is_strict: bool = False
    solver: str = "highs"
    gap: float = 0.0
    force: tuple[str, ...] = ()  # see `constraints`
    forbid: tuple[str, ...] = ()
    keeps_order: bool = False

    def __post_init__(self) -> None:
        for name, value, known in (
            ("objective", self.objective, OBJECTIVES),
            ("strategy", self.strategy, STRATEGIES),
            ("mode", self.training.mode, ("train", "infer")),
            ("optimizer", self.training.optimizer, ("none", "sgd", "adamw")),
            ("checkpointing", self.training.checkpointing, CHECKPOINTING),
            ("reduce_dtype", self.training.reduce_dtype or REDUCE_DTYPES[0], REDUCE_DTYPES),
            ("solver", self.solver, SOLVERS),
        ):
            if value not in known:
                raise AutoTPError(f"unknown {name} {value!r}: choose one of {', '.join(known)}")
        if (self.force or self.forbid) and self.strategy != "optimal":
            raise AutoTPError(f"--strategy {self.strategy} leaves nothing to force or forbid: choose optimal")
        if self.training.accumulation < 1:
            raise AutoTPError(f"accumulation must be at least 1, not {self.training.accumulation}")
        for name, number in (("memory limit", self.memory_bytes), ("time limit", self.time_limit_s)):
            if number is not None and not number > 0:
                raise AutoTPError(f"the {name} must be positive, not {number:g}")


def limits_of(asked_bytes: float | None, capacity_bytes: Sequence[float]) -> list[float]:
    """What every device may hold: the user's limit, else what it has."""
    if asked_bytes is None:
        return list(capacity_bytes)
    if len(set(capacity_bytes)) > 1 and math.isfinite(asked_bytes):  # a limit for all gives none more than it has
        return [min(asked_bytes, capacity) for capacity in capacity_bytes]
    return [asked_bytes] * len(capacity_bytes)


def stated(limits_bytes: Sequence[float]) -> dict[str, Any]:
    """Limits per rank as a plan's summary says them."""
    return {"memory_limit_bytes": min(limits_bytes), "memory_limits_bytes": list(limits_bytes)}


class Search:
    """Solves one planning problem.

    `capacity_bytes`: what every site has. `allowed`: Megatron's strategies per node, None where the model has no such plan.
    `constrained`: per node the strategies that the user's constraints leave; None without constraints.
    """

    def __init__(
        self,
        planning: PlanningProblem,
        options: Options,
        capacity_bytes: Sequence[float],
        allowed: Sequence[Sequence[int]] | None,
        constrained: Sequence[Sequence[int]] | None = None,
    ) -> None:
        self._planning, self._options, self._allowed = planning, options, allowed
        self._capacity, self._constrained = capacity_bytes, constrained
        self._free_s: float | None = None
        if options.strategy == "megatron" and allowed is None:
            raise AutoTPError(
                "this model has no Megatron plan (no linear layers, or convolutions): choose --strategy optimal"
            )

    @property
    def limit_bytes(self) -> list[float]:
        """What a plan should fit in, for every site: the user's limit, else what the device has."""
        return limits_of(self._options.memory_bytes, self._capacity)

    @property
    def constrained(self) -> Sequence[Sequence[int]] | None:
        """Per node the strategies that the user's constraints leave; None without constraints."""
        return self._constrained

    def fits(self, solution: Solution) -> bool:
        """Whether a solution keeps the limit of every site."""
        return _fits(solution, self.limit_bytes)

    def find(self, below_s: float = math.inf) -> Solution | None:
        """The solution asked for, within the limits. Raises InfeasibleError where none is.

        None where even without limits of memory no step is shorter than `below_s`.
        """
        return self._within(self.limit_bytes, below_s)

    @property
    def free_s(self) -> float | None:
        """Seconds of the best step if memory were unlimited; None before `find`."""
        return self._free_s

    def find_anyway(self, error: InfeasibleError) -> Solution:
        """A plan that people would write where it does not fit the devices: made all the same, to compare with.

        The best plan is planned within memory or not at all: raises `error` again, also where the user set the limit.
        """
        if self._options.memory_bytes is not None or self._options.strategy == "optimal":
            raise error
        return self._run(with_limit(self._planning, math.inf).problem)

    def _within(self, limit: Sequence[float], below_s: float) -> Solution | None:
        if self._options.strategy != "greedy":
            # Without a binding limit the program is smaller and its relaxation integral: try that first.
            free = self._run(with_limit(self._planning, math.inf).problem)
            self._free_s = free.cost_s
            if _fits(free, limit):
                return free
            if free.cost_s >= below_s and self._options.objective == "time":
                return None
            if self._options.strategy == "replicated" or self._options.objective == "memory":
                raise InfeasibleError(self._excess(free, limit))
        return self._run(with_limit(self._planning, limit).problem)

    def _run(self, problem: Problem) -> Solution:
        options = self._options
        if options.strategy == "replicated":
            return fixed(problem, self._whole())
        if options.strategy == "greedy":
            return greedy(problem)
        if options.strategy == "megatron":
            assert self._allowed is not None
            return solve_restricted(
                problem, self._allowed, objective=options.objective, backend=options.solver,
                time_limit_s=options.time_limit_s, gap=options.gap,
            )  # fmt: skip
        if self._constrained is not None:
            return solve_restricted(
                problem, self._constrained, objective=options.objective, backend=options.solver,
                time_limit_s=options.time_limit_s, gap=options.gap,
            )  # fmt: skip
        return solve(
            problem, objective=options.objective, backend=options.solver, time_limit_s=options.time_limit_s,
            gap=options.gap,
        )  # fmt: skip

    def _whole(self) -> list[int]:
        """The first strategy of every node splits nothing."""
        return [0] * len(self._planning.strategies)

    def _excess(self, solution: Solution, limit: Sequence[float]) -> str:
        names = self._planning.problem.device_names
        worst = max(range(len(names)), key=lambda i: solution.memory_bytes[i] - limit[i])
        held, room = solution.memory_bytes[worst], limit[worst]
        return (
            f"{names[worst]} has {room:.4g} bytes, {held - room:.4g} bytes too few: this plan needs {held:.4g} bytes "
            "there. Use more devices, a smaller batch, or another --strategy"
        )

    def baselines(self, solution: Solution, single_device_s: float) -> Mapping[str, Any]:
        """Step times of plans people would write, under the same cost model; None where a model has no such plan."""
        replicated = self._row(fixed(self._planning.problem, self._whole()))
        megatron = solution if self._options.strategy == "megatron" else None
        if megatron is None and self._allowed is not None:
            problem = with_limit(self._planning, math.inf).problem
            megatron = solve_restricted(problem, self._allowed, objective="time", backend=self._options.solver)
        # A replicated step communicates nothing: it is what one device does, the slowest of them.
        single = replicated and {**replicated, "step_s": single_device_s}
        return {"single_device": single, "replicated": replicated, "megatron": self._row(megatron)}

    def _row(self, solution: Solution | None) -> dict[str, Any] | None:
        if solution is None:
            return None
        fits = _fits(solution, self.limit_bytes)
        _, step_s = judged(self._planning, solution, is_trained=self._options.training.mode == "train")
        return {"step_s": step_s, "memory_bytes": max(solution.memory_bytes), "fits": fits}


def _fits(solution: Solution, limit: Sequence[float]) -> bool:
    return all(held <= room for held, room in zip(solution.memory_bytes, limit, strict=True))
