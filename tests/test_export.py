"""What an export says and refuses, and the graphs that other libraries read."""

import json
import re
import shutil
import subprocess
from functools import cache

import networkx as nx
import pytest
from report_plans import ROOT, llama_plan, small_plan

import autotp
from autotp.capture.model_file import load_model
from autotp.errors import AutoTPError, PlanError
from autotp.interchange.graphs import graphviz, node_link, to_networkx
from autotp.interchange.roles import Role, roles, wildcards
from autotp.interchange.targets import TARGETS, export
from autotp.plans import Plan


@pytest.fixture(scope="module")
def plan() -> Plan:
    return llama_plan()


def test_layers_that_are_alike_are_one_pattern(plan: Plan) -> None:
    found = json.loads(export(plan, "transformers"))
    assert found["tp_plan"]["model.layers.*.mlp.down_proj"] == "rowwise"
    assert found["tp_plan"]["model.layers.*.self_attn.q_proj"] == "colwise"
    assert found["tp_plan"]["lm_head"] == "colwise_gather_output"
    assert found["tp_plan"]["model.norm"] == "replicate"
    assert found["tp_size"] == 2


def test_a_pattern_never_matches_a_module_of_another_role() -> None:
    rows = [Role("layers.0.up", "column", True), Role("layers.1.up", "column", True)]
    assert set(wildcards(rows, [])) == {"layers.*.up"}
    assert set(wildcards(rows, ["layers.2.up"])) == {"layers.0.up", "layers.1.up"}
    mixed = [*rows, Role("layers.2.up", "row", True)]
    assert set(wildcards(mixed, [])) == {"layers.0.up", "layers.1.up", "layers.2.up"}


def test_megatron_notes_are_a_table(plan: Plan) -> None:
    text = export(plan, "megatron-notes")
    assert "| `model.layers.*.mlp.down_proj` | RowParallelLinear | `input_is_parallel=True` |" in text
    assert "--tensor-model-parallel-size 2" in text


@cache
def fused_plan() -> Plan:
    """Megatron's plan of a model whose q, k and v are one linear layer, and whose head is tied."""
    model = load_model(str(ROOT / "examples" / "nanogpt.py"))
    return autotp.plan(model, mesh="tp=2", cluster="dgx-h100", strategy="megatron")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("llama", r"has unequal shards \("),
        ("nanogpt", r"is split in [0-9]+ blocks \(a fused projection"),
        ("nanogpt", "tied"),
        ("mlp", "ZeRO"),
        ("resnet", "split for conv2d"),
    ],
)
def test_what_others_cannot_express_is_refused_with_the_reason(name: str, reason: str) -> None:
    planned = {"llama": lambda: llama_plan("tp=3"), "nanogpt": fused_plan}.get(name, lambda: small_plan(name))()
    assert any(re.search(reason, sentence) for sentence in roles(planned).refused)
    for target in ("dtensor", "transformers", "megatron-notes"):
        with pytest.raises(PlanError, match=f"{target} cannot express this plan"):
            export(planned, target)


def test_several_axes_are_refused() -> None:
    with pytest.raises(AutoTPError, match="2 axes"):
        export(small_plan("mlp", "dp=2,tp=2"), "dtensor")


def test_partial_leaves_it_whole_and_says_so() -> None:
    text = export(small_plan("nanogpt"), "dtensor", partial=True)
    assert "left whole: " in text
    assert "qkv" not in text.split("PLAN = {")[1]
    compile(text, "exported.py", "exec")


def test_an_unknown_target_is_refused(plan: Plan) -> None:
    with pytest.raises(PlanError, match=f"choose one of {', '.join(TARGETS)}"):
        export(plan, "jax")


def test_the_graph_is_the_plans(plan: Plan) -> None:
    graph = to_networkx(plan)
    assert list(graph) == list(plan.nodes)
    assert graph.number_of_edges() == sum(len(node.inputs) for node in plan.nodes.values())
    assert nx.is_directed_acyclic_graph(graph)
    moved = {source for source, _, moves in graph.edges(data="moves") if moves}
    assert moved <= {value.node for value in plan.moves}
    read = nx.node_link_graph(json.loads(node_link(plan)), edges="edges")
    assert nx.utils.graphs_equal(read, graph)


def test_graphviz_draws_it(plan: Plan) -> None:
    text = graphviz(plan)
    assert text.count("->") == to_networkx(plan).number_of_edges()
    if dot := shutil.which("dot"):
        run = subprocess.run([dot, "-Tcanon"], input=text, capture_output=True, text=True, timeout=60, check=True)
        assert run.stderr == ""
