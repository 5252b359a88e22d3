"""Any model on any number of ranks: right, split, and level in memory."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from random_plans import random_plan
from torch import nn
from torch.nn import functional as F

from autotp.capture.export import capture
from autotp.capture.model_file import load_model
from autotp.cost.compute import operator_time_s
from autotp.cost.shared_heads import copied_bytes, copies_s
from autotp.hardware.catalogue import load_device
from autotp.mesh import Mesh
from autotp.rewrite.localise import localise
from autotp.rewrite.parallelize import build_for_rank
from autotp.rules.dims import DimAnalysis
from autotp.rules.enumerate import Enumerator
from autotp.rules.registry import rules_of
from autotp.runtime.local_ops import local_operator
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


def shared_and_grouped(dropout_p=0.0):
    """A captured attention, and its strategies on four ranks that share key heads, or cut batches."""
    q, k = torch.zeros(4, 14, 64, 8), torch.zeros(4, 2, 64, 8)

    class Attention(nn.Module):
        def forward(self, q, k, v):
            return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout_p, enable_gqa=True)

    captured = capture(Attention(), tuple(x.requires_grad_() for x in (q, k, k.clone())))
    node = next(node for node in captured.graph if node.kind == "op")
    rules, mesh = rules_of(captured.graph), Mesh.parse("tp=4")
    analysis = DimAnalysis(captured.graph, rules, {each.name: each.name for each in captured.graph})
    found = [s for s, _ in Enumerator(captured.graph, rules, analysis, mesh).strategies(node)]
    return captured, node, rules[node.name], next(s for s in found if "h*g" in (s.choices[0].cut or {}))


def test_copies_of_shared_key_heads_are_priced():
    captured, node, rule, shared = shared_and_grouped()
    mesh, device, specs = Mesh.parse("tp=4"), load_device("H100-SXM5-80GB"), captured.graph.input_specs(node)
    slow = replace(device, memory_bytes_per_s=1.0, launch_s=0.0)  # then nothing but bytes takes time
    forward_s, backward_s = operator_time_s(node, rule, shared, specs, node.outputs, slow, "train", mesh, at=(0,))
    query, head = 4 * 4 * 64 * 8 * 4, 4 * 64 * 8 * 4  # bytes of this rank's four query heads, and of one head
    factor = slow.operator_factors.get("index_select", 1.0)
    plain = 2 * query + 2 * 2 * head + 4 * 4 * 64 * 4  # queries, result, keys and values, and the log-sum-exp
    extra = 2 * (4 * head)  # what is kept of the copies
    own = slow.operator_factors.get("scaled_dot_product_attention", 1.0) * (plain + extra)
    assert forward_s == pytest.approx(own + factor * 2 * (2 * 4 * head), rel=1e-6)
    assert copied_bytes(node, shared, specs, (0,)) == {1: (4 * head, 2 * head), 2: (4 * head, 2 * head)}
    assert copies_s(node, shared, specs, slow, (0,), is_trained=True)[1] == pytest.approx(
        slow.operator_factors.get("index_select.backward", 1.0) * 2 * (2 * 4 * head + 2 * head)
    )
    assert backward_s > 2 * (2 * 4 * head)


def test_shared_key_heads_are_dropped_out_as_those_of_one_rank():
    _, node, rule, shared = shared_and_grouped(dropout_p=0.5)
    call, another = (localise(node, rule, shared, Mesh.parse("tp=4"), (rank,)) for rank in (2, 3))
    assert call.local == "seeded_shared_heads"
    ours = local_operator(call.local, call.constants, {})
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(4, heads, 64, 8, generator=generator) for heads in (3, 2, 2))
    seeds = {name: call.constants[name] for name in ("op", "name", "coordinates")}
    whole = local_operator("seeded", seeds, {})
    heads = torch.tensor(call.constants["key_heads"])
    expected = whole(q, k[:, heads], v[:, heads], None, 0.5)
    found = ours(q, k, v, None, 0.5, enable_gqa=True)
    torch.testing.assert_close(found, expected)
    assert not torch.equal(found, ours(q, k, v, None, 0.5, enable_gqa=True)), "every call draws anew"
    other = local_operator(call.local, {**another.constants, "key_heads": call.constants["key_heads"]}, {})
    assert not torch.equal(other(q, k, v, None, 0.5, enable_gqa=True), expected), "other ranks draw other numbers"


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
