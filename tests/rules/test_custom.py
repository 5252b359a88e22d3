"""Rules from user code: registered in one call, checked by running, planned with; and what happens without one."""

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import autotp
from autotp.check.rule import check_rule
from autotp.errors import RuleError, VerificationError
from autotp.rules.call import Call
from autotp.rules.custom import CUSTOM
from autotp.rules.matmul import linear
from autotp.rules.rule import OpRule

EXAMPLE = Path(__file__).parents[2] / "examples" / "custom_op.py"


@torch.library.custom_op("autotp_tests::double_linear", mutates_args=())
def double_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    y = 2 * (x @ weight.T)
    return y if bias is None else y + bias


@double_linear.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


def _backward(ctx: object, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    x, weight = ctx.saved_tensors
    into_bias = gradient.flatten(0, -2).sum(0) if any(ctx.needs_input_grad[2:]) else None
    return 2 * gradient @ weight, 2 * gradient.flatten(0, -2).T @ x.flatten(0, -2), into_bias


double_linear.register_autograd(_backward, setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs[:2]))
RIGHT = "x[... k] weight[n k] bias[n] -> [... n]"


@pytest.fixture(autouse=True)
def no_rules_left() -> Iterator[None]:
    before = dict(CUSTOM)
    yield
    CUSTOM.clear()
    CUSTOM.update(before)


def operands() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    return tuple(torch.randn(shape, dtype=torch.float64) for shape in ((2, 3, 4), (5, 4), (5,)))


def test_a_right_rule_is_checked_under_all_its_strategies() -> None:
    autotp.register_rule(double_linear, RIGHT, summed="k", additive="bias", linear=("x bias", "weight bias"))
    checked = check_rule(double_linear, *operands())
    assert {letter for group in checked.factors for letter in group} == {"i0", "i1", "k", "n"}
    assert checked.num_strategies > 30


@pytest.mark.parametrize(
    "wrong",
    [
        {"summed": "k"},  # the bias would be added on every rank
        {"summed": "k", "additive": "bias", "linear": ("x",)},  # not linear in x alone
    ],
)
def test_a_wrong_rule_is_found_out(wrong: dict) -> None:
    autotp.register_rule("autotp_tests::double_linear", RIGHT, **wrong)
    with pytest.raises(VerificationError, match="double_linear"):
        check_rule(double_linear, *operands())


@pytest.mark.parametrize(
    ("op", "signature", "options", "message"),
    [
        ("autotp_tests::nothing", RIGHT, {}, "torch has no operator"),
        (
            double_linear,
            "y[... k] weight[n k] -> [... n]",
            {"summed": "k"},
            "names y; its tensor arguments are x, weight",
        ),
        (double_linear, RIGHT, {}, "has k in operands but in no result: say whether it is summed or whole"),
        (double_linear, RIGHT, {"summed": "k m"}, "names m, which no dim has"),
        (double_linear, RIGHT, {"whole": "k", "sizes": {"k": "x"}}, "takes sizes from x"),
        (double_linear, RIGHT + "[n]", {"whole": "k"}, "returns 1 tensors, its rule has 2 results"),
        (double_linear, "x[... k] weight[n k]", {"whole": "k"}, "cannot read the rule"),
        (double_linear, RIGHT, {"whole": "k", "additive": "c"}, "names c; its tensor arguments"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(op: object, signature: str, options: dict, message: str) -> None:
    with pytest.raises(RuleError) as caught:
        autotp.register_rule(op, signature, **options)
    assert message in str(caught.value)


def test_a_rule_may_be_a_function() -> None:
    def function(call: Call) -> OpRule:
        assert call.node.op == "autotp_tests.double_linear.default"
        return OpRule((), (), {}) if not call.specs else _as_linear(call)

    autotp.register_rule(torch.ops.autotp_tests.double_linear, function)
    with pytest.raises(RuleError, match="no tensor argument 'weight2'"):
        check_rule(double_linear, *operands())


def _as_linear(call: Call) -> OpRule:
    call.shape("weight2")
    return linear(call)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Parameter(torch.randn(16, 8)), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(double_linear(double_linear(x, torch.eye(8)), self.up)).square().mean()


def plan(**options: object) -> autotp.Plan:
    return autotp.plan(Net(), (torch.randn(4, 8),), mesh="tp=2", cluster="cpu", objective="memory", **options)


def test_an_operator_without_a_rule_is_whole_named_once_and_refused_when_strict() -> None:
    with pytest.warns(UserWarning) as warned:
        made = plan()
    unknown = [str(w.message) for w in warned if "double_linear" in str(w.message)]
    assert len(unknown) == 1 and "runs whole on every rank" in unknown[0]
    assert made.fallback_ops == ("autotp_tests.double_linear.default",)
    with pytest.raises(RuleError, match=r"autotp\.register_rule"):
        plan(strict=True)


def test_a_plan_splits_what_a_rule_was_given_for() -> None:
    autotp.register_rule(double_linear, RIGHT, summed="k", additive="bias", linear=("x bias", "weight bias"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = plan(strict=True)
    (up,) = [parameter for parameter in made.parameters.values() if "up" in parameter.names]
    assert max(shape[0] * shape[1] for shape in up.local_shapes) == 64
    assert autotp.verify(Net(), (torch.randn(4, 8),), plan=made)["ok"]


def test_the_example_runs() -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, str(EXAMPLE)], capture_output=True, text=True, timeout=200, env=environment
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    assert "strategies of" in run.stdout and "on 2 ranks: ok=True, 100% of the FLOPs split" in run.stdout
