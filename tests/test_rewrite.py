"""The rewriter on hand-made and on random plans, run on simulated ranks against the whole module in float64."""

import importlib.util
from pathlib import Path

import pytest
import torch
from random_plans import plan_of, random_plan
from torch import nn
from torch.nn import functional as F
from traces import check_issued, record

from autotp.capture.build import build_fake
from autotp.capture.export import capture
from autotp.errors import AutoTPError, PlanError
from autotp.mesh import Mesh
from autotp.placement import B, P, R, shard, split_blocks
from autotp.rewrite.checkpoint import gather_state_dict, load_whole_state_dict
from autotp.rewrite.parallelize import build_for_rank
from autotp.rewrite.shards import shard_tensor, unshard
from autotp.rules.registry import rules_of
from autotp.rules.rule import states
from autotp.rules.strategy import Choice, Strategy
from autotp.runtime.simulate import run_ranks
from autotp.runtime.verify import reference_of, summarise, verify_rank

EXAMPLES = Path(__file__).parents[1] / "examples"
HIDDEN = 14


class MLP(nn.Module):
    """Two layers, and a gate beside the first one, so that one input has two readers."""

    def __init__(self):
        super().__init__()
        self.up, self.gate = nn.Linear(6, HIDDEN), nn.Linear(6, HIDDEN)
        self.down = nn.Linear(HIDDEN, 6)
        self.unused = nn.Linear(2, 2)
        self.register_buffer("scale", torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
        self.register_buffer("hidden", torch.ones(6), persistent=False)

    def forward(self, x, target=None):
        x = torch.tanh(x * self.scale + self.hidden)
        y = self.down(F.silu(self.gate(x)) * self.up(x))
        return y if target is None else F.mse_loss(y, target)


def captured_mlp(mode="train"):
    torch.manual_seed(0)
    model = MLP().double()
    inputs = {"x": torch.randn(4, 6, dtype=torch.float64)}
    return model, inputs, capture(model, inputs, mode=mode)


def column_row_plan(captured, mesh):
    """Megatron's plan: columns of up and gate, rows of down, everything between by hidden elements; the rest whole."""
    blocks = split_blocks(1, HIDDEN, 1, mesh.sizes[0])
    rules, strategies = rules_of(captured.graph), {}
    for node in captured.graph:
        whole = Strategy((Choice("whole"),), ((R,),) * len(node.inputs), ((R,),) * len(node.outputs))
        strategies[node.name] = whole
        if node.kind == "op":
            rule = rules[node.name]
            letters = [letter for letter, extent in rule.extents.items() if extent == HIDDEN]
            if letters:
                cut = {letters[0]: blocks}
                operands, results = states(rule, cut)
                strategies[node.name] = Strategy(
                    (Choice("cut", cut),), tuple((s,) for s in operands), tuple((s,) for s in results)
                )
    cuts = {"up.weight": 0, "up.bias": 0, "gate.weight": 0, "gate.bias": 0, "down.weight": 1}
    for node in captured.graph:
        if node.target in cuts:
            placement = (shard(cuts[node.target], blocks),)
            strategies[node.name] = Strategy((Choice("whole"),), (), (placement,))
    return plan_of(captured, mesh, strategies)


def verified(captured, plan, flat, timeout_s=60):
    """The summary of verifying a plan on simulated ranks, which also issue the collectives of the plan and no others."""
    whole = reference_of(captured.module, lambda module: module(*flat), plan.mode)

    def rank_main(rank, communicators):
        module = build_for_rank(captured, plan, rank, communicators)
        trace, forward = record(communicators), []

        def run(m):
            found = m.graph_module(*flat)
            forward.extend(trace)
            return found

        report = verify_rank(module, run, whole)
        check_issued(captured.graph, plan, rank, forward, trace[len(forward) :])
        return report

    return summarise(run_ranks(plan.mesh, rank_main, timeout_s=timeout_s), whole, captured.module)


def build_all(captured, plan, function, **options):
    """`function(module, rank)` of every rank's module."""
    return run_ranks(plan.mesh, lambda rank, c: function(build_for_rank(captured, plan, rank, c, **options), rank))


@pytest.mark.parametrize("size", [2, 3, 4])
def test_column_row(size):
    model, inputs, captured = captured_mlp()
    plan = column_row_plan(captured, Mesh((("tp", size),)))
    summary = verified(captured, plan, captured.flatten_inputs((), inputs))
    assert summary["ok"], summary["problems"]
    assert max(summary["max_relative_error"].values()) < 1e-13
    whole = sum(p.numel() * 8 for p in model.parameters())
    assert summary["whole_parameter_bytes"] == whole
    assert max(summary["parameter_bytes_per_rank"]) < whole * (0.7 if size == 2 else 0.55)


def test_two_readers_share_one_backward_reduction_and_ranks_agree_on_the_trace():
    _, inputs, captured = captured_mlp()
    plan = column_row_plan(captured, Mesh((("tp", 2),)))

    def rank_main(rank, communicators):
        module = build_for_rank(captured, plan, rank, communicators)
        communicators["tp"].trace = trace = []
        out = module(**inputs)
        forward = len(trace)
        out.sum().backward()
        return trace[:forward], trace[forward:]

    traces = run_ranks(plan.mesh, rank_main)
    assert traces[0] == traces[1]
    forward, backward = traces[0]
    assert [call.collective for call in forward] == ["all_reduce"]  # the sum after down
    assert [call.collective for call in backward] == []  # nothing before the layers is trained: x is an input


def test_a_replicated_activation_costs_one_all_reduce_for_all_its_readers():
    class Normed(MLP):
        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm(6)

        def forward(self, x):
            return super().forward(self.norm(x))

    model = Normed().double()
    inputs = {"x": torch.randn(4, 6, dtype=torch.float64)}
    captured = capture(model, inputs)
    plan = column_row_plan(captured, Mesh((("tp", 3),)))

    def rank_main(rank, communicators):
        module = build_for_rank(captured, plan, rank, communicators)
        out = module(**inputs)
        communicators["tp"].trace = trace = []
        out.sum().backward()
        return [call.collective for call in trace], module.code

    for trace, code in run_ranks(plan.mesh, rank_main):
        assert trace == ["all_reduce"], "up and gate must share the reduction of their input's gradient"
        assert code.count("_tp_R_to_B(") == 1 and code.count("_tp_P_to_R(") == 1
    summary = verified(captured, plan, captured.flatten_inputs((), inputs))
    assert summary["ok"], summary["problems"]


@pytest.mark.parametrize("mesh", ["tp=2", "tp=3", "dp=2,tp=2"])
def test_random_plans_of_the_mlp(mesh):
    _, inputs, captured = captured_mlp()
    flat = captured.flatten_inputs((), inputs)
    for seed in range(12):
        summary = verified(captured, random_plan(captured, Mesh.parse(mesh), seed, split=0.9), flat)
        assert summary["ok"] and max(summary["max_relative_error"].values()) < 1e-12, (seed, summary)


@pytest.mark.parametrize("mesh", ["tp=2", "tp=3", "dp=2,tp=2"])
@pytest.mark.parametrize("name", ["nanogpt", "moe"])
def test_random_plans_of_examples(name, mesh):
    captured, flat = example(name)
    for seed in range(2):
        summary = verified(captured, random_plan(captured, Mesh.parse(mesh), seed, split=0.9), flat)
        assert summary["ok"] and max(summary["max_relative_error"].values()) < 1e-11, (seed, summary)


def example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.manual_seed(0)
    model = module.build_model().double()
    inputs = {k: v.double() if v.is_floating_point() else v for k, v in module.example_inputs().items()}
    captured = capture(model, inputs, outputs="loss")
    return captured, captured.flatten_inputs((), inputs)


def test_verification_sees_a_missing_reduction():
    _, inputs, captured = captured_mlp()
    plan = column_row_plan(captured, Mesh((("tp", 2),)))
    flat = captured.flatten_inputs((), inputs)
    whole = reference_of(captured.module, lambda module: module(*flat), "train")

    def rank_main(rank, communicators):
        module = build_for_rank(captured, plan, rank, communicators)
        for name, _ in module.graph_module.named_children():
            if name.endswith("P_to_R"):
                setattr(module.graph_module, name, nn.Identity())
        return verify_rank(module, lambda m: m.graph_module(*flat), whole)

    summary = summarise(run_ranks(plan.mesh, rank_main), whole, captured.module)
    assert not summary["ok"] and summary["max_relative_error"]["output"] > 0.01
    assert any("differs from its replica" in problem for problem in summary["problems"])


def test_names_and_identity_are_the_models():
    model, _, captured = captured_mlp()
    plan = column_row_plan(captured, Mesh((("tp", 2),)))
    code = captured.module.code

    def look(module, rank):
        assert list(module.state_dict()) == list(model.state_dict())
        assert dict(module.named_buffers()).keys() == dict(model.named_buffers()).keys()
        assert module.up.weight is module.graph_module.up.weight
        assert isinstance(module.up.weight, nn.Parameter) and tuple(module.up.weight.shape) == (HIDDEN // 2, 6)
        assert not any("redistribute" in name for name, _ in module.named_modules())
        module.float()  # replaces buffers: the code must see the new ones
        assert module.graph_module.scale.dtype == torch.float32
        return module.up.weight.data_ptr()

    pointers = build_all(captured, plan, look)
    assert len({*pointers, model.up.weight.data_ptr()}) == 3, "ranks and model must not share memory"
    assert captured.module.code == code and captured.module.up.weight is model.up.weight


def test_tied_weights_stay_one_parameter():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(10, 4)
            self.head = nn.Linear(4, 10, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, ids):
            return self.head(torch.tanh(self.embed(ids)))

    model = Tied().double()
    ids = torch.randint(0, 10, (3, 5))
    captured = capture(model, (ids,))
    for seed in range(6):
        plan = random_plan(captured, Mesh((("tp", 3),)), seed)

        def look(module, rank):
            assert module.embed.weight is module.head.weight
            assert len(list(module.parameters())) == 1 and list(module.state_dict()) == list(model.state_dict())

        build_all(captured, plan, look)
        summary = verified(captured, plan, [ids])
        assert summary["ok"], summary["problems"]


def test_fake_parameters_are_made_in_local_shape_only():
    module, fake_mode = build_fake(MLP)
    captured = capture(module, {"x": torch.randn(4, 6)}, fake_mode=fake_mode)
    plan = column_row_plan(captured, Mesh((("tp", 2),)))
    made = {}

    def init(name, local):
        made[name] = tuple(local.shape)
        local.fill_(0.5)

    def look(module, rank):
        assert torch.equal(module.up.weight, torch.full((HIDDEN // 2, 6), 0.5))
        assert torch.equal(module.scale, torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])), "buffers keep their values"
        return module(torch.ones(4, 6)).shape

    assert build_all(captured, plan, look, init=init) == [(4, 6)] * 2
    assert made["down.weight"] == (6, HIDDEN // 2) and "scale" not in made
    build_all(captured, plan, lambda module, rank: None)  # zeros without init
    meta = build_all(
        captured, plan, lambda m, rank: {p.device.type for p in m.parameters()}, device=torch.device("meta")
    )
    assert meta == [{"meta"}] * 2


def test_whole_checkpoints_go_in_and_out():
    model, inputs, captured = captured_mlp()
    torch.manual_seed(1)
    other = MLP().double()
    expected = other(**inputs)
    for mesh, seed in (("tp=3", 0), ("dp=2,tp=2", 1), ("dp=2,tp=3", 2)):
        plan = random_plan(captured, Mesh.parse(mesh), seed)

        def look(module, rank):
            load_whole_state_dict(module, other.state_dict())
            assert torch.allclose(module(**inputs), expected, atol=1e-12)
            return gather_state_dict(module)

        for state in build_all(captured, plan, look):
            assert list(state) == list(model.state_dict())
            assert all(torch.equal(state[name], whole) for name, whole in other.state_dict().items())


@pytest.mark.parametrize("change", ["missing", "unknown", "shape"])
def test_a_foreign_checkpoint_is_an_error_and_changes_nothing(change):
    model, _, captured = captured_mlp()
    plan = column_row_plan(captured, Mesh((("tp", 2),)))
    state = {name: x.clone() + 1 for name, x in model.state_dict().items()}
    if change == "missing":
        del state["up.bias"]
    elif change == "unknown":
        state["other"] = torch.ones(2)
    else:
        state["up.bias"] = torch.ones(3)

    def look(module, rank):
        with pytest.raises(PlanError, match="not this model's"):
            load_whole_state_dict(module, state)
        return gather_state_dict(module)

    for kept in build_all(captured, plan, look):
        assert all(torch.equal(kept[name], whole) for name, whole in model.state_dict().items())


def test_shards_of_every_rank_make_the_whole():
    mesh = Mesh((("dp", 2), ("tp", 3)))
    whole = torch.arange(5 * 12).reshape(5, 12)
    inner = shard(1, [(2, 1), (1, 0), (0, 2), (3, 3)])
    for placement in [(R, R), (inner, shard(1, [(3, 1, 2), (4, 1, 1)])), (shard(0, [(5, 0)]), inner), (B, R)]:
        if placement[1] == inner:
            placement = (placement[0], shard(1, [(2, 1, 1), (4, 0, 4)]))
        shards = [shard_tensor(whole, placement, mesh, mesh.coordinates(rank)) for rank in range(6)]
        assert torch.equal(unshard(shards, whole.shape, placement, mesh), whole)
        assert all(part.is_contiguous() and part.data_ptr() != whole.data_ptr() for part in shards)


def test_errors_say_what_does_not_fit():
    _, _, captured = captured_mlp()
    mesh = Mesh((("tp", 2),))
    plan = column_row_plan(captured, mesh)
    _, _, other = captured_mlp("infer")
    cases = [
        (lambda: build_all(other, plan, lambda m, r: m), PlanError, "made for another model"),
        (
            lambda: run_ranks(Mesh((("tp", 3),)), lambda rank, c: build_for_rank(captured, plan, 0, c)),
            AutoTPError,
            "the plan is for the mesh tp=2",
        ),
        (lambda: build_all(captured, without_moves(plan), lambda m, r: m), PlanError, "no way from"),
        (lambda: shard_tensor(torch.ones(4), (P,), mesh, (0,)), PlanError, "cannot be placed"),
        (lambda: unshard([torch.ones(2), torch.ones(3)], (4,), (shard(0, [(2, 2)]),), mesh), PlanError, "rank 1"),
    ]
    for call, error, message in cases:
        with pytest.raises(error, match=message):
            call()


def without_moves(plan):
    return type(plan)(**{name: getattr(plan, name) for name in plan.__slots__} | {"moves": {}})
