"""Korthikanti et al. 2022 (arXiv 2205.05198), figure 1 and equations 1 to 4, from the tensors that autograd keeps."""

from pathlib import Path

import pytest

from autotp.api import capture_for_planning
from autotp.capture.model_file import load_model
from autotp.cost.training import Training, parameter_bytes
from autotp.hardware.catalogue import load_cluster
from autotp.mesh import Mesh
from autotp.planning.dry_run import kept_bytes
from autotp.planning.planner import make_plan
from autotp.planning.search import Options

GPT = str(Path(__file__).parents[1] / "benchmarks" / "gpt.py")
TP, SEQ, GIB = 8, 2048, 2**30
# size: micro-batch, heads, hidden, layers, how much the first stage of a pipeline holds; GiB: parameters and optimizer,
# activations of tensor parallelism alone, and with sequence parallelism and selective recomputation
FIGURE_1 = {
    "22b": (4, 64, 6144, 48, 1.0, 45.5625, 59.25, 9.5625),
    "175b": (1, 96, 12288, 96, 1 + 7 / (8 * 3), 45.5625, 66.84375, 12.3515625),
}


def replicated(layers: int) -> tuple[str, ...]:
    """Without sequence parallelism: norms, and the two dropouts of every layer that are not attention's, are whole."""
    dropouts = [f"dropout_{3 * layer + number}=whole" for layer in range(layers) for number in (2, 3)]
    return ("*_norm=whole", "norm=whole", "dropout=whole", *dropouts)


def layer_bytes(size: str, batch: int, checkpointing: str, *, is_replicated: bool) -> int:
    """Bytes of activations that one more layer adds on a device."""
    found = []
    for layers in (1, 2):
        source = load_model(GPT, {"size": size, "layers": layers}, batch, None)
        captured, facts = capture_for_planning(source, None, mode="train", dtype=None)
        training = Training(optimizer="none", checkpointing=checkpointing)
        options = Options(training, is_folded=False, strategy="megatron")
        if is_replicated:
            options = Options(training, is_folded=False, force=replicated(layers))
        plan = make_plan(captured, Mesh.parse(f"tp={TP}"), load_cluster("dgx-a100"), options, facts).plan
        found.append(kept_bytes(captured, plan, 0, training, "cuda"))
    return found[1] - found[0]


@pytest.mark.parametrize("size", FIGURE_1)
def test_activations_of_a_layer_are_those_of_figure_1(size: str) -> None:
    batch, heads, hidden, layers, held, parameters_gib, plain_gib, sequence_gib = FIGURE_1[size]
    sbh = SEQ * batch * hidden
    statistics = 2 * 2 * 2 * SEQ * batch  # means and deviations of two norms, bfloat16: the paper leaves them out
    plain = layer_bytes(size, batch, "none", is_replicated=True) - statistics
    assert plain == sbh * (10 + 24 / TP + 5 * heads * SEQ / (hidden * TP))  # equation 2
    assert plain * layers * held / GIB == plain_gib
    # Here a gathered operand that a product keeps is kept whole; the paper gathers its shard again: 2 sbh bytes each.
    gathered = 2 * 2 * sbh * (1 - 1 / TP)
    selective = layer_bytes(size, batch, "selective", is_replicated=False) - statistics / TP - gathered
    assert selective == 34 * sbh / TP  # equation 4 without attention's core
    assert selective * layers * held / GIB == sequence_gib
    mixed = Training(state_dtype="float32", gradient_dtype="float32", has_master=True)
    of_layers = parameter_bytes(12 * hidden**2 * layers // TP, "bfloat16", mixed, trainable=True)
    stages = 1 if size == "22b" else 8
    assert of_layers / stages / GIB == parameters_gib
