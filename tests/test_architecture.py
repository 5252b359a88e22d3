"""Who may import whom: one direction, no cycles, nothing hidden inside functions, and files that fit in a head."""

import ast
from pathlib import Path

import networkx as nx
import pytest

ROOT = Path(__file__).parent.parent
MAX_LINES = 300

# What a module or package of autotp may import from autotp, besides what is in its own package.
BASE = {
    "errors",
    "mesh",
    "placement",
    "graph",
    "regions",
    "redistribute",
    "rules.strategy",
    "plans",
    "plan_file",
    "timeline",
}
STAGES = {"capture", "rules", "hardware", "cost", "solver", "rewrite", "runtime"}
# constraints, stored problems and what does not fit are in the words that reports use
WORDS = {"report.words", "report.layer_rows", "report.room", "report.shortage"}
TOP = BASE | STAGES | {"planning", "variants", "api"}  # the pipeline itself; cycles have a test of their own
MAY_IMPORT = {
    "errors": set(),
    "mesh": {"errors"},
    "placement": {"errors", "mesh"},
    "regions": {"errors", "graph"},
    "graph": {"errors", "placement"},
    "redistribute": {"placement"},
    "plans": {"graph", "mesh", "placement", "redistribute", "rules.strategy"},
    "plan_file": BASE - {"timeline"},
    "timeline": {"graph", "plans", "redistribute"},
    "rules": BASE - {"plans", "plan_file"},
    "hardware": {"errors", "mesh"},
    "solver": {"errors"},
    "cost": {"errors", "mesh", "placement", "graph", "redistribute", "regions", "rules", "hardware", "solver.problem"},
    "capture": {"errors", "mesh", "placement", "graph"},
    "runtime": BASE,
    "rewrite": BASE | {"rules", "runtime", "capture"},
    "measurement": {"errors", "plan_file"},
    "report": BASE | {"solver", "measurement"},
    "planning": BASE | STAGES | WORDS,
    "variants": BASE | STAGES | {"planning"},
    **dict.fromkeys(("listing", "rebalancing", "verification"), TOP),
    "api": TOP | WORDS,
    "measuring": TOP | {"measurement"},
    "analysis": TOP | {"report"},
    "interchange": BASE | {"report"},
    "check": BASE | {"rules", "rewrite", "runtime"},
}
NO_TORCH = (
    "errors",
    "mesh",
    "placement",
    "graph",
    "redistribute",
    "plans",
    "plan_file",
    "measurement",
    "hardware",
    "solver",
    "report",
)
# What the command line loads for help and wrong options; all else goes through cli/lazy.py.
CLI_MAY_IMPORT = {"errors", "mesh", "placement", "graph", "redistribute", "rules.strategy", "plans", "plan_file"}
LIGHT = ("words", "units", "layers", "moves", "layer_rows", "room", "shortage", "proof")
CLI_MAY_IMPORT |= {f"report.{name}" for name in LIGHT}


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imports(path: Path) -> list[str]:
    """Modules that a file imports, `from autotp.x import y` as `autotp.x`; not those for type checkers only."""
    tree = ast.parse(path.read_text())
    unread = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    found = []
    for node in ast.walk(tree):
        if id(node) in unread:
            continue
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found += [
                f"{node.module}.{a.name}" if is_module(f"{node.module}.{a.name}") else str(node.module)
                for a in node.names
            ]
    return found


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def autotp_imports(path: Path) -> list[str]:
    """Imports of autotp's own modules, without the leading `autotp.`."""
    return [name.removeprefix("autotp.") for name in imports(path) if name.split(".")[0] == "autotp"]


def layer_of(path: Path) -> str:
    return path.relative_to(ROOT / "autotp").with_suffix("").parts[0]


def allowed(target: str, layer: str) -> bool:
    names = MAY_IMPORT[layer] | {layer}
    return any(target == name or target.startswith(f"{name}.") for name in names)


AUTOTP = [path for path in sources("autotp") if path != ROOT / "autotp" / "__init__.py"]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", AUTOTP, ids=name_of)
def test_layers_import_only_what_is_below_them(path: Path) -> None:
    layer = layer_of(path)
    assert layer in MAY_IMPORT, f"{layer} is new: say in MAY_IMPORT what it may import"
    wrong = [target for target in autotp_imports(path) if not allowed(target, layer)]
    assert not wrong, f"{name_of(path)} must not import {', '.join(wrong)}"


@pytest.mark.parametrize("path", [p for p in AUTOTP if layer_of(p) in NO_TORCH], ids=name_of)
def test_planning_types_solver_and_hardware_do_not_know_torch(path: Path) -> None:
    assert not [name for name in imports(path) if name.split(".")[0] == "torch"]


def test_the_solver_sees_numbers_only() -> None:
    own = {name for path in sources("autotp/solver") for name in autotp_imports(path) if not name.startswith("solver")}
    assert own <= {"errors"}


@pytest.mark.parametrize("path", sources("cli"), ids=name_of)
def test_the_command_line_imports_autotp_and_is_imported_by_nobody(path: Path) -> None:
    assert set(autotp_imports(path)) <= CLI_MAY_IMPORT
    assert not [name for name in imports(path) if name.split(".")[0] in ("torch", "numpy", "transformers")]


def test_nobody_imports_the_command_line() -> None:
    assert not [path for path in sources("autotp") for name in imports(path) if name.startswith(("cli", "autotp.cli"))]


def test_no_import_cycle() -> None:
    graph = nx.DiGraph((module_name(path), target) for path in AUTOTP for target in imports(path) if is_module(target))
    assert not list(nx.simple_cycles(graph))


@pytest.mark.parametrize("path", [*sources("autotp"), *sources("cli")], ids=name_of)
def test_no_import_inside_a_function(path: Path) -> None:
    functions = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    hidden = [
        inner.lineno for f in functions for inner in ast.walk(f) if isinstance(inner, ast.Import | ast.ImportFrom)
    ]
    assert not hidden, f"{name_of(path)} imports inside a function in lines {hidden}"


# Importing by name is for what most users do not need, or must not wait for.
LOADERS = {"autotp/__init__.py", "autotp/capture/model_file.py", "cli/lazy.py", "autotp/plans.py"}


def test_modules_are_imported_by_name_in_three_places_only() -> None:
    found = {name_of(p) for p in [*sources("autotp"), *sources("cli")] if "import_module(" in p.read_text()}
    assert found <= LOADERS


@pytest.mark.parametrize("path", [*sources("autotp"), *sources("cli")], ids=name_of)
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES
