"""How near to the best a plan is known to be: in a word, and in a sentence."""

from dataclasses import dataclass

from autotp.plans import Plan
from autotp.report.units import seconds

NONE = 1e-6  # relative: a gap that is none


@dataclass(frozen=True, slots=True)
class Proof:
    """`has_shares`: the devices differ and their shares were sought, so that the bound is one for any shares."""

    word: str
    sentence: str
    has_shares: bool = False


def proof_of(plan: Plan) -> Proof:
    """Of a plan's solver, or where shares were sought too of both."""
    solver, balance = plan.summary["solver"], plan.summary["balance"]
    if balance["uneven_axes"] and solver["strategy"] == "optimal" and solver["objective"] == "time":
        if balance["gap"] <= NONE:
            return Proof(
                "proven optimal", "No plan under this cost model is better, whatever the devices' shares: proven.", True
            )
        return Proof(
            f"within {balance['gap']:.1%} of optimal",
            f"Strategies and the devices' shares were sought in turn. Whatever the shares, no step is shorter than "
            f"{seconds(balance['bound_s'])}: this one is within {balance['gap']:.1%} of that.",
            True,
        )
    if solver["status"] == "optimal":
        return Proof(
            "proven optimal", "No plan under this cost model and these choices is better: the solver proved it."
        )
    if solver["status"] == "feasible":
        return Proof(
            f"within {solver['gap']:.1%} of optimal",
            f"A limit stopped the proof: a better plan may exist, by {solver['gap']:.2%} at most.",
        )
    return Proof(solver["status"], f"The plan is of the strategy {solver['strategy']}; no proof was sought.")
