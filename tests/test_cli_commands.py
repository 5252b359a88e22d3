"""Every command as a user runs it: what it prints, its exit code, and for bad input one clear line and nothing written."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from autotp.cli.main import app
from report_plans import ROOT, small_plan
from typer.testing import CliRunner

from autotp.plan_file import save

EXAMPLE = str(ROOT / "examples" / "mlp.py")
RUNNER = CliRunner()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a good plan, bad plans, and bad models."""
    folder = tmp_path_factory.mktemp("cli")
    plan = small_plan("mlp")
    save(plan, folder / "mlp.plan.json")
    save(replace(plan, fingerprint="0" * 16), folder / "other.plan.json")
    text = (folder / "mlp.plan.json").read_text()
    (folder / "half.plan.json").write_text(text[: len(text) // 2])
    (folder / "old.plan.json").write_text(text.replace('"autotp_plan": 1', '"autotp_plan": 0'))
    (folder / "list.json").write_text("[]")
    for part in ("summary", "cluster", "nodes"):
        (folder / f"no-{part}.plan.json").write_text(json.dumps({**json.loads(text), part: {}}))
    unsolved = json.loads(text)
    del unsolved["summary"]["predicted"]["memory_bytes"]
    (folder / "no-memory.plan.json").write_text(json.dumps(unsolved))
    (folder / "binary.json").write_bytes(b"\xff\xfe\x00")
    (folder / "empty.py").write_text("x = 1\n")
    (folder / "broken.py").write_text("def build_model(:\n")
    (folder / "branchy.py").write_text(
        "import torch\nfrom torch import nn\n\n\nclass Branchy(nn.Module):\n    def forward(self, x):\n"
        "        if x.sum() > 0:\n            return x + 1\n        return x\n\n\n"
        "def build_model():\n    return Branchy()\n\n\ndef example_inputs():\n    return {'x': torch.ones(4)}\n"
    )
    return folder


def run(*arguments: str, folder: Path) -> tuple[int, str, str]:
    """Exit code, standard output, standard error of a command in this process, run in `folder`."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        found = RUNNER.invoke(app, list(arguments))
    finally:
        os.chdir(before)
    return found.exit_code, found.stdout, found.stderr


PLAN = ("plan", EXAMPLE, "--cluster", "dgx-h100", "--devices", "2")

# arguments, words of the message. FILE stands for a file that must not come to be.
BAD = [
    (("plan", "nothing.py"), "there is no model file nothing.py"),
    (("plan", "empty.py"), "defines no build_model"),
    (("plan", "broken.py"), "cannot be run at line 1"),
    (("plan", "list.json"), "list.json"),
    (("plan", "."), "without a config.json"),
    (("plan", "branchy.py", "-o", "FILE"), "branchy.py"),
    ((*PLAN, "--set", "depth=3"), "has no option depth"),
    ((*PLAN, "--set", "depth"), "name=value"),
    (("plan", EXAMPLE, "--cluster", "dgx-h100", "--devices", "9", "-o", "FILE"), "has 9 ranks"),
    (("plan", EXAMPLE, "--cluster", "dgx-h300"), "did you mean"),
    (("plan", EXAMPLE, "--cluster", "half.plan.json"), "half.plan.json"),
    ((*PLAN, "--memory", "-1GiB", "-o", "FILE"), "must be positive"),
    ((*PLAN, "--memory", "1KiB", "-o", "FILE"), "no plan fits"),
    ((*PLAN, "--memory", "much"), "cannot read the memory size"),
    ((*PLAN, "--mesh", "tp=2"), "exclude each other"),
    (("plan", EXAMPLE, "--mesh", "tp"), "cannot read the mesh"),
    ((*PLAN, "--mode", "trian"), "unknown mode 'trian'"),
    ((*PLAN, "--objective", "speed"), "unknown objective"),
    ((*PLAN, "--strategy", "best"), "unknown strategy"),
    ((*PLAN, "--optimizer", "adam"), "unknown optimizer"),
    ((*PLAN, "--dtype", "int3"), "unknown dtype"),
    ((*PLAN, "--time-limit", "-1"), "must be positive"),
    ((*PLAN, "--time-limit", "soon"), "--time-limit"),
    ((*PLAN, "-o", "nowhere/FILE"), "there is no folder nowhere"),
    ((*PLAN, "--report", "nowhere/FILE"), "there is no folder nowhere"),
    ((*PLAN, "-o", "."), "cannot write"),
    ((*PLAN, "--force", "blocks.*.up=colum", "-o", "FILE"), "did you mean column"),
    ((*PLAN, "--force", "nothing=column", "-o", "FILE"), "no module, parameter or node"),
    ((*PLAN, "--force", "*=column", "-o", "FILE"), "without a strategy, at the latest --force *=column"),
    ((*PLAN, "--force", "", "-o", "FILE"), "write it as pattern=word"),
    ((*PLAN, "--what-if", "link.bandwith*=2", "-o", "FILE"), "did you mean bandwidth"),
    ((*PLAN, "--btach", "3"), "did you mean --batch"),
    (("plna", EXAMPLE), "Did you mean 'plan'"),
    (("plan",), "Missing argument 'MODEL'"),
    *(
        ((command, name, *rest), words)
        for command, rest in (
            ("show", ()), ("report", ("-o", "FILE")), ("explain", ("head",)), ("compare", ("mlp.plan.json",)),
            ("export", ("--to", "graphviz", "-o", "FILE")),
        )
        for name, words in (
            ("nothing.plan.json", "cannot read the plan"),
            ("half.plan.json", "the JSON is broken"),
            ("old.plan.json", "has version 0"),
            ("list.json", "not a plan"),
            ("binary.json", "cannot read the plan"),
            ("no-summary.plan.json", "not complete: it has no summary.training"),
            ("no-cluster.plan.json", "not complete: it has no cluster.name"),
            ("no-nodes.plan.json", "not complete: it has no nodes."),
            ("no-memory.plan.json", "not complete: it has no summary.predicted.memory_bytes"),
            (".", "cannot read the plan"),
        )
    ),
    (("show", "mlp.plan.json", "--node", "liner"), "such as linear"),
    (("show", "mlp.plan.json", "--parameters", "--collectives"), "exclude each other"),
    (("report", "mlp.plan.json", "-o", "nowhere/FILE"), "there is no folder nowhere"),
    (("report", "mlp.plan.json", "-o", "FILE", "--measurement", "nothing.json"), "cannot read the measurement"),
    (("report", "mlp.plan.json", "-o", "FILE", "--measurement", "list.json"), "is no measurement"),
    (("report", "mlp.plan.json", "-o", "FILE", "--csv", "empty.py"), "cannot make the folder"),
    (("report", "mlp.plan.json", "-o", "FILE", "--plots", "empty.py"), "cannot make the folder"),
    (("explain", "mlp.plan.json", "hed"), "there are head"),
    (("explain", "mlp.plan.json", ""), "name a node"),
    (("explain", "mlp.plan.json", "blocks.*.nothing"), "no node, parameter or module 'blocks.*.nothing'"),
    (("explain", "mlp.plan.json"), "Missing argument"),
    (("compare", "mlp.plan.json"), "Missing argument"),
    (("export", "mlp.plan.json", "--to", "jax", "-o", "FILE"), "choose one of dtensor"),
    (("export", "mlp.plan.json", "--to", "dtensor", "-o", "nowhere/FILE"), "there is no folder nowhere"),
    (("export", "mlp.plan.json"), "Missing option"),
    (("clusters", "dgx"), "did you mean"),
    (("clusters", "half.plan.json"), "half.plan.json"),
    (("verify", "nothing.py"), "there is no model file"),
    (("verify", EXAMPLE, "--plan", "other.plan.json"), "another model"),
    (("verify", EXAMPLE, "--plan", "half.plan.json"), "the JSON is broken"),
    (("verify", EXAMPLE, "--plan", "mlp.plan.json", "--devices", "2"), "give --plan alone"),
    (("verify", EXAMPLE, "--backend", "smoke"), "smoke"),
    (("measure", EXAMPLE, "--plan", "half.plan.json", "-o", "FILE"), "the JSON is broken"),
    (("measure", "nothing.py", "--plan", "mlp.plan.json", "-o", "FILE"), "there is no model file"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "words"), BAD, ids=[" ".join(a).replace(str(ROOT), "") for a, _ in BAD])
def test_bad_input_is_one_clear_line_and_writes_nothing(files: Path, arguments: tuple[str, ...], words: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in files.iterdir()}
    code, out, err = run(*arguments, folder=files)
    assert code == 2
    assert out == ""
    lines = [line for line in err.splitlines() if not line.startswith("warning: ")]
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    assert words in lines[0]
    assert "bug in autotp" not in lines[0]
    assert {path: path.stat().st_mtime_ns for path in files.iterdir()} == before


def test_no_arguments_are_answered_by_the_help(files: Path) -> None:
    code, out, err = run(folder=files)
    assert (code, err) == (2, "")
    assert out.count("\n") > 20 and "autotp plan examples/llama.py" in out


def test_what_fails_while_it_is_printed_is_one_line_too(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autotp.cli.show.describe_plan", lambda _: iter([1 / 0]))
    code, _, err = run("show", "mlp.plan.json", folder=files)
    assert code == 2
    assert err.startswith("error: ZeroDivisionError") and err.count("\n") == 1


def test_a_pipe_is_as_wide_as_columns_says(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    code, out, _ = run("show", "mlp.plan.json", folder=files)
    assert code == 0
    rules = [len(line) for line in out.splitlines() if "─" in line]
    assert rules and max(rules) <= 40


def test_with_json_an_error_is_an_object_on_standard_output(files: Path) -> None:
    code, out, _ = run("show", "half.plan.json", "--json", folder=files)
    assert code == 2
    assert "the JSON is broken" in json.loads(out)["error"]


def test_plan_prints_its_summary_and_writes_a_plan(files: Path) -> None:
    code, out, _ = run(*PLAN, "-o", "made.plan.json", "--json", folder=files)
    assert code == 0
    found = json.loads(out)
    assert {"step_s", "compute_s", "communication_s", "exposed_communication_s", "memory_bytes"} <= set(
        found["predicted"]
    )
    assert len(found["predicted"]["memory_bytes"]) == 2
    assert set(found["baselines"]) == {"single_device", "replicated", "megatron"}
    assert {"status", "gap", "num_variables"} <= set(found["solver"])
    assert {"capture_s", "build_s", "solve_s", "total_s"} <= set(found["timing"])
    assert 0 <= found["coverage"]["split_matmul_flops_fraction"] <= 1
    assert found["fallback_ops"] == []
    code, shown, _ = run("show", "made.plan.json", "--json", folder=files)
    assert code == 0
    assert json.loads(shown)["predicted"] == found["predicted"]
    (files / "made.plan.json").unlink()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (PLAN, "Where the time goes"),
        (("show", "mlp.plan.json"), "How the layers are split"),
        (("show", "mlp.plan.json", "--node", "linear"), "Operands as wanted"),
        (("show", "mlp.plan.json", "--parameters"), "head.weight"),
        (("show", "mlp.plan.json", "--collectives"), "redistributions take"),
        (("explain", "mlp.plan.json", "head"), "Totals are solved"),
        (("compare", "mlp.plan.json", "mlp.plan.json"), "They split every module alike"),
        (("export", "mlp.plan.json", "--to", "graphviz"), "digraph plan"),
        (("clusters",), "dgx-h100"),
        (("clusters", "dgx-h100"), "all_reduce"),
        (("verify", EXAMPLE, "--devices", "2"), "computes what the whole model does"),
    ],
)
def test_every_command_answers_in_words(files: Path, arguments: tuple[str, ...], words: str) -> None:
    code, out, err = run(*arguments, folder=files)
    assert code == 0, err
    assert words in " ".join(out.split()), "wherever the line breaks"
    assert "\x1b" not in out, "no colours in a pipe"


@pytest.mark.parametrize(
    ("arguments", "keys"),
    [
        (("show", "mlp.plan.json", "--parameters"), {"parameters"}),
        (("show", "mlp.plan.json", "--collectives"), {"redistributions"}),
        (("show", "mlp.plan.json", "--node", "linear"), {"name", "op", "strategy", "operands", "results"}),
        (("explain", "mlp.plan.json", "head"), {"node", "alternatives", "count"}),
        (("compare", "mlp.plan.json", "mlp.plan.json"), {"amounts", "differences", "mesh"}),
        (("export", "mlp.plan.json", "--to", "networkx"), {"target", "text"}),
        (("clusters",), {"clusters"}),
        (("clusters", "dgx-h100"), {"name", "devices", "links"}),
        (("verify", EXAMPLE, "--devices", "2"), {"ok", "ranks", "max_relative_error", "parameter_bytes_per_rank"}),
    ],
)
def test_every_command_has_one_json_object(files: Path, arguments: tuple[str, ...], keys: set[str]) -> None:
    code, out, err = run(*arguments, "--json", folder=files)
    assert code == 0, err
    assert keys <= set(json.loads(out))


def command(*arguments: str, **extra: object) -> "subprocess.CompletedProcess[str]":
    program = Path(sys.executable).parent / "autotp"
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False, **extra)


def test_help_and_completion_do_not_import_torch() -> None:
    code = "import sys, autotp.cli.main; print([n for n in ('torch', 'pandas', 'matplotlib', 'numpy') if n in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == "[]"
    found = command(
        env={**os.environ, "_AUTOTP_COMPLETE": "complete_bash", "COMP_WORDS": "autotp pl", "COMP_CWORD": "1"}
    )
    assert "plan" in found.stdout.split()


@pytest.mark.parametrize("name", sorted(typer.main.get_command(app).commands))
def test_every_command_teaches_by_an_example(name: str) -> None:
    found = RUNNER.invoke(app, [name, "--help"])
    assert found.exit_code == 0
    assert "Example" in found.stdout or name == "profile"


def test_an_interrupt_that_a_library_swallows_is_one_all_the_same(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autotp.cli.show.describe_plan", lambda _: iter([1 / 0]))
    monkeypatch.setattr("autotp.cli.main._interrupts", [2])
    assert run("show", "mlp.plan.json", folder=files) == (130, "", "error: interrupted\n")


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path) -> None:
    program = Path(sys.executable).parent / "autotp"
    with subprocess.Popen(
        [program, "plan", EXAMPLE, "--cluster", "dgx-h100", "--devices", "2", "-o", str(tmp_path / "plan.json")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        time.sleep(1.0)
        process.send_signal(2)
        _, err = process.communicate(timeout=60)
    assert process.returncode in (130, -2)
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []
