"""The page in a real browser: it asks for nothing, complains of nothing, has every section, and its tables work."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, Page, browser
from report_plans import small_plan
from test_measurement import SAMPLE

from autotp.errors import PlanError
from autotp.plan_file import plan_identity
from autotp.plans import Plan
from autotp.report.files import write_page, write_plots, write_tables
from autotp.report.frames import TABLES
from autotp.report.page import render
from autotp.report.plots import NUM_MOMENTS
from autotp.report.timeline import outline

KEYS = [
    "answer", "time", "memory", "timeline", "structure", "operators", "redistributions", "scaling", "balance", "roofline",
    "fallbacks", "solver", "profile", "measurement",
]  # fmt: skip
pages: dict[int, str] = {}
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")


def page_of(plan: Plan) -> str:
    """The page of one of the plans that are made once, drawn once."""
    if id(plan) not in pages:
        pages[id(plan)] = render(plan)
    return pages[id(plan)]


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    plan = small_plan()
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_page(plan, path, replace(SAMPLE, plan_identity=plan_identity(plan)))
    return path


@needs_browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1400, 400])
def test_the_page_opens_from_disk_without_complaint_or_request(page: Page, file: Path, width: int, dark: bool) -> None:
    page.open(file, width=width, dark=dark)
    assert page.evaluate("[...document.querySelectorAll('section')].map(s => s.id)") == KEYS
    assert page.complaints == []
    assert page.requests == [file.resolve().as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page must not scroll sideways"
    small = "[...document.querySelectorAll('.plot text')].map(t => t.getBoundingClientRect().height).filter(h => h && h < 8)"
    assert page.evaluate(small) == [], "text of a plot is too small to read"
    light = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert light != dark


@needs_browser
def test_every_section_says_something_and_plots_keep_their_text(page: Page, file: Path) -> None:
    page.open(file)
    assert all(
        length > 20
        for length in page.evaluate("[...document.querySelectorAll('section')].map(s => s.innerText.length)")
    )
    assert page.evaluate("document.querySelectorAll('.plot .wide svg text').length") > 20
    assert page.evaluate("document.querySelectorAll('svg.block g').length") > 5
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))


@needs_browser
def test_a_click_on_a_heading_sorts_and_a_second_one_turns_round(page: Page, file: Path) -> None:
    page.open(file)
    column = "[...document.querySelectorAll('#table-operators tbody tr')].map(r => Number(r.cells[3].dataset.v))"
    heading = "document.querySelectorAll('#table-operators th button')[3]"
    assert page.evaluate(f"{heading}.textContent") == "time"
    page.evaluate(f"{heading}.click()")
    assert (seen := page.evaluate(column)) == sorted(seen, reverse=True)
    assert len(set(seen)) > 2
    page.evaluate(f"{heading}.click()")
    assert page.evaluate(column) == sorted(seen)
    page.evaluate("document.querySelectorAll('#table-operators th button')[2].click()")
    names = page.evaluate(
        "[...document.querySelectorAll('#table-operators tbody tr')].map(r => r.cells[2].textContent)"
    )
    assert names == sorted(names)


@needs_browser
def test_a_filter_keeps_the_rows_that_have_all_its_words(page: Page, file: Path) -> None:
    page.open(file)
    table = "document.querySelector('#table-operators')"
    shown = f"[...{table}.tBodies[0].rows].filter(r => r.getClientRects().length).map(r => r.textContent)"
    number = len(page.evaluate(shown))
    code = f"(() => {{ const i = {table}.closest('.table').querySelector('input'); i.value = '%s';"
    code += " i.dispatchEvent(new Event('input')); })()"
    page.evaluate(code % "LINEAR blocks")
    rows = page.evaluate(shown)
    assert 0 < len(rows) < number
    assert all("linear" in row and "blocks" in row for row in rows)
    page.evaluate(code % "")
    assert len(page.evaluate(shown)) == number


def test_equal_plans_give_equal_pages() -> None:
    assert page_of(small_plan()) == render(small_plan())


def test_a_measurement_of_another_plan_is_refused() -> None:
    with pytest.raises(PlanError, match="another plan"):
        render(small_plan(), SAMPLE)


def test_a_page_does_not_grow_with_the_number_of_equal_layers() -> None:
    """Drawings aside, whose size is bounded: so that 126 layers stay far below three megabytes."""

    def text_of(page: str) -> str:
        return re.sub(r"<svg.*?</svg>|<wbr>", "", page, flags=re.DOTALL)

    shallow, deep = text_of(page_of(small_plan())), text_of(page_of(small_plan(layers=10)))
    assert "blocks.0..9." in deep
    assert (len(deep) - len(shallow)) / 8 < 400


def test_a_timeline_has_at_most_a_corner_per_moment() -> None:
    shares = np.random.default_rng(0).random(NUM_MOMENTS)
    assert len(outline(shares, 1.0)[0]) <= NUM_MOMENTS + 1


def test_nothing_in_the_page_is_loaded_from_elsewhere() -> None:
    text = page_of(small_plan())
    for attribute in ("src=", "@import", '<link rel="stylesheet', "fetch("):
        assert attribute not in text
    assert "http" not in text.replace("http://www.w3.org/", "")


def test_plots_and_tables_are_files_too(tmp_path: Path) -> None:
    plots = write_plots(small_plan(), tmp_path / "plots")
    assert {path.name for path in plots} >= {"time.png", "time.svg", "memory.svg", "roofline.png", "block.svg"}
    assert (tmp_path / "plots" / "time.png").read_bytes().startswith(b"\x89PNG")
    assert "<text" in (tmp_path / "plots" / "time.svg").read_text()
    assert {path.stem for path in write_tables(small_plan(), tmp_path / "tables")} == set(TABLES)
    header = (tmp_path / "tables" / "operators.csv").read_text().splitlines()[0]
    assert "time_s" in header


@pytest.mark.parametrize("name", ["resnet", "mlp"])
def test_models_without_repeated_blocks_have_pages_too(name: str) -> None:
    assert 'id="measurement"' in page_of(small_plan(name))
