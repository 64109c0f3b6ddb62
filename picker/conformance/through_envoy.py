"""What the Gateway API Inference Extension's suite asks of an EPP, asked over HTTP through a gateway."""

import asyncio
import collections
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import aiohttp

from picker.conformance import echo
from picker.conformance.case import Broken, Case, Check, NotAsked, Pack
from picker.conformance.messages import CHAT, chat
from picker.exchange import keys

REQUESTS, AT_ONCE = 100, 10
WEIGHTED_REQUESTS, WEIGHTED_AT_ONCE = 200, 5
WEIGHTS = (70, 30)


@dataclass(frozen=True, slots=True)
class Gateway:
    """Gateways before one EPP, each a URL: its engines spoken to in HTTP/1.1 and in h2c; one whose EPP is gone, failing
    open (with the two body modes) and closed; one over two pools by WEIGHTS.

    `endpoints` are those of the pool, `dead` one more of it where nobody listens, `second` those of the other pool.
    `testing`: the EPP can be steered.
    """

    session: aiohttp.ClientSession
    endpoints: tuple[str, ...]
    http: str
    h2c: str
    open_duplex: str
    open_buffered: str
    closed: str
    dead: str = ""
    weighted: str | None = None
    second: tuple[str, ...] = ()
    model: str = "conformance"
    testing: bool = True

    def pods(self, count: int) -> list[str]:
        """The ips of so many pods, or NotAsked."""
        ips = list(dict.fromkeys(map(_ip, self.endpoints)))
        if not self.testing:
            raise NotAsked("the EPP's plugins for conformance tests are not on")
        if len(ips) < count:
            raise NotAsked(f"the pool must have {count} pods")
        return ips[:count]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client got. `echoed` are the echo server's words, if they are an object."""

    status: int
    body: bytes
    served: str = ""
    echoed: Mapping[str, object] = field(default_factory=dict)

    @property
    def endpoint(self) -> str:
        """Where the request arrived. Raises Broken if nowhere."""
        if self.status != 200 or not self.echoed.get("endpoint"):
            raise Broken(f"status {self.status}: {self.body[:200].decode('utf-8', 'replace')}")
        return str(self.echoed["endpoint"])


async def ask(
    gateway: Gateway,
    url: str,
    *,
    steer: str = "",
    body: bytes | None = None,
    bodyless: bool = False,
    more: Mapping[str, str] | None = None,
) -> Answer:
    """One request; a small chat unless said otherwise. Raises aiohttp.ClientError."""
    headers = {**({keys.TEST_SELECTION: steer} if steer else {}), **(more or {})}
    if bodyless:
        asking = gateway.session.get(f"{url}/v1/models", headers=headers)
    else:
        data = chat(gateway.model) if body is None else body
        asking = gateway.session.post(url + CHAT, data=data, headers={**headers, "content-type": "application/json"})
    async with asking as response:
        received = await response.read()
        served = response.headers.get(keys.TEST_SERVED, "")
        return Answer(response.status, received, served, _object(received))


async def arrivals(gateway: Gateway, url: str, steer: str, count: int, at_once: int) -> collections.Counter[str]:
    """How many of `count` requests arrived at each endpoint, `at_once` of them at a time. Raises Broken."""
    gate = asyncio.Semaphore(at_once)

    async def one() -> str:
        async with gate:
            return (await ask(gateway, url, steer=steer)).endpoint

    async with asyncio.timeout(60):
        return collections.Counter(await asyncio.gather(*(one() for _ in range(count))))


def within(found: Mapping[str, int], allowed: Iterable[str]) -> None:
    """Every arrival is at an allowed endpoint, or Broken."""
    if astray := sorted(set(found) - set(allowed)):
        raise Broken(f"{sum(found[each] for each in astray)} of {sum(found.values())} went to {', '.join(astray)}")


# ------------------------------------------------------------------ following the EPP

FOLLOWING: Pack[Gateway] = Pack("following")


def _following(count: int) -> Check[Gateway]:
    async def check(gateway: Gateway) -> None:
        pods = gateway.pods(count)
        found = await arrivals(gateway, gateway.http, ",".join(pods), REQUESTS, AT_ONCE)
        within(found, [each for each in gateway.endpoints if _ip(each) in pods])

    return check


