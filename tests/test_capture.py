"""Capture: what is planned is what the model computes, however it is called."""

import dataclasses
import inspect
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autotp.api import capture_for_planning
from autotp.capture.export import Captured, capture
from autotp.capture.model_file import load_model, reload_model
from autotp.errors import CaptureError
from autotp.graph import Graph

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden"


def graph_of(name: str, mode: str = "train", **options: Any) -> Graph:
    return capture_for_planning(load_model(str(ROOT / f"examples/{name}.py"), options), None, mode=mode, dtype=None)[
        0
    ].graph


@pytest.mark.parametrize(("name", "mode"), [("mlp", "train"), ("nanogpt", "train"), ("nanogpt", "infer")])
def test_graphs_print_as_they_did(name: str, mode: str) -> None:
    """AUTOTP_WRITE_GOLDEN=1 writes the files anew; then read what changed."""
    options = {"layers": 1} if name == "nanogpt" else {}
    file, text = GOLDEN / f"{name}-{mode}.txt", f"{graph_of(name, mode, **options)}\n"
    if os.environ.get("AUTOTP_WRITE_GOLDEN"):
        file.write_text(text)
    assert text == file.read_text()


def called(captured: Captured, *args: Any, **kwargs: Any) -> Any:
    return captured.unflatten_outputs(captured.module(*captured.flatten_inputs(args, kwargs)))


@dataclasses.dataclass
class Result:
    loss: Tensor | None
    scores: Tensor


torch.utils._pytree.register_dataclass(Result)


