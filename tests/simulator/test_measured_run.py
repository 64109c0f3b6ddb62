"""A measured run is read strictly, and the engine model lands close to it without being fitted to it."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from picker.server.validate_command import ROW, read_run, validate_engine
from picker.simulator.measured_run import errors_pct, measured, parse_run, simulate, simulated
from picker.simulator.steptime import load_row

SHIPPED = Path(__file__).parents[2] / "picker/simulator/data/measured_run_rtxpro6000_8b"
META = b'{"engine_kwargs": {"max_num_seqs": 4, "max_num_batched_tokens": 64, "max_model_len": null}}'
FIRST = {"request_id": "a", "input_toks": 40, "output_toks": 3, "queued_ts": 7.0, "first_token_ts": 7.5}
SECOND = {"request_id": "b", "input_toks": 40, "output_toks": 3, "queued_ts": 9.0, "first_token_ts": 9.1}
ROWS = [{**FIRST, "last_token_ts": 8.5}, {**SECOND, "last_token_ts": 9.3}]
PROMPTS = [
    {"input_toks": 40, "output_toks": 3, "hash16": [1, 2]},
    {"input_toks": 40, "output_toks": 3, "hash16": [1, 3]},
]


def jsonl(*rows: object) -> bytes:
    return b"\n".join(json.dumps(row).encode() for row in rows)


def test_times_count_from_the_moment_the_engine_queued_a_request() -> None:
    run = parse_run(META, jsonl(*ROWS))

    assert [request.at_ms for request in run.requests] == [0, 2000]
    assert measured(run)["ttft"]["mean"] == pytest.approx((500 + 100) / 2)
    assert measured(run)["e2e"]["mean"] == pytest.approx((1500 + 300) / 2)
    assert measured(run)["tpot"]["mean"] == pytest.approx((500 + 100) / 2)


def test_shared_blocks_of_the_workload_become_prefix_hits() -> None:
    with_prompts = simulate(parse_run(META, jsonl(*ROWS), jsonl(*PROMPTS)), load_row())
    without = simulate(parse_run(META, jsonl(*ROWS)), load_row())

    assert [timing.cached_tokens for timing in with_prompts] == [0, 16]
    assert [timing.cached_tokens for timing in without] == [0, 0]


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.ZstdCompressor().compress])
def test_compression_is_told_by_content(pack: Callable[[bytes], bytes]) -> None:
    assert parse_run(pack(META), pack(jsonl(*ROWS)), pack(jsonl(*PROMPTS))) == parse_run(
        META, jsonl(*ROWS), jsonl(*PROMPTS)
    )


@pytest.mark.parametrize(
    ("meta", "requests", "workload", "complaint"),
    [
        (b"{}", jsonl(*ROWS), None, "meta"),
        (META.replace(b": 64", b": 2"), jsonl(*ROWS), None, "max_num_batched_tokens"),
        (META, b"", None, "the run is empty"),
        (META, jsonl({**FIRST, "last_token_ts": 7.1}), None, "requests line 1.*order"),
        (META, jsonl(ROWS[0]) + b"\nnonsense", None, "requests line 2"),
        (META, jsonl(ROWS[0], ROWS[0]), None, "same request_id"),
        (META, jsonl(*ROWS), jsonl(PROMPTS[0]), "1 prompts for 2 requests"),
        (META, jsonl(*ROWS), jsonl(PROMPTS[0], {**PROMPTS[1], "input_toks": 41}), "workload line 2.*lengths"),
        (META, jsonl(*ROWS), jsonl(PROMPTS[0], {**PROMPTS[1], "hash16": [1]}), "workload line 2.*1 blocks"),
        (META, b"\x1f\x8b broken", None, "requests: cannot be decompressed"),
        (META, b"\x28\xb5\x2f\xfd broken", None, "requests: cannot be decompressed"),
    ],
)
def test_what_is_no_measured_run_is_refused_with_its_place(
    meta: bytes, requests: bytes, workload: bytes | None, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_run(meta, requests, workload)


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_no_bytes_raise_anything_but_value_error(requests: bytes, workload: bytes) -> None:
    with pytest.raises(ValueError, match=r"requests|workload"):
        parse_run(META, requests, workload)


def test_a_request_that_the_model_cannot_hold_is_an_error_and_not_left_out() -> None:
    run = parse_run(META.replace(b"null", b"42"), jsonl(*ROWS))

    with pytest.raises(ValueError, match="refuses 2 requests"):
        simulate(run, load_row())


def test_errors_are_signed_per_cent_of_the_measured_figure() -> None:
    real = {name: {"mean": 100.0, "p50": 100.0, "p90": 1.0, "p99": 200.0} for name in ("ttft", "tpot", "e2e")}
    model = {name: {"mean": 90.0, "p50": 105.0, "p90": 1.0, "p99": 200.0} for name in ("ttft", "tpot", "e2e")}

    assert errors_pct(real, model)["e2e_error_pct"] == pytest.approx({"mean": -10, "p50": 5, "p99": 0})


def test_the_model_lands_within_seven_per_cent_of_the_shipped_run_end_to_end() -> None:
    run = read_run(SHIPPED)

    error = errors_pct(measured(run), simulated(simulate(run, load_row(ROW))))

    assert len(run.requests) == 300
    assert all(abs(value) < 7 for value in error["e2e_error_pct"].values())
    assert all(abs(value) < 5 for value in error["tpot_error_pct"].values())


def test_the_measured_engine_had_its_prefix_cache_on_and_so_has_the_model() -> None:
    hit = [timing.cached_tokens for timing in simulate(read_run(SHIPPED), load_row(ROW))]

    assert sum(hit) == 1220 * 16


def test_requests_that_found_a_seat_are_short_by_one_step_and_the_queue_multiplies_the_rest() -> None:
    run = read_run(SHIPPED)
    pairs = list(zip(run.requests, simulate(run, load_row(ROW)), strict=True))

    seated = [r.ttft_ms - t.ttft_ms for r, t in pairs if r.ttft_ms < 1000 and t.ttft_ms < 1000]
    queued = [r.ttft_ms - t.ttft_ms for r, t in pairs if r.ttft_ms >= 1000 and t.ttft_ms >= 1000]

    assert 0 < sum(seated) / len(seated) < 30
    assert sum(queued) / len(queued) > 1000


def test_the_command_writes_the_errors_and_says_which_alpha_and_host_time(tmp_path: Path) -> None:
    out = tmp_path / "errors.json"

    done = CliRunner().invoke(validate_engine, [str(SHIPPED), "--host-ms", "0.25", "--json", str(out)])

    report = json.loads(out.read_text())
    assert done.exit_code == 0, done.output
    assert "alpha 0 and 0.25 ms of host time" in done.output
    assert (report["alpha"], report["host_ms"], report["row"]) == (0, 0.25, ROW)
    for measure in ("ttft_error_pct", "tpot_error_pct", "e2e_error_pct"):
        assert set(report[measure]) == {"mean", "p50", "p99"}


def test_without_a_folder_the_command_takes_the_shipped_run() -> None:
    assert "300 requests" in CliRunner().invoke(validate_engine, []).output


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--row", "abacus/none"], "no step-time row 'abacus/none'; there are: a100"),
        (["{empty}"], "needs meta.json and requests.jsonl"),
        (["--json", "{empty}/none/out.json"], "No such file or directory"),
        (["--engine-models", "{models}"], "no column 'gpu'"),
    ],
)
def test_mistakes_are_explained(tmp_path: Path, arguments: list[str], complaint: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "models.csv").write_text("a,b\n1,2\n")
    places = {"empty": str(tmp_path / "empty"), "models": str(tmp_path / "models.csv")}

    done = CliRunner().invoke(validate_engine, [argument.format(**places) for argument in arguments])

    assert done.exit_code != 0
    assert complaint in done.output
