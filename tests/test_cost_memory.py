"""What is kept for backward, against what torch's autograd really keeps, and against published formulas."""

from math import prod

import pytest
import torch
from cost_cases import Case, call, whole
from torch import Tensor

from autotp.cost.memory import saved_bytes_extra, saved_operands, work_bytes
from autotp.cost.training import Training, parameter_bytes, parameter_parts
from autotp.errors import AutoTPError
from autotp.graph import Operand
from autotp.placement import R, shard
from autotp.rules.strategy import Choice, Strategy


def x(*shape: int, grad: bool = True, positive: bool = False) -> Tensor:
    values = torch.rand(shape) + 0.5 if positive else torch.randn(shape)
    return values.requires_grad_(grad)


def indices(high: int, *shape: int) -> Tensor:
    return torch.randint(high, shape)


def cases() -> list[Case]:
    mask = torch.ones(4, 6, dtype=torch.bool)
    return [
        call("linear", x(5, 4), x(3, 4), x(3)),
        call("linear", x(5, 4, grad=False), x(3, 4)),
        call("linear", x(5, 4), x(3, 4, grad=False)),
        call("matmul", x(2, 5, 4), x(2, 4, 3)),
        call("mm", x(5, 4), x(4, 3)),
        call("bmm", x(2, 5, 4), x(2, 4, 3)),
        call("addmm", x(3), x(5, 4), x(4, 3)),
        call("baddbmm", x(2, 5, 3), x(2, 5, 4), x(2, 4, 3)),
        call("conv2d.default", x(2, 3, 8, 8), x(4, 3, 3, 3), x(4)),
        call("mul.Tensor", x(4, 6), x(6)),
        call("mul.Tensor", x(4, 6), x(6, grad=False)),
        call("mul.Tensor", x(4, 6), 2.0),
        call("add.Tensor", x(4, 6), x(4, 6)),
        call("sub.Tensor", x(4, 6), x(6)),
        call("div.Tensor", x(4, 6), x(4, 6, positive=True)),
        call("div.Tensor", x(4, 6), x(4, 6, grad=False, positive=True)),
        call("neg", x(4, 6)),
        call("sum.dim_IntList", x(4, 6), [1]),
        call("mean.dim", x(4, 6), [1]),
        call("softmax.int", x(4, 6), 1),
        call("log_softmax.int", x(4, 6), 1),
        call("tanh", x(4, 6)),
        call("sigmoid", x(4, 6)),
        call("exp", x(4, 6)),
        call("rsqrt", x(4, 6, positive=True)),
        call("sqrt", x(4, 6, positive=True)),
        call("relu", x(4, 6)),
        call("gelu", x(4, 6)),
        call("silu", x(4, 6)),
        call("leaky_relu", x(4, 6)),
        call("elu", x(4, 6)),
        call("softplus", x(4, 6)),
        call("abs", x(4, 6)),
        call("cos", x(4, 6)),
        call("sin", x(4, 6)),
        call("log", x(4, 6, positive=True)),
        call("clamp", x(4, 6), -1.0, 1.0),
        call("pow.Tensor_Scalar", x(4, 6), 2),
        call("where.self", mask, x(4, 6), x(4, 6)),
        call("masked_fill.Scalar", x(4, 6), mask, 0.0),
        call("maximum", x(4, 6), x(4, 6)),
        call("cat", [x(4, 6), x(4, 6)], 1),
        call("transpose.int", x(4, 6), 0, 1),
        call("view", x(4, 6), [24]),
        call("split.Tensor", x(4, 6), 3, 1),
        call("expand", x(4, 1), [4, 6]),
        call("embedding", x(10, 4), indices(10, 3, 2)),
        call("gather", x(4, 6), 1, indices(6, 4, 2)),
        call("index_select", x(4, 6), 1, indices(6, 2)),
        call("topk", x(4, 6), 2),
        call("layer_norm", x(4, 6), [6], x(6), x(6)),
        call("batch_norm", x(4, 3, 2, 2), x(3), x(3), None, None, True, 0.1, 1e-5, False),
        call("cross_entropy_loss", x(4, 6), indices(6, 4)),
        call("scaled_dot_product_attention", x(2, 2, 5, 4), x(2, 2, 5, 4), x(2, 2, 5, 4)),
        call("max_pool2d", x(2, 3, 8, 8), [2, 2]),
        call("avg_pool2d", x(2, 3, 8, 8), [2, 2]),
        call("adaptive_avg_pool2d", x(2, 3, 8, 8), [2, 2]),
        call("repeat_interleave.self_int", x(4, 6), 2, 1),
        call("cumsum", x(4, 6), 1),
        call("amax", x(4, 6), [1]),
        call("logsumexp", x(4, 6), [1]),
        call("pad", x(4, 6), [1, 1]),
        call("dropout", x(4, 6), 0.0, True),
    ]


