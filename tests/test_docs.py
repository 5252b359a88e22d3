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


LINK = re.compile(r"(?<!`)!?\[[^\]]*\]\(([^)\s]+)\)")
TEXTS = sorted(path for pattern in ("*.md", "*/README.md", "docs/**/*.md") for path in ROOT.glob(pattern))


def anchors(path: Path) -> set[str]:
    """What headings of a page are called in links, as GitHub and mkdocs name them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def dead_links(path: Path) -> list[str]:
    """Links of a text to files, or headings of them, that do not exist; links into the web are not followed."""
    found = []
    for link in LINK.findall(path.read_text()):
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        if "://" in link or link.startswith("mailto:"):
            continue
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            found.append(link)
    return found


@pytest.mark.parametrize("path", TEXTS, ids=[str(path.relative_to(ROOT)) for path in TEXTS])
def test_no_text_has_a_dead_link(path: Path) -> None:
    assert dead_links(path) == []


def test_dead_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# A heading: with signs\n")
    links = "[a](other.md) [b](other.md#a-heading-with-signs) [c](nothing.md) [d](other.md#none) [e](https://x.y/z)"
    (tmp_path / "page.md").write_text(links)
    assert dead_links(tmp_path / "page.md") == ["nothing.md", "other.md#none"]


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text()
    assert [
        str(p.relative_to(DOCS)) for p in sorted(DOCS.rglob("*.md")) if str(p.relative_to(DOCS)) not in navigation
    ] == []


@pytest.mark.skipif(shutil.which("mkdocs", path=str(BIN)) is None, reason="the documentation's extra is not installed")
def test_the_site_builds_without_a_dead_link(tmp_path: Path) -> None:
    command = [BIN / "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "tutorial" / "index.html").is_file()