class Tied(nn.Module):
    """Tied weights, a buffer, keywords, an optional input and a dataclass: what language models are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 4)
        self.head = nn.Linear(4, 11, bias=False)
        self.head.weight = self.embed.weight
        self.scale = nn.Buffer(torch.tensor(0.5))

    def forward(self, ids: Tensor, *, labels: Tensor | None = None, bias: Tensor | None = None) -> Result:
        scores = self.head(self.embed(ids)) * self.scale
        scores = scores if bias is None else scores + bias
        loss = None if labels is None else nn.functional.cross_entropy(scores.flatten(0, 1), labels.flatten())
        return Result(loss, scores)


IDS = torch.arange(6).reshape(2, 3)


def test_calls_by_keyword_in_any_order_give_the_models_own_result() -> None:
    model = Tied()
    captured = capture(model, {"labels": IDS + 1, "ids": IDS})
    expected, found = model(ids=IDS + 2, labels=IDS), called(captured, labels=IDS, ids=IDS + 2)
    assert isinstance(found, Result)
    torch.testing.assert_close(found.scores, expected.scores)
    torch.testing.assert_close(found.loss, expected.loss)
    positional = called(captured, IDS + 2, labels=IDS)
    torch.testing.assert_close(positional.scores, expected.scores)


def test_what_is_none_stays_none() -> None:
    captured = capture(Tied(), (IDS,), mode="infer")
    assert called(captured, IDS, labels=None).loss is None
    assert [node.name for node in captured.graph if node.kind == "input"] == ["ids"]


def test_only_the_loss_is_followed_where_only_it_is_wanted() -> None:
    captured = capture(Tied(), {"ids": IDS, "labels": IDS}, outputs="loss")
    (output,) = [node for node in captured.graph if node.kind == "output"]
    assert [captured.graph.spec(value).shape for value in output.inputs] == [()]


def test_tied_weights_are_one_node_and_buffers_are_found() -> None:
    captured = capture(Tied(), (IDS,))
    parameters = [node for node in captured.graph if node.kind == "parameter"]
    assert len(parameters) == 1
    assert captured.tied[parameters[0].name] == ("embed.weight", "head.weight")
    assert [node.target for node in captured.graph if node.kind == "buffer"] == ["scale"]


def test_the_module_trains_the_models_own_parameters() -> None:
    model = Tied()
    captured = capture(model, {"ids": IDS, "labels": IDS})
    called(captured, ids=IDS, labels=IDS).loss.backward()
    found, model.embed.weight.grad = model.embed.weight.grad, None
    model(IDS, labels=IDS).loss.backward()
    torch.testing.assert_close(found, model.embed.weight.grad)


def test_training_and_evaluation_are_captured_as_asked_and_the_model_is_left_alone() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)).eval()
    ops = {mode: [n.op for n in capture(model, (torch.zeros(2, 4),), mode=mode).graph] for mode in ("train", "infer")}
    assert any("dropout" in op for op in ops["train"])
    assert not any("dropout" in op for op in ops["infer"])
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((IDS,), {}, "missing: labels"),
        ((IDS,), {"labels": IDS, "bias": torch.ones(1)}, "not captured: bias"),
        ((IDS[:1],), {"labels": IDS}, r"input ids is torch.int64 \[1, 3\]; the model was captured with torch.int64"),
        ((IDS.float(),), {"labels": IDS}, "input ids is torch.float32"),
        ((IDS,), {"labels": 3}, "input labels was a tensor"),
        ((IDS,), {"lables": IDS}, "unexpected keyword argument 'lables'"),
    ],
)
def test_a_call_that_does_not_fit_is_refused(args: Any, kwargs: Any, message: str) -> None:
    captured = capture(Tied(), {"ids": IDS, "labels": IDS})
    with pytest.raises(CaptureError, match=message):
        captured.flatten_inputs(args, kwargs)


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 3)
        self.gate = Gate()

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(self.inner(x))


class Gate(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_what_depends_on_values_is_refused_with_module_line_and_remedy() -> None:
    line = inspect.getsourcelines(Gate.forward)[1] + 1
    where = re.escape(f"in module gate (Gate, {Path(__file__)}:{line})")
    with pytest.raises(CaptureError, match=rf"{where}.*values.*torch\.where"):
        capture(Branching(), (torch.zeros(2, 3),))


# ---------------------------------------------------------------- model files and configs


def model_file(folder: Path, text: str) -> str:
    path = folder / "some_model.py"
    path.write_text(text)
    return str(path)


GOOD = """
import torch
def build_model(width=4): return torch.nn.Linear(width, width)
def example_inputs(width=4, batch=2): return (torch.zeros(batch, width),)
"""


def test_options_reach_the_functions_that_take_them(tmp_path: Path) -> None:
    source = load_model(model_file(tmp_path, GOOD), {"width": 6}, batch=5)
    assert source.build().weight.shape == (6, 6)
    assert source.example_inputs()[0].shape == (5, 6)
    again = reload_model(json.loads(json.dumps(source.origin)))
    assert again.example_inputs()[0].shape == (5, 6)
    model_file(tmp_path, GOOD + "# changed\n")
    with pytest.raises(CaptureError, match="has changed since the plan was made"):
        reload_model(source.origin)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("x = 1", {}, r"defines no build_model\(\)"),
        ("def build_model(): pass", {}, r"defines no example_inputs\(\)"),
        ("x = (", {}, "cannot be run at line 1: SyntaxError"),
        ("import nowhere", {}, "cannot be run at line 1: ModuleNotFoundError"),
        (GOOD, {"depth": 3}, "has no option depth; its options are batch, width"),
        (
            GOOD.replace("return torch.nn.Linear", "return str"),
            {},
            r"build_model\(\) (failed|must return an nn.Module)",
        ),
        (GOOD, {"width": -1}, r"build_model\(\) failed at line 3: RuntimeError"),
    ],
)
def test_a_wrong_model_file_is_refused(tmp_path: Path, text: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(CaptureError, match=message):
        source = load_model(model_file(tmp_path, text), options)
        source.build()


@pytest.mark.parametrize("as_folder", [False, True])
def test_a_hugging_face_config_is_a_model(tmp_path: Path, as_folder: bool) -> None:
    config = {
        "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "hidden_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48, "vocab_size": 64,
        "max_position_embeddings": 32,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    path = tmp_path if as_folder else tmp_path / "config.json"
    captured, facts = capture_for_planning(load_model(str(path), {}, 2, 8), None, mode="train", dtype="bf16")
    inputs = [node.outputs[0].shape for node in captured.graph if node.kind == "input"]
    assert inputs == [(2, 8), (2, 8)] and facts["origin"]["seq"] == 8
    assert any(node.short_op == "scaled_dot_product_attention" for node in captured.graph)
    assert {node.outputs[0].dtype for node in captured.graph if node.kind == "parameter"} == {"bfloat16"}


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "is not JSON"), ("{}", "has no model_type"), ('{"model_type": "no-such"}', "transformers cannot read")],
)
def test_a_wrong_config_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(CaptureError, match=message):
        load_model(str(tmp_path)).build()
    with pytest.raises(CaptureError, match=r"a folder without a config\.json"):
        load_model(str(GOLDEN))


class Likely(nn.Module):
    """A distribution looks at its parameters' values, which a capture has not."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x, y):
        mean, spread = self.layer(x).unbind(-1)
        return -torch.distributions.Normal(mean, nn.functional.softplus(spread)).log_prob(y).mean()


def test_distributions_are_captured_without_the_checks_of_their_parameters():
    model, inputs = Likely(), {"x": torch.randn(3, 4), "y": torch.randn(3)}
    captured = capture(model, inputs)
    torch.testing.assert_close(captured.module(*captured.flatten_inputs((), inputs))[0], model(**inputs))
    with pytest.raises(ValueError, match="Expected parameter scale"):
        torch.distributions.Normal(0.0, -1.0)
