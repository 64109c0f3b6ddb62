"""The report is one strict HTML file that refers to nothing outside of itself and says at the top who won."""

import re
import sys
from html.parser import HTMLParser
from typing import Any

import pytest

from picker.simulator.report import render
from picker.simulator.report.bounds import standings
from picker.simulator.report.cells import read_cells
from picker.simulator.report.headline import headline
from picker.simulator.verdict import compare

VOID = {"meta", "br", "link", "img", "input", "hr"}
COMMAND = 'picker replay trace.jsonl --pool "a:2" --report <out>.html'


def cell(policy: str, seed: int, ttft: float, *, load: float | None = 0.8, **more: object) -> dict[str, Any]:
    ttft *= 1 + seed / 100
    return {
        "policy": policy,
        "load": load,
        "seed": seed,
        "ttft_ms": {"mean": ttft, "p50": ttft / 2, "p90": 2 * ttft, "p99": 4 * ttft},
        "tpot_ms": {"mean": 20.0, "p50": 20.0, "p90": 20.0, "p99": 20.0},
        "e2e_ms": {"mean": 10 * ttft, "p50": 9 * ttft, "p90": 20 * ttft, "p99": 40 * ttft},
        "throughput": 6.0,
        "goodput": 5.0,
        "prefix_hit_ratio": 0.25,
        "preemptions": 1,
        "regret_ms": {"mean": 12.5, "p50": 0.0, "p90": 1.0, "p99": 2.0, "picks": 7, "of": "ttft"},
        "requests": 100,
        "completed": 100,
        "engines": [{"type": "h100/llama", "busy_share": 0.5}, {"type": "l40s/llama", "busy_share": 0.875}],
        "ttft_grid_ms": [1.0 + ttft * quantile / 50 for quantile in range(101)],
        "series": {"t_s": [0.0, 1.0, 2.0], "load": [[0, 3, 1], [1, 7, 0]]},
        "trace": "trace.jsonl",
        "pool": "a:2",
        **more,
    }


def replay(times: dict[str, float], *, loads: tuple[float, ...] = (0.5, 0.8), seeds: int = 3) -> list[dict[str, Any]]:
    return [
        cell(policy, seed, ttft, load=load) for policy, ttft in times.items() for load in loads for seed in range(seeds)
    ]


