"""The command line."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import click
import uvloop

from picker.policies.registry import REGISTRY
from picker.pool.source import BadSource
from picker.server.config import ConfigError
from picker.server.engine import engine
from picker.server.envoy_command import envoy_config
from picker.server.explain_command import explain
from picker.server.options import ServeOptions
from picker.server.replay_command import replay
from picker.server.serve import serve as run_service
from picker.server.up.command import up
from picker.server.validate_command import validate_engine
from picker.server.workers import supervise
from picker.telemetry import logs

PORT = click.IntRange(1, 65535)
READABLE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
def main() -> None:
    """picker: the endpoint picker that learns."""


@main.command()
@click.option("--host", default="0.0.0.0", help="Address for the gRPC, health and metrics ports.")
@click.option("--grpc-port", type=PORT, default=9002, help="ext_proc and access log.")
@click.option("--grpc-health-port", type=PORT, help="gRPC health, plain; default: after the last gRPC port, 9003.")
@click.option("--metrics-port", type=PORT, default=9090, help="Prometheus /metrics.")
@click.option(
    "--admin-port",
    type=PORT,
    help="Decision log and pool as JSON, localhost only; default: after the last metrics port.",
)
@click.option("--endpoints", default="", help="Comma list of ip:port to serve.")
@click.option("--endpoints-file", type=READABLE, help="YAML or JSON file of endpoints, read again when it changes.")
@click.option("--config-file", type=READABLE, help="EndpointPickerConfig YAML.")
@click.option("--policy", type=click.Choice(sorted(REGISTRY)), help="Policy with its defaults, over the config file's.")
@click.option("--pool-name", default="default", help="Name of the pool in metrics.")
@click.option("--secure-serving", type=bool, default=True, help="TLS on the gRPC port.")
@click.option("--cert-path", type=click.Path(exists=True, file_okay=False, path_type=Path), help="tls.crt and tls.key.")
@click.option("--enable-cert-reload", is_flag=True, help="Read the certificate again when it changes.")
@click.option("--drain-timeout", "drain_timeout_s", type=float, help="Seconds; default from the config file, else 30.")
@click.option("--workers", type=click.IntRange(1, 64), default=1, help="Processes, each on its own consecutive ports.")
@click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where a policy that learns keeps what it learned, over the config file's stateDir; default: nowhere.",
)
@click.option("--worker", type=click.IntRange(0), hidden=True)
@click.option("--run-dir", type=click.Path(path_type=Path), hidden=True)
@click.option("--log-level", type=click.Choice(logs.LEVELS), default="info")
@click.option("--seed", type=int, help="Seed of random ties; random when not given.")
def serve(worker: int | None, policy: str | None, **given: Any) -> None:
    """Answer Envoy: ext_proc in, endpoint out."""
    logs.configure(given["log_level"])
    workers = given["workers"]
    given["grpc_health_port"] = given["grpc_health_port"] or given["grpc_port"] + workers
    given["admin_port"] = given["admin_port"] or given["metrics_port"] + workers
    options = ServeOptions(policy=policy or "", **given)
    if wrong := options.port_conflict():
        raise click.UsageError(wrong)
    if not options.endpoints and options.endpoints_file is None:
        raise click.UsageError("say which endpoints there are: --endpoints or --endpoints-file")
    try:
        if options.workers > 1 and worker is None:
            asyncio.run(supervise(options, sys.argv[2:]))
        else:
            uvloop.run(run_service(options if worker is None else options.for_worker(worker)))
    except (ConfigError, BadSource, OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error


main.add_command(engine)
main.add_command(envoy_config)
main.add_command(explain)
main.add_command(replay)
main.add_command(up)
main.add_command(validate_engine)

if __name__ == "__main__":
    main()
