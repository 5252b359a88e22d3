"""Plans that the tests of reports and commands look at, each made once."""

from functools import cache
from pathlib import Path

import autotp
from autotp.capture.model_file import load_model
from autotp.plans import Plan

ROOT = Path(__file__).parent.parent


@cache
def small_plan(name: str = "nanogpt", mesh: str = "tp=2", cluster: str = "dgx-h100") -> Plan:
    """A plan of one of the examples, which splits all it can."""
    return autotp.plan(
        load_model(str(ROOT / "examples" / f"{name}.py")), mesh=mesh, cluster=cluster, objective="memory"
    )
