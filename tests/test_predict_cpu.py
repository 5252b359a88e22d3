"""How predict_cpu.py judges: by bounds, and by the order of plans of one model."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from predict_cpu import failures, table
from predict_rank import Case, Outcome

CASES = tuple(
    Case(f"model {model}", plan, 0.0, 1.05 * seconds, seconds)
    for model in range(3)
    for plan, seconds in (("replicated", 0.4), ("megatron", 0.3), ("optimal", 0.2))
)
GOOD = Outcome(CASES, 9, 2)


def test_good_predictions_pass() -> None:
    assert failures(GOOD, True) == []
    assert table(CASES).row_count == len(CASES) + 1


@pytest.mark.parametrize(
    ("outcome", "message"),
    [
        (Outcome(CASES, 9, 7), "only 2 quiet rounds, 3 are needed"),
        (Outcome(CASES[:7], 9, 0), "only 7 cases, 8 are needed"),
        (Outcome((*CASES[1:], replace(CASES[0], predicted_s=0.52)), 9, 0), "model 0, replicated: off by +30.0%"),
        (
            Outcome((*CASES[1:], replace(CASES[0], predicted_s=0.3)), 9, 0),
            "model 0: megatron is faster than replicated",
        ),
        (Outcome((*CASES[1:], replace(CASES[0], measured_s=0.09, predicted_s=0.09)), 9, 0), "a step takes 90 ms"),
        (Outcome(tuple(replace(c, predicted_s=1.2 * c.measured_s) for c in CASES), 9, 0), "off by 20.0% in the mean"),
    ],
)
def test_what_falls_short_is_said(outcome: Outcome, message: str) -> None:
    assert any(message in each for each in failures(outcome, True))


def test_plans_that_take_about_as_long_have_no_order() -> None:
    close = replace(CASES[0], measured_s=0.33, predicted_s=0.28)  # megatron takes 0.3 and is predicted 0.315
    assert failures(Outcome((*CASES[1:], close), 9, 0), True) == []