CASES = {f"{index}-{case.node.short_op}": case for index, case in enumerate(cases())}


def kept_by_torch(case: Case) -> tuple[set[int], set[int], int]:
    """Operands and results that autograd holds after the call, and the bytes of what it holds besides."""
    held: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        results = case.run()
    operands = {i for i, tensor in enumerate(case.tensors) if tensor.untyped_storage().data_ptr() in held}
    own = [tensor.untyped_storage().data_ptr() for tensor in case.tensors]
    kept = {i for i, t in enumerate(results) if t.untyped_storage().data_ptr() in held.keys() - set(own)}
    known = {*own, *(tensor.untyped_storage().data_ptr() for tensor in results)}
    extra = sum(t.numel() * t.element_size() for pointer, t in held.items() if pointer not in known)
    return operands, kept, extra


@pytest.mark.parametrize("name", CASES)
def test_kept_tensors_are_those_that_autograd_keeps(name: str) -> None:
    case = CASES[name]
    operands, results, _ = kept_by_torch(case)
    assert saved_operands(case.node, case.specs) == (operands, results)


@pytest.mark.parametrize("name", [name for name in CASES if "batch_norm" not in name])
def test_extra_bytes_are_those_that_autograd_keeps(name: str) -> None:
    case = CASES[name]
    _, _, extra = kept_by_torch(case)
    assert saved_bytes_extra(case.node, whole(case), case.specs) == pytest.approx(extra, abs=24)  # seeds, counts


def test_nothing_is_kept_without_a_gradient_and_everything_by_an_unknown_operator() -> None:
    plain = call("linear", x(5, 4, grad=False), x(3, 4, grad=False))
    assert saved_operands(plain.node, plain.specs) == (frozenset(), frozenset())
    unknown = call("addcmul", x(4, 6), x(4, 6), x(4, 6))
    assert saved_operands(unknown.node, unknown.specs) == ({0, 1, 2}, {0})


def test_extra_bytes_are_those_of_the_shard() -> None:
    case = call("dropout", x(4, 6), 0.5, True)
    rows = shard(0, [(2, 1, 1)])
    assert saved_bytes_extra(case.node, whole(case), case.specs) == 4 * 6
    assert saved_bytes_extra(case.node, Strategy((Choice("cut"),), ((rows,),), ((rows,),)), case.specs) == 2 * 6


def test_parameter_bytes_by_optimizer() -> None:
    adamw = parameter_parts(1000, "float32", Training("train", "adamw"), trainable=True)
    assert adamw == {"parameters": 4000, "gradients": 4000, "optimizer": 8000}
    bf16 = parameter_parts(1000, "bfloat16", Training("train", "adamw"), trainable=True)
    assert bf16 == {"parameters": 2000, "gradients": 2000, "optimizer": 4000}
    mixed = parameter_bytes(1000, "bfloat16", Training("train", "adamw", state_dtype="float32"), trainable=True)
    assert mixed == 12000
    assert parameter_bytes(1000, "float32", Training("train", "sgd"), trainable=True) == 8000
    assert parameter_bytes(1000, "float32", Training("train", "none"), trainable=True) == 8000
    assert parameter_bytes(1000, "float32", Training("train", "adamw"), trainable=False) == 4000
    assert parameter_bytes(1000, "float32", Training("infer", "adamw"), trainable=True) == 4000
    with pytest.raises(AutoTPError, match="adamw"):
        parameter_bytes(1, "float32", Training("train", "lion"), trainable=True)
    with pytest.raises(AutoTPError, match=r"'fp32'.*float32"):
        parameter_bytes(1, "float32", Training("train", "adamw", state_dtype="fp32"), trainable=True)


