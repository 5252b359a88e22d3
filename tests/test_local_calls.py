"""The calls that are timed are the ones that ranks make: every candidate of the examples runs, forward and backward."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from autotp.api import capture_for_planning, load_model
from autotp.capture.repeats import fold
from autotp.cost.compute import operator_time_s
from autotp.cost.operator_key import operator_key
from autotp.cost.training import Training
from autotp.hardware.catalogue import load_cluster
from autotp.measuring.local_calls import local_operators, runnable
from autotp.measuring.samples import tensors_of
from autotp.mesh import Mesh
from autotp.placement import R
from autotp.rules.registry import rules_of
from autotp.rules.strategy import Choice, Strategy

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize(
    ("name", "mesh"), [("nanogpt", "tp=2"), ("resnet", "tp=2"), ("moe", "tp=2"), ("mlp", "dp=2,tp=2")]
)
def test_every_candidate_runs_on_its_local_shapes(name: str, mesh: str) -> None:
    captured, _ = capture_for_planning(load_model(str(EXAMPLES / f"{name}.py")), None, mode="train", dtype=None)
    rules = rules_of(captured.graph)
    classes = fold(captured.graph)
    found = local_operators(captured, rules, classes, Mesh.parse(mesh), load_cluster("cpu"), Training())
    assert len({each.key for each in found}) == len(found) > 10
    assert [each.predicted_s for each in found] == sorted((each.predicted_s for each in found), reverse=True)
    for each in found:
        run, operands = runnable(each, torch.device("cpu"))
        outputs = tensors_of(run())
        shapes = each.key.split(" -> ")[1].split(" by ")[0]
        assert shapes.replace("*", "") == ", ".join(map(_text, outputs)), each.key
        trained = [x for x in outputs if x.requires_grad]
        assert bool(trained) == ("*" in shapes), each.key
        if trained:
            gradients = [torch.ones_like(x) for x in trained]
            torch.autograd.grad(trained, [x for x in operands if x.requires_grad], gradients, allow_unused=True)


def _text(x: torch.Tensor) -> str:
    return f"{str(x.dtype).removeprefix('torch.')}{list(x.shape)}"


def test_measured_seconds_are_taken_for_what_has_the_key() -> None:
    captured, _ = capture_for_planning(load_model(str(EXAMPLES / "nanogpt.py")), None, mode="train", dtype=None)
    graph, mesh, cluster = captured.graph, Mesh.parse("tp=2"), load_cluster("cpu")
    node = graph["linear"]
    rule, specs = rules_of(graph)["linear"], graph.input_specs(node)
    whole = Strategy((Choice("whole"),), ((R,),) * len(specs), ((R,),))
    key = operator_key(node, rule, whole, specs)
    assert key == "aten.linear.default(float32[4, 32, 64]*, float32[192, 64]*, float32[192]*; ) -> float32[4, 32, 192]*"
    device = replace(cluster.device(0), operator_times_s={key: (1.0, 2.0)})
    for mode, expected in (("train", (1.0, 2.0)), ("infer", (1.0, 0.0))):
        assert operator_time_s(node, rule, whole, specs, node.outputs, device, mode, mesh) == expected
    gelu = next(each for each in graph if each.short_op == "gelu")
    one = Strategy((Choice("whole"),), ((R,),), ((R,),))
    prices = [
        operator_time_s(
            gelu, rules_of(graph)[gelu.name], one, graph.input_specs(gelu), gelu.outputs, each, "train", mesh
        )
        for each in (device, cluster.device(0))
    ]
    assert prices[0] == prices[1], "what was not measured is the model's"
