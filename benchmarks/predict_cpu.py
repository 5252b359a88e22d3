"""Predicted against measured step time over gloo on this machine: `python benchmarks/predict_cpu.py`.

A machine drifts, so every round profiles it, times the operators of all plans and runs all plans, in an order drawn anew;
medians of the quiet rounds are compared: those whose reference product and all_reduce take at most 10% longer than in the
best round. Exits with 1 if a prediction falls short (benchmarks/README.md says of what), with 2 if nothing could be run.
"""

import argparse
import itertools
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from predict_rank import Case, Model, Outcome, Settings, run_rank
from rich.console import Console
from rich.table import Table

from autotp.errors import AutoTPError
from autotp.measuring.items import effort_of
from autotp.runtime.spawn import run_processes

MODELS = (
    Model("nanogpt", {"width": 256, "layers": 6, "vocab": 512}, batch=8, seq=128),
    Model("nanogpt", {"width": 512, "layers": 4, "vocab": 512}, batch=2, seq=256),
    Model("mlp", {"width": 512, "hidden": 2048, "layers": 6}, batch=512),
    Model("llama", {"size": "tiny", "layers": 6}, batch=48, seq=128),
)
MAX_MEAN, MAX_ONE = 0.15, 0.25
APART = 0.15  # measured times that differ by less have no order
LEAST_S = 0.1
MIN_CASES, MIN_QUIET = 8, 3


def main() -> int:
    arguments = parse()
    effort = replace(effort_of("cpu", is_full=False), least_s=0.01)
    folder = str(Path(__file__).parents[1] / "examples")
    models = MODELS[: arguments.models]
    settings = Settings(models, folder, effort, arguments.rounds, arguments.steps, arguments.quiet)
    try:
        outcome: Outcome = run_processes(run_rank, arguments.ranks, (settings,), timeout_s=arguments.timeout)[0]
    except AutoTPError as error:
        print(error, file=sys.stderr)
        return 2
    problems = failures(outcome, arguments.models == len(MODELS))
    if arguments.json:
        print(json.dumps({"ok": not problems, "failures": problems, **asdict(outcome)}))
        return 1 if problems else 0
    Console(width=None if sys.stdout.isatty() else 160).print(table(outcome.cases))
    print(f"{outcome.num_rounds} rounds, of which {outcome.num_dropped} were not quiet and are dropped")
    print("\n".join(problems) or "predictions are within their bounds, and in the right order")
    return 1 if problems else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=3, help="timed steps of every plan in a round")
    parser.add_argument("--models", type=int, default=len(MODELS), help="only the first so many")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--quiet", type=float, default=0.1, help="how much longer a quiet round's references may take")
    parser.add_argument("--timeout", type=float, default=3000, help="seconds until the whole run is stopped")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def error(case: Case) -> float:
    return case.predicted_s / case.measured_s - 1


def failures(outcome: Outcome, is_whole: bool) -> list[str]:
    """What falls short, one sentence each."""
    found = []
    if outcome.num_rounds - outcome.num_dropped < MIN_QUIET:
        found.append(
            f"only {outcome.num_rounds - outcome.num_dropped} quiet rounds, {MIN_QUIET} are needed: is it idle?"
        )
    mean = statistics.mean(abs(error(case)) for case in outcome.cases)
    if mean > MAX_MEAN:
        found.append(f"predictions are off by {mean:.1%} in the mean, not {MAX_MEAN:.0%}")
    for case in outcome.cases:
        if abs(error(case)) > MAX_ONE:
            found.append(f"{case.model}, {case.plan}: off by {error(case):+.1%}, not {MAX_ONE:.0%}")
        if case.measured_s < LEAST_S:
            found.append(f"{case.model}, {case.plan}: a step takes {case.measured_s * 1e3:.0f} ms, too little to judge")
    if is_whole and len(outcome.cases) < MIN_CASES:
        found.append(f"only {len(outcome.cases)} cases, {MIN_CASES} are needed")
    for one, other in itertools.combinations(outcome.cases, 2):
        faster, slower = sorted((one, other), key=lambda case: case.measured_s)
        apart = slower.measured_s > (1 + APART) * faster.measured_s
        if one.model == other.model and apart and faster.predicted_s >= slower.predicted_s:
            found.append(f"{one.model}: {faster.plan} is faster than {slower.plan}, predicted otherwise")
    return found


def table(cases: Sequence[Case]) -> Table:
    shown = Table(title="A training step over gloo: predicted and measured, medians of quiet rounds")
    for name in ("model", "plan"):
        shown.add_column(name)
    for name in ("measured ms", "predicted ms", "off by", "by profile alone ms", "off by"):
        shown.add_column(name, justify="right")
    for case in cases:
        alone = case.by_profile_s / case.measured_s - 1
        shown.add_row(
            case.model, case.plan, f"{case.measured_s * 1e3:.1f}", f"{case.predicted_s * 1e3:.1f}",
            f"{error(case):+.1%}", f"{case.by_profile_s * 1e3:.1f}", f"{alone:+.1%}",
        )  # fmt: skip
    mean = statistics.mean(abs(error(case)) for case in cases)
    alone = statistics.mean(abs(case.by_profile_s / case.measured_s - 1) for case in cases)
    shown.add_section()
    shown.add_row("mean of absolute errors", "", "", "", f"{mean:.1%}", "", f"{alone:.1%}")
    return shown


if __name__ == "__main__":
    sys.exit(main())
