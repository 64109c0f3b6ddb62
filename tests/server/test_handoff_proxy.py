"""`picker handoff` over real sockets: what a client gets, whatever happens to the engine."""

import asyncio
import gzip
import json
from typing import Any

import pytest
from handoff_pool import ASKED, CHAT, CONTEXT, PROMPT, TEXT, TOKEN, Pool, pool
from model_engine import decode, steps
from yarl import URL

from picker.server.handoff_token import TOKEN_HEADER

# -- as if it were not there ------------------------------------------------------------------------------------------


async def test_a_stream_that_nothing_happens_to_is_the_engines_own() -> None:
    async with pool() as there:
        status, heard = await there.post(CHAT, ASKED | {"stream": True})
    assert (status, heard) == (200, there.alone())


async def test_paths_methods_and_refusals_of_the_engine_are_passed_on() -> None:
    async with pool() as there:
        async with there.session.get(URL(there.url() + "/v1/models?x=%2F", encoded=True)) as response:
            assert await response.json() == {"path": "/v1/models?x=%2F", "method": "GET", "by": "a"}
        there.engines["a"].status = 404
        assert await there.post(CHAT, ASKED) == (404, b'{"error": {"message": "no"}}')


async def test_what_cannot_be_moved_reaches_the_engine_unchanged() -> None:
    body = ASKED | {"n": 2, "messages": [{"role": "user", "content": "\u00e9"}]}
    async with pool() as there:
        await there.post(CHAT, body)
    assert there.engines["a"].heard == [(CHAT, body)]


@pytest.mark.parametrize("place", ["top", "inside"])
async def test_a_client_cannot_name_kv_of_others(place: str) -> None:
    params = {"kv_transfer_params": {"remote_host": "10.0.0.1"}}
    async with pool() as there:
        await there.post(CHAT, ASKED | (params if place == "top" else {"vllm_xargs": params}))
        await there.post("/inference/v1/generate", params)
    assert all("kv_transfer_params" not in json.dumps(body) for _, body in there.engines["a"].heard)


async def test_a_packed_body_is_unpacked_for_the_engine() -> None:
    body = ASKED | {"n": 2}
    async with pool() as there:
        packed, headers = gzip.compress(json.dumps(body).encode()), {"Content-Encoding": "gzip"}
        async with there.session.post(there.url() + CHAT, data=packed, headers=headers) as response:
            assert response.status == 200
    assert there.engines["a"].heard == [(CHAT, body)]


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 10_000, b'{"a":' * 300 + b"1" + b"}" * 300, b"\xff\xfe"])
async def test_a_body_that_no_engine_reads_harms_nobody(body: bytes) -> None:
    async with pool() as there:
        async with there.session.post(there.url() + CHAT, data=body) as response:
            assert response.status in (200, 400)
        assert (await there.post(CHAT, ASKED))[0] == 200


async def test_a_client_that_leaves_leaves_the_engine_too() -> None:
    async with pool() as there:
        there.engines["a"].every_s = 0.02
        async with there.session.post(there.url() + CHAT, json=ASKED | {"stream": True}) as response:
            await response.content.readany()
            assert len(list(there.proxies["a"].flights.here())) == 1
        await asyncio.wait_for(there.proxies["a"].flights.until_none(), 60)


# -- when the engine dies ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("events", [0, 1, 2, 7])
async def test_a_stream_outlives_its_engine(events: int) -> None:
    async with pool() as there:
        there.engines["a"].dies_after = events
        _, heard = await there.post(CHAT, ASKED | {"stream": True, "stream_options": {"include_usage": True}})
        said = there.alone(stream_options={"include_usage": True})
        assert heard == (said if events else said.replace(b'"id":"7"', b'"id":"8"').replace(b":7,", b":8,"))
        assert there.engines["b"].heard


async def test_a_stream_without_a_limit_may_fill_the_context_after_a_change_as_before() -> None:
    body = {"model": "m", "messages": ASKED["messages"], "stream": True}
    async with pool() as there:
        there.engines["a"].dies_after = 6
        _, heard = await there.post(CHAT, body)
        assert heard == there.alone(max_tokens=CONTEXT - len(PROMPT))


async def test_an_engine_that_falls_silent_is_left() -> None:
    async with pool(silence_s=0.2) as there:
        there.engines["a"].dies_after, there.engines["a"].silent = 5, True
        assert (await there.post(CHAT, ASKED | {"stream": True}))[1] == there.alone()


async def test_an_answer_in_one_piece_outlives_its_engine() -> None:
    async with pool() as there:
        there.engines["a"].dies_after = 6
        status, body = await there.post(CHAT, ASKED)
    tokens = [token for token, *_ in steps(PROMPT, ASKED)]
    assert status == 200
    assert json.loads(body)["choices"][0]["message"]["content"] == decode(tokens)


@pytest.mark.parametrize("body", [ASKED, ASKED | {"n": 2}, ASKED | {"stream": True}])
async def test_a_request_that_was_not_answered_yet_is_tried_elsewhere(body: dict[str, Any]) -> None:
    async with pool() as there:
        there.engines["a"].status = 503
        assert (await there.post(CHAT, body))[0] == 200
        assert there.engines["b"].heard


