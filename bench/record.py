"""The record of one run, and what it says: rows for a table, beside the targets. Pure: plain dicts in and out."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.rounds import SIZES, Figures, Measured

Record = Mapping[str, Any]

RESPONSE = {"none": "access log", "duplex": "echo"}
POOLS = (4, 64, 256, 1024)


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on a median: at most `bound`, or at least where `least`."""

    bound: float
    least: bool = False

    def met(self, median: float) -> bool:
        return median >= self.bound if self.least else median <= self.bound

    def __str__(self) -> str:
        return f"{'≥' if self.least else '≤'} {self.bound:,.0f}"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: a figure of the record under its path, named for people."""

    path: tuple[str, ...]
    title: str
    unit: str
    target: Target | None = None


ROWS = (
    Row(("cpu_us_per_request", "none_2k"), "request, 2 KB, access log", "µs CPU", Target(750)),
    Row(("cpu_us_per_request", "none_32k"), "request, 32 KB, access log", "µs CPU", Target(1000)),
    Row(("cpu_us_per_request", "duplex_2k"), "request, 2 KB, echo", "µs CPU", Target(750)),
    Row(("cpu_us_per_request", "duplex_32k"), "request, 32 KB, echo", "µs CPU", Target(1000)),
    Row(("cpu_us_per_request", "learned_2k"), "request, 2 KB, access log, learned", "µs CPU"),
    Row(("cpu_us_per_request", "learned_32k"), "request, 32 KB, access log, learned", "µs CPU"),
    Row(("cpu_us_per_chunk",), "streamed chunk, echo", "µs CPU"),
    *(
        Row(("service_us_per_request", f"{path}_{size}"), f"our own code, {size[:-1]} KB, {said}", "µs CPU")
        for path, said in RESPONSE.items()
        for size in SIZES
    ),
    *(
        Row((f"score_us_{name}", str(n)), f"score, {n:,} endpoints, {name}", "µs CPU", target)
        for name, targets in (
            ("learned", (Target(60), Target(200))),
            ("learned_large", (Target(60), Target(200))),
            ("multiplicative", (None, None)),
        )
        for n, target in zip((64, 1024), targets, strict=True)
    ),
    *(
        Row(("pick_us", str(n)), f"pick, {n:,} endpoints, text mode", "µs CPU", target)
        for n, target in ((4, None), (64, Target(100)), (256, None), (1024, Target(400)))
    ),
    *(
        Row(("pick_us_exact", str(n)), f"pick, {n:,} endpoints, exact mode", "µs CPU", target)
        for n, target in ((4, None), (64, Target(100)), (256, None), (1024, Target(400)))
    ),
    *(Row(("pick_us_learned", str(n)), f"pick, {n:,} endpoints, text mode, learned", "µs CPU") for n in POOLS),
    *(Row(("end_us", str(n)), f"end of a request, {n:,} endpoints", "µs CPU") for n in POOLS),
    *(Row(("end_us_learned", str(n)), f"end of a request, {n:,} endpoints, learned", "µs CPU") for n in POOLS),
    Row(("kv_blocks_per_s",), "KV blocks indexed", "per CPU second", Target(50_000, least=True)),
    Row(("index_bytes_per_pair",), "prefix index, 10 M (block, endpoint) pairs", "B per pair", Target(64)),
)


def load_record(found: Measured, versions: Mapping[str, str]) -> dict[str, Any]:
    """The part of the record that rounds of load give; `versions` names the peers that took part.

    A peer has one way of passing an answer: its figures stand under the keys of the loads that it was given.
    """
    record: dict[str, Any] = {}
    for name, figures in (("cpu_us", found.own), ("envoy_us", found.envoy), ("messages", found.messages)):
        record[f"{name}_per_request"] = _plain(figures, (*RESPONSE, "learned"))
        for path, suffix in (("duplex", ""), ("none", "_none")):
            if f"{path}_chunk" in figures:
                record[f"{name}_per_chunk{suffix}"] = figures[f"{path}_chunk"].as_json()
    record["peers"] = {
        name: {
            "version": version,
            "policy": "cache_aware",
            "cpu_us_per_request": {f"none_{size}": found.own[f"{name}_{size}"].as_json() for size in SIZES},
            "cpu_us_per_chunk": found.own[f"{name}_chunk"].as_json(),
        }
        for name, version in versions.items()
    }
    record |= {"load_average": found.loads, "yardstick_ms": found.yardsticks}
    return record


def _plain(figures: Figures, paths: Iterable[str]) -> dict[str, Any]:
    keys = (f"{path}_{size}" for path in paths for size in SIZES)
    return {key: figures[key].as_json() for key in keys if key in figures}


@dataclass(frozen=True, slots=True)
class Line:
    """A row as it is shown. `met` is None where nothing was aimed at."""

    title: str
    median: str
    spread: str
    runs: int
    unit: str
    target: str
    met: bool | None
    p99: str


def lines(record: Record) -> Iterator[Line]:
    """Every row whose figure was measured, in order."""
    for row in ROWS:
        figure = find(record, row.path)
        if figure is None:
            continue
        yield Line(
            title=row.title,
            median=number(figure["median"]),
            spread=f"{number(figure['min'])} – {number(figure['max'])}",
            runs=len(figure["runs"]),
            unit=row.unit,
            target=str(row.target) if row.target else "",
            met=row.target.met(figure["median"]) if row.target else None,
            p99=number(figure["p99"]) if "p99" in figure else "",
        )


def comparison(record: Record) -> list[tuple[str, ...]]:
    """Header, then one line per load: picker and the Envoy beside it on both response paths, then every peer."""
    peers = record.get("peers", {})
    header = ["CPU µs per", *(f"{what}, {path}" for path in RESPONSE.values() for what in ("picker", "Envoy"))]
    table = [(*header, *(f"{name} {peer['version']}" for name, peer in peers.items()))]
    for size in SIZES:
        ours = (
            _median(record, (whose, f"{path}_{size}"))
            for path in RESPONSE
            for whose in ("cpu_us_per_request", "envoy_us_per_request")
        )
        theirs = (_median(peer, ("cpu_us_per_request", f"none_{size}")) for peer in peers.values())
        table.append((f"request, {size[:-1]} KB", *ours, *theirs))
    chunks = (
        _median(record, (key,))
        for key in ("cpu_us_per_chunk_none", "envoy_us_per_chunk_none", "cpu_us_per_chunk", "envoy_us_per_chunk")
    )
    table.append(("streamed chunk", *chunks, *(_median(peer, ("cpu_us_per_chunk",)) for peer in peers.values())))
    return table


def find(record: Record, path: Sequence[str]) -> dict[str, Any] | None:
    """The figure under a path of keys, None where it was not measured."""
    found: Any = record
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, dict) else None


def number(value: float) -> str:
    """As many digits as mean something.

    >>> number(0.1234), number(12.34), number(1234567.0)
    ('0.12', '12.3', '1,234,567')
    """
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 1 else f"{value:.2f}"


def _median(record: Record, path: Sequence[str]) -> str:
    figure = find(record, path)
    return "–" if figure is None else number(figure["median"])
