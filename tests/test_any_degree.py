"""Any model on any number of ranks: right, split, and level in memory."""

from pathlib import Path

import pytest
import torch
from random_plans import random_plan
from torch import nn
from torch.nn import functional as F

from autotp.capture.export import capture
from autotp.capture.model_file import load_model
from autotp.mesh import Mesh
from autotp.rewrite.parallelize import build_for_rank
from autotp.runtime.simulate import run_ranks
from autotp.runtime.verify import reference_of, summarise, verify_rank
from autotp.verification import verify

FOLDER = Path(__file__).parent
EXAMPLES = FOLDER.parent / "examples"
GPT2 = {"kind": "gpt2", "heads": 12, "hidden": 24, "vocab": 50257}
CASES = {
    "qwen2": (FOLDER / "models_any_degree.py", {}),
    "gpt2": (FOLDER / "models_any_degree.py", GPT2),
    "llama": (EXAMPLES / "llama.py", {"layers": 1}),
    "nanogpt": (EXAMPLES / "nanogpt.py", {"layers": 1}),
    "resnet": (EXAMPLES / "resnet.py", {}),
    "moe": (EXAMPLES / "moe.py", {"layers": 1}),
    "25 heads": (FOLDER / "models_any_degree.py", {"kind": "gpt2", "heads": 25, "hidden": 100, "vocab": 307}),
    "353 columns": (FOLDER / "models_any_degree.py", {"kind": "llama", "heads": 8, "kv": 4, "hidden": 64, "ffn": 353}),
    "7 channels": (FOLDER / "models_any_degree.py", {"kind": "convolutions"}),
}
SIMULATED = [
    ("qwen2", 5),
    ("qwen2", 7),
    ("gpt2", 3),
    ("25 heads", 8),
    ("353 columns", 6),
    ("7 channels", 3),
    ("moe", 7),
]


def check(name, ranks, backend):
    path, settings = CASES[name]
    found = verify(load_model(str(path), settings), mesh=ranks, backend=backend)
    assert found["ok"], found["problems"]
    assert found["coverage"]["split_matmul_flops_fraction"] >= 0.95
    assert max(found["parameter_bytes_per_rank"]) <= 1.35 * found["whole_parameter_bytes"] / ranks


@pytest.mark.parametrize("name, ranks", SIMULATED)
def test_on_simulated_ranks(name, ranks):
    check(name, ranks, "local")


def verified(captured, inputs, plan):
    flat = captured.flatten_inputs((), inputs)
    reference = reference_of(captured.module, lambda module: module(*flat), "train")

    def rank_main(rank, communicators):
        module = build_for_rank(captured, plan, rank, communicators)
        return verify_rank(module, lambda m: m.graph_module(*flat), reference)

    return summarise(run_ranks(plan.mesh, rank_main), reference, captured.module)


class Grouped(nn.Module):
    """14 query heads over 2 key heads, in one operator."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(28, n) for n in (56, 8, 8))
        self.out = nn.Linear(56, 28)

    def forward(self, x, target):
        q, k, v = (part(x).unflatten(-1, (-1, 4)).transpose(1, 2) for part in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return F.mse_loss(self.out(y.transpose(1, 2).flatten(2)), target)


def plan_by(captured, ranks, wanted):
    """A plan by chance, but for the operators for which `wanted(node, strategy)` holds for some strategy."""

    def choose(node, strategies):
        return next((s for s in strategies if wanted(node, s)), None)

    return random_plan(captured, Mesh((("tp", ranks),)), 1, split=0.7, choose=choose)


@pytest.mark.parametrize("ranks, sizes", [(4, {3, 4}), (5, {2, 3}), (8, {1, 2})])
def test_query_heads_are_even_where_ranks_share_key_heads(ranks, sizes):
    """Keys and values are whole on every rank, with summed gradients."""
    torch.manual_seed(0)
    inputs = {name: torch.randn(2, 6, 28, dtype=torch.float64) for name in ("x", "target")}
    captured = capture(Grouped().double(), inputs)
    plan = plan_by(captured, ranks, lambda node, s: "h*g" in (s.choices[0].cut or {}))
    (shared,) = (s for name, s in plan.strategies.items() if name.startswith("scaled_dot"))
    assert [str(state) for (state,) in shared.operands[1:]] == ["B", "B"]
    assert set(shared.results[0][0].blocks[0]) == sizes
    summary = verified(captured, inputs, plan)
    assert summary["ok"], summary["problems"]


def test_a_rank_without_heads_runs_on():
    """Three heads on five ranks: two have nothing of the attention, and gradients are right all the same."""
    source = load_model(str(FOLDER / "models_any_degree.py"), {"kind": "gpt2", "heads": 3, "hidden": 24})
    torch.manual_seed(0)
    inputs = source.example_inputs()
    captured = capture(source.build().double(), inputs)
    plan = plan_by(captured, 5, lambda node, s: node.short_op.startswith("scaled_dot") and str(s.choices[0]) == "h")
    (strategy,) = (s for name, s in plan.strategies.items() if name.startswith("scaled_dot"))
    assert sorted(strategy.results[0][0].blocks[0]) == [0, 0, 1, 1, 1]
    summary = verified(captured, inputs, plan)
    assert summary["ok"], summary["problems"]