for _count in (1, 2, 3):
    FOLLOWING.add(
        f"following-{_count}-pods",
        f"{REQUESTS} requests, {AT_ONCE} at once, steered to {_count} of three pods, arrive there alone.",
        "GatewayFollowingEPPRouting",
        _following(_count),
    )


@FOLLOWING.case("GatewayFollowingEPPRoutingWithDataParallelism")
async def following_ports(gateway: Gateway) -> None:
    """Steered to any port of one pod; to one pod and one port of another; to all but one port of one pod."""
    first, second, third = gateway.pods(3)
    ports = {ip: [each for each in gateway.endpoints if _ip(each) == ip] for ip in (first, second, third)}
    if min(map(len, ports.values())) < 3:
        raise NotAsked("each pod must have three ports")
    asked: list[tuple[str, Sequence[str]]] = [
        (second, ports[second]),
        (f"{first},{ports[third][1]}", [*ports[first], ports[third][1]]),
        (
            ",".join([first, ports[second][0], ports[second][2], third]),
            [*ports[first], ports[second][0], ports[second][2], *ports[third]],
        ),
    ]
    for steer, allowed in asked:
        within(await arrivals(gateway, gateway.http, steer, REQUESTS, AT_ONCE), allowed)


@FOLLOWING.case("GatewayDestinationEndpointServed")
async def served_header_is_where_it_arrived(gateway: Gateway) -> None:
    """Steered to each endpoint in turn, the request arrives there and x-conformance-test-served-endpoint says so."""
    gateway.pods(1)
    for endpoint in gateway.endpoints:
        answer = await ask(gateway, gateway.http, steer=endpoint)
        if (answer.endpoint, answer.served) != (endpoint, endpoint):
            raise Broken(f"steered to {endpoint}, arrived at {answer.endpoint}, the header says {answer.served!r}")


@FOLLOWING.case("GIE proposal 004")
async def steered_out_of_the_pool_is_answered_with_503(gateway: Gateway) -> None:
    """Steered to an address of no pool, the client gets 503."""
    gateway.pods(1)
    for bodyless in (False, True):
        answer = await ask(gateway, gateway.http, steer="192.0.2.1:1", bodyless=bodyless)
        if answer.status != 503:
            raise Broken(f"status {answer.status} {'without' if bodyless else 'with'} a body")


@FOLLOWING.case("HTTPRouteMultipleGatewaysDifferentPools")
async def request_that_is_not_steered_stays_in_the_pool(gateway: Gateway) -> None:
    """Requests that say nothing about endpoints arrive at the pool's, with and without a body."""
    within(await arrivals(gateway, gateway.http, "", AT_ONCE, AT_ONCE), gateway.endpoints)
    within({(await ask(gateway, gateway.http, bodyless=True)).endpoint: 1}, gateway.endpoints)


# ------------------------------------------------------------------ bodies and protocols

BODIES: Pack[Gateway] = Pack("bodies")


@BODIES.case("Envoy ext_proc, full duplex")
async def long_body_arrives_whole(gateway: Gateway) -> None:
    """Bodies of 300 bytes, 64 KiB and 2 MiB arrive at the engine as they were sent."""
    for size in (300, 1 << 16, 2 << 20):
        body = chat(gateway.model, "y" * size)
        answer = await ask(gateway, gateway.http, body=body)
        if not answer.endpoint or answer.echoed.get("sha256") != hashlib.sha256(body).hexdigest():
            raise Broken(f"{answer.echoed.get('bytes')} bytes arrived of {len(body)}, not the same")


@BODIES.case("Envoy ext_proc, full duplex")
async def event_stream_arrives_whole(gateway: Gateway) -> None:
    """A streamed answer of 500 events reaches the client with every byte in its place."""
    answer = await ask(gateway, gateway.http, more={echo.EVENTS: "500"})
    if answer.status != 200 or answer.body != b"".join(map(echo.event, range(500))):
        raise Broken(f"status {answer.status}, {len(answer.body)} bytes")


