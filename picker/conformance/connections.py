"""How gateways connect: under names that are no host names, with compressed messages."""

import grpc

from picker.conformance import heard
from picker.conformance.case import NotAsked, Pack
from picker.conformance.epp import LIMITS, Epp

PACK: Pack[Epp] = Pack("connections")
ISTIO_NAME = "outbound|9002||epp.default.svc.cluster.local"
"""Istio's name of the EPP's cluster, which its Envoys send as authority and as TLS server name."""


@PACK.case("Istio: authority of the EPP's cluster")
async def any_authority_is_served(epp: Epp) -> None:
    """A stream whose :authority is a cluster's name, with characters that no host name has, is picked for."""
    async with grpc.aio.insecure_channel(_door(epp), (("grpc.default_authority", ISTIO_NAME), *LIMITS)) as channel:
        heard.destinations(await epp.ask(channel=channel))


@PACK.case("llm-d-router: gzip")
async def compressed_messages_are_read(epp: Epp) -> None:
    """Messages compressed with gzip are read like others."""
    async with grpc.aio.insecure_channel(_door(epp), LIMITS, grpc.Compression.Gzip) as channel:
        heard.destinations(await epp.ask(channel=channel))


def _door(epp: Epp) -> str:
    if not epp.door:
        raise NotAsked("no address for further connections was given")
    return epp.door