class Strict(HTMLParser):
    """Text, attributes and identifiers of a document whose tags nest."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, list[str]] = {}
        self.feed(document)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute of <{tag}> is given twice"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and data.strip():
            self.text.setdefault(self.open[-1], []).append(data.strip())

    def values(self, name: str) -> list[str]:
        return [attrs[name] or "" for _, attrs in self.tags if name in attrs]


@pytest.fixture(scope="module")
def page() -> str:
    cells = replay({"new": 100.0, "old": 150.0, "random": 400.0, "clairvoyant": 50.0})
    return render(cells, compare(cells, "old"), COMMAND)


def test_the_document_is_strict_and_its_names_are_unique(page: str) -> None:
    document = Strict(page)

    ids = document.values("id")
    targets = {name for label in document.values("aria-labelledby") for name in label.split()}
    assert page.startswith("<!doctype html>")
    assert len(ids) == len(set(ids))
    assert targets <= set(ids)
    assert {reference[1:] for reference in document.values("xlink:href") if reference.startswith("#")} <= set(ids)
    assert set(re.findall(r"url\(#([^)]+)\)", page)) <= set(ids)


def test_nothing_is_fetched_from_anywhere(page: str) -> None:
    document = Strict(page)

    references = [*document.values("src"), *document.values("href"), *document.values("xlink:href")]
    assert references
    assert all(reference.startswith(("#", "data:image/png;base64,")) for reference in references)
    assert not {tag for tag, _ in document.tags} & {"script", "link", "iframe", "object", "img", "base"}
    assert "@import" not in page


def test_the_winner_is_the_first_thing_to_read(page: str) -> None:
    text = Strict(page).text

    assert text["h1"] == ["new wins at every load"]
    assert text["li"][0] == "At load 0.5: new wins: mean TTFT 101 ms, 1.50x (1.50-1.50) better than the next, old."
    assert text["title"][0] == "new wins at every load - picker replay"


def test_every_verdict_stands_there_in_words(page: str) -> None:
    lines = Strict(page).text["li"]

    assert "new is 1.50x (1.50-1.50) better than old in mean TTFT at load 0.8" in lines
    assert "random is 2.67x (2.67-2.67) worse than old in mean TTFT at load 0.5" in lines
    assert "new and old are even in mean TPOT at load 0.5: 1.00x (1.00-1.00)" in lines


def test_every_drawing_has_a_title_and_its_axes_have_units(page: str) -> None:
    document = Strict(page)

    drawings = [attrs for tag, attrs in document.tags if tag == "svg"]
    assert len(drawings) == 5 + 2 + 2
    assert all(attrs["role"] == "img" and attrs["aria-labelledby"] for attrs in drawings)
    assert "mean TTFT of each policy by load" in document.text["title"]
    for label in ("mean TTFT (ms)", "goodput (requests/s)", "TTFT (ms)", "share of requests (%)", "time (s)"):
        assert label in document.text["text"], label


def test_the_tables_hold_means_over_seeds_and_their_intervals(page: str) -> None:
    text = Strict(page).text

    assert "mean TTFT (ms)" in text["th"]
    assert text["td"].count("101") == 2
    assert "400 to 408" in text["small"]
    assert "50 to 88" in text["td"]
    assert "mean regret (ms of TTFT)" in text["th"]
    assert text["td"].count("12.5") == 8


def test_the_command_that_made_it_is_shown_and_harmless(page: str) -> None:
    assert "".join(Strict(page).text["pre"]) == COMMAND
    assert "<out>" not in page


def test_names_from_the_outside_are_only_text() -> None:
    evil = "<script>alert(1)</script>"
    cells = replay({evil: 100.0, "$\\frac{$": 150.0})

    page = render(cells, compare(cells, evil), evil)

    assert "<script" not in page
    assert Strict(page).text["h1"] == [f"{evil} wins at every load"]
    assert "$\\frac{$" in Strict(page).text["text"]


def test_equal_input_gives_an_equal_file() -> None:
    cells = replay({"a": 1.0, "b": 2.0}, loads=(0.8,))

    assert render(cells, [], "x") == render(cells, [], "x")


def test_a_cell_with_the_least_there_can_be_still_makes_a_report() -> None:
    nothing = dict.fromkeys(("mean", "p50", "p90", "p99"))
    bare = {"policy": "a", "load": None, "seed": 0, "goodput": 0.0}
    cells = [{**bare, "ttft_ms": nothing, "tpot_ms": nothing, "e2e_ms": nothing}]

    assert Strict(render(cells, [], "x")).text["h1"] == ["One policy: nothing to compare"]


def test_a_report_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one cell"):
        render([], [], "x")


@pytest.mark.parametrize(
    "wrong",
    [
        {"policy": 7},
        {"series": {"t_s": [1.0], "load": [[1, 2]]}},
        {"series": {"t_s": [1.0], "ttft_ms": [1.0, 2.0]}},
        {"series": {"t_s": [1.0], "learning": {"model_error": [], "baseline_error": [0.1], "model_share": [1]}}},
        {"series": {"arrived": {"t_s": [0.0]}}},
        {"ttft_grid_ms": ["a"]},
        {"engines": 1},
    ],
)
def test_what_is_no_cell_is_refused_with_its_number(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="cell 1: "):
        render([cell("a", 0, 1.0), {**cell("a", 1, 1.0), **wrong}], [], "x")


def test_without_matplotlib_the_report_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("matplotlib", "picker.simulator.report."))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("picker.simulator.report.charts", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    with pytest.raises(RuntimeError, match=r"pip install 'picker\[report\]'"):
        render([cell("a", 0, 1.0)], [], "x")


def over_time(*minutes: float, learns: bool = False) -> dict[str, Any]:
    """A series of one point a minute, with one window each; learning hands over at 90 s."""
    times = [60.0 * number for number in range(len(minutes))]
    series: dict[str, Any] = {"t_s": times, "load": [[1] * len(times)], "ttft_ms": [None, *minutes[1:]]}
    series["arrived"] = {"window_s": 60.0, "t_s": times, "ttft_ms": [*minutes], "requests": [5] * len(times)}
    errors = {"model_error": [None] + [0.1] * (len(times) - 1), "baseline_error": [0.3] * len(times)}
    errors["model_share"] = [0.0, None] + [1.0] * (len(times) - 2)
    handovers = [{"at_s": 90.0, "was": "cold", "now": "none"}, {"at_s": 150.0, "was": "none", "now": "error"}]
    series["learning"] = {**errors, "handovers": handovers} if learns else None
    return series


@pytest.fixture(scope="module")
def learning_cells() -> list[dict[str, Any]]:
    ours, theirs = over_time(9.0, 8.0, 4.0, 4.0, learns=True), over_time(8.0, 8.0, 8.0, 8.0)
    cells = [cell("learned", seed, 90.0, load=load, series=ours) for load in (0.5, 0.8) for seed in range(3)]
    return cells + [cell("rule", seed, 100.0, load=load, series=theirs) for load in (0.5, 0.8) for seed in range(3)]


@pytest.fixture(scope="module")
def learning_page(learning_cells: list[dict[str, Any]]) -> str:
    return render(learning_cells, compare(learning_cells, "rule"), COMMAND)


def test_from_when_on_learning_is_better_stands_in_words_and_in_the_drawing(learning_page: str) -> None:
    document = Strict(learning_page)

    line = "learned stays better than rule in TTFT at load 0.5 from 120 s on (median of 3 seeds; 120 to 120 s)"
    assert line in document.text["li"]
    assert document.text["title"].count("learned against rule over time at load 0.5, seed 0") == 1
    assert document.text["text"].count("stays better from 120 s on") == 2


def test_hand_overs_are_marked_with_who_is_in_charge_then(learning_page: str) -> None:
    labels = Strict(learning_page).text["text"]

    assert labels.count("model in charge") == labels.count("rule: error") == 2
    assert {"TTFT (ms)", "calibrated estimate", "model"} <= set(labels)


def test_learning_is_drawn_of_policies_that_learn_only(learning_page: str, page: str) -> None:
    drawn = [title for title in Strict(learning_page).text["title"] if "over time at" in title and "against" in title]

    assert len(drawn) == 2
    assert "Learning over time" not in page


def test_a_policy_that_learns_is_drawn_without_a_rival_too(learning_cells: list[dict[str, Any]]) -> None:
    alone = [one for one in learning_cells if one["policy"] == "learned"]

    assert "learned over time at load 0.8, seed 0" in Strict(render(alone, [], "x")).text["title"]
    as_baseline = render(learning_cells, compare(learning_cells, "learned"), "x")
    assert "learned over time at load 0.8, seed 0" in Strict(as_baseline).text["title"]


def said(cells: list[dict[str, Any]]) -> str:
    found = headline(cells, read_cells(cells))
    return "\n".join((found.title, *found.lines))


def test_policies_that_know_the_future_win_nothing() -> None:
    assert said(replay({"new": 2.0, "old": 3.0, "clairvoyant": 1.0})).startswith("new wins at every load")


def test_two_that_cannot_be_told_apart_share_the_place() -> None:
    noisy = [cell("old", seed, ttft) for seed, ttft in enumerate((101.0, 99.0, 105.0))]

    words = said([*noisy, *(cell("new", seed, 100.0) for seed in range(3)), *(cell("bad", s, 300.0) for s in range(3))])

    assert words.startswith("Nobody wins alone at load 0.8\nAt load 0.8: new and old cannot be told apart in mean TTFT")
    assert "bad" not in words


def test_winners_may_differ_by_load() -> None:
    cells = replay({"a": 1.0, "b": 2.0}, loads=(0.5,)) + replay({"a": 2.0, "b": 1.0}, loads=(0.9,))

    assert said(cells).startswith("Winners differ: a at load 0.5, b at load 0.9")


def test_a_winner_at_some_loads_only_is_called_so() -> None:
    tied = [cell("b", seed, 1.0, load=0.9) for seed in range(3)] + [cell("a", seed, 1.0, load=0.9) for seed in range(3)]

    words = said([*replay({"a": 1.0, "b": 2.0}), *tied])

    assert words.startswith("a wins at load 0.5 and load 0.8; nobody wins alone at load 0.9")


def test_with_too_few_seeds_nobody_wins() -> None:
    assert said(replay({"a": 1.0, "b": 2.0}, seeds=2)).startswith(
        "Not enough seeds for a verdict: a looks best at every load\nAt load 0.5: a looks best"
    )


def test_a_winner_that_loses_elsewhere_is_told_on() -> None:
    cells = [cell("a", s, 1.0, goodput=4.0, completed=70) for s in range(3)] + [cell("b", s, 2.0) for s in range(3)]

    words = said(cells)

    assert "But b is 1.25x (1.25-1.25) better than a in goodput at load 0.8" in words
    assert "But a lost 30.0% of its requests, b 0.0%." in words


def test_a_policy_without_a_single_answer_does_not_win() -> None:
    nothing = dict.fromkeys(("mean", "p50", "p90", "p99"))
    cells = [cell("a", s, 1.0, ttft_ms=nothing) for s in range(3)] + replay({"b": 2.0, "c": 3.0}, loads=(0.8,))

    assert said(cells).startswith("b wins at load 0.8")


def test_standings_run_from_random_to_each_bound() -> None:
    cells = replay({"random": 400.0, "halfway": 200.0, "clairvoyant-ttft": 120.0, "rollout": 100.0}, loads=(0.8,))

    found = standings(read_cells(cells))

    to_rollout = {standing.policy: standing.shares["mean TTFT", "rollout"] for standing in found}
    assert to_rollout == pytest.approx(
        {"random": 0.0, "halfway": 0.5, "clairvoyant-ttft": 0.868, "rollout": 1.0}, abs=0.01
    )
    to_myopic = {standing.policy: standing.shares["mean TTFT", "clairvoyant-ttft"] for standing in found}
    assert to_myopic["clairvoyant-ttft"] == 1.0
    assert to_myopic["rollout"] == pytest.approx(1.151, abs=0.001)


def test_a_bound_that_did_not_run_at_a_load_says_nothing_there() -> None:
    cells = replay({"random": 400.0, "clairvoyant-ttft": 100.0}) + replay({"rollout": 50.0}, loads=(0.5,))

    shares = {
        standing.load: standing.shares for standing in standings(read_cells(cells)) if standing.policy == "random"
    }

    assert shares["load 0.8"]["mean TTFT", "rollout"] is None
    assert shares["load 0.8"]["mean TTFT", "clairvoyant-ttft"] == shares["load 0.5"]["mean TTFT", "rollout"] == 0.0


def test_without_bounds_there_are_no_standings() -> None:
    assert standings(read_cells(replay({"random": 2.0, "a": 1.0}))) == []
