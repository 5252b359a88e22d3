"""The models of `examples/`, as files."""

from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from zoo_case import CONVOLUTION, EXPERTS, OTHER, TRANSFORMER, Case

from autotp.capture.model_file import ModelSource, load_model

EXAMPLES = Path(__file__).parents[2] / "examples"
KINDS = {"mlp": OTHER, "nanogpt": TRANSFORMER, "resnet": CONVOLUTION, "moe": EXPERTS}


def build(name: str) -> nn.Module:
    return source(name).build()


def inputs(name: str) -> dict[str, Any] | tuple[Any, ...]:
    return source(name).example_inputs()


def source(name: str) -> ModelSource:
    return load_model(str(EXAMPLES / f"{name}.py"))


CASES = [Case(f"examples/{name}", kind, partial(build, name), partial(inputs, name)) for name, kind in KINDS.items()]
