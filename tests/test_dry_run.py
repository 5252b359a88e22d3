"""Counted memory against the live storage of real steps."""

import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from autotp.api import as_cluster, plan
from autotp.capture.export import capture
from autotp.capture.model_file import load_model
from autotp.cost.training import Training
from autotp.mesh import Mesh
from autotp.planning.dry_run import ShapeCommunicator, rank_memory, run_step
from autotp.planning.planner import make_plan
from autotp.planning.search import Options
from autotp.rewrite.parallelize import build_for_rank
from autotp.runtime.live import LiveStorage

EXAMPLES = Path(__file__).parents[1] / "examples"
SCALED = {  # settings, batch, sequence: peaks of at least 64 MB
    "mlp": ({"width": 1024, "hidden": 2048, "layers": 3}, 64, None),
    "nanogpt": ({}, 192, None),
    "llama": ({}, 64, 64),
    "gpt2": ({"dropout": 0.1}, 32, 64),
    "resnet": ({}, 640, None),
    "moe": ({}, 64, 64),
}


def measured_bytes(captured, plan, flat, training) -> int:
    """The peak of the second of two steps, on real tensors. Nothing is sent, so that values are arbitrary."""
    axes = zip(plan.mesh.axes, plan.mesh.coordinates(0), strict=True)
    communicators = {name: ShapeCommunicator(name, at, size) for (name, size), at in axes}
    module = build_for_rank(captured, plan, 0, communicators)
    live = LiveStorage()
    live.hold([*module.parameters(), *module.buffers()])
    optimizer = torch.optim.AdamW(module.parameters()) if training.optimizer == "adamw" else None
    for _ in range(2):
        run_step(module, flat, live)
        if optimizer is not None:
            with live:
                optimizer.step()
                optimizer.zero_grad()
        else:
            module.zero_grad()
    return live.peak_bytes()


@pytest.mark.parametrize(("mesh", "optimizer"), [("tp=1", "none"), ("tp=2", "adamw")])
@pytest.mark.parametrize("name", SCALED)
def test_counted_bytes_are_those_of_a_real_step(name: str, mesh: str, optimizer: str) -> None:
    settings, batch, seq = SCALED[name]
    source = load_model(str(EXAMPLES / f"{name}.py"), settings, batch, seq)
    torch.manual_seed(0)
    model, inputs = source.build(), source.example_inputs()
    captured, training = capture(model, inputs, outputs="loss"), Training(optimizer=optimizer)
    found = make_plan(
        captured, Mesh.parse(mesh), as_cluster("dgx-h100"), Options(training, objective="memory"), {}
    ).plan
    parts = rank_memory(captured, found, 0, training)
    measured = measured_bytes(captured, found, captured.flatten_inputs((), inputs), training)
    assert measured >= 64e6 / Mesh.parse(mesh).num_ranks, "too small to say anything"
    assert 0.98 * measured <= sum(parts.values()) <= 1.10 * measured, parts


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(64, 64, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.rnn(x)[0].square().mean()


def test_what_only_a_cpus_kernels_keep_is_counted() -> None:
    captured, training = capture(Recurrent(), (torch.zeros(8, 64, 64),)), Training(optimizer="none")
    found = make_plan(captured, Mesh.parse("tp=1"), as_cluster("cpu"), Options(training), {}).plan
    measured = measured_bytes(captured, found, [torch.zeros(8, 64, 64)], training)
    assert sum(rank_memory(captured, found, 0, training).values()) == pytest.approx(measured, rel=0.02)


class Loss(nn.Module):
    def __init__(self, loss):
        super().__init__()
        self.linear, self.loss = nn.Linear(256, 512), loss

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.loss(self.linear(x).sigmoid(), y)


@pytest.mark.parametrize(
    "loss", [F.mse_loss, F.smooth_l1_loss, F.binary_cross_entropy, F.soft_margin_loss, F.l1_loss, F.huber_loss]
)
@pytest.mark.parametrize("mesh", ["tp=1", "tp=2"])
def test_a_loss_keeps_what_its_kernel_allocated(loss, mesh) -> None:
    captured, training = capture(Loss(loss), (torch.zeros(512, 256), torch.ones(512, 512))), Training(optimizer="none")
    options = Options(training, objective="memory")
    found = make_plan(captured, Mesh.parse(mesh), as_cluster("dgx-h100"), options, {}).plan
    measured = measured_bytes(captured, found, [torch.zeros(512, 256), torch.ones(512, 512)], training)
    assert 0.98 * measured <= sum(rank_memory(captured, found, 0, training).values()) <= 1.10 * measured


def test_accumulated_gradients_are_there_all_the_time() -> None:
    source = load_model(str(EXAMPLES / "nanogpt.py"), {}, 8, 32)
    torch.manual_seed(0)
    captured = capture(source.build(), source.example_inputs(), outputs="loss")
    found = make_plan(captured, Mesh.parse("tp=2"), as_cluster("dgx-h100"), Options(), {}).plan
    once, more = (rank_memory(captured, found, 0, Training(accumulation=n)) for n in (1, 4))
    assert more["gradients"] == more["parameters"] and sum(more.values()) > sum(once.values())


def test_inference_keeps_nothing_for_backward() -> None:
    model = nn.Sequential(*(nn.Linear(256, 256) for _ in range(8)))
    captured = capture(model, (torch.zeros(512, 256),), mode="infer")
    found = make_plan(captured, Mesh.parse("tp=1"), as_cluster("cpu"), Options(Training("infer")), {}).plan
    parts = rank_memory(captured, found, 0, Training("infer"))
    layer = 512 * 256 * 4
    assert parts["activations"] == 3 * layer  # the input, one layer's result, and the next one's
    assert parts["parameters"] == 8 * 4 * (256 * 256 + 256)


def test_a_plan_says_that_it_was_counted_and_whether_it_fits() -> None:
    model = nn.Linear(1024, 1024)
    x = torch.zeros(8, 1024)
    found = plan(model, (x,), mesh="tp=2")
    predicted = found.summary["predicted"]
    assert predicted["memory_method"] == "counted"
    assert predicted["memory_bytes"] == [sum(parts.values()) for parts in predicted["memory_parts_bytes"]]
    tiny = as_cluster("cpu")
    device = replace(tiny.device(0), memory_bytes=10**6, process_bytes=0)
    tiny = replace(tiny, device_profiles={device.name: device})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = plan(model, (x,), mesh="tp=2", cluster=tiny, strategy="replicated")
    assert not found.summary["solver"]["fits"] and any("the plan does not fit: rank" in str(w.message) for w in caught)
