"""autotp: plan how to split a PyTorch model over devices, and run the result tensor-parallel.

The names below load on first use, so that the command line can print help without importing torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autotp.analysis.sweeps import sweep
    from autotp.api import auto_shard, parallelize, plan
    from autotp.errors import AutoTPError
    from autotp.hardware.catalogue import load_cluster
    from autotp.mesh import Mesh
    from autotp.plans import Plan
    from autotp.rules.custom import register_rule
    from autotp.verification import verify

_HOME = {
    "AutoTPError": "autotp.errors",
    "Mesh": "autotp.mesh",
    "Plan": "autotp.plans",
    "auto_shard": "autotp.api",
    "load_cluster": "autotp.hardware.catalogue",
    "parallelize": "autotp.api",
    "plan": "autotp.api",
    "register_rule": "autotp.rules.custom",
    "sweep": "autotp.analysis.sweeps",
    "verify": "autotp.verification",
}

__all__ = [
    "AutoTPError", "Mesh", "Plan", "auto_shard", "load_cluster", "parallelize", "plan", "register_rule", "sweep", "verify",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'autotp' has no attribute {name!r}")
