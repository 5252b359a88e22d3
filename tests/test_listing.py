"""The code of a rank, made from the plan alone."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

import autotp
from autotp.api import timed_plan
from autotp.capture.model_file import load_model
from autotp.cost.problem import Training
from autotp.errors import PlanError
from autotp.listing import generated_code
from autotp.planning.search import Options

EXAMPLE = str(Path(__file__).parent.parent / "examples/nanogpt.py")


def test_the_code_is_python_with_the_plans_redistributions_and_local_sizes() -> None:
    options = Options(Training(), objective="memory", gap=0.1)
    source = load_model(EXAMPLE, {"layers": 1})
    plan = timed_plan(source, mesh="tp=3", cluster="cpu", dtype=None, options=options).plan
    codes = [generated_code(plan, rank) for rank in range(3)]
    for code in codes:
        compile(code, "generated", "exec")
        calls = re.findall(r"self\.redistribute_\w+\(", code)
        assert len(calls) == sum(len(moves) for moves in plan.moves.values())
    heads = [re.findall(r"reshape\(getitem\w*, \(4, 32, (\d), 8\)\)", code) for code in codes]
    assert heads == [["3"] * 3, ["3"] * 3, ["2"] * 3]  # q, k and v of 8 heads over 3 ranks
    with pytest.raises(PlanError, match="no rank 3"):
        generated_code(plan, 3)


def test_a_plan_of_a_module_in_memory_says_how_to_see_its_code() -> None:
    plan = autotp.plan(nn.Linear(4, 4), (torch.zeros(2, 4),), mesh="tp=2", cluster="cpu")
    with pytest.raises(PlanError, match=r"graph_module\.code"):
        generated_code(plan)