def _speaks(protocol: str, url_of: str) -> Check[Gateway]:
    async def check(gateway: Gateway) -> None:
        answer = await ask(gateway, getattr(gateway, url_of))
        within({answer.endpoint: 1}, gateway.endpoints)
        if answer.echoed.get("protocol") != protocol:
            raise Broken(f"the engine was spoken to in {answer.echoed.get('protocol')}")
        if gateway.testing and answer.served != answer.endpoint:
            raise Broken(f"arrived at {answer.endpoint}, the header says {answer.served!r}")

    return check


for _name, _protocol, _url in (("http", "HTTP/1.1", "http"), ("h2c", "HTTP/2", "h2c")):
    BODIES.add(
        f"app-protocol-{_name}",
        f"A pool whose engines speak {_name} is picked for, and served in {_protocol} by the picked endpoint.",
        "InferencePoolAppProtocol",
        _speaks(_protocol, _url),
    )


# ------------------------------------------------------------------ the EPP away, and two of them

FAILING: Pack[Gateway] = Pack("failing")


@FAILING.case("GIE proposal 004, fallbacks")
async def dead_endpoint_is_passed_over(gateway: Gateway) -> None:
    """Steered to a dead endpoint and a live one, clients are answered, and the served header tells who did it."""
    live, *_ = gateway.pods(1)
    if not gateway.dead:
        raise NotAsked("no endpoint was given where nobody listens")
    for _ in range(AT_ONCE):
        answer = await ask(gateway, gateway.http, steer=f"{gateway.dead},{live}")
        within({answer.endpoint: 1}, gateway.endpoints)
        if answer.served != answer.endpoint:
            raise Broken(f"answered by {answer.endpoint}, the header says {answer.served!r}")


@FAILING.case("EppUnAvailableFailOpen")
async def open_with_a_body(gateway: Gateway) -> None:
    """The EPP gone and the pool failing open, a request whose body the gateway buffers arrives at some endpoint."""
    within({(await ask(gateway, gateway.open_buffered)).endpoint: 1}, gateway.endpoints)


@FAILING.case("EppUnAvailableFailOpen")
async def open_without_a_body(gateway: Gateway) -> None:
    """The EPP gone and the pool failing open, a request without a body arrives at some endpoint."""
    within({(await ask(gateway, gateway.open_duplex, bodyless=True)).endpoint: 1}, gateway.endpoints)


@FAILING.case("InferencePoolInvalidEPPService")
async def closed_without_an_epp(gateway: Gateway) -> None:
    """The EPP gone and the pool failing closed, the client gets 500 to 504."""
    answer = await ask(gateway, gateway.closed)
    if not 500 <= answer.status <= 504:
        raise Broken(f"status {answer.status}")


@FAILING.case("GatewayWeightedAcrossTwoInferencePools")
async def two_pools_by_weight(gateway: Gateway) -> None:
    """Of 200 requests steered to all endpoints of two pools, each pool gets its weight: its EPP keeps to its own."""
    if gateway.weighted is None:
        raise NotAsked("no second EPP was given")
    steer = ",".join([*gateway.endpoints, *gateway.second]) if gateway.testing else ""
    found = await arrivals(gateway, gateway.weighted, steer, WEIGHTED_REQUESTS, WEIGHTED_AT_ONCE)
    within(found, [*gateway.endpoints, *gateway.second])
    share = sum(found[each] for each in gateway.endpoints) / WEIGHTED_REQUESTS
    wanted = WEIGHTS[0] / sum(WEIGHTS)
    # As the suite does: ten points, or three standard deviations where that is more.
    if abs(share - wanted) > max(0.1, 3 * math.sqrt(wanted * (1 - wanted) / WEIGHTED_REQUESTS)):
        raise Broken(f"the first pool got {share:.0%} instead of {wanted:.0%}")


THROUGH_ENVOY: tuple[Case[Gateway], ...] = (*FOLLOWING.cases, *BODIES.cases, *FAILING.cases)
"""Every case through a gateway."""


def _ip(endpoint: str) -> str:
    return endpoint.rpartition(":")[0]


def _object(body: bytes) -> Mapping[str, object]:
    try:
        decoded = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return decoded if isinstance(decoded, dict) else {}
