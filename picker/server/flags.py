"""The flags of llm-d-router v0.10 and of lwepp, and what becomes of each here: the same, ignored, or refused."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import click

Fate = Literal["same", "ignored", "refused"]
BOTH, ROUTER = "both", "llm-d-router"
WARNINGS = "picker.flags"
"""Where warnings about ignored flags are left in the command's context (`click.Context.meta`)."""


@dataclass(frozen=True, slots=True)
class PeerFlag:
    """`unless`: values of an ignored or refused flag that ask for nothing, and pass in silence."""

    name: str
    of: str
    fate: Fate
    why: str
    unless: tuple[str, ...] = ()


_AUTH = "metrics are served without authentication: keep the port inside the cluster, or use --metrics-client-ca-file"
_METRIC = "the names of the engines' metrics follow from the engine kind, label `llm-d.ai/engine-type`"
_OFF = ("false", "0", "f", "no", "n", "off")
_ON = ("true", "1", "t", "yes", "y", "on")

FLAGS = (
    PeerFlag("grpc-port", BOTH, "same", "9002"),
    PeerFlag("grpc-health-port", BOTH, "same", "the port after the last gRPC port, 9003"),
    PeerFlag(
        "metrics-port", BOTH, "same", "9090; plain HTTP without authentication unless `--metrics-cert-dir` is given"
    ),
    PeerFlag("pool-name", BOTH, "same", "and more: `a,b` are two pools, `a,b:9012` gives b a port of its own"),
    PeerFlag("pool-namespace", BOTH, "same", "else env NAMESPACE, POD_NAMESPACE, the service account's, `default`"),
    PeerFlag(
        "pool-group",
        BOTH,
        "same",
        "inference.networking.k8s.io; the older group, whose pools ended in v1alpha2, is refused",
    ),
    PeerFlag(
        "endpoint-selector", BOTH, "same", "equality only; sets and existence, as llm-d-router has them, are refused"
    ),
    PeerFlag("endpoint-target-ports", BOTH, "same", "1 to 8"),
    PeerFlag("config-file", BOTH, "same", "see docs/config.md for the plugins"),
    PeerFlag("config-text", BOTH, "same", "not together with `--config-file`"),
    PeerFlag("secure-serving", BOTH, "same", "true"),
    PeerFlag("cert-path", BOTH, "same", "a folder with `tls.crt` and `tls.key`; self-signed without it"),
    PeerFlag("enable-cert-reload", BOTH, "same", "false"),
    PeerFlag(
        "ha-enable-leader-election", BOTH, "same", "false; the same Lease, so both may run side by side in a change"
    ),
    PeerFlag("drain-timeout", ROUTER, "same", "30s; all that happens after SIGTERM, the pause included"),
    PeerFlag("disable-endpoint-subset-filter", BOTH, "same", "false"),
    PeerFlag("emit-endpoint-scores", ROUTER, "same", "false; costs turned round, where the policy has no scores"),
    PeerFlag("grpc-max-recv-msg-size", ROUTER, "same", "64MiB"),
    PeerFlag("grpc-max-send-msg-size", ROUTER, "same", "64MiB"),
    PeerFlag(
        "refresh-metrics-interval", ROUTER, "same", "200ms; of busy engines, 50ms to 1.5s, outside of it the nearest"
    ),
    PeerFlag("metrics-cert-dir", ROUTER, "same", "a folder with `tls.crt` and `tls.key` for the metrics port"),
    PeerFlag("metrics-client-ca-file", ROUTER, "same", "only clients with a certificate of this CA read the metrics"),
    PeerFlag("v", BOTH, "same", "4 and more is `--log-level debug`, less is `info`"),
    PeerFlag(
        "zap-log-level", BOTH, "same", "debug, info, error, panic or a number; the levels of picker: `--log-level`"
    ),
    PeerFlag("zap-encoder", BOTH, "ignored", "logs are JSON, a line each", ("json",)),
    PeerFlag("zap-devel", BOTH, "ignored", "logs are JSON, a line each", _OFF),
    PeerFlag("zap-stacktrace-level", BOTH, "ignored", "tracebacks come with errors"),
    PeerFlag("zap-time-encoding", BOTH, "ignored", "times are ISO 8601 in UTC", ("iso8601", "rfc3339", "rfc3339nano")),
    PeerFlag("tracing", BOTH, "ignored", "no spans are sent; the decision log tells every pick", _OFF),
    PeerFlag("health-checking", BOTH, "ignored", "health is always served", _ON),
    PeerFlag("enable-pprof", BOTH, "ignored", "there is no Go runtime to profile", _OFF),
    PeerFlag("enable-grpc-stream-metrics", ROUTER, "ignored", "these metrics are always there", _ON),
    PeerFlag("refresh-prometheus-metrics-interval", ROUTER, "ignored", "gauges are read off when Prometheus asks"),
    PeerFlag(
        "metrics-staleness-threshold", ROUTER, "ignored", "scraped values fade with their age, there is no threshold"
    ),
    PeerFlag("allow-experimental-plugins", ROUTER, "ignored", "a plugin is there or is refused by name", _OFF),
    PeerFlag("metrics-endpoint-auth", BOTH, "refused", _AUTH, _OFF),
    PeerFlag(
        "tls-min-version", ROUTER, "refused", "gRPC for Python cannot raise it: TLS 1.2 and 1.3", ("VersionTLS12",)
    ),
    PeerFlag(
        "tls-cipher-suites", ROUTER, "refused", "set env GRPC_SSL_CIPHER_SUITES, with the names that OpenSSL uses"
    ),
    PeerFlag("total-queued-requests-metric", ROUTER, "refused", _METRIC),
    PeerFlag("total-running-requests-metric", ROUTER, "refused", _METRIC),
    PeerFlag("kv-cache-usage-percentage-metric", ROUTER, "refused", _METRIC),
    PeerFlag("lora-info-metric", ROUTER, "refused", _METRIC),
    PeerFlag("cache-info-metric", ROUTER, "refused", _METRIC),
)


def peers_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command that also knows the flags that it ignores or refuses. Given ones go to `meta[WARNINGS]`."""
    for flag in FLAGS:
        if flag.fate != "same":
            heed = _heeding(flag)
            command = click.option(
                f"--{flag.name}", is_flag=False, flag_value="true", hidden=True, expose_value=False, callback=heed
            )(command)
    return command


def _heeding(flag: PeerFlag) -> Callable[[click.Context, click.Parameter, str | None], None]:
    def heed(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
        if value is None or value in flag.unless:
            return
        if flag.fate == "refused":
            raise click.UsageError(f"--{flag.name} is refused: {flag.why}", ctx)
        ctx.meta.setdefault(WARNINGS, []).append((flag.name, flag.why))

    return heed


def section() -> str:
    """The table for people who come from a peer, as Markdown."""
    rows = ["| flag | of | here | |", "|---|---|---|---|"]
    for flag in FLAGS:
        quiet = f" (not for `{flag.unless[0]}`)" if flag.unless else ""
        rows.append(f"| `--{flag.name}` | {flag.of} | {flag.fate}{quiet} | {flag.why} |")
    return "\n".join(rows) + "\n"
