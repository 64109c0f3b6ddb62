"""Several pools behind one picker: whose stream it is, and whose flight the access log speaks of."""

import pytest
from ext_proc_messages import request_body, request_headers
from small_service import CHAT, POST, Clock, Peers, in_flight, make_service

from picker.exchange import keys
from picker.exchange.access_log import AccessRecord
from picker.exchange.failures import Refusal
from picker.server.conversation import Conversation
from picker.server.pools import Pools
from picker.server.service import Service

GET_CHAT = request_headers({**POST, "x-pool": "embed"})


def lane(number: int, lanes: int, address: str) -> Service:
    """A service whose flights leave `number` over `lanes`."""
    return make_service(Clock(), addresses=(address,), worker=number, workers=lanes)


@pytest.fixture
def chat() -> Service:
    return lane(0, 2, "10.0.0.1:8000")


@pytest.fixture
def embed() -> Service:
    return lane(1, 2, "10.0.0.2:8000")


@pytest.fixture
def pools(chat: Service, embed: Service) -> Pools:
    return Pools({"chat": chat, "embed": embed}, header="X-Pool")


def test_metadata_goes_before_the_port_and_the_port_before_the_header(
    pools: Pools, chat: Service, embed: Service
) -> None:
    assert pools.of_stream("chat", [(keys.POOL, "embed")], b"") is embed
    assert pools.of_stream("chat", [("other", "embed")], GET_CHAT) is chat
    assert pools.of_stream("", [], GET_CHAT) is embed


def test_no_header_is_believed_that_nobody_told_us_to_believe(chat: Service, embed: Service) -> None:
    refusal = Pools({"chat": chat, "embed": embed}).of_stream("", [], GET_CHAT)
    assert isinstance(refusal, Refusal)


@pytest.mark.parametrize("name", ["elsewhere", "Chat", "chat ", b"chat", "\x00"])
def test_an_unknown_pool_is_a_404_that_does_not_repeat_the_name(pools: Pools, name: str | bytes) -> None:
    refusal = pools.of_stream("", [(keys.POOL, name)], GET_CHAT)
    assert isinstance(refusal, Refusal)
    assert refusal.status == 404
    assert b"elsewhere" not in refusal.body()


@pytest.mark.parametrize("message", [b"", b"\xff\xff", request_headers(POST)])
def test_a_stream_that_names_none_of_several_pools_is_a_404(pools: Pools, message: bytes) -> None:
    refusal = pools.of_stream("", [], message)
    assert isinstance(refusal, Refusal)
    assert refusal.status == 404


def test_the_only_pool_need_not_be_named(chat: Service) -> None:
    assert Pools({"chat": chat}).of_stream("", [], b"") is chat


def flight_of(service: Service) -> int:
    """A request on its way, whose end the access log will tell."""
    conversation = Conversation(service)
    conversation.receive(request_headers(POST))
    conversation.receive(request_body(CHAT, end=True))
    return service.router.log.last(1)[0].flight


def test_what_the_log_tells_of_a_flight_reaches_the_pool_that_picked(
    pools: Pools, chat: Service, embed: Service
) -> None:
    flights = [flight_of(service) for service in (chat, embed, embed)]
    assert len(set(flights)) == 3
    pools.logged(AccessRecord(flights[1], True, 200))
    assert (in_flight(chat), in_flight(embed)) == (1, 1)
    pools.logged(AccessRecord(flights[0], True, 200))
    assert (in_flight(chat), in_flight(embed)) == (0, 1)


def test_a_log_that_connects_can_tell_of_every_pool(pools: Pools, chat: Service, embed: Service) -> None:
    pools.access_log_opened()
    assert chat.access_log_live
    assert embed.access_log_live
    pools.access_log_closed()
    assert not chat.access_log_live
    assert not embed.access_log_live


def test_a_flight_of_another_worker_is_handed_over_in_its_own_lane() -> None:
    """Two workers and two pools: lanes 0 and 1 are the first pool's, 2 and 3 the second's; this is worker 0."""
    chat, embed = lane(0, 4, "10.0.0.1:8000"), lane(2, 4, "10.0.0.2:8000")
    peers = Peers()
    chat.relay = embed.relay = peers
    Pools({"chat": chat, "embed": embed}).logged(AccessRecord(7, True, 200))
    assert [lane for lane, _ in peers.sent] == [3]