async def test_a_request_that_kills_two_engines_kills_no_third() -> None:
    async with pool("a", "b", "c") as there:
        for engine in there.engines.values():
            engine.dies_after = 4
        _, heard = await there.post(CHAT, ASKED | {"stream": True})
        assert b"2 engines failed under this request" in heard
        assert heard.endswith(b"data: [DONE]\n\n")
        assert not there.engines["c"].heard
        page = await counted(there, "a")
        assert 'picker_handoff_failovers_total{outcome="went-on"} 1.0' in page, "a word of the end is no going on"
        assert 'picker_handoff_failovers_total{outcome="poison"} 1.0' in page


async def test_without_failover_the_client_hears_of_it() -> None:
    async with pool(on=False) as there:
        there.engines["a"].dies_after = 4
        assert b"the engine failed" in (await there.post(CHAT, ASKED | {"stream": True}))[1]
        assert not there.engines["b"].heard


async def counted(there: Pool, proxy: str) -> str:
    """What a proxy tells Prometheus."""
    async with there.session.get(there.url(proxy) + "/handoff/metrics") as response:
        return await response.text()


# -- when it is moved -------------------------------------------------------------------------------------------------


async def test_a_stream_told_to_leave_goes_on_at_the_other_engine_and_the_gap_is_known() -> None:
    async with pool() as there:
        there.engines["a"].every_s = 0.01
        proxy = there.proxies["a"]
        asking = asyncio.create_task(there.post(CHAT, ASKED | {"stream": True}))
        while not any(flight.ready for flight in proxy.flights.here()):
            await asyncio.sleep(0.01)
        (flight,) = proxy.flights.here()
        assert flight.leave("b")
        assert (await asking)[1] == there.alone()
        (path, body), *_ = there.engines["b"].heard
        assert path == TEXT
        assert body["prompt"][: len(PROMPT)] == PROMPT
        assert 'picker_handoff_gap_seconds_count{why="move"} 1.0' in await counted(there, "a")
        assert 'picker_handoff_taken_total{why="move"} 1.0' in await counted(there, "b")
        assert "X-Handoff-Why" not in there.engines["b"].headers[-1]


async def test_a_stream_whose_new_engine_is_not_there_comes_back() -> None:
    async with pool() as there:
        there.engines["a"].every_s = 0.01
        there.engines["b"].status = 503
        proxy = there.proxies["a"]
        asking = asyncio.create_task(there.post(CHAT, ASKED | {"stream": True}))
        while not any(flight.ready for flight in proxy.flights.here()):
            await asyncio.sleep(0.01)
        assert next(proxy.flights.here()).leave("b")
        assert (await asking)[1] == there.alone()


# -- who may ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/handoff/engine/v1/completions", "/handoff/messages", "/handoff/members"])
@pytest.mark.parametrize("token", ["", "a-secret-of-the-poo", "\u00e9" * 20])
async def test_strangers_are_no_peers(path: str, token: str) -> None:
    async with pool() as there:
        method = "PUT" if path.endswith("members") else "POST"
        headers = {TOKEN_HEADER: token}
        async with there.session.request(method, there.url() + path, data=b"[]", headers=headers) as response:
            assert response.status == 404
        assert not there.engines["a"].heard


async def test_no_engine_learns_the_pools_token_and_all_learn_the_clients() -> None:
    async with pool() as there:
        there.engines["a"].dies_after = 5
        headers = {"Authorization": "Bearer x", "X-Own": "1", TOKEN_HEADER: TOKEN}
        await there.post(CHAT, ASKED | {"stream": True}, headers=headers)
        for engine in there.engines.values():
            assert TOKEN_HEADER not in engine.headers[-1]
            assert (engine.headers[-1]["Authorization"], engine.headers[-1]["X-Own"]) == ("Bearer x", "1")


async def test_without_a_token_nobody_is_a_peer() -> None:
    async with pool(token=None) as there:
        there.engines["a"].dies_after = 3
        assert b"the engine failed" in (await there.post(CHAT, ASKED | {"stream": True}))[1]
        path = "/handoff/engine/v1/completions"
        assert (await there.post(path, {}, headers={TOKEN_HEADER: ""}))[0] == 404


async def test_kv_is_pulled_from_hosts_of_the_pool_only() -> None:
    async with pool() as there:
        for host, status in (("127.0.0.1", 200), ("10.0.0.1", 400)):
            body = {"prompt": [1], "kv_transfer_params": {"remote_host": host}}
            path, headers = "/handoff/engine/v1/completions", {TOKEN_HEADER: TOKEN}
            assert (await there.post(path, body, headers=headers))[0] == status
        assert there.engines["a"].heard[0][1]["kv_transfer_params"] == {"remote_host": "127.0.0.1"}


async def test_a_membership_is_put_by_who_knows_the_token() -> None:
    async def put(there: Pool, members: object) -> int:
        url, headers = there.url() + "/handoff/members", {TOKEN_HEADER: TOKEN}
        async with there.session.put(url, headers=headers, json=members) as response:
            return response.status

    urls = ("file:///etc", "http://a@b/")
    wrong: list[object] = [*({"engines": {"c": url}} for url in urls), {"unknown": 1}, []]
    async with pool() as there:
        assert await put(there, {"engines": {"c": "http://10.0.0.9:8000/"}}) == 204
        assert there.proxies["a"].members.peers("a") == ["c"]
        for members in wrong:
            assert await put(there, members) == 400
