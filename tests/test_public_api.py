"""The public names, how they load, and that a wheel has all of it."""

import importlib.metadata
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

import autotp
from autotp.capture.export import capture

ROOT = Path(__file__).parent.parent
NAMES = [
    "AutoTPError", "Mesh", "Plan", "auto_shard", "load_cluster", "parallelize", "plan", "register_rule", "sweep", "verify",
]  # fmt: skip


def python(code: str) -> str:
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return run.stdout.strip()


def test_the_public_names_are_these() -> None:
    assert autotp.__all__ == NAMES
    assert len(NAMES) <= 10


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_loads_and_is_documented(name: str) -> None:
    found = getattr(autotp, name)
    assert found.__name__ == name
    assert found.__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'plann'"):
        autotp.plann  # noqa: B018


def test_importing_autotp_does_not_import_torch() -> None:
    assert python("import sys, autotp; autotp.Mesh, autotp.Plan; print('torch' in sys.modules)") == "False"


def test_a_plan_is_read_without_torch() -> None:
    assert python("import sys, autotp.plan_file; print('torch' in sys.modules)") == "False"


def test_the_package_is_typed() -> None:
    assert (ROOT / "autotp" / "py.typed").is_file()


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_folder_of_code_is_a_declared_package() -> None:
    setuptools = project()["tool"]["setuptools"]
    homes = {
        package: ROOT / setuptools["package-dir"].get(package, package.replace(".", "/"))
        for package in setuptools["packages"]
    }
    with_code = {
        path.parent for name in ("autotp", "cli", "profiles", "reports") for path in (ROOT / name).rglob("*.py")
    }
    assert with_code == set(homes.values())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str]]:
    """A copy of what is tracked or about to be (so that no build folder is left behind), and the names in its wheel."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "-q", "-w", str(out)]
    subprocess.run(build, cwd=source, check=True, timeout=120, capture_output=True)
    (built,) = out.glob("autotp-*.whl")
    return source, set(zipfile.ZipFile(built).namelist())


def test_a_wheel_has_all_code_and_data(wheel: tuple[Path, set[str]]) -> None:
    source, names = wheel
    homes = {"autotp": "autotp", "cli": "autotp/cli", "profiles": "autotp/profiles", "reports": "autotp/reports"}
    wanted = {
        f"{home}/{path.relative_to(source / folder)}"
        for folder, home in homes.items()
        for pattern in ("*.py", "*.json", "py.typed")
        for path in (source / folder).rglob(pattern)
        if "samples" not in path.parts
    }
    assert {"autotp/cli/main.py", "autotp/profiles/schema.json", "autotp/profiles/clusters/dgx-h100.json"} <= wanted
    assert wanted <= names, sorted(wanted - names)


def test_a_wheel_installs_nothing_outside_the_package(wheel: tuple[Path, set[str]]) -> None:
    _, names = wheel
    version = importlib.metadata.version("autotp")
    assert {name.split("/")[0] for name in names} == {"autotp", f"autotp-{version}.dist-info"}


class Sum(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + 2 * y


def test_a_tensor_given_for_two_inputs_is_two_inputs() -> None:
    """Traced as one, the module would read one of them twice whatever it is called with later."""
    x = torch.ones(2)
    module = capture(Sum(), (x, x)).module
    assert module(x, x + 1)[0].tolist() == [5.0, 5.0]
