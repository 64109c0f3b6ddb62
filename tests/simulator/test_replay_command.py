"""`picker replay` as a person meets it."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from picker.server.replay_command import replay

POOL = "h100_sxm/llama-3-8b tp1:2"
TRACE = "gen:x?requests=40&rate=20"
ASKED = {
    "policy", "load", "seed", "ttft_ms", "tpot_ms", "e2e_ms", "throughput", "goodput", "prefix_hit_ratio",
    "preemptions", "engines", "requests", "errors",
}  # fmt: skip


def run(folder: Path, *arguments: str, trace: str = TRACE, pool: str = POOL) -> Result:
    return CliRunner().invoke(replay, [trace, "--pool", pool, "--json", str(folder / "out.json"), *arguments])


def cells(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "out.json").read_text())
    return found


def test_one_object_per_policy_load_and_seed(tmp_path: Path) -> None:
    result = run(tmp_path, "--policy", "random,multiplicative", "--load", "0.3,0.6", "--seeds", "2", "--jobs", "1")
    assert result.exit_code == 0, result.output
    found = cells(tmp_path)
    assert [(c["policy"], c["load"], c["seed"]) for c in found] == [
        (policy, load, seed) for policy in ("random", "multiplicative") for load in (0.3, 0.6) for seed in (0, 1)
    ]
    assert all(set(cell) >= ASKED for cell in found)
    assert found[2]["time_scale"] == pytest.approx(2 * found[0]["time_scale"])


def test_processes_give_what_one_process_gives(tmp_path: Path) -> None:
    for jobs in ("1", "2"):
        (tmp_path / jobs).mkdir()
        assert run(tmp_path / jobs, "--time-scale", "1", "--seeds", "2", "--jobs", jobs).exit_code == 0
    assert (tmp_path / "1/out.json").read_bytes() == (tmp_path / "2/out.json").read_bytes()


def test_a_run_that_was_broken_off_goes_on_from_there(tmp_path: Path) -> None:
    assert run(tmp_path, "--time-scale", "1", "--seeds", "2", "--jobs", "1").exit_code == 0
    kept = sorted(tmp_path.glob("out.json.cells/*/*.json"))
    assert len(kept) == 2
    marked = json.loads(kept[0].read_text()) | {"marked": True}
    kept[0].write_text(json.dumps(marked))
    kept[1].write_text('{"cut sh')
    assert run(tmp_path, "--time-scale", "1", "--seeds", "3", "--jobs", "1").exit_code == 0
    found = cells(tmp_path)
    assert [cell.get("marked", False) for cell in found] == [True, False, False]
    assert [cell["seed"] for cell in found] == [0, 1, 2]


def test_another_setting_does_not_resume_from_these_cells(tmp_path: Path) -> None:
    for alpha in ("0", "0.2"):
        assert run(tmp_path, "--time-scale", "1", "--jobs", "1", "--alpha", alpha).exit_code == 0
        assert cells(tmp_path)[0]["alpha"] == float(alpha)


def test_capacity_is_measured_once_for_a_trace_and_a_pool(tmp_path: Path) -> None:
    assert run(tmp_path, "--load", "0.5", "--jobs", "1").exit_code == 0
    (kept,) = tmp_path.glob("out.json.cells/capacity-*.json")
    known = json.loads(kept.read_text())
    kept.write_text(json.dumps(known | {"time_scale": 0.25}))
    assert run(tmp_path, "--load", "0.4", "--jobs", "1").exit_code == 0
    assert cells(tmp_path)[0]["time_scale"] == pytest.approx(0.1)


def test_a_trace_file_and_an_events_file_are_read(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "t,input_length,output_length\n" + "".join(f"{i / 10},500,30\n" for i in range(60)), encoding="utf-8"
    )
    (tmp_path / "events.yaml").write_text("- {at_s: 3, kind: crash, engine: 0}\n")
    events = ("--events", str(tmp_path / "events.yaml"))
    result = run(tmp_path, "--time-scale", "1", "--limit", "50", *events, trace=str(tmp_path / "t.csv"))
    assert result.exit_code == 0, result.output
    (cell,) = cells(tmp_path)
    assert cell["requests"] == 50
    assert cell["trace"] == "t.csv"
    assert [engine["alive"] for engine in cell["engines"]] == [False, True]


def test_variants_of_a_policy_are_judged_against_each_other(tmp_path: Path) -> None:
    asked = ("--policy", "weighted,weighted?prefixWeight=0", "--seeds", "3", "--first-seed", "7", "--time-scale", "1")
    result = run(tmp_path, *asked, "--jobs", "1", trace="gen:x?requests=60&rate=40&share=0.8&groups=20")
    assert result.exit_code == 0, result.output
    assert "weighted?prefixWeight=0" in result.output
    found = cells(tmp_path)
    assert [(cell["policy"], cell["seed"]) for cell in found] == [
        (policy, seed) for policy in ("weighted", "weighted?prefixWeight=0") for seed in (7, 8, 9)
    ]
    assert found[0]["prefix_hit_ratio"] > found[3]["prefix_hit_ratio"]


def test_what_is_skipped_is_neither_played_nor_counted(tmp_path: Path) -> None:
    assert run(tmp_path, "--time-scale", "1", "--skip", "30", "--warm-up", "4").exit_code == 0
    assert cells(tmp_path)[0]["requests"] == 40 - 30 - 4


def test_sessions_share_their_system_prompt_only_where_that_is_asked_for(tmp_path: Path) -> None:
    trace = tmp_path / "sessions.jsonl"
    session = {"tool_tokens": 640, "system_tokens": 320, "requests": [{"in": 1280, "out": 4, "h": [[1, 20]]}]}
    trace.write_text("\n".join([json.dumps(session)] * 3))
    found = []
    for options in ((), ("--share-system",)):
        assert (
            run(tmp_path, "--time-scale", "1", *options, trace=str(trace), pool="h100_sxm/llama-3-8b tp1").exit_code
            == 0
        )
        found.append(cells(tmp_path)[0]["prefix_hit_ratio"])
    assert found == [0.0, pytest.approx(2 / 3 * 960 / 1280)]


def test_a_report_and_a_verdict_against_the_baseline_come_with_it(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    asked = ("--policy", "random,multiplicative", "--baseline", "random", "--seeds", "3", "--report", str(page))
    result = run(tmp_path, *asked, "--time-scale", "1", "--jobs", "1")
    assert result.exit_code == 0, result.output
    assert "multiplicative" in result.output
    assert "mean TTFT" in result.output
    assert "multiplicative" in page.read_text(encoding="utf-8")


def test_from_when_on_learning_is_better_is_said_and_written_down(tmp_path: Path) -> None:
    asked = ("--policy", "learned,random", "--baseline", "random", "--time-scale", "1", "--jobs", "1")
    result = run(tmp_path, *asked, trace="gen:x?requests=80&rate=20")
    assert result.exit_code == 0, result.output
    learned, random = cells(tmp_path)
    assert learned["learning_time"]["baseline"] == "random"
    assert random["learning_time"] is None
    assert "better than random in TTFT at time scale 1" in result.output


@pytest.mark.parametrize(
    ("arguments", "given", "said"),
    [
        (("--policy", "nosuch"), {}, "no policy nosuch"),
        (("--policy", "weighted?kvWait=1"), {}, 'did you mean "kvWeight"'),
        (("--skip", "40"), {}, "no request after the first 40"),
        (("--load", "0"), {}, "loads must be"),
        (("--load", "a"), {}, "comma list"),
        ((), {"pool": "nosuch:3"}, "no engine type 'nosuch'"),
        ((), {"trace": "/no/such/file"}, "no file"),
        ((), {"trace": "gen:x?mix=odd"}, "no length mix"),
        (("--seeds", "0"), {}, "--seeds"),
        (("--baseline", "random"), {}, "the baseline random"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    tmp_path: Path, arguments: tuple[str, ...], given: dict[str, str], said: str
) -> None:
    result = run(tmp_path, *arguments, **given)
    assert result.exit_code != 0
    assert said in result.output
    assert "Traceback" not in result.output


def test_moves_are_told_of_policies_that_have_them(tmp_path: Path) -> None:
    policies = "multiplicative,staged?migration=true"
    how = ("--kv", "compute", "--link-gbps", "25", "--transfers", "1", "--move-ahead", "--known-steps")
    assert run(tmp_path, "--policy", policies, "--time-scale", "1", "--jobs", "1", *how).exit_code == 0
    plain, moving = cells(tmp_path)
    assert plain["moved"] is None
    assert (moving["moved"]["moved"], moving["moved"]["gap_ms"]["mean"]) == (0, None)


def test_a_link_has_some_speed(tmp_path: Path) -> None:
    assert "--link-gbps" in run(tmp_path, "--link-gbps", "0").output
