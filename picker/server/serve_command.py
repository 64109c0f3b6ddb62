"""`picker serve`: the command line of the service. Flags of the peers keep their names and their Go manners."""

import asyncio
import os
import socket
import sys
import uuid
from pathlib import Path
from typing import Any

import click
import structlog
import uvloop

from picker.policies.registry import REGISTRY
from picker.pool.kube.access import OLD_GROUP
from picker.pool.kube.scope import POOL_GROUP
from picker.pool.source import BadSource
from picker.server.collector import collect
from picker.server.config import ConfigError
from picker.server.flags import WARNINGS, peers_flags
from picker.server.go_flags import DURATION, SIZE, VERBOSITY, switch
from picker.server.options import DEFAULT_POOL, ServeOptions, parse_pools, parse_ports, parse_selector
from picker.server.serve import configuration
from picker.server.serve import serve as run_service
from picker.server.transport_option import transport_option
from picker.server.workers import supervise
from picker.telemetry import logs

PORT = click.IntRange(1, 65535)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
ZAP_LEVELS = {"warn": "warning", "dpanic": "error", "panic": "error", "fatal": "error"}
SCRAPE_S = (0.05, 1.5)


@click.command()
@click.option("--host", default="0.0.0.0", help="Address for the gRPC, health and metrics ports.")
@click.option("--grpc-port", type=PORT, default=9002, help="ext_proc and access log.")
@transport_option
@click.option("--grpc-health-port", type=PORT, help="gRPC health, plain; default: after the last gRPC port, 9003.")
@click.option("--metrics-port", type=PORT, default=9090, help="Prometheus /metrics.")
@click.option(
    "--admin-port",
    type=PORT,
    help="Decision log and pool as JSON, localhost only; default: after the last metrics port.",
)
@click.option("--handoff-port", type=PORT, help="Where hand-off proxies ask for pool and plan; none if not given.")
@click.option("--handoff-token-file", type=FILE, help="The pool's token, which they must show.")
@click.option("--handoff-cert-dir", type=FOLDER, help="tls.crt and tls.key of that port, which is plain without.")
@click.option("--handoff-client-ca-file", type=FILE, help="CA of the proxies that may ask, besides the token.")
@click.option("--handoff-peer-port", type=PORT, help="Where proxies with certificates meet; none if they have none.")
@click.option("--pool-name", default="", help="InferencePools to serve: NAME,NAME:PORT; a name alone with --endpoints.")
@click.option("--pool-namespace", default="", help="Of the pools; default: env NAMESPACE, POD_NAMESPACE, our own.")
@click.option("--pool-group", default=POOL_GROUP, help="API group of the InferencePools.")
@click.option(
    "--pool-header", default="", help="Request header that may name the pool; only behind a proxy that sets it."
)
@click.option("--endpoint-selector", default="", help="Labels key=value,... of the pods to serve, without a pool.")
@click.option("--endpoint-target-ports", default="", help="Their ports, 1 to 8, with --endpoint-selector.")
@click.option("--endpoints", default="", help="Comma list of ip:port to serve, without Kubernetes.")
@click.option(
    "--endpoints-file", default="", help="YAML or JSON of endpoints, read again when it changes; {pool} is a name."
)
@click.option("--kv-events-port", type=PORT, help="Where pods publish KV events, unless they say otherwise.")
@click.option("--kv-replay-port", type=PORT, help="Where pods replay KV events, unless they say otherwise.")
@click.option("--config-file", type=FILE, help="EndpointPickerConfig YAML.")
@click.option("--config-text", default="", help="The same as text.")
@click.option("--policy", type=click.Choice(sorted(REGISTRY)), help="Policy with its defaults, over the config file's.")
@click.option("--secure-serving", **switch(True), help="TLS on the gRPC ports.")
@click.option("--cert-path", type=FOLDER, help="tls.crt and tls.key.")
@click.option("--enable-cert-reload", **switch(False), help="Read the certificate again when it changes.")
@click.option(
    "--metrics-cert-dir", type=FOLDER, help="tls.crt and tls.key of the metrics port, which is plain without."
)
@click.option("--metrics-client-ca-file", type=FILE, help="CA of the clients that may read the metrics.")
@click.option("--grpc-max-recv-msg-size", "max_receive_bytes", type=SIZE, default="64MiB", help="Largest gRPC message.")
@click.option("--grpc-max-send-msg-size", "max_send_bytes", type=SIZE, default="64MiB", help="Largest gRPC message.")
@click.option(
    "--refresh-metrics-interval", "scrape_interval_s", type=DURATION, help="Between scrapes of a busy engine."
)
@click.option("--disable-endpoint-subset-filter", **switch(False), help="Pass over the proxy's subset hint.")
@click.option("--emit-endpoint-scores", **switch(False), help="Tell the proxy every candidate's score, as metadata.")
@click.option("--kubeconfig", type=FILE, help="The cluster to watch; default: env KUBECONFIG, else the one we run in.")
@click.option("--ha-enable-leader-election", "leader_election", **switch(False), help="Ready only with the Lease.")
@click.option(
    "--unready-after-silence",
    "unready_after_silence_s",
    type=DURATION,
    default="0",
    help="Not ready once the API server is silent for so long; 0: serve from what is known.",
)
@click.option("--drain-timeout", "drain_timeout_s", type=DURATION, help="Default from the config file, else 30s.")
@click.option(
    "--drain-pause",
    "drain_pause_s",
    type=DURATION,
    help="Of the drain, how long new streams are still welcome; default: 5s in a cluster, else 0.",
)
@click.option("--workers", type=click.IntRange(1, 64), default=1, help="Processes, each on its own consecutive ports.")
@click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where a policy that learns keeps what it learned, over the config file's stateDir; default: nowhere.",
)
@click.option("--worker", type=click.IntRange(0), hidden=True)
@click.option("--collector", is_flag=True, hidden=True)
@click.option("--run-dir", type=click.Path(path_type=Path), hidden=True)
@click.option("--log-level", type=click.Choice(logs.LEVELS), help="Default: info.")
@click.option("-v", "--v", "verbosity", type=VERBOSITY, help="Verbosity as in klog; from 4 on: debug.")
@click.option("--zap-log-level", default="", hidden=True)
@click.option("--seed", type=int, help="Seed of random ties; random when not given.")
@peers_flags
@click.pass_context
def serve(ctx: click.Context, /, worker: int | None, collector: bool, **given: Any) -> None:
    """Answer Envoy: ext_proc in, endpoint out."""
    logs.configure(_level(given.pop("log_level"), given.pop("verbosity"), given.pop("zap_log_level")))
    try:
        options = _options(given)
    except ValueError as error:
        raise click.UsageError(str(error), ctx) from error
    if worker is None and not collector:
        for name, why in ctx.meta.get(WARNINGS, ()):
            structlog.get_logger(__name__).warning("a flag without meaning here", flag=name, reason=why)
    try:
        if collector:
            uvloop.run(collect(options, configuration(options)))
        elif options.workers > 1 and worker is None:
            asyncio.run(supervise(options, sys.argv[2:]))
        else:
            uvloop.run(run_service(options if worker is None else options.for_worker(worker)))
    except (ConfigError, BadSource, OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error


def _options(given: dict[str, Any]) -> ServeOptions:
    """Raises ValueError for what does not go together."""
    if (kubeconfig := given.pop("kubeconfig")) is not None:
        # By the environment, so that workers and whatever reads the configuration find the same one.
        os.environ["KUBECONFIG"] = str(kubeconfig)
    names, selector, ports = (given.pop(f) for f in ("pool_name", "endpoint_selector", "endpoint_target_ports"))
    namespace, interval = given.pop("pool_namespace"), given.pop("scrape_interval_s")
    local = given["endpoints"] or given["endpoints_file"]
    if not (local or names or selector):
        raise ValueError("say what to serve: --pool-name, --endpoint-selector, --endpoints or --endpoints-file")
    if selector and (names or local):
        raise ValueError("--endpoint-selector stands in place of a pool: give it alone")
    if given["pool_group"] == OLD_GROUP:
        raise ValueError(f"--pool-group {OLD_GROUP}: its InferencePools are gone; write them as {POOL_GROUP}/v1")
    if given["config_text"] and given["config_file"]:
        raise ValueError("--config-file and --config-text are two configurations: give one")
    workers, pools = given["workers"], parse_pools(names or (_deployment() if selector else DEFAULT_POOL))
    last = max([given["grpc_port"], *(pool.port for pool in pools if pool.port is not None)])
    given["grpc_health_port"] = given["grpc_health_port"] or last + workers
    given["admin_port"] = given["admin_port"] or given["metrics_port"] + workers
    given["policy"] = given["policy"] or ""
    options = ServeOptions(
        pools=pools,
        namespace=namespace or _own_namespace(),
        endpoint_selector=parse_selector(selector) if selector else {},
        endpoint_target_ports=parse_ports(ports) if ports else (),
        scrape_interval_s=None if interval is None else min(max(interval, SCRAPE_S[0]), SCRAPE_S[1]),
        identity=f"{os.environ.get('POD_NAME') or socket.gethostname()}_{uuid.uuid4()}",
        **given,
    )
    if wrong := options.port_conflict() or _wrong(options):
        raise ValueError(wrong)
    if options.in_cluster:
        for pool in options.pools:
            options.scope(pool.name)
    return options


def _wrong(options: ServeOptions) -> str:
    several = len(options.pools) > 1
    if several and options.endpoints:
        return "--endpoints are of one pool: give --endpoints-file with {pool} in its name"
    if several and options.endpoints_file and "{pool}" not in options.endpoints_file:
        return "several pools need several files: put {pool} into the name of --endpoints-file"
    if options.leader_election and not options.in_cluster:
        return "--ha-enable-leader-election needs Kubernetes to keep the Lease"
    if options.leader_election and options.workers > 1:
        return "--ha-enable-leader-election is for one worker: a follower's workers would serve nobody"
    if options.metrics_client_ca_file and not options.metrics_cert_dir:
        return "--metrics-client-ca-file needs --metrics-cert-dir: clients show certificates over TLS only"
    if (options.handoff_port is None) != (options.handoff_token_file is None):
        return "--handoff-port and --handoff-token-file belong together"
    if options.handoff_client_ca_file and not options.handoff_cert_dir:
        return "--handoff-client-ca-file needs --handoff-cert-dir: proxies show certificates over TLS only"
    return ""


def _own_namespace() -> str:
    for name in ("NAMESPACE", "POD_NAMESPACE"):
        if found := os.environ.get(name):
            return found
    try:
        return NAMESPACE_FILE.read_text().strip() or "default"
    except OSError:
        return "default"


def _deployment() -> str:
    """The Deployment that made our pod, which is what a picker without a pool is called."""
    return "-".join(os.environ.get("POD_NAME", "").split("-")[:-2]) or DEFAULT_POOL


def _level(own: str | None, verbosity: int | None, zap: str) -> str:
    if own or verbosity is not None:
        return own or ("debug" if (verbosity or 0) >= 4 else "info")
    if zap.isdigit():
        return "debug"
    level = ZAP_LEVELS.get(zap.lower(), zap.lower()) or "info"
    return level if level in logs.LEVELS else "info"
