"""Modules that import torch, loaded when a command needs them, so that help and wrong options answer at once."""

import importlib
from typing import Any


def load(name: str) -> Any:
    """The module `autotp.<name>`."""
    return importlib.import_module(f"autotp.{name}")
