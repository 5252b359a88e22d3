"""Runs a `Program`: HiGHS through its own interface, or any solver of PuLP.

HiGHS is handed the arrays as they are: PuLP makes an object of every variable, row and term, which takes longer than
solving (measured in docs of `ilp`). CBC has no such interface, and goes through PuLP; so can HiGHS, as a cross-check.
"""

from dataclasses import dataclass

import highspy
import numpy as np
import pulp

from autotp.errors import AutoTPError
from autotp.solver.problem import Floats
from autotp.solver.program import Program

BACKENDS = ("highs", "cbc", "pulp-highs")
TOLERANCE = 1e-9  # of rows, reduced costs and integrality
GAP = 2e-8  # relative, at which branch and bound stops: what the perturbation of the objective may hide


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """`status`: `optimal`, `infeasible` or `stopped`; the values found, if any, and a proven bound of the objective.

    `reduced_costs`, of a relaxation solved to optimality: what the objective grows by, at least, per unit of a variable.
    """

    status: str
    values: Floats | None
    bound: float
    reduced_costs: Floats | None = None


def run(
    program: Program,
    *,
    relaxed: bool,
    backend: str = "highs",
    time_limit_s: float | None = None,
    node_limit: int | None = None,
) -> Outcome:
    """Minimise, with integers or (`relaxed`) without. Raises AutoTPError for an unknown backend or a failing solver."""
    if backend == "highs":
        return _highs(program, relaxed, time_limit_s, node_limit)
    if backend in BACKENDS:
        return _pulp(program, relaxed, backend, time_limit_s, node_limit)
    raise AutoTPError(f"there is no solver {backend!r}; choose one of {', '.join(BACKENDS)}")


def _highs(program: Program, relaxed: bool, time_limit_s: float | None, node_limit: int | None) -> Outcome:
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = program.num_variables, program.num_rows
    lp.col_cost_, lp.col_lower_, lp.col_upper_ = program.cost, program.lower, program.upper
    lp.row_lower_, lp.row_upper_ = program.row_lower, program.row_upper
    lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    lp.a_matrix_.start_, lp.a_matrix_.index_ = program.starts.astype(np.int32), program.columns.astype(np.int32)
    lp.a_matrix_.value_ = program.values
    if not relaxed:
        kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
        lp.integrality_ = [kinds[integer] for integer in program.integer.tolist()]
    solver = highspy.Highs()  # type: ignore[no-untyped-call]
    options: dict[str, bool | int | float | str] = {
        "output_flag": False,
        "threads": 1,
        "parallel": "off",
        "random_seed": 0,
        "primal_feasibility_tolerance": TOLERANCE,
        "dual_feasibility_tolerance": TOLERANCE,
        "mip_feasibility_tolerance": TOLERANCE,
        "mip_rel_gap": GAP,
        "mip_abs_gap": 0.0,
    }
    if time_limit_s is not None:
        options["time_limit"] = time_limit_s
    if node_limit is not None:
        options["mip_max_nodes"] = node_limit
    for name, value in options.items():
        if solver.setOptionValue(name, value) != highspy.HighsStatus.kOk:
            raise AutoTPError(f"this HiGHS does not take {name}={value}; autotp needs highspy 1.11 or later")
    solver.passModel(lp)
    solver.run()
    if solver.getModelStatus() == highspy.HighsModelStatus.kSolveError:  # seen after presolve, of a limit to the byte
        solver.clearSolver()
        solver.setOptionValue("presolve", "off")
        solver.run()
    return _highs_outcome(solver, relaxed)


def _highs_outcome(solver: highspy.Highs, relaxed: bool) -> Outcome:
    status, info = solver.getModelStatus(), solver.getInfo()
    feasible = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
    kinds = highspy.HighsModelStatus
    if status in (kinds.kInfeasible, kinds.kUnboundedOrInfeasible):
        return Outcome("infeasible", None, np.inf)
    values = np.array(solver.getSolution().col_value) if feasible else None
    if status == kinds.kOptimal and relaxed:
        return Outcome("optimal", values, info.objective_function_value, np.array(solver.getSolution().col_dual))
    if status == kinds.kOptimal:
        return Outcome("optimal", values, info.mip_dual_bound)
    if status in (kinds.kTimeLimit, kinds.kIterationLimit, kinds.kSolutionLimit, kinds.kInterrupt):
        return Outcome("stopped", None if relaxed else values, -np.inf if relaxed else info.mip_dual_bound)
    raise AutoTPError(f"HiGHS gave up: {solver.modelStatusToString(status)}")


def _pulp(program: Program, relaxed: bool, backend: str, time_limit_s: float | None, node_limit: int | None) -> Outcome:
    problem, variables = to_pulp(program)
    if backend == "cbc":
        options = [f"primalTolerance {TOLERANCE}", f"dualTolerance {TOLERANCE}", "randomSeed 1", "randomCbcSeed 1"]
        options += [] if node_limit is None else [f"maxNodes {node_limit}"]
        path = pulp.PULP_CBC_CMD.pulp_cbc_path  # the CBC that comes with PuLP 3
        solver = pulp.COIN_CMD(
            path=path, msg=False, mip=not relaxed, timeLimit=time_limit_s, gapRel=GAP, options=options, threads=None
        )
    else:
        solver = pulp.HiGHS(msg=False, mip=not relaxed, timeLimit=time_limit_s, gapRel=GAP, threads=1)
    problem.solve(solver)
    if problem.sol_status == pulp.LpSolutionInfeasible or problem.status == pulp.LpStatusInfeasible:
        return Outcome("infeasible", None, np.inf)
    proven = problem.sol_status == pulp.LpSolutionOptimal
    values = np.array([variable.varValue or 0.0 for variable in variables])
    if proven:
        prices = np.array([variable.dj or 0.0 for variable in variables]) if relaxed else None
        return Outcome("optimal", values, float(values @ program.cost), prices)
    if problem.sol_status == pulp.LpSolutionIntegerFeasible and not relaxed:
        return Outcome("stopped", values, -np.inf)
    return Outcome("stopped", None, -np.inf)


def to_pulp(program: Program) -> tuple[pulp.LpProblem, list[pulp.LpVariable]]:
    """The same program as a PuLP problem, and its variables in order."""
    bounds = zip(program.lower.tolist(), program.upper.tolist(), program.integer.tolist(), strict=True)
    problem = pulp.LpProblem("autotp", pulp.LpMinimize)
    variables = [
        problem.add_variable(
            f"v{i}", low, None if high == np.inf else high, pulp.LpInteger if integer else pulp.LpContinuous
        )
        for i, (low, high, integer) in enumerate(bounds)
    ]
    problem += pulp.LpAffineExpression(zip(variables, program.cost.tolist(), strict=True))
    columns, values, starts = program.columns.tolist(), program.values.tolist(), program.starts.tolist()
    sides = zip(program.row_lower.tolist(), program.row_upper.tolist(), strict=True)
    for row, (low, high) in enumerate(sides):
        span = slice(starts[row], starts[row + 1])
        terms = [(variables[c], value) for c, value in zip(columns[span], values[span], strict=True)]
        senses = [(pulp.LpConstraintEQ, low)] if low == high else []
        if low != high and low > -np.inf:
            senses.append((pulp.LpConstraintGE, low))
        if low != high and high < np.inf:
            senses.append((pulp.LpConstraintLE, high))
        for sense, side in senses:
            problem += pulp.LpConstraint(pulp.LpAffineExpression(terms), sense, rhs=side)
    return problem, variables
