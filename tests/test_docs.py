"""The documentation: every code block runs, in the order of its page, and the site builds without a dead link."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from autotp.cli.main import app
from typer.testing import CliRunner

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "coverage" not in path.name)
BLOCK = re.compile(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
BIN = Path(sys.executable).parent


@pytest.mark.parametrize("page", PAGES, ids=[str(path.relative_to(DOCS)) for path in PAGES])
def test_every_code_block_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = BLOCK.findall(page.read_text())
    assert page.read_text().count("```") == 2 * len(blocks), "a block is not closed, or begins in a way that is not run"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    names: dict[str, object] = {"__name__": "page"}
    for language, title, code in blocks:
        if title:
            Path(title).write_text(code)
        elif language == "python":
            exec(compile(code, str(page), "exec"), names)
        elif language == "console":
            for line in code.splitlines():
                run(shlex.split(line))
        else:
            assert language in ("text", "json"), (
                f"a block of {language!r} is not run: say python, console, text or json"
            )


def run(arguments: list[str]) -> None:
    if arguments[0] == "autotp":
        found = CliRunner().invoke(app, arguments[1:])
        assert found.exit_code == 0, f"{arguments}: {found.stderr}"
        return
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=200, check=False, env=environment)
    assert done.returncode == 0, f"{arguments}: {done.stderr[-2000:]}"


@pytest.mark.skipif(shutil.which("mkdocs", path=str(BIN)) is None, reason="the documentation's extra is not installed")
def test_the_site_builds_without_a_dead_link(tmp_path: Path) -> None:
    command = [BIN / "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "tutorial" / "index.html").is_file()
