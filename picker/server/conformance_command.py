"""`picker conformance`: does an EPP keep to the endpoint picker protocol? Any EPP; ours, if none is named."""

import asyncio
import contextlib
import tempfile
from dataclasses import replace
from pathlib import Path

import click
import grpc
from rich.console import Console

from picker.conformance.case import Broken, Result, Verdict
from picker.conformance.epp import LIMITS, Epp, discover
from picker.conformance.report import as_json, summary, table
from picker.conformance.runner import WIRE, run
from picker.conformance.through_envoy import THROUGH_ENVOY
from picker.conformance.tls import plain_door
from picker.server.conformance_stand import Target, UnderTest, gateways, start_picker
from picker.server.processes import Children
from picker.server.up.stack import StackError


@click.command()
@click.option("--target", "--epp", default="", help="HOST:PORT of the EPP; without it a picker is started.")
@click.option("--insecure", is_flag=True, help="The EPP speaks gRPC without TLS.")
@click.option("--endpoints", default="", help="Comma list of the pool's ip:port; default: what the EPP names.")
@click.option("--dead-endpoint", default="", help="One more ip:port of the pool, where nothing listens; for --envoy.")
@click.option("--health", default="", help="HOST:PORT of its plain health service; default: the next port.")
@click.option("--empty-target", default="", help="HOST:PORT of an EPP of the same kind whose pool is empty.")
@click.option("--testing-plugins", is_flag=True, help="Its steering filter and served verifier are on.")
@click.option("--model", default="conformance", help="A model that the EPP lets pass unchanged.")
@click.option("--envoy", is_flag=True, help="Ask it through a real Envoy too, with echo servers at the endpoints.")
@click.option("--second-epp", default="", help="HOST:PORT of the EPP of a second pool, for --envoy.")
@click.option("--second-endpoints", default="", help="Comma list of its endpoints.")
@click.option("--patience", default=5.0, type=click.FloatRange(0.1, 60), help="Seconds until a reply is missed.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the results there.")
def conformance(
    target: str,
    insecure: bool,
    endpoints: str,
    dead_endpoint: str,
    health: str,
    empty_target: str,
    testing_plugins: bool,
    model: str,
    envoy: bool,
    second_epp: str,
    second_endpoints: str,
    patience: float,
    json_file: Path | None,
) -> None:
    """Play the gateway's side against an EPP, rule by rule; docs/conformance.md has the rules.

    Ends with 0 only if no case failed. Cases for which something is missing, such as a second EPP, are not asked.
    """
    if envoy and target and not endpoints:
        raise click.UsageError("--envoy with --target needs --endpoints: echo servers are started there")
    first, second, empty = (
        _target(address, names, tls=not insecure)
        for address, names in ((target, endpoints), (second_epp, second_endpoints), (empty_target, ""))
    )
    given = None
    if first is not None:
        first, beside = replace(first, dead=dead_endpoint), f"{first.host}:{first.port + 1}"
        given = UnderTest(first, second, empty, health or beside, testing_plugins, model)
    try:
        results = asyncio.run(_check(given, patience, envoy))
    except (StackError, Broken, OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    Console().print(table(results))
    click.echo(summary(results))
    if json_file is not None:
        try:
            json_file.write_text(as_json(results))
        except OSError as error:
            raise click.ClickException(str(error)) from error
    if any(result.verdict is Verdict.FAILED for result in results):
        raise SystemExit(1)


async def _check(given: UnderTest | None, patience_s: float, envoy: bool) -> list[Result]:
    with tempfile.TemporaryDirectory(prefix="picker-conformance-") as name:
        folder = Path(name)
        children = Children(folder / "logs")
        try:
            under_test = given or await start_picker(children, folder)
            if not envoy:
                return await over_the_wire(under_test, patience_s)
            async with gateways(children, folder, under_test) as gateway:
                return [*await over_the_wire(under_test, patience_s), *await run(THROUGH_ENVOY, gateway)]
        finally:
            await children.stop()


async def over_the_wire(under_test: UnderTest, patience_s: float) -> list[Result]:
    """Every case over gRPC alone. Raises Broken where not even the endpoints can be learned."""
    first, empty = under_test.first, under_test.empty
    async with contextlib.AsyncExitStack() as parts:
        door = await _door(parts, first)
        epp = Epp(
            channel=await _channel(parts, door),
            endpoints=first.pool,
            model=under_test.model,
            patience_s=patience_s,
            health=await _channel(parts, under_test.health),
            empty=await _channel(parts, await _door(parts, empty)) if empty else None,
            door=door,
            address=(first.host, first.port) if first.tls else None,
            testing=under_test.testing,
        )
        if not epp.endpoints:
            epp = replace(epp, endpoints=await discover(epp))
        return await run(WIRE, epp)


async def _door(parts: contextlib.AsyncExitStack, target: Target) -> str:
    """Where to connect without TLS: gRPC verifies certificates and gateways do not, so with TLS a door goes between."""
    return await parts.enter_async_context(plain_door(target.host, target.port)) if target.tls else target.address


async def _channel(parts: contextlib.AsyncExitStack, address: str) -> grpc.aio.Channel:
    channel: grpc.aio.Channel = await parts.enter_async_context(grpc.aio.insecure_channel(address, options=LIMITS))
    return channel


def _target(address: str, endpoints: str, *, tls: bool) -> Target | None:
    """None for no address. Raises UsageError for what is none."""
    host, _, port = address.rpartition(":")
    if address and not (host and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise click.UsageError(f"{address!r} is not HOST:PORT")
    names = tuple(name.strip() for name in endpoints.split(",") if name.strip())
    return Target(address, names, tls) if address else None
