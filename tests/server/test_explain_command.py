"""`picker explain`: why a request went where it went."""

import asyncio
import json
from typing import Any

import pytest
from aiohttp.test_utils import TestServer
from click.testing import CliRunner, Result
from rich.console import Console
from small_service import ADDRESSES, CHAT, Clock, make_service

from picker.routing.decisions import as_json
from picker.routing.outcome import Fault, Outcome
from picker.server.admin import Shown, admin_app
from picker.server.explain_command import explain, explanation
from picker.server.service import Service
from picker.telemetry.endpoints import EndpointTallies

WHOLE = Outcome(200, None, True, 0.25, 1.25, 120, 64, 5, True)
LEARNED = {
    "predicted_ttft_ms": [80.0, 200.0, 90.0],
    "predicted_tpot_ms": [11.0, 12.0, 13.0],
    "correction": [1.0, 1.5, 1.0],
    "marginal_ms": [5.0, 0.0, 7.0],
    "rule_cost": [50.0, 40.0, 60.0],
}


@pytest.fixture
def service() -> Service:
    return make_service(Clock())


def pick(service: Service, request_id: str = "r", outcome: Outcome | None = WHOLE) -> dict[str, Any]:
    headers = {"x-request-id": request_id}
    request = service.reader.finish(service.reader.parse("/v1/chat/completions", headers, CHAT))
    decision = service.router.pick(request, None, service.clock())
    if outcome is not None:
        service.finish(decision.flight, outcome)
    return as_json(decision)


def learned(decision: dict[str, Any]) -> dict[str, Any]:
    """The same pick as the learned policy would have it in the log: the first endpoint by its model."""
    for i, row in enumerate(decision["endpoints"]):
        row["reasons"] = {name: values[i] for name, values in LEARNED.items()}
    return {**decision, "policy": "learned", "chosen": ADDRESSES[0], "by": "model", "because": "fit"}


def shown(decision: dict[str, Any]) -> str:
    console = Console(width=140)
    with console.capture() as capture:
        console.print(explanation(decision))
    return capture.get()


async def asked(service: Service, *args: str) -> Result:
    async with TestServer(admin_app({"chat": Shown(service.router, EndpointTallies())}, 0.0)) as server:
        where = ["--admin", f"http://127.0.0.1:{server.port}"]
        return await asyncio.to_thread(CliRunner().invoke, explain, [*args, *where])


def test_every_endpoint_is_shown_the_chosen_one_first_with_features_reasons_and_cost(service: Service) -> None:
    decision = pick(service)
    lines = shown(decision).splitlines()
    for address in ADDRESSES:
        assert sum(f" {address} " in f" {line} " for line in lines if "chose" not in line) == 2
    marked = [line for line in lines if line.startswith(" > ")]
    assert [line.split()[1] for line in marked] == [decision["chosen"]] * 2
    cost = next(row["cost"] for row in decision["endpoints"] if row["address"] == decision["chosen"])
    assert marked[1].split()[-1] == f"{cost:.0f}"


def test_the_outcome_is_told_or_that_there_is_none_yet(service: Service) -> None:
    assert "status 200, complete, TTFT 250.0 ms, TPOT 250.0 ms, 120 prompt tokens, 64 cached" in shown(pick(service))
    assert "the answer still runs" in shown(pick(service, outcome=None))


def test_a_learned_pick_shows_predictions_beside_what_came_and_what_lmetric_would_have_done(service: Service) -> None:
    text = shown(learned(pick(service)))
    assert "decided by model: fit" in text
    assert "TTFT 250.0 ms (predicted 80.0)" in text
    assert f"LMetric alone would have picked {ADDRESSES[1]}: not what was chosen" in text
    for title in ("predicted ttft ms", "correction", "marginal ms", "rule cost"):
        assert title in text


def test_endpoints_that_were_left_out_because_they_fail_are_named(service: Service) -> None:
    failed = Outcome(status=503, served=ADDRESSES[1], fault=Fault.UNREACHED)
    assert "status 503, cut off, unreached" in shown(pick(service, outcome=failed))
    assert f"left out, because they fail: {ADDRESSES[1]}" in shown(pick(service))


def test_an_excluded_endpoint_and_an_unknown_age_are_dashes(service: Service) -> None:
    decision = pick(service)
    decision["endpoints"][2]["cost"] = None
    rows = [line for line in shown(decision).splitlines() if line.strip().startswith("10.0.0.3")]
    assert all(line.rstrip().endswith("-") for line in rows)


def test_what_a_client_sent_cannot_move_the_cursor_or_set_colours(service: Service) -> None:
    text = shown({**pick(service), "model": "[bold]x[/]\x1b[2J"})
    assert "[bold]x[/]?[2J" in text
    assert "\x1b" not in text


async def test_the_command_asks_a_running_picker(service: Service) -> None:
    pick(service, "a/b c")
    result = await asked(service, "a/b c")
    assert result.exit_code == 0
    assert "a/b c: chat for m" in result.output


async def test_json_is_the_decision_log(service: Service) -> None:
    decision = pick(service, "a")
    result = await asked(service, "a", "--json")
    assert json.loads(result.output) == [json.loads(json.dumps(decision).replace("Infinity", "null"))]


async def test_of_several_pools_the_named_one_is_asked(service: Service) -> None:
    pick(service, "known")
    assert (await asked(service, "known", "--pool", "chat")).exit_code == 0
    result = await asked(service, "known", "--pool", "elsewhere")
    assert (result.exit_code, "of pool elsewhere" in result.output) == (1, True)


async def test_an_unknown_id_and_a_silent_port_are_errors_in_words(service: Service) -> None:
    unknown = await asked(service, "nobody")
    assert (unknown.exit_code, unknown.output) == (1, "Error: no kept decision has this request id\n")
    silent = CliRunner().invoke(explain, ["x", "--admin", "http://127.0.0.1:1"])
    assert silent.exit_code == 1
    assert "no picker answers at http://127.0.0.1:1" in silent.output
