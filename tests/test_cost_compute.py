"""Seconds of operators against hand-computed numbers, laws over splits, and measured matrix products where present."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from cost_cases import Case, call, whole
from torch import Tensor

from autotp.cost.collective import collective_time_s
from autotp.cost.compute import inner_time_s, operator_time_s, optimizer_time_s
from autotp.cost.local import local_extents
from autotp.cost.training import Training
from autotp.errors import AutoTPError, ProfileError
from autotp.hardware.catalogue import load_cluster, load_device
from autotp.hardware.profile import DeviceProfile
from autotp.mesh import Mesh
from autotp.placement import B, Blocks, P, R, near_equal, nest
from autotp.rules.rule import Dim, Inner, OpRule, states
from autotp.rules.strategy import Choice, Strategy

DATA = Path(__file__).parents[2] / "shared" / "data"
TP4 = Mesh.parse("tp=4")
DEVICE = DeviceProfile(  # 1 Tflop/s and 1 GB/s, of which 0.5 and all are reached; 1 ms to launch
    name="round", kind="cuda", memory_bytes=10**9, matmul_flops_per_s={"float32": 1e12}, matmul_efficiency=0.5,
    attention_efficiency=0.25, memory_bytes_per_s=1e9, launch_s=1e-3, process_bytes=0, source={}, date="2026-11-22",
    is_measured=False,
)  # fmt: skip


def row(*letters: str) -> tuple[Dim, ...]:
    return tuple(Dim((letter,)) for letter in letters)


def empty(*shape: int, grad: bool = True) -> Tensor:
    return torch.empty(shape, requires_grad=grad)


def linear(m: int, n: int, k: int, **gradients: bool) -> tuple[Case, OpRule]:
    case = call(
        "linear", empty(m, k, grad=gradients.get("x", True)), empty(n, k, grad=gradients.get("w", True)), empty(n)
    )
    rule = OpRule(
        (row("m", "k"), row("n", "k"), row("n")), (row("m", "n"),), {"m": m, "n": n, "k": k},
        summed=frozenset("k"), additive=frozenset([2]), work=(2.0, ("m", "n", "k")),
    )  # fmt: skip
    return case, rule


def elementwise(case: Case) -> OpRule:
    letters = [f"d{i}" for i in range(len(case.specs[0].shape))]
    return OpRule(
        tuple(row(*letters[len(letters) - len(spec.shape) :]) for spec in case.specs),
        tuple(row(*letters) for _ in case.node.outputs),
        dict(zip(letters, case.specs[0].shape, strict=True)),
    )


def cut(rule: OpRule, *cuts: dict[str, Blocks]) -> Strategy:
    """The strategy that cuts these letters on these axes; an empty cut is none."""
    choices, operands, results = [], [], []
    for one in cuts:
        sides = states(rule, one) if one else ((R,) * len(rule.operands), (R,) * len(rule.results))
        assert sides is not None
        choices.append(Choice("cut", one) if one else Choice("whole"))
        operands.append(sides[0])
        results.append(sides[1])
    return Strategy(tuple(choices), tuple(zip(*operands, strict=True)), tuple(zip(*results, strict=True)))


def price(
    case: Case, rule: OpRule, strategy: Strategy, device: Any = DEVICE, mode: str = "train"
) -> tuple[float, float]:
    return operator_time_s(case.node, rule, strategy, case.specs, case.node.outputs, device, mode, TP4)


def test_a_product_bound_by_arithmetic() -> None:
    case, rule = linear(1000, 2000, 4000)
    wide = replace(DEVICE, memory_bytes_per_s=1e11)
    forward = 2 * 1000 * 2000 * 4000 / 0.5e12 + 1e-3
    bias = (1000 * 2000 + 2000) * 4 / 1e11 + 1e-3  # its gradient reads the result's and adds it up
    assert price(case, rule, whole(case), wide) == pytest.approx((forward, 2 * forward + bias))


def test_a_product_bound_by_memory() -> None:
    case, rule = linear(1, 2000, 4000)
    x, w, b, y = (4 * numel for numel in (4000, 8_000_000, 2000, 2000))
    forward = (x + w + b + y) / 1e9 + 1e-3
    backward = 2 * ((y + w + x) / 1e9 + 1e-3)  # one product each for the input and the weight; the bias is y itself
    assert price(case, rule, whole(case)) == pytest.approx((forward, backward))


def test_backward_has_a_product_per_operand_with_a_gradient() -> None:
    product = 12e6 / 1e9 + 1e-3  # three matrices of 4 MB
    bias = 4.004e6 / 1e9 + 1e-3
    for x, w in ((True, True), (False, True), (True, False), (False, False)):
        case, rule = linear(1000, 1000, 1000, x=x, w=w)
        assert price(case, rule, whole(case))[1] == pytest.approx((x + w) * product + bias)
        assert price(case, rule, whole(case), mode="infer")[1] == 0
    frozen = call("mm", empty(10, 10, grad=False), empty(10, 10, grad=False))
    rule = OpRule(
        (row("m", "k"), row("k", "n")), (row("m", "n"),), dict.fromkeys("mnk", 10), work=(2.0, ("m", "n", "k"))
    )
    assert price(frozen, rule, whole(frozen))[1] == 0


@pytest.mark.parametrize("letter", ["m", "n", "k"])
def test_a_cut_divides_the_work_by_its_largest_share(letter: str) -> None:
    case, rule = linear(1022, 1022, 1022)
    blocks = (near_equal(1022, 4),)  # 256, 256, 255, 255
    strategy = cut(rule, {letter: blocks})
    assert local_extents(rule, strategy, ("m", "n", "k")) == 256 * 1022 * 1022
    fast = replace(DEVICE, memory_bytes_per_s=1e15)  # arithmetic only
    whole_s, cut_s = price(case, rule, whole(case), fast)[0], price(case, rule, strategy, fast)[0]
    assert (cut_s - 1e-3) / (whole_s - 1e-3) == pytest.approx(256 / 1022)


def test_two_axes_that_cut_one_letter_multiply_by_the_blocks_in_common() -> None:
    _, rule = linear(8, 14, 8)
    outer: Blocks = ((8, 6),)
    inner = nest((1, 1, 1, 1), outer, 1)  # 2, 2, 2, 2 of 8 and 2, 1, 2, 1 of 6
    assert local_extents(rule, cut(rule, {"n": outer}, {"n": inner}), ("n",)) == 2
    assert local_extents(rule, cut(rule, {"n": outer}, {"n": ((4, 4, 3, 3),)}), ("n",)) == 4
    assert local_extents(rule, cut(rule, {"n": outer}, {"n": inner}), ("n",), skip_axis=1) == 8
    assert local_extents(rule, cut(rule, {"n": outer}, {"k": ((2, 2, 2, 2),)}), ("n", "k")) == 8 * 2


def test_states_that_split_nothing_cost_the_whole() -> None:
    case, rule = linear(100, 100, 100)
    partial = Strategy((Choice("partial"),), ((P,), (B,), (P,)), ((P,),))
    assert price(case, rule, partial) == price(case, rule, whole(case))


def test_pointwise_reads_and_writes() -> None:
    size = 4 * 1000 * 1000
    for case, forward, backward in (
        (call("gelu", empty(1000, 1000)), 2 * size, 3 * size),  # gradient and input in, gradient out
        (call("tanh", empty(1000, 1000)), 2 * size, 3 * size),
        (call("mul.Tensor", empty(1000, 1000), empty(1000, 1000)), 3 * size, 5 * size),
        (call("neg", empty(1000, 1000)), 2 * size, 2 * size),
        (call("add.Tensor", empty(1000, 1000), empty(1000, 1000)), 3 * size, None),
        (call("add.Tensor", empty(1000, 1000), empty(1000)), 2 * size + 4000, size + 4000),
        (call("dropout", empty(1000, 1000), 0.1, True), 2 * size + size // 4, 2 * size + size // 4),
    ):
        expected = (forward / 1e9 + 1e-3, backward / 1e9 + 1e-3 if backward else 0)
        assert price(case, elementwise(case), whole(case)) == pytest.approx(expected), case.node


def test_views_are_free_but_the_gradient_of_a_slice_is_not() -> None:
    rule = OpRule((row("a", "b"),), (row("a", "b"),), {"a": 1000, "b": 1000})
    for free in (
        call("view", empty(1000, 1000), [1000000]),
        call("transpose.int", empty(1000, 1000), 0, 1),
        call("dropout", empty(1000, 1000), 0.0, True),
        call("dropout", empty(1000, 1000), 0.5, False),
    ):
        assert price(free, rule, whole(free)) == (0, 0)
    for view, num_bytes in (
        (call("split.Tensor", empty(1000, 1000), 500, 1), 8e6),
        (call("slice.Tensor", empty(1000, 1000), 1, 0, 500), 6e6),
        (call("expand", empty(1000, 1), [1000, 1000]), 4.004e6),
    ):
        assert price(view, rule, whole(view)) == pytest.approx((0, num_bytes / 1e9 + 1e-3))


def test_an_embedding_reads_rows_and_fills_a_gradient() -> None:
    case = call("embedding", empty(50000, 100), torch.zeros(20, dtype=torch.int64))
    rule = OpRule((row("v", "d"), row("n")), (row("n", "d"),), {"v": 50000, "d": 100, "n": 20}, summed=frozenset("v"))
    rows, table, ids = 4 * 20 * 100, 4 * 50000 * 100, 8 * 20
    assert price(case, rule, whole(case)) == pytest.approx(
        ((2 * rows + ids) / 1e9 + 1e-3, (table + 2 * rows + ids) / 1e9 + 1e-3)
    )
    quarter = price(case, rule, cut(rule, {"v": ((12500,) * 4,)}))
    assert quarter[1] == pytest.approx((table / 4 + 2 * rows + ids) / 1e9 + 1e-3)


def attention(seq: int, *, causal: bool) -> tuple[Case, OpRule]:
    tensors = [empty(2, 4, seq, 64) for _ in range(3)]
    case = call("scaled_dot_product_attention", *tensors, is_causal=causal)
    letters = row("b", "h", "q", "d"), row("b", "h", "k", "d"), row("b", "h", "k", "e")
    extents = {"b": 2, "h": 4, "q": seq, "k": seq, "d": 64, "e": 64}
    return case, OpRule(letters, (row("b", "h", "q", "e"),), extents, work=(256.0, ("b", "h", "q", "k")))


def test_attention_computes_scores_twice_and_half_of_them_where_causal() -> None:
    fast = replace(DEVICE, memory_bytes_per_s=1e15, launch_s=0.0)
    case, rule = attention(512, causal=False)
    forward = 256 * 2 * 4 * 512 * 512 / 0.25e12
    assert price(case, rule, whole(case), fast) == pytest.approx((forward, 2.5 * forward))
    case, rule = attention(512, causal=True)
    assert price(case, rule, whole(case), fast)[0] == pytest.approx(forward / 2)


def test_more_ranks_never_take_longer() -> None:
    case, rule = linear(512, 512, 512)
    for device in (DEVICE, load_device("H100-SXM5-80GB"), load_device("cpu-thread")):
        for letter in "mnk":
            times = [sum(price(case, rule, cut(rule, {letter: (near_equal(512, n),)}), device)) for n in (1, 2, 3, 8)]
            assert times == sorted(times, reverse=True)


def test_a_dtype_the_device_lacks_is_an_error() -> None:
    tensors = torch.empty(8, 8, dtype=torch.float64), torch.empty(8, 8, dtype=torch.float64)
    case = call("mm", *tensors)
    rule = OpRule(
        (row("m", "k"), row("k", "n")), (row("m", "n"),), dict.fromkeys("mnk", 8), work=(2.0, ("m", "n", "k"))
    )
    with pytest.raises(ProfileError, match="float64"):
        price(case, rule, whole(case), load_device("H100-SXM5-80GB"))
    assert price(case, rule, whole(case), load_device("cpu-thread"))[0] > 0


def test_inner_collectives_are_priced_on_the_axis_that_cuts_their_letter() -> None:
    case = call("cross_entropy_loss", empty(64, 1000), torch.zeros(64, dtype=torch.int64), None, 2)
    talk = (Inner("all_reduce", "forward", ("n",)), Inner("all_gather", "backward", ("n", "c"), 2))
    rule = OpRule((row("n", "c"), row("n")), ((),), {"n": 64, "c": 1000}, summed=frozenset("n"), inner={"c": talk})
    cluster, mesh = load_cluster("dgx-h100-x2"), Mesh.parse("dp=2,tp=8")
    arguments = case.node, rule, cut(rule, {"n": ((32, 32),)}, {"c": ((125,) * 8,)})
    link = cluster.link(mesh, 1)
    device = cluster.device(0)
    expected = (
        collective_time_s("all_reduce", 32 * 4, 8, link),  # tokens are cut by the other axis
        collective_time_s("all_gather", 32 * 1000 * 2, 8, link),  # classes by this one, which has them whole then
    )
    assert inner_time_s(*arguments, device, "train", mesh, cluster) == pytest.approx(expected)
    assert inner_time_s(*arguments, device, "infer", mesh, cluster) == (pytest.approx(expected[0]), 0)
    specs = case.specs, case.node.outputs
    alone = operator_time_s(*arguments, *specs, device, "train", mesh)
    inside = operator_time_s(*arguments, *specs, device, "train", mesh, cluster)
    assert [b - a for a, b in zip(alone, inside, strict=True)] == pytest.approx(list(expected))
    uncut = cut(rule, {"n": ((32, 32),)}, {})
    assert inner_time_s(case.node, rule, uncut, device, "train", mesh, cluster) == (0, 0)


def test_optimizer_step_moves_parameter_gradient_and_state() -> None:
    assert optimizer_time_s(10**6, "float32", Training(optimizer="adamw"), DEVICE) == pytest.approx(
        7 * 4e6 / 1e9 + 1e-3
    )
    assert optimizer_time_s(10**6, "bfloat16", Training(optimizer="sgd"), DEVICE) == pytest.approx(3 * 2e6 / 1e9 + 1e-3)
    mixed = optimizer_time_s(10**6, "bfloat16", Training(optimizer="adamw", state_dtype="float32"), DEVICE)
    assert mixed == pytest.approx((3 * 2e6 + 4 * 4e6) / 1e9 + 1e-3)
    assert optimizer_time_s(10**6, "float32", Training(optimizer="none"), DEVICE) == 0
    with pytest.raises(AutoTPError, match="lion"):
        optimizer_time_s(1, "float32", Training(optimizer="lion"), DEVICE)


@pytest.mark.skipif(not DATA.exists(), reason="needs the reference data beside the repository")
@pytest.mark.parametrize("gpu", ["A100-SXM4-80GB", "H100-SXM5-80GB"])
def test_measured_products(gpu: str) -> None:
    table = pd.read_csv(DATA / "gemm_bf16_measured.csv").query("gpu == @gpu")[::20]
    device = load_device(gpu)
    errors = []
    for m, n, k, microseconds in table[["m", "n", "k", "median_us"]].itertuples(index=False):
        case = call("linear", *(torch.empty(shape, dtype=torch.bfloat16, device="meta") for shape in ((m, k), (n, k))))
        rule = OpRule(
            (row("m", "k"), row("n", "k")), (row("m", "n"),), {"m": m, "n": n, "k": k}, work=(2.0, ("m", "n", "k"))
        )
        forward = price(case, rule, whole(case), device)[0]
        errors.append((m, forward / (microseconds * 1e-6) - 1))
    tokens, error = np.array(errors).T
    for label, rows in (
        ("at most 64", tokens <= 64),
        ("65 to 512", (tokens > 64) & (tokens <= 512)),
        ("above 512", tokens > 512),
    ):
        print(f"{gpu}, {label} tokens: median error {np.median(np.abs(error[rows])):.1%}")
        assert np.median(np.abs(error[rows])) < 0.20
    assert np.median(np.abs(error[tokens > 512])) < 0.10
