"""A small replay's report in a real browser: it loads alone, complains of nothing, and shows the winner at once."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from browser import Page, page

from picker.simulator.replay_run import Cell, Setting, run_cell
from picker.simulator.report import render
from picker.simulator.report.cells import read_cells
from picker.simulator.report.headline import headline
from picker.simulator.verdict import compare

SETTING = Setting("gen:shared?groups=25&share=0.47&rate=8", "h100_sxm/llama-3-8b tp1:2,l40s/llama-3-8b tp1:1", limit=60)
COMMAND = 'picker replay "gen:shared?groups=25" --policy multiplicative,random --report out.html'
SIZES = "[...document.querySelectorAll('svg')].map(s => s.getBoundingClientRect()).map(b => [b.width, b.height])"
IMAGES = "[...document.querySelectorAll('image')].map(s => s.getBoundingClientRect()).map(b => [b.width, b.height])"


@pytest.fixture(scope="module")
def cells() -> list[dict[str, Any]]:
    return [
        run_cell(SETTING, Cell(policy, load, seed, 8 * load))
        for policy in ("multiplicative", "random")
        for load in (0.5, 0.8)
        for seed in range(3)
    ]


@pytest.fixture(scope="module")
def report(cells: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "out.html"
    path.write_text(render(cells, compare(cells, "random"), COMMAND))
    return path


@pytest.fixture(scope="module")
def learning(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cells = [run_cell(replace(SETTING, limit=300), Cell(policy, 0.8, 0, 1.5)) for policy in ("learned", "random")]
    path = tmp_path_factory.mktemp("report") / "learning.html"
    path.write_text(render(cells, compare(cells, "random"), COMMAND))
    return path


@pytest.fixture
async def shown(report: Path) -> AsyncIterator[Page]:
    async with page() as tab:
        await tab.open(report.as_uri())
        yield tab


async def test_it_loads_alone_and_the_browser_complains_of_nothing(shown: Page, report: Path) -> None:
    asked = {event["request"]["url"] for event in shown.said("Network.requestWillBeSent")}

    assert {url for url in asked if not url.startswith("data:")} == {report.as_uri()}
    assert shown.said("Network.loadingFailed") == []
    assert shown.said("Log.entryAdded") == []
    assert shown.said("Runtime.exceptionThrown") == []


async def test_the_winner_stands_on_the_first_screen(shown: Page, cells: list[dict[str, Any]]) -> None:
    words = await shown.evaluate("document.querySelector('h1').innerText")
    below = await shown.evaluate("document.querySelector('header').getBoundingClientRect().bottom")
    lines = await shown.evaluate("[...document.querySelectorAll('header li')].map(line => line.innerText)")

    expected = headline(cells, read_cells(cells))
    assert words == expected.title
    assert lines == list(expected.lines)
    assert "multiplicative" in words
    assert 0 < below < await shown.evaluate("innerHeight") / 2


async def test_every_drawing_is_there_to_be_seen(shown: Page) -> None:
    drawings, images = await shown.evaluate(SIZES), await shown.evaluate(IMAGES)

    assert len(drawings) == 5 + 2 + 2
    assert all(width > 300 and height > 120 for width, height in drawings), drawings
    assert len(images) >= 2 * 2
    assert all(width > 5 and height > 25 for width, height in images), images


async def test_from_when_on_learning_is_better_is_read_on_the_first_screens(learning: Path) -> None:
    drawing = "document.querySelector('section[aria-labelledby=learning] svg')"
    async with page() as tab:
        await tab.open(learning.as_uri())
        words = await tab.evaluate("document.querySelector('section[aria-labelledby=learning] li').innerText")
        box = await tab.evaluate(f"(b => [b.left, b.top, b.right, b.bottom])({drawing}.getBoundingClientRect())")
        labels = await tab.evaluate(
            f"[...{drawing}.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()])"
            ".map(([words, b]) => [words, b.left, b.top, b.right, b.bottom])"
        )
        height = await tab.evaluate("innerHeight")
        complaints = tab.said("Log.entryAdded") + tab.said("Runtime.exceptionThrown")

    left, top, right, bottom = box
    assert "better than random in TTFT at load 0.8" in words
    assert top < height
    assert bottom < 2 * height
    assert {"model in charge", "calibrated estimate", "TTFT (ms)"} <= {label[0] for label in labels}
    assert any("stay" in label[0] and "better" in label[0] for label in labels)
    assert all(left <= a and top <= b and c <= right and d <= bottom for _, a, b, c, d in labels), labels
    assert complaints == []


async def test_text_in_drawings_is_text(shown: Page) -> None:
    labels = await shown.evaluate("[...document.querySelectorAll('svg text')].map(text => text.textContent)")

    assert {"mean TTFT (ms)", "load, as a fraction of the pool's capacity", "time (s)"} <= set(labels)


@pytest.mark.parametrize("width", [1280, 420])
async def test_the_page_does_not_scroll_sideways(shown: Page, width: int) -> None:
    await shown.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)

    assert await shown.evaluate("document.documentElement.scrollWidth") <= width


async def test_the_command_that_made_it_is_there(shown: Page) -> None:
    assert await shown.evaluate("document.querySelector('pre').innerText") == COMMAND