def test_optimizer_state_is_what_torch_allocates() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        weight = torch.zeros(64, 32, dtype=dtype, requires_grad=True)
        weight.grad = torch.ones_like(weight)
        optimizer = torch.optim.AdamW([weight])
        optimizer.step()
        tensors = [t for t in optimizer.state[weight].values() if t.dim()]  # not the count of steps
        name = str(dtype).removeprefix("torch.")
        parts = parameter_parts(64 * 32, name, Training("train", "adamw"), trainable=True)
        assert parts["optimizer"] == sum(t.numel() * t.element_size() for t in tensors)


def test_work_bytes_counts_activations_and_gradients_but_not_parameters() -> None:
    case = call("linear", x(5, 4), x(3, 4), x(3))
    assert work_bytes(case.node, whole(case), case.specs, "infer") == 4 * (5 * 4 + 5 * 3)
    assert work_bytes(case.node, whole(case), case.specs, "train") == 4 * (5 * 4 + 2 * 5 * 3)
    columns = Strategy((Choice("cut"),), ((R,), (shard(0, [(2, 1)]),), (shard(0, [(2, 1)]),)), ((shard(1, [(2, 1)]),),))
    assert work_bytes(case.node, columns, case.specs, "infer") == 4 * (5 * 4 + 5 * 2)
    view = call("view", x(4, 6), [24])
    assert work_bytes(view.node, whole(view), view.specs, "train") == 0


def gpt_layer(s: int, b: int, h: int, a: int) -> list[Case]:
    """One transformer layer as in Korthikanti et al. 2022, figure 2: bf16, dropout, no fused attention."""
    d = h // a

    def t(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.bfloat16, requires_grad=True)

    def values(case: Case) -> Tensor:
        return case.run()[0].detach().requires_grad_()

    layer: list[Case] = []

    def then(op: str, *args: object) -> Tensor:
        layer.append(call(op, *args))
        return values(layer[-1])

    hidden = t(s, b, h)
    normed = then("layer_norm", hidden, [h], t(h), t(h))
    q, k, v = (then("linear", normed, t(h, h), t(h)).view(s, b * a, d).transpose(0, 1) for _ in range(3))
    scores = then("matmul", q, k.transpose(1, 2))
    attended = then("dropout", then("softmax.int", scores, -1), 0.1, True)
    context = then("matmul", attended, v).transpose(0, 1).reshape(s, b, h)
    hidden = then("add.Tensor", then("dropout", then("linear", context, t(h, h), t(h)), 0.1, True), hidden)
    normed = then("layer_norm", hidden, [h], t(h), t(h))
    wide = then("gelu", then("linear", normed, t(4 * h, h), t(4 * h)))
    then("add.Tensor", then("dropout", then("linear", wide, t(h, 4 * h), t(h)), 0.1, True), hidden)
    return layer


def test_activations_of_a_transformer_layer_are_korthikantis() -> None:
    s, b, h, a = 32, 2, 64, 4
    kept: dict[int, int] = {}
    statistics = extra = 0
    for case in gpt_layer(s, b, h, a):
        weights = [case.node.argument(name) for name in ("weight", "bias")]
        operands, results = saved_operands(case.node, case.specs)
        for i in operands - {w.index for w in weights if isinstance(w, Operand)}:
            tensor = case.tensors[i]
            kept[id(tensor)] = tensor.numel() * tensor.element_size()
        kept |= {-id(case): 2 * prod(case.node.outputs[0].shape) for _ in results}
        num_bytes = saved_bytes_extra(case.node, whole(case), case.specs)
        extra += num_bytes
        statistics += num_bytes if case.node.short_op == "layer_norm" else 0
    # arXiv 2205.05198, equation 1, which leaves out the statistics of the norms
    assert sum(kept.values()) + extra - statistics == s * b * h * (34 + 5 * a * s // h)
    assert statistics == 2 * 2 * 4 * s * b
