"""The gateway's restriction: metadata `x-gateway-destination-endpoint-subset` in `envoy.lb.subset_hint`."""

from picker.conformance import heard
from picker.conformance.case import Broken, NotAsked, Pack
from picker.conformance.epp import Epp, many

PACK: Pack[Epp] = Pack("subset")
PROTOCOL = "GIE proposal 004, subset"
NOBODY = "192.0.2.1:1"
"""An address of a documentation range (RFC 5737): in no pool."""
MOST = 16
"""Endpoints that are asked for one by one."""


async def _stays(epp: Epp, subset: object, allowed: tuple[str, ...]) -> None:
    """With and without a body, every destination is allowed."""
    for replies in (await epp.ask(subset=subset), await epp.ask_bodyless(subset=subset)):
        listed = heard.destinations(replies)
        if not set(listed) <= set(allowed):
            raise Broken(f"sent to {', '.join(listed)} with the subset {subset!r}")


@PACK.case(PROTOCOL)
async def subset_is_a_list(epp: Epp) -> None:
    """A list of ip:port restricts the pick, its fallbacks, and requests without a body."""
    await many(lambda one: _stays(epp, [one], (one,)), epp.several()[:MOST])


@PACK.case(PROTOCOL)
async def subset_is_a_string(epp: Epp) -> None:
    """One ip:port as a string restricts like a list of one."""
    await many(lambda one: _stays(epp, one, (one,)), epp.several()[:MOST])


@PACK.case(PROTOCOL)
async def subset_is_a_string_of_several(epp: Epp) -> None:
    """A string may name several ip:port, with commas."""
    allowed = epp.several()[:2]
    await _stays(epp, ",".join(allowed), allowed)


@PACK.case("GIE conformance, data parallelism")
async def subset_tells_ports_apart(epp: Epp) -> None:
    """Endpoints of one ip with several ports are restricted one by one."""
    ips = [endpoint.rpartition(":")[0] for endpoint in epp.endpoints]
    ranks = [endpoint for endpoint, ip in zip(epp.endpoints, ips, strict=True) if ips.count(ip) > 1]
    if not ranks:
        raise NotAsked("the pool must have two ports of one ip")
    await many(lambda one: _stays(epp, [one], (one,)), ranks[:MOST])


@PACK.case(PROTOCOL)
async def unknown_names_are_passed_over(epp: Epp) -> None:
    """What of a subset is not in the pool is left out, the rest counts."""
    one = epp.several()[-1]
    await _stays(epp, [NOBODY, one], (one,))


@PACK.case(PROTOCOL)
async def empty_list_is_answered_with_503(epp: Epp) -> None:
    """A subset of nothing leaves nothing: 503 to the client, and no gRPC error."""
    await epp.refuses(503, subset=[])


@PACK.case(PROTOCOL)
async def empty_string_is_answered_with_503(epp: Epp) -> None:
    """An empty string is a subset of nothing as well."""
    await epp.refuses(503, subset="")


@PACK.case(PROTOCOL)
async def subset_out_of_the_pool_is_answered_with_503(epp: Epp) -> None:
    """A subset without any endpoint of the pool: 503 to the client, and no gRPC error."""
    await epp.refuses(503, subset=[NOBODY])


@PACK.case(PROTOCOL)
async def bodyless_request_out_of_the_pool_is_answered_with_503(epp: Epp) -> None:
    """The same without a body: a restriction does not fail open for a GET."""
    await epp.refuses(503, method="GET", path="/v1/models", subset=[NOBODY])
