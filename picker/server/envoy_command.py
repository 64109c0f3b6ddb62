"""`picker envoy-config`: the Envoy bootstrap that stands beside a picker, as YAML."""

from pathlib import Path
from typing import get_args

import click
import yaml

from picker.server.envoy import Balancing, EnvoySpec, RequestMode, ResponsePath, bootstrap

PORT = click.IntRange(1, 65535)


@click.command("envoy-config")
@click.option("--listen", default="0.0.0.0", help="Address where clients are served; the admin port is on localhost.")
@click.option("--listener-port", type=PORT, default=8081, help="Port where clients are served.")
@click.option("--envoy-admin-port", type=PORT, default=19000, help="Envoy's own admin port, localhost only.")
@click.option("--picker-host", default="127.0.0.1", help="IP address of the picker.")
@click.option("--grpc-port", type=PORT, default=9002, help="The picker's --grpc-port.")
@click.option("--workers", type=click.IntRange(1, 64), default=1, help="The picker's --workers.")
@click.option("--tls/--no-tls", default=False, help="Whether the picker serves TLS; its certificate is not verified.")
@click.option("--balancing", type=click.Choice(get_args(Balancing)), default="original-dst")
@click.option("--endpoints", default="", help="Comma list of ip:port, for override-host alone.")
@click.option("--response-path", type=click.Choice(get_args(ResponsePath)), default="access-log")
@click.option("--request-mode", type=click.Choice(get_args(RequestMode)), default="full-duplex")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="File to write; default: print it.")
def envoy_config(
    listen: str,
    listener_port: int,
    envoy_admin_port: int,
    picker_host: str,
    grpc_port: int,
    workers: int,
    tls: bool,
    balancing: Balancing,
    endpoints: str,
    response_path: ResponsePath,
    request_mode: RequestMode,
    output: Path | None,
) -> None:
    """Write an Envoy bootstrap that asks this picker.

    original-dst goes to whatever address the pick names, so Envoy needs no list of engines; picker must then answer
    with one destination. override-host takes a list with fallbacks, of the endpoints that are named here.
    """
    addresses = tuple(address.strip() for address in endpoints.split(",") if address.strip())
    if (balancing == "override-host") != bool(addresses):
        raise click.UsageError("--endpoints goes with --balancing override-host, and only with it")
    spec = EnvoySpec(
        listener_port=listener_port,
        admin_port=envoy_admin_port,
        picker_ports=tuple(range(grpc_port, grpc_port + workers)),
        endpoints=addresses,
        response_path=response_path,
        request_mode=request_mode,
        balancing=balancing,
        listen=listen,
        picker_host=picker_host,
        tls=tls,
    )
    text = yaml.safe_dump(bootstrap(spec), sort_keys=False)
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text)
